//! The queues of segments: which there are, and how much memory each has.
//!
//! Each class of sessions has queues of its own. A rank of the *starts* and of the *middle* of sessions has a queue for each
//! flood (see [`judge`](crate::judge)), so that a flood finds its own memory; a rank of *bulk* has one, as nothing but
//! bulk competes there. Beside them are the carried starts of each flood, one queue for each pin, and one for what pins
//! have left behind. [`eviction`](super::eviction) says whose oldest segment goes.

use super::rank::Rank;
use super::retention::Policy;
use super::segment::SegmentId;
use super::{Open, pages::PAGE_BYTES};
use crate::session::SessionMarks;

/// The first kilobyte of sessions: ranks 0 and 1.
const STARTS_RANKS: usize = 2;
/// Beside these, each flood has queues of packets that close sessions, and of important ones.
const STARTS_QUEUES: usize = STARTS_RANKS + 2;
/// From there to 31.5 KiB: ranks 2 to 5. What is deeper is bulk, in one queue: in several, slow ones would lose young packets with
/// old ones, and so shorten the stretch that is whole.
const MIDDLE_RANKS: usize = 4;
const BULK_RANKS: usize = Rank::COUNT - STARTS_RANKS - MIDDLE_RANKS;
/// Queues of a class.
const CLASS_QUEUES: usize = SessionMarks::FLOODS * (STARTS_QUEUES + MIDDLE_RANKS) + BULK_RANKS;

/// Where a packet is to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// What was decided of its session.
    pub marks: SessionMarks,
    /// How deep it lies in it.
    pub rank: Rank,
    /// Whether it is kept otherwise than its rank says.
    pub kept_as: KeptAs,
}

/// What a packet is to its session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeptAs {
    /// A part of it.
    #[default]
    Part,
    /// The packet by which one side closes or resets it.
    Closing,
    /// One that its class says is important.
    Important,
}

impl Place {
    /// A place by rank alone.
    pub fn of(rank: Rank) -> Self {
        Self { marks: SessionMarks::default(), rank, kept_as: KeptAs::Part }
    }
}

/// What competes for memory with its like only, as long as others need theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Band {
    /// The first kilobyte of sessions.
    Starts,
    /// What follows it, up to a few kilobytes.
    Middle,
    /// Everything deeper.
    Bulk,
    /// What classes say is important, whatever its depth.
    Important,
}

impl Band {
    pub(super) const COUNT: usize = 4;

    fn of(rank: Rank) -> Self {
        match rank.index() {
            0..STARTS_RANKS => Self::Starts,
            index if index < STARTS_RANKS + MIDDLE_RANKS => Self::Middle,
            _ => Self::Bulk,
        }
    }
}

/// Which queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct QueueId(usize);

/// What lies in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Packets of one rank; of one flood, where floods are kept apart.
    Ranked { rank: Rank, flood: u8 },
    /// Packets that close sessions.
    Closing { flood: u8 },
    /// Packets that classes say are important.
    Important { flood: u8 },
    /// Starts that were carried forward.
    Heads { flood: u8 },
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
            Self::Closing { .. } | Self::Important { .. } | Self::Heads { .. } => Rank::START,
            Self::Pinned | Self::Released => Rank::START,
        }
    }

    /// Whether all that lies in it are the first packets of sessions.
    pub(super) fn has_starts(self) -> bool {
        matches!(self, Self::Heads { .. } | Self::Ranked { rank: Rank::START, .. })
    }

    pub(super) fn band(self) -> Band {
        match self {
            Self::Ranked { rank, .. } => Band::of(rank),
            Self::Closing { .. } | Self::Heads { .. } | Self::Pinned => Band::Starts,
            Self::Important { .. } => Band::Important,
            Self::Released => Band::Bulk,
        }
    }

    /// The flood that it is of; 0 for none.
    pub(super) fn flood(self) -> usize {
        match self {
            Self::Ranked { flood, .. } | Self::Heads { flood } => usize::from(flood),
            Self::Closing { flood } | Self::Important { flood } => usize::from(flood),
            Self::Pinned | Self::Released => 0,
        }
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
    pub(super) pages: u32,
    /// How much age weighs within its band.
    pub(super) weight: f64,
    class: usize,
}

/// All queues of a store.
#[derive(Debug)]
pub(super) struct Queues {
    queues: Box<[Queue]>,
    /// Pages that each class has, and those that others cannot take from it.
    classes: Box<[(u32, u32)]>,
    /// The class whose queues have the packets of each class. One that is kept like all others has no queues of its own but that of
    /// important packets: queues that fill slowly lose young packets with old ones.
    kept_in: Box<[usize]>,
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
        classes * CLASS_QUEUES + SessionMarks::FLOODS + SessionMarks::PINS + 1
    }

    pub(super) fn new(policy: &Policy, pages: u32) -> Self {
        let weights = policy.weights();
        let count = policy.classes().len() + 1;
        let mut queues = Vec::with_capacity(Self::count(count));
        let queue = |kind, weight, class| Queue { head: None, last: None, open: None, kind, pages: 0, weight, class };
        let mut classes = vec![(0, 0)];
        let mut kept_in = vec![0];
        for terms in policy.classes() {
            let is_plain = terms.reserve_bytes == 0 && terms.weight.to_bits() == 1.0f64.to_bits();
            kept_in.push(if is_plain { 0 } else { kept_in.len() });
            let reserve = u32::try_from(terms.reserve_bytes / PAGE_BYTES as u64).unwrap_or(u32::MAX);
            classes.push((0, reserve.min(pages / 2)));
        }
        for class in 0..count {
            let stays = class.checked_sub(1).map_or(1.0, |class| policy.classes()[class].weight);
            for flood in 0..FLOODS {
                // They go with the first kilobyte, and so before the start: none remains alone.
                queues.push(queue(Kind::Closing { flood }, weights[1] / stays, class));
            }
            for flood in 0..FLOODS {
                queues.push(queue(Kind::Important { flood }, weights[0] / stays, class));
            }
            for rank in Rank::all() {
                for flood in 0..if Band::of(rank) == Band::Bulk { 1 } else { FLOODS } {
                    queues.push(queue(Kind::Ranked { rank, flood }, weights[rank.index()] / stays, class));
                }
            }
        }
        queues.extend((0..FLOODS).map(|flood| queue(Kind::Heads { flood }, weights[0], 0)));
        queues.extend((0..SessionMarks::PINS).map(|_| queue(Kind::Pinned, 0.0, 0)));
        queues.push(queue(Kind::Released, weights[Rank::COUNT - 1], 0));
        Self { queues: queues.into(), classes: classes.into(), kept_in: kept_in.into() }
    }

    /// The queue of packets at a place, pins aside.
    #[inline]
    pub(super) fn at(&self, place: Place) -> QueueId {
        let class = usize::from(place.marks.class).min(self.classes.len() - 1);
        let line = match place.kept_as {
            KeptAs::Closing => 0,
            KeptAs::Important => 1,
            KeptAs::Part => 2 + place.rank.index(),
        };
        let of_class = match line.checked_sub(STARTS_QUEUES + MIDDLE_RANKS) {
            None => line * SessionMarks::FLOODS + usize::from(place.marks.kept_with()),
            Some(deeper) => (STARTS_QUEUES + MIDDLE_RANKS) * SessionMarks::FLOODS + deeper,
        };
        let class = if place.kept_as == KeptAs::Important { class } else { self.kept_in[class] };
        QueueId(class * CLASS_QUEUES + of_class)
    }

    /// The queue of carried starts of a flood.
    pub(super) fn heads(&self, flood: u8) -> QueueId {
        QueueId(self.queues.len() - 1 - SessionMarks::PINS - SessionMarks::FLOODS + usize::from(flood))
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

    /// What a queue is for, in a few numbers: packets by class, flood and rank; carried starts; a pin's; released ones.
    pub(super) fn describe(&self, id: QueueId) -> [u8; 4] {
        let byte = |number: usize| u8::try_from(number).unwrap_or(u8::MAX);
        match self[id].kind {
            Kind::Ranked { rank, flood } => [0, byte(self[id].class), flood, rank.0],
            Kind::Closing { flood } => [4, byte(self[id].class), flood, 0],
            Kind::Important { flood } => [5, byte(self[id].class), flood, 0],
            Kind::Heads { flood } => [1, 0, flood, 0],
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
        self.classes.get(class).map_or(0, |(pages, _)| *pages)
    }

    /// Classes there are, class 0 with them.
    pub(super) fn classes(&self) -> usize {
        self.classes.len()
    }

    /// A queue has taken pages.
    pub(super) fn took(&mut self, id: QueueId, pages: u32) {
        self[id].pages += pages;
        let class = self[id].class;
        self.classes[class].0 += pages;
    }

    /// A queue has given pages back.
    pub(super) fn gave(&mut self, id: QueueId, pages: u32) {
        self[id].pages -= pages;
        let class = self[id].class;
        self.classes[class].0 -= pages;
    }

    /// Whether nobody else can take a queue's memory: a pin's, or that of a class which has no more than its reserve.
    pub(super) fn is_reserved(&self, queue: &Queue) -> bool {
        let (pages, reserve) = self.classes[queue.class];
        queue.kind == Kind::Pinned || (queue.class > 0 && pages <= reserve)
    }
}

#[allow(clippy::cast_possible_truncation, reason = "7 fits")]
const FLOODS: u8 = SessionMarks::FLOODS as u8;

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
