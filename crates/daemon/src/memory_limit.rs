//! How much memory this process may use: the machine's, or what its cgroups leave of it (cgroups(7), versions 1 and 2).

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use engine::budget::{ByteSize, MemorySize, Split};

/// The share taken when no size is set.
const MEMORY_DEFAULT: MemorySize = MemorySize::Percent(1.0);
/// What the process needs beside its budget: code, stacks, the heap of the service (SPECIFICATION.md, promise 1).
pub const BESIDE_BUDGET_BYTES: u64 = 32 << 20;

/// The memory that a process may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryLimit {
    /// Physical memory of the machine.
    pub physical_bytes: u64,
    /// The lowest limit of this process's cgroup and of those that contain it, if there is one below that.
    pub cgroup_bytes: Option<u64>,
}

impl MemoryLimit {
    /// As the system tells; `None` where it does not. It is read once, because a reload can no longer read it.
    pub fn of_this_process() -> Option<Self> {
        static LIMIT: LazyLock<Option<MemoryLimit>> = LazyLock::new(MemoryLimit::read);
        *LIMIT
    }

    /// The limit of this process's cgroups, if there is one.
    pub fn of_cgroup() -> Option<u64> {
        Self::of_this_process().and_then(|limit| limit.cgroup_bytes)
    }

    fn read() -> Option<Self> {
        let physical_bytes = kibibytes(&std::fs::read_to_string("/proc/meminfo").ok()?, "MemTotal:")?;
        let cgroups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let read = |path: &Path| std::fs::read_to_string(path).ok();
        let cgroup_bytes = cgroup_limit(&cgroups, &mounts, read).filter(|limit| *limit < physical_bytes);
        Some(Self { physical_bytes, cgroup_bytes })
    }

    /// Bytes that the process may use.
    pub fn usable_bytes(self) -> u64 {
        self.cgroup_bytes.unwrap_or(self.physical_bytes)
    }

    /// The largest budget that fits: below a cgroup's limit the process has to fit too.
    pub fn largest_budget_bytes(self) -> u64 {
        match self.cgroup_bytes {
            Some(limit) => limit.saturating_sub(BESIDE_BUDGET_BYTES),
            None => self.physical_bytes,
        }
    }
}

/// Why a memory budget cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BudgetError {
    /// A percentage of an unknown size.
    #[error("the system does not say how much memory this machine has: try -m 40MiB or -m 1G")]
    UnknownMemory,
    /// More than the machine has.
    #[error("{budget} of memory is more than this machine has ({physical}): try -m 1% or -m 40MiB")]
    AboveMachine {
        /// What was asked for.
        budget: ByteSize,
        /// What there is.
        physical: ByteSize,
    },
    /// More than the cgroup leaves beside the process itself.
    #[error(
        "a budget of {budget} does not fit: the cgroup's memory limit is {limit}, and {beside} of it is for the program \
         beside its budget; the largest budget that works is {largest}: try -m {largest_m}M",
        largest_m = .largest.0 >> 20
    )]
    AboveCgroup {
        /// What was asked for.
        budget: ByteSize,
        /// The lowest limit of all cgroups around the process.
        limit: ByteSize,
        /// For the process itself.
        beside: ByteSize,
        /// What is left.
        largest: ByteSize,
    },
    /// The cgroup is too small for any budget.
    #[error(
        "the cgroup's memory limit of {limit} is too low to record: the smallest budget is {smallest}, and the program needs \
         {beside} beside it; raise the limit to at least {needed}"
    )]
    CgroupTooSmall {
        /// The lowest limit of all cgroups around the process.
        limit: ByteSize,
        /// The smallest budget.
        smallest: ByteSize,
        /// For the process itself.
        beside: ByteSize,
        /// Both.
        needed: ByteSize,
    },
}

/// Bytes of the budget: a size as it is, a percentage of the usable memory, at least [`Split::BYTES_MIN`].
///
/// # Errors
///
/// When the process may not use so much, or when the system does not tell how much a percentage is.
pub fn budget_bytes(memory: Option<MemorySize>) -> Result<u64, BudgetError> {
    budget_within(memory.unwrap_or(MEMORY_DEFAULT), MemoryLimit::of_this_process())
}

fn budget_within(memory: MemorySize, limit: Option<MemoryLimit>) -> Result<u64, BudgetError> {
    let budget = match (memory, limit) {
        (MemorySize::Bytes(size), _) => size.0,
        (MemorySize::Percent(_), Some(limit)) => memory.resolve(limit.usable_bytes()).max(Split::BYTES_MIN),
        (MemorySize::Percent(_), None) => return Err(BudgetError::UnknownMemory),
    };
    let Some(limit) = limit else { return Ok(budget) };
    if budget > limit.physical_bytes {
        let [budget, physical] = [budget, limit.physical_bytes].map(ByteSize);
        return Err(BudgetError::AboveMachine { budget, physical });
    }
    let largest = limit.largest_budget_bytes();
    match limit.cgroup_bytes {
        Some(cgroup) if largest < Split::BYTES_MIN => {
            let needed = ByteSize(Split::BYTES_MIN + BESIDE_BUDGET_BYTES);
            let [limit, smallest, beside] = [cgroup, Split::BYTES_MIN, BESIDE_BUDGET_BYTES].map(ByteSize);
            Err(BudgetError::CgroupTooSmall { limit, smallest, beside, needed })
        }
        Some(cgroup) if budget > largest => {
            // Whole MiB, so that the number in the message works.
            let [budget, limit, beside, largest] =
                [budget, cgroup, BESIDE_BUDGET_BYTES, largest >> 20 << 20].map(ByteSize);
            Err(BudgetError::AboveCgroup { budget, limit, beside, largest })
        }
        _ => Ok(budget),
    }
}

/// The lowest limit of a process's memory cgroup and of all that contain it, in either version's hierarchy.
fn cgroup_limit(cgroups: &str, mounts: &str, read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    cgroups
        .lines()
        .filter_map(|line| {
            // `12:memory:/docker/4f…` of version 1, `0::/system.slice/…` of version 2.
            let mut fields = line.splitn(3, ':');
            let (number, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            let unified = number == "0" && controllers.is_empty();
            if !unified && !controllers.split(',').any(|controller| controller == "memory") {
                return None;
            }
            let (root, mount) = mount_of(mounts, unified)?;
            let file = if unified { "memory.max" } else { "memory.limit_in_bytes" };
            // A container sees its own cgroup as the root of the mount.
            let below = Path::new(path).strip_prefix(&root).unwrap_or(Path::new(""));
            let below = if below.components().any(|part| part.as_os_str() == "..") { Path::new("") } else { below };
            let leaf = mount.join(below);
            let around = leaf.ancestors().take_while(|directory| directory.starts_with(&mount));
            around.filter_map(|directory| read(&directory.join(file))?.trim().parse::<u64>().ok()).min()
        })
        .min()
}

/// The root within the hierarchy and the mount point of the memory controller (`/proc/self/mountinfo`, proc(5)).
fn mount_of(mounts: &str, unified: bool) -> Option<(PathBuf, PathBuf)> {
    mounts.lines().find_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut of_system = file_system.split(' ');
        let (kind, options) = (of_system.next()?, of_system.nth(1)?);
        let right = match unified {
            true => kind == "cgroup2",
            false => kind == "cgroup" && options.split(',').any(|option| option == "memory"),
        };
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        right.then(|| (unescape(root), unescape(point)))
    })
}

/// A path as mountinfo writes it: spaces and others as `\040`.
fn unescape(path: &str) -> PathBuf {
    let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    escapes.iter().fold(path.to_owned(), |path, (from, to)| path.replace(from, to)).into()
}

/// A value of `/proc/meminfo` in bytes.
pub(crate) fn kibibytes(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;
    const MIB: u64 = 1 << 20;

    #[test]
    fn honest_13_10_the_lowest_limit_around_the_process_counts() {
        let v1 = "30 25 0:26 / /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory\n\
                  31 25 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n";
        let v2 = "29 23 0:25 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        let container = "600 500 0:25 /docker/4f /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw\n";
        let spaced = "29 23 0:25 / /sys/fs/my\\040cgroups rw - cgroup2 cgroup2 rw\n";
        for (cgroups, mounts, files, limit) in [
            ("0::/a/b", v2, &[("/sys/fs/cgroup/a/b/memory.max", "max")][..], None),
            ("0::/a/b", v2, &[("/sys/fs/cgroup/a/b/memory.max", "128\n")], Some(128)),
            (
                "0::/a/b",
                v2,
                &[("/sys/fs/cgroup/a/b/memory.max", "128"), ("/sys/fs/cgroup/a/memory.max", "64")],
                Some(64),
            ),
            (
                "0::/a/b",
                v2,
                &[("/sys/fs/cgroup/a/b/memory.max", "max"), ("/sys/fs/cgroup/a/memory.max", "64")],
                Some(64),
            ),
            ("0::/a", v2, &[("/sys/fs/cgroup/other/memory.max", "64")], None),
            ("4:memory:/rct\n0::/", v1, &[("/sys/fs/cgroup/memory/rct/memory.limit_in_bytes", "64")], Some(64)),
            ("4:cpu:/rct", v1, &[("/sys/fs/cgroup/memory/rct/memory.limit_in_bytes", "64")], None),
            ("0::/docker/4f", container, &[("/sys/fs/cgroup/memory.max", "64")], Some(64)),
            ("0::/", container, &[("/sys/fs/cgroup/memory.max", "64")], Some(64)),
            ("0::/../other", container, &[("/sys/fs/cgroup/memory.max", "64")], Some(64)),
            ("0::/a", spaced, &[("/sys/fs/my cgroups/a/memory.max", "64")], Some(64)),
            ("nonsense", v2, &[], None),
        ] {
            let read = |path: &Path| {
                files.iter().find(|(name, _)| Path::new(name) == path).map(|(_, text)| (*text).to_owned())
            };
            assert_eq!(cgroup_limit(cgroups, mounts, read), limit, "{cgroups}: {files:?}");
        }
    }

    #[test]
    fn honest_13_10_a_share_is_of_what_may_be_used_and_too_much_names_what_works() {
        let machine = |cgroup_bytes| Some(MemoryLimit { physical_bytes: 24 * GIB, cgroup_bytes });
        let size = |text: &str| text.parse::<MemorySize>().unwrap();
        assert_eq!(budget_within(size("1%"), machine(None)), Ok(24 * GIB / 100));
        assert_eq!(budget_within(size("1%"), machine(Some(128 * MIB))), Ok(Split::BYTES_MIN));
        assert_eq!(budget_within(size("10%"), machine(Some(4 * GIB))), Ok(4 * GIB / 10));
        let error = budget_within(size("120M"), machine(Some(128 * MIB))).unwrap_err().to_string();
        assert!(error.contains("limit is 128 MiB") && error.ends_with("try -m 96M"), "{error}");
        assert_eq!(budget_within(size("96M"), machine(Some(128 * MIB))), Ok(96 * MIB));
        let error = budget_within(size("90%"), machine(Some(128 * MIB))).unwrap_err().to_string();
        assert!(error.ends_with("try -m 96M"), "{error}");
        let error = budget_within(size("16M"), machine(Some(40 * MIB))).unwrap_err().to_string();
        assert!(error.contains("raise the limit to at least 48 MiB"), "{error}");
        let error = budget_within(size("1000G"), machine(None)).unwrap_err().to_string();
        assert!(error.contains("try -m 1%"), "{error}");
        assert_eq!(budget_within(size("5"), machine(None)), Ok(5), "the split says what is too small");
    }

    #[test]
    fn the_kernel_counts_in_kibibytes() {
        let text = "MemTotal:       16384 kB\nMemFree:         1 kB\n";
        assert_eq!((kibibytes(text, "MemTotal:"), kibibytes(text, "MemFrei:")), (Some(16 << 20), None));
    }
}
