//! Where processes are: containers, other network namespaces, both sides of a NAT, proxies; and storms of them.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use query::status::Source;
use serde_json::Value;

use super::process_names::{CGROUP2, Program, flows, method};
use super::running::{Recorder, directory, eventually, have};
use crate::namespaces::{Namespace, available};

const ID: &str = "5e551077e57c0ffee0123456789abcdef0123456789abcdef0123456789abcde";

/// A cgroup that is named as a container of Docker with systemd.
struct Container(PathBuf);

impl Container {
    fn new(test: &str) -> Option<Self> {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let mut mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let root = mounts.find(|mount| mount[2] == "cgroup2").map(|mount| PathBuf::from(mount[1]));
        let path = root.map(|root| root.join(format!("docker-{}{:08x}.scope", &ID[..56], std::process::id())));
        match path.map(|path| std::fs::create_dir(&path).map(|()| Self(path))) {
            Some(Ok(container)) => Some(container),
            _ => {
                eprintln!("SKIPPED: {test}: no cgroup2 hierarchy can be written");
                None
            }
        }
    }

    /// Runs a script of bash in the container and in a namespace. Returns its process id.
    fn run(&self, namespace: &Namespace, script: &str) -> u32 {
        // `ip netns exec` hides the hierarchy.
        let enter = format!(
            "echo $$ >{}/cgroup.procs && exec ip netns exec {} bash -c \"$0\"",
            self.0.display(),
            namespace.name
        );
        let mut child = Command::new("bash").args(["-c", &enter, script]).stderr(Stdio::null()).spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        pid
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

fn lo_up(namespace: &Namespace) {
    namespace.ip("link set lo up");
}

fn bash(namespace: &Namespace, script: &str) -> u32 {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &namespace.name, "bash", "-c", script]).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let pid = child.id();
    child.wait().unwrap();
    pid
}

#[test]
fn a_container_is_named_in_sums_lines_and_the_log_that_outlives_the_recorder() {
    let test = "containers";
    if !available(test) || !have(test, &["bash", "ip"]) {
        return;
    }
    let Some(container) = Container::new(test) else { return };
    let (namespace, spool) = (Namespace::new(), directory());
    lo_up(&namespace);
    let spool = spool.path().join("spool");
    let kept = ["-m", "32M", "--spool", spool.to_str().unwrap(), "--spool-size", "64M"];
    let recorder = Recorder::live_under(&namespace, &CGROUP2, &[&kept[..], &["--processes"]].concat());
    if let (Source::SockDiag, reason) = method(&recorder) {
        return eprintln!("SKIPPED: {test}: {reason}");
    }
    let inside = container.run(&namespace, "echo x >/dev/udp/127.0.0.1/5001; echo x >/dev/tcp/127.0.0.1/5001");
    let outside = bash(&namespace, "echo x >/dev/udp/127.0.0.1/5002");
    let name = format!("docker:{}", &ID[..12]);
    let of = |flow: &Value| (flow["process"]["pid"].as_u64(), flow["process"]["container"].as_str().map(str::to_owned));
    eventually("all are named", || {
        let flows = flows(&recorder, &["portrange", "5001-5002"]);
        flows.len() == 3 && flows.iter().all(|flow| of(flow).0.is_some())
    });
    let by_container = flows(&recorder, &["--container", &name]);
    assert_eq!(
        by_container.iter().map(of).collect::<Vec<_>>(),
        [(Some(inside.into()), Some(name.clone())), (Some(inside.into()), Some(name.clone()))]
    );
    let sums = |recorder: &Recorder, more: &[&str]| {
        let sums = flows(recorder, &[&["--by", "container"], more].concat());
        let mut sums: Vec<_> = sums
            .iter()
            .map(|sum| (sum["container"].as_str().unwrap().to_owned(), sum["sessions"].as_u64().unwrap()))
            .collect();
        sums.sort();
        sums
    };
    // The tests may run in a container themselves.
    let of_outside = flows(&recorder, &["port", "5002"]);
    let place = ["container", "unit"].into_iter().find_map(|key| of_outside[0]["process"][key].as_str());
    let place = place.unwrap_or("host").to_owned();
    let mut expected = [(name.clone(), 2), (place, 1)];
    expected.sort();
    let only = &["portrange", "5001-5002"];
    assert_eq!(sums(&recorder, only), expected);
    // Lines of packets, each with the process of its session.
    let lines = recorder.ask(&["get", "--text", "portrange", "5001-5002"]);
    let udp = lines.stdout.lines().find(|line| line.contains(".5002: ")).unwrap();
    assert!(udp.contains(&format!("  <bash {outside}")) && udp.ends_with('>'), "{lines:?}");
    assert!(
        lines
            .stdout
            .lines()
            .filter(|line| line.contains(".5001"))
            .all(|line| line.ends_with(&format!("  <bash {inside} {name}>"))),
        "{lines:?}"
    );
    let lines = recorder.ask(&["get", "--text", "--container", &name]);
    assert!(lines.stdout.lines().count() >= 3 && lines.stdout.lines().all(|line| line.contains(&name)), "{lines:?}");
    let table = recorder.ask(&["flows", "port", "5001"]).stdout;
    assert!(table.contains(&format!("by bash {inside} {name}")), "{table}");
    let csv = recorder.ask(&["flows", "--csv", "port", "5002"]).stdout;
    assert!(csv.lines().nth(1).is_some_and(|row| row.contains(&format!("\"bash\",{outside}"))), "{csv}");

    // The end of the recorder writes the log; one that watches no processes answers from it.
    recorder.signal("-TERM");
    let mut recorder = recorder;
    recorder.child.wait().unwrap();
    let recorder = Recorder::live(&namespace, &kept);
    let disk = ["--from", "disk", "portrange", "5001-5002"];
    eventually("the log is there", || flows(&recorder, &disk).len() == 3);
    assert_eq!(sums(&recorder, &disk), expected);
    let by_process = flows(&recorder, &[&["--by", "process"], &disk[..]].concat());
    assert_eq!((&by_process[0]["process"], &by_process[0]["sessions"]), (&"bash".into(), &3.into()), "{by_process:?}");
    let logged = flows(&recorder, &["--from", "disk", "--container", &name]);
    assert_eq!(logged.iter().map(|flow| of(flow).0).collect::<Vec<_>>(), [Some(inside.into()), Some(inside.into())]);
    assert!(logged.iter().all(|flow| flow["process"]["source"] == "ebpf"), "{logged:?}");
    assert_eq!(flows(&recorder, &["--from", "disk", "--process", &outside.to_string()]).len(), 1);
    let refused = recorder.ask(&["flows", "--by", "container"]);
    assert!(refused.code == 1 && refused.stderr.contains("--from disk"), "{refused:?}");
}

/// `inner` behind `router`, which has a public side to `outer`. The names are of the ends of the cables.
fn router() -> (Namespace, Namespace, Namespace) {
    let (inner, router, outer) = (Namespace::new(), Namespace::new(), Namespace::new());
    router.ip(&format!("link add inside type veth peer name eth0 netns {}", inner.name));
    router.ip(&format!("link add outside type veth peer name eth0 netns {}", outer.name));
    for (namespace, device, address) in [
        (&inner, "eth0", "10.77.0.2/24"),
        (&router, "inside", "10.77.0.1/24"),
        (&router, "outside", "192.0.2.1/24"),
        (&outer, "eth0", "192.0.2.2/24"),
    ] {
        namespace.ip(&format!("addr add {address} dev {device}"));
        namespace.ip(&format!("link set {device} up"));
    }
    inner.ip("route add default via 10.77.0.1");
    router.python("open('/proc/sys/net/ipv4/ip_forward', 'w').write('1')");
    (inner, router, outer)
}

const SERVER: &str = "exec python3 -c 'import socket, sys, select\n\
    s = socket.create_server((\"0.0.0.0\", 8000)); print(\"up\", flush=True); held = []\n\
    while True:\n\
    \tready = select.select([s, sys.stdin], [], [])[0]\n\
    \tif sys.stdin in ready: break\n\
    \theld.append(s.accept()[0]); held[-1].sendall(b\"hello\")'";

#[test]
fn forwarded_sessions_are_not_local_and_the_sides_of_a_nat_are_tied() {
    let test = "sessions of NAT";
    if !available(test) || !have(test, &["bash", "python3", "ip", "iptables"]) {
        return;
    }
    let (inner, router, outer) = router();
    let nat = ["-t", "nat", "-A", "POSTROUTING", "-o", "outside", "-p", "tcp", "--dport", "8000", "-j", "MASQUERADE"];
    let status = Command::new("ip").args(["netns", "exec", &router.name, "iptables"]).args(nat).status().unwrap();
    if !status.success() {
        return eprintln!("SKIPPED: {test}: this kernel has no NAT");
    }
    outer.ip("route add 10.77.0.0/24 via 192.0.2.1");
    let recorder = Recorder::live_under(&router, &CGROUP2, &["-m", "64M", "--processes", "--user", "nobody"]);
    let (source, _) = method(&recorder);
    let _server = Program::start(&outer, SERVER);
    // To the server through NAT, and past NAT by UDP.
    let client = Program::start(
        &inner,
        "exec 3<>/dev/tcp/192.0.2.2/8000; read -rn 5 <&3; echo x >/dev/udp/192.0.2.2/8001; echo up; read -r line",
    );
    if recorder.status().processes.unwrap().nat_unseen.is_some() {
        return eprintln!("SKIPPED: {test}: {:?}", recorder.status().processes);
    }
    let seen = || flows(&recorder, &["tcp", "port", "8000"]);
    eventually("both sides are tied", || {
        let seen = seen();
        seen.len() == 2 && seen.iter().all(|flow| flow["nat"].is_object())
    });
    let seen = seen();
    let side = |interface: &str| seen.iter().find(|flow| flow["interface"] == interface).unwrap();
    let (before, after) = (side("inside"), side("outside"));
    assert_eq!((&before["nat"]["side"], &after["nat"]["side"]), (&"after".into(), &"before".into()));
    assert_eq!(before["originator"]["ip"], "10.77.0.2");
    assert_eq!(after["originator"]["ip"], "192.0.2.1");
    assert_eq!(
        (&before["nat"]["originator"], &after["nat"]["originator"]),
        (&after["originator"], &before["originator"])
    );
    assert_eq!(after["nat"]["responder"], after["responder"]);
    let text = recorder.ask(&["flows", "tcp", "port", "8000"]).stdout;
    assert!(text.contains("after NAT 192.0.2.1:") && text.contains("before NAT 10.77.0.2:"), "{text}");
    let forwarded = flows(&recorder, &["udp", "port", "8001"]);
    if source == Source::Ebpf {
        for flow in [before, after] {
            assert_eq!(flow["process"]["pid"], client.pid(), "{flow}");
            assert_eq!(flow["process"]["other_namespace"], true);
        }
        let process = flows(&recorder, &["--process", &client.pid().to_string(), "tcp"]);
        assert_eq!(process.len(), 2, "the session outside and the one inside: {process:?}");
        // Another namespace's process is named as such.
        assert!(forwarded.iter().all(|flow| flow["process"]["other_namespace"] == true), "{forwarded:?}");
    } else {
        let why = |flow: &Value| flow["process_unknown"].as_str().unwrap_or_default().to_owned();
        assert!(forwarded.iter().all(|flow| why(flow).contains("not local")), "{forwarded:?}");
    }
}

#[test]
fn a_session_between_other_hosts_is_not_local() {
    let test = "sessions that are not local";
    if !available(test) || !have(test, &["python3", "ip"]) {
        return;
    }
    let (near, far) = Namespace::pair();
    let recorder = Recorder::live(&near, &["-m", "16M", "--processes"]);
    // UDP from 198.51.100.7:9 to 198.51.100.8:7, as a mirror port has it.
    let frame = "[bytes.fromhex('020000000001020000000002' '0800' '4500001d000000004011' '0000' 'c6336407' 'c6336408' '00090007' '00090000' '78')]";
    far.send("far", frame, 3);
    let mirrored = || flows(&recorder, &["udp", "port", "7"]);
    eventually("it is there", || !mirrored().is_empty());
    let flow = &mirrored()[0];
    assert!(flow["process"].is_null(), "{flow}");
    assert!(flow["process_unknown"].as_str().unwrap().starts_with("not local"), "{flow}");
}

#[test]
fn ping_is_named_and_the_kernel_that_answers_is_not_mistaken_for_a_process() {
    let test = "processes of ICMP";
    if !available(test) || !have(test, &["ping", "ip"]) {
        return;
    }
    let (near, far) = Namespace::pair();
    near.ip("addr add 10.78.0.1/24 dev near");
    far.ip("addr add 10.78.0.2/24 dev far");
    let recorder = Recorder::live_under(&near, &CGROUP2, &["-m", "64M", "--processes", "--user", "nobody"]);
    let (source, reason) = method(&recorder);
    far.exec(&["ping", "-c", "1", "10.78.0.1"]);
    let pings = || flows(&recorder, &["icmp"]);
    eventually("the ping of another host is there", || !pings().is_empty());
    let flow = &pings()[0];
    assert!(flow["process_unknown"].as_str().unwrap().contains("the kernel itself answers"), "{flow}");
    if source != Source::Ebpf {
        return eprintln!("SKIPPED: {test}: {reason}");
    }
    near.exec(&["ping", "-c", "1", "10.78.0.2"]);
    let from_here = || pings().into_iter().find(|flow| flow["originator"]["ip"] == "10.78.0.1");
    eventually("our ping is named", || from_here().is_some_and(|flow| flow["process"]["name"] == "ping"));
    let flow = from_here().unwrap();
    assert_eq!((&flow["process"]["certainty"], &flow["process"]["source"]), (&"port".into(), &"ebpf".into()), "{flow}");
}

#[test]
fn a_proxy_has_the_session_outside_and_the_one_inside() {
    let test = "processes of proxies";
    if !available(test) || !have(test, &["bash", "python3", "ip"]) {
        return;
    }
    let (near, far) = Namespace::pair();
    near.ip("addr add 10.79.0.1/24 dev near");
    far.ip("addr add 10.79.0.2/24 dev far");
    lo_up(&near);
    let recorder = Recorder::live_under(&near, &CGROUP2, &["-m", "64M", "--processes", "--user", "nobody"]);
    method(&recorder);
    let _server = Program::start(&near, SERVER);
    let proxy = "exec -a relay python3 -c 'import socket, sys\n\
        s = socket.create_server((\"10.79.0.1\", 8080)); print(\"up\", flush=True)\n\
        a = s.accept()[0]; b = socket.create_connection((\"127.0.0.1\", 8000)); a.sendall(b.recv(5)); sys.stdin.read()'";
    let proxy = Program::start(&near, proxy);
    let _client = Program::start(&far, "exec 3<>/dev/tcp/10.79.0.1/8080; read -rn 5 <&3; echo up; read -r line");
    let of_proxy = || flows(&recorder, &["--process", &proxy.pid().to_string()]);
    eventually("both sessions are of the proxy", || of_proxy().len() == 2);
    let mut ends: Vec<_> = of_proxy()
        .iter()
        .map(|flow| {
            let end = if flow["process"]["pid"] == proxy.pid() {
                &flow["process"]["end"]
            } else {
                &flow["other_process"]["end"]
            };
            (flow["responder"]["port"].as_u64().unwrap(), end.as_str().unwrap().to_owned())
        })
        .collect();
    ends.sort();
    assert_eq!(ends, [(8000, "originator".to_owned()), (8080, "responder".to_owned())]);
}

#[test]
fn a_storm_of_processes_costs_names_and_no_packet() {
    let test = "a storm of processes";
    if !available(test) || !have(test, &["python3", "ip"]) {
        return;
    }
    let namespace = Namespace::new();
    lo_up(&namespace);
    let recorder = Recorder::live_under(&namespace, &CGROUP2, &["-m", "64M", "--processes", "--user", "nobody"]);
    let (source, _) = method(&recorder);
    const PROCESSES: u32 = 5000;
    // At most 64 at a time. Each sends one datagram of its own socket and ends.
    namespace.python(&format!(
        "import os, socket\nalive = 0\nfor i in range({PROCESSES}):\n\
         \tif alive == 64: os.wait(); alive -= 1\n\
         \tif not os.fork():\n\
         \t\ts = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.sendto(b'x', ('127.0.0.1', 9)); os._exit(0)\n\
         \talive += 1\n\
         while alive: os.wait(); alive -= 1\n"
    ));
    eventually("all datagrams are there", || {
        let status = recorder.status();
        assert_eq!((status.packets.kernel_dropped, status.packets.dropped), (0, 0));
        flows(&recorder, &["udp", "dst", "port", "9", "--limit", "1"]).len() == 1
            && status.packets.received >= u64::from(PROCESSES)
    });
    // A port may serve two of the processes, whose datagrams are one session then.
    let named = || flows(&recorder, &["--by", "process", "udp", "and", "dst", "port", "9"]);
    let sessions = |sums: &[Value], known: bool| -> u64 {
        let of = sums.iter().filter(|sum| sum["process"].as_str().unwrap().is_empty() != known);
        of.map(|sum| sum["sessions"].as_u64().unwrap()).sum()
    };
    if source == Source::Ebpf {
        let (status, sums) = (recorder.status().processes.unwrap(), named());
        let (known, unknown) = (sessions(&sums, true), sessions(&sums, false));
        println!("{known} of {} sessions of the storm are named; {status:?}", known + unknown);
        let counted = status.lost + status.forgotten;
        assert!(known > 0 && (unknown <= counted + u64::from(PROCESSES) / 100), "{sums:?} {status:?}");
        assert!(sums.iter().all(|sum| ["", "python3"].contains(&sum["process"].as_str().unwrap())), "{sums:?}");
    }
}

/// A server of HTTP on all addresses of the namespace.
const HTTP: &str = "exec python3 -c 'import http.server, socket, sys, threading\n\
    class S(http.server.ThreadingHTTPServer): address_family = socket.AF_INET6\n\
    class H(http.server.BaseHTTPRequestHandler):\n\
    \tdef do_GET(self): self.send_response(200); self.send_header(\"Content-Length\", \"2\"); self.end_headers(); self.wfile.write(b\"ok\")\n\
    \tdef log_message(self, *a): pass\n\
    s = S((\"::\", 8000), H); threading.Thread(target=s.serve_forever, daemon=True).start()\n\
    print(\"up\", flush=True); sys.stdin.read()'";

/// A hundred programs ask a server over IPv4 and IPv6. Returns the pids of the programs, and of the server.
fn curls(namespace: &Namespace, hold: bool) -> (Vec<u32>, Program) {
    lo_up(namespace);
    namespace.python("open('/proc/sys/net/ipv6/conf/lo/disable_ipv6', 'w').write('0')");
    let server = Program::start(namespace, HTTP);
    let ask = |number: u32| {
        let host = if number.is_multiple_of(2) { "127.0.0.1" } else { "[::1]" };
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &namespace.name]);
        if hold {
            // It keeps its connection for longer than 100 ms, and ends.
            let address = host.trim_matches(['[', ']']);
            let script = format!(
                "import socket, time; s = socket.create_connection((\"{address}\", 8000)); s.sendall(b\"GET / HTTP/1.1\\r\\n\\r\\n\"); s.recv(9); time.sleep(0.15)"
            );
            command.args(["python3", "-c", &script]);
        } else {
            command.args(["curl", "-s", "-o", "/dev/null", &format!("http://{host}:8000/")]);
        }
        let mut child = command.spawn().unwrap();
        let pid = child.id();
        assert!(child.wait().unwrap().success());
        pid
    };
    let mut pids: Vec<u32> = (0..100).map(ask).collect();
    pids.sort_unstable();
    (pids, server)
}

/// How many clients and servers are named; checks that none is named wrong, and each client once.
fn named_right(flows: &[Value], clients: &[u32], server: u32) -> (usize, usize) {
    let (mut found, mut servers) = (Vec::new(), 0);
    for flow in flows {
        for end in [&flow["process"], &flow["other_process"]] {
            let Some(pid) = end["pid"].as_u64().map(|pid| u32::try_from(pid).unwrap()) else { continue };
            if end["end"] == "originator" {
                found.push(pid);
            } else {
                assert_eq!(pid, server, "{flow}");
                servers += 1;
            }
        }
    }
    found.sort_unstable();
    let unique = found.iter().collect::<std::collections::BTreeSet<_>>().len();
    assert_eq!(unique, found.len(), "a process has two sessions: {found:?}");
    assert!(found.iter().all(|pid| clients.contains(pid)), "{found:?} of {clients:?}");
    (found.len(), servers)
}

#[test]
fn a_hundred_curls_and_their_server_are_named_with_and_without_ebpf() {
    let test = "a hundred curls";
    if !available(test) || !have(test, &["curl", "bash", "python3", "ip", "setpriv"]) {
        return;
    }
    let namespace = Namespace::new();
    let recorder = Recorder::live_under(&namespace, &CGROUP2, &["-m", "64M", "--processes", "--user", "nobody"]);
    if method(&recorder).0 == Source::Ebpf {
        let (clients, server) = curls(&namespace, false);
        let seen = || flows(&recorder, &["tcp", "dst", "port", "8000"]);
        eventually("all sessions are there", || seen().len() == 100);
        let mut right = (0, 0);
        eventually("99 % are named", || {
            right = named_right(&seen(), &clients, server.pid());
            right.0 >= 99 && right.1 >= 99
        });
        println!("eBPF: {} clients and {} servers of 100, none wrong", right.0, right.1);
    }
    drop(recorder);
    let namespace = Namespace::new();
    let before = [&CGROUP2[..], &["setpriv", "--bounding-set=-bpf,-perfmon,-sys_admin"]].concat();
    let recorder = Recorder::live_under(&namespace, &before, &["-m", "64M", "--processes"]);
    assert_eq!(method(&recorder).0, Source::SockDiag);
    let (clients, server) = curls(&namespace, true);
    let seen = || flows(&recorder, &["tcp", "dst", "port", "8000"]);
    eventually("all sessions are there", || seen().len() == 100);
    let right = named_right(&seen(), &clients, server.pid());
    println!("scans: {} clients and {} servers of 100 that live longer than 100 ms, none wrong", right.0, right.1);
    assert!(right.0 >= 90 && right.1 >= 90, "{right:?}");
}
