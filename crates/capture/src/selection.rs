//! The selection of recorded interfaces, and the state of the interfaces that exist.
//!
//! The interface monitor and the sources of all workers share one [`InterfaceSelection`]. The monitor updates it. The
//! sources check its generation before each block, which costs one atomic load while nothing changes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::link_layer::link_type;
use base::interface::Interfaces;
use base::log_limit::LogLimit;
use base::packet::{InterfaceId, LinkType};

/// The number of removed interfaces whose names are kept for packets still in the ring.
const GONE_MAX: usize = 1024;

/// The number of reserved slots in the [`Interfaces`] table. They leave room for the entry of interfaces that do not
/// fit; see [`InterfaceSelection::register`].
const SLOTS_RESERVED: usize = 16;

/// An interface as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The kernel's index.
    pub index: u32,
    /// The current name.
    pub name: String,
    /// The `ARPHRD_*` type.
    pub hatype: u16,
    /// Whether the interface is administratively up (`IFF_UP`).
    pub up: bool,
    /// Whether the interface is the loopback interface (`IFF_LOOPBACK`).
    pub loopback: bool,
}

/// An error about selected names that no interface has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no interface is called {}; there are {}", .missing.join(" or "), .existing.join(", "))]
pub struct UnknownInterface {
    /// The selected names without an interface.
    pub missing: Vec<String>,
    /// The names of all interfaces, ordered by interface index.
    pub existing: Vec<String>,
}

/// The selection of recorded interfaces.
///
/// An interface is recorded while its *current* name is selected. An interface that appears later, or reappears with
/// another index, is recorded from then on. An interface that is renamed to another name is no longer recorded.
#[derive(Debug)]
pub struct InterfaceSelection {
    generation: AtomicU64,
    links: Mutex<Links>,
}

#[derive(Debug, Default)]
struct Links {
    /// The selected names; empty selects all interfaces.
    wanted: Vec<String>,
    present: BTreeMap<u32, Link>,
    gone: VecDeque<(u32, String)>,
}

impl InterfaceSelection {
    /// Selects the interfaces with these names. An empty list, or a list that contains `any`, selects every interface.
    ///
    /// No interface is known before the first [`refresh`](Self::refresh).
    pub fn new(names: &[String]) -> Self {
        let links = Links { wanted: wanted(names), ..Links::default() };
        Self { generation: AtomicU64::new(1), links: Mutex::new(links) }
    }

    /// Changes the selected names.
    pub fn choose(&self, names: &[String]) {
        self.lock().wanted = wanted(names);
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Checks that every selected name has an interface.
    ///
    /// At start, a missing interface is most likely a typing error, so the caller should report it and exit. A caller
    /// that continues records the interface as soon as it appears.
    ///
    /// # Errors
    ///
    /// [`UnknownInterface`] with the missing names.
    pub fn check(&self) -> Result<(), UnknownInterface> {
        let links = self.lock();
        let there = |name: &String| links.present.values().any(|link| link.name == *name);
        let missing: Vec<_> = links.wanted.iter().filter(|name| !there(name)).cloned().collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(UnknownInterface { missing, existing: links.present.values().map(|link| link.name.clone()).collect() })
    }

    /// Returns a number that grows with each change of the selection, or of an interface's existence, name or type.
    #[inline]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Returns whether every interface is selected.
    pub fn is_everything(&self) -> bool {
        self.lock().wanted.is_empty()
    }

    /// Returns whether packets of an interface are recorded.
    pub fn contains(&self, index: u32) -> bool {
        let links = self.lock();
        links.wanted.is_empty() || links.present.get(&index).is_some_and(|link| links.wants(link))
    }

    /// Returns the existing interfaces that are recorded, ordered by interface index.
    pub fn links(&self) -> Vec<Link> {
        let links = self.lock();
        links.present.values().filter(|link| links.wants(link)).cloned().collect()
    }

    /// Returns the last known name of an interface, also of one that was removed recently.
    pub fn name(&self, index: u32) -> Option<String> {
        let links = self.lock();
        let gone = || links.gone.iter().rev().find(|(gone, _)| *gone == index).map(|(_, name)| name.clone());
        links.present.get(&index).map(|link| link.name.clone()).or_else(gone)
    }

    /// Returns whether an interface exists and is up.
    pub fn is_up(&self, index: u32) -> bool {
        self.lock().present.get(&index).is_some_and(|link| link.up)
    }

    /// Replaces the known interfaces with a complete list.
    pub fn refresh(&self, links: Vec<Link>) {
        let mut known = self.lock();
        let fresh: BTreeMap<_, _> = links.into_iter().map(|link| (link.index, link)).collect();
        let missing: Vec<_> = known.present.keys().filter(|index| !fresh.contains_key(index)).copied().collect();
        let mut changed = !missing.is_empty();
        missing.into_iter().for_each(|index| known.forget(index));
        for link in fresh.into_values() {
            changed |= known.learn(link);
        }
        if changed {
            self.generation.fetch_add(1, Ordering::Release);
        }
    }

    /// Adds or updates an interface.
    pub fn learn(&self, link: Link) {
        if self.lock().learn(link) {
            self.generation.fetch_add(1, Ordering::Release);
        }
    }

    /// Removes an interface.
    pub fn forget(&self, index: u32) {
        self.lock().forget(index);
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Returns the slot of an interface in the table, and the link type of its packets. Adds a slot if there is none.
    ///
    /// When the table has only reserved slots left, packets of further interfaces share one entry `any` of type
    /// LINUX_SLL2, whose header holds the interface index. Returns `None` only if the table has no free slot at all.
    pub fn register(
        &self,
        interfaces: &Interfaces,
        index: u32,
        name: &str,
        hatype: u16,
    ) -> Option<(InterfaceId, LinkType)> {
        let link_type = link_type(hatype);
        let entries = interfaces.snapshot();
        if let Some(known) = entries.iter().find(|i| i.index == index && i.link_type == link_type && i.name == name) {
            return Some((known.id, link_type));
        }
        if interfaces.slots_left() <= SLOTS_RESERVED {
            static LIMIT: LogLimit = LogLimit::new();
            interfaces.refuse();
            if let Some(left_out) = LIMIT.admit() {
                tracing::warn!(
                    "the table of {} interfaces is full: packets of {name} are recorded under the interface \"any\"{left_out}",
                    Interfaces::CAPACITY
                );
            }
            return Some((interfaces.intern("any", 0, LinkType::LINUX_SLL2)?, LinkType::LINUX_SLL2));
        }
        let up = self.is_up(index);
        let id = interfaces.intern_with(name, index, link_type, |interface| {
            interface.up = up;
            interface.os = Some(host_os());
        })?;
        Some((id, link_type))
    }

    fn lock(&self) -> MutexGuard<'_, Links> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the selected names. `any` selects every interface, as an empty list does.
fn wanted(names: &[String]) -> Vec<String> {
    if names.iter().any(|name| name == "any") { Vec::new() } else { names.to_vec() }
}

impl Links {
    fn wants(&self, link: &Link) -> bool {
        self.wanted.is_empty() || self.wanted.contains(&link.name)
    }

    /// Adds or updates an interface, and returns whether it changed other than in `up`.
    fn learn(&mut self, link: Link) -> bool {
        let identity = |link: &Link| (link.name.clone(), link.hatype, link.loopback);
        let fresh = identity(&link);
        self.present.insert(link.index, link).is_none_or(|old| identity(&old) != fresh)
    }

    fn forget(&mut self, index: u32) {
        if let Some(link) = self.present.remove(&index) {
            if self.gone.len() == GONE_MAX {
                self.gone.pop_front();
            }
            self.gone.push_back((index, link.name));
        }
    }
}

/// Returns the name and release of the running system from `uname`, such as `Linux 6.12.5`.
fn host_os() -> String {
    let uname = rustix::system::uname();
    format!("{} {}", uname.sysname().to_string_lossy(), uname.release().to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str) -> Link {
        Link { index, name: name.to_owned(), hatype: 1, up: true, loopback: false }
    }

    fn selection(names: &[&str], links: &[(u32, &str)]) -> InterfaceSelection {
        let selection = InterfaceSelection::new(&names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>());
        selection.refresh(links.iter().map(|(index, name)| link(*index, name)).collect());
        selection
    }

    #[test]
    fn what_is_recorded() {
        let there = [(1, "lo"), (2, "eth0"), (3, "wg0")];
        for (names, expect) in [
            (&[][..], &[1, 2, 3][..]),
            (&["any"], &[1, 2, 3]),
            (&["eth0", "any"], &[1, 2, 3]),
            (&["wg0", "lo"], &[1, 3]),
            (&["later"], &[]),
        ] {
            let selection = selection(names, &there);
            assert_eq!(selection.links().iter().map(|link| link.index).collect::<Vec<_>>(), expect, "{names:?}");
        }
    }

    #[test]
    fn an_unknown_name_is_answered_with_those_there_are() {
        assert_eq!(selection(&["lo"], &[(1, "lo")]).check(), Ok(()));
        let error = selection(&["lo", "eht0"], &[(1, "lo"), (2, "eth0")]).check().unwrap_err();
        assert_eq!(error.to_string(), "no interface is called eht0; there are lo, eth0");
    }

    #[test]
    fn interfaces_come_and_go_and_change_their_names() {
        let selection = selection(&["wg0"], &[(1, "lo")]);
        let before = selection.generation();
        selection.learn(link(7, "wg0"));
        assert!(selection.contains(7) && selection.generation() > before);

        let before = selection.generation();
        selection.learn(Link { up: false, ..link(7, "wg0") });
        assert_eq!(selection.generation(), before, "up and down alone changes no filter");
        assert!(!selection.is_up(7));

        selection.learn(link(7, "old0"));
        assert!(!selection.contains(7) && selection.generation() > before);
        selection.forget(7);
        assert_eq!(selection.name(7).as_deref(), Some("old0"));
        selection.refresh(vec![link(9, "wg0")]);
        assert!(selection.contains(9) && !selection.contains(1));
        assert_eq!(selection.name(1).as_deref(), Some("lo"));
    }

    #[test]
    fn a_full_table_has_room_for_all_that_follow() {
        let (selection, interfaces) = (selection(&[], &[]), Interfaces::default());
        let mut overflown = 0;
        for index in 1..5000 {
            let (id, link_type) = selection.register(&interfaces, index, "veth", 1).unwrap();
            let entry = interfaces.interface(id).unwrap();
            assert_eq!(entry.link_type, link_type);
            if entry.name == "any" {
                overflown += 1;
            }
        }
        assert_eq!(overflown, 4999 - (Interfaces::CAPACITY - SLOTS_RESERVED));
        let (id, _) = selection.register(&interfaces, 17, "veth", 1).unwrap();
        assert_eq!(interfaces.interface(id).unwrap().index, 17);
    }
}
