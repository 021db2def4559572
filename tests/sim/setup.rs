//! What a run simulates.

use retrocap::store::retention::Policy;

use super::oracle::Terms;
use super::traffic::Random;

#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) store_bytes: u64,
    pub(crate) sessions_bytes: u64,
    pub(crate) pinned_bytes: u64,
    pub(crate) policy: Policy,
    pub(crate) classes: Vec<Terms>,
    pub(crate) workers: usize,
    pub(crate) compressing: bool,
    /// Whether an oracle runs alongside the engine.
    pub(crate) oracle: bool,
    /// Whether the session table is large enough to keep every session that has retained packets.
    pub(crate) entries_suffice: bool,
    pub(crate) burst: usize,
    pub(crate) check: bool,
}

impl Setup {
    pub(crate) fn plain(seed: u64) -> Self {
        let mut random = Random(seed ^ 0x5e7);
        let terms = |port, weight, cutoff, reserve| Terms { port, weight, cutoff, reserve };
        let classes = [
            vec![],
            vec![terms(502, 1000.0, None, 256 << 10)],
            vec![terms(443, 0.1, None, 0), terms(873, 1.0, Some(3000), 0), terms(502, 20.0, None, 128 << 10)],
        ];
        let steepness = random.of(&[0.5, 1.0, 1.0, 1.5]);
        Self {
            store_bytes: random.of(&[1 << 20, 2 << 20, 4 << 20]),
            sessions_bytes: 24 << 20,
            pinned_bytes: random.of(&[0, 256 << 10, 512 << 10]),
            policy: Policy::steepness(steepness),
            classes: classes[usize::try_from(random.below(3)).unwrap()].clone(),
            workers: random.of(&[1, 1, 2]),
            compressing: false,
            oracle: true,
            entries_suffice: true,
            burst: random.of(&[1, 8, 64]),
            check: true,
        }
    }

    /// Classes and pins, and compression for even seeds.
    pub(crate) fn everything(seed: u64) -> Self {
        let terms = |port, weight, cutoff, reserve| Terms { port, weight, cutoff, reserve };
        let classes = vec![terms(443, 0.1, None, 0), terms(873, 1.0, Some(3000), 0), terms(502, 20.0, None, 128 << 10)];
        let compressing = seed.is_multiple_of(2);
        Self { classes, pinned_bytes: 512 << 10, compressing, oracle: false, check: false, ..Self::plain(seed) }
    }

    pub(crate) fn compressing(seed: u64) -> Self {
        Self { classes: Vec::new(), compressing: true, oracle: false, ..Self::plain(seed) }
    }

    pub(crate) fn few_entries(seed: u64) -> Self {
        let compressing = seed.is_multiple_of(2);
        Self { sessions_bytes: 512 << 10, entries_suffice: false, compressing, ..Self::compressing(seed) }
    }
}
