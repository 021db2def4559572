//! The spool on a real file system: packets from real captures through the engine to disk, and back with the readers
//! that people have.
#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use base::interface::Interfaces;
use base::source::{Batch, Source as _};
use base::time::Timestamp;
use engine::pipeline::{Config, Pipeline};
use formats::reader::FileSource;
use spool::board::KEYS_MAX;
use spool::catalogue::Catalogue;
use spool::directory::Directory;
use spool::follow::Follower;
use spool::read::{Packets, Selection};
use spool::writer::{Options, SizeLimit, Spool};

fn captures() -> Vec<PathBuf> {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/captures"));
    let Ok(entries) = std::fs::read_dir(folder) else {
        eprintln!("SKIPPED: there are no captures in {}", folder.display());
        return Vec::new();
    };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|end| end == "pcap" || end == "pcapng"));
    files.sort();
    files
}

fn pipeline() -> Pipeline {
    Pipeline::new(Config::new(32 << 20, 256 << 20)).unwrap()
}

type Count = BTreeMap<(Timestamp, String, Vec<u8>), u64>;

/// Spools captures and returns what they hold, and the number of packets.
fn spool_captures(files: &[PathBuf], folder: &Path, level: Option<u8>) -> (Count, u64) {
    let interfaces = Arc::<Interfaces>::default();
    let mut pipeline = pipeline();
    let options =
        Options { limit: SizeLimit::Bytes(1 << 30), keep: None, level, comments: Vec::new(), keys_max: KEYS_MAX };
    let mut now = Timestamp::from_unix(1_790_000_000, 0);
    let directory = Directory::open_to_write(folder).unwrap();
    let (mut spool, _) = Spool::open(directory, options, now).unwrap();
    let mut follower = Follower::new(vec![pipeline.worker()], Arc::clone(&interfaces), &[]);
    let (mut expected, mut packets) = (Count::new(), 0);
    for file in files {
        let mut source = FileSource::open(file, Arc::clone(&interfaces)).unwrap();
        loop {
            let read = source.batch(&mut |packet| {
                let name = interfaces.snapshot()[usize::from(packet.interface.0)].name.clone();
                *expected.entry((packet.time, name, packet.data.to_vec())).or_default() += 1;
                packets += 1;
                pipeline.ingest(std::slice::from_ref(packet));
            });
            // Counts are published between batches.
            let _ = pipeline.run(&mut Nothing, &AtomicBool::new(false));
            now = now.saturating_add(Duration::from_millis(300));
            follower.pass(&mut spool, now);
            if !matches!(read, Ok(Batch::More | Batch::Idle)) {
                break;
            }
        }
    }
    follower.finish(&mut spool, now);
    let progress = follower.progress(&spool, now);
    assert_eq!((progress.behind_packets, progress.lost.packets()), (0, 0), "{progress:?}");
    spool.close(now);
    assert_eq!(spool.counts().packets, packets);
    (expected, packets)
}

/// A source that has ended.
struct Nothing;

impl base::source::Source for Nothing {
    fn bursts(&mut self, _: &mut impl FnMut(&[base::packet::Packet<'_>])) -> Result<Batch, base::source::SourceError> {
        Ok(Batch::End)
    }

    fn counts(&self) -> base::source::SourceCounts {
        Default::default()
    }
}

fn files_of(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.to_string_lossy().contains(".pcapng"));
    files.sort();
    files
}

/// Whether a program is installed. A test that needs it says loudly that it is skipped otherwise.
fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        eprintln!("SKIPPED: {program} is not installed");
    }
    found
}

fn run(program: &str, arguments: &[&str], file: &Path) -> String {
    let output = Command::new(program).args(arguments).arg(file).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {}: {errors}", file.display());
    assert!(!errors.contains("cut short") && !errors.contains("appears to"), "{program}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_packet_of_the_captures_comes_back_and_tools_read_every_file() {
    let captures = captures();
    if captures.is_empty() {
        return;
    }
    for level in [None, Some(1)] {
        let folder = tempfile::tempdir().unwrap();
        let (expected, packets) = spool_captures(&captures, folder.path(), level);
        let directory = Directory::open_to_read(folder.path()).unwrap();
        let (catalogue, opening) = Catalogue::open(&directory, false).unwrap();
        assert_eq!((opening.recovered, opening.failed.len()), (0, 0), "{opening:?}");
        let mut found = Count::new();
        let mut all = Packets::new(directory, &catalogue, &Selection::default());
        while let Some(packet) = all.next() {
            let key = (packet.packet.time, packet.interface.name.clone(), packet.packet.data.to_vec());
            *found.entry(key).or_default() += 1;
        }
        assert_eq!(found.values().sum::<u64>(), packets);
        assert!(found == expected, "other packets came back, level {level:?}");
        let files = files_of(folder.path());
        assert!(files.len() >= 6, "{files:?}");
        let one_link_type = |path: &Path| {
            let text = run("capinfos", &["-E", "-m"], path);
            !text.contains("per packet") && !text.contains("Per packet")
        };
        let sealed: BTreeMap<String, u64> =
            catalogue.sealed.iter().map(|entry| (entry.name.clone(), entry.footer.packets)).collect();
        for file in &files {
            let expected = sealed[&file.file_name().unwrap().to_string_lossy().into_owned()];
            if has("capinfos") {
                let text = run("capinfos", &["-c", "-M", "-T", "-r"], file);
                let count = text.split_whitespace().last().unwrap().parse::<u64>().unwrap();
                assert_eq!(count, expected, "capinfos {}", file.display());
            }
            if has("tshark") {
                let text = run("tshark", &["-n", "-T", "fields", "-e", "frame.number", "-r"], file);
                assert_eq!(text.lines().count() as u64, expected, "tshark {}", file.display());
            }
            if level.is_none() && has("tcpdump") && one_link_type(file) {
                let output = Command::new("tcpdump").args(["-nn", "-t", "-r"]).arg(file).output().unwrap();
                let errors = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "tcpdump {}: {errors}", file.display());
            }
        }
    }
}

#[test]
fn a_second_recorder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let first = Directory::open_to_write(folder.path()).unwrap();
    let second = Directory::open_to_write(folder.path()).unwrap_err();
    assert!(second.to_string().contains("another recorder"), "{second}");
    drop(first);
    Directory::open_to_write(folder.path()).unwrap();
}
