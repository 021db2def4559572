//! One line a packet.
