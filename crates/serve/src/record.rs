//! The record that is sealed, and the packets of an export that are to be proven.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::spool_seals::SpoolSeals;
use base::time::Timestamp;
use evidence::digest::Digest;
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

/// What is known of the files of the spool.
#[derive(Debug, Default)]
pub(crate) struct SharedSeals(Mutex<SpoolSeals>);

impl SharedSeals {
    pub(crate) fn lock(&self) -> MutexGuard<'_, SpoolSeals> {
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
