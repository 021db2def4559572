//! Our lines compared with those of `tcpdump -n`: equal up to the colon after the destination.

use std::process::Command;

use jiff::tz::TimeZone;
use retrocap::decode::decode;
use retrocap::decode::text::{Line, Precision, TextWriter};
use retrocap::time::Timestamp;

use crate::filters::read;
use crate::machine;

#[test]
fn lines_begin_like_those_of_tcpdump() {
    if !machine::have("lines against tcpdump", "tcpdump") {
        return;
    }
    let mut compared = 0;
    for path in machine::captures("lines against tcpdump") {
        let Some(stored) = read(&path) else { continue };
        let output =
            Command::new("tcpdump").env("TZ", "UTC").arg("-n").arg("-r").arg(&path).output().expect("tcpdump runs");
        let theirs = String::from_utf8_lossy(&output.stdout);
        // Only the first line of a packet begins with a time.
        let theirs = theirs.lines().filter(|line| line.get(2..3) == Some(":") && line.get(8..9) == Some("."));
        let mut writer = TextWriter::new(TimeZone::UTC, Precision::Micro);
        for ((secs, micros, original_len, data), theirs) in stored.packets.iter().zip(theirs) {
            let seconds = u64::try_from(*secs).expect("after 1970");
            let time = Timestamp::from_unix(seconds, u32::try_from(micros * 1000).expect("below a second"));
            let decoded = decode(stored.link_type, data);
            let line = Line { time, link_type: stored.link_type, data, original_len: *original_len, decoded: &decoded };
            let mut ours = String::new();
            writer.write(&mut ours, &line);
            let Some(expected) = beginning(theirs) else { continue };
            assert_eq!(beginning(&ours).as_ref(), Some(&expected), "{theirs}\n{ours} in {}", path.display());
            compared += 1;
        }
    }
    eprintln!("{compared} lines compared");
}

/// The line up to the colon after the destination; `None` where there is no destination, or where only tcpdump
/// dissects the protocol. The interface name in a cooked capture depends on the host that reads it.
fn beginning(line: &str) -> Option<String> {
    let (time, rest) = line.trim_end().split_once(' ')?;
    let rest = match rest.find(" IP ").or_else(|| rest.find(" IP6 ")) {
        Some(at) if rest.contains(" In ") || rest.contains(" Out ") => rest.get(at + 1..)?,
        _ => rest,
    };
    if rest.starts_with("ARP, ") {
        return Some(format!("{time} {rest}"));
    }
    if !["IP ", "IP6 ", "PPPoE ", "MPLS "].iter().any(|known| rest.starts_with(known)) {
        return None;
    }
    let arrow = rest.find(" > ")?;
    let end = rest.get(arrow..)?.find(": ").map_or(rest.len(), |colon| arrow + colon + 1);
    Some(format!("{time} {}", rest.get(..end)?))
}
