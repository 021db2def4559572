//! Seals the record, and proves in exports that their packets were in it.

use super::clock::now;
use super::record::PacketsToProve;
use super::service::Service;
use evidence::record::{EVENT, RunProof, SealedMinute};

/// Runs whose digests one export carries, up to 44 kB each.
const RUNS_MAX: usize = 4096;

impl Service {
    /// Whether the record is sealed: the recorder has a key.
    pub fn seals_record(&self) -> bool {
        self.record.is_some()
    }

    /// Reads what was recorded since the last call. Call it about once a second, on a thread that may take its time.
    pub fn pass_over_record(&self) {
        if let Some(record) = &self.record {
            record.lock().pass(self.history());
        }
    }

    /// Seals what was recorded since the last call, and writes its root into the log. It may wait for a disk.
    pub fn seal_record(&self) {
        let Some(record) = &self.record else { return };
        let sealed = record.lock().seal(self.history());
        let Some(sealed) = sealed else { return };
        let minute = SealedMinute {
            time: now().to_rfc3339(),
            event: EVENT.to_owned(),
            minute: sealed.minute,
            root: sealed.root,
            runs: sealed.runs,
            packets: sealed.packets,
            unsealed: sealed.unsealed,
        };
        self.audit.sealed(&minute);
        tracing::info!(
            "sealed {} packets as minute {}: {} ({} since the start were evicted before)",
            sealed.packets,
            sealed.minute,
            sealed.root,
            sealed.unsealed
        );
    }

    /// The comments that prove these packets; none where the record is not sealed.
    pub(crate) fn prove(&self, wanted: &PacketsToProve) -> Vec<String> {
        let (Some(record), Some(span)) = (&self.record, wanted.span) else { return Vec::new() };
        // Packets of the minute that is not over yet are proven too.
        self.seal_record();
        let sealer = record.lock();
        let proofs = sealer.prove(self.history(), &wanted.digests, span, RUNS_MAX);
        proofs.iter().map(RunProof::comment).collect()
    }
}
