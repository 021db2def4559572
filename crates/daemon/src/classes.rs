//! The classes of the settings, checked against the memory that packets will have.

use super::error::Error;
use super::settings::Settings;
use engine::budget::{ByteSize, Split};
use engine::judge::Classes;
use engine::judge::classes::ClassError;

/// The split of the budget.
///
/// # Errors
///
/// When the budget cannot be had, or is too small.
pub(super) fn split(settings: &Settings) -> Result<Split, Error> {
    split_of(settings, settings.memory_bytes()?)
}

fn split_of(settings: &Settings, budget_bytes: u64) -> Result<Split, Error> {
    let spool_bytes = settings.spool_memory_bytes(budget_bytes);
    let mut split = Split::new(budget_bytes.saturating_sub(spool_bytes), settings.workers_used(), settings.is_live())?;
    split.budget_bytes = budget_bytes;
    Ok(if settings.compression_cpu.0 > 0.0 { split.compressing() } else { split })
}

fn packet_bytes(split: &Split) -> u64 {
    split.store_bytes * u64::from(split.workers)
}

/// Compiles the classes.
///
/// # Errors
///
/// When one of them cannot be used, or the budget is too small for what they reserve.
pub(super) fn compile(settings: &Settings, split: &Split) -> Result<Classes, Error> {
    Classes::new(&settings.all_classes(), packet_bytes(split)).map_err(|error| match error {
        ClassError::Reserve { reserved, .. } => Error::BudgetTooSmallForClasses {
            budget: ByteSize(split.budget_bytes),
            reserved,
            most: ByteSize(packet_bytes(split) / 2),
            works_mib: smallest_budget_mib(settings, reserved.0),
        },
        other => other.into(),
    })
}

/// The smallest budget, in MiB, in which classes can reserve so much.
fn smallest_budget_mib(settings: &Settings, reserved_bytes: u64) -> u64 {
    let enough = |mib: &u64| {
        mib.checked_mul(1 << 20)
            .and_then(|bytes| split_of(settings, bytes).ok())
            .is_some_and(|split| packet_bytes(&split) / 2 >= reserved_bytes)
    };
    // Packets get at least half of any budget, so that four times the reserve is enough.
    let (mut too_small, mut works) =
        (0, (reserved_bytes >> 20).saturating_mul(4).max(Split::BYTES_MIN >> 20).saturating_mul(2));
    while too_small + 1 < works {
        let middle = too_small + (works - too_small) / 2;
        if enough(&middle) { works = middle } else { too_small = middle }
    }
    works
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn honest_13_13_a_budget_too_small_for_a_class_names_one_that_works() {
        let settings = |memory: &str| {
            let text = "[[class]]\nname = \"plc\"\nfilter = \"port 502\"\nreserve = \"20M\"\n";
            Settings { memory: Some(memory.parse().unwrap()), ..Settings::read(text).unwrap() }
        };
        let compile = |memory: &str| {
            let settings = settings(memory);
            compile(&settings, &split(&settings).unwrap()).map(drop)
        };
        let error = compile("16M").unwrap_err().to_string();
        assert!(
            error.starts_with("the budget of 16 MiB is too small for the classes, which reserve 20 MiB"),
            "{error}"
        );
        let works = error.rsplit("-m ").next().unwrap();
        compile(works).unwrap();
        let mib: u64 = works.trim_end_matches('M').parse().unwrap();
        assert!(compile(&format!("{}M", mib - 1)).is_err(), "{error}");
    }
}
