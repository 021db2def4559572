//! The streams of each TCP session of real captures, compared with those that `tshark -z follow` gives.

mod support;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::Command;

use streams::{Cause, Event, Sender, Session};
use support::captures;

/// Streams per call of tshark, which looks at each packet once for each.
const STREAMS_A_CALL: usize = 60;

fn tshark(arguments: &[String]) -> String {
    let output = Command::new("tshark").args(arguments).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A session's endpoints in a fixed order, and what each of them sent.
type Talk = BTreeMap<String, Vec<u8>>;

/// What tshark says of all streams with payload, in the order of the streams.
fn followed(file: &Path) -> Vec<(String, Talk)> {
    let file = file.display().to_string();
    let fields = ["-n", "-r", &file, "-Y", "tcp.len > 0", "-T", "fields", "-E", "occurrence=l", "-e", "tcp.stream"];
    let listed = tshark(&fields.map(str::to_owned));
    let mut numbers: Vec<u64> = listed.lines().filter_map(|line| line.trim().parse().ok()).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let mut talks = Vec::new();
    for some in numbers.chunks(STREAMS_A_CALL) {
        let mut arguments = ["-n", "-q", "-r", &file].map(str::to_owned).to_vec();
        for number in some {
            arguments.extend(["-z".to_owned(), format!("follow,tcp,raw,{number}")]);
        }
        let mut by_number = BTreeMap::new();
        for part in tshark(&arguments).split("Follow: tcp,raw\n").skip(1) {
            let (number, talk) = parsed(part);
            by_number.insert(number, talk);
        }
        talks.extend(by_number.into_values());
    }
    talks
}

fn parsed(part: &str) -> (u64, (String, Talk)) {
    let mut lines = part.lines();
    let number = lines.next().unwrap().rsplit(' ').next().unwrap().parse().unwrap();
    let mut node = || lines.next().unwrap().split_once(": ").unwrap().1.to_owned();
    let nodes = [node(), node()];
    let mut talk: Talk = nodes.iter().map(|node| (node.clone(), Vec::new())).collect();
    for line in lines.take_while(|line| !line.starts_with("===")) {
        let (from, hex) = line.strip_prefix('\t').map_or((&nodes[0], line), |hex| (&nodes[1], hex));
        let bytes = hex.as_bytes().chunks(2).map(|two| std::str::from_utf8(two).unwrap());
        talk.get_mut(from).unwrap().extend(bytes.map(|two| u8::from_str_radix(two, 16).unwrap()));
    }
    let mut ends = nodes.to_vec();
    ends.sort();
    (number, (ends.join(" "), talk))
}

/// What the streams say, with gaps written as tshark writes them.
fn ours(file: &Path) -> Vec<(String, Talk)> {
    let mut talks: BTreeMap<u64, (String, Talk)> = BTreeMap::new();
    let mut last_gap: HashMap<(u64, Sender), usize> = HashMap::new();
    let mut sink = |session: &Session, event: Event<'_>| {
        if session.is_messages() {
            return;
        }
        let name = |sender| session.endpoint(sender).to_string().replace(['[', ']'], "");
        let number = session.number;
        match event {
            Event::Run(run) => {
                let (_, talk) = talks.entry(number).or_insert_with(|| {
                    let mut ends = [name(Sender::Originator), name(Sender::Responder)];
                    ends.sort();
                    (ends.join(" "), ends.into_iter().map(|end| (end, Vec::new())).collect())
                });
                last_gap.remove(&(number, run.sender));
                talk.get_mut(&name(run.sender)).unwrap().extend(run.data);
            }
            Event::Gap(gap) if gap.len > 0 && gap.cause != Cause::Snaplen => {
                let Some((_, talk)) = talks.get_mut(&number) else { return };
                let bytes = talk.get_mut(&name(gap.sender)).unwrap();
                last_gap.insert((number, gap.sender), bytes.len());
                bytes.extend(format!("[{} bytes missing in capture file]", gap.len).bytes());
            }
            Event::End => {
                // tshark does not tell what is missing at the end.
                for sender in Sender::BOTH {
                    if let (Some(at), Some((_, talk))) = (last_gap.remove(&(number, sender)), talks.get_mut(&number)) {
                        talk.get_mut(&name(sender)).unwrap().truncate(at);
                    }
                }
            }
            _ => {}
        }
    };
    support::read(file, &mut sink);
    talks.into_values().collect()
}

#[test]
fn streams_agree_with_tshark_byte_for_byte() {
    let Some(folder) = captures() else { return };
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|name| name == "pcap" || name == "pcapng"))
        .collect();
    files.sort();
    let (mut sessions, mut different) = (0u64, Vec::new());
    for file in files {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        // Sessions between the same endpoints are compared in their order.
        let mut mine: HashMap<String, std::collections::VecDeque<Talk>> = HashMap::new();
        for (ends, talk) in ours(&file) {
            mine.entry(ends).or_default().push_back(talk);
        }
        for (ends, theirs) in followed(&file) {
            sessions += 1;
            let talk = mine.get_mut(&ends).and_then(|talks| talks.pop_front()).unwrap_or_default();
            if talk != theirs {
                let lengths =
                    |talk: &Talk| talk.iter().map(|(end, bytes)| format!("{end} {}", bytes.len())).collect::<Vec<_>>();
                let at: Vec<_> = theirs
                    .iter()
                    .map(|(end, bytes)| {
                        talk.get(end).map(|own| own.iter().zip(bytes).take_while(|(a, b)| a == b).count())
                    })
                    .collect();
                different.push(format!(
                    "{name}: {:?}, tshark {:?}, equal up to {at:?}",
                    lengths(&talk),
                    lengths(&theirs)
                ));
            }
        }
        for (ends, talks) in mine.iter().filter(|(_, talks)| !talks.is_empty()) {
            different.push(format!("{name}: {ends}: {} sessions that tshark does not have", talks.len()));
        }
    }
    eprintln!("{sessions} sessions compared, {} differ", different.len());
    assert!(sessions > 0);
    assert!((different.len() as u64) * 1000 <= sessions, "{}", different.join("\n"));
}
