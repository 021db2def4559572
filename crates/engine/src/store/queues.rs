//! The queues of segments, and the memory that each of them has.
//!
//! Each class of sessions has its own queues. A rank of the *starts* or of the *middle* of sessions has a queue for
//! each flood (see [`judge`](crate::judge)), so that eviction can take memory from the flood itself. A rank of *bulk*
//! has one queue for all floods, because only bulk competes there. In addition there are a queue of carried starts
//! for each flood, a queue for each pin, and a queue for packets of ended pins. [`eviction`](super::eviction) selects
//! the queue that loses its oldest segment.

use super::list::List;
use super::open::OpenSegment;
use super::pages::PAGE_BYTES;
use super::rank::Rank;
use super::retention::Policy;

use crate::session::{SessionMarks, SessionSlot};

/// Ranks of the first 1.5 KiB of sessions: 0 and 1.
const STARTS_RANKS: usize = 2;
/// Per flood: the queues of these ranks, one of closing packets, and one of important packets.
const STARTS_QUEUES: usize = STARTS_RANKS + 2;
/// Ranks from 1.5 KiB to 31.5 KiB: 2 to 5. Deeper packets are bulk, in one queue. In several queues, those that fill
/// slowly would lose young packets together with old ones, which would shorten the period for which all packets are
/// present.
const MIDDLE_RANKS: usize = 4;
const BULK_RANKS: usize = Rank::COUNT - STARTS_RANKS - MIDDLE_RANKS;
/// Number of queues of a class.
const CLASS_QUEUES: usize = SessionMarks::FLOODS * (STARTS_QUEUES + MIDDLE_RANKS + BULK_RANKS);

/// Determines the queue of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The marks of its session.
    pub marks: SessionMarks,
    /// The depth of the packet in its session.
    pub rank: Rank,
    /// Whether the packet has a queue other than that of its rank.
    pub kept_as: PacketRole,
    /// For bulk of a session that alone has filled much of the memory: a number from 1 to
    /// [`ELEPHANTS`](Self::ELEPHANTS). 0 for all others.
    pub elephant: u8,
}

/// The role of a packet in its session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PacketRole {
    /// A packet without a special role.
    #[default]
    Part,
    /// The packet by which one side closes or resets the session.
    Closing,
    /// A packet that the class of the session marks as important.
    Important,
}

impl Placement {
    /// A place that depends on the rank only: no class, no flood, no pin.
    pub fn of(rank: Rank) -> Self {
        Self { marks: SessionMarks::default(), rank, kept_as: PacketRole::Part, elephant: 0 }
    }

    /// Number of queues of elephants.
    pub const ELEPHANTS: u8 = FLOODS - 1;

    /// The queue of a session that is an elephant.
    #[allow(clippy::cast_possible_truncation, reason = "less than the number of queues")]
    pub fn elephant_of(session: SessionSlot) -> u8 {
        1 + (session.0 % u32::from(Self::ELEPHANTS)) as u8
    }
}

/// Packets of similar depth. They compete for memory only among themselves while other bands use their shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Band {
    /// The first 1.5 KiB of sessions.
    Starts,
    /// From there to 31.5 KiB.
    Middle,
    /// Everything deeper.
    Bulk,
    /// Packets that classes mark as important, at any depth.
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

/// The index of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct QueueId(usize);

/// The content of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Packets of one rank; where floods are separated, also of one flood.
    Ranked { rank: Rank, flood: u8 },
    /// Packets that close sessions.
    Closing { flood: u8 },
    /// Packets that classes mark as important.
    Important { flood: u8 },
    /// Starts of sessions that were carried forward.
    Heads { flood: u8 },
    /// Packets of sessions that an active pin protects.
    Pinned,
    /// Packets of pins that have ended.
    Released,
}

impl Kind {
    /// The rank that readers see.
    pub(super) fn rank(self) -> Rank {
        match self {
            Self::Ranked { rank, .. } => rank,
            Self::Closing { .. } | Self::Important { .. } | Self::Heads { .. } => Rank::START,
            Self::Pinned | Self::Released => Rank::START,
        }
    }

    /// Whether all packets in the queue are among the first of their sessions.
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

    /// The flood number; 0 for none.
    pub(super) fn flood(self) -> usize {
        match self {
            Self::Ranked { flood, .. } | Self::Heads { flood } => usize::from(flood),
            Self::Closing { flood } | Self::Important { flood } => usize::from(flood),
            Self::Pinned | Self::Released => 0,
        }
    }
}

/// The segments of one kind, oldest first.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) list: List,
    pub(super) open: Option<OpenSegment>,
    pub(super) kind: Kind,
    /// Pages of all its segments.
    pub(super) pages: u32,
    /// The factor that is multiplied by age to give the score within the band.
    pub(super) weight: f64,
    class: usize,
}

/// All queues of a store.
#[derive(Debug)]
pub(super) struct Queues {
    queues: Box<[Queue]>,
    /// For each class: the pages it has, and the reserved pages that others cannot take.
    classes: Box<[(u32, u32)]>,
    /// For each class: the class whose queues hold its packets. A class of weight 1 without a reserve uses those of
    /// class 0, except for important packets, because queues that fill slowly lose young packets together with old
    /// ones.
    kept_in: Box<[usize]>,
}

impl Queues {
    /// Applies the weights of another policy with the same number of classes.
    pub(super) fn set_policy(&mut self, policy: &Policy) {
        for (queue, other) in self.queues.iter_mut().zip(Self::new(policy, 0).queues) {
            queue.weight = other.weight;
        }
    }

    /// Bytes of memory that the queues for `policy` take.
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
        let queue = |kind, weight, class| Queue { list: List::default(), open: None, kind, pages: 0, weight, class };
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
                // Closing packets have the weight of rank 1, so they are evicted before the start of their session and
                // never remain alone.
                queues.push(queue(Kind::Closing { flood }, weights[1] / stays, class));
            }
            for flood in 0..FLOODS {
                queues.push(queue(Kind::Important { flood }, weights[0] / stays, class));
            }
            for rank in Rank::all() {
                for flood in 0..FLOODS {
                    queues.push(queue(Kind::Ranked { rank, flood }, weights[rank.index()] / stays, class));
                }
            }
        }
        queues.extend((0..FLOODS).map(|flood| queue(Kind::Heads { flood }, weights[0], 0)));
        queues.extend((0..SessionMarks::PINS).map(|_| queue(Kind::Pinned, 0.0, 0)));
        queues.push(queue(Kind::Released, weights[Rank::COUNT - 1], 0));
        Self { queues: queues.into(), classes: classes.into(), kept_in: kept_in.into() }
    }

    /// The queue of packets at a place, without regard to pins.
    #[inline]
    pub(super) fn at(&self, place: Placement) -> QueueId {
        let class = usize::from(place.marks.class).min(self.classes.len() - 1);
        let line = match place.kept_as {
            PacketRole::Closing => 0,
            PacketRole::Important => 1,
            PacketRole::Part => 2 + place.rank.index(),
        };
        let group = if line >= STARTS_QUEUES + MIDDLE_RANKS { place.elephant } else { place.marks.kept_with() };
        let of_class = line * SessionMarks::FLOODS + usize::from(group);
        let class = if place.kept_as == PacketRole::Important { class } else { self.kept_in[class] };
        QueueId(class * CLASS_QUEUES + of_class)
    }

    /// The queue of carried starts of a flood.
    pub(super) fn heads(&self, flood: u8) -> QueueId {
        QueueId(self.queues.len() - 1 - SessionMarks::PINS - SessionMarks::FLOODS + usize::from(flood))
    }

    /// The queue of the pin with this place.
    pub(super) fn pinned(&self, place: usize) -> QueueId {
        QueueId(self.queues.len() - 1 - SessionMarks::PINS + place.min(SessionMarks::PINS - 1))
    }

    /// The queue of packets of ended pins.
    pub(super) fn released(&self) -> QueueId {
        QueueId(self.queues.len() - 1)
    }

    /// All queues.
    pub(super) fn iter(&self) -> impl Iterator<Item = (QueueId, &Queue)> {
        self.queues.iter().enumerate().map(|(at, queue)| (QueueId(at), queue))
    }

    /// Describes a queue by four numbers: its kind; its class, or the place of its pin; its flood; its rank. 0 stands
    /// for a number that does not apply.
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

    /// Pages of all pins together.
    pub(super) fn pinned_pages(&self) -> u32 {
        (0..SessionMarks::PINS).map(|place| self[self.pinned(place)].pages).sum()
    }

    /// Pages of a queue.
    pub(super) fn pages(&self, id: QueueId) -> u32 {
        self[id].pages
    }

    /// Pages of a class.
    pub(super) fn class_pages(&self, class: usize) -> u32 {
        self.classes.get(class).map_or(0, |(pages, _)| *pages)
    }

    /// Number of classes, including class 0.
    pub(super) fn classes(&self) -> usize {
        self.classes.len()
    }

    /// Adds `pages` to a queue and its class.
    pub(super) fn took(&mut self, id: QueueId, pages: u32) {
        self[id].pages += pages;
        let class = self[id].class;
        self.classes[class].0 += pages;
    }

    /// Subtracts `pages` from a queue and its class.
    pub(super) fn gave(&mut self, id: QueueId, pages: u32) {
        self[id].pages -= pages;
        let class = self[id].class;
        self.classes[class].0 -= pages;
    }

    /// Whether others cannot take the memory of a queue: it belongs to a pin, or to a class within its reserve.
    pub(super) fn is_reserved(&self, queue: &Queue) -> bool {
        let (pages, reserve) = self.classes[queue.class];
        queue.kind == Kind::Pinned || (queue.class > 0 && pages <= reserve)
    }
}

#[allow(clippy::cast_possible_truncation, reason = "7 fits")]
const FLOODS: u8 = SessionMarks::FLOODS as u8;

impl QueueId {
    /// The index of the queue in its store.
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
