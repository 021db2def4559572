//! The log of sessions: databases read it, and agree with what the recorder lists.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::hunting::{Replaying, lines, retrocap, said, text};
use crate::machine::{capture, skipped};

/// Prints one JSON line for each row, with what `flows --json` also has.
const DUCKDB: &str = r#"
import duckdb, json, sys
rows = duckdb.sql(f"""
    select strftime("event.start", '%Y-%m-%dT%H:%M:%S.%g'), "network.transport",
           "source.ip", "source.port", "destination.ip", "destination.port",
           "source.packets", "destination.packets", "source.bytes", "destination.bytes",
           "retrocap.state", "network.community_id",
           coalesce("dns.question.name", "tls.client.server_name", "url.domain"), "date"::varchar, "hour"
    from read_parquet('{sys.argv[1]}/sessions/**/*.parquet', hive_partitioning = true)""")
for row in rows.fetchall():
    print(json.dumps(row))
"#;

const PANDAS: &str = r#"
import glob, sys, pyarrow.parquet as pq
files = glob.glob(sys.argv[1] + "/sessions/**/*.parquet", recursive=True)
frames = [pq.read_table(file, partitioning=None).to_pandas() for file in files]
print(sum(len(frame) for frame in frames), sum(int(frame["network.bytes"].sum()) for frame in frames))
"#;

/// The output of a Python program; `None`, with a message, where Python lacks one of these modules.
fn python(what: &str, modules: &str, program: &str, spool: &Path) -> Option<String> {
    let python = std::env::var("RETROCAP_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let has = Command::new(&python).args(["-c", &format!("import {modules}")]).output();
    if !has.is_ok_and(|output| output.status.success()) {
        skipped(what, format_args!("{python} has no {modules} (pip install duckdb pyarrow pandas)"));
        return None;
    }
    let output = Command::new(&python).args(["-c", program]).arg(spool).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

/// A session as both sides describe it.
type Described = (String, String, Vec<Value>, String, Value, Value);

fn listed(flow: &Value) -> Described {
    let numbers = ["packets", "bytes"].map(|what| [flow[what]["originator"].clone(), flow[what]["responder"].clone()]);
    let ends = [&flow["originator"], &flow["responder"]].map(|end| format!("{} {}", end["ip"], end["port"]));
    let mut name = ["dns_question", "server_name", "http_host"].into_iter().map(|name| &flow[name]);
    let name = name.find(|name| !name.is_null()).cloned().unwrap_or_default();
    (
        flow["first"].as_str().unwrap()[..23].to_owned(),
        format!("{} {}", text_of(&flow["proto"]), ends.join(" ")),
        numbers.concat(),
        text_of(&flow["state"]),
        flow["community_id"].clone(),
        name,
    )
}

fn text_of(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn of_row(row: &Value) -> Described {
    (
        text_of(&row[0]),
        format!("{} {} {} {} {}", text_of(&row[1]), row[2], row[3], row[4], row[5]),
        (6..10).map(|at| row[at].clone()).collect(),
        text_of(&row[10]),
        row[11].clone(),
        row[12].clone(),
    )
}

fn sorted(sessions: impl Iterator<Item = Described>) -> Vec<String> {
    let mut sessions: Vec<String> = sessions.map(|session| format!("{session:?}")).collect();
    sessions.sort();
    sessions
}

fn flows(recorder: &Replaying, arguments: &[&str]) -> (Vec<Value>, String) {
    let output = retrocap(&[&["flows", "--json", "--socket", &recorder.socket()], arguments].concat());
    (lines(&output), said(&output))
}

fn files(spool: &Path) -> Vec<Value> {
    let output = retrocap(&["spool", "ls", text(spool), "--json"]);
    let rows: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap_or_default();
    rows.into_iter().filter(|row| text_of(&row["file"]).starts_with("sessions/")).collect()
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..600 {
        if holds() {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("not within a minute: {what}");
}

#[test]
fn databases_read_the_log_and_agree_with_what_is_listed() {
    let Some(capture) = capture("the log of sessions", "mixed-lan.pcap") else { return };
    let folder = tempfile::tempdir().unwrap();
    let spool = folder.path().join("spool");
    let recorder = Replaying::start(&capture, &["-m", "64MiB", "--spool", text(&spool), "--spool-size", "64M"]);
    let (in_memory, _) = flows(&recorder, &[]);
    assert!(in_memory.len() > 100, "{} sessions", in_memory.len());
    let expected = sorted(in_memory.iter().map(listed));
    eventually("the capture is in the log", || !files(&spool).is_empty());
    assert_eq!(files(&spool)[0]["sessions"], in_memory.len());

    if let Some(rows) = python("DuckDB reads the log of sessions", "duckdb", DUCKDB, &spool) {
        let rows: Vec<Value> = rows.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(sorted(rows.iter().map(of_row)), expected);
        let hours: BTreeSet<String> = rows.iter().map(|row| format!("{} {}", row[13], row[14])).collect();
        assert_eq!(hours, BTreeSet::from(["\"2013-05-02\" 20".to_owned()]), "the path names the hour, in UTC");
    }
    if let Some(sums) = python("pandas reads the log of sessions", "pyarrow, pandas", PANDAS, &spool) {
        let bytes =
            |flow: &Value| flow["bytes"]["originator"].as_u64().unwrap() + flow["bytes"]["responder"].as_u64().unwrap();
        let bytes: u64 = in_memory.iter().map(bytes).sum();
        assert_eq!(sums.trim(), format!("{} {bytes}", in_memory.len()));
    }
    let status = retrocap(&["status", "--json", "--socket", &recorder.socket()]);
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["spool"]["log"]["rows"], in_memory.len());
    assert_eq!(status["spool"]["log"]["missed_sessions"], 0);
    let check = retrocap(&["spool", "check", text(&spool), "--json"]);
    let check: Value = serde_json::from_slice(&check.stdout).unwrap();
    assert_eq!(check["session_log"]["rows"], in_memory.len());
}

#[test]
fn flows_lists_memory_and_log_without_doubles_and_says_where_from() {
    let what = "flows from the log of sessions";
    let (Some(earlier), Some(later)) = (capture(what, "mixed-lan.pcap"), capture(what, "http-files.pcap")) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let spool = folder.path().join("spool");
    let start =
        |capture: &Path| Replaying::start(capture, &["-m", "64MiB", "--spool", text(&spool), "--spool-size", "64M"]);
    let recorder = start(&earlier);
    let (first, _) = flows(&recorder, &[]);
    recorder.stop();
    assert_eq!(files(&spool).len(), 1, "the end of a recorder ends the file");

    let recorder = start(&later);
    let (in_memory, _) = flows(&recorder, &[]);
    let (both, said) = flows(&recorder, &["--since", "2000-01-01", "--sort", "start"]);
    assert!(said.contains("from the log on disk"), "{said}");
    let all = first.iter().chain(&in_memory).map(listed);
    assert_eq!(sorted(both.iter().map(listed)), sorted(all));
    let times: Vec<&str> = both.iter().map(|flow| flow["first"].as_str().unwrap()).collect();
    assert!(times.is_sorted(), "memory and disk are in one order");
    let (memory, said) = flows(&recorder, &["--since", "2000-01-01", "--from", "memory"]);
    assert_eq!(memory.len(), in_memory.len(), "{said}");
    let (on_disk, said) = flows(&recorder, &["--from", "disk", "--until", "2013-05-03"]);
    assert_eq!(sorted(on_disk.iter().map(listed)), sorted(first.iter().map(listed)), "{said}");
    let (dns, said) = flows(&recorder, &["--from", "disk", "--name", "ubuntu.com"]);
    assert!(!dns.is_empty(), "{said}");
    assert!(dns.iter().all(|flow| text_of(&flow["dns_question"]).contains("ubuntu.com")), "{dns:?}");
    let (http, said) =
        flows(&recorder, &["--from", "disk", "--until", "2013-05-03", "--sort", "bytes", "-c", "3", "tcp port 80"]);
    assert_eq!(http.len(), 3, "{said}");
    assert!(http.iter().all(|flow| flow["responder"]["port"] == 80 && flow["app"]["name"] == "http"), "{http:?}");
    let sums =
        ["flows", "--json", "--by", "port", "--from", "disk", "--until", "2013-05-03", "--socket", &recorder.socket()];
    let sums = lines(&retrocap(&sums));
    assert_eq!(sums.iter().map(|sum| sum["sessions"].as_u64().unwrap()).sum::<u64>(), first.len() as u64);
    recorder.stop();

    // The same packets again: memory and log know the same sessions.
    let recorder = start(&earlier);
    let (again, said) = flows(&recorder, &["--since", "2013-01-01", "--until", "2013-05-03"]);
    assert_eq!(sorted(again.iter().map(listed)), sorted(first.iter().map(listed)), "{said}");
    recorder.stop();

    // A request under data protection law reaches the log, too.
    let drop = ["spool", "drop", "udp port 53", "--before", "2030-01-01", "--spool", text(&spool), "--json"];
    let dropped = retrocap(&drop);
    let dropped: Value =
        serde_json::from_slice(&dropped.stdout).unwrap_or_else(|_| panic!("{}", crate::hunting::said(&dropped)));
    let is_dns = |flow: &&Value| flow["proto"] == "udp" && flow["responder"]["port"] == 53;
    let asked = both.iter().filter(is_dns).count() + first.iter().filter(is_dns).count();
    assert_eq!(dropped["session_log"]["rows"], asked);
    let recorder = start(&later);
    let (left, said) = flows(&recorder, &["--from", "disk", "--since", "2013-01-01", "--until", "2013-05-03"]);
    assert_eq!(left.len(), first.len() - first.iter().filter(is_dns).count(), "{said}");
}

#[test]
fn a_spool_without_a_recorder_lists_the_sessions_of_its_log_and_says_what_is_damaged() {
    let Some(capture) = capture("flows of a spool", "mixed-lan.pcap") else { return };
    let folder = tempfile::tempdir().unwrap();
    let spool = folder.path().join("spool");
    let recorder = Replaying::start(&capture, &["-m", "64MiB", "--spool", text(&spool), "--spool-size", "64M"]);
    let (expected, _) = flows(&recorder, &[]);
    recorder.stop();
    // The log is enough, also where the packets are gone.
    for entry in std::fs::read_dir(&spool).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "pcapng") {
            std::fs::remove_file(path).unwrap();
        }
    }
    let ask = || retrocap(&["flows", "--spool", text(&spool), "--json"]);
    let answer = ask();
    assert_eq!(sorted(lines(&answer).iter().map(listed)), sorted(expected.iter().map(listed)), "{}", said(&answer));
    let answer = retrocap(&["flows", "--spool", text(&spool), "--json", "udp port 53"]);
    assert!(lines(&answer).iter().all(|flow| flow["responder"]["port"] == 53) && !lines(&answer).is_empty());

    let file = spool.join(files(&spool)[0]["file"].as_str().unwrap());
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let answer = ask();
    assert!(said(&answer).contains("incomplete: 1 file of the log cannot be read"), "{}", said(&answer));
    let recorder = Replaying::start(&capture, &["-m", "64MiB", "--spool", text(&spool), "--spool-size", "64M"]);
    for arguments in [&["--from", "disk"][..], &["--since", "2000-01-01"], &["--from", "disk", "--by", "port"]] {
        let (_, said) = flows(&recorder, arguments);
        assert!(said.contains("incomplete: 1 file of the log cannot be read"), "{arguments:?}: {said}");
    }
}

#[test]
fn a_removal_is_refused_while_a_recorder_writes_and_is_on_record_afterwards() {
    let Some(capture) = capture("spool drop", "mixed-lan.pcap") else { return };
    let folder = tempfile::tempdir().unwrap();
    let spool = folder.path().join("spool");
    let recorder = Replaying::start(&capture, &["-m", "64MiB", "--spool", text(&spool), "--spool-size", "64M"]);
    let drop = ["spool", "drop", "udp port 53", "--before", "2030-01-01", "--spool", text(&spool)];
    let refused = retrocap(&drop);
    assert_eq!(refused.status.code(), Some(1));
    for words in ["a recorder writes to the spool", "nothing was removed", "systemctl stop retrocap"] {
        assert!(said(&refused).contains(words), "{words}: {}", said(&refused));
    }
    assert!(!spool.join("removals.jsonl").exists());
    recorder.stop();
    let dropped = retrocap(&drop);
    assert_eq!(dropped.status.code(), Some(0), "{}", said(&dropped));
    let list = std::fs::read_to_string(spool.join("removals.jsonl")).unwrap();
    let list: Vec<Value> = list.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(list.len(), 2, "{list:?}");
    assert_eq!((&list[0]["removal"], &list[1]["removal"]), (&"begin".into(), &"end".into()));
    assert_eq!((&list[1]["expression"], &list[1]["uid"]), (&"udp port 53".into(), &list[0]["uid"]));
    assert!(list[1]["packets"].as_u64().unwrap() > 0 && list[1]["session_log"]["rows"].as_u64().unwrap() > 0);
    let left = retrocap(&["get", "--spool", text(&spool), "udp port 53"]);
    assert_eq!(left.status.code(), Some(1));
}
