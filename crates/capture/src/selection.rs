//! Which interfaces are recorded, and what is known of those that are there.
//!
//! One [`InterfaceSelection`] is shared by the interface monitor, which keeps it current, and the sources of all workers, which
//! look at its generation before each block: one atomic load as long as nothing changes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::link_layer::link_type;
use base::interface::Interfaces;
use base::log_limit::LogLimit;
use base::packet::{InterfaceId, LinkType};

/// How many removed interfaces' names are remembered for packets that are still on their way.
const GONE_MAX: usize = 1024;

/// Slots of the [`Interfaces`] table that are kept free, so that an interface which no longer fits still has one: see
/// [`InterfaceSelection::register`].
const SLOTS_RESERVED: usize = 16;

/// An interface as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The kernel's index.
    pub index: u32,
    /// Its name now.
    pub name: String,
    /// Its `ARPHRD_*` type.
    pub hatype: u16,
    /// Whether it is administratively up (`IFF_UP`).
    pub up: bool,
    /// Whether it is the loopback interface (`IFF_LOOPBACK`).
    pub loopback: bool,
}

/// A name that no interface has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no interface is called {}; there are {}", .missing.join(" or "), .existing.join(", "))]
pub struct UnknownInterface {
    /// The names asked for that nobody has.
    pub missing: Vec<String>,
    /// The names there are, in the order of their indexes.
    pub existing: Vec<String>,
}

/// Which interfaces are recorded.
///
/// An interface is recorded when it has one of the names asked for *now*: one that comes later, or comes back under
/// another index, is recorded from then on, one that is renamed away is not.
#[derive(Debug)]
pub struct InterfaceSelection {
    generation: AtomicU64,
    links: Mutex<Links>,
}

#[derive(Debug, Default)]
struct Links {
    /// Names asked for; empty is all.
    wanted: Vec<String>,
    present: BTreeMap<u32, Link>,
    gone: VecDeque<(u32, String)>,
}

impl InterfaceSelection {
    /// Interfaces with these names; none at all or `any` among them is every interface.
    ///
    /// Nothing is known of any interface before [`refresh`](Self::refresh).
    pub fn new(names: &[String]) -> Self {
        let links = Links { wanted: wanted(names), ..Links::default() };
        Self { generation: AtomicU64::new(1), links: Mutex::new(links) }
    }

    /// Asks for other interfaces from now on.
    pub fn choose(&self, names: &[String]) {
        self.lock().wanted = wanted(names);
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Whether every name asked for is there.
    ///
    /// At start a missing one is most likely a slip, so that a caller should say so and end; who knows better may go
    /// on, the interface is recorded when it comes.
    pub fn check(&self) -> Result<(), UnknownInterface> {
        let links = self.lock();
        let there = |name: &String| links.present.values().any(|link| link.name == *name);
        let missing: Vec<_> = links.wanted.iter().filter(|name| !there(name)).cloned().collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(UnknownInterface { missing, existing: links.present.values().map(|link| link.name.clone()).collect() })
    }

    /// Grows with each change of which interfaces there are, their names or types.
    #[inline]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Whether every interface is recorded.
    pub fn is_everything(&self) -> bool {
        self.lock().wanted.is_empty()
    }

    /// Whether packets of this interface are recorded.
    pub fn contains(&self, index: u32) -> bool {
        let links = self.lock();
        links.wanted.is_empty() || links.present.get(&index).is_some_and(|link| links.wants(link))
    }

    /// The interfaces that are recorded and there now, in the order of their indexes.
    pub fn links(&self) -> Vec<Link> {
        let links = self.lock();
        links.present.values().filter(|link| links.wants(link)).cloned().collect()
    }

    /// The last known name of an interface, also of one that went not long ago.
    pub fn name(&self, index: u32) -> Option<String> {
        let links = self.lock();
        let gone = || links.gone.iter().rev().find(|(gone, _)| *gone == index).map(|(_, name)| name.clone());
        links.present.get(&index).map(|link| link.name.clone()).or_else(gone)
    }

    /// Whether an interface is there and up.
    pub fn is_up(&self, index: u32) -> bool {
        self.lock().present.get(&index).is_some_and(|link| link.up)
    }

    /// Takes over a full list of the interfaces there are.
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

    /// Takes over that an interface is new or changed.
    pub fn learn(&self, link: Link) {
        if self.lock().learn(link) {
            self.generation.fetch_add(1, Ordering::Release);
        }
    }

    /// Takes over that an interface is gone.
    pub fn forget(&self, index: u32) {
        self.lock().forget(index);
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// The slot of an interface in the table, made when there is none, with whether it is up.
    ///
    /// A host that has too many interfaces whose packets are kept fills the table. Before it is full, packets of further ones go under
    /// one entry `any` of type LINUX_SLL2, whose header has the interface index; the second value is the link type to
    /// be used. `None` only if others fill the table to the last slot.
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

/// `any` is what nobody named is: everything.
fn wanted(names: &[String]) -> Vec<String> {
    if names.iter().any(|name| name == "any") { Vec::new() } else { names.to_vec() }
}

impl Links {
    fn wants(&self, link: &Link) -> bool {
        self.wanted.is_empty() || self.wanted.contains(&link.name)
    }

    /// Says whether more than `up` is new.
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

/// The running system as `uname` gives it, say `Linux 6.12.5`.
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
