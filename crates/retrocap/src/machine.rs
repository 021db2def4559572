//! Properties of this machine: available memory, resident memory and the terminal's width.

use engine::budget::MemorySize;

use crate::error::Usage;

/// The memory budget in bytes for `-m`.
///
/// # Errors
///
/// [`Usage`] when this process may not use that much memory.
pub(crate) fn budget_bytes(memory: Option<MemorySize>) -> anyhow::Result<u64> {
    daemon::memory_limit::budget_bytes(memory).map_err(Usage::of)
}

/// Bytes that can be allocated without swapping: `MemAvailable` of `/proc/meminfo`. `None` on other systems.
pub(crate) fn available_bytes() -> Option<u64> {
    kibibytes(&std::fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:")
}

/// Resident bytes of this process: `VmRSS` of `/proc/self/status`. 0 on other systems.
pub(crate) fn resident_bytes() -> u64 {
    std::fs::read_to_string("/proc/self/status").ok().and_then(|status| kibibytes(&status, "VmRSS:")).unwrap_or(0)
}

/// Width of the terminal on stdout in columns; 80 when stdout is no terminal.
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
