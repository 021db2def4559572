//! The hot path: one loop from a source to the store.
//!
//! Packets come in bursts, because most of the time goes into waiting for memory: where a session lies follows from its
//! packet's headers, and is elsewhere for each. So a burst goes through three passes. The first reads headers and asks for
//! the bucket of the index, the second looks into it and asks for the session's entry, and the third finds everything
//! at hand. The order of packets is kept in each of them, and what comes out does not depend on how they were bundled.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::id_mapping::IdMapping;
use crate::judge::{Classes, Judge, Pins, pins};
use crate::own_streams::{OwnStreamFilter, OwnStreams};
use crate::session::{SessionArray, SessionLookup, SessionTable, SessionUpdate};
use crate::store::compress::{Compression, Compressor};
use crate::store::record::{PACKET_BYTES_MAX, RecordHeader};
use crate::store::retention::{Policy, RetentionTerms};
use crate::store::{PacketRole, Placement, Rank, Segments, Store, Tally};
use base::codec::{Put, Take, damaged};
use base::counters::{DropReason, Published, Totals, Volume};
use base::interface::Interfaces;
use base::memory::Lock;
use base::packet::{InterfaceId, Packet};
use base::source::{BURST_PACKETS, Batch, Source, SourceCounts, SourceError};
use decode::{self, Stop};
use filter::FilterSet;

/// What one worker is made with.
#[derive(Debug)]
pub struct Config {
    /// Bytes for sessions, index included.
    pub sessions_bytes: u64,
    /// Bytes for packets.
    pub store_bytes: u64,
    /// How old sessions are shortened.
    pub policy: Policy,
    /// Sessions that are kept otherwise.
    pub classes: Classes,
    /// Sessions that are kept whole for a time.
    pub pins: Arc<Pins>,
    /// Bytes that all pins together may take.
    pub pinned_bytes: u64,
    /// What does not match is not recorded.
    pub filter: Option<FilterSet>,
    /// Bytes kept of each packet at most; 0 for whole packets.
    pub snaplen: u32,
    /// Whether memory is locked in RAM.
    pub lock: Lock,
    /// Seed of the hashes of sessions and of floods' counters; the same one gives the same answers.
    pub seed: u64,
}

impl Config {
    /// What replays and tests have: the default retention, no class, pin or filter, whole packets, memory that is not
    /// locked, and a fixed seed.
    pub fn new(sessions_bytes: u64, store_bytes: u64) -> Self {
        Self {
            sessions_bytes,
            store_bytes,
            policy: Policy::default(),
            classes: Classes::default(),
            pins: Arc::default(),
            pinned_bytes: 0,
            filter: None,
            snaplen: 0,
            lock: Lock::No,
            seed: 1,
        }
    }
}

/// What readers see of a worker.
#[derive(Clone, Debug)]
pub struct Worker {
    /// Kept packets.
    pub segments: Arc<Segments>,
    /// Sessions.
    pub sessions: Arc<SessionArray>,
    /// Counts.
    pub published: Arc<Published>,
    /// Bytes of the index of sessions.
    pub index_bytes: u64,
    /// What classes and pins have.
    pub tally: Arc<Tally>,
    /// The pins.
    pub pins: Arc<Pins>,
    /// Names of the classes, that of class 1 first, and what each has reserved here.
    pub classes: Arc<[(String, u64)]>,
}

/// Bytes of packets after which a burst ends: longer ones are copied the slower the more of them were looked at before.
const BURST_BYTES: usize = 4096;

/// How many of `packets`, of which there is one at least, go through the passes together.
fn burst_len(packets: &[Packet<'_>]) -> usize {
    let mut bytes = 0;
    let more = packets[1..].iter().take(BURST_PACKETS - 1).take_while(|packet| {
        bytes += packet.data.len();
        bytes < BURST_BYTES
    });
    1 + more.count()
}

/// A packet of a burst whose headers were read.
#[derive(Clone, Copy)]
struct DecodedPacket<'a> {
    packet: &'a Packet<'a>,
    lookup: SessionLookup,
}

/// One worker: everything a packet meets on its way, and nothing that another worker touches.
#[derive(Debug)]
pub struct Pipeline {
    sessions: SessionTable,
    judge: Judge,
    /// How the classes are kept.
    terms: Vec<RetentionTerms>,
    store: Store,
    pins: Arc<Pins>,
    classes: Arc<[(String, u64)]>,
    filter: Option<FilterSet>,
    own_streams: Option<OwnStreamFilter>,
    snaplen: usize,
    /// The most bytes that are kept of a packet: the snapshot length, or less where a record cannot be so long.
    kept_bytes_max: usize,
    totals: Totals,
    /// What the source has counted so far, as last seen.
    source: SourceCounts,
    published: Arc<Published>,
}

impl Pipeline {
    /// Takes all the memory it will ever use.
    ///
    /// # Errors
    ///
    /// When the system has not that much to give.
    pub fn new(config: Config) -> std::io::Result<Self> {
        let terms = config.classes.iter();
        let terms: Vec<_> =
            terms.map(|class| RetentionTerms { weight: class.weight, reserve_bytes: class.reserve_bytes }).collect();
        let policy = config.policy.with_classes(terms.clone());
        let store_bytes = config.store_bytes.saturating_sub(Judge::BYTES);
        let snaplen = if config.snaplen == 0 { usize::MAX } else { config.snaplen as usize };
        Ok(Self {
            sessions: SessionTable::new(config.sessions_bytes, config.seed, config.lock)?,
            classes: config.classes.iter().map(|class| (class.name.clone(), class.reserve_bytes)).collect(),
            pins: Arc::clone(&config.pins),
            terms,
            judge: Judge::new(config.classes, config.pins, store_bytes, config.seed, config.lock.at_once())?,
            store: Store::new(store_bytes, &policy, config.pinned_bytes, config.lock)?,
            filter: config.filter,
            own_streams: None,
            snaplen,
            kept_bytes_max: snaplen.min(PACKET_BYTES_MAX),
            totals: Totals::default(),
            source: SourceCounts::default(),
            published: Arc::default(),
        })
    }

    /// Does not record the connections on this list.
    pub fn leave_out(&mut self, own_streams: Arc<OwnStreams>) {
        self.own_streams = Some(OwnStreamFilter::new(own_streams));
    }

    /// Records by another filter and shortens by another policy from the next packet on; the classes stay.
    pub fn change(&mut self, filter: Option<FilterSet>, policy: &Policy) {
        self.filter = filter;
        self.store.set_policy(&policy.clone().with_classes(self.terms.clone()));
    }

    /// What readers see.
    pub fn worker(&self) -> Worker {
        Worker {
            segments: self.store.segments(),
            sessions: self.sessions.array(),
            published: Arc::clone(&self.published),
            index_bytes: self.sessions.index_bytes(),
            tally: self.store.tally(),
            pins: Arc::clone(&self.pins),
            classes: Arc::clone(&self.classes),
        }
    }

    /// Has old packets compressed by what is returned, on a thread of its own; before anybody asks for them.
    ///
    /// # Errors
    ///
    /// When the system has not the memory for it.
    pub fn compress(&mut self, compression: &Compression) -> std::io::Result<Compressor> {
        self.store.compress(compression)
    }

    /// Ends compression, and the thread that does it.
    pub fn stop_compressing(&mut self) {
        self.store.stop_compressing();
    }

    /// Names of the classes, that of class 1 first.
    pub fn class_names(&self) -> impl Iterator<Item = &str> {
        self.classes.iter().map(|(name, _)| name.as_str())
    }

    /// Writes everything down for the recorder that comes next, and forgets it.
    pub fn hand_over(&mut self, out: &mut impl Write) -> io::Result<()> {
        self.stop_compressing();
        self.publish();
        let totals = self.totals.to_list();
        out.put_u16(u16::try_from(totals.len()).unwrap_or(0))?;
        out.put_words(&totals)?;
        let interfaces = (0u16..).take(Interfaces::CAPACITY).map(|id| self.published.interface(InterfaceId(id)));
        let mut counts: Vec<_> = interfaces.collect();
        while counts.last().is_some_and(|volume| volume.packets == 0) {
            counts.pop();
        }
        out.put_u16(u16::try_from(counts.len()).unwrap_or(0))?;
        counts.iter().try_for_each(|volume| out.put_words(&[volume.packets, volume.bytes]))?;
        self.sessions.hand_over(out)?;
        self.store.hand_over(out)
    }

    /// Takes over what another worker has left, which can be done several times before the first packet. Says how many of
    /// its packets found no room.
    pub(crate) fn take_over(&mut self, input: &mut impl Read, ids: &mut IdMapping) -> io::Result<u64> {
        let mut words = Vec::new();
        for _ in 0..input.take_u16()? {
            words.push(input.take_u64()?);
        }
        let totals = Totals::from_list(&words).ok_or_else(|| damaged("the counts"))?;
        let counts = input.take_u16()?;
        for id in 0..counts {
            let [packets, bytes] = input.take_words()?;
            if packets.max(bytes) >= 1 << 56 {
                return Err(damaged("the counts of an interface"));
            }
            let id = ids.interface(InterfaceId(id))?;
            self.published.count_interface_on(id, Volume { packets, bytes });
        }
        ids.begin_worker(totals.stored.packets, self.totals.stored.packets);
        self.store.go_on_counting(totals.carried, totals.packed, totals.lost_until);
        self.totals = Some(self.totals.and(totals))
            .filter(|sum| sum.are_below(1 << 57))
            .ok_or_else(|| damaged("the counts of several workers"))?;
        ids.set_sessions(self.sessions.take_over(input, ids)?);
        self.store.set_active_pins(ids.pins());
        let before = self.store.retained().packets;
        self.store.take_over(input, ids, &mut self.sessions)?;
        Ok((before + totals.retained.packets).saturating_sub(self.store.retained().packets))
    }

    /// All that could be taken over is there: counts add up again, and memory that was not needed for it is taken.
    pub fn taken_over(&mut self) -> Volume {
        self.sessions.taken_over();
        let retained = self.store.retained();
        let totals = &mut self.totals;
        totals.stored.packets = totals.stored.packets.max(retained.packets);
        totals.stored.bytes = totals.stored.bytes.max(retained.bytes);
        totals.received = totals.stored;
        totals.received += totals.filtered;
        totals.dropped.iter().for_each(|dropped| totals.received += *dropped);
        self.store.set_evicted(totals.stored.since(retained));
        retained
    }

    /// Takes all memory that was to be taken as it is used.
    pub fn populate(&self) -> io::Result<()> {
        self.store.populate()?;
        self.sessions.array().populate()
    }

    /// Sessions that are known.
    pub fn known_sessions(&self) -> u64 {
        self.sessions.known_sessions()
    }

    /// Takes packets from `source` until it ends, fails, or `stop` is set.
    pub fn run(&mut self, source: &mut impl Source, stop: &AtomicBool) -> Result<(), SourceError> {
        while !stop.load(Ordering::Relaxed) {
            self.refresh();
            let batch = source.bursts(&mut |burst| {
                // Apply pins that were made while the source waited, before the packets that ended the wait.
                self.refresh();
                self.ingest(burst);
            });
            self.account(&source.counts());
            self.store.settle(source.is_behind());
            self.publish();
            if batch? == Batch::End {
                break;
            }
        }
        Ok(())
    }

    /// The way of a few packets.
    pub fn ingest(&mut self, packets: &[Packet<'_>]) {
        let mut rest = packets;
        while !rest.is_empty() {
            if self.sessions.are_few() {
                // All of them are in the processor's cache: there is nothing to be waited for.
                if let Some(coming) = self.receive(&rest[0]) {
                    self.keep(&coming);
                }
                rest = &rest[1..];
                continue;
            }
            let (burst, after) = rest.split_at(burst_len(rest));
            rest = after;
            let mut places = [None; BURST_PACKETS];
            let coming = &mut places[..burst.len()];
            for (coming, packet) in coming.iter_mut().zip(burst) {
                *coming = self.receive(packet);
            }
            for DecodedPacket { lookup, .. } in coming.iter().flatten() {
                self.sessions.prefetch_entry(lookup);
            }
            for coming in coming.iter().flatten() {
                self.keep(coming);
            }
        }
    }

    /// From a packet to what its headers say; `None` if it is not to be kept.
    #[inline(always)]
    fn receive<'a>(&mut self, whole: &'a Packet<'a>) -> Option<DecodedPacket<'a>> {
        let mut place = None;
        let packet = self.cut(whole, &mut place);
        if packet.data.len() < whole.data.len() {
            self.totals.oddities.truncated += u64::from(packet.data.len() < self.snaplen);
        }
        let bytes = packet.data.len() as u64;
        self.totals.received.add(bytes);
        self.published.count_interface(packet.interface, bytes);
        if let Some(filter) = &mut self.filter
            && !filter.matches(packet.link_type, packet.data, packet.original_len)
        {
            self.totals.filtered.add(bytes);
            return None;
        }
        let mut decoded = decode::decode(packet.link_type, packet.data);
        if let Some(own_streams) = &mut self.own_streams
            && own_streams.is_own(packet.time, &decoded)
        {
            self.totals.filtered.add(bytes);
            return None;
        }
        self.note(packet, decoded.stop);
        let lookup = self.sessions.look_up(packet, &mut decoded);
        Some(DecodedPacket { packet: whole, lookup })
    }

    /// Counts a packet to its session, whose bytes so far say where it is stored.
    fn keep(&mut self, DecodedPacket { packet, lookup }: &DecodedPacket<'_>) {
        let mut place = None;
        let packet = self.cut(packet, &mut place);
        let bytes = packet.data.len() as u64;
        let sequence = self.totals.stored.packets;
        // It counts as stored before it is, so that the room for it is not made out of its session's start.
        let session = self.sessions.count(lookup, packet, sequence);
        let marks = self.judge.decide(packet, &session, &mut self.sessions, self.store.ticks_ns());
        let kept_as = match session.closes {
            true => PacketRole::Closing,
            false if self.judge.is_important(marks, packet) => PacketRole::Important,
            false => PacketRole::Part,
        };
        if kept_as == PacketRole::Part && self.judge.cuts_off(marks, session.offset) {
            self.sessions.packet_dropped(session.slot, session.offset, bytes);
            return self.totals.dropped[DropReason::ClassCutoff as usize].add(bytes);
        }
        let rank = self.store.rank(session.depth, u64::from(packet.original_len));
        let place = Placement { marks, rank, kept_as, elephant: self.elephant(rank, &session) };
        let header = RecordHeader::new(packet, sequence, session.slot);
        self.store.append(&header, packet.data, place, &mut self.sessions);
        self.totals.stored.add(bytes);
    }

    /// The number of the queue of a session that alone would fill much of the memory, 0 for most.
    #[inline]
    fn elephant(&self, rank: Rank, session: &SessionUpdate) -> u8 {
        if rank != Rank::LAST || session.offset < self.store.elephant_bytes() {
            return 0;
        }
        Placement::elephant_of(session.slot)
    }

    /// A packet as it is kept. Few packets are too long, so only those are copied, to `place`.
    #[inline]
    fn cut<'a>(&self, packet: &'a Packet<'a>, place: &'a mut Option<Packet<'a>>) -> &'a Packet<'a> {
        if packet.data.len() <= self.kept_bytes_max {
            return packet;
        }
        place.insert(Packet { data: &packet.data[..self.kept_bytes_max], ..*packet })
    }

    #[inline]
    fn note(&mut self, packet: &Packet<'_>, stop: Stop) {
        let oddities = &mut self.totals.oddities;
        match stop {
            Stop::Complete | Stop::Unknown => {}
            Stop::Truncated => oddities.cut_headers += 1,
            Stop::Malformed => oddities.malformed += 1,
            Stop::TooDeep => oddities.too_deep += 1,
        }
        match self.totals.newest {
            Some(newest) if packet.time < newest => oddities.out_of_order += 1,
            _ => self.totals.newest = Some(packet.time),
        }
    }

    /// Takes over what the source has counted since the last time.
    fn account(&mut self, now: &SourceCounts) {
        let refused = now.refused.since(self.source.refused);
        let unselected = now.unselected.since(self.source.unselected);
        self.totals.received += refused;
        self.totals.dropped[DropReason::InterfacesFull as usize] += refused;
        self.totals.received += unselected;
        self.totals.filtered += unselected;
        self.totals.oddities.truncated += now.truncated - self.source.truncated;
        self.totals.kernel_dropped += now.kernel_dropped - self.source.kernel_dropped;
        self.source = *now;
    }

    /// Takes over pins that were made or have ended.
    pub fn refresh(&mut self) {
        if let Some(pins::PinChanges { ended, active }) = self.judge.refresh(&mut self.sessions) {
            self.store.set_pins(ended, active);
        }
    }

    /// Lets readers see the counts.
    pub fn publish(&mut self) {
        self.store.publish_tally();
        self.totals.retained = self.store.retained();
        self.totals.evicted = self.store.evicted();
        self.totals.carried = self.store.carried();
        (self.totals.carried.headless, self.totals.carried.untracked) = self.sessions.headless();
        self.totals.packed = self.store.packed();
        self.totals.lost_until = self.store.lost_until();
        self.published.publish(&self.totals);
    }
}
