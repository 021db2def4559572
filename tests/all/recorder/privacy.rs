//! Where packets are in a recorder's memory, according to the kernel and as root sees it: locked, never dumped, and
//! erased from every place they only passed through.

use std::fs::File;
use std::io::Read as _;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::process::Command;

use crate::namespaces::{Namespace, available};

use super::following::{next, numbers};
use super::running::{Recorder, Sender, eventually, unanswered};

/// A writable part of a process's memory.
#[derive(Debug)]
struct Mapping {
    addresses: Range<u64>,
    name: String,
    /// `VmFlags` from /proc/PID/smaps.
    flags: Vec<String>,
}

impl Mapping {
    fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|it| it == flag)
    }
}

/// The writable mappings of a process, except memory that it shares with devices.
fn writable(process: u32) -> Vec<Mapping> {
    let mut mappings: Vec<Mapping> = Vec::new();
    let mut is_writable = false;
    for line in std::fs::read_to_string(format!("/proc/{process}/smaps")).unwrap().lines() {
        if let Some(flags) = line.strip_prefix("VmFlags:") {
            if is_writable {
                mappings.last_mut().unwrap().flags = flags.split_whitespace().map(str::to_owned).collect();
            }
        } else if let Some((range, rest)) = line.split_once(' ')
            && let Some((from, to)) = range.split_once('-')
            && let (Ok(from), Ok(to)) = (u64::from_str_radix(from, 16), u64::from_str_radix(to, 16))
        {
            is_writable = rest.starts_with("rw");
            if is_writable {
                let name = rest.split_whitespace().nth(4).unwrap_or("").to_owned();
                mappings.push(Mapping { addresses: from..to, name, flags: Vec::new() });
            }
        }
    }
    mappings
}

/// How often `bytes` occur in a mapping.
fn occurrences(memory: &File, mapping: &Mapping, bytes: &[u8]) -> usize {
    let length = usize::try_from(mapping.addresses.end - mapping.addresses.start).unwrap();
    let mut content = vec![0; length];
    // A mapping, such as a thread's stack, may disappear meanwhile.
    let read = memory.read_at(&mut content, mapping.addresses.start).unwrap_or(0);
    content[..read].windows(bytes.len()).filter(|window| *window == bytes).count()
}

/// A frame that contains these words.
fn saying(words: &[u8]) -> Vec<u8> {
    let mut frame = unanswered(400);
    frame[100..100 + words.len()].copy_from_slice(words);
    frame
}

/// This holds for all memory that can contain a packet, whether mapped at start or for a query.
#[test]
fn writable_memory_never_reaches_swap_or_a_core_dump() {
    if !available("locked memory") {
        return;
    }
    let (near, far) = Namespace::pair();
    // Without the right to do so, a process can lock no more than a limit, which root cannot raise everywhere.
    let lifted = Command::new("prlimit").args(["--memlock=unlimited:unlimited", "true"]).output();
    let kept = match lifted.is_ok_and(|output| output.status.success()) {
        true => &[][..],
        false => {
            let why = "the limit of locked memory cannot be raised here, so the recorder keeps its privileges";
            crate::machine::skipped("locked memory, in part", why);
            &["--no-drop-privileges"]
        }
    };
    let recorder = Recorder::live(&far, &[&["-m", "32M", "--workers", "2"], kept].concat());
    let mut sender = Sender::new(&near, "near");
    (0..100).for_each(|_| sender.send(&unanswered(1000)));
    recorder.arrived(100);
    assert_eq!(recorder.packets(&[]).len(), 100);
    let process = recorder.child.id();
    let mappings = writable(process);
    let size = |mappings: &mut dyn Iterator<Item = &Mapping>| -> u64 {
        mappings.map(|mapping| mapping.addresses.end - mapping.addresses.start).sum()
    };
    assert!(mappings.iter().any(|mapping| mapping.name == "[heap]" && mapping.has("lo")), "{mappings:?}");
    // The kernel's rings are never swapped, and their pages do not belong to the process.
    let loose = mappings.iter().filter(|it| !it.has("lo") && !it.has("mm") && !it.has("pf"));
    assert_eq!(loose.map(|it| &it.name).collect::<Vec<_>>(), Vec::<&String>::new(), "not locked: {mappings:?}");

    // Packets and sessions are excluded from dumps one mapping at a time; the rest, because dumps are disabled.
    let status = recorder.status();
    let memory = &status.memory;
    let elsewhere = memory.rings_bytes + memory.queries_bytes + memory.compression_bytes;
    let packets = memory.budget_bytes - elsewhere;
    let kept = size(&mut mappings.iter().filter(|it| it.has("lo") && it.has("dd")));
    assert!(kept * 10 > packets * 9, "{kept} of {packets} bytes for packets and sessions are locked and not dumped");
    let file = |name: &str| std::fs::read_to_string(format!("/proc/{process}/{name}")).unwrap();
    assert_eq!(file("coredump_filter").trim(), "00000000");
    let limits = file("limits");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().filter(|word| *word == "0").count(), 2, "{core}");
}

/// Files, streams and listings: the memory that built an answer contains nothing of it afterwards.
#[test]
fn answers_leave_no_copies_of_packets_in_memory() {
    if !available("what answers leave behind") {
        return;
    }
    const WORDS: &[u8] = b"the words that only one packet says, 8f3a5c";
    const ADDRESS: &str = "127.0.0.1:57012";
    let (near, far) = Namespace::pair();
    far.ip("link set lo up");
    let recorder = Recorder::live(&far, &["-m", "32M", "--pcap-over-ip", ADDRESS, "--pcap-over-ip-past", "10m"]);
    let mut sender = Sender::new(&near, "near");
    (0..1000).for_each(|_| sender.send(&saying(WORDS)));
    recorder.arrived(1000);

    for arguments in [&[][..], &["--format", "pcap"], &["ether proto 0x88b5", "--whole-sessions"]] {
        assert_eq!(recorder.packets(arguments).len(), 1000, "{arguments:?}");
    }
    let reply = recorder.ask(&["get", "--follow", "-c", "1000", "-w", "/dev/null"]);
    assert_eq!(reply.code, 0, "{reply:?}");
    assert_eq!(recorder.ask(&["flows"]).code, 0);
    let mut stream = far.enter(|| std::net::TcpStream::connect(ADDRESS).unwrap());
    let mut begun = [0; 4096];
    stream.read_exact(&mut begun).unwrap();
    drop(stream);
    let stream = far.enter(|| std::net::TcpStream::connect(ADDRESS).unwrap());
    let ends = stream.try_clone().unwrap();
    let reply = numbers(stream);
    (0..1000).for_each(|_| assert_eq!(next(&reply), 0x5555_5555));
    ends.shutdown(std::net::Shutdown::Both).unwrap();

    let memory = File::open(format!("/proc/{}/mem", recorder.child.id())).unwrap();
    let found = |stays: bool| {
        let mappings = writable(recorder.child.id()).into_iter().filter(|mapping| mapping.has("dd") == stays);
        let found = mappings.map(|mapping| (occurrences(&memory, &mapping, WORDS), mapping.name));
        found.filter(|(count, _)| *count > 0).collect::<Vec<_>>()
    };
    assert!(found(true).iter().map(|(count, _)| count).sum::<usize>() >= 1000, "it is looked for where it must be");
    // The buffers of the last connection are erased when it ends.
    eventually("nothing is left of it elsewhere", || found(false).is_empty());
}
