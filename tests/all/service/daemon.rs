//! The whole daemon, with a replayed capture in place of interfaces.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use retrocap::daemon::settings::Percent;
use retrocap::daemon::{self, Error, SandboxMode, Settings, Speed};
use serde_json::Value;
use tokio::sync::oneshot;

use super::asking::get;
use super::recording::{Recording, packets_in};

fn config(directory: &Path, capture: &[u8]) -> Settings {
    let path = directory.join("capture.pcapng");
    std::fs::write(&path, capture).unwrap();
    Settings {
        socket: directory.join("run/socket"),
        memory: Some("16M".parse().unwrap()),
        replay: Some(path),
        speed: Speed::Max,
        no_drop_privileges: true,
        compression_cpu: Percent(0.0),
        sandbox: SandboxMode::Off,
        ..Settings::default()
    }
}

struct Daemon {
    stop: Option<oneshot::Sender<()>>,
    thread: JoinHandle<Result<(), Error>>,
}

impl Daemon {
    fn start(config: Settings) -> Self {
        let socket = config.socket.clone();
        let (stop, shutdown_requested) = oneshot::channel();
        let thread = std::thread::spawn(move || daemon::run_until(config, shutdown_requested));
        wait(&socket);
        Self { stop: Some(stop), thread }
    }

    fn stop(mut self) -> Result<(), Error> {
        drop(self.stop.take());
        self.thread.join().unwrap()
    }
}

fn wait(socket: &Path) {
    let start = Instant::now();
    while std::os::unix::net::UnixStream::connect(socket).is_err() {
        assert!(start.elapsed() < Duration::from_secs(10), "nobody listens on {}", socket.display());
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn status(socket: &Path) -> Value {
    serde_json::from_slice(&get(socket, "/v1/status").body).unwrap()
}

/// Waits until this many packets were received.
fn received(socket: &Path, packets: u64) {
    let start = Instant::now();
    while status(socket)["packets"]["received"] != packets {
        assert!(start.elapsed() < Duration::from_secs(10), "{}", status(socket));
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_replayed_capture_is_served_until_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path(), &Recording::default().udp(20, 100).tcp_session().file());
    let socket = config.socket.clone();
    let daemon = Daemon::start(config.clone());
    received(&socket, 25);
    assert_eq!(packets_in(&get(&socket, "/v1/packets").body), 25);

    let (_stop, shutdown_requested) = oneshot::channel();
    let second = daemon::run_until(config.clone(), shutdown_requested).unwrap_err().to_string();
    let expected = format!("another retrocap is recording on {}; stop it or choose another --socket", socket.display());
    assert_eq!(second, expected);
    assert_eq!(status(&socket)["packets"]["received"], 25, "the first is untouched");

    daemon.stop().unwrap();
    assert_eq!(socket.parent().unwrap().read_dir().unwrap().count(), 0, "socket and lock are removed");
}

#[test]
fn what_a_crash_left_behind_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path(), &Recording::default().udp(2, 100).file());
    std::fs::create_dir(config.socket.parent().unwrap()).unwrap();
    drop(std::os::unix::net::UnixListener::bind(&config.socket).unwrap());
    let socket = config.socket.clone();
    let daemon = Daemon::start(config);
    received(&socket, 2);
    daemon.stop().unwrap();
}

#[test]
fn of_many_that_start_at_once_one_records() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path(), &Recording::default().udp(2, 100).file());
    let started: Vec<_> = (0..6)
        .map(|_| {
            let (config, (stop, shutdown_requested)) = (config.clone(), oneshot::channel());
            (stop, std::thread::spawn(move || daemon::run_until(config, shutdown_requested)))
        })
        .collect();
    wait(&config.socket);
    received(&config.socket, 2);
    let start = Instant::now();
    while started.iter().filter(|(_, thread)| thread.is_finished()).count() < 5 {
        assert!(start.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(10));
    }
    let outcomes = started.into_iter().map(|(stop, thread)| {
        drop(stop);
        thread.join().unwrap()
    });
    let (ran, refused): (Vec<_>, Vec<_>) = outcomes.partition(Result::is_ok);
    assert_eq!((ran.len(), refused.len()), (1, 5));
    assert!(refused.iter().all(|outcome| matches!(outcome, Err(Error::AlreadyRunning(_)))), "{refused:?}");
}

#[test]
fn of_a_damaged_capture_everything_before_the_damage_is_served() {
    let directory = tempfile::tempdir().unwrap();
    let file = Recording::default().udp(20, 100).file();
    let config = config(directory.path(), &file[..file.len() - 300]);
    let socket = config.socket.clone();
    let daemon = Daemon::start(config);
    received(&socket, 18);
    let health: Value = serde_json::from_slice(&get(&socket, "/v1/health").body).unwrap();
    assert_eq!(health["reasons"][0]["code"], "not_recording");
    assert_eq!(packets_in(&get(&socket, "/v1/packets").body), 18);
    daemon.stop().unwrap();
}

#[test]
fn a_capture_is_replayed_at_its_pace() {
    let directory = tempfile::tempdir().unwrap();
    // One packet per second, twenty times as fast.
    let mut config = config(directory.path(), &Recording::default().udp(20, 100).file());
    config.speed = Speed::Times(20.0);
    let socket = config.socket.clone();
    let start = Instant::now();
    let daemon = Daemon::start(config.clone());
    received(&socket, 20);
    assert!(start.elapsed() >= Duration::from_millis(900), "{:?}", start.elapsed());
    daemon.stop().unwrap();

    // A quarter of an hour passes between two packets now: a stop that waited for the next one would hang the test.
    config.speed = Speed::Times(0.001);
    let daemon = Daemon::start(config);
    received(&socket, 1);
    let health: Value = serde_json::from_slice(&get(&socket, "/v1/health").body).unwrap();
    // It records, and the only problem is that this test has no sandbox.
    let reasons = health["reasons"].as_array().unwrap();
    assert!(reasons.iter().all(|reason| reason["code"] == "sandbox"), "{health}");
    daemon.stop().unwrap();
}

#[test]
fn an_invalid_configuration_is_reported_before_any_file_is_made() {
    let directory = tempfile::tempdir().unwrap();
    let good = config(directory.path(), &Recording::default().udp(2, 100).file());
    let replay = |path: &str| Some(directory.path().join(path));
    for (config, says) in [
        (Settings { memory: Some("1M".parse().unwrap()), ..good.clone() }, "try -m 16M"),
        (Settings { filter: Some("tcp prt".to_owned()), ..good.clone() }, "cannot compile the filter \"tcp prt\""),
        (Settings { replay: replay("."), ..good.clone() }, "name a capture file"),
        (Settings { replay: replay("missing"), ..good.clone() }, "/missing: No such file"),
        (Settings { speed: Speed::Times(-1.0), ..good.clone() }, "a number above 0"),
        (Settings { socket: directory.path().join("capture.pcapng"), ..good.clone() }, "is not a socket"),
        (
            Settings { socket: PathBuf::from("/proc/nowhere/socket"), ..good.clone() },
            "choose another path with --socket",
        ),
    ] {
        // A daemon that starts in spite of the error stops at once.
        let (stop, shutdown_requested) = oneshot::channel();
        drop(stop);
        let error = daemon::run_until(config, shutdown_requested).expect_err(says).to_string();
        assert!(error.contains(says), "{error}");
    }
    assert_eq!(good.socket.parent().unwrap().read_dir().unwrap().count(), 0);
    assert!(directory.path().join("capture.pcapng").exists());
}

/// Not a test, but the program that the next test stops with a signal.
#[test]
#[ignore = "run by a_signal_stops_the_daemon_cleanly"]
fn child() {
    let Some(directory) = std::env::var_os("RETROCAP_TEST_DIRECTORY") else { return };
    daemon::run(config(Path::new(&directory), &Recording::default().udp(20, 100).file())).unwrap();
}

#[test]
fn a_signal_stops_the_daemon_cleanly() {
    for signal in ["TERM", "INT"] {
        let directory = tempfile::tempdir().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "service::daemon::child", "--ignored"])
            .env("RETROCAP_TEST_DIRECTORY", directory.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let socket = directory.path().join("run/socket");
        wait(&socket);
        received(&socket, 20);
        let sent = Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        assert!(child.wait().unwrap().success());
        assert_eq!(socket.parent().unwrap().read_dir().unwrap().count(), 0);
    }
}
