//! The processes that have sockets open: `/proc/PID/fd` (proc(5)).

use std::collections::{HashMap, HashSet};
use std::path::Path;

use crate::process::Process;

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

/// The processes that hold sockets, each read once.
pub(crate) struct Holders<'p> {
    proc: &'p Path,
    pids: HashMap<u32, Vec<u32>>,
    read: HashMap<u32, Option<Process>>,
}

impl<'p> Holders<'p> {
    /// These processes hold the sockets, by inode.
    pub(crate) fn new(proc: &'p Path, pids: HashMap<u32, Vec<u32>>) -> Self {
        Self { proc, pids, read: HashMap::new() }
    }

    /// Whether some process is known to hold a socket.
    pub(crate) fn hold(&self, inode: u32) -> bool {
        self.pids.contains_key(&inode)
    }

    /// The owner of a socket; see [`one_program`].
    pub(crate) fn program(&mut self, inode: u32, receives_from_anybody: bool) -> Option<Process> {
        let pids = self.pids.get(&inode)?;
        let (proc, read) = (self.proc, &mut self.read);
        let processes =
            pids.iter().filter_map(|pid| read.entry(*pid).or_insert_with(|| Process::read(proc, *pid)).clone());
        one_program(processes.collect(), receives_from_anybody)
    }
}

/// The owner of a socket that several processes of one program hold; `None` if they run different programs. A connection
/// belongs to the oldest of them, which opened or accepted it. A listener that a server shares with its workers belongs to
/// none of them: which one accepts is not known.
pub(crate) fn one_program(processes: Vec<Process>, receives_from_anybody: bool) -> Option<Process> {
    let same = processes.windows(2).all(|pair| pair[0].path == pair[1].path && pair[0].path.is_some());
    if !same {
        return None;
    }
    if receives_from_anybody {
        return processes.into_iter().reduce(|one, other| one.of_program(&other));
    }
    processes.into_iter().min_by_key(|process| (process.start_ticks, process.pid))
}
