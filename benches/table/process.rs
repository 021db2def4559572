//! Programs that are measured from outside: their cost, and a recorder's answers.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

pub(crate) const RETROCAP: &str = env!("CARGO_BIN_EXE_retrocap");

/// The cost of a command.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cost {
    pub(crate) wall_s: f64,
    /// User and system time, to 10 ms.
    pub(crate) cpu_s: f64,
}

/// Runs a command to its end and measures it.
pub(crate) fn cost(program: &str, arguments: &[&str]) -> Cost {
    let (start, before) = (Instant::now(), children_cpu_s());
    let status = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(status.expect("the program runs").success(), "{program} {arguments:?}");
    Cost { wall_s: start.elapsed().as_secs_f64(), cpu_s: children_cpu_s() - before }
}

/// Runs a command to its end, whatever its status, and measures it.
pub(crate) fn cost_of(command: &mut Command) -> Cost {
    let (start, before) = (Instant::now(), children_cpu_s());
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("the program runs");
    Cost { wall_s: start.elapsed().as_secs_f64(), cpu_s: children_cpu_s() - before }
}

/// Processor time of all children that have ended.
fn children_cpu_s() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    // cutime and cstime, in hundredths of a second, which Linux uses here on every machine.
    (ticks(13) + ticks(14)) / 100.0
}

/// Resident memory of a process, given by its number or `self`.
pub(crate) fn resident_mebibytes(process: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    kib.split_whitespace().next().and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}

/// A program that runs until it is stopped.
pub(crate) struct Running {
    pub(crate) child: Child,
}

impl Running {
    /// Processor time of all its threads so far, from the scheduler's own clock.
    pub(crate) fn cpu_s(&self) -> f64 {
        let ns = self.tasks("schedstat", |text| text.split_whitespace().next()?.parse::<f64>().ok());
        ns / 1e9
    }

    /// How often its threads have gone to sleep so far, which is how often they were woken.
    pub(crate) fn wakeups(&self) -> f64 {
        self.tasks("status", |text| {
            text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?.trim().parse().ok()
        })
    }

    /// Processor time of the threads with this name so far.
    pub(crate) fn thread_s(&self, name: &str) -> f64 {
        let Ok(tasks) = std::fs::read_dir(format!("/proc/{}/task", self.child.id())) else { return 0.0 };
        let read = |task: &std::fs::DirEntry, file: &str| std::fs::read_to_string(task.path().join(file)).ok();
        let named = tasks.flatten().filter(|task| read(task, "comm").is_some_and(|comm| comm.trim() == name));
        let ns = named.filter_map(|task| read(&task, "schedstat")?.split_whitespace().next()?.parse::<f64>().ok());
        ns.sum::<f64>() / 1e9
    }

    pub(crate) fn resident_mebibytes(&self) -> f64 {
        resident_mebibytes(&self.child.id().to_string())
    }

    fn tasks(&self, file: &str, read: impl Fn(&str) -> Option<f64>) -> f64 {
        let Ok(tasks) = std::fs::read_dir(format!("/proc/{}/task", self.child.id())) else { return 0.0 };
        let texts = tasks.flatten().filter_map(|task| std::fs::read_to_string(task.path().join(file)).ok());
        texts.filter_map(|text| read(&text)).sum()
    }

    /// Interrupts it as Ctrl-C does, and waits for its end.
    pub(crate) fn end(&mut self) -> Option<ExitStatus> {
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").args(["-INT", &pid]).status();
        let limit = Instant::now() + Duration::from_secs(10);
        while Instant::now() < limit {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        None
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `retrocap run`, which answers on a socket of its own.
pub(crate) struct Recorder {
    pub(crate) running: Running,
    folder: TempDir,
}

impl Recorder {
    /// Starts the recorder; `command` ends with `run` and its flags.
    pub(crate) fn start(mut command: Command) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let log = std::fs::File::create(folder.path().join("log"))?;
        command.arg("--socket").arg(folder.path().join("socket")).stdout(Stdio::null()).stderr(log);
        let mut recorder = Self { running: Running { child: command.spawn()? }, folder };
        let limit = Instant::now() + Duration::from_secs(20);
        while recorder.connect().is_err() {
            if recorder.running.child.try_wait()?.is_some() || Instant::now() > limit {
                let log = std::fs::read_to_string(recorder.folder.path().join("log")).unwrap_or_default();
                return Err(io::Error::other(format!("the recorder did not start: {log}")));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(recorder)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    pub(crate) fn connect(&self) -> io::Result<UnixStream> {
        let stream = UnixStream::connect(self.socket())?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(stream)
    }

    /// Sends a query, and reads the answer to its end.
    pub(crate) fn ask(&self, path: &str) -> io::Result<Answer> {
        Answer::read(self.connect()?, path, |_| {})
    }

    pub(crate) fn status(&self) -> io::Result<Value> {
        let mut body = Vec::new();
        Answer::read(self.connect()?, "/v1/status", |part| body.extend_from_slice(part))?;
        // The answer may have any number of chunks: the document is what lies between the outermost braces.
        let text: String = String::from_utf8_lossy(&body).into_owned();
        let (from, to) = (text.find('{').unwrap_or(0), text.rfind('}').map_or(0, |at| at + 1));
        serde_json::from_str(text.get(from..to).unwrap_or_default()).map_err(io::Error::other)
    }

    /// A number from the status.
    pub(crate) fn count(&self, pointer: &str) -> f64 {
        self.status().ok().and_then(|status| status.pointer(pointer)?.as_f64()).unwrap_or(0.0)
    }
}

/// The result of one query.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    pub(crate) ok: bool,
    pub(crate) first_s: f64,
    pub(crate) total_s: f64,
    pub(crate) bytes: f64,
}

impl Answer {
    /// Sends a query over a connection that is not used again.
    pub(crate) fn read(mut stream: UnixStream, path: &str, mut each: impl FnMut(&[u8])) -> io::Result<Self> {
        let start = Instant::now();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let (mut buffer, mut head) = (vec![0; 256 << 10], Vec::new());
        let mut answer = Self { ok: false, first_s: 0.0, total_s: 0.0, bytes: 0.0 };
        loop {
            let n = stream.read(&mut buffer)?;
            if n == 0 {
                break;
            }
            let mut body = &buffer[..n];
            if answer.first_s == 0.0 {
                head.extend_from_slice(body);
                let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
                answer.ok = head.starts_with(b"HTTP/1.1 200");
                head.drain(..end + 4);
                if head.is_empty() {
                    continue;
                }
                answer.first_s = start.elapsed().as_secs_f64();
                body = &head;
            }
            each(body);
            answer.bytes += f64::from(u32::try_from(body.len()).unwrap_or(u32::MAX));
        }
        answer.total_s = start.elapsed().as_secs_f64();
        Ok(answer)
    }
}
