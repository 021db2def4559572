//! Deployments of a recorder, and the traffic there.
//!
//! At each of them one party takes part in most sessions or opens most of them, as a flood does: a server, a resolver,
//! a load balancer, a mail relay, a gateway, a scanner. Their sessions are the ones that users look for.

use super::traffic::{From, Host, Kind, SECOND_NS, Traffic, Wire};

/// A deployment and its traffic.
#[derive(Clone, Copy)]
pub(crate) struct Deployment {
    pub(crate) name: &'static str,
    /// Length of the traffic.
    pub(crate) seconds: u64,
    /// Plans the traffic of one second.
    pub(crate) plan: fn(&mut Traffic, u64),
}

impl Deployment {
    /// Plans the traffic of a second, from 0.
    pub(crate) fn plan(&self, traffic: &mut Traffic, second: u64) {
        (self.plan)(traffic, second);
    }
}

const HALF_AN_HOUR: u64 = 1800;

const fn deployment(name: &'static str, plan: fn(&mut Traffic, u64)) -> Deployment {
    Deployment { name, seconds: HALF_AN_HOUR, plan }
}

/// All deployments. The first one has the traffic of one busy server.
pub(crate) const DEPLOYMENTS: [Deployment; 10] = [
    deployment("one server", |traffic, second| mixed(traffic, second, [60, 1])),
    deployment("one client", |traffic, second| mixed(traffic, second, [1, 1])),
    deployment("sixty servers", |traffic, second| mixed(traffic, second, [60, 60])),
    deployment("gateway", |traffic, second| mixed(traffic, second, [1, 4000])),
    deployment("resolver", resolver),
    deployment("load balancer", load_balancer),
    deployment("mail relay", mail_relay),
    deployment("scanner beside a server", scanner),
    deployment("mirror port", mirror_port),
    Deployment { name: "controller beside a server", seconds: 3600, plan: controller },
];

const CLIENTS: u32 = 0x0a4d_0000;
const SERVERS: u32 = 0x0a4e_0000;
const OUTSIDE: u32 = 0xc612_0000;
/// The server, resolver, load balancer or relay.
const HUB: u32 = SERVERS + 1;
const SESSIONS_PER_S: u64 = 6;

/// The ends of the elephant at each deployment: the hub sends to an outsider.
pub(crate) const ELEPHANT: [Host; 2] = [Host(HUB, 1100), Host(0xc000_0263, 4444)];

/// When session `number` of `count` begins.
fn begin_ns(second: u64, number: u64, count: u64) -> u64 {
    second * SECOND_NS + number * SECOND_NS / count
}

/// Sends a request of 80 bytes. One session in six is a bulk transfer of 60 to 200 kB, and the others have a response
/// of 3.3 kB.
fn exchange(traffic: &mut Traffic, begin_ns: u64, ends: [Host; 2], number: u64) {
    let (response, wire) = exchanged(traffic, number);
    traffic.tcp(begin_ns, ends, &[(From::Client, 80), (From::Server, response)], wire);
}

/// The size of a response, and how it is sent.
fn exchanged(traffic: &mut Traffic, number: u64) -> (u64, Wire) {
    let is_bulk = number % SESSIONS_PER_S == SESSIONS_PER_S - 1;
    if is_bulk { (60_000 + u64::from(traffic.below(140_000)), Wire::BULK) } else { (3300, Wire::LAN) }
}

/// Six sessions between random clients and servers.
fn mixed(traffic: &mut Traffic, second: u64, [clients, servers]: [u32; 2]) {
    for number in 0..SESSIONS_PER_S {
        let client = Host(CLIENTS + 1 + traffic.below(clients), traffic.port());
        let server = Host(SERVERS + 1 + traffic.below(servers), 80);
        exchange(traffic, begin_ns(second, number, SESSIONS_PER_S), [client, server], number);
    }
}

/// Sixty clients query a resolver, which asks another server for every second name. Each second it transfers a zone.
fn resolver(traffic: &mut Traffic, second: u64) {
    for number in 0..SESSIONS_PER_S {
        let begin_ns = begin_ns(second, number, SESSIONS_PER_S);
        let sizes = [30 + u64::from(traffic.below(40)), 60 + u64::from(traffic.below(300))];
        let client = Host(CLIENTS + 1 + traffic.below(60), traffic.port());
        traffic.udp(begin_ns, [client, Host(HUB, 53)], sizes, 0);
        if number % 2 == 0 {
            let resolver = Host(HUB, traffic.port());
            let authority = Host(OUTSIDE + traffic.below(400), 53);
            traffic.udp(begin_ns + 300_000, [resolver, authority], sizes, 0);
        }
    }
    let ends = [Host(HUB, traffic.port()), Host(OUTSIDE + traffic.below(400), 53)];
    exchange(traffic, begin_ns(second, 1, 2), ends, SESSIONS_PER_S - 1);
}

/// Five thousand clients connect to a load balancer, which opens a session to one of eight servers for each of them.
fn load_balancer(traffic: &mut Traffic, second: u64) {
    const PER_S: u64 = SESSIONS_PER_S / 2;
    for number in 0..PER_S {
        let begin_ns = begin_ns(second, number, PER_S);
        let client = Host(OUTSIDE + traffic.below(5000), traffic.port());
        let number = second * PER_S + number;
        exchange(traffic, begin_ns, [client, Host(HUB, 443)], number);
        let balancer = Host(HUB, traffic.port());
        let server = Host(SERVERS + 100 + traffic.below(8), 8080);
        exchange(traffic, begin_ns + 500_000, [balancer, server], number);
    }
}

/// A mail a second comes in from three thousand hosts and goes out to five hundred. The relay looks up three names for
/// each. So one host opens four of five sessions.
fn mail_relay(traffic: &mut Traffic, second: u64) {
    let begin_ns = second * SECOND_NS;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a size drawn at random")]
    let size = (traffic.random.lognormal(20_000.0, 1.5) as u64).clamp(500, 2_000_000);
    let turns = [
        (From::Server, 60),
        (From::Client, 25),
        (From::Server, 180),
        (From::Client, 45),
        (From::Server, 30),
        (From::Client, 40),
        (From::Server, 30),
        (From::Client, 6),
        (From::Server, 35),
        (From::Client, size),
        (From::Server, 40),
        (From::Client, 6),
    ];
    let sender = Host(OUTSIDE + traffic.below(3000), traffic.port());
    traffic.tcp(begin_ns, [sender, Host(HUB, 25)], &turns, Wire { bytes_per_s: 5_000_000, ..Wire::LAN });
    let mut begin_ns = begin_ns + 20_000_000;
    for _ in 0..3 {
        let sizes = [40, 60 + u64::from(traffic.below(200))];
        begin_ns = traffic.udp(begin_ns, [Host(HUB, traffic.port()), Host(SERVERS + 53, 53)], sizes, 0);
    }
    let ends = [Host(HUB, traffic.port()), Host(OUTSIDE + 0x8000 + traffic.below(500), 25)];
    traffic.tcp(begin_ns, ends, &turns, Wire { bytes_per_s: 5_000_000, ..Wire::LAN });
}

/// One host scans a /16 with twenty probes a second, beside the sessions of a busy server. Every tenth probe is refused.
fn scanner(traffic: &mut Traffic, second: u64) {
    const PER_S: u64 = 20;
    mixed(traffic, second, [60, 1]);
    for number in 0..PER_S {
        let port = u16::try_from(1 + traffic.below(1024)).expect("a port");
        let target = Host(0xac1e_0000 + traffic.below(1 << 16), port);
        let ends = [Host(CLIENTS + 0x99, traffic.port()), target];
        traffic.probe(begin_ns(second, number, PER_S), ends, number % 10 == 0);
    }
}

/// A mirror port shows two thousand clients and three hundred servers in four virtual LANs, packet by packet. Routes
/// differ by direction, so that of every third session only one side is seen.
fn mirror_port(traffic: &mut Traffic, second: u64) {
    for number in 0..SESSIONS_PER_S {
        let client = Host(CLIENTS + traffic.below(2000), traffic.port());
        let server = Host(SERVERS + traffic.below(300), 443);
        let sees = [[true, true], [true, false], [true, true], [true, true], [false, true], [true, true]];
        let vlan = u16::try_from(100 + traffic.below(4)).expect("a VLAN ID");
        let sees = sees[traffic.below(6) as usize];
        let (response, wire) = exchanged(traffic, number);
        let turns = [(From::Client, 80), (From::Server, response)];
        let wire = Wire { vlan, sees, mss: Wire::LAN.mss, ..wire };
        traffic.tcp(begin_ns(second, number, SESSIONS_PER_S), [client, server], &turns, wire);
    }
}

/// A controller is polled ten times a second over one session, with a write once a minute, beside the sessions of a busy
/// server.
fn controller(traffic: &mut Traffic, second: u64) {
    const PER_S: u64 = 10;
    const READ: u8 = 3;
    const WRITE: u8 = 6;
    mixed(traffic, second, [60, 1]);
    let ends = [Host(CLIENTS + 0x98, 51_000), Host(SERVERS + 0x502, 502)];
    let session = match traffic.sessions.iter().position(|session| session.kind == Kind::Polled) {
        Some(at) => u32::try_from(at).expect("one of the first"),
        None => traffic.begin(Kind::Polled, second * SECOND_NS),
    };
    for number in 0..PER_S {
        let is_write = second % 60 == 30 && number == 5;
        let (function, lens) = if is_write { (WRITE, [12, 12]) } else { (READ, [12, 29]) };
        traffic.modbus(session, begin_ns(second, number, PER_S), ends, function, lens);
    }
}
