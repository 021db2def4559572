//! A session that matches is a candidate, however its packets are cut, repeated, reordered and stored.

use base::packet::{Direction, InterfaceId, LinkType, Packet, PacketFlags};
use base::time::Timestamp;
use proptest::prelude::*;
use streams::{Session, Streams};

use super::{CandidateQuery, Candidates, StoredPacket};
use crate::indicators::Indicators;
use crate::patterns::{Builder, Pattern};
use crate::{ContentPatterns, Hunter, Kind, Match, MatchSink, SearchScope};

/// A frame of a TCP session between two hosts.
fn frame(from_client: bool, sequence: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0];
    frame.extend(u16::try_from(40 + payload.len()).unwrap().to_be_bytes());
    frame.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
    let (ends, ports) = ([[10, 0, 0, 1], [10, 0, 0, 2]], [[0x9c, 0x40], [0x1f, 0x90]]);
    let from = usize::from(!from_client);
    for part in [&ends[from][..], &ends[1 - from], &ports[from], &ports[1 - from]] {
        frame.extend(part);
    }
    frame.extend(sequence.to_be_bytes());
    frame.extend([0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    frame.extend(payload);
    frame
}

#[derive(Default)]
struct Count(u64);

impl MatchSink for Count {
    fn found(&mut self, _: &Session, _: Match) {
        self.0 += 1;
    }
}

/// Whether reassembly finds one of the literals.
fn matches(frames: &[Vec<u8>], literals: &[Vec<u8>]) -> bool {
    let mut builder = Builder::default();
    for literal in literals {
        builder.literal(Pattern::new("x", Kind::Text), literal).unwrap();
    }
    let patterns = builder.build().unwrap();
    let mut hunter = Hunter::new(patterns, SearchScope::Stream, Indicators::default(), Vec::new(), Count::default());
    let mut streams = Streams::default();
    for (number, data) in (1u64..).zip(frames) {
        let packet = Packet {
            time: Timestamp(number * 1_000_000),
            interface: InterfaceId(0),
            link_type: LinkType::ETHERNET,
            direction: Direction::Unknown,
            flags: PacketFlags::default(),
            original_len: u32::try_from(data.len()).unwrap(),
            drops_before: 0,
            data,
        };
        streams.packet(&packet, number, &mut hunter);
    }
    streams.finish(&mut hunter);
    hunter.found().0 > 0
}

/// Whether the session is a candidate, if its packets are stored at these ranks.
fn is_candidate(frames: &[Vec<u8>], ranks: &[u8], literals: &[Vec<u8>]) -> bool {
    let query = CandidateQuery { literals: literals.to_vec(), addresses: Vec::new(), objects: false };
    let mut candidates = Candidates::new(&query, &[4]);
    let mut stored: Vec<(u8, u64, &Vec<u8>)> =
        (1u64..).zip(frames).zip(ranks.iter().cycle()).map(|((arrival, data), &rank)| (rank, arrival, data)).collect();
    stored.sort_by_key(|&(rank, arrival, _)| (rank, arrival));
    stored.into_iter().fold(false, |found, (_, arrival, data)| {
        let packet = StoredPacket { worker: 0, slot: 1, arrival, link_type: LinkType::ETHERNET, data };
        candidates.is_candidate(&packet) || found
    })
}

/// Segments of a text of two letters: offset, length, whether the client sends it, whether its bytes differ.
fn segments() -> impl Strategy<Value = Vec<(u32, usize, bool, bool)>> {
    prop::collection::vec((0u32..60, 1usize..24, prop::bool::weighted(0.8), prop::bool::weighted(0.2)), 1..20)
}

/// The same, each after the other.
fn orderly() -> impl Strategy<Value = Vec<(u32, usize, bool, bool)>> {
    prop::collection::vec(1usize..24, 1..12).prop_map(|lengths| {
        let mut at = 0;
        let next = |len: usize| {
            at += u32::try_from(len).unwrap();
            (at - u32::try_from(len).unwrap(), len, true, false)
        };
        lengths.into_iter().map(next).collect()
    })
}

fn frames(text: &[u8], segments: &[(u32, usize, bool, bool)], syn: bool) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    if syn {
        frames.extend([frame(true, 999, 2, b""), frame(false, 999, 18, b"")]);
    }
    for &(at, len, from_client, differs) in segments {
        let from = at as usize % text.len();
        let mut payload: Vec<u8> = text.iter().cycle().skip(from).take(len).copied().collect();
        if differs {
            payload.iter_mut().for_each(|byte| *byte ^= b'a' ^ b'b');
        }
        frames.push(frame(from_client, 1000 + at, 24, &payload));
    }
    frames
}

fn letters(len: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop_oneof![Just(b'a'), Just(b'b')], len)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5000, ..ProptestConfig::default() })]

    #[test]
    fn a_session_that_matches_is_a_candidate(
        text in letters(300..301),
        segments in prop_oneof![segments(), orderly()],
        syn: bool,
        ranks in prop::collection::vec(0u8..4, 1..20),
        literals in prop::collection::vec(letters(2..14), 1..4),
    ) {
        let frames = frames(&text, &segments, syn);
        prop_assert!(!matches(&frames, &literals) || is_candidate(&frames, &ranks, &literals));
    }

    #[test]
    fn many_literals_are_found_as_few_are(
        text in letters(300..301),
        segments in orderly(),
        ranks in prop::collection::vec(0u8..4, 1..20),
        from in 0usize..60,
        len in 4usize..20,
    ) {
        let frames = frames(&text, &segments, true);
        let literal = text[from..from + len].to_vec();
        let mut literals: Vec<Vec<u8>> = (0..200).map(|n| format!("other literal {n:03}").into_bytes()).collect();
        literals.push(literal.clone());
        prop_assert!(!matches(&frames, &[literal]) || is_candidate(&frames, &ranks, &literals));
    }
}

#[test]
fn a_session_in_order_without_a_part_of_the_text_is_no_candidate() {
    let payloads: [&[u8]; 3] =
        [b"GET /index.html HTTP/1.1\r\n", b"Host: a.example\r\nUser-Agent: pass", b"ing by\r\n\r\n"];
    let mut frames = vec![frame(true, 999, 2, b""), frame(false, 999, 18, b"")];
    let mut sequence = 1000;
    for payload in payloads {
        frames.push(frame(true, sequence, 24, payload));
        sequence += u32::try_from(payload.len()).unwrap();
    }
    // The last packet came twice, and a keepalive followed.
    frames.push(frame(true, sequence - 10, 24, payloads[2]));
    frames.push(frame(true, sequence - 1, 16, b"\0"));
    for literal in ["password=", "/index.php", "BEGIN RSA PRIVATE KEY"] {
        assert!(!is_candidate(&frames, &[0], &[literal.as_bytes().to_vec()]), "{literal}");
    }
    for literal in ["passing", "html HTTP", "\r\nHost", "User-Agent: passing by"] {
        assert!(is_candidate(&frames, &[0], &[literal.as_bytes().to_vec()]), "{literal}");
    }
}

#[test]
fn what_a_search_is_narrowed_to() {
    let of = |texts: &[&str], regexes: &[&str], list: &str| {
        let texts = texts.iter().map(ToString::to_string).collect();
        let regexes = regexes.iter().map(ToString::to_string).collect();
        let mut indicators = Indicators::default();
        indicators.read(list);
        CandidateQuery::of(&ContentPatterns { texts, regexes, ..ContentPatterns::default() }, &indicators, Vec::new())
    };
    assert_eq!(of(&["secret"], &["user=.*"], "").unwrap().literals, [b"secret".to_vec(), b"user=".to_vec()]);
    assert_eq!(of(&[], &[], "192.0.2.1\n198.51.100.0/24").unwrap().addresses.len(), 2);
    for (texts, regexes, list) in [
        (&["x"][..], &[][..], ""),
        (&["secret"], &["[0-9]+"], ""),
        (&[], &[], "evil.example"),
        (&["secret"], &[], "5d41402abc4b2a76b9719d911017c592"),
        (&[], &[], ""),
    ] {
        assert_eq!(of(texts, regexes, list), None, "{texts:?} {regexes:?} {list}");
    }
}
