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

/// The fields of tshark that [`expected`] looks at, in its order.
const FIELDS: [&str; 10] = [
    "dns.flags.response",
    "dns.qry.name",
    "dns.a",
    "dns.count.answers",
    "udp.port",
    "icmp.type",
    "http.request.uri",
    "tcp.len",
    "tcp.reassembled_in",
    "tls.handshake.extensions_server_name",
];

/// What a line must say of the packets that tshark understood: a kind, and the text. Only messages that begin in a segment of
/// their own are taken.
fn expected(path: &std::path::Path) -> Vec<(usize, String)> {
    let mut command = Command::new("tshark");
    command.args(["-n", "-Y", "dns || http.request || tls.handshake.type == 1", "-T", "fields", "-E", "occurrence=f"]);
    for field in FIELDS {
        command.args(["-e", field]);
    }
    let output = command.arg("-r").arg(path).output().expect("tshark runs");
    let mut expected = Vec::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let [response, question, address, answers, udp, icmp, uri, tcp_len, reassembled, name] = fields[..] else {
            continue;
        };
        if !udp.is_empty() && icmp.is_empty() && ["0", "False"].contains(&response) {
            expected.push((0, format!("? {question}. (")));
        }
        if !udp.is_empty() && icmp.is_empty() && !address.is_empty() && answers == "1" {
            expected.push((1, format!(" A {address} (")));
        }
        if !uri.is_empty() && reassembled.is_empty() && tcp_len.parse().is_ok_and(|len: u32| len > 16) {
            expected.push((2, format!(" {uri} HTTP/1.")));
        }
        if !name.is_empty() {
            expected.push((3, format!("(SNI={name})")));
        }
    }
    expected
        .retain(|(_, text)| text.len() < 110 && text.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'\\'));
    expected
}

#[test]
fn honest_13_15_lines_say_what_tshark_reads_of_dns_http_and_tls() {
    let what = "what payloads say against tshark";
    let captures = machine::captures(what);
    if captures.is_empty() || !machine::have(what, "tshark") {
        return;
    }
    let mut compared = [0; 4];
    for path in captures {
        let Some(stored) = read(&path) else { continue };
        // One link type is read here, and nothing is reassembled.
        if path.ends_with("many-interfaces.pcapng") || path.ends_with("ipv6-fragmented-dns.pcap") {
            continue;
        }
        if stored.packets.iter().all(|(_, _, _, data)| decode(stored.link_type, data).payload_offset == 0) {
            continue;
        }
        let mut writer = TextWriter::new(TimeZone::UTC, Precision::Micro);
        let mut lines = String::new();
        for (_, _, original_len, data) in &stored.packets {
            let decoded = decode(stored.link_type, data);
            let (time, link_type) = (Timestamp::MIN, stored.link_type);
            writer.write(&mut lines, &Line { time, link_type, data, original_len: *original_len, decoded: &decoded });
        }
        for (kind, text) in expected(&path) {
            let found = lines.contains(&text);
            if !found {
                eprintln!("{}: no line has {text}", path.display());
            }
            compared[kind] += if found { 1 } else { -10_000 };
        }
    }
    assert!(compared.iter().all(|&count| count > 0), "{compared:?}");
    eprintln!("{compared:?} values compared");
}

#[test]
fn honest_13_15_no_terminal_obeys_a_payload() {
    let http = b"GET /\x1b[2J\xe2\x80\xae HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut frame = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    frame.extend([0x30, 0x39, 0, 80, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x18, 0, 1, 0, 0, 0, 0]);
    frame.extend(http);
    let len = u16::try_from(frame.len()).unwrap();
    frame[2..4].copy_from_slice(&len.to_be_bytes());
    let link_type = retrocap::packet::LinkType(101);
    let decoded = decode(link_type, &frame);
    let mut line = String::new();
    TextWriter::new(TimeZone::UTC, Precision::Micro).write(
        &mut line,
        &Line { time: Timestamp::MIN, link_type, data: &frame, original_len: u32::from(len), decoded: &decoded },
    );
    assert!(line.ends_with(": HTTP: GET /\\027[2J\\226\\128\\174 HTTP/1.1\n"), "{line}");
}
