//! A running recorder, and a sender of packets.

use std::fs::File;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::time::{Duration, Instant};

use retrocap::query::status::Status;
use tempfile::TempDir;

use crate::generate::{self, Plain};
use crate::namespaces::Namespace;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_retrocap");
pub(crate) const MIB: u64 = 1 << 20;
/// How much memory a process may use beyond its budget.
pub(crate) const BEYOND_BUDGET: u64 = 32 * MIB;

/// `retrocap run` as a child process, which is killed on drop.
pub(crate) struct Recorder {
    pub(crate) child: Child,
    pub(crate) directory: TempDir,
}

impl Recorder {
    /// Records a namespace.
    pub(crate) fn live(namespace: &Namespace, arguments: &[&str]) -> Self {
        Self::live_under(namespace, &[], arguments)
    }

    /// Records a namespace; `before` are the words of a command that starts the recorder.
    pub(crate) fn live_under(namespace: &Namespace, before: &[&str], arguments: &[&str]) -> Self {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &namespace.name]).args(before).args([PROGRAM, "run"]).args(arguments);
        Self::start(command, directory())
    }

    /// Serves a capture, which may come through `stdin`.
    pub(crate) fn replaying(arguments: &[&str], stdin: Stdio) -> Self {
        let mut command = Command::new(PROGRAM);
        command.arg("run").args(arguments).stdin(stdin);
        Self::start(command, directory())
    }

    /// Starts the recorder, and waits until it listens.
    pub(crate) fn start(mut command: Command, directory: TempDir) -> Self {
        let log = File::options().create(true).append(true).open(directory.path().join("log")).unwrap();
        command.arg("--socket").arg(directory.path().join("socket"));
        // Do not write into this machine's own audit log.
        command.arg("--audit-log").arg(directory.path().join("audit.log"));
        command.stdout(Stdio::null()).stderr(log);
        let mut recorder = Self { child: command.spawn().unwrap(), directory };
        eventually("it listens", || {
            if let Some(status) = recorder.child.try_wait().unwrap() {
                panic!("the recorder ended, {status}: {}", recorder.log());
            }
            std::os::unix::net::UnixStream::connect(recorder.socket()).is_ok()
        });
        recorder
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path("socket")
    }

    /// A path in the recorder's temporary folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Its log so far.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.path("log")).unwrap()).into_owned()
    }

    pub(crate) fn stdin(&mut self) -> ChildStdin {
        self.child.stdin.take().unwrap()
    }

    /// A verb of the command line that asks this recorder.
    pub(crate) fn verb(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).arg("--socket").arg(self.socket()).stdin(Stdio::null());
        command
    }

    pub(crate) fn ask(&self, arguments: &[&str]) -> Reply {
        reply(&self.verb(arguments).output().unwrap())
    }

    pub(crate) fn status(&self) -> Status {
        let reply = self.ask(&["status", "--json"]);
        assert_eq!(reply.code, 0, "{}{}", reply.stderr, self.log());
        let status = serde_json::from_str(&reply.stdout).unwrap_or_else(|error| panic!("{error}: {}", reply.stdout));
        conserves(&status);
        status
    }

    /// Waits until exactly this many packets have arrived or were lost in the kernel.
    pub(crate) fn arrived(&self, packets: u64) -> Status {
        let arrived = |status: &Status| status.packets.received + status.packets.kernel_dropped;
        let mut status = self.status();
        let start = Instant::now();
        while arrived(&status) < packets {
            assert!(start.elapsed() < Duration::from_secs(30), "{packets} were sent: {:?}", status.packets);
            std::thread::sleep(Duration::from_millis(20));
            status = self.status();
        }
        assert_eq!(arrived(&status), packets, "{:?}", status.packets);
        status
    }

    /// The packets that `get -w` writes.
    pub(crate) fn packets(&self, arguments: &[&str]) -> Vec<Plain> {
        generate::read(&self.export("packets.pcapng", arguments)).0
    }

    /// The file that `get -w` writes.
    pub(crate) fn export(&self, name: &str, arguments: &[&str]) -> PathBuf {
        let path = self.path(name);
        let reply = self.ask(&[&["get", "-w", path.to_str().unwrap()], arguments].concat());
        assert_eq!((reply.code, reply.stdout.as_str()), (0, ""), "{arguments:?}: {}", reply.stderr);
        assert!(generate::read(&path).1.is_ok());
        path
    }

    /// The peak of its resident memory in bytes.
    pub(crate) fn resident_peak(&self) -> u64 {
        resident_peak(self.child.id()).expect("it runs")
    }

    pub(crate) fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap().success());
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the recorder's log: {}", self.log());
        }
    }
}

/// A temporary folder that other users may enter.
pub(crate) fn directory() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    directory
}

/// The result of a command.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

pub(crate) fn reply(output: &Output) -> Reply {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Reply { code: output.status.code().unwrap_or(-1), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

/// Checks promise 2: nothing is lost in silence.
pub(crate) fn conserves(status: &Status) {
    let (p, b) = (&status.packets, &status.bytes);
    assert_eq!(p.received, p.stored + p.filtered + p.dropped, "{p:?}");
    assert_eq!(p.stored, p.retained + p.evicted, "{p:?}");
    assert_eq!(b.received, b.stored + b.filtered + b.dropped, "{b:?}");
    assert_eq!(b.stored, b.retained + b.evicted, "{b:?}");
    let reasons: u64 = status.dropped.values().sum();
    assert_eq!(reasons, p.dropped);
    assert!(status.memory.used_bytes <= status.memory.budget_bytes, "{:?}", status.memory);
}

/// The peak of a process's resident memory in bytes; `None` when the process is gone.
pub(crate) fn resident_peak(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"))?;
    Some(kib.trim().parse::<u64>().unwrap() << 10)
}

/// Waits for an event in another process or thread.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < end, "not within 20 s: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whether all programs are installed; prints which one is not.
pub(crate) fn have(test: &str, programs: &[&str]) -> bool {
    programs.iter().all(|program| crate::machine::have(test, program))
}

/// A field of every packet in a file, according to tshark.
pub(crate) fn tshark(file: &Path, field: &str) -> Vec<String> {
    let output = Command::new("tshark").args(["-n", "-T", "fields", "-e", field, "-r"]).arg(file).output().unwrap();
    assert!(output.status.success(), "tshark: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// Lengths and bytes without times, since a replay gives packets new times.
pub(crate) fn contents(packets: Vec<Plain>) -> Vec<(u32, Vec<u8>)> {
    packets.into_iter().map(|(_, original_len, data)| (original_len, data)).collect()
}

/// One end of a cable, into which frames are sent.
pub(crate) struct Sender(pcap::Capture<pcap::Active>);

impl Sender {
    pub(crate) fn new(namespace: &Namespace, interface: &str) -> Self {
        namespace.enter(|| {
            let capture = pcap::Capture::from_device(interface).unwrap().buffer_size(1 << 20).open();
            let mut capture = capture.unwrap();
            // This handle only sends: let nothing pass.
            capture.filter("ether proto 0xffff", true).unwrap();
            Self(capture)
        })
    }

    pub(crate) fn send(&mut self, frame: &[u8]) {
        // A queue that is full for a moment is no failure.
        for _ in 0..1000 {
            match self.0.sendpacket(frame) {
                Ok(()) => return,
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        panic!("{} bytes cannot be sent: {:?}", frame.len(), self.0.sendpacket(frame));
    }

    /// Sends `count` frames, which `make` builds from their numbers, at this rate.
    pub(crate) fn send_paced(&mut self, count: u32, per_second: u32, mut make: impl FnMut(u32, &mut Vec<u8>)) {
        let (start, mut frame) = (Instant::now(), Vec::new());
        for number in 0..count {
            if number.is_multiple_of(64) {
                let due = Duration::from_secs_f64(f64::from(number) / f64::from(per_second));
                std::thread::sleep(due.saturating_sub(start.elapsed()));
            }
            frame.clear();
            make(number, &mut frame);
            self.send(&frame);
        }
    }
}

/// Writes the frame of one UDP packet of a session.
pub(crate) fn datagram(session: u32, payload: u16, frame: &mut Vec<u8>) {
    let start = frame.len();
    generate::packet(frame, 0, session, true, payload);
    // Remove the record header that a file needs.
    frame.drain(start..start + 16);
}

/// A frame of a protocol that nobody answers.
pub(crate) fn unanswered(bytes: usize) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5];
    frame.resize(14 + bytes, 0x55);
    frame
}
