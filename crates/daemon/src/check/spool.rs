//! Checks of the disk that a spool is written to: whether it can be used, what rate it bears, and how many days its size means.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::finding::Finding;
use crate::settings::Settings;
use base::time::human_age;
use capture::interfaces::links;
use capture::selection::InterfaceSelection;
use engine::budget::ByteSize;
use spool::directory::{Directory, FileSystem, file_system};
use spool::medium::{DiskSpace, Medium as _};
use spool::probe::{DiskSpeed, measure};
use spool::writer::SizeLimit;

const CHECK: &str = "spool";
/// The spool reaches this part of the disk's rate.
const USABLE_PERCENT: u64 = 90;
/// A sync beyond this delays what should be durable after a second.
const SYNC_MAX: Duration = Duration::from_millis(300);
const DAY_S: u64 = 24 * 3600;

/// The findings about the spool, if there is to be one.
pub(super) fn findings(settings: &Settings) -> Vec<Finding> {
    let Some(wanted) = &settings.spool else { return Vec::new() };
    let directory = existing(wanted);
    let kind = match file_system(&directory) {
        Ok(FileSystem::Network(name)) => {
            let found = format!("{} is on {name}, where a write can hang and locks are unreliable", wanted.display());
            return vec![Finding::error(CHECK, found, "choose a directory on a local disk")];
        }
        Ok(kind) => kind,
        Err(error) => {
            let found = format!("{} cannot be opened: {error}", directory.display());
            return vec![Finding::error(CHECK, found, "choose another directory with spool, or run as root")];
        }
    };
    let mut findings = Vec::new();
    if kind == FileSystem::Memory {
        let found = format!("{} is in memory (tmpfs): a reboot loses it", wanted.display());
        findings.push(Finding::warning(CHECK, found, "choose a directory on a disk"));
    }
    let room = Directory::open_to_read(&directory).ok().and_then(|directory| directory.room().ok()).unwrap_or_default();
    let rate = traffic(settings);
    findings.push(size(settings, room, rate));
    findings.push(match measure(&directory) {
        Ok(speed) => self::speed(&directory, speed, rate),
        Err(error) => {
            let found = format!("{} cannot be written: {error}", directory.display());
            Finding::error(CHECK, found, "make room, or choose another directory with spool")
        }
    });
    findings
}

/// The directory, or the first one above it that exists.
fn existing(wanted: &Path) -> PathBuf {
    let above = wanted.ancestors().filter(|path| !path.as_os_str().is_empty());
    above.into_iter().find(|path| path.is_dir()).unwrap_or(Path::new(".")).to_owned()
}

/// What the disk does, beside what arrives.
fn speed(directory: &Path, speed: DiskSpeed, rate: Option<u64>) -> Finding {
    let (bytes, took) = speed.written;
    let bears = speed.bytes_per_second() / 100 * USABLE_PERCENT;
    let found = format!(
        "{} takes {}/s ({} in {took:.1?}), so it bears about {} of packets; a sync takes {:.1?}, at most {:.1?}",
        directory.display(),
        ByteSize(speed.bytes_per_second()),
        ByteSize(bytes),
        bits(bears),
        speed.syncs.0,
        speed.syncs.1
    );
    match rate {
        Some(rate) if rate > bears => {
            let advice = format!("the interfaces had {} on average since the boot: use a faster disk", bits(rate));
            Finding::warning(CHECK, found, advice)
        }
        _ if speed.syncs.1 > SYNC_MAX => {
            Finding::warning(CHECK, found, "a crash loses what waits for a sync: use a disk that is less busy")
        }
        _ => Finding::good(CHECK, found),
    }
}

/// How long the size reaches at the mean rate of the interfaces.
fn size(settings: &Settings, room: DiskSpace, rate: Option<u64>) -> Finding {
    let limit = settings.spool_size.limit();
    let budget = limit.budget_bytes(|| room);
    let usable = match limit {
        SizeLimit::Bytes(bytes) => bytes,
        // Everything on the file system counts.
        SizeLimit::Percent(_) => budget.saturating_sub(room.size_bytes.saturating_sub(room.free_bytes)),
    };
    let there = format!(
        "{} of room ({} of {} are free)",
        ByteSize(usable),
        ByteSize(room.free_bytes),
        ByteSize(room.size_bytes)
    );
    if usable == 0 {
        return Finding::error(CHECK, format!("the spool has no room: {there}"), "make room, or raise spool-size");
    }
    let reach = rate.filter(|rate| *rate > 0).map(|rate| Duration::from_secs(usable / rate));
    let found = match (reach, rate) {
        (Some(reach), Some(rate)) => format!(
            "{there}: {:.1} days at {}, which the interfaces had on average since the boot",
            reach.as_secs_f64() / DAY_S as f64,
            bits(rate)
        ),
        _ => there,
    };
    if let (SizeLimit::Bytes(bytes), true) = (limit, room.size_bytes > 0)
        && bytes > room.size_bytes
    {
        return Finding::warning(CHECK, found, "spool-size is larger than the file system: lower it");
    }
    match (settings.spool_keep, reach) {
        (Some(keep), Some(reach)) if reach < keep => {
            let advice = format!("that is less than the {} of spool-keep: give it more room", human_age(keep));
            Finding::warning(CHECK, found, advice)
        }
        _ => Finding::good(CHECK, found),
    }
}

/// Mean bytes per second of the interfaces that are recorded, since the boot.
fn traffic(settings: &Settings) -> Option<u64> {
    let uptime = fs::read_to_string("/proc/uptime").ok()?;
    let seconds: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    let selection = InterfaceSelection::new(&settings.interface);
    selection.refresh(links().ok()?);
    let count = |name: &str, what: &str| -> u64 {
        let text = fs::read_to_string(format!("/sys/class/net/{name}/statistics/{what}")).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    };
    // The loopback interface counts each packet twice, and one of the two is recorded.
    let bytes_of = |name: &str, loopback: bool| {
        count(name, "rx_bytes").saturating_add(if loopback { 0 } else { count(name, "tx_bytes") })
    };
    let bytes: u64 = selection.links().iter().map(|link| bytes_of(&link.name, link.loopback)).sum();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole seconds of an uptime")]
    let seconds = (seconds as u64).max(1);
    Some(bytes / seconds)
}

/// A rate in bits.
fn bits(bytes_per_second: u64) -> String {
    let bits = bytes_per_second.saturating_mul(8);
    match bits {
        0..1_000_000 => format!("{} kbit/s", bits / 1000),
        1_000_000..1_000_000_000 => format!("{}.{} Mbit/s", bits / 1_000_000, bits / 100_000 % 10),
        _ => format!("{}.{} Gbit/s", bits / 1_000_000_000, bits / 100_000_000 % 10),
    }
}
