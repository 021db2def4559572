//! The record that is sealed, and the packets of an export that are to be proven.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use base::time::Timestamp;
use evidence::digest::Digest;
use evidence::record_events::SpoolFile;
use query::record_seal::RecordSealer;

/// Packets of one export that are proven; those beyond are not.
const PACKETS_MAX: usize = 16_384;

/// The sealer of the record.
#[derive(Debug, Default)]
pub(crate) struct SharedSealer(Mutex<RecordSealer>);

impl SharedSealer {
    pub(crate) fn lock(&self) -> MutexGuard<'_, RecordSealer> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The files of the spool that are sealed, by name.
#[derive(Debug, Default)]
pub(crate) struct SealedSpool(Mutex<HashMap<String, SpoolFile>>);

impl SealedSpool {
    pub(crate) fn lock(&self) -> MutexGuard<'_, HashMap<String, SpoolFile>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The packets of an export that are to be proven.
#[derive(Debug, Default)]
pub(crate) struct PacketsToProve {
    pub(crate) digests: HashSet<Digest>,
    pub(crate) span: Option<(Timestamp, Timestamp)>,
}

impl PacketsToProve {
    pub(crate) fn add(&mut self, packet: &base::packet::Packet<'_>) {
        if self.digests.len() < PACKETS_MAX {
            self.digests.insert(Digest::of_packet(packet));
            let (first, last) = self.span.get_or_insert((packet.time, packet.time));
            (*first, *last) = ((*first).min(packet.time), (*last).max(packet.time));
        }
    }
}
