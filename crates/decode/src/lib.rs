//! Decodes a packet to the endpoints of its innermost session.
//!
//! [`decode`] never fails and never panics. It returns the fields that it decoded and, in [`Decoded::stop`], the reason
//! why it stopped. It reads headers only and allocates nothing.
//!
//! Each layer has one function, in `link`, `network`, `transport`, `tunnel` and so on. A function validates its header
//! before it writes to [`Decoded`], so that the result keeps the endpoints of the enclosing layer when a layer cannot
//! be decoded. A loop goes from layer to layer, bounded by a counter. The module `plain` decodes the most frequent
//! headers without the loop. No function indexes a slice: headers are read as arrays after one length
//! check.
#![forbid(unsafe_code)]

pub mod control;
mod decoded;
mod encapsulation;
mod ethertype;
mod layer;
mod layers;
mod link;
mod link_type;
pub mod names;
mod network;
mod plain;
mod tags;
pub mod text;
mod transport;
mod tunnel;
mod tunnel_id;
mod udp_tunnel;
mod unopened;
mod walk;
mod wan;
mod wireless;
mod wrapped;

pub use decoded::{Decoded, Fragment, MAX_DEPTH, Network, Stop};
pub use encapsulation::{Encapsulations, each_ip_packet, encapsulations, network_offset};
pub use layers::{decode, opens};
pub use unopened::{Header, Openness, Reason, Unopened, openness, unopened};

#[cfg(test)]
mod frames;
#[cfg(test)]
mod tests;
