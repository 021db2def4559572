//! What this machine has: memory, and a terminal's width.

use engine::budget::MemorySize;

use crate::cli::Usage;

/// Bytes of the budget for `-m`.
///
/// # Errors
///
/// [`Usage`] when this process may not use so much.
pub(crate) fn budget_bytes(memory: Option<MemorySize>) -> anyhow::Result<u64> {
    daemon::memory_limit::budget_bytes(memory).map_err(Usage::of)
}

/// Memory that can be had without swapping, where the system tells (`/proc/meminfo`).
pub(crate) fn available_bytes() -> Option<u64> {
    kibibytes(&std::fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:")
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
    fn more_memory_than_there_is_is_wrong_usage() {
        let error = budget_bytes(Some("1048576T".parse().unwrap())).unwrap_err();
        assert!(error.is::<Usage>() && error.to_string().contains("try -m 1%"), "{error}");
    }
}
