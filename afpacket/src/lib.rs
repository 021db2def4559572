//! Linux AF_PACKET TPACKET_V3 capture rings and locked memory behind safe types.
//!
//! This is the one crate of the project that may say `unsafe`; each block says why it is sound.
