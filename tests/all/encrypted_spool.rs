//! A spool that is encrypted at rest: nothing is readable without the key, and everything is with it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::hunting::{Replaying, lines, retrocap, said, text};
use crate::machine::{capture, skipped};

/// A key file with these digits, one key each.
fn key_file(folder: &Path, name: &str, digits: &str) -> PathBuf {
    let path = folder.join(name);
    let keys: Vec<String> = digits.chars().map(|digit| String::from_iter([digit; 64])).collect();
    std::fs::write(&path, keys.join("\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path
}

fn all_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let of = |path: PathBuf| if path.is_dir() { all_files(&path) } else { vec![path] };
    let mut files: Vec<PathBuf> = entries.flat_map(of).collect();
    files.sort();
    files
}

/// Records the capture into an encrypted spool, and stops.
fn record(capture: &Path, spool: &Path, key: &Path, more: &[&str]) {
    let arguments = ["-m", "64MiB", "--spool", text(spool), "--spool-size", "64M", "--spool-key", text(key)];
    Replaying::start(capture, &[&arguments[..], more].concat()).stop();
}

/// Number of packets.
fn packets(arguments: &[&str]) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.pcap");
    let output = retrocap(&[&["get", "-w", text(&path)], arguments].concat());
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    crate::generate::read(&path).0.len()
}

#[test]
fn an_encrypted_spool_shows_nothing_without_its_key_and_everything_with_it() {
    let Some(capture) = capture("encryption of the spool", "mixed-lan.pcap") else { return };
    let folder = tempfile::tempdir().unwrap();
    let key = key_file(folder.path(), "key", "a");
    let other = key_file(folder.path(), "other", "b");
    let expected = packets(&["-r", text(&capture)]);
    for (name, level) in [("plain", "0"), ("packed", "1")] {
        let spool = folder.path().join(name);
        record(&capture, &spool, &key, &["--spool-compression", level]);
        let files = all_files(&spool);
        assert!(files.iter().any(|file| text(file).ends_with(".parquet.enc")), "{files:?}");
        for file in files.iter().filter(|file| !text(file).ends_with("/lock")) {
            assert!(text(file).ends_with(".enc"), "{}", file.display());
            let bytes = std::fs::read(file).unwrap();
            // A magic number of pcapng, gzip or Parquet, and names in the traffic.
            for clear in [&b"\x4d\x3c\x2b\x1a"[..], b"\x1f\x8b\x08\x04", b"PAR1", b"ubuntu", b"retrocap"] {
                let found = bytes.windows(clear.len()).any(|bytes| bytes == clear);
                assert!(!found || clear.len() < 5 && !bytes.starts_with(clear), "{clear:02x?} in {}", file.display());
            }
        }
        for arguments in [&["get", "-w", "-"][..], &["flows"], &["hunt", "--text", "ubuntu"]] {
            for (key, says) in [(None, "--spool-key FILE"), (Some(&other), "add a line with that key")] {
                let mut command = [arguments, &["--spool", text(&spool)]].concat();
                command.extend(key.into_iter().flat_map(|key| ["--spool-key", text(key)]));
                let output = retrocap(&command);
                assert!(!output.status.success(), "{command:?}");
                assert!(said(&output).contains("is encrypted with the key"), "{command:?}: {}", said(&output));
                assert!(said(&output).contains(says), "{command:?}: {}", said(&output));
            }
        }
        let with_key = ["--spool", text(&spool), "--spool-key", text(&key)];
        assert_eq!(packets(&with_key), expected);
        let flows = retrocap(&[&["flows", "--json"], &with_key[..]].concat());
        assert_eq!(lines(&flows).len(), lines(&retrocap(&["flows", "--json", "-r", text(&capture)])).len());
        let check = retrocap(&["spool", "check", text(&spool), "--spool-key", text(&key)]);
        assert!(check.status.success(), "{}", said(&check));
        let blind = retrocap(&["spool", "check", text(&spool)]);
        assert!(!blind.status.success(), "what was not verified is not whole");
        decrypted(folder.path(), &spool, &key, expected);
    }
}

/// Other programs read what `spool decrypt` writes.
fn decrypted(folder: &Path, spool: &Path, key: &Path, expected: usize) {
    let out = folder.join(format!("{}-out", spool.file_name().unwrap().display()));
    let command = ["spool", "decrypt", text(spool), "-o", text(&out), "--spool-key", text(key)];
    let done = retrocap(&command);
    assert!(done.status.success(), "{}", said(&done));
    assert!(!retrocap(&command).status.success(), "nothing is overwritten");
    assert_eq!(std::fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(packets(&["--spool", text(&out)]), expected);
    let flows = lines(&retrocap(&["flows", "--json", "--spool", text(&out)])).len();
    assert_eq!(flows, lines(&retrocap(&["flows", "--json", "--spool", text(spool), "--spool-key", text(key)])).len());
    let mut seen = 0;
    for file in all_files(&out) {
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "{}", file.display());
        if !text(&file).contains(".pcapng") {
            continue;
        }
        let Ok(output) = Command::new("capinfos").args(["-c", "-M", "-T", "-r", text(&file)]).output() else {
            return skipped("Wireshark reads decrypted files", "capinfos is not installed");
        };
        let line = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{line} {}", String::from_utf8_lossy(&output.stderr));
        seen += line.trim().rsplit('\t').next().unwrap().parse::<usize>().unwrap();
    }
    assert_eq!(seen, expected);
}

#[test]
fn an_old_key_stays_beside_the_new_one_and_a_removal_encrypts_with_the_new_one() {
    let (Some(earlier), Some(later)) =
        (capture("keys of the spool", "mixed-lan.pcap"), capture("keys of the spool", "http-files.pcap"))
    else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let (old, both) = (key_file(folder.path(), "old", "1"), key_file(folder.path(), "both", "21"));
    let spool = folder.path().join("spool");
    record(&earlier, &spool, &old, &[]);
    record(&later, &spool, &both, &[]);
    let with = |key| ["--spool", text(&spool), "--spool-key", text(key)];
    let expected = packets(&["-r", text(&earlier)]) + packets(&["-r", text(&later)]);
    assert_eq!(packets(&with(&both)), expected);
    // What one key cannot read is not denied.
    let part = retrocap(&[&["get"], &with(&old)[..]].concat());
    assert!(said(&part).contains("could not be read") && said(&part).contains("add a line"), "{}", said(&part));

    // A removal says what it could not look into, and numbers no new file as one of those.
    let blind = retrocap(&[&["spool", "drop", "less 1", "--before", "2030-01-01"][..], &with(&old)].concat());
    assert!(!blind.status.success() && said(&blind).contains("INCOMPLETE"), "{}", said(&blind));
    let (new, third) = (key_file(folder.path(), "new", "2"), key_file(folder.path(), "third", "3"));
    let earlier_tcp = ["--since", "2013-05-01", "--until", "2013-05-03", "tcp"];
    let with_new = || retrocap(&[&["get", "--text"], &with(&new)[..], &earlier_tcp].concat());
    assert!(with_new().stdout.is_empty(), "the earlier files have the old key");
    let dropped = retrocap(&[&["spool", "drop", "udp port 53", "--before", "2030-01-01"][..], &with(&both)].concat());
    assert!(dropped.status.success(), "{}", said(&dropped));
    assert!(!with_new().stdout.is_empty(), "rewritten files have the new key");
    // A recorder that lacks the keys says so in its answers.
    let arguments = ["-m", "64MiB", "--spool", text(&spool), "--spool-size", "64M", "--spool-key", text(&third)];
    let recorder = Replaying::start(&later, &arguments);
    let socket = recorder.socket();
    for from in [&["--from", "disk"][..], &[]] {
        let question = [&["get", "--socket", &socket], from, &["host", "192.0.2.77"]].concat();
        let answer = retrocap(&question);
        assert!(said(&answer).contains("files of the spool could not be opened"), "{from:?}: {}", said(&answer));
    }
    recorder.stop();
    let dns = retrocap(&[&["get"], &with(&both)[..], &["udp", "port", "53"]].concat());
    assert_eq!(dns.status.code(), Some(1), "{}", said(&dns));
}

#[test]
fn a_recorder_refuses_a_key_file_that_everybody_may_read() {
    let Some(capture) = capture("the key file of the spool", "http-pdf.pcap") else { return };
    let folder = tempfile::tempdir().unwrap();
    let key = key_file(folder.path(), "key", "a");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let spool = folder.path().join("spool");
    let socket = folder.path().join("r.sock");
    let run = ["run", "--replay", text(&capture), "--socket", text(&socket), "-m", "64MiB", "--spool", text(&spool)];
    let refused = retrocap(&[&run[..], &["--spool-key", text(&key)]].concat());
    assert!(!refused.status.success());
    assert!(said(&refused).contains("chmod o-rwx"), "{}", said(&refused));
    assert!(!spool.exists(), "nothing is written in the clear instead");
}
