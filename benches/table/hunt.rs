//! Searches of 1 GiB of history in memory, and what other programs need for the same packets in a file.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::conversations::write_conversations;
use crate::machine::have;
use crate::process::{RETROCAP, Recorder, cost_of};
use crate::scale::Scale;
use crate::table::{Row, median, section, skipped};
use crate::traffic::Random;

/// Bytes of packets.
const BYTES: u64 = 1 << 30;
/// The budget that keeps all of them.
const MEMORY: &str = "1800MiB";
/// A text that no packet contains.
const ABSENT: &str = "BEGIN RSA PRIVATE KEY";
/// The start of a request that one session sends.
const RARE: &str = "GET /1234/";

pub(crate) fn hunt(scale: Scale) {
    let folder = tempfile::tempdir().expect("a folder for the capture file");
    let file = folder.path().join("bench.pcap");
    let (packets, sessions) = write_conversations(&file, BYTES).expect("1.1 GB of room for the capture file");
    let about =
        format!("1 GiB in memory, {packets} packets of {sessions} sessions; processor seconds of client and recorder");
    section("hunt", &about);
    let mut command = Command::new(RETROCAP);
    command.args(["run", "--replay"]).arg(&file);
    command.args(["--speed", "max", "-m", MEMORY, "--compression-cpu", "0"]);
    let recorder = match Recorder::start(command) {
        Ok(recorder) => recorder,
        Err(error) => return skipped("hunt", error),
    };
    let limit = Instant::now() + Duration::from_secs(120);
    #[expect(clippy::cast_precision_loss, reason = "a count of packets")]
    while recorder.count("/packets/received") < packets as f64 && Instant::now() < limit {
        std::thread::sleep(Duration::from_millis(100));
    }
    let (patterns, indicators) = (folder.path().join("patterns"), folder.path().join("indicators"));
    let many = lists(&patterns, &indicators).expect("room for the lists");
    let many: Vec<&str> = many.iter().flat_map(|text| ["--text", text]).collect();
    let rules = write_rules(&patterns).expect("room for the rules");
    let [indicators, rules] = [&indicators, &rules].map(|path| path.to_str().expect("a path in UTF-8"));
    for (what, question, aim) in [
        ("one text, nowhere", &["--text", ABSENT][..], "<= 0.7 s"),
        ("one text, in one session", &["--text", RARE], "<= 0.7 s"),
        ("one regular expression", &["--regex", r"passw(or)?d=[^&]+"], "<= 0.7 s"),
        ("the same with (?i)", &["--regex", r"(?i)passw(or)?d=[^&]+"], "<= 0.7 s"),
        ("1,000 texts", &many, "<= 2.5 s"),
        ("100,000 addresses", &["--ioc", indicators], "<= 0.2 s"),
        ("100 YARA rules, in streams", &["--yara", rules, "--in", "stream"], "<= 4 s"),
        ("100 YARA rules, in streams and objects", &["--yara", rules], "<= 4 s"),
    ] {
        if question.contains(&"--yara") && !have("yara") {
            skipped(what, "yara is not installed");
            continue;
        }
        let costs: Vec<(f64, f64, f64)> = (0..=scale.rounds()).map(|_| ours(&recorder, question)).skip(1).collect();
        let [all, client] = [0, 1].map(|of| median(costs.iter().map(|cost| [cost.0, cost.1][of]).collect()));
        let memory = costs.iter().map(|cost| cost.2).fold(0.0, f64::max);
        let peer = format!("client {client:.2} s, {memory:.0} MiB");
        Row { peer, ..Row::new(what, format_args!("{all:.2} s")) }.aim(aim).print();
    }
    peers(&file, rules);
}

/// Processor seconds of both, those of the client, and the largest growth of either process in MiB.
fn ours(recorder: &Recorder, question: &[&str]) -> (f64, f64, f64) {
    let (before, resident) = (recorder.running.cpu_s(), recorder.running.resident_mebibytes());
    let mut command = Command::new(RETROCAP);
    command.args(["hunt", "-q", "--socket"]).arg(recorder.socket()).args(question);
    let client = cost_of(&mut command);
    let grown = recorder.running.resident_mebibytes() - resident;
    (recorder.running.cpu_s() - before + client.cpu_s, client.cpu_s, grown)
}

/// Writes 1,000 texts that occur nowhere, and 100,000 addresses that no session has.
fn lists(patterns: &Path, indicators: &Path) -> std::io::Result<Vec<String>> {
    let (mut random, mut texts, mut list) = (Random(3), Vec::new(), String::new());
    for _ in 0..1000 {
        let len = 8 + random.below(17);
        let digit = |number: u32| char::from_digit(number, 36).unwrap_or('0');
        texts.push((0..len).map(|_| digit(random.below(36))).collect::<String>());
    }
    for _ in 0..100_000 {
        let [a, b, c, d] = [160, 256, 256, 256].map(|end| random.below(end));
        // Writing to a string cannot fail.
        let _ = writeln!(list, "{}.{b}.{c}.{d}", a + 20);
    }
    std::fs::write(patterns, texts.join("\n"))?;
    std::fs::write(indicators, list)?;
    Ok(texts)
}

/// Writes YARA rules, each of which looks for one of the texts.
fn write_rules(patterns: &Path) -> std::io::Result<PathBuf> {
    let texts = std::fs::read_to_string(patterns)?;
    let rules = texts.lines().take(100).enumerate().fold(String::new(), |rules, (n, text)| {
        rules + &format!("rule r{n} {{ strings: $a = \"{text}\" condition: $a }}\n")
    });
    let path = patterns.with_extension("yar");
    std::fs::write(&path, rules).map(|()| path)
}

/// What other programs need for the file.
fn peers(file: &Path, rules: &str) {
    let file = file.to_str().expect("a path in UTF-8");
    let flows = tempfile::tempdir().expect("a folder for streams");
    let folder = flows.path().to_str().expect("a path in UTF-8");
    let contains = format!("frame contains \"{ABSENT}\"");
    let tcpflow = format!("tcpflow -q -r '{file}' -o '{folder}' && ! LC_ALL=C grep -r -l -F '{ABSENT}' '{folder}'");
    let rows: [(&str, &str, &str, &[&str]); 5] = [
        ("ngrep, one text, packet by packet", "ngrep", "ngrep", &["-q", "-I", file, ABSENT]),
        ("tshark -Y 'frame contains'", "tshark", "tshark", &["-r", file, "-Y", &contains]),
        ("tcpflow and grep", "tcpflow", "sh", &["-c", &tcpflow]),
        ("yara, 100 rules, on the files of tcpflow", "yara", "yara", &["-r", rules, folder]),
        ("yara, 100 rules, on the capture file", "yara", "yara", &[rules, file]),
    ];
    for (what, needed, program, arguments) in rows {
        if !have(needed) {
            skipped(what, format_args!("{needed} is not installed"));
            continue;
        }
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null());
        let cost = cost_of(&mut command);
        Row::new(what, format_args!("{:.2} s", cost.cpu_s)).print();
    }
}
