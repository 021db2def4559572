//! Any conversation through all protocols, the decoders of objects, and all named attacks: no panic, texts and objects within
//! their limits. The first byte chooses TCP or UDP, two more the port; then come pieces: who speaks, a length, bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use retrocap::decode::{Decoded, Network};
use retrocap::hunt::indicators::Indicators;
use retrocap::hunt::{Hunter, Match, MatchSink, SearchScope, ContentPatterns, attacks_named};
use retrocap::objects::{Collector, Object, ObjectLimits, ObjectSink};
use retrocap::packet::InterfaceId;
use retrocap::protocols::{Event, ObjectPart, ProtocolSink, Protocols, Value, event::TEXT_BYTES_MAX};
use retrocap::session::SessionKey;
use retrocap::streams::{Cause, Gap, PacketRef, Run, Sender, Session, Sink};
use retrocap::time::Timestamp;

const LIMITS: ObjectLimits =
    ObjectLimits { object_bytes: 64 << 10, total_bytes: 256 << 10, ratio: 100, depth: 3, parts: 50, objects: 100 };

struct Checked(Collector<Objects>);

impl ProtocolSink for Checked {
    fn event(&mut self, _: &Session, event: &Event) {
        for (_, value) in &event.fields {
            if let Value::Text(text) = value {
                assert!(text.len() <= TEXT_BYTES_MAX);
            }
        }
    }

    fn object(&mut self, session: &Session, part: ObjectPart<'_>) {
        self.0.object(session, part);
    }
}

struct Objects;

impl ObjectSink for Objects {
    fn object(&mut self, _: &Session, object: Object) {
        assert!(object.content.len() <= LIMITS.object_bytes + (64 << 10), "{}", object.content.len());
        assert!(!object.complete || object.missing_bytes == 0);
        assert!(!object.file_name().contains('/'));
    }
}

struct Ignored;

impl MatchSink for Ignored {
    fn found(&mut self, _: &Session, _: Match) {}
}

fn session(udp: bool, port: u16) -> Session {
    let decoded = Decoded {
        network: Network::Ipv4,
        protocol: if udp { 17 } else { 6 },
        source: 0xc000_0201,
        destination: 0xc000_0202,
        source_port: 40_000,
        destination_port: port,
        ..Decoded::default()
    };
    let (key, originator_is) = SessionKey::new(&decoded, InterfaceId(0));
    Session::new(0, key, originator_is, true, Timestamp::MIN)
}

fuzz_target!(|data: &[u8]| {
    let Some(([kind, high, low], mut rest)) = data.split_first_chunk() else { return };
    let session = session(kind & 1 == 1, u16::from_be_bytes([*high, *low]));
    let wanted = ContentPatterns { attacks: attacks_named("all").unwrap(), ..ContentPatterns::default() };
    let patterns = wanted.stream_patterns().unwrap();
    let mut hunter = Hunter::new(patterns, SearchScope::Stream, Indicators::default(), wanted.attacks, Ignored);
    let mut protocols = Protocols::new(Checked(Collector::new(LIMITS, Objects)));
    let mut both = |event: retrocap::streams::Event<'_>| {
        hunter.event(&session, event);
        protocols.event(&session, event);
    };
    both(retrocap::streams::Event::Begin);
    let (mut offsets, mut sequence) = ([0u64; 2], 0);
    while let Some(([how, len], more)) = rest.split_first_chunk() {
        let sender = if how & 1 == 0 { Sender::Originator } else { Sender::Responder };
        let (piece, after) = more.split_at(usize::from(*len).min(more.len()));
        rest = after;
        sequence += 1;
        let packet = PacketRef { time: Timestamp::MIN, sequence };
        let offset = &mut offsets[sender.index()];
        if how & 2 == 2 {
            both(retrocap::streams::Event::Gap(Gap { sender, offset: *offset, len: 7, cause: Cause::Missing }));
            *offset += 7;
        }
        if !piece.is_empty() {
            both(retrocap::streams::Event::Run(Run { sender, offset: *offset, data: piece, packet }));
            *offset += piece.len() as u64;
        }
    }
    both(retrocap::streams::Event::End);
    protocols.sink.0.finish();
});
