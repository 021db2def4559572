//! A recorder that runs while the wall clock is changed.
//!
//! A test must not set the clock of the machine. Therefore a library that is loaded into the recorder shifts the wall
//! clock that it reads, while packets keep the true times that the kernel gives them. All that was recorded is then
//! suddenly hours old, or in the future, as after a real step. `pressure::packets_with_odd_times_are_counted` covers packets whose own times
//! step.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use retrocap::query::status::Status;

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

#[test]
fn recording_continues_when_the_clock_is_set() {
    if !available("clock steps") {
        return;
    }
    let folder = directory();
    let Some(library) = library(folder.path()) else { return };
    let seconds = folder.path().join("seconds");
    let set = |step: i64| {
        use std::os::unix::fs::FileExt as _;
        // Written in place, because the file is mapped.
        let file = std::fs::File::options().create(true).truncate(false).write(true).open(&seconds).unwrap();
        file.write_all_at(&step.to_ne_bytes(), 0).unwrap();
    };
    set(0);
    let (near, far) = Namespace::pair();
    let supervisor = Supervisor::new();
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &far.name, "env"]);
    command.arg(format!("LD_PRELOAD={}", library.display())).arg(format!("CLOCK_STEP={}", seconds.display()));
    command.args([PROGRAM, "run", "-m", "32M", "--user", "nobody"]);
    command.env("NOTIFY_SOCKET", &supervisor.path).env("WATCHDOG_USEC", "2000000");
    let recorder = Recorder::start(command, directory());
    supervisor.expect("READY=1");

    let mut sender = Sender::new(&near, "near");
    let mut follower = recorder.verb(&["get", "--follow"]);
    let mut follower = follower.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let followed = numbers(follower.stdout.take().unwrap());
    let mut sent = 0;
    let mut more = |recorder: &Recorder| -> Status {
        send(&mut sender, sent..sent + 10);
        // Each packet comes once and in order, whatever the clock says.
        (sent..sent + 10).for_each(|number| assert_eq!(next(&followed), number));
        sent += 10;
        recorder.arrived(u64::from(sent))
    };
    let all = |recorder: &Recorder| recorder.packets(&[]).len() as u64;
    // `since` is resolved with the recorder's clock here; the command line would use its own.
    let asked = |recorder: &Recorder, since: &str| {
        let answer = get(recorder.socket(), &format!("/v1/packets?since={since}"));
        let packets = answer.trailer("retrocap-packets").map(|count| count.parse::<u64>().unwrap());
        (answer.status, packets.unwrap_or(0), String::from_utf8_lossy(&answer.body).into_owned())
    };
    let found = |recorder: &Recorder, since: &str| {
        let (status, packets, _) = asked(recorder, since);
        assert_eq!(status, 200);
        packets
    };
    let pins = |recorder: &Recorder| {
        let told = recorder.ask(&["pin", "--list", "--json"]);
        assert_eq!(told.code, 0, "{told:?}");
        told.stdout.matches("\"filter\"").count()
    };
    let first = more(&recorder);
    assert_eq!(recorder.ask(&["pin", "--for", "1h", "ether proto 0x88b5"]).code, 0);
    assert_eq!(pins(&recorder), 1);

    // One hour back, as when a wrong clock is corrected: recorded packets lie in the future.
    set(-3600);
    for _ in 0..2 {
        let status = more(&recorder);
        assert!(status.uptime_s < 600.0 && status.packets.evicted == 0, "{status:?}");
        assert_eq!(all(&recorder), status.packets.received);
        assert_eq!(found(&recorder, "10m"), status.packets.received);
        assert_eq!(status.retained.oldest, first.retained.oldest, "packets keep their times");
        supervisor.expect("WATCHDOG=1");
    }
    assert_eq!(pins(&recorder), 1, "it ends when the clock says so");

    // Two hours forward, as when a machine wakes up: recorded packets are old, and none is evicted for that.
    set(7200);
    for _ in 0..2 {
        let status = more(&recorder);
        assert!(status.uptime_s < 600.0 && status.packets.evicted == 0, "{status:?}");
        assert_eq!(all(&recorder), status.packets.received);
        assert_eq!(found(&recorder, "3h"), status.packets.received);
        supervisor.expect("WATCHDOG=1");
    }
    let (code, _, why) = asked(&recorder, "10m");
    assert!(code == 404 && why.contains("\"detail\""), "nothing is that new, and why is said: {code} {why}");
    eventually("the pin's time is over", || pins(&recorder) == 0);

    set(0);
    let status = more(&recorder);
    assert_eq!(found(&recorder, "10m"), status.packets.received);
    let health = get(recorder.socket(), "/v1/health").text();
    assert!(health.contains("\"ready\""), "{health}");
    while supervisor.hear(Duration::from_millis(100)).is_some() {}
    supervisor.expect("WATCHDOG=1");
    follower.kill().unwrap();
    follower.wait().unwrap();
}
