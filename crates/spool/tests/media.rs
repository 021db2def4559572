//! Real media: a process that is killed in a loop, small file systems that fill up, become read-only or fail.
#![cfg(target_os = "linux")]

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use base::interface::Interface;
use base::packet::{Direction, InterfaceId, LinkType, Packet, PacketFlags};
use base::time::Timestamp;
use spool::band::Band;
use spool::board::KEYS_MAX;
use spool::catalogue::Catalogue;
use spool::directory::Directory;
use spool::read::{Packets, Selection};
use spool::writer::{Options, SizeLimit, Spool, SpoolState};

/// If set, the test program writes to the spool in this directory until it is killed.
const CHILD: &str = "RETROCAP_TEST_SPOOL";
/// The number of the first packet of the child.
const FIRST: &str = "RETROCAP_TEST_FIRST";

fn options(limit: SizeLimit, level: Option<u8>) -> Options {
    Options { limit, keep: None, level, comments: Vec::new(), keys_max: KEYS_MAX }
}

fn now() -> Timestamp {
    SystemTime::now().into()
}

fn interface() -> Interface {
    Interface {
        id: InterfaceId(0),
        name: "eth0".to_owned(),
        index: 1,
        link_type: LinkType::ETHERNET,
        description: None,
        os: None,
        up: true,
        gone: None,
        since: Timestamp::MIN,
    }
}

/// A packet that carries its number.
fn packet(number: u64, data: &mut Vec<u8>) -> Packet<'_> {
    data.clear();
    data.extend_from_slice(&[2; 12]);
    data.extend_from_slice(&[0x88, 0xb5]);
    data.extend_from_slice(&number.to_be_bytes());
    data.resize(60 + usize::try_from(number % 1400).unwrap(), 7);
    Packet {
        time: now(),
        interface: InterfaceId(0),
        link_type: LinkType::ETHERNET,
        direction: Direction::In,
        flags: PacketFlags::default(),
        original_len: u32::try_from(data.len()).unwrap(),
        drops_before: 0,
        data,
    }
}

fn numbers(path: &Path) -> Vec<u64> {
    let directory = Directory::open_to_read(path).unwrap();
    let (catalogue, opening) = Catalogue::open(&directory, false).unwrap();
    assert!(opening.failed.is_empty(), "{opening:?}");
    let mut packets = Packets::new(directory, &catalogue, &Selection::default());
    let mut numbers = Vec::new();
    while let Some(found) = packets.next() {
        numbers.push(u64::from_be_bytes(*found.packet.data[14..].first_chunk().unwrap()));
    }
    numbers
}

/// Writes packets, and prints the number below which all packets of a band are durable.
fn child(path: &Path, first: u64) -> ! {
    let directory = Directory::open_to_write(path).unwrap();
    let (mut spool, _) = Spool::open(directory, options(SizeLimit::Bytes(1 << 30), Some(1)), now()).unwrap();
    let mut data = Vec::new();
    for number in first.. {
        let band = Band::all().nth(usize::try_from(number % 6).unwrap()).unwrap();
        while spool.put(band, &interface(), &packet(number, &mut data), now()).is_err() {
            spool.turn(now());
        }
        for band in spool.turn(now()).synced {
            println!("{} {number}", band.0);
        }
        if number % 64 == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    unreachable!("it is killed before")
}

#[test]
fn what_was_durable_survives_kill_9_in_a_loop() {
    if let Some(path) = std::env::var_os(CHILD) {
        child(Path::new(&path), std::env::var(FIRST).unwrap().parse().unwrap());
    }
    let folder = tempfile::tempdir().unwrap();
    let mut durable: BTreeSet<u64> = BTreeSet::new();
    let mut first = 0u64;
    for round in 0..5u64 {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "what_was_durable_survives_kill_9_in_a_loop", "--nocapture"]);
        command.env(CHILD, folder.path()).env(FIRST, first.to_string());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut last = first;
        let mut answered = 0;
        while answered < 7 + round {
            let line = lines.next().unwrap().unwrap();
            let Some((band, number)) = line.split_once(' ') else { continue };
            let (Ok(band), Ok(number)) = (band.parse::<u64>(), number.parse::<u64>()) else { continue };
            durable.extend((first..=number).filter(|known| known % 6 == band));
            last = last.max(number);
            answered += 1;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        first = last + 1_000_000;
        let found = numbers(folder.path());
        let distinct: BTreeSet<u64> = found.iter().copied().collect();
        assert_eq!(distinct.len(), found.len(), "round {round}: some are there twice");
        let lost: Vec<_> = durable.difference(&distinct).take(5).collect();
        assert!(lost.is_empty(), "round {round}: durable packets are lost: {lost:?}");
    }
    assert!(durable.len() > 1000, "{}", durable.len());
}

/// A small file system that is unmounted at the end.
struct SmallFileSystem(tempfile::TempDir);

impl SmallFileSystem {
    /// A tmpfs.
    fn new(options: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(folder.path()).status();
        if !mounted.is_ok_and(|status| status.success()) {
            eprintln!("SKIPPED: a small file system cannot be mounted (root is needed)");
            return None;
        }
        Some(Self(folder))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallFileSystem {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn a_file_system_that_fills_up_costs_old_files_and_then_refuses_packets() {
    let Some(small) = SmallFileSystem::new("size=24m") else { return };
    let path = small.path().join("spool");
    let directory = Directory::open_to_write(&path).unwrap();
    assert!(directory.is_in_memory());
    let (mut spool, _) = Spool::open(directory, options(SizeLimit::Percent(90.0), None), now()).unwrap();
    let mut data = Vec::new();
    let (mut refused, mut other) = (0, None::<std::fs::File>);
    for number in 0..60_000u64 {
        if number == 20_000 {
            other = Some(std::fs::File::create(small.path().join("other")).unwrap());
        }
        if (20_000..45_000).contains(&number) && number % 100 == 0 {
            // Another program takes more and more, until nothing is left.
            let _ = other.as_mut().unwrap().write_all(&[1; 512 << 10]);
        }
        if number == 45_000 {
            assert_eq!(spool.state(), SpoolState::Full);
            other = None;
            std::fs::remove_file(small.path().join("other")).unwrap();
            std::thread::sleep(Duration::from_millis(1100));
            spool.sync(now());
        }
        let band = Band::all().nth(usize::try_from(number % 6).unwrap()).unwrap();
        refused += u64::from(spool.put(band, &interface(), &packet(number, &mut data), now()).is_err());
        if number % 1000 == 0 {
            spool.sync(now());
            let used: u64 =
                std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
            assert!(used <= 22 << 20, "{used} bytes");
        }
        spool.turn(now());
    }
    spool.close(now());
    assert!(refused > 0 && spool.counts().removed_files > 0, "{refused} {:?}", spool.counts());
    assert_eq!(spool.state(), SpoolState::Ok, "it recovers when there is room again");
    drop(spool);
    let found = numbers(&path);
    assert!(found.iter().any(|number| *number > 50_000), "it wrote again");
    let directory = Directory::open_to_read(&path).unwrap();
    spool::check::check(&directory, |name, report| assert!(report.unwrap().is_whole(), "{name}")).unwrap();
}

/// ext4 in a file, on a loop device.
struct LoopDisk {
    image: tempfile::NamedTempFile,
    mounted: SmallFileSystem,
}

impl LoopDisk {
    fn new() -> Option<Self> {
        let image = tempfile::NamedTempFile::new().unwrap();
        image.as_file().set_len(64 << 20).unwrap();
        let made = Command::new("mkfs.ext4").args(["-q", "-F"]).arg(image.path()).status();
        if !made.is_ok_and(|status| status.success()) {
            eprintln!("SKIPPED: mkfs.ext4 is not installed");
            return None;
        }
        let mounted = SmallFileSystem(tempfile::tempdir().unwrap());
        Self::mount(image.path(), mounted.path()).then_some(Self { image, mounted })
    }

    fn mount(image: &Path, at: &Path) -> bool {
        let mounted = Command::new("mount").args(["-o", "loop,errors=remount-ro"]).args([image, at]).status();
        let mounted = mounted.is_ok_and(|status| status.success());
        if !mounted {
            eprintln!("SKIPPED: a loop device cannot be mounted (root and /dev/loop* are needed)");
        }
        mounted
    }

    /// As after a reboot of the machine.
    fn mount_again(&self) -> bool {
        let unmounted = Command::new("umount").arg(self.mounted.path()).status();
        unmounted.is_ok_and(|status| status.success()) && Self::mount(self.image.path(), self.mounted.path())
    }

    /// Name of the device.
    fn device(&self) -> Option<String> {
        let mounts = std::fs::read_to_string("/proc/mounts").ok()?;
        let line = mounts.lines().find(|line| line.split(' ').nth(1) == self.mounted.path().to_str())?;
        Some(line.split(' ').next()?.strip_prefix("/dev/")?.to_owned())
    }
}

/// Writes packets from `first` on until the disk has failed, or 20,000 of them. Returns which were durable, by number.
fn write_until_failure(spool: &mut Spool<Directory>, first: u64, mut fail: impl FnMut(u64)) -> (BTreeSet<u64>, u64) {
    let (mut data, mut durable, mut accepted) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    let end = first + 20_000;
    for number in first..end {
        fail(number - first);
        let band = Band::all().nth(usize::try_from(number % 6).unwrap()).unwrap();
        if spool.put(band, &interface(), &packet(number, &mut data), now()).is_ok() {
            accepted.insert(number);
        }
        if number % 500 == 0 {
            spool.sync(now());
        }
        let turn = spool.turn(now());
        for band in turn.rewound {
            accepted.retain(|number| number % 6 != u64::from(band.0) || durable.contains(number));
        }
        for band in turn.synced {
            durable.extend(accepted.iter().filter(|number| *number % 6 == u64::from(band.0)));
        }
        if spool.state() == SpoolState::Failed {
            return (durable, number + 1);
        }
    }
    (durable, end)
}

/// Checks what is there after a failure: all that was durable, and nothing that was never put.
fn holds_what_was_durable(path: &Path, durable: &BTreeSet<u64>, end: u64) {
    let found = numbers(path);
    let distinct: BTreeSet<u64> = found.iter().copied().collect();
    assert_eq!(distinct.len(), found.len(), "some are there twice");
    let lost: Vec<_> = durable.difference(&distinct).take(5).collect();
    assert!(durable.len() > 1000 && lost.is_empty(), "{} durable, of which are lost {lost:?}", durable.len());
    assert!(distinct.iter().all(|number| *number < end), "something was invented");
}

#[test]
fn a_disk_that_fails_costs_nothing_that_was_durable() {
    let Some(disk) = LoopDisk::new() else { return };
    let path = disk.mounted.path().join("spool");
    let limit = SizeLimit::Percent(90.0);
    let (mut spool, _) = Spool::open(Directory::open_to_write(&path).unwrap(), options(limit, None), now()).unwrap();
    // Everything that was not synced is gone, and later writes fail, as when a disk is pulled.
    let shutdown = "import fcntl, os, struct, sys\n\
                    fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('I', 2))";
    let mut is_done = false;
    let (durable, end) = write_until_failure(&mut spool, 0, |number| {
        if number == 6000 {
            let status = Command::new("python3").args(["-c", shutdown]).arg(disk.mounted.path()).status();
            is_done = status.is_ok_and(|status| status.success());
        }
    });
    if !is_done {
        eprintln!("SKIPPED: the file system cannot be shut down (python3 is needed)");
        return;
    }
    assert_eq!(spool.state(), SpoolState::Failed, "{:?}", spool.counts());
    assert!(spool.problem().is_some() && spool.counts().failures > 0);
    drop(spool);
    assert!(disk.mount_again());
    holds_what_was_durable(&path, &durable, end);
    // The next recorder goes on in the same directory.
    let (mut spool, _) = Spool::open(Directory::open_to_write(&path).unwrap(), options(limit, None), now()).unwrap();
    let (more, _) = write_until_failure(&mut spool, 100_000, |_| {});
    spool.close(now());
    assert!(spool.state() == SpoolState::Ok && more.len() > 10_000);
    let directory = Directory::open_to_read(&path).unwrap();
    spool::check::check(&directory, |name, report| assert!(report.unwrap().is_whole(), "{name}")).unwrap();
}

#[test]
fn a_file_system_that_becomes_read_only_costs_nothing_that_was_durable() {
    let Some(disk) = LoopDisk::new() else { return };
    let path = disk.mounted.path().join("spool");
    let trigger = format!("/sys/fs/ext4/{}/trigger_fs_error", disk.device().unwrap_or_default());
    if !Path::new(&trigger).exists() {
        eprintln!("SKIPPED: there is no {trigger}");
        return;
    }
    let limit = SizeLimit::Percent(90.0);
    let (mut spool, _) = Spool::open(Directory::open_to_write(&path).unwrap(), options(limit, None), now()).unwrap();
    let (durable, end) = write_until_failure(&mut spool, 0, |number| {
        if number == 6000 {
            std::fs::write(&trigger, "1").unwrap();
        }
    });
    assert_eq!(spool.state(), SpoolState::Failed, "{:?}", spool.counts());
    let problem = spool.problem().unwrap().to_owned();
    assert!(problem.contains("Read-only") || problem.contains("Input/output"), "{problem}");
    holds_what_was_durable(&path, &durable, end);
    drop(spool);
}

#[test]
fn a_file_system_without_free_inodes_costs_old_files() {
    let Some(small) = SmallFileSystem::new("size=64m,nr_inodes=90") else { return };
    let path = small.path().join("spool");
    // Room for many more files than there are inodes.
    let limit = SizeLimit::Bytes(16 << 20);
    let (mut spool, _) = Spool::open(Directory::open_to_write(&path).unwrap(), options(limit, None), now()).unwrap();
    let (durable, _) = write_until_failure(&mut spool, 0, |_| {});
    spool.close(now());
    assert_eq!(spool.state(), SpoolState::Ok, "{:?}", spool.problem());
    assert!(spool.counts().removed_files > 0, "{:?}", spool.counts());
    let files = std::fs::read_dir(&path).unwrap().count();
    assert!(files < 90 - 60, "some inodes are left to other programs: {files} files");
    let newest = *durable.last().unwrap();
    assert!(numbers(&path).contains(&newest));
}
