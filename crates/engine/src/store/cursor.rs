//! Cursors over the records of one segment, compressed or not, in the order in which they were written.

use super::pages::{PageId, Pages, Position, SegmentEvicted};
use super::record::{self, HEADER_BYTES_MAX, PACKET_BYTES_MAX, Previous, RecordHeader, RecordOutline, SHORT_BYTES};
use super::segment::{SegmentView, Slot};
use super::unpack::Unpacked;
use base::packet::InterfaceId;

/// Location of a byte in a segment. `position` is its page and is valid only while the segment is uncompressed.
/// `offset` is its distance from the start of the uncompressed stream and is always valid.
#[derive(Clone, Copy, Debug)]
pub(super) struct BytePosition {
    position: Position,
    offset: u64,
}

/// Source of a segment's bytes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stream<'a> {
    /// The segment's own pages, uncompressed.
    Pages(&'a Pages, &'a Slot),
    /// The uncompressed copy that the writer holds.
    Bytes(&'a [u8]),
    /// The uncompressed segments that readers share.
    Unpacked(&'a Unpacked, &'a Pages, &'a Slot),
}

impl Stream<'_> {
    /// Fills `out` with the bytes at `place`. Fails if the segment no longer matches `view`.
    fn read(&self, view: &SegmentView, place: BytePosition, out: &mut [u8]) -> Result<(), SegmentEvicted> {
        match self {
            Stream::Pages(pages, slot) => {
                let mut at = place.position;
                pages.copy_out(&mut at, out)?;
                if slot.is(view.generation) { Ok(()) } else { Err(SegmentEvicted) }
            }
            Stream::Bytes(bytes) => {
                let from = usize::try_from(place.offset).map_err(|_| SegmentEvicted)?;
                let bytes = bytes.get(from..).and_then(|bytes| bytes.get(..out.len())).ok_or(SegmentEvicted)?;
                out.copy_from_slice(bytes);
                Ok(())
            }
            Stream::Unpacked(unpacked, pages, slot) => unpacked.read(pages, slot, view, place.offset, out),
        }
    }

    /// The 16 bytes at `place` as two words, or `None` if they are not contiguous or not at hand.
    #[inline]
    fn peek(&self, view: &SegmentView, place: BytePosition) -> Result<Option<[u64; 2]>, SegmentEvicted> {
        match self {
            Stream::Pages(pages, slot) => {
                let words = pages.peek(place.position);
                if slot.is(view.generation) { Ok(words) } else { Err(SegmentEvicted) }
            }
            Stream::Bytes(bytes) => {
                Ok(usize::try_from(place.offset).ok().and_then(|from| bytes.get(from..)).and_then(words))
            }
            Stream::Unpacked(..) => Ok(None),
        }
    }

    /// Advances `place` by `n` bytes.
    #[inline]
    fn skip(&self, place: &mut BytePosition, n: usize) -> Result<(), SegmentEvicted> {
        place.offset += n as u64;
        match self {
            Stream::Pages(pages, _) => pages.skip(&mut place.position, n),
            Stream::Bytes(_) | Stream::Unpacked(..) => Ok(()),
        }
    }
}

/// The first 16 bytes as two little-endian words.
#[inline]
fn words(bytes: &[u8]) -> Option<[u64; 2]> {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *bytes.first_chunk::<SHORT_BYTES>()?;
    Some([u64::from_le_bytes([a, b, c, d, e, f, g, h]), u64::from_le_bytes([i, j, k, l, m, n, o, p])])
}

/// Iterates over the record outlines that an eviction needs. Only the writer uses it, so no segment disappears while it
/// reads.
#[derive(Debug)]
pub(super) struct RecordOutlines<'a> {
    view: SegmentView,
    stream: &'a Stream<'a>,
    /// The pages of an uncompressed segment.
    pages: Option<&'a Pages>,
    at: BytePosition,
    left: u64,
    sequence: u64,
    /// The last page whose successor was prefetched, or `None` if pages are not prefetched.
    fetched: Option<PageId>,
}

impl<'a> RecordOutlines<'a> {
    /// Prefetch only segments whose records are at most this long on average. An eviction reads only the headers, so in
    /// longer records most fetched bytes would be unused.
    const FETCHED_RECORD_BYTES: u64 = 512;

    pub(super) fn new(view: SegmentView, stream: &'a Stream<'a>) -> Self {
        let at = BytePosition { position: Position { page: view.first_page(), offset: 0 }, offset: 0 };
        let short = view.len_bytes <= view.packets.saturating_mul(Self::FETCHED_RECORD_BYTES);
        let pages = if let Stream::Pages(pages, _) = stream { Some(*pages) } else { None };
        let fetched = (short && pages.is_some()).then_some(PageId(u32::MAX));
        Self { view, stream, pages, at, left: view.len_bytes, sequence: view.base.sequence, fetched }
    }

    /// The next record, or `None` at the end.
    #[inline(always)]
    pub(super) fn next(&mut self) -> Option<RecordOutline> {
        if self.left == 0 {
            return None;
        }
        if self.fetched.is_some_and(|page| page != self.at.position.page) {
            self.fetch_next_page();
        }
        // The segment cannot disappear, so its generation need not be checked.
        let words = match self.pages {
            Some(pages) => pages.peek(self.at.position),
            None => self.stream.peek(&self.view, self.at).ok()?,
        };
        let outline = match words.and_then(|words| record::outline(words, self.sequence)) {
            Some(outline) => outline,
            None => self.long()?,
        };
        let record_bytes = outline.header_bytes + outline.captured_len as usize;
        self.left = self.left.checked_sub(record_bytes as u64)?;
        self.at.offset += record_bytes as u64;
        if let Some(pages) = self.pages {
            pages.skip(&mut self.at.position, record_bytes).ok()?;
        }
        self.sequence = outline.sequence;
        Some(outline)
    }

    /// Prefetches the next page. The start of a record depends on the record before it, so each read would wait
    /// otherwise.
    fn fetch_next_page(&mut self) {
        let page = self.at.position.page;
        self.fetched = Some(page);
        if let Some(pages) = self.pages
            && let Ok(next) = pages.next(page)
        {
            pages.expect(next);
        }
    }

    /// Decodes a header that is long or that crosses the end of a page or segment.
    #[cold]
    fn long(&self) -> Option<RecordOutline> {
        let previous = Previous { sequence: self.sequence, interface: Some(InterfaceId(0)), ..self.view.base };
        let bytes = header_bytes(self.stream, &self.view, self.at, self.left).ok()?;
        let (header, header_bytes) = record::decode(&bytes, &previous)?;
        let RecordHeader { sequence, captured_len, session, .. } = header;
        Some(RecordOutline { sequence, captured_len, session, header_bytes })
    }
}

/// The bytes of a header and those after it, filled with zeros beyond the `left` bytes of the segment.
fn header_bytes(
    stream: &Stream<'_>,
    view: &SegmentView,
    at: BytePosition,
    left: u64,
) -> Result<[u8; HEADER_BYTES_MAX], SegmentEvicted> {
    let mut bytes = [0; HEADER_BYTES_MAX];
    let len = usize::try_from(left).map_or(HEADER_BYTES_MAX, |left| left.min(HEADER_BYTES_MAX));
    stream.read(view, at, &mut bytes[..len])?;
    Ok(bytes)
}

/// Bytes of a compressed segment that a cursor keeps for its next records.
pub const WINDOW_BYTES: usize = 4096;

/// The uncompressed bytes around a reader's position. With it a reader does not access the whole segment for each
/// record, because there can be more readers than shared uncompressed segments.
#[derive(Clone, Debug)]
struct Window {
    from: u64,
    len: usize,
    bytes: [u8; WINDOW_BYTES],
}

impl Window {
    fn get(&self, place: BytePosition, len: usize) -> Option<&[u8]> {
        let from = usize::try_from(place.offset.checked_sub(self.from)?).ok()?;
        self.bytes[..self.len].get(from..from.checked_add(len)?)
    }

    /// Refills the window from `place` on.
    fn fill(&mut self, stream: &Stream<'_>, view: &SegmentView, place: BytePosition) -> Result<(), SegmentEvicted> {
        let left = view.len_bytes.checked_sub(place.offset).ok_or(SegmentEvicted)?;
        self.from = place.offset;
        self.len = 0;
        let len = usize::try_from(left).map_or(WINDOW_BYTES, |left| left.min(WINDOW_BYTES));
        stream.read(view, place, &mut self.bytes[..len])?;
        self.len = len;
        Ok(())
    }
}

/// Reads the records of one segment in the order in which they were written.
#[derive(Clone, Debug)]
pub struct Cursor {
    view: SegmentView,
    at: BytePosition,
    left: u64,
    previous: Previous,
    window: Option<Box<Window>>,
}

/// A record at a cursor's position.
#[derive(Clone, Copy, Debug)]
pub struct RecordAt {
    /// The record's header.
    pub header: RecordHeader,
    /// Start of the packet's bytes.
    data: BytePosition,
}

impl RecordAt {
    /// Placeholder that holds no record.
    pub const EMPTY: Self = Self {
        header: RecordHeader::EMPTY,
        data: BytePosition { position: Position { page: PageId(0), offset: 0 }, offset: 0 },
    };
}

impl Cursor {
    pub(super) fn new(view: SegmentView) -> Self {
        let at = BytePosition { position: Position { page: view.first_page(), offset: 0 }, offset: 0 };
        Self { at, left: view.len_bytes, previous: view.base, view, window: None }
    }

    /// The segment that the cursor reads.
    pub fn segment(&self) -> &SegmentView {
        &self.view
    }

    /// Offset of the next record in the uncompressed segment, in bytes.
    pub(super) fn offset(&self) -> u64 {
        self.at.offset
    }

    /// Gives the cursor a window of [`WINDOW_BYTES`] on a compressed segment. Reads stay fast while many other cursors
    /// are active.
    pub fn keep_window(&mut self) {
        self.window = Some(Box::new(Window { from: 0, len: 0, bytes: [0; WINDOW_BYTES] }));
    }

    /// Drops the window. Returns whether there was one.
    pub fn drop_window(&mut self) -> bool {
        self.window.take().is_some()
    }

    /// Continues at the same offset after the segment was compressed.
    pub(super) fn follow(&mut self, slot: &Slot) -> Result<(), SegmentEvicted> {
        self.view = self.view.follow(slot).ok_or(SegmentEvicted)?;
        Ok(())
    }

    /// Continues with records written since, whether or not the segment was compressed in the meantime.
    pub(super) fn grow(&mut self, slot: &Slot) -> Result<(), SegmentEvicted> {
        self.view = self.view.now(slot).ok_or(SegmentEvicted)?;
        self.left = self.view.len_bytes.checked_sub(self.at.offset).ok_or(SegmentEvicted)?;
        Ok(())
    }

    #[inline]
    pub(super) fn next(&mut self, stream: &Stream<'_>) -> Result<Option<RecordAt>, SegmentEvicted> {
        if self.left == 0 {
            return Ok(None);
        }
        let short = self.peek(stream)?.and_then(|words| record::decode_short(words, &self.previous));
        let (header, header_bytes) = match short {
            Some(header) => header,
            None => self.long_header(stream)?,
        };
        let record_bytes = header_bytes + header.captured_len as usize;
        let left = self.left.checked_sub(record_bytes as u64).ok_or(SegmentEvicted)?;
        self.expect(stream, record_bytes)?;
        let mut data = self.at;
        stream.skip(&mut data, header_bytes)?;
        let mut after = data;
        stream.skip(&mut after, header.captured_len as usize)?;
        self.left = left;
        self.at = after;
        self.previous = header.as_previous();
        Ok(Some(RecordAt { header, data }))
    }

    /// The next 16 bytes as two words, or `None` if they are not at hand.
    #[inline]
    fn peek(&self, stream: &Stream<'_>) -> Result<Option<[u64; 2]>, SegmentEvicted> {
        match (stream, &self.window) {
            (Stream::Unpacked(..), Some(window)) => Ok(window.get(self.at, SHORT_BYTES).and_then(words)),
            _ => stream.peek(&self.view, self.at),
        }
    }

    /// Decodes a header that is long or that crosses the end of a page or window.
    #[cold]
    fn long_header(&mut self, stream: &Stream<'_>) -> Result<(RecordHeader, usize), SegmentEvicted> {
        let bytes = match (stream, &mut self.window) {
            (Stream::Unpacked(..), Some(window)) => {
                let len = usize::try_from(self.left).map_or(HEADER_BYTES_MAX, |left| left.min(HEADER_BYTES_MAX));
                if window.get(self.at, len).is_none() {
                    window.fill(stream, &self.view, self.at)?;
                }
                let mut bytes = [0; HEADER_BYTES_MAX];
                bytes[..len].copy_from_slice(window.get(self.at, len).ok_or(SegmentEvicted)?);
                bytes
            }
            _ => header_bytes(stream, &self.view, self.at, self.left)?,
        };
        record::decode(&bytes, &self.previous).ok_or(SegmentEvicted)
    }

    /// Fills the window if it lacks part of the next `len` bytes and can hold them.
    #[inline]
    fn expect(&mut self, stream: &Stream<'_>, len: usize) -> Result<(), SegmentEvicted> {
        if let (Stream::Unpacked(..), Some(window)) = (stream, &mut self.window)
            && len <= WINDOW_BYTES
            && window.get(self.at, len).is_none()
        {
            window.fill(stream, &self.view, self.at)?;
        }
        Ok(())
    }

    /// Puts the packet's bytes into `out` and keeps its capacity. `view` is the current state of the segment.
    pub(super) fn data(
        &self,
        stream: &Stream<'_>,
        view: &SegmentView,
        record: &RecordAt,
        out: &mut Vec<u8>,
    ) -> Result<(), SegmentEvicted> {
        let len = (record.header.captured_len as usize).min(PACKET_BYTES_MAX);
        out.clear();
        if let Some(bytes) = self.window.as_ref().and_then(|window| window.get(record.data, len)) {
            out.extend_from_slice(bytes);
            return Ok(());
        }
        out.resize(len, 0);
        stream.read(view, record.data, out)
    }
}
