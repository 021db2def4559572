//! What is found, where, and what is not.

use base::packet::InterfaceId;
use base::time::Timestamp;
use decode::{Decoded, Network};
use engine::session::SessionKey;
use proptest::prelude::*;
use streams::{Cause, Gap, PacketRef, Run, Sender, Session, Sink as _};

use crate::patterns::{Builder, Pattern};
use crate::{Hunter, Kind, Match, MatchSink, SearchScope, attack, builtin, check, indicators};

#[derive(Default)]
struct AllMatches(Vec<Match>);

impl MatchSink for AllMatches {
    fn found(&mut self, _: &Session, one: Match) {
        self.0.push(one);
    }
}

fn session(port: u16) -> Session {
    let decoded = Decoded {
        network: Network::Ipv4,
        protocol: 6,
        source: 0x0a00_0001,
        destination: 0xc000_0202,
        source_port: 40_000,
        destination_port: port,
        ..Decoded::default()
    };
    let (key, originator_is) = SessionKey::new(&decoded, InterfaceId(0));
    Session::new(0, key, originator_is, true, Timestamp::MIN)
}

/// Bytes in pieces, `None` for a gap of ten bytes.
fn hunt(builder: Builder, place: SearchScope, pieces: &[Option<&[u8]>]) -> Vec<Match> {
    let mut hunter = Hunter::new(
        builder.build().unwrap(),
        place,
        indicators::Indicators::default(),
        Vec::new(),
        AllMatches::default(),
    );
    let session = session(9999);
    let (mut offset, mut sequence) = (0, 0);
    hunter.event(&session, streams::Event::Begin);
    for piece in pieces {
        match piece {
            Some(data) => {
                sequence += 1;
                let packet = PacketRef { time: Timestamp::MIN, sequence };
                let run = Run { sender: Sender::Originator, offset, data, packet };
                hunter.event(&session, streams::Event::Run(run));
                offset += data.len() as u64;
            }
            None => {
                let gap = Gap { sender: Sender::Originator, offset, len: 10, cause: Cause::Cut };
                hunter.event(&session, streams::Event::Gap(gap));
                offset += 10;
            }
        }
    }
    hunter.event(&session, streams::Event::End);
    std::mem::take(&mut hunter.found().0)
}

fn text(pattern: &str) -> Builder {
    let mut builder = Builder::default();
    builder.literal(Pattern::new(pattern, Kind::Text), pattern.as_bytes()).unwrap();
    builder
}

fn regex(pattern: &str) -> Builder {
    let mut builder = Builder::default();
    builder.regex(Pattern::new(pattern, Kind::Regex), pattern).unwrap();
    builder
}

#[test]
fn a_match_across_packets_is_found_once_with_its_packet() {
    for builder in [text("secret"), regex("s[e]cret")] {
        let found = hunt(builder, SearchScope::Stream, &[Some(b"abc se"), Some(b"cr"), Some(b"et def")]);
        let places: Vec<_> = found.iter().map(|one| (one.stream_offset, one.length, one.packet.sequence)).collect();
        assert_eq!(places, [(Some(4), 6, 1)]);
        assert_eq!(found[0].context, b"abc secret def");
    }
    assert!(hunt(text("secret"), SearchScope::Payload, &[Some(b"abc se"), Some(b"cret")]).is_empty());
}

#[test]
fn nothing_matches_across_a_gap() {
    for builder in [text("secret"), regex("(?s)sec.*ret")] {
        assert!(hunt(builder, SearchScope::Stream, &[Some(b"sec"), None, Some(b"ret")]).is_empty());
    }
    let found = hunt(text("ret"), SearchScope::Stream, &[Some(b"sec"), None, Some(b"ret")]);
    assert_eq!((found[0].stream_offset, found[0].gap_before), (Some(13), true));
}

#[test]
fn a_pause_reports_matches_at_once_and_not_again() {
    let patterns = text("abc").build().unwrap();
    let mut hunter = Hunter::new(
        patterns,
        SearchScope::Stream,
        indicators::Indicators::default(),
        Vec::new(),
        AllMatches::default(),
    );
    let session = session(9999);
    hunter.event(&session, streams::Event::Begin);
    for (offset, data) in [(0, &b"--abc"[..]), (5, b"a"), (6, b"bc")] {
        let packet = PacketRef { time: Timestamp::MIN, sequence: offset };
        hunter.event(&session, streams::Event::Run(Run { sender: Sender::Originator, offset, data, packet }));
        hunter.catch_up();
    }
    let offsets: Vec<_> = hunter.found().0.iter().map(|one| one.stream_offset).collect();
    assert_eq!(offsets, [Some(2), Some(5)]);
    hunter.event(&session, streams::Event::End);
    assert_eq!(hunter.found().0.len(), 2);
}

#[test]
fn lists_are_read_as_people_write_them() {
    let mut list = indicators::Indicators::default();
    list.read("192.0.2.1\n10.0.0.0/8,internal\nevil[.]example # remark\nhxxp://bad.example/x\n*.sub.example\n!!\nD41D8CD98F00B204E9800998ECF8427E\n");
    assert_eq!(list.len(), 6);
    assert_eq!(list.broken_count, 1);
    assert_eq!(list.address("10.2.3.4".parse().unwrap()).as_deref(), Some("10.0.0.0/8"));
    assert_eq!(list.address("::ffff:192.0.2.1".parse().unwrap()).as_deref(), Some("192.0.2.1"));
    assert_eq!(list.address("192.0.2.2".parse().unwrap()), None);
    assert_eq!(list.name("WWW.evil.example.").as_deref(), Some("evil.example"));
    assert_eq!(list.name("notevil.example"), None);
    assert_eq!(list.url("http://bad.example/x/").as_deref(), Some("bad.example/x"));
    assert!(list.fingerprint("d41d8cd98f00b204e9800998ecf8427e"));
}

#[test]
fn each_attack_is_found_where_it_is_and_only_there() {
    for (file, rule) in builtin::RULES {
        let attack = attack::Attack::read(rule).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert_eq!(format!("{}.toml", attack.name), file);
        assert!(!attack.reference.is_empty(), "{file}");
        check::check(&attack).unwrap_or_else(|error| panic!("{file}: {error}"));
    }
}

#[test]
fn a_broken_rule_says_what_is_wrong() {
    for (rule, expected) in [
        ("name = 1", "expected a string"),
        ("name='a'\ntitle=''\nreference=[]\nmatch=[]", "no [[match]]"),
        ("name='a'\ntitle=''\nreference=[]\n[[match]]\ntext='x'\nregex='y'", "one of event, text, bytes and regex"),
        ("name='a'\ntitle=''\nreference=[]\n[[match]]\nevent='x'\nwhere=[{field='y', regex='('}]", "unclosed group"),
        ("name='a'\ntitle=''\nreference=[]\n[[match]]\nevnt='x'", "unknown field"),
    ] {
        let error = attack::Attack::read(rule).unwrap_err().to_string();
        assert!(error.contains(expected), "{rule}: {error}");
    }
}

#[test]
fn counting_forgets_what_is_old() {
    use std::time::Duration;
    let mut counting = crate::counting::Counting::default();
    let at = |second| Timestamp::from_unix(second, 0);
    let key = || (0, "a".to_owned());
    let within = Duration::from_secs(10);
    assert!(!counting.add(key(), at(1), 1, within, 3));
    assert!(!counting.add(key(), at(2), 1, within, 3), "the same value counts once");
    assert!(!counting.add(key(), at(3), 2, within, 3));
    assert!(!counting.add(key(), at(20), 3, within, 3), "the others are too old");
    assert!(!counting.add(key(), at(21), 4, within, 3));
    assert!(counting.add(key(), at(22), 5, within, 3));
}

/// A match that reaches into the end of a window ends there: no other match of the expression begins within it.
#[test]
fn matches_of_an_expression_never_overlap_between_windows() {
    let data = b"abcabcab".repeat(8_000);
    let pieces: Vec<_> = data.chunks(4099).map(Some).collect();
    let whole = ::regex::bytes::Regex::new("abcab").unwrap();
    let expected: Vec<_> = whole.find_iter(&data).map(|one| one.start() as u64).take(100).collect();
    for shift in 0..8 {
        // The windows end at each place of the pattern in turn.
        let mut pieces = pieces.clone();
        let (first, rest) = data[..4099].split_at(4091 + shift);
        pieces.splice(..1, [Some(first), Some(rest)]);
        let found = hunt(regex("abcab"), SearchScope::Stream, &pieces);
        let mut places: Vec<_> = found.iter().map(|one| one.stream_offset.unwrap()).collect();
        places.sort_unstable();
        assert_eq!(places, expected);
    }
}

#[test]
fn what_precedes_a_match_counts_across_windows() {
    let mut data = b"xy".repeat(20_000);
    let places = [14_001usize, 16_384, 20_480, 30_001];
    for place in places {
        data[place..place + 4].copy_from_slice(b"zabc");
    }
    let pieces: Vec<_> = data.chunks(1000).map(Some).collect();
    assert!(hunt(regex(r"\babc"), SearchScope::Stream, &pieces).is_empty());
}

proptest! {
    #[test]
    fn pieces_of_any_size_give_the_matches_of_the_whole(
        data in prop::collection::vec(prop::sample::select(&b"abc"[..]), 0..60_000),
        cuts in prop::collection::vec(1usize..9000, 1..60),
        pattern in prop::sample::select(vec!["abcab", "a[bc]{3}a", "ccc", "aab+c"]),
    ) {
        let mut pieces = Vec::new();
        let mut rest = &data[..];
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, after) = rest.split_at((*cut).min(rest.len()));
            pieces.push(Some(piece));
            rest = after;
        }
        let mut places: Vec<_> = hunt(regex(pattern), SearchScope::Stream, &pieces).iter().map(|one| (one.stream_offset.unwrap(), one.length)).collect();
        places.sort_unstable();
        let whole = ::regex::bytes::Regex::new(pattern).unwrap();
        let expected: Vec<_> = whole.find_iter(&data).map(|one| (one.start() as u64, one.len() as u64)).take(100).collect();
        prop_assert_eq!(places, expected);
    }
}
