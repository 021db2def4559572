//! A recorder that runs while the wall clock is changed.
//!
//! A test must not set the clock of the machine. Therefore a library that is loaded into the recorder shifts the wall
//! clock that it reads, while packets keep the true times that the kernel gives them. All that was recorded is then
//! suddenly hours old, or in the future, as after a real step. `pressure::packets_with_odd_times_are_counted` covers
//! packets whose own times step.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use retrocap::query::status::Status;
use tempfile::TempDir;

use crate::namespaces::{Namespace, available};
use crate::service::asking::get;

use super::following::{next, numbers, send};
use super::running::{PROGRAM, Recorder, Sender, directory, eventually};
use super::supervisor::Supervisor;

/// Adds seconds, read from a file, to the wall clock. The library maps the file before the sandbox is in place.
const STEP: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile long long *step;

__attribute__((constructor)) static void begin(void) {
    int fd = open(getenv("CLOCK_STEP"), O_RDONLY);
    void *mapped = mmap(NULL, sizeof *step, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (mapped == MAP_FAILED) abort();
    step = mapped;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    int failed = syscall(SYS_clock_gettime, clock, time);
    if (!failed && clock == CLOCK_REALTIME && step) time->tv_sec += *step;
    return failed;
}
"#;

/// Builds the library; `None`, with a message, when there is no compiler.
fn library(folder: &Path) -> Option<PathBuf> {
    let (source, library) = (folder.join("step.c"), folder.join("step.so"));
    std::fs::write(&source, STEP).unwrap();
    match Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source).output() {
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Some(library)
        }
        Err(_) => {
            crate::machine::skipped("clock steps", "cc is not installed");
            None
        }
    }
}

/// A recorder whose wall clock the test sets, with a sender, a follower and a supervisor.
struct Clocked {
    recorder: Recorder,
    supervisor: Supervisor,
    sender: Sender,
    sent: u32,
    follower: Child,
    followed: Receiver<u32>,
    /// The seconds that are added to the clock.
    step: File,
    _namespaces: (Namespace, Namespace),
    _folder: TempDir,
}

impl Drop for Clocked {
    fn drop(&mut self) {
        let _ = self.follower.kill();
        let _ = self.follower.wait();
    }
}

impl Clocked {
    /// `None`, with a message, where there is no compiler.
    fn start() -> Option<Self> {
        let folder = directory();
        let library = library(folder.path())?;
        let seconds = folder.path().join("seconds");
        std::fs::write(&seconds, 0_i64.to_ne_bytes()).unwrap();
        let step = File::options().write(true).open(&seconds).unwrap();
        let (near, far) = Namespace::pair();
        let supervisor = Supervisor::new();
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &far.name, "env"]);
        command.arg(format!("LD_PRELOAD={}", library.display())).arg(format!("CLOCK_STEP={}", seconds.display()));
        command.args([PROGRAM, "run", "-m", "32M", "--user", "nobody"]);
        command.env("NOTIFY_SOCKET", &supervisor.path).env("WATCHDOG_USEC", "2000000");
        let recorder = Recorder::start(command, directory());
        supervisor.expect("READY=1");
        let sender = Sender::new(&near, "near");
        let mut follower = recorder.verb(&["get", "--follow"]).stdout(Stdio::piped()).spawn().unwrap();
        let followed = numbers(follower.stdout.take().unwrap());
        Some(Self {
            recorder,
            supervisor,
            sender,
            sent: 0,
            follower,
            followed,
            step,
            _namespaces: (near, far),
            _folder: folder,
        })
    }

    /// Sets the clock to the true time plus `step` seconds.
    fn set(&self, step: i64) {
        // Written in place, because the file is mapped.
        self.step.write_all_at(&step.to_ne_bytes(), 0).unwrap();
    }

    /// Sends ten packets, which the follower must get once and in order, whatever the clock says.
    fn record(&mut self) -> Status {
        send(&mut self.sender, self.sent..self.sent + 10);
        (self.sent..self.sent + 10).for_each(|number| assert_eq!(next(&self.followed), number));
        self.sent += 10;
        let status = self.recorder.arrived(u64::from(self.sent));
        assert!(status.uptime_s < 600.0 && status.packets.evicted == 0, "{status:?}");
        assert_eq!(self.recorder.packets(&[]).len() as u64, status.packets.received);
        status
    }

    /// Queries with `since`, which is resolved with the recorder's clock here; the command line would use its own.
    fn query(&self, since: &str) -> (u16, u64, String) {
        let answer = get(self.recorder.socket(), &format!("/v1/packets?since={since}"));
        let packets = answer.trailer("retrocap-packets").map(|count| count.parse::<u64>().unwrap());
        (answer.status, packets.unwrap_or(0), String::from_utf8_lossy(&answer.body).into_owned())
    }

    fn finds_all(&self, since: &str, status: &Status) {
        let (code, packets, _) = self.query(since);
        assert_eq!((code, packets), (200, status.packets.received), "{since}");
    }

    fn pins(&self) -> usize {
        let reply = self.recorder.ask(&["pin", "--list", "--json"]);
        assert_eq!(reply.code, 0, "{reply:?}");
        reply.stdout.matches("\"filter\"").count()
    }
}

#[test]
fn recording_continues_when_the_clock_is_set() {
    if !available("clock steps") {
        return;
    }
    let Some(mut clocked) = Clocked::start() else { return };
    let first = clocked.record();
    assert_eq!(clocked.recorder.ask(&["pin", "--for", "1h", "ether proto 0x88b5"]).code, 0);
    assert_eq!(clocked.pins(), 1);

    // One hour back, as when a wrong clock is corrected: recorded packets lie in the future.
    clocked.set(-3600);
    for _ in 0..2 {
        let status = clocked.record();
        clocked.finds_all("10m", &status);
        assert_eq!(status.retained.oldest, first.retained.oldest, "packets keep their times");
        clocked.supervisor.expect("WATCHDOG=1");
    }
    assert_eq!(clocked.pins(), 1, "it ends when the clock says so");

    // Two hours forward, as when a machine wakes up: recorded packets are old, and none is evicted for that.
    clocked.set(7200);
    for _ in 0..2 {
        let status = clocked.record();
        clocked.finds_all("3h", &status);
        clocked.supervisor.expect("WATCHDOG=1");
    }
    let (code, _, why) = clocked.query("10m");
    assert!(code == 404 && why.contains("\"detail\""), "nothing is that new, and why is said: {code} {why}");
    eventually("the pin's time is over", || clocked.pins() == 0);

    clocked.set(0);
    let status = clocked.record();
    clocked.finds_all("10m", &status);
    let health = get(clocked.recorder.socket(), "/v1/health").text();
    assert!(health.contains("\"ready\""), "{health}");
    while clocked.supervisor.hear(Duration::from_millis(100)).is_some() {}
    clocked.supervisor.expect("WATCHDOG=1");
}
