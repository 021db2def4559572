//! Who accepted a connection, who opened a raw socket, and in which container a process was that has ended.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use super::{alone, now_ns, open_now, tracer};
use crate::process::{Certainty, Process};
use crate::raw::RawOwner;
use crate::sockets::Protocol;
use crate::table::SocketTable;
use crate::tracer::Tracer;
use crate::watcher::Watcher;

/// A server that shares its listener with four workers; each says which process accepted. It ends with its standard input.
const PREFORKING: &str = r#"
import os, socket, sys
s = socket.create_server((sys.argv[1], 0), family=socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, backlog=64)
workers = []
for _ in range(4):
    pid = os.fork()
    if not pid:
        while True:
            c, _ = s.accept()
            c.sendall(str(os.getpid()).encode())
            c.close()
    workers.append(pid)
print(s.getsockname()[1], flush=True)
sys.stdin.read()
for pid in workers:
    os.kill(pid, 9)
"#;

/// Connects to a server with workers. Returns how many of how many connections have the process that accepted; none has
/// another one.
fn ask_workers(address: &str, tracer: Option<Tracer>, pause: Duration) -> Option<(u32, u32)> {
    let mut server = Command::new("python3");
    server.args(["-c", PREFORKING, address]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let Ok(mut server) = server.spawn() else {
        eprintln!("SKIPPED: python3 is not installed");
        return None;
    };
    let mut port = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(server.stdout.as_mut().unwrap()), &mut port).unwrap();
    let to = SocketAddr::new(address.parse().unwrap(), port.trim().parse().unwrap());
    let table = SocketTable::new(8 << 20);
    let mut watcher = Watcher::new(Path::new("/proc")).unwrap().with_tracer(tracer);
    let mut look = || watcher.look().unwrap().into_iter().for_each(|report| table.take(report));
    look();
    look();
    let (mut right, mut all) = (0, 0);
    for _ in 0..100 {
        let began = now_ns();
        let mut client = TcpStream::connect(to).unwrap();
        let mut accepted_by = String::new();
        client.read_to_string(&mut accepted_by).unwrap();
        let from = client.local_addr().unwrap();
        std::thread::sleep(pause);
        look();
        all += 1;
        let [_, found] = table.of_session(Protocol::Tcp, from, to, open_now(began));
        if let Some(Process { pid: Some(pid), .. }) = found {
            assert_eq!(pid.to_string(), accepted_by, "{found:?}");
            right += 1;
        } else if let Some(found) = found {
            let name = found.name.as_deref().unwrap_or_default();
            assert!(name.starts_with("python"), "the program of all of them: {found:?}");
            assert_eq!(found.certainty, Certainty::Program);
        }
    }
    drop(server.stdin.take());
    server.wait().unwrap();
    Some((right, all))
}

#[test]
fn the_worker_that_accepted_is_named_by_the_kernel_and_never_another_one() {
    let _alone = alone();
    for address in ["127.0.0.1", "::1"] {
        let Some((right, all)) = ask_workers(address, None, Duration::ZERO) else { return };
        println!("{address}: scans alone named {right} of {all} that a worker accepted and closed, and none wrong");
        let Some(tracer) = tracer() else { return };
        let (right, all) = ask_workers(address, Some(tracer), Duration::ZERO).unwrap();
        println!("{address}: the kernel named {right} of {all}, and none wrong");
        assert!(right * 100 >= all * 99, "{right} of {all}");
    }
}

/// A server in Python, which goes on with each line that it gets, and ends with its standard input.
struct Server {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Server {
    /// Starts a program; `None`, with a message, where Python is missing.
    fn start(program: &str) -> Option<Self> {
        let mut python = Command::new("python3");
        python.args(["-c", program]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let Ok(mut child) = python.spawn() else {
            eprintln!("SKIPPED: python3 is not installed");
            return None;
        };
        let lines = BufReader::new(child.stdout.take().unwrap());
        Some(Self { child, lines })
    }

    /// The next line that it prints.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    /// Lets it go on.
    fn next(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }

    fn end(mut self) {
        drop(self.child.stdin.take());
        self.child.wait().unwrap();
    }
}

/// A server that answers datagrams itself, and then leaves that to a child.
const FORKING: &str = r#"
import os, socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("127.0.0.1", 0))
print(s.getsockname()[1], flush=True)
sys.stdin.readline()
child = os.fork()
while not child:
    data, to = s.recvfrom(99)
    s.sendto(str(os.getpid()).encode(), to)
print(child, flush=True)
sys.stdin.read()
os.kill(child, 9)
"#;

#[test]
fn a_server_that_forks_is_not_named_by_its_parent_with_scans() {
    let _alone = alone();
    let Some(mut server) = Server::start(FORKING) else { return };
    let to = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), server.line().parse().unwrap());
    let table = SocketTable::new(8 << 20);
    let mut watcher = Watcher::new(Path::new("/proc")).unwrap();
    let mut look = || watcher.look().unwrap().into_iter().for_each(|report| table.take(report));
    look();
    let before_ns = now_ns();
    look();
    server.next();
    let child: u32 = server.line().parse().unwrap();
    let forked_ns = now_ns();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    client.send_to(b"x", to).unwrap();
    let (mut answer, mut named) = ([0; 16], Vec::new());
    let bytes = client.recv(&mut answer).unwrap();
    assert_eq!(String::from_utf8_lossy(&answer[..bytes]), child.to_string());
    let from = client.local_addr().unwrap();
    // At no time is the session named by the parent, which is not the one that answered.
    let until = std::time::Instant::now() + Duration::from_secs(20);
    while std::time::Instant::now() < until {
        look();
        let [_, found] = table.of_session(Protocol::Udp, from, to, open_now(forked_ns));
        named.extend(found);
        if !named.is_empty() {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!((named[0].pid, named[0].certainty), (None, Certainty::Program), "{named:?}");
    let [_, alone] =
        table.of_session(Protocol::Udp, from, to, super::SessionLifetime { last_ns: before_ns, ..open_now(before_ns) });
    assert!(alone.is_none_or(|alone| alone.pid == Some(server.child.id()) || alone.pid.is_none()));
    server.end();
}

/// A server with many sockets of one name in two processes, of which one is replaced at each line.
const REUSING: &str = r#"
import os, signal, socket, sys
def sockets(port, count):
    made = []
    for _ in range(count):
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        s.bind(("127.0.0.1", port))
        made.append(s)
    return made
mine = sockets(0, 1)
port = mine[0].getsockname()[1]
print(port, flush=True)
while sys.stdin.readline():
    ready, ended = os.pipe()
    child = os.fork()
    if not child:
        more = sockets(port, 80)
        mine[0].close()
        os.write(ended, b"x")
        signal.pause()
    os.read(ready, 1)
    print(child, flush=True)
    sys.stdin.readline()
    os.kill(child, 9)
    os.wait()
    print("gone", flush=True)
"#;

#[test]
fn a_group_of_many_sockets_of_one_program_keeps_its_name_when_workers_are_replaced() {
    let _alone = alone();
    let Some(mut server) = Server::start(REUSING) else { return };
    let to = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), server.line().parse().unwrap());
    let table = SocketTable::new(8 << 20);
    let mut watcher = Watcher::new(Path::new("/proc")).unwrap();
    let mut look = || watcher.look().unwrap().into_iter().for_each(|report| table.take(report));
    look();
    let from = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
    for round in 0..3 {
        server.next();
        server.line();
        for _ in 0..3 {
            look();
        }
        let asked_ns = now_ns();
        std::thread::sleep(Duration::from_millis(150));
        look();
        let [_, found] = table.of_session(Protocol::Udp, from, to, open_now(asked_ns));
        let found = found.unwrap_or_else(|| panic!("it has no name in round {round}"));
        assert_eq!((found.pid, found.certainty), (None, Certainty::Program), "round {round}: {found:?}");
        server.next();
        server.line();
        look();
    }
    server.end();
}

/// Opens a raw socket of ICMP in another program, which says that it did.
fn opens_raw(tracer: Option<Tracer>) {
    let table = SocketTable::new(1 << 20);
    let mut watcher = Watcher::new(Path::new("/proc")).unwrap().with_tracer(tracer);
    let mut look = || watcher.look().unwrap().into_iter().for_each(|report| table.take(report));
    look();
    // A protocol for experiments, which nobody else has a socket of (RFC 3692).
    let script = "import socket, sys; s = socket.socket(socket.AF_INET, socket.SOCK_RAW, 253); print('up', flush=True); sys.stdin.read()";
    let mut program = Command::new("python3");
    program.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let Ok(mut program) = program.spawn() else { return eprintln!("SKIPPED: python3 is not installed") };
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(program.stdout.as_mut().unwrap()), &mut line).unwrap();
    if line != "up\n" {
        program.wait().unwrap();
        return eprintln!("SKIPPED: raw sockets need CAP_NET_RAW");
    }
    look();
    let began = now_ns();
    let RawOwner::Known(process) = table.of_raw_session(253, false, open_now(began)) else {
        panic!("{:?}", table.of_raw_session(253, false, open_now(began)))
    };
    assert_eq!((process.pid, process.certainty), (Some(program.id()), Certainty::Port));
    assert_eq!(table.of_raw_session(253, true, open_now(began)), RawOwner::Nobody, "not of IPv6");
    drop(program.stdin.take());
    program.wait().unwrap();
    look();
    std::thread::sleep(Duration::from_millis(2));
    assert_eq!(table.of_raw_session(253, false, open_now(now_ns())), RawOwner::Nobody, "after its end");
}

/// A raw socket that was open before the watcher, and is closed after its first look.
fn closes_old_raw(tracer: Option<Tracer>) {
    let Ok(socket) = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::RAW,
        std::num::NonZeroU32::new(254).map(rustix::net::Protocol::from_raw),
    ) else {
        return eprintln!("SKIPPED: raw sockets need CAP_NET_RAW");
    };
    let table = SocketTable::new(1 << 20);
    let mut watcher = Watcher::new(Path::new("/proc")).unwrap().with_tracer(tracer);
    let mut look = || watcher.look().unwrap().into_iter().for_each(|report| table.take(report));
    look();
    let began = now_ns();
    assert!(matches!(table.of_raw_session(254, false, open_now(began)), RawOwner::Known(_)));
    drop(socket);
    std::thread::sleep(Duration::from_millis(1100));
    look();
    assert_eq!(table.of_raw_session(254, false, open_now(now_ns())), RawOwner::Nobody, "it was closed");
}

#[test]
fn raw_sockets_from_before_the_watcher_are_closed_too() {
    let _alone = alone();
    closes_old_raw(None);
    if let Some(tracer) = tracer() {
        closes_old_raw(Some(tracer));
    }
}

#[test]
fn raw_sockets_are_named_by_the_kernel_and_by_scans() {
    let _alone = alone();
    opens_raw(None);
    if let Some(tracer) = tracer() {
        opens_raw(Some(tracer));
    }
}

/// A hierarchy of cgroup version 1 that names containers on hybrid systems.
fn cgroup_v1() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    let mut mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let pids = mounts.find(|mount| {
        mount.get(2) == Some(&"cgroup") && mount.get(3).is_some_and(|o| o.split(',').any(|o| o == "pids"))
    })?;
    Some(PathBuf::from(pids[1]))
}

#[test]
fn a_container_of_cgroup_version_1_is_named_after_its_process_has_ended() {
    let _alone = alone();
    let Some(tracer) = tracer() else { return };
    let Some(root) = cgroup_v1() else { return eprintln!("SKIPPED: no hierarchy of cgroup version 1 is mounted") };
    let id = format!("{:064x}", 0xfeed_0000_0000_u64 + u64::from(std::process::id()));
    let docker = root.join("docker");
    let made = !docker.exists() && std::fs::create_dir(&docker).is_ok();
    let directory = docker.join(&id);
    if let Err(error) = std::fs::create_dir(&directory) {
        return eprintln!("SKIPPED: {}: {error}", directory.display());
    }
    let table = SocketTable::new(1 << 20);
    let mut watcher = Watcher::new(Path::new("/proc")).unwrap().with_tracer(Some(tracer));
    watcher.look().unwrap().into_iter().for_each(|report| table.take(report));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let receiver = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (tcp, udp) = (listener.local_addr().unwrap(), receiver.local_addr().unwrap());
    let began = now_ns();
    let script = format!(
        "echo $$ >{}/cgroup.procs && echo x >/dev/tcp/127.0.0.1/{} && echo x >/dev/udp/127.0.0.1/{}",
        directory.display(),
        tcp.port(),
        udp.port()
    );
    let status = Command::new("bash").args(["-c", &script]).status().unwrap();
    let from = [listener.accept().unwrap().1, receiver.recv_from(&mut [0; 8]).unwrap().1];
    std::fs::remove_dir(&directory).unwrap();
    if made {
        std::fs::remove_dir(&docker).unwrap();
    }
    assert!(status.success());
    watcher.look().unwrap().into_iter().for_each(|report| table.take(report));
    for (protocol, from, to) in [(Protocol::Tcp, from[0], tcp), (Protocol::Udp, from[1], udp)] {
        let [client, _] = table.of_session(protocol, from, to, open_now(began));
        let container = client.as_ref().and_then(|client| client.container.as_deref());
        assert_eq!(container, Some(&*format!("docker:{}", &id[..12])), "{client:?}");
    }
}
