//! The rules of eviction: which segment goes next.

use super::fifo::{ELEPHANT_SHARE, PLENTY_BULK_SHARE, STARTS_FIFOS};
use super::kept::Oracle;
use super::segments::{Band, PAGE, Queue, Segment};

impl Oracle {
    /// Whether a queue is protected: pins always, classes up to their reserve.
    fn is_reserved(&self, queue: Queue) -> bool {
        let Queue::Ranked { class: mine @ 1.., .. } = queue else { return matches!(queue, Queue::Pinned(_)) };
        let reserve = self.classes[usize::from(mine) - 1].reserve;
        let reserve = (usize::try_from(reserve).unwrap() / PAGE).min(self.pages / 2);
        self.pages_where(|queue| matches!(queue, Queue::Ranked { class, .. } if class == mine)) <= reserve
    }

    fn score(&self, at: usize) -> f64 {
        let segment = &self.segments[at];
        #[allow(clippy::cast_precision_loss, reason = "as the rule is written")]
        let age = (self.ticks - segment.opened_ticks) as f64;
        (age + 1.0) * self.weight(segment.queue)
    }

    /// The oldest segment of each queue from which segments may be evicted. The only segment of a queue of starts is not
    /// among them while it is small.
    fn candidates(&self) -> Vec<usize> {
        let mut heads: Vec<usize> = Vec::new();
        for (at, segment) in self.segments.iter().enumerate() {
            if heads.iter().all(|&head| self.segments[head].queue != segment.queue) {
                heads.push(at);
            }
        }
        heads.sort_by_key(|&at| self.segments[at].queue);
        let is_small = |at: usize| self.is_halved(at) && self.segments[at].pages() < 3;
        let is_free = |at: usize| !self.is_reserved(self.segments[at].queue) && !is_small(at);
        let free: Vec<usize> = heads.iter().copied().filter(|&at| is_free(at)).collect();
        if free.is_empty() { heads } else { free }
    }

    /// Whether only the older half of a segment is evicted: it holds starts outside floods and is the only one of its queue.
    fn is_halved(&self, at: usize) -> bool {
        let queue = self.segments[at].queue;
        matches!(queue, Queue::Ranked { line: 2..=3, flood: 0, .. })
            && self.segments.iter().filter(|other| other.queue == queue).count() == 1
    }

    /// The index of the first record in the younger half of a segment's bytes.
    fn younger_half(&self, at: usize) -> usize {
        let segment = &self.segments[at];
        let mut start = Segment { records: Vec::new(), bytes: 0, ..segment.clone() };
        let older = segment.records.iter().take_while(|record| {
            let is_older = start.bytes < segment.bytes / 2;
            start.push((*record).clone());
            is_older
        });
        older.count()
    }

    /// The candidate of a band that is evicted first. Floods go first if they hold more than half of the starts or of the
    /// middle; otherwise the segment with the highest score goes.
    fn next(&self, candidates: &[usize], band: Band) -> Option<usize> {
        let of = |at: usize| self.segments[at].queue;
        let among = candidates.iter().copied().filter(|&at| of(at).band() == band);
        let pages_of_flood =
            |flood: u8| self.pages_of(candidates, &|queue| queue.band() == band && queue.flood() == flood);
        let floods: usize = (1..8).map(pages_of_flood).sum();
        if band != Band::Bulk && floods > (pages_of_flood(0) + floods) / 2 {
            let most = (1..8).map(pages_of_flood).max().unwrap();
            let largest = (1..8).find(|&flood| pages_of_flood(flood) == most).unwrap();
            return self.highest(among.filter(|&at| of(at).flood() == largest));
        }
        self.highest(among)
    }

    /// The segment with the highest score. Ties are broken in the order of floods.
    fn highest(&self, among: impl Iterator<Item = usize>) -> Option<usize> {
        let mut among: Vec<usize> = among.collect();
        among.sort_by_key(|&at| self.segments[at].queue.flood());
        let highest = among.iter().map(|&at| self.score(at)).fold(f64::MIN, f64::max);
        among.into_iter().find(|&at| self.score(at) >= highest)
    }

    fn pages_of(&self, candidates: &[usize], wanted: &dyn Fn(Queue) -> bool) -> usize {
        let queues = candidates.iter().map(|&at| self.segments[at].queue).filter(|&queue| wanted(queue));
        queues.map(|queue| self.pages_where(|other| other == queue)).sum()
    }

    /// Shares of the middle and of bulk in pages.
    fn shares(&self) -> [usize; 2] {
        let [middle, bulk] = self.policy.share_pages(u32::try_from(self.pages).unwrap()).map(|pages| pages as usize);
        [middle, if self.plenty { bulk.max(self.pages / PLENTY_BULK_SHARE) } else { bulk }]
    }

    /// Notes how far starts reach.
    fn look_at_starts(&mut self, candidates: &[usize]) {
        let Some(next) = self.next(candidates, Band::Starts) else { return };
        let starts = candidates.iter().filter(|&&at| self.segments[at].queue.band() == Band::Starts);
        let opened = starts.map(|&at| self.segments[at].opened_ticks).min().unwrap();
        self.fifo.oldest_start = self.ticks - opened;
        self.plenty = self.fifo.mean > 0.0 && self.score(next) > self.fifo.mean * STARTS_FIFOS;
    }

    /// The segment to evict next. Elephants above their share come first, then bulk above its share, then the middle
    /// above its share, then starts. A segment that lies deeper goes instead if it is older than the newest packet of
    /// the chosen one. Also returns the first record that stays, if only the older half of the segment is evicted.
    pub(crate) fn victim(&mut self) -> Option<(usize, Option<usize>)> {
        let candidates = self.candidates();
        let victim = self.whole_victim(&candidates)?;
        if !self.is_halved(victim) {
            return Some((victim, None));
        }
        let younger = self.younger_half(victim);
        let until = self.ticks_of(victim, &self.segments[victim].records[younger - 1]);
        match self.deeper(&candidates, Band::Starts, until) {
            Some(deeper) => Some((deeper, None)),
            None => Some((victim, Some(younger))),
        }
    }

    /// The oldest candidate that is deeper than `band` and was opened before `until`.
    fn deeper(&self, candidates: &[usize], band: Band, until: u64) -> Option<usize> {
        let of = |at: usize| self.segments[at].queue;
        let opened = |at: usize| self.segments[at].opened_ticks;
        let deeper = candidates.iter().copied().filter(|&at| of(at).band() > band && opened(at) < until);
        deeper.min_by_key(|&at| (opened(at), of(at).band(), of(at).flood(), of(at)))
    }

    fn whole_victim(&mut self, candidates: &[usize]) -> Option<usize> {
        self.look_at_starts(candidates);
        let of = |at: usize| self.segments[at].queue;
        let of_elephant = |elephant: u8| move |queue: Queue| queue.band() == Band::Bulk && queue.flood() == elephant;
        let share = self.pages / ELEPHANT_SHARE;
        if let Some(elephant) = (1..8).find(|&elephant| self.pages_of(candidates, &of_elephant(elephant)) > share) {
            return self.highest(candidates.iter().copied().filter(|&at| of_elephant(elephant)(of(at))));
        }
        let [middle, bulk] = self.shares();
        let next = |band: Band| self.next(candidates, band);
        let over = |band: Band, share: usize| self.pages_of(candidates, &|queue| queue.band() == band) > share;
        let victim = if over(Band::Bulk, bulk) {
            next(Band::Bulk)
        } else if over(Band::Middle, middle) {
            next(Band::Middle)
        } else {
            next(Band::Starts).or_else(|| next(Band::Middle)).or_else(|| next(Band::Bulk))
        }?;
        let band = of(victim).band();
        let pages_of_flood =
            |flood: u8| self.pages_of(candidates, &|queue| queue.band() == band && queue.flood() == flood);
        let (others, floods) = (pages_of_flood(0), (1..8).map(pages_of_flood).sum::<usize>());
        // Others whose only segments are still being filled need no room.
        let is_sealed = |queue: Queue| self.segments.iter().filter(|segment| segment.queue == queue).count() > 1;
        let sealed = self.pages_of(candidates, &|queue| queue.band() == band && queue.flood() == 0 && is_sealed(queue));
        let bounded = band != Band::Bulk && floods > (others + floods) / 2 && sealed > floods / 16;
        if of(victim).flood() > 0 && bounded {
            return Some(victim);
        }
        Some(self.deeper(candidates, band, self.newest_ticks(victim)).unwrap_or(victim))
    }

    /// Upper bound of the time at which the newest packet of a segment arrived: when the next one of its queue was
    /// opened. For the last segment of a queue and for carried starts, it is when the segment itself was opened.
    fn newest_ticks(&self, at: usize) -> u64 {
        let segment = &self.segments[at];
        let after = self.segments[at + 1..].iter().find(|other| other.queue == segment.queue);
        match (segment.queue, after) {
            (Queue::Ranked { line, .. }, Some(after)) if line >= 2 => after.opened_ticks,
            _ => segment.opened_ticks,
        }
    }

    /// Checks promise 6 over all segments. When the start of a session outside floods is evicted, no deeper segment is
    /// older than any packet that goes, and bulk holds at most its share. Segments of classes with a reserve and of pins are excepted.
    pub(crate) fn check_rule(&self, victim: usize, younger: Option<usize>) {
        let segment = &self.segments[victim];
        if segment.queue.band() != Band::Starts || segment.queue.flood() > 0 || self.is_reserved(segment.queue) {
            return;
        }
        let others = self.segments.iter().filter(|other| !self.is_reserved(other.queue));
        // Released segments can be of any age.
        let deeper = others.filter(|other| other.queue.band() > Band::Starts && other.queue != Queue::Released);
        let oldest = deeper.clone().map(|other| other.opened_ticks).min();
        let last = younger.map(|younger| self.ticks_of(victim, &segment.records[younger - 1]));
        let newest = last.unwrap_or(self.newest_ticks(victim));
        assert!(oldest.is_none_or(|oldest| oldest >= newest), "bulk outlives {:?}", segment.queue);
        let bulk: usize = deeper.filter(|other| other.queue.band() == Band::Bulk).map(Segment::pages).sum();
        let [_, share] = self.shares();
        assert!(bulk <= share, "bulk has {bulk} pages of {share}");
    }
}
