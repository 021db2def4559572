//! Seals the record, and proves in exports that their packets were in it.

use std::time::Instant;

use super::clock::now;
use super::record::PacketsToProve;
use super::service::Service;
use evidence::record::{EVENT, RunProof, SealedMinute};
use query::record_seal::Sealed;

/// Runs whose digests one export carries, up to 44 kB each.
const RUNS_MAX: usize = 4096;

impl Service {
    /// Whether the record is sealed: the recorder has a key.
    pub fn seals_record(&self) -> bool {
        self.record.is_some()
    }

    /// Makes packets due that were in memory at the last call. Call it at even intervals: that is the age at which packets are
    /// sealed.
    pub fn age_record(&self) {
        if let Some(record) = &self.record {
            record.lock().age(self.history());
        }
    }

    /// Reads what is due, as long as `go_on` permits it. Call it about once a second, on a thread that may take its time.
    pub fn pass_over_record(&self, go_on: &mut dyn FnMut() -> bool) {
        if let Some(record) = &self.record {
            record.lock().pass(self.history(), go_on);
        }
    }

    /// Writes the root of what was read since the last call into the log. It may wait for a disk.
    pub fn seal_record(&self) {
        let Some(record) = &self.record else { return };
        let sealed = record.lock().seal(self.history());
        if let Some(sealed) = sealed {
            self.log_root(sealed);
        }
    }

    /// Seals all that is in memory, until `deadline`. Returns how many packets are left.
    pub(crate) fn seal_all(&self, deadline: Instant) -> u64 {
        let Some(record) = &self.record else { return 0 };
        let (sealed, left) = {
            let mut sealer = record.lock();
            sealer.pass_over(self.history(), None, &mut || Instant::now() < deadline);
            (sealer.seal(self.history()), sealer.waiting(self.history()))
        };
        if let Some(sealed) = sealed {
            self.log_root(sealed);
        }
        left
    }

    fn log_root(&self, Sealed { minute, root, runs, packets, unsealed, waiting }: Sealed) {
        let line = SealedMinute {
            time: now().to_rfc3339(),
            event: EVENT.to_owned(),
            minute,
            root,
            runs,
            packets,
            unsealed,
            waiting,
        };
        self.audit.sealed(&line);
        tracing::info!(
            "sealed {packets} packets as minute {minute}: {root} ({waiting} in memory are not sealed yet; {unsealed} since the \
             start were evicted before)"
        );
    }

    /// The comments that prove these packets; none where the record is not sealed.
    pub(crate) fn prove(&self, wanted: &PacketsToProve) -> Vec<String> {
        let (Some(record), Some(span)) = (&self.record, wanted.span) else { return Vec::new() };
        // The packets that are asked for are sealed now, however young they are.
        let sealed = {
            let mut sealer = record.lock();
            sealer.pass_over(self.history(), Some(span), &mut || !self.is_stopping());
            sealer.seal(self.history())
        };
        if let Some(sealed) = sealed {
            self.log_root(sealed);
        }
        let sealer = record.lock();
        let proofs = sealer.prove(self.history(), &wanted.digests, span, RUNS_MAX);
        proofs.iter().map(RunProof::comment).collect()
    }
}
