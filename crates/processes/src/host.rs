//! What `/proc` and the clocks say of the host as a whole.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

/// The addresses of this host: those of IPv4 from `fib_trie`, those of IPv6 from `if_inet6`.
pub(crate) fn addresses(fib_trie: &str, if_inet6: &str) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = Vec::new();
    let mut last = None;
    for line in fib_trie.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse::<IpAddr>().ok();
        } else if line.starts_with("/32 host LOCAL") {
            addresses.extend(last);
        }
    }
    let of_v6 = |line: &str| {
        let digits = line.split_ascii_whitespace().next()?;
        Some(IpAddr::from(u128::from_str_radix(digits, 16).ok()?.to_be_bytes()))
    };
    addresses.extend(if_inet6.lines().filter_map(of_v6));
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// The number of processes and threads that were started since the start of the system.
pub(crate) fn forks(proc: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(proc.join("stat")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("processes ")?.trim().parse().ok())
}

/// The processor time that this thread has used.
pub(crate) fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}
