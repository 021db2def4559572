//! Prints how many bytes a session takes in the log, on an hour of a made-up campus with 10 million sessions a day.
//!
//! usage: cargo run --release -p sessionlog --example bytes_per_session [FILE]
//!
//! Sizes of sessions follow the mixture of the AGH 2015 flow data, as in the project's other benchmarks. 5000 clients talk to
//! 20,000 servers, whose popularity falls as 1/rank. A third of the sessions are questions to two resolvers.

use std::sync::Arc;

use base::packet::InterfaceId;
use base::time::Timestamp;
use decode::{Decoded, Network};
use engine::session::{LoggedSummary, PerSide, Session, SessionKey, SessionState};
use query::session_names::Names;
use sessionlog::encode::Encoder;
use sessionlog::row::{Observer, Row, SpoolPlace};

const SESSIONS: u64 = 10_000_000 / 24;
/// Weight, sigma and median in bytes of each part of the mixture.
const MIXTURE: [(f64, f64, f64); 8] = [
    (0.4498, 0.342, 106.0),
    (0.2020, 0.510, 278.0),
    (0.2687, 1.241, 1000.0),
    (0.0665, 1.451, 12_993.0),
    (0.0110, 1.372, 278_973.0),
    (0.00157, 1.170, 4.888e6),
    (0.000_293, 1.511, 28.03e6),
    (0.000_140, 0.708, 83.18e6),
];

/// A generator of numbers (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, most: u64) -> u64 {
        self.next() % most
    }

    /// Between 0 and 1.
    #[allow(clippy::cast_precision_loss, reason = "a share")]
    fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * (1.0 - self.share()).ln()).sqrt() * (std::f64::consts::TAU * self.share()).cos()
    }

    /// A rank below `most`, with a probability that falls as 1/rank.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a rank")]
    fn popular(&mut self, most: u64) -> u64 {
        ((most as f64).powf(self.share()) as u64).min(most) - 1
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a size")]
    fn bytes(&mut self) -> u64 {
        let mut at = self.share();
        let part = MIXTURE.iter().find(|(weight, ..)| {
            at -= weight;
            at < 0.0
        });
        let (_, sigma, median) = part.unwrap_or(&MIXTURE[0]);
        ((median * (sigma * self.normal()).exp()) as u64).max(60)
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "times and ports"
)]
fn row(random: &mut Random, number: u64, interface: &Arc<str>, files: &[Arc<str>]) -> Row {
    let start_ns = 500_000 * 3_600_000_000_000 + number * 3_600_000_000_000 / SESSIONS + random.below(1_000_000);
    let is_dns = random.share() < 0.33;
    let bytes = if is_dns { 80 + random.below(250) } else { random.bytes() };
    let client = 0x0a00_0000 + random.popular(5000) * 7;
    let server_rank = random.popular(20_000);
    let server = if is_dns { 0x0a00_0001 + random.below(2) } else { 0x5000_0000 + server_rank * 7919 };
    let port = if is_dns { 53 } else { [443, 443, 443, 80, 123, 22, 8080, 5223][random.below(8) as usize] };
    let protocol = if is_dns || port == 123 { 17 } else { 6 };
    let decoded = Decoded {
        network: Network::Ipv4,
        source: client.into(),
        destination: server.into(),
        source_port: 32_768 + random.below(28_000) as u16,
        destination_port: port,
        protocol,
        ..Decoded::default()
    };
    let (key, originator) = SessionKey::new(&decoded, InterfaceId(0));
    let sent = (bytes as f64 * (0.05 + 0.4 * random.share())) as u64;
    let packets = bytes / 700 + 1;
    let is_answered = bytes > 120;
    let duration_ns =
        if is_dns { 1_000_000 + random.below(60_000_000) } else { (1e8 * (1.8 * random.normal()).exp()) as u64 };
    let state = match (protocol, is_answered) {
        (17, true) => SessionState::TwoWay,
        (17, false) => SessionState::OneWay,
        (_, true) => [SessionState::Closed, SessionState::Closed, SessionState::Reset][random.below(3) as usize],
        (_, false) => SessionState::SynSent,
    };
    let answered = u64::from(is_answered);
    let session = Session::from(LoggedSummary {
        key,
        originator,
        first: Timestamp(start_ns),
        last: Timestamp(start_ns + if is_answered { duration_ns } else { 0 }),
        packets: PerSide { originator: packets, responder: (packets + packets / 3) * answered },
        bytes: PerSide { originator: sent.max(60), responder: (bytes - sent) * answered },
        state,
    });
    let name = || Some(format!("www{}.example{}.net", server_rank % 13, random_name(server_rank)).into());
    let names = match (is_dns, port) {
        (true, _) => Names { dns_question: name(), dns_type: Some("A".into()), ..Names::default() },
        (_, 443) => Names { server_name: name(), ..Names::default() },
        (_, 80) => Names { http_host: name(), ..Names::default() },
        _ => Names::default(),
    };
    let app = match port {
        53 => Some("dns"),
        443 => Some("tls"),
        80 | 8080 => Some("http"),
        _ => None,
    };
    let place = SpoolPlace {
        file: Arc::clone(&files[(number * files.len() as u64 / SESSIONS) as usize]),
        offset: number % (SESSIONS / files.len() as u64) * 500 / (256 << 10) * (256 << 10),
    };
    Row {
        session,
        earlier: [0; 4],
        is_open: random.below(200) == 0,
        interface: Arc::clone(interface),
        names: Some(Box::new(names)).filter(|names| **names != Names::default()),
        app: app.filter(|_| is_answered),
        attribution: None,
        place: Some(place),
    }
}

fn random_name(rank: u64) -> u64 {
    Random(rank).next() % 100_000
}

fn main() {
    let interface: Arc<str> = "eth0".into();
    let files: Vec<Arc<str>> = (0..4).map(|number| format!("00000000{number:04}-band0.pcapng").into()).collect();
    for with_community_id in [true, false] {
        let observer = Observer {
            hostname: "sensor".to_owned(),
            version: "0.1.0".to_owned(),
            with_community_id,
            ..Observer::default()
        };
        let began = std::time::Instant::now();
        let mut random = Random(1);
        let mut encoder = Encoder::new(Vec::new()).unwrap_or_else(|error| panic!("{error}"));
        for number in 0..SESSIONS {
            encoder
                .put(row(&mut random, number, &interface, &files), &observer)
                .unwrap_or_else(|error| panic!("{error}"));
        }
        let file = encoder.finish(&observer, 0).unwrap_or_else(|error| panic!("{error}"));
        let (bytes, seconds) = (file.len() as u64, began.elapsed().as_secs_f64());
        let day_mb = bytes * 24 / 1_000_000;
        println!(
            "Community ID {with_community_id}: {SESSIONS} sessions, {bytes} bytes, {}.{} a session, {day_mb} MB for 10 \
             million; {seconds:.1} s",
            bytes / SESSIONS,
            bytes * 10 / SESSIONS % 10
        );
        if let Some(path) = std::env::args().nth(1).filter(|_| with_community_id) {
            std::fs::write(path, file).unwrap_or_else(|error| panic!("{error}"));
        }
    }
}
