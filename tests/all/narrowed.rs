//! A recorder leaves out the sessions in which nothing can be found. What it leaves out never matches.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use retrocap::hunt::indicators::Indicators;
use retrocap::hunt::narrow::{CandidateQuery, Candidates, StoredPacket};
use retrocap::hunt::patterns::{Builder, Pattern};
use retrocap::hunt::{Hunter, Kind, Match, MatchSink, SearchScope};
use retrocap::interface::Interfaces;
use retrocap::objects::{Collector, Object, ObjectLimits, ObjectSink};
use retrocap::packet::{Direction, InterfaceId, LinkType, Packet, PacketFlags};
use retrocap::protocols::Protocols;
use retrocap::session::SessionKey;
use retrocap::source::{Batch, Source as _};
use retrocap::store::rank::Rank;
use retrocap::streams::{Event, Sender, Session, Sink, Streams};
use retrocap::time::Timestamp;
use retrocap::{decode, formats};

use crate::hunting::{Replaying, http, lines, retrocap, said, text};
use crate::machine;

/// A packet of a capture, and the slot of its session.
struct Stored {
    interface: InterfaceId,
    link_type: LinkType,
    time: Timestamp,
    original_len: u32,
    data: Vec<u8>,
    slot: u32,
    rank: u8,
}

/// The packets of a capture. A session gets the ranks that a recorder gives it.
fn read(path: &Path) -> Vec<Stored> {
    let file = std::fs::File::open(path).unwrap();
    let mut source = formats::reader::FileSource::from_reader(Box::new(file), Arc::<Interfaces>::default());
    let (mut all, mut slots) = (Vec::new(), HashMap::<SessionKey, (u32, u64)>::new());
    while !matches!(
        source.batch(&mut |packet: &Packet<'_>| {
            let decoded = decode::decode(packet.link_type, packet.data);
            let next = u32::try_from(slots.len()).unwrap();
            let (slot, offset) = slots.entry(SessionKey::new(&decoded, packet.interface).0).or_insert((next, 0));
            let rank = Rank::of_packet(*offset, packet.original_len.into()).0;
            *offset += u64::from(packet.original_len);
            all.push(Stored {
                interface: packet.interface,
                link_type: packet.link_type,
                time: packet.time,
                original_len: packet.original_len,
                data: packet.data.to_vec(),
                slot: *slot,
                rank,
            });
        }),
        Ok(Batch::End) | Err(_)
    ) {}
    all
}

fn reassemble(packets: &[Stored], sink: &mut dyn Sink) {
    let mut streams = Streams::default();
    for (number, stored) in (1u64..).zip(packets) {
        let packet = Packet {
            time: stored.time,
            interface: stored.interface,
            link_type: stored.link_type,
            direction: Direction::Unknown,
            flags: PacketFlags::default(),
            original_len: stored.original_len,
            drops_before: 0,
            data: &stored.data,
        };
        streams.packet(&packet, number, sink);
    }
    streams.finish(sink);
}

/// Parts of streams, most of them across the border of two packets.
fn parts(packets: &[Stored]) -> Vec<Vec<u8>> {
    let (mut parts, mut before) = (Vec::new(), HashMap::<(u64, usize), Vec<u8>>::new());
    reassemble(packets, &mut |session: &Session, event: Event<'_>| {
        let Event::Run(run) = event else { return };
        let last = before.entry((session.number, run.sender.index())).or_default();
        let spread = usize::try_from(run.packet.sequence).unwrap();
        let (left, right) = (spread % 13, 2 + spread % 17);
        let from = if session.is_messages() { last.len() } else { last.len().saturating_sub(left) };
        let mut part = last[from..].to_vec();
        part.extend_from_slice(&run.data[..run.data.len().min(right)]);
        if part.len() >= 4 && part.iter().any(|&byte| byte != part[0]) {
            parts.push(part);
        }
        last.extend_from_slice(run.data);
        last.drain(..last.len().saturating_sub(64));
    });
    let step = (parts.len() / 150).max(1);
    parts.into_iter().step_by(step).collect()
}

#[derive(Default)]
struct Keys(HashSet<SessionKey>);

impl MatchSink for Keys {
    fn found(&mut self, session: &Session, _: Match) {
        self.0.insert(session.key);
    }
}

/// Sessions in which reassembly finds one of the literals, and the slots that are candidates.
fn both(packets: &[Stored], literals: &[Vec<u8>]) -> (HashSet<u32>, HashSet<u32>) {
    let mut builder = Builder::default();
    for literal in literals {
        builder.literal(Pattern::new("x", Kind::Bytes), literal).unwrap();
    }
    let patterns = builder.build().unwrap();
    let mut hunter = Hunter::new(patterns, SearchScope::Stream, Indicators::default(), Vec::new(), Keys::default());
    reassemble(packets, &mut hunter);
    let keys = std::mem::take(&mut hunter.found().0);
    let matching = packets.iter().filter(|stored| {
        let decoded = decode::decode(stored.link_type, &stored.data);
        keys.contains(&SessionKey::new(&decoded, stored.interface).0)
    });
    let matching = matching.map(|stored| stored.slot).collect();
    let query = CandidateQuery { literals: literals.to_vec(), ..CandidateQuery::default() };
    (matching, candidates(packets, &query))
}

/// The slots that are candidates.
fn candidates(packets: &[Stored], query: &CandidateQuery) -> HashSet<u32> {
    let slots = packets.iter().map(|stored| stored.slot as usize + 1).max().unwrap_or(1);
    let mut search = Candidates::new(query, &[slots]);
    let mut order: Vec<usize> = (0..packets.len()).collect();
    order.sort_by_key(|&number| (packets[number].rank, number));
    let candidates = order.into_iter().filter_map(|number| {
        let Stored { slot, link_type, ref data, .. } = packets[number];
        search.is_candidate(&StoredPacket { worker: 0, slot, arrival: number as u64, link_type, data }).then_some(slot)
    });
    candidates.collect()
}

/// Objects without holes, with their session and sender.
#[derive(Default)]
struct Objects(Vec<(SessionKey, Sender, Vec<u8>)>);

impl ObjectSink for Objects {
    const HASHED: bool = false;

    fn object(&mut self, session: &Session, object: Object) {
        if object.holes.is_empty() {
            self.0.push((session.key, object.sender, object.content));
        }
    }
}

/// The bytes of each stream.
#[derive(Default)]
struct Sent(HashMap<(SessionKey, usize), Vec<u8>>);

impl Sink for Sent {
    fn event(&mut self, session: &Session, event: Event<'_>) {
        if let Event::Run(run) = event {
            self.0.entry((session.key, run.sender.index())).or_default().extend_from_slice(run.data);
        }
    }
}

#[test]
fn objects_of_sessions_that_are_left_out_lie_in_a_stream_as_they_are() {
    let (mut plain, mut wrapped) = (0, 0);
    for path in machine::captures("objects_of_sessions_that_are_left_out_lie_in_a_stream_as_they_are") {
        let packets = read(&path);
        let mut protocols = Protocols::new(Collector::new(ObjectLimits::default(), Objects::default()));
        reassemble(&packets, &mut protocols);
        protocols.sink.finish();
        let mut sent = Sent::default();
        reassemble(&packets, &mut sent);
        // A literal that is nowhere, so that only objects make candidates.
        let query = CandidateQuery { literals: vec![vec![0xa7; 64]], objects: true, ..CandidateQuery::default() };
        let slots = candidates(&packets, &query);
        let candidates: HashSet<SessionKey> = packets
            .iter()
            .filter(|stored| slots.contains(&stored.slot))
            .map(|stored| SessionKey::new(&decode::decode(stored.link_type, &stored.data), stored.interface).0)
            .collect();
        for (key, sender, content) in protocols.sink.objects.0 {
            if candidates.contains(&key) {
                wrapped += 1;
                continue;
            }
            plain += 1;
            let stream = &sent.0[&(key, sender.index())];
            let is_there = memchr::memmem::find(stream, &content).is_some();
            assert!(is_there, "{}: {} bytes of {key:?}", path.display(), content.len());
        }
    }
    assert!(plain + wrapped == 0 || (plain > 50 && wrapped > 100), "{plain} {wrapped}");
}

#[test]
fn sessions_that_are_left_out_never_match() {
    let (mut matched, mut left_out, mut sessions) = (0, 0, 0);
    for path in machine::captures("sessions_that_are_left_out_never_match") {
        let packets = read(&path);
        let parts = parts(&packets);
        let all: HashSet<u32> = packets.iter().map(|stored| stored.slot).collect();
        let single = parts.iter().step_by((parts.len() / 12).max(1)).map(std::slice::from_ref);
        for literals in single.chain([&parts[..parts.len().min(20)], &parts[..]]).filter(|some| !some.is_empty()) {
            let (matching, candidates) = both(&packets, literals);
            let missed: Vec<_> = matching.difference(&candidates).collect();
            assert!(missed.is_empty(), "{}: {missed:?} of {literals:02x?}", path.display());
            matched += matching.len();
            left_out += all.len() - candidates.len();
            sessions += all.len();
        }
    }
    assert!(sessions == 0 || (matched > 300 && left_out > sessions / 4), "{matched} {left_out} {sessions}");
}

#[test]
fn addresses_are_found_where_reassembly_finds_them() {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("list");
    // Half of all addresses: endpoints, and those in answers of name servers.
    std::fs::write(&list, "128.0.0.0/1\n2001:db8::/32\n").unwrap();
    let found = |of: [&str; 2]| {
        let output = retrocap(&["hunt", of[0], of[1], "--ioc", text(&list), "--json"]);
        let mut found: Vec<String> = lines(&output)
            .iter()
            .map(|one| {
                let flow = &one["flow"];
                format!("{} {} {} {}", one["rule"], flow["originator"], flow["responder"], one["direction"])
            })
            .collect();
        found.sort();
        found.dedup();
        found
    };
    for name in ["mixed-lan.pcap", "iot-setup.pcap", "ipv6-fragmented-dns.pcap", "tftp.pcap"] {
        let Some(file) = machine::capture("addresses_are_found_where_reassembly_finds_them", name) else { continue };
        let recorder = Replaying::start(&file, &["-m", "64MiB"]);
        let (narrowed, all) = (found(["--socket", &recorder.socket()]), found(["-r", text(&file)]));
        assert_eq!(narrowed, all, "{name}");
    }
}

#[test]
fn a_recorder_sends_only_what_may_match_and_says_what_it_looked_at() {
    use crate::service::asking::post;
    let folder = tempfile::tempdir().unwrap();
    let response = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    let file = http(folder.path(), b"GET /secret HTTP/1.1\r\nHost: a.example\r\n\r\n", response, 7);
    let recorder = Replaying::start(&file, &["-m", "16MiB"]);
    let socket = recorder.socket();
    for (rule, pattern) in [("--text", "/secret"), ("--regex", "s[e]cret H"), ("--bytes", "2f 73 65 63 72 65 74")] {
        let output = retrocap(&["hunt", "--socket", &socket, rule, pattern, "--json"]);
        assert!(output.status.success(), "{}", said(&output));
        assert_eq!(lines(&output)[0]["stream_offset"].as_u64().unwrap() / 2, 2, "{rule} {pattern}");
        assert!(said(&output).contains("searched 84 B of 1 session"), "{}", said(&output));
    }
    let list = folder.path().join("list");
    std::fs::write(&list, "192.0.2.0/24\n").unwrap();
    let output = retrocap(&["hunt", "--socket", &socket, "--ioc", text(&list), "--json"]);
    assert_eq!(lines(&output)[0]["rule"], "192.0.2.0/24", "{}", said(&output));
    let output = retrocap(&["hunt", "--socket", &socket, "--text", "nowhere at all"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("searched 84 B of 1 session"), "{}", said(&output));
    let body = |literal: &str| format!("{{\"literals\": [\"{literal}\"]}}");
    for (literal, packets) in [("736563726574", "15"), ("6a71786a7a71", "0")] {
        let answer = post(&socket, "/v1/hunt", &body(literal));
        assert_eq!((answer.status, answer.trailer("retrocap-packets")), (200, Some(packets)), "{literal}");
        assert_eq!(answer.trailer("retrocap-searched-sessions"), Some("1"));
    }
    for wrong in ["", "{}", "{\"literals\": [\"7\"]}", "{\"literals\": [\"78\"]}", "{\"literal\": []}"] {
        assert_eq!(post(&socket, "/v1/hunt", wrong).status, 400, "{wrong}");
    }
}
