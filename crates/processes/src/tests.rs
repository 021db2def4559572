//! Real sockets of real processes.

mod servers;
mod storms;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rustix::net::{AddressFamily, SocketType};

use crate::process::{Certainty, Process, Source};
use crate::report::{Report, SocketName};
use crate::sockets::Protocol;
use crate::table::{SessionLifetime, SocketTable};
use crate::tracer::{Tracer, TracerError};
use crate::watcher::Watcher;

fn now_ns() -> u64 {
    u64::try_from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos()).unwrap()
}

fn open_now(first_ns: u64) -> SessionLifetime {
    SessionLifetime { first_ns, last_ns: now_ns(), closed: false }
}

/// What two looks find.
fn watch(table: &SocketTable) {
    let mut watcher = Watcher::new(Path::new("/proc")).unwrap();
    for _ in 0..2 {
        watcher.look().unwrap().into_iter().for_each(|report| table.take(report));
    }
}

/// Between fork and exec, a child holds the sockets of its parent, which then has no single owner. Tests that start
/// programs and tests that look for owners therefore run one at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn both_ends_of_local_connections_are_named() {
    let _alone = alone();
    for any in ["127.0.0.1:0", "[::1]:0"] {
        let began = now_ns();
        let listener = TcpListener::bind(any).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, from) = listener.accept().unwrap();
        let table = SocketTable::new(1 << 20);
        watch(&table);
        let (local, remote) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
        assert_eq!(from, local);
        for process in table.of_session(Protocol::Tcp, local, remote, open_now(began)) {
            let process = process.unwrap();
            assert_eq!((process.pid, process.certainty), (Some(std::process::id()), Certainty::Socket));
            assert_eq!(process.path.as_deref(), std::env::current_exe().unwrap().to_str());
            assert_eq!(process.uid, rustix::process::getuid().as_raw());
        }
        drop(server);
        let before = SessionLifetime { first_ns: 1, last_ns: began - 2_000_000_000, closed: false };
        assert_eq!(
            table.of_session(Protocol::Tcp, local, remote, before),
            [None, None],
            "an older session of this name"
        );
    }
}

#[test]
fn servers_of_udp_are_named_by_their_port() {
    let _alone = alone();
    let began = now_ns();
    let server = UdpSocket::bind("0.0.0.0:0").unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), server.local_addr().unwrap().port());
    client.connect(to).unwrap();
    client.send(b"x").unwrap();
    let table = SocketTable::new(1 << 20);
    watch(&table);
    let found = table.of_session(Protocol::Udp, client.local_addr().unwrap(), to, open_now(began));
    let certainties = found.map(|process| process.unwrap().certainty);
    assert_eq!(certainties, [Certainty::Socket, Certainty::Port]);
}

/// A shell that holds a connection to us until its standard input ends.
struct Client(Child);

impl Client {
    fn new(port: u16) -> Option<Self> {
        let script = format!("exec 3<>/dev/tcp/127.0.0.1/{port}; echo up; read -r line");
        let mut child = Command::new("bash")
            .args(["-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .inspect_err(|_| eprintln!("SKIPPED: bash is not installed"))
            .ok()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "up\n");
        Some(Self(child))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.0.stdin.take().unwrap().write_all(b"\n");
        let _ = self.0.wait();
    }
}

#[test]
fn many_other_processes_are_named_and_none_is_named_wrong() {
    let _alone = alone();
    let began = now_ns();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let Some(first) = Client::new(at.port()) else { return };
    let clients: Vec<_> = std::iter::once(first).chain((1..40).filter_map(|_| Client::new(at.port()))).collect();
    let accepted: Vec<_> = clients.iter().map(|_| listener.accept().unwrap()).collect();
    let table = SocketTable::new(1 << 20);
    watch(&table);
    for (client, (_, from)) in clients.iter().zip(&accepted) {
        let [process, server] = table.of_session(Protocol::Tcp, *from, at, open_now(began));
        let process = process.unwrap();
        assert_eq!((process.pid, process.name.as_deref()), (Some(client.0.id()), Some("bash")));
        assert!(
            process.is_called("bash") && process.is_called(&client.0.id().to_string()) && !process.is_called("bas")
        );
        assert_eq!(server.unwrap().pid, Some(std::process::id()));
    }
}

#[test]
fn a_name_that_is_used_again_is_not_taken_for_the_old_one() {
    let _alone = alone();
    let table = SocketTable::new(1 << 20);
    let socket = SocketName {
        protocol: Protocol::Tcp,
        local: "10.0.0.1:1000".parse().unwrap(),
        remote: "10.0.0.2:80".parse().unwrap(),
    };
    let process = |pid| Box::new(Process { pid: Some(pid), ..Process::only_user(0) });
    let second = 1_000_000_000;
    table.take(Report::Open { time_ns: 10 * second, socket, process: process(1) });
    table.take(Report::Closed { time_ns: 20 * second, socket });
    table.take(Report::Open { time_ns: 30 * second, socket, process: process(2) });
    let who = |first_ns, last_ns, closed| {
        let lived = SessionLifetime { first_ns, last_ns, closed };
        let [process, other] = table.of_session(Protocol::Tcp, socket.local, socket.remote, lived);
        assert_eq!(other, None);
        process.and_then(|process| process.pid)
    };
    assert_eq!(who(9 * second, 21 * second, true), Some(1));
    assert_eq!(who(25 * second, 40 * second, false), Some(2));
    assert_eq!(who(22 * second, 24 * second, true), None, "between two uses");
    assert_eq!(who(5 * second, 45 * second, false), None, "not clear");
    assert_eq!(who(1, second, true), None);
    // Seen for the first time just after a session of the same name was closed: it is the next one.
    let table = SocketTable::new(1 << 20);
    table.take(Report::Open { time_ns: 10 * second, socket, process: process(3) });
    let lived = |closed| SessionLifetime { first_ns: 9 * second, last_ns: 10 * second - 5, closed };
    let pid = |closed| table.of_session(Protocol::Tcp, socket.local, socket.remote, lived(closed))[0].clone();
    assert_eq!((pid(true), pid(false).and_then(|process| process.pid)), (None, Some(3)));
}

#[test]
fn sockets_that_are_gone_are_reported_once() {
    let _alone = alone();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let local = listener.local_addr().unwrap();
    let mut watcher = Watcher::new(Path::new("/proc")).unwrap();
    let events = |watcher: &mut Watcher<'_>| {
        let reports = watcher.look().unwrap();
        let of_ours = reports.into_iter().filter_map(|report| match report {
            Report::Open { socket, .. } if socket.local == local => Some("open"),
            Report::Closed { socket, .. } if socket.local == local => Some("closed"),
            _ => None,
        });
        of_ours.collect::<Vec<_>>()
    };
    assert_eq!(events(&mut watcher), ["open"]);
    assert!(events(&mut watcher).is_empty());
    drop(listener);
    std::thread::sleep(Duration::from_millis(1));
    assert_eq!(events(&mut watcher), ["closed"]);
    assert!(events(&mut watcher).is_empty());
}

/// Attaches the tracer; `None` where this kernel or this user does not permit it. A cgroup2 hierarchy is mounted for that
/// if there is none, and taken away at once: the attached programs do not need it.
fn tracer() -> Option<Tracer> {
    let tracer = match Tracer::new(Path::new("/proc")) {
        Err(TracerError::NoCgroup2) => {
            let directory = std::env::temp_dir().join(format!("retrocap-cgroup2-{}", std::process::id()));
            std::fs::create_dir(&directory).unwrap();
            let run = |program: &str, words: &[&str]| {
                Command::new(program).args(words).arg(&directory).status().is_ok_and(|status| status.success())
            };
            let is_mounted = run("mount", &["-t", "cgroup2", "none"]);
            let tracer = Tracer::new(Path::new("/proc"));
            if is_mounted {
                assert!(run("umount", &[]));
            }
            std::fs::remove_dir(&directory).unwrap();
            tracer
        }
        tracer => tracer,
    };
    tracer.inspect_err(|error| eprintln!("SKIPPED: sockets cannot be traced here: {error}")).ok()
}

/// Starts a shell that sends its process id over a connection, and ends at once.
fn brief(protocol: &str, to: SocketAddr) -> Child {
    let script = format!("echo $$ >/dev/{protocol}/{}/{}", to.ip(), to.port());
    Command::new("bash").args(["-c", &script]).spawn().unwrap()
}

#[test]
fn processes_of_milliseconds_are_named_by_the_kernel_and_none_is_named_wrong() {
    let _alone = alone();
    let Some(tracer) = tracer() else { return };
    let table = SocketTable::new(8 << 20);
    let mut watcher = Watcher::new(Path::new("/proc")).unwrap().with_tracer(Some(tracer));
    let mut look = || watcher.look().unwrap().into_iter().for_each(|report| table.take(report));
    look();
    let (mut right, mut all) = (0, 0);
    for any in ["127.0.0.1:0", "[::1]:0"] {
        let listener = TcpListener::bind(any).unwrap();
        let receiver = UdpSocket::bind(any).unwrap();
        receiver.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        for _ in 0..100 {
            let began = now_ns();
            let mut ended = Vec::new();
            let mut tcp = brief("tcp", listener.local_addr().unwrap());
            let (mut accepted, from) = listener.accept().unwrap();
            let mut text = String::new();
            accepted.read_to_string(&mut text).unwrap();
            tcp.wait().unwrap();
            ended.push((Protocol::Tcp, from, listener.local_addr().unwrap(), text));
            let mut udp = brief("udp", receiver.local_addr().unwrap());
            let mut buffer = [0; 64];
            let (bytes, from) = receiver.recv_from(&mut buffer).unwrap();
            udp.wait().unwrap();
            let text = String::from_utf8_lossy(&buffer[..bytes]).into_owned();
            ended.push((Protocol::Udp, from, receiver.local_addr().unwrap(), text));
            // Both processes are gone before anybody looks.
            look();
            for (protocol, from, to, pid) in ended {
                all += 1;
                let [client, server] = table.of_session(protocol, from, to, open_now(began));
                assert_eq!(server.unwrap().pid, Some(std::process::id()), "{protocol:?}");
                let Some(client) = client else { continue };
                assert_eq!(client.pid, Some(pid.trim().parse().unwrap()), "{protocol:?} from {from}");
                assert_eq!((client.name.as_deref(), client.source), (Some("bash"), Source::Ebpf));
                assert!(client.path.as_deref().is_some_and(|path| path.ends_with("/bin/bash")), "{client:?}");
                assert_eq!(client.ppid, Some(std::process::id()));
                right += 1;
            }
        }
    }
    println!("{right} of {all} brief sessions were named, none wrong; {:?}", table.counts());
    assert!(right * 100 >= all * 99, "{right} of {all}");
}

#[test]
fn a_socket_that_sends_without_a_connection_is_named() {
    let _alone = alone();
    let Some(tracer) = tracer() else { return };
    let table = SocketTable::new(1 << 20);
    let mut watcher = Watcher::new(Path::new("/proc")).unwrap().with_tracer(Some(tracer));
    watcher.look().unwrap().into_iter().for_each(|report| table.take(report));
    let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
    let began = now_ns();
    // Bound to no address, so that its process is known only when it sends, and closed at once.
    let sender = UdpSocket::bind("0.0.0.0:0").unwrap();
    for _ in 0..1000 {
        sender.send_to(b"x", receiver.local_addr().unwrap()).unwrap();
    }
    let from = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), sender.local_addr().unwrap().port());
    drop(sender);
    watcher.look().unwrap().into_iter().for_each(|report| table.take(report));
    let [client, _] = table.of_session(Protocol::Udp, from, receiver.local_addr().unwrap(), open_now(began));
    let client = client.unwrap();
    assert_eq!((client.pid, client.certainty), (Some(std::process::id()), Certainty::Port));
    assert_eq!(client.path.as_deref(), std::env::current_exe().unwrap().to_str());
}

/// Two programs that receive at one address (`SO_REUSEPORT`), as two responders of multicast DNS do.
fn share_a_port(tracer: Option<Tracer>) {
    let table = SocketTable::new(1 << 20);
    let mut watcher = Watcher::new(Path::new("/proc")).unwrap().with_tracer(tracer);
    let mut look = || watcher.look().unwrap().into_iter().for_each(|report| table.take(report));
    look();
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None).unwrap();
    rustix::net::sockopt::set_socket_reuseport(&socket, true).unwrap();
    rustix::net::bind(&socket, &SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))).unwrap();
    let ours = UdpSocket::from(socket);
    let port = ours.local_addr().unwrap().port();
    look();
    let from = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let server = |first_ns| table.of_session(Protocol::Udp, from, to, open_now(first_ns))[1].clone();
    let alone_ns = now_ns();
    // While other programs are started, it is examined from time to time only.
    let until = std::time::Instant::now() + Duration::from_secs(20);
    while server(alone_ns).is_none() && std::time::Instant::now() < until {
        look();
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(server(alone_ns).unwrap().pid, Some(std::process::id()), "alone");
    let script = format!(
        "import socket, sys; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); \
         s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1); s.bind(('0.0.0.0', {port})); \
         print('up', flush=True); sys.stdin.read()"
    );
    let mut other = Command::new("python3");
    other.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let Ok(mut other) = other.spawn() else {
        eprintln!("SKIPPED: python3 is not installed");
        return;
    };
    let mut line = String::new();
    BufReader::new(other.stdout.take().unwrap()).read_line(&mut line).unwrap();
    for _ in 0..5 {
        look();
        std::thread::sleep(Duration::from_millis(2));
    }
    let named = server(now_ns());
    drop(other.stdin.take());
    other.wait().unwrap();
    assert_eq!(named, None, "either of two programs could receive it");
}

#[test]
fn programs_that_share_a_port_are_not_named() {
    let _alone = alone();
    share_a_port(None);
    if let Some(tracer) = tracer() {
        share_a_port(Some(tracer));
    }
}

/// The committed programs are what the source says.
#[test]
fn the_compiled_programs_come_from_the_source() {
    let _alone = alone();
    let directory = std::env::temp_dir().join(format!("retrocap-bpf-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let object = directory.join("sockets.bpf.o");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("bpf/compile");
    let output = Command::new(script).arg(&object).output().unwrap();
    if output.status.code() == Some(77) {
        eprintln!("SKIPPED: {}", String::from_utf8_lossy(&output.stderr));
    } else {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let committed = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("bpf/sockets.bpf.o")).unwrap();
        assert!(
            std::fs::read(&object).unwrap() == committed,
            "run crates/processes/bpf/compile, and commit its result"
        );
    }
    std::fs::remove_dir_all(&directory).unwrap();
}
