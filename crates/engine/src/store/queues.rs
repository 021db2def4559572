//! The queues of segments: which there are, what they weigh, and whose memory they are.
//!
//! Each class of sessions has a queue for each rank and each step of climbing (see [`judge`](crate::judge)); beside them are the
//! queue of carried starts, one for each pin, and one for what pins have left behind. What makes room is the head of the
//! queue where `age × weight` is highest. Memory is also counted to *guards*: as long as a guard has no more than its floor,
//! its queues are passed over. The starts of sessions are guarded as a whole, so that no elephant, however fast, can take
//! them; and each class that has a reserve.

use super::rank::Rank;
use super::retention::Policy;
use super::segment::SegmentId;
use super::{Open, pages::PAGE_BYTES};
use crate::session::SessionMarks;

/// How much more age weighs with each step of climbing.
const STEP_FACTOR: f64 = 16.0;
/// The part of the store, in percent, that the starts of sessions keep whatever else arrives: ranks 0 and 1, and carried starts.
const STARTS_FLOOR_PERCENT: u64 = 50;
/// Ranks that are starts in this sense: the first 1,536 bytes of a session. One guard for both, or else the deeper one
/// could outlive the other.
const STARTS_RANKS: usize = 2;

/// Where a packet is to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// What was decided of its session.
    pub marks: SessionMarks,
    /// How deep it lies in it.
    pub rank: Rank,
}

impl Place {
    /// A place by rank alone.
    pub fn of(rank: Rank) -> Self {
        Self { marks: SessionMarks::default(), rank }
    }
}

/// Which queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct QueueId(usize);

/// What lies in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Packets of one rank.
    Ranked { rank: Rank, climb: u8 },
    /// Starts that were carried forward.
    Heads,
    /// Whole sessions, as long as a pin holds.
    Pinned,
    /// What a pin has held.
    Released,
}

impl Kind {
    /// The rank that readers are told.
    pub(super) fn rank(self) -> Rank {
        match self {
            Self::Ranked { rank, .. } => rank,
            Self::Heads | Self::Pinned | Self::Released => Rank::START,
        }
    }

    /// Whether all that lies in it are starts of sessions which were not pushed down.
    pub(super) fn has_starts(self) -> bool {
        matches!(self, Self::Heads | Self::Ranked { rank: Rank::START, climb: 0 })
    }
}

/// The segments of one kind, oldest first, linked through `Store::following`.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) head: Option<SegmentId>,
    pub(super) last: Option<SegmentId>,
    pub(super) open: Option<Open>,
    pub(super) kind: Kind,
    /// Pages of all its segments.
    pages: u32,
    pub(super) weight: f64,
    guards: [usize; 2],
}

/// Memory that others cannot take as long as it is no more than its floor.
#[derive(Clone, Copy, Debug)]
struct Guard {
    pages: u32,
    floor_pages: u32,
}

/// The guard of queues that have none.
const NONE: usize = 0;
/// The guard of starts.
const STARTS: usize = 1;
/// The guard of class 0; those of others follow.
const CLASSES: usize = STARTS + 1;

/// All queues of a store.
#[derive(Debug)]
pub(super) struct Queues {
    queues: Box<[Queue]>,
    guards: Box<[Guard]>,
    classes: usize,
}

impl Queues {
    /// Weighs by another policy with as many classes.
    pub(super) fn set_policy(&mut self, policy: &Policy) {
        for (queue, other) in self.queues.iter_mut().zip(Self::new(policy, 0).queues) {
            queue.weight = other.weight;
        }
    }

    /// Bytes that the queues for this policy take.
    pub(super) fn bytes(policy: &Policy) -> u64 {
        (Self::count(policy.classes().len() + 1) * size_of::<Queue>()) as u64
    }

    fn count(classes: usize) -> usize {
        classes * SessionMarks::CLIMBS * Rank::COUNT + 1 + SessionMarks::PINS + 1
    }

    pub(super) fn new(policy: &Policy, pages: u32) -> Self {
        let classes = policy.classes().len() + 1;
        let share = |percent: u64| u32::try_from(u64::from(pages) * percent / 100).unwrap_or(0);
        let mut guards = vec![Guard { pages: u32::MAX, floor_pages: 0 }];
        guards.push(Guard { pages: 0, floor_pages: share(STARTS_FLOOR_PERCENT) });
        guards.push(Guard { pages: 0, floor_pages: 0 });
        for terms in policy.classes() {
            let floor = u32::try_from(terms.reserve_bytes / PAGE_BYTES as u64).unwrap_or(u32::MAX).min(pages / 2);
            guards.push(Guard { pages: 0, floor_pages: floor });
        }
        let weights = policy.weights();
        let mut queues = Vec::with_capacity(Self::count(classes));
        let queue = |kind, weight, guards| Queue { head: None, last: None, open: None, kind, pages: 0, weight, guards };
        for class in 0..classes {
            let stays = class.checked_sub(1).map_or(1.0, |class| policy.classes()[class].weight);
            for climb in 0u8.. {
                if usize::from(climb) == SessionMarks::CLIMBS {
                    break;
                }
                let step = STEP_FACTOR.powi(i32::from(climb));
                for rank in Rank::all() {
                    let guard = if climb == 0 && rank.index() < STARTS_RANKS { STARTS } else { NONE };
                    let kind = Kind::Ranked { rank, climb };
                    queues.push(queue(kind, weights[rank.index()] * step / stays, [guard, CLASSES + class]));
                }
            }
        }
        // Carried starts count twice: each time one is evicted is a chance to find out that nothing else is left of its session.
        queues.push(queue(Kind::Heads, 2.0 * weights[0], [STARTS, NONE]));
        for _ in 0..SessionMarks::PINS {
            queues.push(queue(Kind::Pinned, 0.0, [NONE, NONE]));
        }
        queues.push(queue(Kind::Released, weights[Rank::COUNT - 1], [NONE, NONE]));
        Self { queues: queues.into(), guards: guards.into(), classes }
    }

    /// The queue of packets at a place, pins aside.
    pub(super) fn at(&self, place: Place) -> QueueId {
        let class = usize::from(place.marks.class).min(self.classes - 1);
        let climb = usize::from(place.marks.climb).min(SessionMarks::CLIMBS - 1);
        QueueId((class * SessionMarks::CLIMBS + climb) * Rank::COUNT + place.rank.index())
    }

    /// The queue of carried starts.
    pub(super) fn heads(&self) -> QueueId {
        QueueId(self.queues.len() - 2 - SessionMarks::PINS)
    }

    /// The queue of the pin that has this place.
    pub(super) fn pinned(&self, place: usize) -> QueueId {
        QueueId(self.queues.len() - 1 - SessionMarks::PINS + place.min(SessionMarks::PINS - 1))
    }

    /// The queue of what pins have left behind.
    pub(super) fn released(&self) -> QueueId {
        QueueId(self.queues.len() - 1)
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = (QueueId, &Queue)> {
        self.queues.iter().enumerate().map(|(at, queue)| (QueueId(at), queue))
    }

    /// What a queue is for, in a few numbers: packets by class, step and rank; carried starts; a pin's; released ones.
    pub(super) fn describe(&self, id: QueueId) -> [u8; 4] {
        let byte = |number: usize| u8::try_from(number).unwrap_or(u8::MAX);
        match self[id].kind {
            Kind::Ranked { rank, climb } => [0, byte(id.0 / (SessionMarks::CLIMBS * Rank::COUNT)), climb, rank.0],
            Kind::Heads => [1, 0, 0, 0],
            Kind::Pinned => [2, byte(id.0 - self.pinned(0).0), 0, 0],
            Kind::Released => [3, 0, 0, 0],
        }
    }

    /// Pages that all pins together have.
    pub(super) fn pinned_pages(&self) -> u32 {
        (0..SessionMarks::PINS).map(|place| self[self.pinned(place)].pages).sum()
    }

    /// Pages of a queue.
    pub(super) fn pages(&self, id: QueueId) -> u32 {
        self[id].pages
    }

    /// Pages that a class has.
    pub(super) fn class_pages(&self, class: usize) -> u32 {
        let from = class * SessionMarks::CLIMBS * Rank::COUNT;
        self.queues[from..from + SessionMarks::CLIMBS * Rank::COUNT].iter().map(|queue| queue.pages).sum()
    }

    /// Classes there are, class 0 with them.
    pub(super) fn classes(&self) -> usize {
        self.classes
    }

    /// A queue has taken pages.
    pub(super) fn took(&mut self, id: QueueId, pages: u32) {
        self[id].pages += pages;
        for guard in self[id].guards {
            let guard = &mut self.guards[guard];
            guard.pages = guard.pages.saturating_add(pages);
        }
    }

    /// A queue has given pages back.
    pub(super) fn gave(&mut self, id: QueueId, pages: u32) {
        self[id].pages -= pages;
        for at in self[id].guards {
            if at != NONE {
                self.guards[at].pages -= pages;
            }
        }
    }

    /// The queue whose head counts least, by the ages that `age_ns` tells of heads; `None` when all are empty.
    pub(super) fn victim(&self, age_ns: impl Fn(SegmentId) -> u64) -> Option<(QueueId, SegmentId)> {
        // Floors are less than the whole, so something lies above them, unless it is all in pins and reserves.
        self.highest(&age_ns, |queue| !self.is_guarded(queue)).or_else(|| self.highest(&age_ns, |_| true))
    }

    fn highest(&self, age_ns: impl Fn(SegmentId) -> u64, may: impl Fn(&Queue) -> bool) -> Option<(QueueId, SegmentId)> {
        let mut victim = None;
        let mut highest = -1.0;
        for (at, queue) in self.queues.iter().enumerate() {
            let Some(head) = queue.head else { continue };
            #[allow(clippy::cast_precision_loss, reason = "ages are compared, not counted")]
            let score = (age_ns(head) as f64 + 1.0) * queue.weight;
            if score > highest && may(queue) {
                highest = score;
                victim = Some((QueueId(at), head));
            }
        }
        victim
    }

    fn is_guarded(&self, queue: &Queue) -> bool {
        queue.kind == Kind::Pinned
            || queue.guards.iter().any(|&at| self.guards[at].pages <= self.guards[at].floor_pages)
    }
}

impl QueueId {
    /// Its place among all queues of a store.
    pub(super) fn index(self) -> usize {
        self.0
    }
}

impl std::ops::Index<QueueId> for Queues {
    type Output = Queue;

    fn index(&self, id: QueueId) -> &Queue {
        &self.queues[id.0]
    }
}

impl std::ops::IndexMut<QueueId> for Queues {
    fn index_mut(&mut self, id: QueueId) -> &mut Queue {
        &mut self.queues[id.0]
    }
}
