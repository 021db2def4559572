//! The host's interfaces.
