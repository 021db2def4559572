//! Dropping all privileges while recording. A process with a single thread does it, so this test is a program of its
//! own.
//!
//! The program starts itself again. One child opens a source in a network namespace, drops its privileges, and must
//! then still take over an interface that appears only now. The others each take on one role in the same way, and
//! attempt from inside what nobody in that role may do; some attempts must end the process.

#[cfg(target_os = "linux")]
#[path = "all/machine.rs"]
#[allow(dead_code, reason = "shared with the tests of all")]
mod machine;
#[cfg(target_os = "linux")]
#[path = "all/namespaces.rs"]
#[allow(dead_code, reason = "shared with the tests of live capture")]
mod namespaces;

#[cfg(target_os = "linux")]
fn main() {
    match std::env::var("RETROCAP_TEST_CHILD").as_deref() {
        Ok("record") => child::give_up_rights_and_record(),
        Ok(attempt) => forbidden::attempt(attempt),
        Err(_) if namespaces::available("privileges") => {
            recording();
            forbidden::try_everything();
        }
        Err(_) => {}
    }
}

#[cfg(not(target_os = "linux"))]
fn main() {}

#[cfg(target_os = "linux")]
fn recording() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    let namespace = namespaces::Namespace::new();
    let mut child = Command::new("ip")
        .args(["netns", "exec", &namespace.name])
        .arg(std::env::current_exe().unwrap())
        .env("RETROCAP_TEST_CHILD", "record")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    if let Some(Ok(line)) = lines.next() {
        println!("child {line}");
        namespace.ip("link add later0 type veth peer name back0");
        namespace.ip("link set later0 up");
        namespace.ip("link set back0 up");
        // The first packet may come before the child's filter knows the interface.
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

    use retrocap::capture::interfaces::links;
    use retrocap::capture::live::{LiveConfig, LiveSource, capture_rights};
    use retrocap::capture::monitor::Monitor;
    use retrocap::capture::selection::InterfaceSelection;
    use retrocap::daemon::privileges;
    use retrocap::daemon::sandbox::{PathRules, Role, Sandbox, SandboxMode};
    use retrocap::interface::Interfaces;
    use retrocap::source::Source;

    pub(super) fn give_up_rights_and_record() {
        capture_rights().unwrap();
        let unknown = privileges::drop(Some("nobody-at-all"), false);
        assert!(matches!(unknown, Err(privileges::Error::UnknownUser(_))), "{unknown:?}");

        let selection = Arc::new(InterfaceSelection::new(&["later0".to_owned()]));
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

        let sandbox = Sandbox::enforce(SandboxMode::Required, &PathRules::default(), &dropped).unwrap();
        assert!(std::fs::read_to_string("/proc/self/status").is_err(), "no file is left to read");

        // The open source continues, and takes over new interfaces.
        let role = sandbox.clone();
        let begin = move || role.enter(Role::Interfaces);
        let _monitor = Monitor::start(Arc::clone(&selection), Arc::clone(&interfaces), begin).unwrap();
        sandbox.enter(Role::Capture);
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

/// Forbidden operations, attempted from inside.
#[cfg(target_os = "linux")]
mod forbidden {
    use std::fs::File;
    use std::io;
    use std::os::fd::AsFd;
    use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
    use std::path::Path;
    use std::process::{Command, exit};

    use retrocap::capture::interfaces::links;
    use retrocap::capture::live::capture_rights;
    use retrocap::daemon::privileges;
    use retrocap::daemon::sandbox::{PathRules, Role, Sandbox, SandboxMode};
    use rustix::fs::{AtFlags, CWD, unlinkat};
    use rustix::net::{AddressFamily, SocketType, socket};
    use rustix::process::{Signal, Uid, kill_process};
    use rustix::thread::{move_into_link_name_space, set_thread_res_uid};

    const SIGSYS: i32 = 31;
    const EVERYBODY: [Role; 7] =
        [Role::Main, Role::Capture, Role::Interfaces, Role::Query, Role::Serve, Role::Audit, Role::Spool];

    const READERS: [Role; 6] = [Role::Main, Role::Capture, Role::Query, Role::Serve, Role::Audit, Role::Spool];

    /// An operation, and the roles that may do it.
    type Try = (&'static str, fn(&Path) -> io::Result<()>, &'static [Role]);

    /// Operations that fail without further consequences.
    const REFUSED: &[Try] = &[
        ("read what is not its own", |_| open("/etc/shadow"), &[]),
        ("read an open secret", |_| open("/etc/hostname"), &[]),
        ("look around", |_| std::fs::read_dir("/").map(drop), &[]),
        ("read its configuration", |at| File::open(at.join("etc/config")).map(drop), &READERS),
        ("change its configuration", |at| File::options().append(true).open(at.join("etc/config")).map(drop), &[]),
        ("write a log", |at| File::create(at.join("log/new")).map(drop), &[Role::Main, Role::Audit, Role::Spool]),
        (
            "put a log aside",
            |at| std::fs::rename(at.join("log/old"), at.join("log/old")),
            &[Role::Main, Role::Audit, Role::Spool],
        ),
        ("remove a file", |at| Ok(unlinkat(CWD, at.join("log/old"), AtFlags::empty())?), &[Role::Main, Role::Spool]),
        ("leave a file elsewhere", |_| File::create("/tmp/retrocap-was-here").map(drop), &[]),
        ("leave a link in the log", |at| std::os::unix::fs::symlink("/etc/shadow", at.join("log/link")), &[]),
        ("make a program of the log", |at| std::fs::set_permissions(at.join("log/old"), mode(0o4777)), &[]),
        ("send packets", |_| std::net::UdpSocket::bind("127.0.0.1:0").map(drop), &[]),
        ("call home", |_| std::net::TcpStream::connect("127.0.0.1:9").map(drop), &[]),
        ("open a port", |_| std::net::TcpListener::bind("127.0.0.1:0").map(drop), &[]),
        ("ask for interfaces", |_| links().map(drop), &[Role::Main, Role::Interfaces]),
        ("talk to services", |_| make(AddressFamily::UNIX, SocketType::DGRAM), &[Role::Main]),
        ("open a packet socket", |_| capture_rights().map_err(io::Error::other), &[]),
        ("open a virtual socket", |_| make(AddressFamily::VSOCK, SocketType::STREAM), &[]),
        ("start a program", |_| Command::new("/bin/true").spawn().map(drop), &[]),
        ("start a thread", |_| started(), &[Role::Main, Role::Serve]),
        ("make code of memory", |_| sys::map_code(), &[]),
        ("send a signal", |_| Ok(kill_process(rustix::process::getpid(), Signal::CONT)?), &[]),
    ];

    /// Operations that end the process.
    const DEADLY: &[Try] = &[
        ("become another program", |_| Err(Command::new("/bin/true").exec()), &[]),
        ("become root", |_| Ok(set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)?), &[]),
        ("leave the namespace", |_| Ok(move_into_link_name_space(io::stdin().as_fd(), None)?), &[]),
        ("change the root", |_| Ok(rustix::process::chroot("/")?), &[]),
    ];

    pub(super) fn try_everything() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::set_permissions(directory.path(), mode(0o755)).unwrap();
        for name in ["etc", "log"] {
            std::fs::create_dir(directory.path().join(name)).unwrap();
            std::fs::set_permissions(directory.path().join(name), mode(0o777)).unwrap();
        }
        std::fs::write(directory.path().join("etc/config"), "").unwrap();
        std::fs::write(directory.path().join("log/old"), "").unwrap();
        let run = |attempt: String| {
            let mut child = Command::new(std::env::current_exe().unwrap());
            child.arg(directory.path()).env("RETROCAP_TEST_CHILD", attempt);
            child.output().unwrap()
        };
        for role in EVERYBODY {
            // The roles that may remove a file remove this one.
            std::fs::write(directory.path().join("log/old"), "").unwrap();
            let output = run(format!("refused {}", role.as_str()));
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            print!("{}", String::from_utf8_lossy(&output.stdout));
            for (number, (what, ..)) in DEADLY.iter().enumerate() {
                let output = run(format!("{number} {}", role.as_str()));
                let stderr = String::from_utf8_lossy(&output.stderr);
                assert_eq!(output.status.signal(), Some(SIGSYS), "{}: {what}: {stderr}", role.as_str());
            }
            println!("{}: ended {} times", role.as_str(), DEADLY.len());
        }
    }

    /// Runs in the child.
    pub(super) fn attempt(words: &str) {
        let (what, role) = words.split_once(' ').unwrap();
        let role = EVERYBODY.into_iter().find(|known| known.as_str() == role).unwrap();
        let directory = std::path::PathBuf::from(std::env::args_os().nth(1).unwrap());
        let dropped = privileges::drop(Some("nobody"), false).unwrap();
        let files = PathRules {
            readable: vec![directory.join("etc")],
            writable: vec![directory.join("log")],
            removable: Vec::new(),
        };
        let sandbox = Sandbox::enforce(SandboxMode::Required, &files, &dropped).unwrap();
        if role == Role::Main {
            return in_role(what, role, &directory);
        }
        let thread = std::thread::spawn({
            let what = what.to_owned();
            move || {
                sandbox.enter(role);
                in_role(&what, role, &directory);
            }
        });
        if thread.join().is_err() {
            exit(1);
        }
    }

    fn in_role(what: &str, role: Role, directory: &Path) {
        if let Ok(number) = what.parse::<usize>() {
            let outcome = (DEADLY[number].1)(directory);
            eprintln!("it goes on, with {outcome:?}");
            exit(1);
        }
        for (what, attempt, allowed) in REFUSED {
            match attempt(directory) {
                Ok(()) => assert!(allowed.contains(&role), "{}: could {what}", role.as_str()),
                Err(error) => {
                    assert!(!allowed.contains(&role), "{}: cannot {what}: {error}", role.as_str());
                    let text = error.to_string();
                    let refused = ["Permission denied", "Operation not permitted", "needs CAP_NET_RAW"];
                    assert!(refused.iter().any(|word| text.contains(word)), "{}: {what}: {text}", role.as_str());
                }
            }
        }
        println!("{}: {} attempts", role.as_str(), REFUSED.len());
    }

    fn open(path: &str) -> io::Result<()> {
        File::open(path).map(drop)
    }

    fn mode(bits: u32) -> std::fs::Permissions {
        std::os::unix::fs::PermissionsExt::from_mode(bits)
    }

    fn make(family: AddressFamily, kind: SocketType) -> io::Result<()> {
        Ok(socket(family, kind, None).map(drop)?)
    }

    fn started() -> io::Result<()> {
        let thread = std::thread::Builder::new().spawn(|| {})?;
        thread.join().map_err(|_| io::Error::other("it has panicked"))
    }
}
