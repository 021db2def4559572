use super::super::SessionState;
use super::super::tcp::{ACK, FIN, RST, SYN};
use super::*;
use base::packet::{Direction, InterfaceId, LinkType, PacketFlags};
use decode::Network;

const SECOND: u64 = 1_000_000_000;

/// A table and the sequence number of the last packet.
struct TableRun {
    table: SessionTable,
    sequence: u64,
}

impl TableRun {
    fn new() -> Self {
        Self { table: SessionTable::new(1 << 20, 7, Lock::No).unwrap(), sequence: 0 }
    }

    fn packet(&mut self, second: u64, from: (u128, u16), to: (u128, u16), protocol: u8, flags: u8) -> SessionUpdate {
        let mut decoded = Decoded {
            network: Network::Ipv4,
            protocol,
            tcp_flags: flags,
            source: from.0,
            destination: to.0,
            source_port: from.1,
            destination_port: to.1,
            ..Decoded::default()
        };
        let packet = Packet {
            time: Timestamp(second * SECOND),
            interface: InterfaceId(0),
            link_type: LinkType::ETHERNET,
            direction: Direction::Unknown,
            flags: PacketFlags::default(),
            original_len: 100,
            drops_before: 0,
            data: &[],
        };
        self.sequence += 1;
        let lookup = self.table.look_up(&packet, &mut decoded);
        let update = self.table.count(&lookup, &packet, self.sequence);
        self.table.entry(update.slot.0).not_kept(0);
        update
    }

    /// Sends a packet to a server, and stores and evicts it at once.
    fn gone(&mut self, second: u64, from: (u128, u16)) {
        let update = self.packet(second, from, B, 17, 0);
        self.table.packet_kept(update.slot, self.sequence, 100);
        self.table.packet_evicted(update.slot, self.sequence, 100, true);
    }

    fn session(&self, update: SessionUpdate) -> super::super::Session {
        self.table.array().session(update.slot).unwrap()
    }
}

const A: (u128, u16) = (10, 40_000);
const B: (u128, u16) = (20, 80);

#[test]
fn a_tcp_session_from_handshake_to_close() {
    let mut run = TableRun::new();
    let steps = [
        (A, B, SYN, SessionState::SynSent, false),
        (B, A, SYN | ACK, SessionState::Established, false),
        (A, B, ACK, SessionState::Established, false),
        (B, A, ACK, SessionState::Established, false),
        (A, B, FIN | ACK, SessionState::Closing, true),
        (A, B, FIN | ACK, SessionState::Closing, false), // sent again
        (B, A, FIN | ACK, SessionState::Closed, true),
        (A, B, ACK, SessionState::Closed, false),
    ];
    let mut slots = Vec::new();
    for (i, (from, to, flags, state, closes)) in (0..).zip(steps) {
        let update = run.packet(i, from, to, 6, flags);
        assert_eq!((update.offset, update.closes), (i * 100, closes), "packet {i}");
        let session = run.session(update);
        assert_eq!(session.state(), state, "packet {i}");
        assert_eq!(session.originator().port, A.1);
        slots.push(update.slot);
    }
    slots.dedup();
    assert_eq!(slots.len(), 1);
}

#[test]
fn the_originator_is_who_sent_the_syn_or_asked_a_service() {
    // Without a SYN or SYN-ACK, port 80 is the responder.
    for (flags, protocol, originator) in
        [(SYN, 6, Some(A)), (SYN | ACK, 6, Some(B)), (ACK, 6, None), (0, 17, None), (RST, 6, None)]
    {
        for (from, to) in [(A, B), (B, A)] {
            let mut run = TableRun::new();
            let update = run.packet(0, from, to, protocol, flags);
            let expected = match originator {
                Some(originator) => {
                    if originator == A {
                        from.1
                    } else {
                        to.1
                    }
                }
                None => A.1.max(B.1),
            };
            assert_eq!(run.session(update).originator().port, expected, "flags {flags}");
        }
    }
}

#[test]
fn silence_ends_a_session() {
    for (protocol, flags, silence, same) in [
        (6, ACK, 300, true),
        (6, ACK, 301, false),
        (6, RST, 5, true),
        (6, RST, 6, false),
        (17, 0, 60, true),
        (17, 0, 61, false),
        (1, 0, 61, false),
    ] {
        let mut run = TableRun::new();
        let first = run.packet(1000, A, B, protocol, flags);
        let second = run.packet(1000 + silence, B, A, protocol, ACK);
        assert_eq!(first.slot == second.slot, same, "protocol {protocol}, {silence} s");
        assert_eq!(second.offset, if same { 100 } else { 0 });
        // The first session is still known.
        assert_eq!(run.session(first).first, Timestamp(1000 * SECOND));
    }
}

#[test]
fn a_syn_after_the_close_begins_a_new_session() {
    let mut run = TableRun::new();
    let first = run.packet(0, A, B, 6, SYN);
    run.packet(0, B, A, 6, RST);
    let second = run.packet(1, A, B, 6, SYN);
    assert_ne!(first.slot, second.slot);
    assert_eq!(run.session(first).state(), SessionState::Reset);
    assert_eq!(run.session(second).state(), SessionState::SynSent);
}

#[test]
fn a_clock_set_back_splits_no_session() {
    let mut run = TableRun::new();
    let first = run.packet(10_000, A, B, 6, SYN);
    let second = run.packet(6_400, B, A, 6, SYN | ACK);
    assert_eq!(first.slot, second.slot);
    assert_eq!(run.session(second).last, Timestamp(10_000 * SECOND));
}

#[test]
fn a_flood_takes_its_own_entries() {
    let mut run = TableRun::new();
    let capacity = u64::from(run.table.array().capacity());
    let ours = run.packet(0, A, B, 6, SYN);
    run.packet(0, B, A, 6, SYN | ACK);
    // Spoofed SYNs, ten times the table's capacity, within the timeout of our session.
    for i in 0..capacity * 10 {
        run.packet(1, (1000 + u128::from(i), 1), B, 6, SYN);
    }
    let later = run.packet(2, A, B, 6, ACK);
    assert_eq!((later.slot, later.offset), (ours.slot, 200), "the conversation is still known");
    let array = run.table.array();
    assert_eq!(u64::from(array.capacity()), capacity);
    assert_eq!(array.sessions().count() as u64, capacity);
}

#[test]
fn a_flood_does_not_evict_the_archive() {
    let mut run = TableRun::new();
    let capacity = u64::from(run.table.array().capacity());
    // Conversations whose packets have been evicted.
    for i in 0..capacity * 3 {
        let client = (2000 + u128::from(i % 100), 1024 + u16::try_from(i % 60_000).unwrap());
        run.gone(i, client);
        run.gone(i, client);
    }
    let known = run.table.array().past();
    assert!(known > capacity, "{known}");
    let oldest = |run: &TableRun| {
        run.table.array().known(Timestamp::MIN, Timestamp::MAX).map(|(_, session)| session.first).min()
    };
    let first = oldest(&run);
    for i in 0..capacity * 20 {
        let update = run.packet(capacity * 3 + i / 1000, (1 << 20 | u128::from(i), 1), B, 6, SYN);
        run.table.set_marks(update.slot, SessionMarks { storm: true, ..SessionMarks::default() });
    }
    let array = run.table.array();
    assert!(array.unlisted() >= capacity * 18, "{}", array.unlisted());
    assert!(array.past() >= known, "what was known still is");
    assert_eq!(oldest(&run), first);
}

#[test]
fn an_entry_whose_packets_are_left_outlives_those_that_have_none() {
    let mut run = TableRun::new();
    let capacity = u64::from(run.table.array().capacity());
    let kept = run.packet(0, A, B, 17, 0);
    run.table.packet_kept(kept.slot, run.sequence, 100);
    let first = run.sequence;
    // Ten times the table's capacity in sessions that ended long ago and lost their packets.
    for i in 0..capacity * 10 {
        run.gone(100 * i, (1000 + u128::from(i), 1));
    }
    assert_eq!(run.session(kept).first_sequence, first);
    run.table.packet_evicted(kept.slot, first, 100, true);
    assert_eq!(run.session(kept).cut_at, Some(Timestamp(100 * (capacity * 10 - 1) * SECOND)));
    for i in capacity * 10..capacity * 12 {
        run.gone(100 * i, (1000 + u128::from(i), 1));
    }
    assert_ne!(run.session(kept).first_sequence, first);
    let again =
        run.table.array().known(Timestamp::MIN, Timestamp::MAX).find(|(_, session)| session.originator().port == A.1);
    let (_, past) = again.expect("it is in the archive");
    assert!(past.is_past() && past.cut_at.is_some());
    assert_eq!(run.table.array().past(), capacity * 11 + 1);
}

#[test]
fn what_is_kept_is_counted_for_the_session_it_belongs_to() {
    let mut run = TableRun::new();
    let first = run.packet(0, A, B, 17, 0);
    let at_first = run.sequence;
    run.table.packet_kept(first.slot, run.sequence, 70);
    run.table.packet_kept(first.slot, run.sequence, 50);
    assert_eq!((run.session(first).kept_packets, run.session(first).kept_bytes), (2, 120));
    run.table.packet_evicted(first.slot, at_first, 70, true);
    assert_eq!((run.session(first).kept_packets, run.session(first).kept_bytes), (1, 50));
    // A packet of the slot's previous session does not count against its current one.
    run.table.packet_evicted(first.slot, at_first - 1, 50, true);
    assert_eq!(run.session(first).kept_packets, 1);
    assert!(run.table.array().session_at(first.slot, at_first - 1).is_none());
}

#[test]
fn the_table_fits_its_memory() {
    // From a fifth of the smallest budget up.
    for bytes in [16u64 << 18, 5_000_000, 100 << 20] {
        let table = SessionTable::new(bytes, 1, Lock::No).unwrap();
        let taken = table.index_bytes() + table.array().bytes() + table.array().archive_bytes();
        assert!(taken <= bytes, "{taken} of {bytes}");
        assert!(taken * 10 >= bytes * 6, "{taken} of {bytes}");
    }
}
