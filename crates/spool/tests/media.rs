//! Real media: a process that is killed in a loop, and a small file system that fills up.
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

/// A tmpfs that is unmounted at the end.
struct SmallFileSystem(tempfile::TempDir);

impl SmallFileSystem {
    fn new(mib: u64) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let size = format!("size={mib}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder.path()).status();
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
    let Some(small) = SmallFileSystem::new(24) else { return };
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
