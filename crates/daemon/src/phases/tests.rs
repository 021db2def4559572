use std::os::unix::net::UnixDatagram;

use tokio::sync::oneshot;

use super::*;
use crate::Error;
use crate::SandboxMode;
use crate::notify::Supervisor;
use crate::settings::{Percent, Settings, Speed};
use crate::workers::PacketSource;

/// It ends, says so, and leaves no socket that answers for half a recorder.
#[test]
fn a_worker_that_panics_ends_the_recorder() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let settings = Settings {
        socket: socket.clone(),
        memory: Some("16M".parse().unwrap()),
        replay: Some("/dev/null".into()),
        speed: Speed::Max,
        no_drop_privileges: true,
        compression_cpu: Percent(0.0),
        sandbox: SandboxMode::Off,
        ..Settings::default()
    };
    let mut opened = Opened::open(settings).unwrap();
    opened.resources.sources = vec![PacketSource::Panicking];
    let notify = directory.path().join("notify");
    let supervisor = UnixDatagram::bind(&notify).unwrap();
    supervisor.set_nonblocking(true).unwrap();
    opened.resources.supervisor = Supervisor::new(Some(notify.as_os_str()), None, None);
    let running = opened.confine().unwrap().restore().unwrap().start(None).unwrap();
    // Nobody stops it.
    let (_stop, requested) = oneshot::channel();
    let error = running.run(StopCondition::Requested(requested)).unwrap_err();
    assert!(matches!(error, Error::WorkerPanicked(0)), "{error}");
    assert!(error.to_string().contains("recording was stopped"), "{error}");
    assert!(!socket.exists(), "nobody is answered by half a recorder");
    let mut said = String::new();
    let mut buffer = [0; 256];
    while let Ok(length) = supervisor.recv(&mut buffer) {
        said += &String::from_utf8_lossy(&buffer[..length]);
    }
    assert!(said.contains("STOPPING=1\nSTATUS=worker 0 has failed"), "{said}");
}
