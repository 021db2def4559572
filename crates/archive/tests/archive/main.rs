//! `retrocap-archive` with a real recorder's spool, against a real S3 server (s3s-fs) and a directory.

mod copying;
mod databases;
mod failing;
mod reading;
mod removing;
mod server;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_retrocap-archive");
/// Start of the packets: 2026-11-22 10:00:00 UTC.
const START: u32 = 1_795_341_600;
const SESSIONS: u32 = 40;
const PACKETS_EACH: u32 = 150;

/// The recorder's program; `None`, with a message, where it is missing.
fn recorder(what: &str) -> Option<PathBuf> {
    let program = Path::new(PROGRAM).parent().unwrap().join("retrocap");
    if !program.exists() {
        eprintln!("SKIPPED: {what}: {} is not built: cargo build", program.display());
        return None;
    }
    Some(program)
}

/// A capture of UDP sessions over two hours, each long enough for all bands.
fn capture() -> Vec<u8> {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65535, 1] {
        file.extend_from_slice(&word.to_le_bytes());
    }
    for session in 0..SESSIONS {
        for number in 0..PACKETS_EACH {
            let mut frame = vec![2; 12];
            frame.extend_from_slice(&[8, 0, 0x45, 0, 3, 214, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0]);
            frame.push(u8::try_from(session % 5 + 1).unwrap());
            frame.extend_from_slice(&[192, 0, 2, u8::try_from(session % 7 + 1).unwrap()]);
            frame.extend_from_slice(&u16::try_from(40_000 + session).unwrap().to_be_bytes());
            frame.extend_from_slice(&[0x15, 0xb3, 3, 194, 0, 0]);
            // Payload that does not compress, so that files have the length of their packets.
            let mut state = u64::from(session * PACKETS_EACH + number) | 1;
            while frame.len() < 996 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                frame.push(u8::try_from(state >> 56).unwrap());
            }
            // Fast enough to be bulk.
            for word in [START + session * 180, number * 6000, 996, 996] {
                file.extend_from_slice(&word.to_le_bytes());
            }
            file.extend_from_slice(&frame);
        }
    }
    file
}

/// A spool that a recorder has written and left.
struct Spool {
    folder: TempDir,
    recorder: PathBuf,
}

impl Spool {
    fn recorded(what: &str) -> Option<Self> {
        let recorder = recorder(what)?;
        let spool = Self { folder: tempfile::tempdir().unwrap(), recorder };
        std::fs::write(spool.path("in.pcap"), capture()).unwrap();
        spool.record(&[]);
        assert!(spool.files().len() > 12, "{:?}", spool.files().keys());
        Some(spool)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn directory(&self) -> PathBuf {
        self.path("spool")
    }

    /// Replays the capture into the spool, and ends the recorder.
    fn record(&self, arguments: &[&str]) {
        let mut command = Command::new(&self.recorder);
        command.args(["run", "-m", "64M", "--speed", "max", "--spool-size", "24M", "--no-drop-privileges"]);
        command.arg("--replay").arg(self.path("in.pcap")).arg("--spool").arg(self.directory());
        command.arg("--socket").arg(self.path("socket")).arg("--audit-log").arg(self.path("audit")).args(arguments);
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let mut said = String::new();
        for line in lines {
            said += &line;
            if line.contains("has been replayed") {
                break;
            }
        }
        assert!(said.contains("has been replayed"), "{said}");
        let status = || {
            let mut command = Command::new(&self.recorder);
            let out = command.args(["status", "--json", "--socket"]).arg(self.path("socket")).output().unwrap().stdout;
            serde_json::from_slice::<Value>(&out).unwrap_or_default()
        };
        eventually("the packets are on disk", || status()["spool"]["behind_bytes"] == 0);
        let id = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
        assert!(child.wait().unwrap().success());
    }

    /// The files that can be archived, with their bytes.
    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let mut files = tree(&self.directory());
        files.retain(|name, _| name.ends_with(".pcapng") || name.ends_with(".gz") || name.ends_with(".parquet"));
        files
    }

    /// What the recorder's program prints about the packets of the spool.
    fn lines(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(&self.recorder);
        command.args(["get", "--text", "-q", "--spool"]).arg(self.directory()).args(arguments);
        text(&command.output().unwrap().stdout)
    }
}

/// All files below a directory, by path.
fn tree(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                waiting.push(path);
            } else {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                found.insert(name, std::fs::read(path).unwrap());
            }
        }
    }
    found
}

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what}: not within a minute");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// An archive: where it is, and the environment that opens it.
#[derive(Clone)]
struct Place {
    url: String,
    /// The directory that has the objects.
    objects: PathBuf,
    environment: Vec<(String, String)>,
}

impl Place {
    fn directory(path: &Path) -> Self {
        Self { url: path.to_str().unwrap().to_owned(), objects: path.to_owned(), environment: Vec::new() }
    }

    /// A command of a program with this archive's environment and no other credentials.
    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        for name in
            ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ENDPOINT_URL"]
        {
            command.env_remove(name);
        }
        command.env("HOME", "/nonexistent").env("AWS_EC2_METADATA_DISABLED", "true").stdin(Stdio::null());
        command.envs(self.environment.iter().cloned());
        command
    }

    fn run(&self, verb: &str, arguments: &[&str]) -> Output {
        self.command(PROGRAM).args(["--json", verb, &self.url]).args(arguments).output().unwrap()
    }

    fn copy_command(&self, spool: &Spool, arguments: &[&str]) -> Command {
        let mut command = self.command(PROGRAM);
        command
            .args(["--json", "copy", &self.url, "--host", "sensor", "--spool"])
            .arg(spool.directory())
            .args(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn copy(&self, spool: &Spool, arguments: &[&str]) -> (Option<i32>, Value, String) {
        let output = self.copy_command(spool, arguments).output().unwrap();
        let document = serde_json::from_slice(&output.stdout).unwrap_or_default();
        (output.status.code(), document, text(&output.stderr))
    }

    /// What `retrocap get` prints of the archive: exit code, lines, messages.
    fn get(&self, spool: &Spool, arguments: &[&str]) -> (Option<i32>, String, String) {
        let mut command = self.command(&spool.recorder);
        command.args(["get", "--text", "--archive", &self.url]).args(arguments);
        let output = command.env("TMPDIR", spool.folder.path()).output().unwrap();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    }

    /// The objects without documents, by name.
    fn data(&self) -> BTreeMap<String, Vec<u8>> {
        let mut objects = tree(&self.objects);
        objects.retain(|name, _| name.starts_with("packets/") || name.starts_with("sessions/"));
        objects
    }

    /// Asserts that the archive has each file of the spool once and as it is, and nothing else.
    fn assert_has(&self, spool: &Spool) {
        let sorted = |map: BTreeMap<String, Vec<u8>>| {
            let mut contents: Vec<Vec<u8>> = map.into_values().collect();
            contents.sort();
            contents
        };
        let data = self.data();
        assert_eq!(data.len(), spool.files().len(), "{:?}", data.keys());
        assert!(sorted(data) == sorted(spool.files()), "an object differs from its file");
        let verified = self.run("verify", &[]);
        let report: Value = serde_json::from_slice(&verified.stdout).unwrap();
        assert_eq!((verified.status.code(), &report["right"]), (Some(0), &spool.files().len().into()), "{report}");
    }
}

/// Each kind of archive, empty.
fn places(folder: &Path) -> Vec<(Place, Option<server::S3>)> {
    let server = server::S3::start(&folder.join("s3"));
    vec![(Place::directory(&folder.join("archive")), None), (server.place(), Some(server))]
}
