//! What users of tcpdump, dumpcap, tshark and stenoread type, asked of capture files without a recorder.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cli::{reply, retrocap, run};
use crate::generate;

/// A capture of two sessions, and its folder.
fn capture() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("in.pcap");
    std::fs::write(&path, generate::traffic(64 << 10, 7)).unwrap();
    (folder, path)
}

fn ask(arguments: &[&str], file: &Path) -> (i32, String, String) {
    reply(&run(&[arguments, &["-r", file.to_str().unwrap()]].concat()))
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut child = Command::new("gzip")
        .arg("-c")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let bytes = bytes.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&bytes));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    output.stdout
}

#[test]
fn honest_13_14_a_capture_file_answers_like_a_recorder() {
    let (folder, path) = capture();
    let (packets, _) = generate::read(&path);
    let (code, lines, stderr) = ask(&["get", "--text"], &path);
    assert_eq!((code, lines.lines().count()), (0, packets.len()), "{stderr}");
    let (code, flows, stderr) = ask(&["flows"], &path);
    assert!(code == 0 && flows.lines().count() > 1, "{stderr}");
    let (code, status, stderr) = ask(&["status"], &path);
    assert!(code == 0 && status.starts_with("kept "), "{status}{stderr}");

    let compressed = folder.path().join("in.any");
    std::fs::write(&compressed, gzip(&std::fs::read(&path).unwrap())).unwrap();
    assert_eq!(ask(&["get", "--text"], &compressed).1, lines);

    let fifo = folder.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let (from, to) = (path.clone(), fifo.clone());
    let writer = std::thread::spawn(move || std::fs::copy(from, to));
    assert_eq!(ask(&["get", "--text"], &fifo).1, lines);
    drop(writer);

    let (code, stdout, stderr) = ask(&["get", "--text"], Path::new("/nonexistent/x.pcap"));
    assert!(code == 1 && stdout.is_empty() && stderr.contains("/nonexistent/x.pcap"), "{stderr}");
}

#[test]
fn honest_13_14_options_of_other_tools_are_taken_or_explained() {
    let (folder, path) = capture();
    let all = ask(&["get", "--text"], &path).1;
    assert_eq!(ask(&["get", "--text", "-nn", "-l", "-i", "any"], &path).1, all);
    assert_eq!(ask(&["get", "--text", "-SKpO", "-N", "-U"], &path).1, all);
    let (code, dump, _) = ask(&["get", "-X", "-c", "1"], &path);
    assert!(code == 0 && dump.contains("    0x0000:  4"), "{dump}");
    for (arguments, words) in [
        (&["get", "-G", "60"][..], &["-G", "--since"][..]),
        (&["get", "-C", "10"], &["-C", "editcap"]),
        (&["get", "-W", "3"], &["-W"]),
        (&["get", "-s", "96"], &["run -s"]),
        (&["get", "-e"], &["-e has no meaning here", "tcpdump -enr -"]),
        (&["flows", "-V"], &["tshark -r -"]),
        (&["get", "-T", "fields", "-e", "ip.src"], &["-T has", "tshark -r - -T fields"]),
        (&["get", "-#"], &["tcpdump"]),
        (&["get", "-F", "filter.txt"], &["$(cat FILE)"]),
        (&["get", "-Z", "root"], &["leave it out"]),
        (&["get", "-z", "gzip"], &["-w FILE"]),
        (&["get", "-B", "4096"], &["leave it out"]),
        (&["get", "-y", "EN10MB"], &["leave it out"]),
        (&["get", "-E", "key"], &["tcpdump"]),
        (&["get", "-P"], &["--format pcap"]),
        (&["get", "-g"], &["--mode 640"]),
        (&["get", "-ddd"], &["tcpdump -d"]),
        (&["get", "-R", "dns"], &["-Y FILTER"]),
        (&["flows", "-X"], &["get -X"]),
        (&["flows", "-w", "x.pcap"], &["get -w", "--csv"]),
        (&["get", "http.request.method==\"POST\""], &["display filter", "tshark"]),
        (&["get", "--follow"], &["leave out one of both"]),
        (&["get", "-Y", "dns"], &["display filter", "port 53"]),
        (&["flows", "modbus.func_code == 5"], &["display filter", "tshark"]),
        (&["get", "dns"], &["display filter", "port 53"]),
        (&["get", "!(arp", "or", "tls)"], &["display filter", "tcp port 443"]),
        (&["get", "tcp contains \"GET\""], &["display filter", "tshark"]),
        (&["get", "port http or nothing"], &["cannot compile"]),
        (&["push", "127.0.0.1:1"], &["get -r", "nc"]),
        (&["flows", "-tt"], &["--json"]),
    ] {
        let (code, stdout, stderr) = ask(arguments, &path);
        assert_eq!((code, stdout.as_str()), (2, ""), "{arguments:?}: {stderr}");
        for word in words {
            assert!(stderr.contains(word), "{arguments:?}: {stderr}");
        }
    }
    let out = folder.path().join("out.pcap");
    let (code, _, stderr) = ask(&["get", "-w", out.to_str().unwrap()], &path);
    assert_eq!(code, 0, "{stderr}");
    let magic = std::fs::read(&out).unwrap();
    assert!(
        [0xa1b2_3c4d_u32, 0xa1b2_c3d4].iter().any(|known| magic.starts_with(&known.to_le_bytes())),
        "{:?}",
        &magic[..4]
    );
}

#[test]
fn honest_13_14_every_verb_tells_its_version() {
    let expected = reply(&run(&["--version"]));
    for verb in ["get", "flows", "status", "run", "replay", "pin", "interfaces", "hunt", "files", "check"] {
        let (code, stdout, stderr) = reply(&run(&[verb, "--version"]));
        assert!(code == 0 && stdout.contains(env!("CARGO_PKG_VERSION")), "{verb}: {stdout}{stderr} {expected:?}");
    }
}

#[test]
fn honest_13_14_push_takes_or_explains_the_options_too() {
    let (code, _, stderr) = reply(&run(&["push", "-X", "127.0.0.1:1"]));
    assert!(code == 2 && stderr.contains("get -X"), "{stderr}");
    let (code, stdout, stderr) = reply(&run(&["push", "-D"]));
    assert!(code == 0 && stdout.contains("lo [Up"), "{stdout}{stderr}");
    let (code, _, stderr) = reply(&run(&["push"]));
    assert!(code == 2 && stderr.contains("HOST:PORT"), "{stderr}");
}

#[test]
fn honest_13_14_display_filters_and_expressions_are_joined() {
    let (_folder, path) = capture();
    let all = ask(&["get", "--text"], &path).1;
    let (code, lines, stderr) = ask(&["get", "--text", "-f", "udp", "-Y", "ip.proto == 17", "ip"], &path);
    assert_eq!((code, &lines), (0, &all), "{stderr}");
    assert!(stderr.contains("'((ip) and (udp)) and (ip proto 17)'"), "{stderr}");
    let (code, lines, stderr) = ask(&["get", "--text", "not", "ipv6"], &path);
    assert_eq!((code, &lines), (0, &all), "{stderr}");
    assert!(stderr.contains("'not (ip6)'"), "{stderr}");
}

/// The answer about a file, in a time zone nine hours ahead of UTC.
fn ask_in_japan(arguments: &[&str], file: &Path) -> (i32, String, String) {
    reply(&retrocap().env("TZ", "JST-9").args(arguments).arg("-r").arg(file).output().unwrap())
}

#[test]
fn honest_13_15_times_carry_their_zone() {
    let (folder, path) = capture();
    let (_, lines, stderr) = ask_in_japan(&["get", "--text", "-c", "2"], &path);
    assert_eq!(stderr.lines().next(), Some("retrocap: times are in +09:00"), "{stderr}");
    let (_, utc, stderr) =
        reply(&retrocap().env("TZ", "UTC").args(["get", "--text", "-c", "2", "-r"]).arg(&path).output().unwrap());
    assert_eq!(stderr.lines().next(), Some("retrocap: times are in UTC"), "{stderr}");
    let hour = |lines: &str| lines[..2].parse::<u32>().unwrap();
    assert_eq!((hour(&utc) + 9) % 24, hour(&lines));
    assert_eq!(utc.lines().next().unwrap()[2..], lines.lines().next().unwrap()[2..]);
    let (_, dated, stderr) = ask_in_japan(&["get", "--text", "-tttt", "-c", "1"], &path);
    assert!(dated.split(' ').nth(1).unwrap().ends_with("+09:00") && !stderr.contains("times are"), "{dated}{stderr}");
    let (_, epoch, _) = ask_in_japan(&["get", "--text", "-tt", "-c", "1"], &path);
    let (_, rows, _) = ask_in_japan(&["flows", "--json", "--sort", "start", "--limit", "1"], &path);
    let row: serde_json::Value = serde_json::from_str(rows.lines().next().unwrap()).unwrap();
    assert!(row["first"].as_str().unwrap().ends_with('Z'), "{row}");
    assert!(epoch.split(' ').next().unwrap().parse::<f64>().unwrap() > 1.0, "{epoch}");
    assert!(ask_in_japan(&["get", "--text", "-t", "-c", "1"], &path).1.starts_with("IP"), "no time");
    assert!(
        ask_in_japan(&["get", "--text", "-ttt", "-c", "1"], &path).1.starts_with("00:00:00.000000 IP"),
        "since the first"
    );
    let (_, table, _) = ask_in_japan(&["flows"], &path);
    assert!(table.starts_with("first (+09:00)"), "{table}");
    let out = folder.path().join("out.pcapng");
    let (_, _, stderr) = ask_in_japan(&["get", "-w", out.to_str().unwrap()], &path);
    assert!(stderr.contains(" +09:00 -> "), "{stderr}");
}

#[test]
fn honest_13_14_a_line_of_flows_is_a_flow() {
    let (_folder, path) = capture();
    let (_, rows, _) = ask(&["flows", "--json", "--limit", "1"], &path);
    let row: serde_json::Value = serde_json::from_str(rows.lines().next().unwrap()).unwrap();
    let packets = row["kept_packets"].as_u64().unwrap();
    let (_, table, _) = ask(&["flows", "--limit", "1"], &path);
    let (_, csv, _) = ask(&["flows", "--csv", "--limit", "1"], &path);
    let end = |side: &str| format!("{}:{}", row[side]["ip"].as_str().unwrap(), row[side]["port"]);
    let conversation = format!("{} <-> {}  12  3456", end("originator"), end("responder"));
    for line in
        [rows.lines().next().unwrap(), table.lines().nth(1).unwrap(), csv.lines().nth(1).unwrap(), &conversation]
    {
        let (code, lines, stderr) = ask(&["get", "--text", "--flow", line], &path);
        assert_eq!((code, lines.lines().count() as u64), (0, packets), "{line}: {stderr}");
    }
}

#[test]
fn honest_13_14_the_name_of_a_file_decides_its_compression() {
    let (folder, path) = capture();
    let packets = generate::read(&path).0.len();
    for (name, program, magic) in [
        ("out.pcap.gz", "gzip", [0xd4, 0xc3, 0xb2, 0xa1]),
        ("out.pcapng.zst", "zstd", [0x0a, 0x0d, 0x0d, 0x0a]),
        ("out.lz4", "lz4", [0x0a, 0x0d, 0x0d, 0x0a]),
    ] {
        let out = folder.path().join(name);
        let (code, _, stderr) = ask(&["get", "--micro", "-w", out.to_str().unwrap()], &path);
        assert_eq!(code, 0, "{stderr}");
        let (_, lines, stderr) = ask(&["get", "--text"], &out);
        assert_eq!(lines.lines().count(), packets, "{name}: {stderr}");
        match Command::new(program).arg("-dc").arg(&out).output() {
            Ok(plain) => assert!(plain.status.success() && plain.stdout.starts_with(&magic), "{name}: {plain:?}"),
            Err(error) => eprintln!("SKIPPED: {program} reads {name}: {error}"),
        }
        match Command::new("tshark").args(["-n", "-r"]).arg(&out).output() {
            Ok(listed) => {
                let lines = String::from_utf8_lossy(&listed.stdout);
                assert_eq!(lines.lines().count(), packets, "{name}: {}", String::from_utf8_lossy(&listed.stderr));
            }
            Err(error) => eprintln!("SKIPPED: tshark reads {name}: {error}"),
        }
    }
    for (arguments, expected) in [
        (&["get", "-w", "out.pcap.xz"][..], "try a name that ends in .gz, .zst or .lz4"),
        (&["get", "-w", "out.pcap.gz", "--seal", "key"], "--seal seals what the recorder sent"),
    ] {
        let (code, _, stderr) = ask(arguments, &path);
        assert!(code == 2 && stderr.contains(expected), "{arguments:?}: {stderr}");
    }
}

#[test]
fn honest_13_16_no_success_stands_above_an_error() {
    let (folder, path) = capture();
    let whole = std::fs::read(&path).unwrap();
    let (text, cut) = (folder.path().join("text"), folder.path().join("cut.pcap"));
    std::fs::write(&text, "this is not a capture, it is a text\n").unwrap();
    std::fs::write(&cut, &whole[..whole.len() - 3]).unwrap();
    let (code, stdout, stderr) = reply(&run(&["replay", text.to_str().unwrap(), "-m", "16M"]));
    assert_eq!((code, stdout.as_str()), (1, ""), "{stderr}");
    assert!(stderr.contains("text") && !stderr.contains("every packet before"), "{stderr}");
    let (code, stdout, stderr) = reply(&run(&["replay", cut.to_str().unwrap(), "-m", "16M"]));
    assert!(code == 1 && stderr.contains("every packet before that was read"), "{stderr}");
    assert!(stdout.starts_with("BEFORE THE DAMAGE kept ") && !stdout.contains("nothing lost"), "{stdout}");
}

#[test]
fn honest_13_16_damage_further_into_a_file_is_reported_first() {
    let (folder, path) = capture();
    let whole = gzip(&std::fs::read(&path).unwrap());
    let damaged = folder.path().join("damaged.pcap.gz");
    std::fs::write(&damaged, &whole[..whole.len() / 2]).unwrap();
    let out = folder.path().join("out.pcapng");
    for arguments in [&["get", "-w", out.to_str().unwrap()][..], &["flows", "--limit", "1"], &["status"]] {
        let (code, stdout, stderr) = ask(arguments, &damaged);
        let first = stderr.lines().next().unwrap();
        assert!(
            code == 1 && first.contains("damaged.pcap.gz") && first.contains("before that"),
            "{arguments:?}: {stderr}"
        );
        assert_eq!(stderr.matches("damaged.pcap.gz").count(), 1, "{arguments:?}: {stderr}");
        assert!(arguments != ["status"] || !stdout.contains("nothing lost"), "{stdout}");
    }
}
