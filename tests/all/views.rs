//! What people see: each view in a real terminal of 80 and 160 columns, with and without colours, as snapshots.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};

use etherparse::PacketBuilder;

use crate::cli::Recorder;
use crate::namespaces::{self, Namespace};
use crate::{generate, machine, service::asking::have};

const PROGRAM: &str = env!("CARGO_BIN_EXE_retrocap");

/// Runs a command in a terminal; returns stdout and stderr as the terminal mixes them.
fn terminal(columns: u32, colour: bool, words: &[&str]) -> String {
    let words: Vec<String> = words.iter().map(|word| format!("'{}'", word.replace('\'', r"'\''"))).collect();
    let command = format!("stty cols {columns} rows 50; exec {}", words.join(" "));
    let mut script = Command::new("script");
    script.args(["-qefc", &command, "/dev/null"]).stdin(Stdio::null());
    for name in ["COLUMNS", "NO_COLOR", "CLICOLOR_FORCE", "RETROCAP_SOCKET"] {
        script.env_remove(name);
    }
    script.env("TZ", "UTC").env("TERM", "xterm-256color").env("NO_COLOR", if colour { "" } else { "1" });
    let output = script.output().unwrap();
    let shown = String::from_utf8_lossy(&output.stdout).replace("\r\n", "\n");
    // A slow machine also shows progress, which erases its own line.
    let lines = shown.split('\n').map(|line| line.rsplit_once("\r\x1b[K").map_or(line, |(_, line)| line));
    lines.collect::<Vec<_>>().join("\n").replace('\x1b', "␛")
}

/// The view at two widths, with and without colours.
fn views(words: &[&str], mask: impl Fn(&str) -> String) -> String {
    let mut all = String::new();
    for (columns, colour) in [(80, false), (160, false), (80, true), (160, true)] {
        let shown = terminal(columns, colour, words);
        assert!(colour || !shown.contains('␛'), "{shown}");
        for line in shown.lines() {
            assert!(line.trim_end() == line, "blanks at the end of {line:?}");
        }
        let shown = shown.lines().map(&mask).collect::<Vec<_>>().join("\n");
        all.push_str(&format!("── {columns} columns{} ──\n{shown}\n", if colour { ", colours" } else { "" }));
    }
    all
}

/// Replaces numbers that depend on the machine, or on how memory is split, by `#`.
fn numbers(line: &str) -> String {
    let mut masked = String::new();
    for c in line.chars() {
        let digit = c.is_ascii_digit() || (c == ',' || c == '.') && masked.ends_with('#');
        if !digit {
            masked.push(c);
        } else if !masked.ends_with('#') {
            masked.push('#');
        }
    }
    masked.replace("MiB", "B").replace("KiB", "B")
}

fn as_is(line: &str) -> String {
    line.to_owned()
}

/// Masks the lines of a status whose numbers depend on the machine.
fn status(line: &str) -> String {
    match line.split_once(" for ") {
        // The time for which the recorder has run, up to the next comma or colour.
        Some((recording, rest)) if recording.contains("recording ") => {
            let end = rest.find([',', '␛']).unwrap_or(rest.len());
            format!("{recording} for #{}", &rest[end..])
        }
        _ if ["memory", "resident", "sessions"].iter().any(|label| line.starts_with(label)) => numbers(line),
        _ if line.contains('█') => {
            // The size of a rank depends on the internal format of packets.
            let (bar, bytes) = line.rsplit_once("  ").unwrap();
            format!("{}  {}", bar.trim_end(), numbers(bytes.trim_start()))
        }
        _ => line.to_owned(),
    }
}

/// Long before the recorder starts, so that ages are counted from the newest packet.
const START_S: u64 = generate::START_S - 10 * 86_400;

struct Capture {
    file: Vec<u8>,
    nanos: u64,
    packets: u64,
}

impl Capture {
    /// Appends a packet, a tenth of a second after the previous one.
    fn packet(&mut self, frame: &[u8]) {
        self.nanos += 100_000_000;
        self.packets += 1;
        let length = u32::try_from(frame.len()).unwrap();
        let seconds = u32::try_from(START_S + self.nanos / 1_000_000_000).unwrap();
        let fraction = u32::try_from(self.nanos % 1_000_000_000).unwrap();
        for field in [seconds, fraction, length, length] {
            self.file.extend_from_slice(&field.to_le_bytes());
        }
        self.file.extend_from_slice(frame);
    }

    /// Appends a connection: the handshake, the pieces of the request, the response, and the close from both ends.
    fn tcp(&mut self, client: ([u8; 4], u16), server: ([u8; 4], u16), request: &[&[u8]], answer_packets: usize) {
        let (mut here, mut there) = (100u32, 900u32);
        let mut send = |by_client: bool, payload: &[u8], syn: bool, fin: bool, ack: bool| {
            let (from, to) = if by_client { (client, server) } else { (server, client) };
            let (own, other) = if by_client { (&mut here, there) } else { (&mut there, here) };
            let mut tcp = ethernet().ipv4(from.0, to.0, 64).tcp(from.1, to.1, *own, 6000);
            tcp = if syn { tcp.syn() } else { tcp };
            tcp = if fin { tcp.fin() } else { tcp };
            tcp = if ack { tcp.ack(other) } else { tcp };
            *own += u32::try_from(payload.len()).unwrap() + u32::from(syn || fin);
            let mut frame = Vec::new();
            tcp.write(&mut frame, payload).unwrap();
            self.packet(&frame);
        };
        send(true, b"", true, false, false);
        send(false, b"", true, false, true);
        for piece in request {
            send(true, piece, false, false, true);
        }
        for _ in 0..answer_packets {
            send(false, &[0x5a; 1400], false, false, true);
        }
        send(true, b"", false, true, true);
        send(false, b"", false, true, true);
    }

    fn udp(&mut self, frame: etherparse::PacketBuilderStep<etherparse::UdpHeader>, payload: &[u8]) {
        let mut bytes = Vec::new();
        frame.write(&mut bytes, payload).unwrap();
        self.packet(&bytes);
    }
}

fn ethernet() -> etherparse::PacketBuilderStep<etherparse::Ethernet2Header> {
    PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
}

/// A Client Hello that is longer than a packet, with the server name at its end.
fn client_hello(name: &str) -> Vec<u8> {
    let u16s = |n: usize| u16::try_from(n).unwrap().to_be_bytes();
    let mut extensions = [&[0, 21][..], &u16s(1500), &[0; 1500]].concat();
    let list = [&[0][..], &u16s(name.len()), name.as_bytes()].concat();
    extensions.extend([&[0, 0][..], &u16s(list.len() + 2), &u16s(list.len()), &list].concat());
    let body = [&[3, 3][..], &[7; 32], &[0, 0, 2, 19, 1, 1, 0], &u16s(extensions.len()), &extensions].concat();
    let message = [&[1, 0][..], &u16s(body.len()), &body].concat();
    [&[22, 3, 1][..], &u16s(message.len()), &message].concat()
}

fn question(labels: &[&[u8]]) -> Vec<u8> {
    let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in labels {
        message.push(u8::try_from(label.len()).unwrap());
        message.extend_from_slice(label);
    }
    message.extend([0, 0, 16, 0, 1]);
    message
}

/// One session of each kind that is displayed differently.
fn capture() -> (Vec<u8>, u64) {
    let mut capture = Capture { file: generate::header(), nanos: 0, packets: 0 };
    let hello = client_hello("www.example.com");
    let (head, tail) = hello.split_at(1400);
    capture.tcp(([10, 0, 0, 5], 51234), ([192, 0, 2, 7], 443), &[head, tail], 100);
    let request = b"GET /a HTTP/1.1\r\nHost: intranet.example:8080\r\n\r\n";
    capture.tcp(([10, 0, 0, 5], 51300), ([198, 51, 100, 200], 8080), &[request], 3);
    capture.tcp(([198, 51, 100, 77], 60001), ([10, 0, 0, 5], 22), &[b"SSH-2.0-x\r\n"], 2);
    let dns = ethernet().ipv4([10, 0, 0, 5], [10, 0, 0, 1], 64).udp(40000, 53);
    capture.udp(dns, &question(&[b"\x1b[2J=1+1", b"tunnel", b"example"]));
    let [here, there] = [1u8, 0x53].map(|end| [0x20, 1, 0xd, 0xb8, 0xff, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, end]);
    capture.udp(ethernet().ipv6(here, there, 64).udp(53000, 53), &question(&[b"six", b"example"]));
    let vlan = ethernet().single_vlan(42u16.try_into().unwrap());
    capture.udp(vlan.ipv4([10, 0, 0, 9], [224, 0, 0, 251], 1).udp(5353, 5353), &question(&[b"_ipp", b"local"]));
    let mut arp = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 2, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1]].concat();
    arp.resize(60, 0);
    capture.packet(&arp);
    // On the next day.
    capture.nanos += 86_400_000_000_000;
    capture.udp(ethernet().ipv4([10, 0, 0, 5], [203, 0, 113, 9], 64).udp(4500, 4500), &[0xa5; 900]);
    (capture.file, capture.packets)
}

struct Recorded {
    _recorder: Recorder,
    directory: tempfile::TempDir,
}

impl Recorded {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        let (file, packets) = capture();
        std::fs::write(path("in.pcap"), file).unwrap();
        let recorder = Recorder::start(&path("in.pcap"), &path("r.sock"), packets);
        Self { _recorder: recorder, directory }
    }

    fn socket(&self) -> String {
        self.directory.path().join("r.sock").to_str().unwrap().to_owned()
    }
}

#[test]
fn sessions_and_sums_fit_a_terminal() {
    if !have("script") {
        return;
    }
    let recorded = Recorded::start();
    let socket = recorded.socket();
    let show = |words: &[&str]| views(&[&[PROGRAM, "flows", "--socket", &socket], words].concat(), as_is);
    insta::assert_snapshot!("flows", show(&[]));
    insta::assert_snapshot!("flows_by_host", show(&["--by", "host"]));
    insta::assert_snapshot!("flows_by_peer", show(&["--by", "peer", "--sort", "out"]));
    insta::assert_snapshot!("flows_by_port", show(&["--by", "port"]));
    insta::assert_snapshot!("flows_name", show(&["--name", "EXAMPLE.com"]));
    insta::assert_snapshot!("flows_name_nothing", show(&["--name", "nobody"]));
}

#[test]
fn packets_and_status_fit_a_terminal() {
    if !have("script") {
        return;
    }
    let recorded = Recorded::start();
    let socket = recorded.socket();
    insta::assert_snapshot!("get", views(&[PROGRAM, "get", "-c", "12", "--socket", &socket], as_is));
    insta::assert_snapshot!("get_nothing", views(&[PROGRAM, "get", "port", "9", "--socket", &socket], as_is));
    let file = recorded.directory.path().join("odd.pcapng");
    let file = file.to_str().unwrap();
    let written = |line: &str| line.replace(file, "odd.pcapng");
    insta::assert_snapshot!("get_file", views(&[PROGRAM, "get", "-w", file, "--socket", &socket], written));
    insta::assert_snapshot!("status", views(&[PROGRAM, "status", "--socket", &socket], status));
    let capture = recorded.directory.path().join("in.pcap");
    insta::assert_snapshot!("replay", views(&[PROGRAM, "replay", capture.to_str().unwrap(), "-m", "40M"], status));
}

#[test]
fn interfaces_fit_a_terminal() {
    if !have("script") || !namespaces::available("interfaces in a terminal") {
        return;
    }
    let namespace = Namespace::new();
    namespace.ip("link set lo up");
    namespace.ip("link add uplink address 02:00:00:00:00:05 type veth peer name far address 02:00:00:00:00:06");
    namespace.ip("addr add 10.0.0.5/24 dev uplink");
    let words = ["ip", "netns", "exec", &namespace.name, PROGRAM, "interfaces"];
    insta::assert_snapshot!("interfaces", views(&words, as_is));
}

/// A pipe or file gets every column, whole lines, no colour and no summary; CSV has all known fields.
#[test]
fn a_pipe_gets_everything() {
    let recorded = Recorded::start();
    let ask = |words: &[&str]| {
        let mut command = Command::new(PROGRAM);
        command.args(["flows", "--socket", &recorded.socket()]).args(words).env("TZ", "UTC").env_remove("COLUMNS");
        let output = command.output().unwrap();
        // A question with a condition cannot be asked of what is encrypted.
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(said.replace("retrocap: 1 packet with ESP (encrypted) was not opened\n", ""), "");
        String::from_utf8(output.stdout).unwrap()
    };
    insta::assert_snapshot!("flows_pipe", ask(&[]));
    let csv = ask(&["--csv"]);
    assert_eq!(csv.matches("\r\n").count(), csv.matches('\n').count());
    insta::assert_snapshot!("flows_csv", csv.replace("\r\n", "\n"));
    insta::assert_snapshot!("flows_by_peer_csv", ask(&["--by", "peer", "--csv"]).replace("\r\n", "\n"));
    for line in ask(&["--json"]).lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap();
    }
    for (words, sessions) in [
        (&["--address", "10.0.0.5"][..], 5),
        (&["--address", "10.0.0.9"], 1),
        (&["--address", "2001:db8::/32", "--port", "53"], 1),
        (&["--port", "53"], 2),
        (&["--port", "443", "tcp"], 1),
        (&["--name", "example"], 4),
    ] {
        assert_eq!(ask(&[words, &["--json"]].concat()).lines().count(), sessions, "{words:?}");
    }
}

/// The progress line appears while a pipe is silent, says what has arrived, and disappears at the end.
#[test]
fn progress_is_shown_and_removed() {
    if !have("script") {
        return;
    }
    use std::io::Write as _;
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let command = format!("stty cols 80; exec {PROGRAM} replay {} -m 16M", fifo.display());
    let mut script = Command::new("script");
    let script = script.args(["-qefc", &command, "/dev/null"]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = script.spawn().unwrap();
    let mut shown = child.stdout.take().unwrap();
    let mut file = std::fs::File::options().write(true).open(&fifo).unwrap();
    let (bytes, packets) = capture();
    file.write_all(&bytes).unwrap();
    let mut text = Vec::new();
    let line = format!("\r\x1b[K{packets} packets, ");
    while !String::from_utf8_lossy(&text).contains(&line) {
        let mut piece = [0; 1024];
        let bytes = shown.read(&mut piece).unwrap();
        assert!(bytes > 0, "{:?}", String::from_utf8_lossy(&text));
        text.extend_from_slice(&piece[..bytes]);
    }
    drop(file);
    shown.read_to_end(&mut text).unwrap();
    assert!(child.wait().unwrap().success());
    let text = String::from_utf8_lossy(&text);
    let (_, after) = text.rsplit_once("\r\x1b[K").unwrap();
    assert!(after.contains("kept ") && !after.contains("/s)"), "{text:?}");
}

/// tshark finds every name in the same capture, and we miss none of those in DNS and TLS.
#[test]
fn names_match_those_that_tshark_reads() {
    if !have("tshark") {
        return;
    }
    for (capture, packets) in [("mixed-lan.pcap", 4631), ("iot-setup.pcap", 2397)] {
        let Some(path) = machine::capture("names against tshark", capture) else { return };
        let path = path.to_str().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("r.sock").to_str().unwrap().to_owned();
        let _recorder = Recorder::start(path, &socket, packets);
        let output = Command::new(PROGRAM).args(["flows", "--json", "--socket", &socket]).output().unwrap();
        let flows: Vec<serde_json::Value> =
            String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for (key, field, all) in [
            ("server_name", "tls.handshake.extensions_server_name", true),
            ("http_host", "http.host", false),
            ("dns_question", "dns.qry.name", true),
        ] {
            let ours: BTreeSet<String> =
                flows.iter().filter_map(|flow| flow[key].as_str()).map(str::to_owned).collect();
            let theirs = fields(Path::new(path), field);
            assert!(ours.is_subset(&theirs), "{capture} {key}: {:?}", ours.difference(&theirs));
            if all {
                assert_eq!(ours, theirs, "{capture} {key}");
            }
        }
    }
}

/// The values of a field according to tshark.
fn fields(capture: &Path, field: &str) -> BTreeSet<String> {
    let output = Command::new("tshark").arg("-r").arg(capture).args(["-T", "fields", "-e", field]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().flat_map(|line| line.split(',')).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}
