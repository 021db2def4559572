//! Classes: sessions that match a filter and are kept longer, shorter, or to a share of their own.

use super::SessionFilter;
use crate::session::SessionMarks;
use base::packet::Packet;
use filter::{Endpoints, FilterError, FilterSet};

/// A class as somebody describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Class {
    /// Its name, in listings.
    pub name: String,
    /// A tcpdump expression; a session belongs to the first class that it matches.
    pub filter: String,
    /// How many times as long as others its packets stay; above 0, 1 for as long.
    pub weight: f64,
    /// Bytes of each session that are kept at most; what comes after them is dropped at once.
    pub cutoff_bytes: Option<u64>,
    /// Bytes of memory that others cannot take from it.
    pub reserve_bytes: u64,
    /// A tcpdump expression that each packet of its sessions is asked; those that match are kept as long as the start of a session.
    pub important: Option<String>,
}

/// Why classes cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ClassError {
    /// Its filter.
    #[error("class {name:?}: {source}")]
    Filter {
        /// The class.
        name: String,
        /// What libpcap says.
        source: FilterError,
    },
    /// Its expression for important packets.
    #[error("class {name:?}, important packets: {source}")]
    Important {
        /// The class.
        name: String,
        /// What libpcap says.
        source: FilterError,
    },
    /// Its weight.
    #[error(
        "class {name:?}: the weight {weight} is not within 0.000001 to 1000000: 10 keeps ten times as long, 0.1 a tenth"
    )]
    Weight {
        /// The class.
        name: String,
        /// What was asked for.
        weight: f64,
    },
    /// Too many.
    #[error("{0} classes are too many: there can be {max}", max = SessionMarks::CLASSES - 1)]
    TooMany(usize),
    /// Two have one name.
    #[error("there are two classes {0:?}; give one another name")]
    SameName(String),
    /// Together they would reserve too much.
    #[error(
        "all classes together reserve {reserved}, more than half of the {memory} that packets have; reserve less, or give more memory"
    )]
    Reserve {
        /// What is asked for.
        reserved: crate::budget::ByteSize,
        /// What there is.
        memory: crate::budget::ByteSize,
    },
}

/// All classes, ready to be asked. Class 0 is everything that matches none.
#[derive(Clone, Debug, Default)]
pub struct Classes {
    classes: Vec<Ready>,
}

/// A class whose expressions are compiled.
#[derive(Clone, Debug)]
struct Ready {
    class: Class,
    filter: SessionFilter,
    /// The ports of which one must be a session's, or else it does not match; `None` where that is not all.
    ports: Option<Vec<u16>>,
    important: Option<FilterSet>,
}

/// The ports that an expression asks for, if it asks for nothing else: `port 502 or tcp port 102`. Every session that begins is asked
/// for its class, so what cannot match is left out before the filter runs.
fn ports_of(filter: &str) -> Option<Vec<u16>> {
    let words: Vec<&str> = filter.split_whitespace().collect();
    words
        .split(|word| *word == "or")
        .map(|term| match term {
            ["port", port] | ["tcp" | "udp", "port", port] => port.parse().ok(),
            _ => None,
        })
        .collect()
}

impl Classes {
    /// Compiles the filters. `memory_bytes` is what all packets have.
    ///
    /// # Errors
    ///
    /// When one of them cannot be used.
    pub fn new(classes: &[Class], memory_bytes: u64) -> Result<Self, ClassError> {
        if classes.len() >= SessionMarks::CLASSES {
            return Err(ClassError::TooMany(classes.len()));
        }
        let reserved = classes.iter().fold(0u64, |sum, class| sum.saturating_add(class.reserve_bytes));
        if reserved > memory_bytes / 2 {
            let [reserved, memory] = [reserved, memory_bytes].map(crate::budget::ByteSize);
            return Err(ClassError::Reserve { reserved, memory });
        }
        let mut ready: Vec<Ready> = Vec::with_capacity(classes.len());
        for class in classes {
            if !(1e-6..=1e6).contains(&class.weight) {
                return Err(ClassError::Weight { name: class.name.clone(), weight: class.weight });
            }
            if ready.iter().any(|other| other.class.name == class.name) {
                return Err(ClassError::SameName(class.name.clone()));
            }
            let filter = SessionFilter::new(&class.filter)
                .map_err(|source| ClassError::Filter { name: class.name.clone(), source })?;
            let important = class.important.as_deref().map(FilterSet::new).transpose();
            let important = important.map_err(|source| ClassError::Important { name: class.name.clone(), source })?;
            ready.push(Ready { class: class.clone(), filter, ports: ports_of(&class.filter), important });
        }
        Ok(Self { classes: ready })
    }

    /// The same for one of `workers` that share the memory.
    #[must_use]
    pub fn shared_by(mut self, workers: u32) -> Self {
        for Ready { class, .. } in &mut self.classes {
            class.reserve_bytes /= u64::from(workers.max(1));
        }
        self
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.classes.is_empty()
    }

    /// All of them, class 1 first.
    pub fn iter(&self) -> impl Iterator<Item = &Class> {
        self.classes.iter().map(|ready| &ready.class)
    }

    /// The class of a session that begins with this packet.
    pub(super) fn class_of(&mut self, packet: &Packet<'_>, session: &Endpoints) -> u8 {
        let found = self.classes.iter_mut().position(|class| {
            let may =
                |ports: &Vec<u16>| ports.contains(&session.source_port) || ports.contains(&session.destination_port);
            class.ports.as_ref().is_none_or(may) && class.filter.matches_first(packet, session)
        });
        found.and_then(|at| u8::try_from(at + 1).ok()).unwrap_or(0)
    }

    /// Bytes of each session of a class that are kept at most.
    pub(super) fn cutoff_bytes(&self, class: u8) -> Option<u64> {
        self.classes.get(usize::from(class).checked_sub(1)?)?.class.cutoff_bytes
    }

    /// Whether a packet is one that its class says is important.
    pub(super) fn is_important(&mut self, class: u8, packet: &Packet<'_>) -> bool {
        let class = usize::from(class).checked_sub(1).and_then(|at| self.classes.get_mut(at));
        let filter = class.and_then(|class| class.important.as_mut());
        filter.is_some_and(|filter| filter.matches(packet.link_type, packet.data, packet.original_len))
    }
}
