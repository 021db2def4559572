//! What users of tcpdump, dumpcap, tshark and stenoread type, asked of capture files without a recorder.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cli::{run, told};
use crate::generate;

/// A capture of two sessions, and its folder.
fn capture() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("in.pcap");
    std::fs::write(&path, generate::traffic(64 << 10, 7)).unwrap();
    (folder, path)
}

fn ask(arguments: &[&str], file: &Path) -> (i32, String, String) {
    told(&run(&[arguments, &["-r", file.to_str().unwrap()]].concat()))
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
    let (code, dump, _) = ask(&["get", "-X", "-c", "1"], &path);
    assert!(code == 0 && dump.contains("    0x0000:  4"), "{dump}");
    for (arguments, words) in [
        (&["get", "-G", "60"][..], &["-G", "--since"][..]),
        (&["get", "-C", "10"], &["-C", "editcap"]),
        (&["get", "-W", "3"], &["-W"]),
        (&["get", "-s", "96"], &["run -s"]),
        (&["flows", "-X"], &["get -X"]),
        (&["flows", "-w", "x.pcap"], &["get -w", "--csv"]),
        (&["get", "http.request.method==\"POST\""], &["display filter", "tshark"]),
        (&["get", "--follow"], &["leave out one of both"]),
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
fn honest_13_14_a_line_of_flows_is_a_flow() {
    let (_folder, path) = capture();
    let (_, rows, _) = ask(&["flows", "--json", "--limit", "1"], &path);
    let row: serde_json::Value = serde_json::from_str(rows.lines().next().unwrap()).unwrap();
    let packets = row["kept_packets"].as_u64().unwrap();
    let (_, table, _) = ask(&["flows", "--limit", "1"], &path);
    for line in [rows.lines().next().unwrap(), table.lines().nth(1).unwrap()] {
        let (code, lines, stderr) = ask(&["get", "--text", "--flow", line], &path);
        assert_eq!((code, lines.lines().count() as u64), (0, packets), "{line}: {stderr}");
    }
}

#[test]
fn honest_13_16_no_success_stands_above_an_error() {
    let (folder, path) = capture();
    let whole = std::fs::read(&path).unwrap();
    let (text, cut) = (folder.path().join("text"), folder.path().join("cut.pcap"));
    std::fs::write(&text, "this is not a capture, it is a text\n").unwrap();
    std::fs::write(&cut, &whole[..whole.len() - 3]).unwrap();
    let (code, stdout, stderr) = told(&run(&["replay", text.to_str().unwrap(), "-m", "16M"]));
    assert_eq!((code, stdout.as_str()), (1, ""), "{stderr}");
    assert!(stderr.contains("text") && !stderr.contains("every packet before"), "{stderr}");
    let (code, stdout, stderr) = told(&run(&["replay", cut.to_str().unwrap(), "-m", "16M"]));
    assert!(code == 1 && stderr.contains("every packet before that was read"), "{stderr}");
    assert!(stdout.starts_with("BEFORE THE DAMAGE kept ") && !stdout.contains("nothing lost"), "{stdout}");
}
