//! Classes: sessions that match a filter, with their own weight, cutoff or memory reserve.

use super::session_filter::SessionFilter;
use crate::session::SessionMarks;
use base::packet::Packet;
use filter::{Endpoints, FilterError, FilterSet};

/// The configuration of a class.
#[derive(Clone, Debug, PartialEq)]
pub struct Class {
    /// The name shown in listings.
    pub name: String,
    /// A tcpdump expression. A session belongs to the first class whose filter it matches.
    pub filter: String,
    /// Retention time of its packets relative to other sessions, from 0.000001 to 1000000; 1 is the default.
    pub weight: f64,
    /// Maximum number of bytes kept of each session. Later packets are dropped immediately; `None` for no limit.
    pub cutoff_bytes: Option<u64>,
    /// Bytes of memory that other classes cannot take.
    pub reserve_bytes: u64,
    /// Selects packets of its sessions that are kept as long as the start of a session: a tcpdump expression, the word
    /// [`CONTROL`], or `control or EXPRESSION`.
    pub important: Option<String>,
}

/// In place of an expression for important packets: those with [control messages](decode::control) of industrial
/// protocols. Such packets can have several messages, and an expression sees only the first one.
pub const CONTROL: &str = "control";

/// Why classes cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ClassError {
    /// The filter of a class is invalid.
    #[error("class {name:?}: {source}")]
    Filter {
        /// The name of the class.
        name: String,
        /// Why it cannot be compiled.
        source: FilterError,
    },
    /// The expression for important packets is invalid.
    #[error("class {name:?}, important packets: {source}")]
    Important {
        /// The name of the class.
        name: String,
        /// Why it cannot be compiled.
        source: FilterError,
    },
    /// The weight is out of range.
    #[error(
        "class {name:?}: the weight {weight} is not within 0.000001 to 1000000: 10 keeps ten times as long, 0.1 a tenth"
    )]
    Weight {
        /// The name of the class.
        name: String,
        /// The configured weight.
        weight: f64,
    },
    /// There are more classes than class numbers.
    #[error("{0} classes are too many: there can be {max}", max = SessionMarks::CLASSES - 1)]
    TooMany(usize),
    /// Two classes have the same name.
    #[error("there are two classes {0:?}; give one another name")]
    SameName(String),
    /// All reserves together exceed half of the packet memory.
    #[error(
        "all classes together reserve {reserved}, more than half of the {memory} that packets have; reserve less, or give more memory"
    )]
    Reserve {
        /// Sum of all reserves.
        reserved: crate::size::ByteSize,
        /// Packet memory.
        memory: crate::size::ByteSize,
    },
}

/// All classes, compiled. Class 0 holds the sessions that match no class.
#[derive(Clone, Debug, Default)]
pub struct Classes {
    classes: Vec<CompiledClass>,
}

/// A class with its compiled expressions.
#[derive(Clone, Debug)]
struct CompiledClass {
    class: Class,
    filter: SessionFilter,
    /// Ports of which a matching session has at least one; `None` if the filter is not limited to a list of ports.
    ports: Option<Vec<u16>>,
    important: Important,
}

/// Selects the important packets of a class.
#[derive(Clone, Debug, Default)]
struct Important {
    control: bool,
    expression: Option<FilterSet>,
}

impl Important {
    fn new(text: Option<&str>) -> Result<Self, FilterError> {
        let Some(text) = text.map(str::trim) else { return Ok(Self::default()) };
        let words = text.strip_prefix(CONTROL);
        let or =
            |rest: &'_ str| rest.trim_start().strip_prefix("or").is_some_and(|rest| rest.starts_with([' ', '(', '\n']));
        let (control, expression) = match words {
            Some("") => (true, None),
            Some(rest) if rest.starts_with(char::is_whitespace) && or(rest) => {
                (true, rest.trim_start().strip_prefix("or"))
            }
            _ => (false, Some(text)),
        };
        Ok(Self { control, expression: expression.map(FilterSet::new).transpose()? })
    }

    fn matches(&mut self, packet: &Packet<'_>) -> bool {
        (self.control && decode::control::is_control(packet.link_type, packet.data))
            || self
                .expression
                .as_mut()
                .is_some_and(|filter| filter.matches(packet.link_type, packet.data, packet.original_len))
    }
}

/// The ports of an expression that tests nothing but ports, such as `port 502 or tcp port 102`. Every new session is
/// classified, so this comparison rejects most sessions without running the filter.
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
    /// Compiles the filters. `memory_bytes` is the memory for packets.
    ///
    /// # Errors
    ///
    /// When one of the classes cannot be used.
    pub fn new(classes: &[Class], memory_bytes: u64) -> Result<Self, ClassError> {
        if classes.len() >= SessionMarks::CLASSES {
            return Err(ClassError::TooMany(classes.len()));
        }
        let reserved = classes.iter().fold(0u64, |sum, class| sum.saturating_add(class.reserve_bytes));
        if reserved > memory_bytes / 2 {
            let [reserved, memory] = [reserved, memory_bytes].map(crate::size::ByteSize);
            return Err(ClassError::Reserve { reserved, memory });
        }
        let mut ready: Vec<CompiledClass> = Vec::with_capacity(classes.len());
        for class in classes {
            if !(1e-6..=1e6).contains(&class.weight) {
                return Err(ClassError::Weight { name: class.name.clone(), weight: class.weight });
            }
            if ready.iter().any(|other| other.class.name == class.name) {
                return Err(ClassError::SameName(class.name.clone()));
            }
            let filter = SessionFilter::new(&class.filter)
                .map_err(|source| ClassError::Filter { name: class.name.clone(), source })?;
            let important = Important::new(class.important.as_deref());
            let important = important.map_err(|source| ClassError::Important { name: class.name.clone(), source })?;
            ready.push(CompiledClass { class: class.clone(), filter, ports: ports_of(&class.filter), important });
        }
        Ok(Self { classes: ready })
    }

    /// The classes for one of `workers` workers, with an equal part of each reserve.
    #[must_use]
    pub fn shared_by(mut self, workers: u32) -> Self {
        for CompiledClass { class, .. } in &mut self.classes {
            class.reserve_bytes /= u64::from(workers.max(1));
        }
        self
    }

    /// Whether no class is configured.
    pub fn is_empty(&self) -> bool {
        self.classes.is_empty()
    }

    /// The configured classes, class 1 first.
    pub fn iter(&self) -> impl Iterator<Item = &Class> {
        self.classes.iter().map(|ready| &ready.class)
    }

    /// The class of a session that begins with `packet`; 0 if none matches.
    pub(super) fn class_of(&mut self, packet: &Packet<'_>, session: &Endpoints) -> u8 {
        let found = self.classes.iter_mut().position(|class| {
            let may =
                |ports: &Vec<u16>| ports.contains(&session.source_port) || ports.contains(&session.destination_port);
            class.ports.as_ref().is_none_or(may) && class.filter.matches_first(packet, session)
        });
        found.and_then(|at| u8::try_from(at + 1).ok()).unwrap_or(0)
    }

    /// Maximum number of bytes kept of each session of a class; `None` for no limit.
    pub(super) fn cutoff_bytes(&self, class: u8) -> Option<u64> {
        self.classes.get(usize::from(class).checked_sub(1)?)?.class.cutoff_bytes
    }

    /// Whether a packet is important according to its class.
    pub(super) fn is_important(&mut self, class: u8, packet: &Packet<'_>) -> bool {
        let class = usize::from(class).checked_sub(1).and_then(|at| self.classes.get_mut(at));
        class.is_some_and(|class| class.important.matches(packet))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn important_packets_are_selected_by_an_expression_or_as_control_messages() {
        let parts = |text: &str| {
            let important = Important::new(Some(text)).map_err(|error| error.to_string())?;
            Ok((important.control, important.expression.map(|filter| filter.expression().trim().to_owned())))
        };
        let expression = |text: &str| Some(text.to_owned());
        for (text, expected) in [
            ("control", (true, None)),
            (" control\n", (true, None)),
            ("control or port 5", (true, expression("port 5"))),
            ("control or (port 5)", (true, expression("(port 5)"))),
            ("tcp port 502", (false, expression("tcp port 502"))),
        ] {
            assert_eq!(parts(text), Ok::<_, String>(expected), "{text:?}");
        }
        for text in ["controls", "control and port 5", "control or", "control orport 5"] {
            assert!(parts(text).is_err(), "{text:?}");
        }
    }
}
