//! Decisions about a session when it begins: its class, its flood, and the pins that protect it.
//!
//! Filters run once per session, not once per packet. The result is written to the [`SessionMarks`] of the session, and
//! the store selects a queue for each packet by these marks.

pub mod classes;
mod floods;
pub mod pins;
mod session_filter;

pub use classes::{Class, Classes};
pub use pins::{Pin, Pins};
pub use session_filter::SessionFilter;

use crate::session::{SessionMarks, SessionSlot, SessionTable, SessionUpdate};
use base::memory::Lock;
use base::packet::Packet;
use filter::Endpoints;
use floods::Floods;

/// Decides the marks of sessions: class, flood and pins.
#[derive(Debug)]
pub struct Judge {
    classes: Classes,
    pins: pins::AppliedPins,
    floods: Floods,
}

impl Judge {
    /// Bytes of memory that a judge takes.
    pub const BYTES: u64 = Floods::BYTES;

    /// `store_bytes` is the size of the packet memory that a flood could fill.
    ///
    /// # Errors
    ///
    /// When the system cannot provide the memory.
    pub fn new(
        classes: Classes,
        pins: std::sync::Arc<Pins>,
        store_bytes: u64,
        seed: u64,
        lock: Lock,
    ) -> std::io::Result<Self> {
        Ok(Self { classes, pins: pins::AppliedPins::new(pins), floods: Floods::new(store_bytes, seed, lock)? })
    }

    /// The marks of the session of a packet that was just counted. `now_ns` never goes back.
    ///
    /// Most packets change nothing, so this part is small enough to be inlined into the packet path.
    #[inline]
    pub fn decide(
        &mut self,
        packet: &Packet<'_>,
        update: &SessionUpdate,
        sessions: &mut SessionTable,
        now_ns: u64,
    ) -> SessionMarks {
        if update.begins {
            return self.begin(packet, update.slot, sessions, now_ns);
        }
        let grown = update.marks.grown;
        let grows = grown < floods::GROWN_MAX && update.offset >= floods::grown_from_bytes(grown);
        if update.answered || grows || self.pins.test_packets() {
            // Of a copy, so that the update itself can stay in registers.
            let update = *update;
            self.mark(packet, &update, grows, sessions, now_ns)
        } else {
            update.marks
        }
    }

    /// Decides about a session that begins.
    #[inline(never)]
    fn begin(
        &mut self,
        packet: &Packet<'_>,
        slot: SessionSlot,
        sessions: &mut SessionTable,
        now_ns: u64,
    ) -> SessionMarks {
        let (flood, storm) = self.floods.begins(&sessions.ends(slot), now_ns);
        let mut marks = SessionMarks { flood, storm, ..SessionMarks::default() };
        if !self.classes.is_empty() || !self.pins.is_empty() {
            let key = sessions.key(slot);
            let session = Endpoints::from(&key);
            marks.class = self.classes.class_of(packet, &session);
            marks.pins = self.pins.of(packet, &key, &session);
        }
        // The entry was just written, so that storing the marks costs less than comparing them.
        sessions.set_marks(slot, marks);
        marks
    }

    /// Decides anew: the session was answered for the first time, or has grown; or a pin tests every packet.
    #[inline(never)]
    fn mark(
        &mut self,
        packet: &Packet<'_>,
        update: &SessionUpdate,
        grows: bool,
        sessions: &mut SessionTable,
        now_ns: u64,
    ) -> SessionMarks {
        let mut marks = update.marks;
        if self.pins.test_packets() {
            marks.pins |= self.pins.of_later(packet, marks.pins);
        }
        if update.answered {
            marks.flood = self.floods.answered(&sessions.ends(update.slot), marks.flood, now_ns);
        }
        if grows {
            marks.grown += 1;
            self.floods.grows(&sessions.ends(update.slot), marks.grown, now_ns);
        }
        if marks != update.marks {
            sessions.set_marks(update.slot, marks);
        }
        marks
    }

    /// Whether a packet is important according to the class of its session.
    #[inline]
    pub fn is_important(&mut self, marks: SessionMarks, packet: &Packet<'_>) -> bool {
        marks.class > 0 && self.classes.is_important(marks.class, packet)
    }

    /// Whether the class of a session drops its packet at `offset` bytes. Pinned sessions have no cutoff.
    pub fn cuts_off(&self, marks: SessionMarks, offset: u64) -> bool {
        marks.pins == 0 && self.classes.cutoff_bytes(marks.class).is_some_and(|cutoff| offset >= cutoff)
    }

    /// Applies the pins that were added or have ended since the last call; `None` if there are none.
    pub fn refresh(&mut self, sessions: &mut SessionTable) -> Option<pins::PinChanges> {
        self.pins.refresh(sessions)
    }
}
