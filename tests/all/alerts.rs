//! `get --alert` with alert files in their documented formats: the packets of each alert, or why there are none.

use std::path::Path;

use retrocap::decode;
use retrocap::packet::{InterfaceId, LinkType};
use retrocap::session::SessionKey;
use retrocap::session::community_id::CommunityId;
use serde_json::{Value, json};

use crate::cli::{Recorder, reply, run};
use crate::generate::{self, START_S};
use crate::service::asking::{curl, have};

const SECOND: u64 = 1_000_000_000;

/// Sessions 1001 to 1005 with six packets each, one after the other. Session 1000+n lasts from 100n to 100n+10 s; its
/// client is 10.0.0.0:1000+n, its server 192.0.2.7:53.
fn five_sessions() -> (Vec<u8>, u64) {
    let mut file = generate::header();
    for session in 1..=5u32 {
        for packet in 0..6u64 {
            let nanos = u64::from(session) * 100 * SECOND + packet * 2 * SECOND;
            generate::packet(&mut file, nanos, 1000 + session, packet % 2 == 0, 100);
        }
    }
    (file, 30)
}

struct Setting {
    directory: tempfile::TempDir,
    socket: String,
    _recorder: Recorder,
}

impl Setting {
    fn new((capture, packets): (Vec<u8>, u64), arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        let (file, socket) = (path("in.pcap"), path("r.sock"));
        std::fs::write(&file, capture).unwrap();
        let recorder = Recorder::with(&file, &socket, packets, arguments);
        Self { directory, socket, _recorder: recorder }
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_owned()
    }

    fn get(&self, arguments: &[&str]) -> (i32, String, String) {
        reply(&run(&[&["get", "--socket", &self.socket], arguments].concat()))
    }

    /// Runs `get --alert` with this text as the alert file and one export per alert; returns exit code, manifest and
    /// stderr.
    fn split(&self, text: &str, arguments: &[&str]) -> (i32, Vec<Value>, String) {
        let (alerts, out) = (self.path("alerts"), self.path("out"));
        let _ = std::fs::remove_dir_all(&out);
        std::fs::write(&alerts, text).unwrap();
        let (code, _, stderr) = self.get(&[&["--alert", &alerts, "--split", &out], arguments].concat());
        let manifest = std::fs::read_to_string(self.directory.path().join("out/manifest.jsonl")).unwrap_or_default();
        let rows: Vec<Value> = manifest.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for row in &rows {
            if let Some(file) = row["file"].as_str() {
                let path = Path::new(&out).join(file);
                let (packets, ended) = generate::read(&path);
                assert!(ended.is_ok(), "{file}");
                assert_eq!(row["packets"], packets.len(), "{row}");
            }
        }
        let hidden = std::fs::read_dir(&out).map_or(0, |entries| {
            entries.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with('.')).count()
        });
        assert_eq!(hidden, 0, "nothing unfinished is left");
        (code, rows, stderr)
    }
}

/// A time in EVE's format, `seconds` after the first second of the capture.
fn eve_time(seconds: u64) -> String {
    let time = retrocap::time::Timestamp::from_unix(START_S + seconds, 250_000_000).to_rfc3339();
    format!("{}+0000", time.trim_end_matches("000Z"))
}

fn eve(seconds: u64, session: u32, signature: &str) -> String {
    json!({
        "timestamp": eve_time(seconds), "flow_id": 586_497_171_462_735_u64, "event_type": "alert",
        "src_ip": "192.0.2.7", "src_port": 53, "dest_ip": "10.0.0.0", "dest_port": session, "proto": "UDP",
        "alert": {"action": "allowed", "gid": 1, "signature_id": 2_018_358, "rev": 10, "signature": signature},
    })
    .to_string()
}

#[test]
fn alerts_of_every_format_find_their_sessions() {
    let setting = Setting::new(five_sessions(), &["-m", "32M"]);
    let ts = |seconds: u64| format!("{}.250000", START_S + seconds);
    let conn = format!(
        "#separator \\x09\n#set_separator\t,\n#empty_field\t(empty)\n#unset_field\t-\n#path\tconn\n#open\t2026-11-22-10-00-00\n\
         #fields\tts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tproto\tservice\tduration\n\
         #types\ttime\tstring\taddr\tport\taddr\tport\tenum\tstring\tinterval\n\
         {}\tCUM0KZ3\t10.0.0.0\t1001\t192.0.2.7\t53\tudp\tdns\t10.0\n\
         {}\tCUM0KZ4\t10.0.0.0\t1002\t192.0.2.7\t53\tudp\t-\t-\n#close\t2026-11-22-10-00-00\n",
        ts(100),
        ts(200)
    );
    let zeek_json = json!({
        "ts": (START_S + 300) as f64 + 0.5, "uid": "CUM0KZ5", "id.orig_h": "10.0.0.0", "id.orig_p": 1003,
        "id.resp_h": "192.0.2.7", "id.resp_p": 53, "proto": "udp",
    });
    let notice = format!(
        "#separator \\x09\n#path\tnotice\n#fields\tts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tproto\tnote\tmsg\tsub\tsrc\tdst\tp\n\
         {}\t-\t-\t-\t-\t-\t-\tScan::Address_Scan\t10.0.0.0 scanned\t-\t10.0.0.0\t-\t-\n",
        ts(204)
    );
    let time = retrocap::time::Timestamp::from_unix(START_S + 425, 0).to_rfc3339().replace('T', " ");
    let sysmon = json!({"winlog": {"event_id": 3, "event_data": {
        "UtcTime": &time[..23], "Image": "C:\\Tools\\nc.exe", "ProcessId": "4711", "Protocol": "udp",
        "SourceIp": "10.0.0.0", "SourcePort": "1004", "DestinationIp": "192.0.2.7", "DestinationPort": "53",
    }}});
    // Each alert with the sessions that it finds. Sysmon's is fifteen seconds late.
    for (text, names) in [
        (eve(105, 1001, "ET MALWARE a/b"), vec![("suricata-ET-MALWARE-a-b-192.0.2.7_53-10.0.0.0_1001-udp", 6)]),
        (conn, vec![("zeek-conn-10.0.0.0_1001-192.0.2.7_53-udp", 6), ("zeek-conn-10.0.0.0_1002-192.0.2.7_53-udp", 6)]),
        (zeek_json.to_string(), vec![("zeek-conn-10.0.0.0_1003", 6)]),
        (notice, vec![("zeek-Scan-Address-Scan-10.0.0.0", 6)]),
        (sysmon.to_string(), vec![("sysmon-nc.exe-10.0.0.0_1004", 6)]),
    ] {
        let (code, rows, stderr) = setting.split(&text, &[]);
        assert_eq!((code, rows.len()), (0, names.len()), "{text}: {stderr}");
        for (row, (name, packets)) in rows.iter().zip(names) {
            assert!(row["file"].as_str().unwrap_or_default().contains(name), "{name}: {row}");
            assert_eq!((&row["packets"], &row["missing"]), (&json!(packets), &Value::Null), "{row}");
        }
    }
    // An event as late as that lies outside the margin for Suricata.
    let (code, rows, stderr) = setting.split(&eve(425, 1004, "late"), &[]);
    assert_eq!((code, &rows[0]["missing"]["cause"]), (1, &json!("never_seen")), "{stderr}");
    assert_eq!(setting.split(&eve(425, 1004, "late"), &["--before", "20s"]).0, 0);
    let (_, rows, _) = setting.split(&eve(105, 1001, "x"), &["--only-margins", "--before", "2s", "--after", "2s"]);
    assert_eq!(rows[0]["packets"], 2, "those at 104 and 106 s");
    let (_, rows, _) = setting.split(&eve(105, 1001, "x"), &["src", "host", "10.0.0.0"]);
    assert_eq!(rows[0]["packets"], 3, "an expression narrows it down");
    if have("tshark") {
        let file = setting.path("out/") + rows[0]["file"].as_str().unwrap();
        assert_eq!(
            String::from_utf8(std::process::Command::new("tshark").args(["-nr", &file]).output().unwrap().stdout)
                .unwrap()
                .lines()
                .count(),
            3
        );
    }
}

#[test]
fn broken_old_and_unknown_alerts_are_reported_and_the_others_answered() {
    let setting = Setting::new(five_sessions(), &["-m", "32M", "-f", "not port 1005"]);
    let stats = json!({"timestamp": eve_time(1), "event_type": "stats", "stats": {}}).to_string();
    let future = eve(0, 1001, "future").replace(&eve_time(0)[..4], "2400");
    let old = eve(0, 1001, "old").replace(&eve_time(0)[..4], "2001");
    let lines = [
        &eve(105, 1001, "good"),
        "{\"timestamp\": \"2026-",
        &eve(207, 1002, "good"),
        &old,
        &future,
        &eve(505, 1005, "filtered"),
        &eve(305, 999, "unknown"),
        &stats,
        &eve(109, 1001, "again"),
    ];
    let (code, rows, stderr) = setting.split(&lines.join("\n"), &[]);
    assert_eq!(code, 1);
    let reply: Vec<(u64, &Value, &Value)> = rows
        .iter()
        .map(|row| (row["alert"]["line"].as_u64().unwrap(), &row["packets"], &row["missing"]["cause"]))
        .collect();
    let (none, six) = (json!(0), json!(6));
    let cause = |name: &str| json!(name);
    assert_eq!(
        reply,
        [
            (1, &six, &Value::Null),
            (2, &none, &cause("broken_line")),
            (3, &six, &Value::Null),
            (4, &none, &cause("before_horizon")),
            (5, &none, &cause("in_future")),
            (6, &none, &cause("filtered")),
            (7, &none, &cause("never_seen")),
            (9, &six, &Value::Null),
        ]
    );
    let first = retrocap::time::Timestamp::from_unix(START_S + 100, 0).to_rfc3339();
    assert_eq!(rows[3]["missing"]["horizon"], first);
    assert!(rows[5]["missing"]["detail"].as_str().unwrap().contains("\"not port 1005\" keeps such packets out: 6 of"));
    for words in [
        "alerts line 2: not a whole JSON object",
        "7 alerts: 3 with packets, 4 without",
        "1 line broken",
        "1 line could",
    ] {
        assert!(stderr.contains(words), "{words}: {stderr}");
    }
    // Both alerts of one session name a file; on disk it is the same one.
    use std::os::unix::fs::MetadataExt as _;
    let inode = |row: &Value| {
        std::fs::metadata(setting.directory.path().join("out").join(row["file"].as_str().unwrap())).unwrap().ino()
    };
    assert_eq!(inode(&rows[0]), inode(&rows[7]));
    assert_ne!(inode(&rows[0]), inode(&rows[2]));

    // One file for all alerts: packets in order, none twice.
    let merged = setting.path("merged.pcapng");
    let (code, _, stderr) = setting.get(&["--alert", &setting.path("alerts"), "-w", &merged]);
    assert_eq!(code, 1, "{stderr}");
    let (packets, _) = generate::read(Path::new(&merged));
    assert!(packets.len() == 12 && packets.is_sorted_by_key(|packet| packet.0), "{}", packets.len());
    let (code, stdout, _) = setting.get(&["--alert", &setting.path("alerts"), "--json", "-q", "-w", &merged]);
    let document: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &document["with_packets"], &document["broken"][0]["line"]), (1, &json!(3), &json!(2)));

    for (text, says) in
        [("", "it contains no alert"), (&*stats, "none of its 1 events names a session"), ("x", "1 lines are broken")]
    {
        let (code, rows, stderr) = setting.split(text, &[]);
        assert!(code == 1 && rows.is_empty() && stderr.contains(says), "{text:?}: {stderr}");
    }
    let (code, _, stderr) = setting.get(&["--alert", "/nowhere/eve.json"]);
    assert!(code == 1 && stderr.contains("cannot read /nowhere/eve.json"), "{stderr}");
}

#[test]
fn a_session_is_found_by_its_community_id_whatever_the_seed() {
    let setting = Setting::new(five_sessions(), &["-m", "32M"]);
    let mut record = Vec::new();
    generate::packet(&mut record, 0, 1002, true, 100);
    let decoded = decode::decode(LinkType::ETHERNET, &record[16..]);
    let (key, _) = SessionKey::new(&decoded, InterfaceId(0));
    let file = setting.path("id.pcapng");
    for seed in [0u16, 1, 40_000] {
        let id = CommunityId::new(&key, seed).unwrap().to_string();
        let seed = seed.to_string();
        let (code, _, stderr) = setting.get(&["--community-id", &id, "--community-id-seed", &seed, "-w", &file]);
        assert_eq!((code, generate::read(Path::new(&file)).0.len()), (0, 6), "{stderr}");
        let alert = json!({"timestamp": eve_time(203), "event_type": "alert", "community_id": id}).to_string();
        let (code, rows, stderr) = setting.split(&alert, &["--community-id-seed", &seed]);
        assert_eq!((code, &rows[0]["packets"]), (0, &json!(6)), "{stderr}");
        assert_eq!(setting.split(&alert, &["--community-id-seed", "7"]).0, 1);
    }
    let (code, _, stderr) = setting.get(&["--community-id-seed", "70000"]);
    assert!(code == 2 && stderr.contains("70000"), "{stderr}");
}

#[test]
fn matching_packets_are_widened_to_their_sessions() {
    let setting = Setting::new(five_sessions(), &["-m", "32M"]);
    let file = setting.path("whole.pcapng");
    let count = |arguments: &[&str]| {
        let (code, _, stderr) = setting.get(&[arguments, &["-w", &file]].concat());
        assert_eq!(code, 0, "{arguments:?}: {stderr}");
        generate::read(Path::new(&file)).0.len()
    };
    let at = |seconds: u64| (START_S + seconds).to_string();
    assert_eq!(count(&["--around", &at(304), "--window", "1s"]), 1);
    assert_eq!(count(&["--around", &at(304), "--window", "1s", "--whole-sessions"]), 6);
    assert_eq!(count(&["--around", &at(304), "--window", "1s", "--whole-sessions", "-c", "4"]), 4);
    assert_eq!(count(&["--since", &at(300), "--until", &at(400), "--whole-sessions", "udp"]), 12);
    assert_eq!(count(&["--whole-sessions", "port 1001 and src host 192.0.2.7"]), 6);
    let (code, _, stderr) = setting.get(&["--whole-sessions", "tcp"]);
    assert!(code == 1 && stderr.contains("no packet that matches was seen"), "{stderr}");
}

/// A session of 30,000 large packets and one of a single packet, for a recorder with too little memory.
fn too_much() -> (Vec<u8>, u64) {
    let mut file = generate::header();
    for packet in 0..30_000u64 {
        generate::packet(&mut file, packet * 1_000_000, 2000, true, 1400);
    }
    generate::packet(&mut file, 30 * SECOND, 2001, true, 1400);
    (file, 30_001)
}

#[test]
fn a_cut_session_is_reported_with_numbers() {
    let setting = Setting::new(too_much(), &["-m", "16M", "--compression-cpu", "0"]);
    let file = setting.path("cut.pcapng");
    let flow = "10.0.0.0:2000 192.0.2.7:53 udp";
    let (code, _, stderr) = setting.get(&["--flow", flow, "-w", &file]);
    assert!(code == 0 && stderr.contains("a session that matches was cut after "), "{stderr}");
    let kept = generate::read(Path::new(&file)).0.len();
    assert!(stderr.contains(&format!("{kept} of 30000 packets are left")), "{kept}: {stderr}");
    let bytes = std::fs::read(&file).unwrap();
    assert!(String::from_utf8_lossy(&bytes).contains(&format!("{kept} of 30000 packets are left")), "the file says so");
    let (code, _, stderr) = setting.get(&["--flow", "10.0.0.0:2001 192.0.2.7:53", "-w", &file]);
    assert!(code == 0 && !stderr.contains("left"), "{stderr}");

    let (code, rows, stderr) = setting.split(&eve(1, 2000, "exfiltration"), &[]);
    assert_eq!((code, &rows[0]["missing"]["cause"], &rows[0]["packets"]), (0, &json!("cut"), &json!(kept)), "{stderr}");
    assert!(stderr.contains("1 alert: 1 with packets, 0 without, 1 in part"), "{stderr}");
    // The query covers only the evicted part, so nothing is found, and the cause is the cut.
    let (code, rows, _) =
        setting.split(&eve(5, 2000, "late"), &["--only-margins", "--before", "10ms", "--after", "10ms"]);
    assert_eq!((code, &rows[0]["missing"]["cause"]), (1, &json!("cut")), "{rows:?}");
    let (code, _, stderr) = setting.get(&["--around", &format!("{}", START_S + 5), "--window", "10ms", "--flow", flow]);
    assert!(code == 1 && stderr.contains("cut after") && stderr.contains("none of them in this window"), "{stderr}");
}

#[test]
fn the_service_takes_lists_of_selections() {
    let setting = Setting::new(five_sessions(), &["-m", "32M"]);
    let post = |body: &str| curl(&setting.socket, "/v1/packets", &["-H", "content-type: application/json", "-d", body]);
    for (body, status, says) in [
        ("{}", 400, "missing field `selections`"),
        ("{\"selections\": []}", 400, "is empty"),
        ("not JSON", 400, "not the JSON that /v1/openapi.json describes"),
        (r#"{"selections": [{"flow": "x"}]}"#, 400, "selection 0 (counted from 0): cannot read the flow"),
        (r#"{"selections": [{"host": "10.0.0.0"}, {}]}"#, 400, "selection 1 (counted from 0): give exactly one"),
        (r#"{"selections": [{"host": "10.0.0.0", "community_id": "1:x"}]}"#, 400, "exactly one"),
        (r#"{"selections": [{"host": "10.0.0.0", "since": "@2", "until": "@1"}]}"#, 400, "swap them"),
        (r#"{"selections": [{"host": "10.0.0.0"}], "filter": "prot"}"#, 400, "syntax error"),
        (r#"{"selections": [{"host": "10.0.0.0"}], "interface": "eth9"}"#, 400, "no interface"),
        (r#"{"selections": [{"host": "10.0.0.9"}]}"#, 404, "no packet that matches was seen"),
    ] {
        let answer = post(body);
        assert_eq!(answer.status, status, "{body}: {}", answer.text());
        assert!(answer.text().contains(says), "{body}: {}", answer.text());
    }
    let many = format!("{{\"selections\": [{}]}}", vec![r#"{"host": "::1"}"#; 20_000].join(","));
    let list = setting.path("many.json");
    std::fs::write(&list, many).unwrap();
    let answer = post(&format!("@{list}"));
    assert!(answer.status == 413 && answer.text().contains("at once"), "{}: {}", answer.status, answer.text());

    let body = r#"{"selections": [{"flow": "192.0.2.7 10.0.0.0:1001"}, {"host": "10.0.0.0"}, {"host": "10.0.0.9"}]"#;
    let answer = post(&format!("{body}}}"));
    assert_eq!((answer.status, answer.header("content-type").unwrap()), (200, "application/x-pcapng"));
    let lines = post(&format!("{body}, \"answer\": \"split\"}}"));
    assert_eq!(lines.header("content-type").unwrap(), "application/x-ndjson");
    let lines: Vec<Value> = lines.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let outcomes: Vec<(u64, u64)> =
        lines.iter().filter_map(|line| Some((line["packets"].as_u64()?, line["sessions"].as_u64()?))).collect();
    assert_eq!(outcomes, [(6, 1), (30, 5), (0, 0)]);
    let pieces: Vec<&Value> = lines.iter().filter(|line| line["data"].is_string()).collect();
    assert_eq!(pieces.iter().map(|piece| piece["packets"].as_u64().unwrap()).sum::<u64>(), 36);
    assert!(pieces.iter().all(|piece| (0.0..=1.0).contains(&piece["part"].as_f64().unwrap())), "{pieces:?}");
    assert_eq!(lines.last().unwrap()["done"], true);
}

/// A capture of one session, in the middle of which the kernel dropped seven packets.
fn with_drops() -> (Vec<u8>, u64) {
    use retrocap::formats::writer::{Exporter, Format, Options};
    use retrocap::interface::Interfaces;
    use retrocap::packet::{Direction, Packet, PacketFlags};
    let interfaces = Interfaces::default();
    let id = interfaces.intern("eth0", 2, LinkType::ETHERNET).unwrap();
    let mut exporter = Exporter::new(Format::Pcapng, Options::default());
    let mut file = Vec::new();
    exporter.begin(&mut file, &[]);
    for number in 0..10u32 {
        let mut record = Vec::new();
        generate::packet(&mut record, 0, 1001, true, 100);
        let packet = Packet {
            time: retrocap::time::Timestamp::from_unix(START_S + u64::from(number), 0),
            interface: id,
            link_type: LinkType::ETHERNET,
            direction: Direction::Unknown,
            flags: PacketFlags::default(),
            original_len: 142,
            drops_before: if number == 5 { 7 } else { 0 },
            data: &record[16..],
        };
        exporter.packet(&mut file, &interfaces.interface(id).unwrap(), &packet).unwrap();
    }
    exporter.end(&mut file, &[], &[]);
    (file, 10)
}

/// Packets may be missing only within the time in which the kernel dropped some.
#[test]
fn an_empty_answer_names_packets_dropped_by_the_kernel() {
    let setting = Setting::new(with_drops(), &["-m", "32M"]);
    let (before, after) = (format!("{}", START_S + 3), format!("{}", START_S + 6));
    let (code, _, stderr) = setting.get(&["--since", &before, "--until", &after, "port 9999"]);
    assert!(code == 1 && stderr.contains("the kernel dropped 7 packets within that time"), "{stderr}");
    let cause = |until: &str| {
        let answer = curl(&setting.socket, &format!("/v1/packets?filter=port+9999&until={until}"), &[]);
        let problem: Value = serde_json::from_str(&answer.text()).unwrap();
        (answer.status, problem["cause"].clone())
    };
    assert_eq!(cause(&after), (404, json!("dropped")));
    assert_eq!(cause(&before), (404, json!("never_seen")));
    // An answer that has packets also warns that some may be missing.
    let file = setting.path("some.pcapng");
    let (code, _, stderr) = setting.get(&["port", "1001", "-w", &file]);
    assert!(code == 0 && stderr.contains("the kernel dropped 7 packets within that time"), "{stderr}");
    let (code, rows, _) = setting.split(&eve(5, 999, "lost"), &[]);
    assert_eq!((code, &rows[0]["missing"]["cause"]), (1, &json!("dropped")), "{rows:?}");
}

/// One selection uses all the memory for sessions, so that every session of another one is left out.
#[test]
fn an_empty_answer_names_a_selection_of_too_many_sessions() {
    const SESSIONS: u32 = 6000;
    let mut file = generate::header();
    for session in 1..=SESSIONS {
        generate::packet(&mut file, u64::from(session) * 1000, session, true, 20);
    }
    let setting = Setting::new((file, u64::from(SESSIONS)), &["-m", "16M"]);
    let flow = |session: u32| json!({"flow": format!("10.0.0.0:{session} 192.0.2.7:53 udp")});
    let body = json!({"answer": "split", "selections": [{"host": "192.0.2.7"}, flow(1), flow(SESSIONS)]}).to_string();
    let list = setting.path("body.json");
    std::fs::write(&list, body).unwrap();
    let answer = curl(&setting.socket, "/v1/packets", &["-d", &format!("@{list}")]);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let lines: Vec<Value> = answer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let outcomes: Vec<&Value> = lines.iter().filter(|line| line["sessions"].is_u64()).collect();
    let causes: Vec<&Value> = outcomes.iter().map(|outcome| &outcome["missing"]["cause"]).collect();
    assert_eq!(causes[0], "too_many", "of many some: {outcomes:?}");
    assert!(outcomes[0]["packets"].as_u64().unwrap() > 0);
    // Which of the two is looked at last depends on the order in the session table.
    let left_out: Vec<&&Value> = outcomes[1..].iter().filter(|outcome| outcome["packets"] == 0).collect();
    assert_eq!(left_out.len(), 1, "{outcomes:?}");
    assert_eq!(left_out[0]["missing"]["cause"], "too_many");
    let detail = left_out[0]["missing"]["detail"].as_str().unwrap();
    assert!(detail.contains("1 session was left out") && detail.contains("narrow it down"), "{detail}");
}

/// The recorder lists flows and finds sessions by the Community ID seed in its configuration.
#[test]
fn the_recorder_uses_the_configured_community_id_seed() {
    let setting = Setting::new(five_sessions(), &["-m", "32M", "--community-id-seed", "7"]);
    let mut record = Vec::new();
    generate::packet(&mut record, 0, 1002, true, 100);
    let (key, _) = SessionKey::new(&decode::decode(LinkType::ETHERNET, &record[16..]), InterfaceId(0));
    let id = |seed: u16| CommunityId::new(&key, seed).unwrap().to_string();
    let listed = |arguments: &[&str]| -> Vec<String> {
        let (_, stdout, _) = reply(&run(&[&["flows", "--json", "--socket", &setting.socket], arguments].concat()));
        let id = |line: &str| serde_json::from_str::<Value>(line).unwrap()["community_id"].as_str().unwrap().to_owned();
        stdout.lines().map(id).collect()
    };
    assert!(listed(&[]).contains(&id(7)) && !listed(&[]).contains(&id(0)));
    assert!(listed(&["--community-id-seed", "0"]).contains(&id(0)), "who asks may name another");
    assert_eq!(listed(&["--community-id", &id(7)]), [id(7)]);
    let file = setting.path("id.pcapng");
    let packets = |arguments: &[&str]| {
        let (code, ..) = setting.get(&[arguments, &["-w", &file]].concat());
        (code, if code == 0 { generate::read(Path::new(&file)).0.len() } else { 0 })
    };
    assert_eq!(packets(&["--community-id", &id(7)]), (0, 6));
    assert_eq!(packets(&["--community-id", &id(0)]), (1, 0));
    assert_eq!(packets(&["--community-id", &id(0), "--community-id-seed", "0"]), (0, 6));
    let alert = json!({"timestamp": eve_time(203), "event_type": "alert", "community_id": id(7)}).to_string();
    assert_eq!(setting.split(&alert, &[]).1[0]["packets"], 6);
}
