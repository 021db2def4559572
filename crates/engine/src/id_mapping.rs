//! Translates the numbers that a predecessor wrote (interfaces, classes, pins, sessions, sequence numbers) into the
//! numbers of this recorder.

use std::io;

use crate::session::{SessionMarks, SessionSlot};
use base::codec::damaged;
use base::packet::InterfaceId;

/// The slot of a session that is not in the array of this recorder.
pub(crate) const NO_SLOT: u32 = u32::MAX;

/// Maps the numbers of a predecessor to ours. Interfaces, classes and pins are the same for all of its workers;
/// sessions and sequence numbers are set for one worker at a time, see [`begin_worker`](Self::begin_worker).
#[derive(Clone, Debug)]
pub(crate) struct IdMapping {
    interfaces: Vec<InterfaceId>,
    interfaces_unchanged: bool,
    classes: [u8; SessionMarks::CLASSES],
    /// Bit set of the pins that are still active.
    pins: u16,
    sessions: Vec<u32>,
    sessions_unchanged: bool,
    /// Upper bound of the sequence numbers of the worker's packets.
    sequence_end: u64,
    /// Added to each sequence number: the number of packets that earlier workers of the predecessor stored.
    sequence_shift: u64,
}

impl Default for IdMapping {
    fn default() -> Self {
        Self {
            interfaces: Vec::new(),
            interfaces_unchanged: true,
            classes: [0; SessionMarks::CLASSES],
            pins: 0,
            sessions: Vec::new(),
            sessions_unchanged: false,
            sequence_end: 0,
            sequence_shift: 0,
        }
    }
}

impl IdMapping {
    /// Maps the predecessor's next interface to `id`.
    pub(crate) fn add_interface(&mut self, id: InterfaceId) -> io::Result<()> {
        if self.interfaces.contains(&id) {
            return Err(damaged("an interface that is listed twice"));
        }
        self.interfaces_unchanged &= self.interfaces.len() == usize::from(id.0);
        self.interfaces.push(id);
        Ok(())
    }

    /// Maps the predecessor's class `old` to `new`, or to class 0 (no filter) if the class no longer exists.
    pub(crate) fn set_class(&mut self, old: u16, new: Option<u8>) {
        if let Some(class) = self.classes.get_mut(usize::from(old)) {
            *class = new.unwrap_or(0);
        }
    }

    /// Sets the pins that are still active, one bit each.
    pub(crate) fn set_pins(&mut self, pins: u16) {
        self.pins = pins;
    }

    /// Starts a worker that has stored `stored` packets; `stored_before` is the sum for the workers before it.
    pub(crate) fn begin_worker(&mut self, stored: u64, stored_before: u64) {
        (self.sequence_end, self.sequence_shift) = (stored, stored_before);
        self.sessions.clear();
    }

    /// Sets the slot of each of the worker's sessions; [`NO_SLOT`] for a session without one.
    pub(crate) fn set_sessions(&mut self, sessions: Vec<u32>) {
        self.sessions_unchanged = (0..).zip(&sessions).all(|(number, slot)| number == *slot);
        self.sessions = sessions;
    }

    /// The pins that are still active, one bit each.
    pub(crate) fn pins(&self) -> u16 {
        self.pins
    }

    /// Whether all numbers in packet records stay the same, so that segments can be copied without changes.
    pub(crate) fn is_identity(&self) -> bool {
        self.interfaces_unchanged && self.sessions_unchanged && self.sequence_shift == 0
    }

    pub(crate) fn interface(&self, id: InterfaceId) -> io::Result<InterfaceId> {
        self.interfaces.get(usize::from(id.0)).copied().ok_or_else(|| damaged("the number of an interface"))
    }

    pub(crate) fn sequence(&self, sequence: u64) -> io::Result<u64> {
        // Equality is valid: a session can begin with a packet that was not stored, and then has the next number.
        if sequence <= self.sequence_end {
            Ok(sequence + self.sequence_shift)
        } else {
            Err(damaged("the sequence number of a packet"))
        }
    }

    /// The slot of the predecessor's session, if the session has one.
    pub(crate) fn session(&self, slot: SessionSlot) -> Option<SessionSlot> {
        self.sessions.get(slot.0 as usize).copied().filter(|slot| *slot != NO_SLOT).map(SessionSlot)
    }

    /// Whether the predecessor wrote a session with this slot.
    pub(crate) fn has_session(&self, slot: SessionSlot) -> bool {
        (slot.0 as usize) < self.sessions.len()
    }

    pub(crate) fn marks(&self, marks: SessionMarks) -> SessionMarks {
        SessionMarks {
            class: self.classes.get(usize::from(marks.class)).copied().unwrap_or(0),
            flood: marks.flood,
            storm: marks.storm,
            grown: marks.grown,
            pins: marks.pins & self.pins,
        }
    }

    /// Whether pin number `pin` is still active.
    pub(crate) fn has_pin(&self, pin: u8) -> bool {
        usize::from(pin) < SessionMarks::PINS && self.pins >> pin & 1 == 1
    }
}
