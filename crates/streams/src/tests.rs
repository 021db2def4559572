//! Stories of one session, and a comparison with a naive oracle for any order of segments.

use base::packet::{Direction, InterfaceId, LinkType, Packet, PacketFlags};
use base::time::Timestamp;
use proptest::prelude::*;

use super::*;

const SYN: u8 = 2;
const ACK: u8 = 16;
const FIN: u8 = 1;
const RST: u8 = 4;

/// Makes packets of one session and collects what the streams say.
struct Conversation {
    streams: Streams,
    sequence: u64,
    seconds: u64,
    events: Vec<String>,
    bytes: [Vec<u8>; 2],
}

impl Conversation {
    fn new(limits: StreamLimits) -> Self {
        Self {
            streams: Streams::new(limits),
            sequence: 0,
            seconds: 1000,
            events: Vec::new(),
            bytes: [Vec::new(), Vec::new()],
        }
    }

    fn frame(from: u8, flags: u8, sequence: u32, acknowledged: u32, payload: &[u8]) -> Vec<u8> {
        let mut ip = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 6, 0, 0];
        let total = u16::try_from(40 + payload.len()).unwrap();
        ip[2..4].copy_from_slice(&total.to_be_bytes());
        let (ports, addresses) = if from == 0 { ([1000u16, 80], [1, 2]) } else { ([80, 1000], [2, 1]) };
        for last in addresses {
            ip.extend([10, 0, 0, last]);
        }
        ports.iter().for_each(|port| ip.extend(port.to_be_bytes()));
        ip.extend(sequence.to_be_bytes());
        ip.extend(acknowledged.to_be_bytes());
        ip.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        ip.extend(payload);
        ip
    }

    fn send(&mut self, from: u8, flags: u8, sequence: u32, acknowledged: u32, payload: &[u8]) -> &mut Self {
        let frame = Self::frame(from, flags, sequence, acknowledged, payload);
        self.raw(&frame, frame.len())
    }

    fn raw(&mut self, frame: &[u8], captured: usize) -> &mut Self {
        self.sequence += 1;
        let packet = Packet {
            time: Timestamp::from_unix(self.seconds, 0),
            interface: InterfaceId(0),
            link_type: LinkType::IPV4,
            direction: Direction::Unknown,
            flags: PacketFlags::default(),
            original_len: u32::try_from(frame.len()).unwrap(),
            drops_before: 0,
            data: &frame[..captured],
        };
        let (events, bytes) = (&mut self.events, &mut self.bytes);
        let mut sink = |session: &Session, event: Event<'_>| record(events, bytes, session, event);
        self.streams.packet(&packet, self.sequence, &mut sink);
        self
    }

    fn open(&mut self) -> &mut Self {
        self.send(0, SYN, 99, 0, b"").send(1, SYN | ACK, 999, 100, b"").send(0, ACK, 100, 1000, b"")
    }

    fn finish(&mut self) -> String {
        let (events, bytes) = (&mut self.events, &mut self.bytes);
        self.streams.finish(&mut |session: &Session, event: Event<'_>| record(events, bytes, session, event));
        self.events.join(" ")
    }
}

fn record(events: &mut Vec<String>, bytes: &mut [Vec<u8>; 2], session: &Session, event: Event<'_>) {
    let arrow = |sender: Sender| if sender == Sender::Originator { '>' } else { '<' };
    match event {
        Event::Begin => {}
        Event::Run(run) => {
            let all = &mut bytes[run.sender.index()];
            let text = String::from_utf8_lossy(run.data);
            events.push(format!("{}{}:{text}#{}", arrow(run.sender), run.offset, run.packet.sequence));
            all.extend(run.data);
        }
        Event::Gap(gap) => events.push(format!("{}{}-{}:{}", arrow(gap.sender), gap.offset, gap.len, gap.cause.name())),
        Event::Conflict(one) => {
            events.push(format!("{}{}!{}#{}", arrow(one.sender), one.offset, one.len, one.packet.sequence))
        }
        Event::End => events.push(format!("end{}", session.number)),
    }
}

fn story(record: impl FnOnce(&mut Conversation)) -> String {
    let mut story = Conversation::new(StreamLimits::default());
    record(&mut story);
    story.finish()
}

#[test]
fn segments_are_put_in_order() {
    let events = story(|s| {
        s.open().send(0, ACK, 103, 1000, b"def").send(0, ACK, 100, 1000, b"abc").send(1, ACK, 1000, 106, b"yes");
    });
    assert_eq!(events, ">0:abc#5 >3:def#4 <0:yes#6 end0");
}

#[test]
fn the_first_bytes_win_and_a_contradiction_is_reported() {
    let events = story(|s| {
        s.open()
            .send(0, ACK, 100, 1000, b"GET /a")
            .send(0, ACK, 100, 1000, b"GET /a")
            .send(0, ACK, 104, 1000, b"/b HT");
    });
    assert_eq!(events, ">0:GET /a#4 >4!2#6 >6: HT#6 end0", "the retransmission says nothing");
    let events = story(|s| {
        s.open().send(0, ACK, 102, 1000, b"cd").send(0, ACK, 101, 1000, b"bXYe").send(0, ACK, 100, 1000, b"a");
    });
    assert_eq!(events, ">2!2#5 >0:a#6 >1:b#5 >2:cd#4 >4:e#5 end0");
}

#[test]
fn a_gap_has_its_place_length_and_cause() {
    let events = story(|s| {
        s.open().send(0, ACK, 100, 1000, b"abc").send(0, ACK, 110, 1000, b"xyz").send(1, ACK, 1000, 120, b"");
    });
    assert_eq!(events, ">0:abc#4 >3-7:missing >10:xyz#5 >13-6:missing end0", "acknowledged bytes that nobody has");
    let events = story(|s| {
        let frame = Conversation::frame(0, ACK, 100, 1000, b"abcdef");
        s.open().raw(&frame, 43).send(0, ACK, 106, 1000, b"ghi");
    });
    assert_eq!(events, ">0:abc#4 >3-3:snaplen >6:ghi#5 end0");
    let events = story(|s| {
        s.send(0, ACK, 500, 1000, b"late").send(1, ACK, 1000, 504, b"answer");
    });
    assert_eq!(events, ">0-0:no_syn >0:late#1 <0-0:no_syn <0:answer#2 end0");
}

#[test]
fn a_hole_is_given_up_once_its_bytes_were_acknowledged() {
    let events = story(|s| {
        s.open().send(0, ACK, 110, 1000, b"xyz");
        for _ in 0..20 {
            s.send(1, ACK, 1000, 113, b"");
        }
        s.send(0, ACK, 113, 1000, b"!");
    });
    assert_eq!(events, ">0-10:missing >10:xyz#4 >13:!#25 end0");
}

#[test]
fn a_keepalive_is_no_contradiction() {
    let events = story(|s| {
        s.open().send(0, ACK, 100, 1000, b"abc").send(0, ACK, 102, 1000, b"\0").send(0, ACK, 103, 1000, b"d");
    });
    assert_eq!(events, ">0:abc#4 >3:d#6 end0");
}

#[test]
fn ports_are_used_again() {
    let events = story(|s| {
        s.open().send(0, ACK, 100, 1000, b"one").send(0, RST, 103, 0, b"");
        s.send(0, SYN, 5000, 0, b"").send(0, ACK, 5001, 1, b"two");
    });
    assert_eq!(events, ">0:one#4 end0 >0:two#7 end1");
}

#[test]
fn a_forged_syn_ends_no_session() {
    let events = story(|s| {
        s.open().send(0, ACK, 100, 1000, b"one").send(0, SYN, 70_000, 0, b"").send(0, ACK, 103, 1000, b"two");
    });
    assert_eq!(events, ">0:one#4 >3:two#6 end0");
    let events = story(|s| {
        s.open().send(0, ACK, 100, 1000, b"one").send(0, SYN, 70_000, 0, b"");
        s.send(1, SYN | ACK, 8000, 70_001, b"").send(0, ACK, 70_001, 8001, b"two");
    });
    assert_eq!(events, ">0:one#4 end0 >0:two#7 end1", "but the other side may agree");
}

#[test]
fn a_far_segment_does_not_stop_the_stream() {
    let mut story = Conversation::new(StreamLimits { direction_bytes: 4 << 10, ..StreamLimits::default() });
    story.open();
    for far in 0..100u32 {
        story.send(0, ACK, 100u32.wrapping_add(0x4000_0000 + far * 5000), 1000, &[b'x'; 1000]);
        story.send(0, ACK, 100 + far, 1000, b"o");
    }
    story.send(0, FIN | ACK, 200, 1000, b"").finish();
    assert!(story.bytes[0].starts_with(&[b'o'; 100]), "{}", story.events.join(" "));
}

#[test]
fn memory_is_bounded_whatever_comes() {
    let limits = StreamLimits { direction_bytes: 64 << 10, total_bytes: 1 << 20, sessions: 1000 };
    let mut story = Conversation::new(limits);
    story.open();
    for number in 0..20_000u32 {
        let at = number.wrapping_mul(0x9e37_79b9);
        story.send(0, ACK, at, 1000, &[1; 1400]);
        assert!(story.streams.held_bytes() <= (1 << 20) + (128 << 10), "{}", story.streams.held_bytes());
    }
    for number in 0..5000u32 {
        let mut frame = Conversation::frame(0, SYN, 1, 0, b"");
        frame[14..16].copy_from_slice(&u16::try_from(number).unwrap().to_be_bytes());
        story.raw(&frame, frame.len());
    }
    assert!(story.streams.held_bytes() <= limits.total_bytes);
    assert!(story.streams.counts().ended_early > 3000);
}

proptest! {
    #[test]
    fn any_order_gives_the_bytes_or_a_gap(
        text in prop::collection::vec(b'a'..=b'z', 1..600),
        cuts in prop::collection::vec((0usize..600, 1usize..200), 1..40),
        start: u32,
    ) {
        let mut story = Conversation::new(StreamLimits::default());
        story.send(0, SYN, start, 0, b"");
        let first = start.wrapping_add(1);
        let mut known = vec![false; text.len()];
        for (from, len) in cuts {
            let from = from % text.len();
            let to = (from + len).min(text.len());
            known[from..to].fill(true);
            story.send(0, ACK, first.wrapping_add(u32::try_from(from).unwrap()), 1, &text[from..to]);
        }
        let events = story.finish();
        let expected: Vec<u8> = text.iter().zip(&known).filter(|(_, known)| **known).map(|(byte, _)| *byte).collect();
        prop_assert_eq!(&story.bytes[0], &expected, "{}", events);
        prop_assert!(!events.contains('!'), "{}", events);
    }
}
