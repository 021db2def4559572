//! The table of interfaces: name, link type and state of each interface that packets came from.
//!
//! Sources add to it, exports and the status read it. It has [`Interfaces::CAPACITY`] entries. An entry keeps its meaning
//! while packets of it may be kept: an interface that was renamed, or whose link type changed, gets a new entry, so that older
//! packets keep the name they were captured under. Entries of interfaces that are gone, and of which no packet is left, are
//! [freed](Interfaces::free) and used again.
//!
//! The table also remembers when an interface was down or gone, because nothing was recorded from it then.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::packet::{InterfaceId, LinkType};
use crate::time::Timestamp;

/// What is known of one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its slot.
    pub id: InterfaceId,
    /// Name as the operating system or the capture file gives it; empty where a file has none.
    pub name: String,
    /// The operating system's index, 0 for interfaces of capture files.
    pub index: u32,
    /// Link type of its packets.
    pub link_type: LinkType,
    /// Description, where the source has one.
    pub description: Option<String>,
    /// Operating system of the capturing host, where the source says so.
    pub os: Option<String>,
    /// Whether it is there and up.
    pub up: bool,
    /// When it vanished or was renamed; `None` while it is there.
    pub gone: Option<Timestamp>,
    /// When this entry began to mean this interface; 0 if it never meant another.
    pub since: Timestamp,
}

/// Why nothing came from an interface for a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GapReason {
    /// It was down.
    Down,
    /// It was removed from the host.
    Gone,
    /// It has another name since; its packets are recorded under that.
    Renamed(String),
}

/// A time in which nothing could be recorded from an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceGap {
    /// The interface's name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// When it began.
    pub from: Timestamp,
    /// When it ended; `None` while it lasts.
    pub until: Option<Timestamp>,
    /// Why.
    pub reason: GapReason,
}

/// What became of an interface, as the operating system reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// It is there and up.
    Up,
    /// It is there and down.
    Down,
    /// It is not there any more.
    Gone,
}

/// A change that somebody should read of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkChange {
    /// A gap has begun.
    Began(InterfaceGap),
    /// A gap has ended.
    Ended(InterfaceGap),
}

/// All interfaces seen so far, shared by sources and readers.
#[derive(Debug, Default)]
pub struct Interfaces {
    state: Mutex<State>,
    /// Grows when an entry gets another meaning.
    generation: AtomicU64,
    /// Interfaces for which there was no entry.
    refused: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    entries: Vec<Arc<Interface>>,
    /// Slots that are free to mean another interface.
    free: Vec<InterfaceId>,
    gaps: VecDeque<InterfaceGap>,
}

impl Interfaces {
    /// How many entries there are at most.
    pub const CAPACITY: usize = 4096;
    /// Gaps that are remembered; the oldest are forgotten first.
    pub const GAPS_MAX: usize = 1024;
    /// An interface must be gone for this long before its entry is used again: packets of it may still be on their way.
    pub const GONE_BEFORE_REUSE: Duration = Duration::from_secs(30);

    /// The slot of an interface with this name, index and link type, made when there is none.
    ///
    /// `None` when the table is full.
    pub fn intern(&self, name: &str, index: u32, link_type: LinkType) -> Option<InterfaceId> {
        self.intern_with(name, index, link_type, |_| {})
    }

    /// As [`intern`](Self::intern); `describe` fills in the rest when the entry is new.
    pub fn intern_with(
        &self,
        name: &str,
        index: u32,
        link_type: LinkType,
        describe: impl FnOnce(&mut Interface),
    ) -> Option<InterfaceId> {
        let mut state = self.lock();
        let is_it = |i: &Arc<Interface>| i.index == index && i.link_type == link_type && i.name == name;
        if let Some(known) = state.entries.iter_mut().find(|i| is_it(i)) {
            let id = known.id;
            if known.gone.is_some() && index != 0 {
                Arc::make_mut(known).gone = None;
            }
            state.free.retain(|free| *free != id);
            return Some(id);
        }
        let mut interface = Interface {
            id: InterfaceId(0),
            name: name.to_owned(),
            index,
            link_type,
            description: None,
            os: None,
            up: true,
            gone: None,
            since: Timestamp::MIN,
        };
        if state.entries.len() < Self::CAPACITY {
            interface.id = InterfaceId(u16::try_from(state.entries.len()).ok()?);
            describe(&mut interface);
            state.entries.push(Arc::new(interface));
            return state.entries.last().map(|entry| entry.id);
        }
        let id = state.free.pop()?;
        let entry = state.entries.get_mut(usize::from(id.0))?;
        interface.id = id;
        interface.since = entry.gone.map_or(Timestamp::MIN, |gone| Timestamp(gone.0.saturating_add(1)));
        describe(&mut interface);
        *entry = Arc::new(interface);
        self.generation.fetch_add(1, Ordering::Release);
        Some(id)
    }

    /// Entries that are unused or free.
    pub fn slots_left(&self) -> usize {
        let state = self.lock();
        Self::CAPACITY - state.entries.len() + state.free.len()
    }

    /// Entries of interfaces that are gone, and not free.
    pub fn gone(&self) -> usize {
        let state = self.lock();
        state.entries.iter().filter(|i| i.gone.is_some()).count().saturating_sub(state.free.len())
    }

    /// Grows when an entry gets another meaning; who holds a [`snapshot`](Self::snapshot) for long takes a new one then.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Counts an interface for which there was no entry.
    pub fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Interfaces for which there was no entry.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Frees the entries of interfaces that have been gone for long enough and that `in_use`, which has a value for each slot,
    /// does not name. Gives their slots.
    pub fn free(&self, now: Timestamp, in_use: &[bool]) -> Vec<InterfaceId> {
        let mut state = self.lock();
        let freed: Vec<InterfaceId> = state
            .entries
            .iter()
            .filter(|entry| {
                let gone_for = entry.gone.map(|gone| now.since(gone));
                entry.index != 0
                    && gone_for.is_some_and(|time| time >= Self::GONE_BEFORE_REUSE)
                    && in_use.get(usize::from(entry.id.0)) == Some(&false)
                    && !state.free.contains(&entry.id)
            })
            .map(|entry| entry.id)
            .collect();
        state.free.extend(&freed);
        freed
    }

    /// Takes over the state of the interface that has this index and name at `now`.
    ///
    /// Entries with this index and another name were renamed. Gives the gaps that begin or end with this.
    pub fn set_link(&self, index: u32, name: &str, state: LinkState, now: Timestamp) -> Vec<LinkChange> {
        let mut guard = self.lock();
        let State { entries, gaps, .. } = &mut *guard;
        let mut changes = Vec::new();
        for entry in entries.iter_mut().filter(|i| i.index == index) {
            let is_it = entry.name == name;
            let up = is_it && state == LinkState::Up;
            let gone = !is_it || state == LinkState::Gone;
            if entry.up == up && entry.gone.is_some() == gone {
                continue;
            }
            let newly_gone = gone && entry.gone.is_none();
            let was_up = entry.up;
            let entry = Arc::make_mut(entry);
            (entry.up, entry.gone) = (up, gone.then(|| entry.gone.unwrap_or(now)));
            let open =
                gaps.iter_mut().rev().find(|gap| gap.index == index && gap.name == entry.name && gap.until.is_none());
            match (was_up, up, open) {
                (false, true, Some(gap)) => {
                    gap.until = Some(now);
                    changes.push(LinkChange::Ended(gap.clone()));
                }
                // Also of an interface that was down all the time it was known.
                (was_up, false, None) if was_up || newly_gone => {
                    let reason = match (is_it, gone) {
                        (false, _) => GapReason::Renamed(name.to_owned()),
                        (true, true) => GapReason::Gone,
                        (true, false) => GapReason::Down,
                    };
                    let gap = InterfaceGap { name: entry.name.clone(), index, from: now, until: None, reason };
                    if !changes.iter().any(|change| matches!(change, LinkChange::Began(other) if *other == gap)) {
                        changes.push(LinkChange::Began(gap.clone()));
                        gaps.push_back(gap);
                    }
                }
                // It was down, and was renamed or is gone now: the gap goes on for another reason.
                (false, false, Some(gap)) if gone => {
                    gap.reason = if is_it { GapReason::Gone } else { GapReason::Renamed(name.to_owned()) };
                    changes.push(LinkChange::Began(gap.clone()));
                }
                _ => {}
            }
        }
        while gaps.len() > Self::GAPS_MAX {
            gaps.pop_front();
        }
        changes
    }

    /// The gaps that are remembered, in the order they began.
    pub fn gaps(&self) -> Vec<InterfaceGap> {
        self.lock().gaps.iter().cloned().collect()
    }

    /// The entry of a slot.
    pub fn interface(&self, id: InterfaceId) -> Option<Arc<Interface>> {
        self.lock().entries.get(usize::from(id.0)).cloned()
    }

    /// All entries; entry `i` has slot `i`.
    pub fn snapshot(&self) -> Vec<Arc<Interface>> {
        self.lock().entries.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn entries_of_gone_interfaces_are_used_again() {
        let table = Interfaces::default();
        for index in 1..=4096u32 {
            assert!(table.intern(&format!("veth{index}"), index, LinkType::ETHERNET).is_some());
        }
        assert_eq!(table.intern("more", 5000, LinkType::ETHERNET), None);
        table.set_link(7, "veth7", LinkState::Gone, Timestamp(10 * SECOND));
        table.set_link(8, "veth8", LinkState::Gone, Timestamp(10 * SECOND));
        let mut in_use = vec![false; 4096];
        in_use[7] = true;
        assert_eq!(table.free(Timestamp(11 * SECOND), &in_use), [], "gone for a second only");
        assert_eq!(table.free(Timestamp(50 * SECOND), &in_use), [InterfaceId(6)], "packets of the other are kept");
        assert_eq!(table.slots_left(), 1);
        assert_eq!(table.intern("more", 5000, LinkType::ETHERNET), Some(InterfaceId(6)));
        let entry = table.interface(InterfaceId(6)).unwrap();
        assert_eq!((entry.name.as_str(), entry.since > Timestamp(10 * SECOND)), ("more", true));
        assert_eq!((table.generation(), table.slots_left()), (1, 0));
    }

    #[test]
    fn gaps_begin_and_end() {
        let table = Interfaces::default();
        table.intern("eth0", 2, LinkType::ETHERNET).unwrap();
        let at = |seconds| Timestamp(seconds * SECOND);
        assert!(
            matches!(&table.set_link(2, "eth0", LinkState::Down, at(1))[..], [LinkChange::Began(gap)] if gap.reason == GapReason::Down)
        );
        assert_eq!(table.set_link(2, "eth0", LinkState::Down, at(2)), []);
        assert!(matches!(&table.set_link(2, "eth0", LinkState::Up, at(3))[..], [LinkChange::Ended(_)]));
        table.intern("lan0", 2, LinkType::ETHERNET).unwrap();
        let renamed = table.set_link(2, "lan0", LinkState::Up, at(4));
        assert!(
            matches!(&renamed[..], [LinkChange::Began(gap)] if gap.reason == GapReason::Renamed("lan0".to_owned()))
        );
        assert_eq!(table.set_link(2, "lan0", LinkState::Gone, at(5)).len(), 1);
        let gaps: Vec<_> = table.gaps().into_iter().map(|gap| (gap.name, gap.from, gap.until)).collect();
        let expected = [("eth0", 1, Some(3)), ("eth0", 4, None), ("lan0", 5, None)];
        assert_eq!(gaps, expected.map(|(name, from, until)| (name.to_owned(), at(from), until.map(at))));
    }
}
