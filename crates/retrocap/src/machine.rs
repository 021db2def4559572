//! What this machine has: memory, and how much of it is asked for; a terminal's width.

use engine::budget::{ByteSize, MemorySize, Split};

use crate::cli::Usage;

/// The share of physical memory taken when nothing is said.
pub(crate) const MEMORY_DEFAULT: MemorySize = MemorySize::Percent(1.0);

/// Bytes of the budget: sizes as they are, shares at least [`Split::BYTES_MIN`].
///
/// # Errors
///
/// When it is more than the machine has, or a share of what nobody knows.
pub(crate) fn budget_bytes(memory: Option<MemorySize>) -> anyhow::Result<u64> {
    let memory = memory.unwrap_or(MEMORY_DEFAULT);
    let physical = physical_bytes();
    let bytes = match (memory, physical) {
        (MemorySize::Bytes(ByteSize(bytes)), _) => bytes,
        (MemorySize::Percent(_), Some(physical)) => memory.resolve(physical).max(Split::BYTES_MIN),
        (MemorySize::Percent(_), None) => {
            return Err(Usage::of("cannot tell how much memory this machine has: try -m 40MiB or -m 1G"));
        }
    };
    match physical {
        Some(physical) if bytes > physical => Err(Usage::of(format_args!(
            "{} of memory are more than this machine has ({}): try -m 1% or -m 40MiB",
            ByteSize(bytes),
            ByteSize(physical)
        ))),
        _ => Ok(bytes),
    }
}

/// Physical memory, where the system tells (`/proc/meminfo`).
fn physical_bytes() -> Option<u64> {
    kibibytes(&std::fs::read_to_string("/proc/meminfo").ok()?, "MemTotal:")
}

/// Memory this process holds, 0 where the system does not tell (`/proc/self/status`).
pub(crate) fn resident_bytes() -> u64 {
    std::fs::read_to_string("/proc/self/status").ok().and_then(|status| kibibytes(&status, "VmRSS:")).unwrap_or(0)
}

/// Columns of the terminal that stdout is; 80 elsewhere.
pub(crate) fn terminal_width() -> usize {
    #[cfg(target_os = "linux")]
    if let Ok(size) = rustix::termios::tcgetwinsize(std::io::stdout())
        && size.ws_col > 0
    {
        return usize::from(size.ws_col);
    }
    80
}

fn kibibytes(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_counts_in_kibibytes() {
        let text = "MemTotal:       16384 kB\nMemFree:         1 kB\n";
        assert_eq!((kibibytes(text, "MemTotal:"), kibibytes(text, "MemFrei:")), (Some(16 << 20), None));
    }

    #[test]
    fn a_size_is_taken_as_it_is_and_a_share_is_at_least_what_works() {
        assert_eq!(budget_bytes(Some(MemorySize::Bytes(ByteSize(5)))).unwrap(), 5);
        assert_eq!(budget_bytes(Some(MemorySize::Percent(0.000_001))).unwrap(), Split::BYTES_MIN);
        let error = budget_bytes(Some(MemorySize::Bytes(ByteSize(1 << 60)))).unwrap_err();
        assert!(error.is::<Usage>() && error.to_string().contains("try -m 1%"), "{error}");
    }
}
