//! Leaves out packets by a decision of the caller, before they are counted and before the limit applies.

use base::packet::Packet;

use super::Packets;
use super::narrowed::Picker;

impl<'h> Packets<'h> {
    /// Of the packets that match, only those that `pick` picks. It is asked in time order.
    #[must_use]
    pub fn picked_by(mut self, pick: impl FnMut(&Packet<'_>) -> bool + 'h) -> Self {
        self.picker = Some(Picker(Box::new(pick)));
        self
    }
}
