//! The processes that have sockets open: `/proc/PID/fd` (proc(5)).

use std::collections::{HashMap, HashSet};
use std::path::Path;

/// Maximum number of scanned processes; more than these (a fork bomb) are not named.
const PROCESSES_MAX: usize = 1 << 16;
/// Maximum number of scanned descriptors of a process.
const DESCRIPTORS_MAX: usize = 1 << 16;
/// Maximum number of processes noted for one socket.
const HOLDERS_MAX: usize = 64;

/// The processes that have these sockets open, by inode, without those whose descriptors may not be read.
pub fn find(proc: &Path, wanted: &HashSet<u32>) -> HashMap<u32, Vec<u32>> {
    let mut found: HashMap<u32, Vec<u32>> = HashMap::new();
    let Ok(processes) = std::fs::read_dir(proc) else { return found };
    let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    for pid in pids.take(PROCESSES_MAX) {
        let Ok(descriptors) = std::fs::read_dir(proc.join(pid.to_string()).join("fd")) else { continue };
        for descriptor in descriptors.flatten().take(DESCRIPTORS_MAX) {
            let Ok(target) = std::fs::read_link(descriptor.path()) else { continue };
            let Some(inode) = target.to_str().and_then(inode) else { continue };
            if wanted.contains(&inode) {
                let holders = found.entry(inode).or_default();
                if holders.len() < HOLDERS_MAX && holders.last() != Some(&pid) {
                    holders.push(pid);
                }
            }
        }
    }
    found
}

/// `socket:[12345]`
fn inode(target: &str) -> Option<u32> {
    target.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}
