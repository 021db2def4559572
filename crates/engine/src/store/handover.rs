//! Handover of packets between two recorder processes.
//!
//! The old process writes its segments oldest first, in their stored form, compressed or not. It frees each segment
//! after writing it, so that the history never needs twice its memory. The new process trusts no input: it decodes and
//! counts every record of every segment. If sessions and interfaces keep their numbers and readers can uncompress the
//! segment, it adopts the bytes unchanged. Otherwise it rewrites each record uncompressed. If memory is short, the
//! usual eviction makes room.

use std::io::{self, Read, Write};

use super::cursor::{Cursor, RecordAt, Stream};
use super::queues::{Kind, PacketRole, Placement, QueueId};
use super::rank::Rank;
use super::record::{HEADER_BYTES_MAX, PACKET_BYTES_MAX, Previous, RecordHeader};
use super::segment::{SegmentId, SegmentView, pages_of};
use super::state::Store;
use crate::id_mapping::IdMapping;
use crate::session::{SessionMarks, SessionTable};
use base::codec::{Put, Take, damaged};
use base::counters::{CarriedTotals, CompressionTotals};
use base::time::Timestamp;

/// Longest uncompressed stream of a segment, in bytes: the largest segment size plus the longest record.
const STREAM_BYTES_MAX: usize = (256 << 10) + HEADER_BYTES_MAX + PACKET_BYTES_MAX;
/// Upper limit for a clock value, in nanoseconds. No valid store clock reaches it.
const TICKS_NS_MAX: u64 = 1 << 62;

/// Metadata of a segment in the handover stream.
#[derive(Clone, Copy, Debug)]
struct SegmentMetadata {
    kind: [u8; 4],
    age_ns: u64,
    base: Previous,
    packets: u64,
    stream_bytes: usize,
    packed_bytes: usize,
}

impl SegmentMetadata {
    fn put(&self, out: &mut impl Write) -> io::Result<()> {
        out.write_all(&self.kind)?;
        out.put_words(&[self.age_ns, self.base.time.0, self.base.sequence, self.packets])?;
        out.put_u32(u32::try_from(self.stream_bytes).unwrap_or(u32::MAX))?;
        out.put_u32(u32::try_from(self.packed_bytes).unwrap_or(u32::MAX))
    }

    fn take(input: &mut impl Read) -> io::Result<Self> {
        let kind = input.take_array()?;
        let [age_ns, time, sequence, packets] = input.take_words()?;
        let (stream_bytes, packed_bytes) = (input.take_u32()? as usize, input.take_u32()? as usize);
        if stream_bytes > STREAM_BYTES_MAX || packed_bytes > STREAM_BYTES_MAX || stream_bytes == 0 || packets == 0 {
            return Err(damaged("the length of a segment"));
        }
        let base = Previous { time: Timestamp(time), sequence, interface: None };
        Ok(Self { kind, age_ns, base, packets, stream_bytes, packed_bytes })
    }

    fn bytes(&self) -> usize {
        if self.packed_bytes > 0 { self.packed_bytes } else { self.stream_bytes }
    }
}

impl Store {
    /// Writes all packets to `out` and removes them from the store. Wipes the memory of what it has written.
    pub(crate) fn hand_over(&mut self, out: &mut impl Write) -> io::Result<()> {
        self.stop_compressing();
        let now = self.policy.clock.ticks_ns();
        out.put_u64(now)?;
        out.put_u64(self.policy.clock.now().0)?;
        // Free pages hold only evicted packets. Release their memory for the data to be written.
        self.arena.release_free();
        let segments = self.by_age();
        out.put_u32(u32::try_from(segments.len()).unwrap_or(u32::MAX))?;
        let mut bytes = Vec::with_capacity(STREAM_BYTES_MAX);
        for (_, queue, id) in segments {
            let view = self.lists.view(id);
            let len = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
            let left = SegmentMetadata {
                kind: self.policy.queues.describe(queue),
                age_ns: now - self.lists.opened_ticks_ns(id),
                base: view.base,
                packets: view.packets,
                stream_bytes: len(view.len_bytes),
                packed_bytes: len(view.packed_bytes),
            };
            left.put(out)?;
            bytes.resize(left.bytes(), 0);
            self.arena.copy_out(&view, &mut bytes).map_err(|_| damaged("a segment"))?;
            out.write_all(&bytes)?;
            self.lists.slot(id).free();
            self.arena.release(&view);
        }
        bytes.fill(0);
        Ok(())
    }

    /// All segments, oldest first. Segments of one queue stay in queue order.
    fn by_age(&self) -> Vec<(u64, QueueId, SegmentId)> {
        let mut segments = Vec::new();
        for (at, queue) in self.policy.queues.iter() {
            let mut latest = 0;
            for id in self.lists.iter(&queue.list) {
                // Released pins can place older segments behind younger ones.
                latest = latest.max(self.lists.opened_ticks_ns(id));
                segments.push((latest, at, id));
            }
        }
        segments.sort_by_key(|(opened, ..)| *opened);
        segments
    }

    /// Takes over the packets of one worker. Take over its sessions first.
    pub(crate) fn take_over(
        &mut self,
        input: &mut impl Read,
        ids: &IdMapping,
        sessions: &mut SessionTable,
    ) -> io::Result<()> {
        let (ticks, last) = (input.take_u64()?.min(TICKS_NS_MAX), Timestamp(input.take_u64()?));
        self.policy.clock.take_over(ticks, last);
        let now = self.policy.clock.ticks_ns();
        let mut reading = Reading {
            bytes: Vec::with_capacity(STREAM_BYTES_MAX),
            stream: vec![0; STREAM_BYTES_MAX],
            records: Vec::new(),
            context: zstd::bulk::Decompressor::new()?,
            data: Vec::with_capacity(PACKET_BYTES_MAX),
        };
        for _ in 0..input.take_u32()? {
            let left = SegmentMetadata::take(input)?;
            reading.bytes.resize(left.bytes(), 0);
            input.read_exact(&mut reading.bytes)?;
            let view = reading.read(&left, ids)?;
            let opened = now.saturating_sub(left.age_ns);
            let queue = self.place_of(&left, ids);
            if ids.is_identity() && self.can_read(&left) {
                self.adopt(queue, &view, &left, &reading, opened, sessions);
            } else {
                self.write_again(queue, &view, &mut reading, opened, ids, sessions)?;
            }
        }
        Ok(())
    }

    /// Allocates all memory of the store now.
    pub(crate) fn populate(&self) -> io::Result<()> {
        self.arena.pages().populate()
    }

    /// Continues the counters of the previous process.
    pub(crate) fn go_on_counting(
        &mut self,
        carried: CarriedTotals,
        packed: CompressionTotals,
        lost_until: Option<Timestamp>,
    ) {
        self.heads.go_on_counting(carried);
        self.packed_before += packed;
        self.lost_until = self.lost_until.max(lost_until);
    }

    /// Sets the volume of packets evicted so far.
    pub(crate) fn set_evicted(&mut self, evicted: base::counters::Volume) {
        self.evicted = evicted;
    }

    /// Sets the active pins, one bit each.
    pub(crate) fn set_active_pins(&mut self, pins: u16) {
        self.policy.set_active_pins(pins);
    }

    /// The queue to which a segment belongs.
    fn place_of(&self, left: &SegmentMetadata, ids: &IdMapping) -> QueueId {
        let [kind, a, flood, rank] = left.kind;
        let pages = u32::try_from(pages_of(left.stream_bytes) + 1).unwrap_or(u32::MAX);
        let flood = flood.min(u8::try_from(SessionMarks::FLOODS - 1).unwrap_or(0));
        match kind {
            0 | 4 | 5 => {
                let kept_as = match kind {
                    4 => PacketRole::Closing,
                    5 => PacketRole::Important,
                    _ => PacketRole::Part,
                };
                let marks = SessionMarks { flood, ..ids.marks(SessionMarks { class: a, ..SessionMarks::default() }) };
                self.policy.queues.at(Placement { marks, rank: Rank(rank), kept_as, elephant: flood })
            }
            1 if self.heads.has_room(left.stream_bytes) => self.policy.queues.heads(flood),
            1 => self.policy.queues.at(Placement {
                marks: SessionMarks { flood, ..SessionMarks::default() },
                ..Placement::of(Rank::START)
            }),
            2 if ids.has_pin(a) && self.policy.pins_have_room(pages) => self.policy.queues.pinned(usize::from(a)),
            _ => self.policy.queues.released(),
        }
    }

    /// Whether readers can read the segment in its stored form.
    fn can_read(&self, left: &SegmentMetadata) -> bool {
        left.packed_bytes == 0
            || (self.packing.is_some() && left.stream_bytes.max(left.packed_bytes) <= self.segment_bytes)
    }

    /// Adopts a segment's bytes unchanged. Evicts other segments to make room, and drops the segment if none is left to
    /// evict.
    fn adopt(
        &mut self,
        queue: QueueId,
        view: &SegmentView,
        left: &SegmentMetadata,
        reading: &Reading,
        opened: u64,
        sessions: &mut SessionTable,
    ) {
        let count = pages_of(left.bytes()).max(1);
        while self.arena.free_pages() < count || !self.lists.has_free() {
            if !self.evict_one(sessions) {
                return;
            }
        }
        let Some(id) = self.lists.take() else { unreachable!("there is one") };
        let pages = self.arena.take_many(count);
        let first_page = self.arena.fill(&pages, &reading.bytes);
        let slot = self.lists.slot(id);
        slot.open(self.policy.queues[queue].kind.rank(), first_page, view.base.time, view.base.sequence);
        for (record, end) in &reading.records {
            slot.publish(&record.header, *end);
            let bytes = u64::from(record.header.captured_len);
            self.retained.add(bytes);
            sessions.kept_again(record.header.session, record.header.sequence, bytes);
        }
        if left.packed_bytes > 0 {
            slot.pack(first_page, left.packed_bytes as u64);
        }
        self.policy.queues.took(queue, u32::try_from(count).unwrap_or(u32::MAX));
        let queue = &mut self.policy.queues[queue];
        queue.open = None;
        self.lists.push(&mut queue.list, id, opened);
        if matches!(queue.kind, Kind::Heads { .. }) {
            self.heads.took(left.stream_bytes as u64);
        }
    }

    /// Rewrites the records of a segment with the current numbers of sessions and interfaces. Drops packets whose
    /// session found no room.
    fn write_again(
        &mut self,
        queue: QueueId,
        view: &SegmentView,
        reading: &mut Reading,
        opened: u64,
        ids: &IdMapping,
        sessions: &mut SessionTable,
    ) -> io::Result<()> {
        self.seal(queue);
        let last = self.policy.queues[queue].list.last().map(|id| self.lists.view(id));
        for at in 0..reading.records.len() {
            let record = reading.records[at].0;
            let Some(session) = ids.session(record.header.session) else { continue };
            let header = RecordHeader {
                session,
                interface: ids.interface(record.header.interface)?,
                sequence: ids.sequence(record.header.sequence)?,
                ..record.header
            };
            let mut data = std::mem::take(&mut reading.data);
            let copied = Cursor::new(*view).data(&Stream::Bytes(reading.stream_of(view)), view, &record, &mut data);
            copied.map_err(|_| damaged("a packet"))?;
            let record_bytes_max = HEADER_BYTES_MAX + data.len();
            if !self.continues(queue, &header, record_bytes_max) {
                self.seal(queue);
            }
            self.make_room(queue, record_bytes_max, sessions);
            let begins = self.policy.queues[queue].open.is_none();
            let record_bytes = self.write(queue, &header, &data);
            if let (true, Some(open)) = (begins, &self.policy.queues[queue].open) {
                self.lists.set_opened(open.id, opened);
            }
            if matches!(self.policy.queues[queue].kind, Kind::Heads { .. }) {
                self.heads.took(record_bytes as u64);
            }
            sessions.kept_again(header.session, header.sequence, u64::from(header.captured_len));
            reading.data = data;
        }
        self.seal(queue);
        // Segments of a second worker interleave with those of the first.
        if let Some(last) = last.and_then(|last| last.now(self.lists.slot(last.id))) {
            self.lists.sort_after(&mut self.policy.queues[queue].list, last.id);
        }
        Ok(())
    }
}

/// The segment being read, with reusable buffers.
struct Reading {
    /// The stored bytes, compressed or not.
    bytes: Vec<u8>,
    /// The uncompressed stream.
    stream: Vec<u8>,
    /// The records, each with the stream offset of its end.
    records: Vec<(RecordAt, u64)>,
    context: zstd::bulk::Decompressor<'static>,
    data: Vec<u8>,
}

impl Reading {
    /// Decodes and checks all records. Fails if they contradict the metadata.
    fn read(&mut self, left: &SegmentMetadata, ids: &IdMapping) -> io::Result<SegmentView> {
        if left.packed_bytes > 0 {
            let len = self.context.decompress_to_buffer(&self.bytes, &mut self.stream[..left.stream_bytes])?;
            if len != left.stream_bytes {
                return Err(damaged("a compressed segment"));
            }
        } else {
            self.stream[..left.stream_bytes].copy_from_slice(&self.bytes);
        }
        let view = SegmentView::of_stream(left.base, left.stream_bytes as u64);
        self.records.clear();
        let mut cursor = Cursor::new(view);
        let mut before = left.base.sequence;
        while let Some(record) =
            cursor.next(&Stream::Bytes(&self.stream[..left.stream_bytes])).map_err(|_| damaged("a record"))?
        {
            let header = &record.header;
            let follows = self.records.is_empty() || header.sequence > before;
            if !follows || header.captured_len as usize > PACKET_BYTES_MAX {
                return Err(damaged("the order of packets"));
            }
            ids.interface(header.interface)?;
            ids.sequence(header.sequence)?;
            if !ids.has_session(header.session) {
                return Err(damaged("the session of a packet"));
            }
            before = header.sequence;
            self.records.push((record, cursor.offset()));
        }
        if self.records.len() as u64 != left.packets {
            return Err(damaged("the number of packets"));
        }
        Ok(view)
    }

    fn stream_of(&self, view: &SegmentView) -> &[u8] {
        usize::try_from(view.len_bytes).ok().and_then(|len| self.stream.get(..len)).unwrap_or_default()
    }
}
