//! The table of interfaces: what is known of each place packets came from.
//!
//! Sources add to it, exports and the status read it. It is bounded: [`Interfaces::CAPACITY`] entries, an entry is never
//! changed into another one while packets of it may be kept. An interface that was renamed, or whose link type
//! changed, gets a new entry, so that older packets keep the name they were captured under.

use std::sync::{Arc, Mutex, PoisonError};

use crate::packet::{InterfaceId, LinkType};

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
}

/// All interfaces seen so far, shared by sources and readers.
#[derive(Debug, Default)]
pub struct Interfaces {
    entries: Mutex<Vec<Arc<Interface>>>,
}

impl Interfaces {
    /// How many entries there are at most.
    pub const CAPACITY: usize = 4096;

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
        let mut entries = self.lock();
        if let Some(known) = entries.iter().find(|i| i.index == index && i.link_type == link_type && i.name == name) {
            return Some(known.id);
        }
        if entries.len() >= Self::CAPACITY {
            return None;
        }
        let id = InterfaceId(u16::try_from(entries.len()).ok()?);
        let mut interface =
            Interface { id, name: name.to_owned(), index, link_type, description: None, os: None, up: true };
        describe(&mut interface);
        entries.push(Arc::new(interface));
        Some(id)
    }

    /// Says of every entry with this index whether it is up.
    ///
    /// Entries with another name than `name` (renamed since) are down whatever `up` says.
    pub fn set_up(&self, index: u32, name: &str, up: bool) {
        for entry in self.lock().iter_mut().filter(|i| i.index == index) {
            let up = up && entry.name == name;
            if entry.up != up {
                Arc::make_mut(entry).up = up;
            }
        }
    }

    /// The entry of a slot.
    pub fn interface(&self, id: InterfaceId) -> Option<Arc<Interface>> {
        self.lock().get(usize::from(id.0)).cloned()
    }

    /// All entries in the order they were first seen; entry `i` has slot `i`.
    pub fn snapshot(&self) -> Vec<Arc<Interface>> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Interface>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
