//! Giving up all rights while recording: a process of one thread does it, so this test is a program of its own.
//!
//! The program starts itself again in a network namespace; that child opens a source, gives up its rights, and must
//! then still take over an interface that appears only now.

#[cfg(target_os = "linux")]
#[path = "all/namespaces.rs"]
#[allow(dead_code, reason = "shared with the tests of live capture")]
mod namespaces;

#[cfg(target_os = "linux")]
fn main() {
    if std::env::var_os("RETROCAP_TEST_CHILD").is_some() {
        child::give_up_rights_and_record();
    } else if namespaces::available("privileges") {
        parent();
    }
}

#[cfg(not(target_os = "linux"))]
fn main() {}

#[cfg(target_os = "linux")]
fn parent() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    let namespace = namespaces::Namespace::new();
    let mut child = Command::new("ip")
        .args(["netns", "exec", &namespace.name])
        .arg(std::env::current_exe().unwrap())
        .env("RETROCAP_TEST_CHILD", "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    if let Some(Ok(line)) = lines.next() {
        println!("child {line}");
        namespace.ip("link add later0 type veth peer name back0");
        namespace.ip("link set later0 up");
        namespace.ip("link set back0 up");
        // The first may come before the child's filter knows of the interface.
        for _ in 0..100 {
            namespace.send("back0", "[bytes(64)]", 1);
            if child.try_wait().unwrap().is_some() {
                break;
            }
        }
    }
    assert!(child.wait().unwrap().success());
}

#[cfg(target_os = "linux")]
mod child {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use retrocap::capture::Source;
    use retrocap::capture::interfaces::{Monitor, links};
    use retrocap::capture::live::{LiveConfig, LiveSource, capture_rights};
    use retrocap::capture::selection::Selection;
    use retrocap::daemon::privileges;
    use retrocap::interface::Interfaces;

    pub(super) fn give_up_rights_and_record() {
        capture_rights().unwrap();
        let unknown = privileges::drop(Some("nobody-at-all"), false);
        assert!(matches!(unknown, Err(privileges::Error::UnknownUser(_))), "{unknown:?}");

        let selection = Arc::new(Selection::new(&["later0".to_owned()]));
        let interfaces = Arc::new(Interfaces::default());
        selection.refresh(links().unwrap());
        let config = LiveConfig { promiscuous: true, ..LiveConfig::default() };
        let mut source = LiveSource::open(&config, Arc::clone(&selection), Arc::clone(&interfaces)).unwrap();

        let dropped = privileges::drop(Some("nobody"), false).unwrap();
        assert_eq!(dropped.user.as_ref().map(|user| user.0.as_str()), Some("nobody"));
        assert!(dropped.capabilities && dropped.bounding, "{dropped}");
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert!(status.contains(&format!("{set}:\t0000000000000000")), "{status}");
        }
        assert!(status.contains("NoNewPrivs:\t1"), "{status}");
        let refused = capture_rights().unwrap_err().to_string();
        assert!(refused.contains("needs CAP_NET_RAW: run with sudo, or `sudo setcap"), "{refused}");

        // What was opened goes on, and takes over what comes.
        let _monitor = Monitor::start(Arc::clone(&selection), Arc::clone(&interfaces), || {}).unwrap();
        println!("{dropped}");
        let (mut seen, end) = (0, Instant::now() + Duration::from_secs(20));
        while seen == 0 {
            assert!(Instant::now() < end, "nothing from an interface that came after rights were given up");
            source
                .batch(&mut |packet| {
                    assert_eq!(interfaces.interface(packet.interface).unwrap().name, "later0");
                    seen += 1;
                })
                .unwrap();
        }
    }
}
