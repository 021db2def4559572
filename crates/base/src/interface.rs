//! The table of interfaces: name, link type and state of each interface from which packets came.
//!
//! Sources add entries; exports and the status read them. The table has [`Interfaces::CAPACITY`] entries. An entry
//! keeps its meaning while packets of its interface may be stored: an interface that is renamed or changes its link
//! type gets a new entry, so that older packets keep the name under which they were captured. Entries of interfaces
//! that are gone and have no stored packet are [freed](Interfaces::free) and reused.
//!
//! The table also stores when an interface was down or gone, as nothing was recorded from it then.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::packet::{InterfaceId, LinkType};
use crate::time::Timestamp;

/// One entry of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The index of the entry.
    pub id: InterfaceId,
    /// Name from the operating system or the capture file; empty if the file has none.
    pub name: String,
    /// The operating system's index; 0 for interfaces of capture files.
    pub index: u32,
    /// Link type of the interface's packets.
    pub link_type: LinkType,
    /// Description, if the source has one.
    pub description: Option<String>,
    /// Operating system of the capturing host, if the source states it.
    pub os: Option<String>,
    /// Whether the interface exists and is up.
    pub up: bool,
    /// When the interface was removed or renamed; `None` while it exists.
    pub gone: Option<Timestamp>,
    /// When the entry was assigned to this interface; 0 if it never belonged to another.
    pub since: Timestamp,
}

/// Why nothing could be recorded from an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GapReason {
    /// The interface was down.
    Down,
    /// The interface was removed from the host.
    Gone,
    /// The interface was renamed to this name; its packets are recorded under it.
    Renamed(String),
}

/// A period in which nothing could be recorded from an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceGap {
    /// The interface's name.
    pub name: String,
    /// The operating system's index of the interface.
    pub index: u32,
    /// Start of the gap.
    pub from: Timestamp,
    /// End of the gap; `None` while it lasts.
    pub until: Option<Timestamp>,
    /// Reason for the gap.
    pub reason: GapReason,
}

/// The state of an interface, as the operating system reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// The interface exists and is up.
    Up,
    /// The interface exists and is down.
    Down,
    /// The interface no longer exists.
    Gone,
}

/// A change of an interface's state that callers report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkChange {
    /// A gap has begun, or its reason has changed.
    Began(InterfaceGap),
    /// A gap has ended.
    Ended(InterfaceGap),
}

/// The table of interfaces, shared by sources and readers.
#[derive(Debug, Default)]
pub struct Interfaces {
    state: Mutex<InterfaceSlots>,
    /// Grows when an entry is reused for another interface.
    generation: AtomicU64,
    /// Number of refused requests for an entry.
    refused: AtomicU64,
}

#[derive(Debug, Default)]
struct InterfaceSlots {
    entries: Vec<Arc<Interface>>,
    /// Slots that may be reused.
    free: Vec<InterfaceId>,
    gaps: VecDeque<InterfaceGap>,
    /// Number of gaps that were dropped because there were too many.
    gaps_dropped: u64,
}

impl InterfaceSlots {
    fn bound_gaps(&mut self) {
        while self.gaps.len() > Interfaces::GAPS_MAX {
            self.gaps.pop_front();
            self.gaps_dropped += 1;
        }
    }
}

impl Interfaces {
    /// The most entries.
    pub const CAPACITY: usize = 4096;
    /// The most gaps that are stored; the oldest are dropped first.
    pub const GAPS_MAX: usize = 1024;
    /// How long an interface must be gone before its entry is reused, as its packets may still be in the capture path.
    pub const GONE_BEFORE_REUSE: Duration = Duration::from_secs(30);

    /// The slot of the interface with this name, index and link type. Adds an entry if there is none.
    ///
    /// `None` if the table is full.
    pub fn intern(&self, name: &str, index: u32, link_type: LinkType) -> Option<InterfaceId> {
        self.intern_with(name, index, link_type, |_| {})
    }

    /// As [`intern`](Self::intern); `describe` completes a new entry.
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

    /// Number of entries that are unused or free.
    pub fn slots_left(&self) -> usize {
        let state = self.lock();
        Self::CAPACITY - state.entries.len() + state.free.len()
    }

    /// Number of entries whose interfaces are gone and that are not free yet.
    pub fn gone(&self) -> usize {
        let state = self.lock();
        state.entries.iter().filter(|i| i.gone.is_some()).count().saturating_sub(state.free.len())
    }

    /// A number that grows when an entry is reused. A holder of a [`snapshot`](Self::snapshot) must then take a new
    /// one.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Counts an interface that found no entry.
    pub fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Number of refused requests for an entry, as [`refuse`](Self::refuse) counts them.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Frees the entries of interfaces that have been gone for [`GONE_BEFORE_REUSE`](Self::GONE_BEFORE_REUSE) and are
    /// false in `in_use`, which has a value per slot. Returns the freed slots.
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

    /// Sets the state of the interface that has this index and name at `now`.
    ///
    /// Entries with this index and another name count as renamed. Returns the gaps that begin, end or change their
    /// reason.
    pub fn set_link(&self, index: u32, name: &str, state: LinkState, now: Timestamp) -> Vec<LinkChange> {
        let mut guard = self.lock();
        let InterfaceSlots { entries, gaps, .. } = &mut *guard;
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
                // This includes an interface that was never up and is now gone.
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
                // The interface was down, and is now renamed or gone: the gap continues for another reason.
                (false, false, Some(gap)) if gone => {
                    gap.reason = if is_it { GapReason::Gone } else { GapReason::Renamed(name.to_owned()) };
                    changes.push(LinkChange::Began(gap.clone()));
                }
                _ => {}
            }
        }
        guard.bound_gaps();
        changes
    }

    /// Adds the gaps and the entry states that a former process left. `gaps` are in the order in which they began.
    /// `dropped` is the number of gaps that the former process had dropped.
    pub fn restore_gaps(&self, gaps: impl IntoIterator<Item = InterfaceGap>, dropped: u64) {
        let mut state = self.lock();
        let later = std::mem::take(&mut state.gaps);
        state.gaps.extend(gaps);
        state.gaps.extend(later);
        state.gaps_dropped = state.gaps_dropped.saturating_add(dropped);
        state.bound_gaps();
    }

    /// Number of gaps that were dropped because there were too many.
    pub fn gaps_dropped(&self) -> u64 {
        self.lock().gaps_dropped
    }

    /// The stored gaps, in the order in which they began.
    pub fn gaps(&self) -> Vec<InterfaceGap> {
        self.lock().gaps.iter().cloned().collect()
    }

    /// The entry of a slot; `None` if the slot is unused.
    pub fn interface(&self, id: InterfaceId) -> Option<Arc<Interface>> {
        self.lock().entries.get(usize::from(id.0)).cloned()
    }

    /// All entries; entry `i` has slot `i`.
    pub fn snapshot(&self) -> Vec<Arc<Interface>> {
        self.lock().entries.clone()
    }

    fn lock(&self) -> MutexGuard<'_, InterfaceSlots> {
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

    #[test]
    fn restored_gaps_precede_later_ones_and_all_are_bounded() {
        let table = Interfaces::default();
        table.intern("eth0", 2, LinkType::ETHERNET).unwrap();
        table.set_link(2, "eth0", LinkState::Down, Timestamp(9 * SECOND));
        let gap = |second: u64| InterfaceGap {
            name: "old0".to_owned(),
            index: 7,
            from: Timestamp(second),
            until: Some(Timestamp(second + 1)),
            reason: GapReason::Down,
        };
        table.restore_gaps((0..Interfaces::GAPS_MAX as u64).map(gap), 3);
        let gaps = table.gaps();
        assert_eq!((gaps.len(), table.gaps_dropped()), (Interfaces::GAPS_MAX, 4));
        assert_eq!((gaps[0].from, gaps[gaps.len() - 1].name.as_str()), (Timestamp(1), "eth0"));
    }
}
