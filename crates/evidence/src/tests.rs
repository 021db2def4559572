//! Whatever is changed in evidence is found, and other programs check it too.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use proptest::prelude::*;

use crate::capture::{Capture, parse_key};
use crate::digest::Digest;
use crate::manifest::Manifest;
use crate::seal::{Sealer, seal};
use crate::signature::{self, Key, NAMESPACE};
use crate::signers::AllowedSigners;
use crate::timestamp::{self, TimeStampError};
use crate::verify::{Outcome, VerifyOptions, beside, verify};
use base::interface::Interfaces;
use base::packet::{Direction, LinkType, Packet, PacketFlags};
use base::time::Timestamp;
use formats::writer::{Exporter, Format, Options};

/// A key for tests only.
pub(crate) const KEY: &str = include_str!("testdata/ed25519");

/// A UDP packet over Ethernet, from the port `source` to port 53.
fn frame(source: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(28 + payload.len()).unwrap();
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0];
    frame.extend(length.to_be_bytes());
    frame.extend([0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame.extend(source.to_be_bytes());
    frame.extend(53u16.to_be_bytes());
    frame.extend((length - 20).to_be_bytes());
    frame.extend([0, 0]);
    frame.extend_from_slice(payload);
    frame
}

/// A capture of these packets, each with the time of its number.
fn capture(packets: &[(u64, Vec<u8>)], format: Format, comments: &[String]) -> Vec<u8> {
    let interfaces = Arc::<Interfaces>::default();
    let id = interfaces.intern("eth0", 0, LinkType::ETHERNET).unwrap();
    let all = interfaces.snapshot();
    let (mut exporter, mut out) = (Exporter::new(format, Options::default()), Vec::new());
    exporter.begin(&mut out, comments);
    for (number, data) in packets {
        let packet = Packet {
            time: Timestamp::from_unix(1_795_341_600 + number, 5),
            interface: id,
            link_type: LinkType::ETHERNET,
            direction: Direction::Unknown,
            flags: PacketFlags::default(),
            original_len: u32::try_from(data.len()).unwrap(),
            drops_before: 0,
            data,
        };
        exporter.packet(&mut out, &all[0], &packet).unwrap();
    }
    exporter.end(&mut out, &[], &[]);
    out
}

fn packets(count: u64) -> Vec<(u64, Vec<u8>)> {
    (0..count).map(|number| (number, frame(1000 + u16::try_from(number % 3).unwrap(), &[7; 9]))).collect()
}

fn sealer() -> Sealer {
    Sealer { user: "ann".to_owned(), uid: 1000, host: "lab".to_owned(), program: "retrocap test".to_owned() }
}

struct Case {
    directory: tempfile::TempDir,
    manifest: PathBuf,
}

impl Case {
    /// Seals these files, and signs the manifest.
    fn new(files: &[(&str, &[u8])]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let paths: Vec<_> = files
            .iter()
            .map(|(name, content)| {
                let path = directory.path().join(name);
                std::fs::write(&path, content).unwrap();
                path
            })
            .collect();
        let text = seal(&paths, directory.path(), sealer()).unwrap().text();
        let manifest = directory.path().join("case.json");
        std::fs::write(&manifest, &text).unwrap();
        let signature = Key::read(KEY).unwrap().sign(text.as_bytes()).unwrap();
        std::fs::write(beside(&manifest, ".sig"), signature).unwrap();
        Self { directory, manifest }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Whether a verification finds nothing wrong.
    fn holds(&self) -> bool {
        let against = VerifyOptions { signers: Some(signers()), ..VerifyOptions::default() };
        verify(&self.manifest, &against).is_ok_and(|findings| findings.hold())
    }
}

fn signers() -> AllowedSigners {
    AllowedSigners::read(&format!("ann@example.org {}", Key::read(KEY).unwrap().public())).unwrap()
}

#[test]
fn what_nobody_touched_holds() {
    let case = Case::new(&[("a.pcapng", &capture(&packets(5), Format::Pcapng, &[])), ("notes.txt", b"seen at noon")]);
    let against = VerifyOptions { signers: Some(signers()), ..VerifyOptions::default() };
    let findings = verify(&case.manifest, &against).unwrap();
    assert!(findings.hold(), "{findings:?}");
    let all: Vec<_> = findings.0.iter().map(|finding| (finding.outcome, finding.words.as_str())).collect();
    assert!(all.contains(&(Outcome::Holds, "a.pcapng is unchanged: 5 packets in 3 sessions")), "{all:?}");
    assert!(all.contains(&(Outcome::Holds, "notes.txt is unchanged")), "{all:?}");
    assert!(all.contains(&(Outcome::Holds, "that key belongs to ann@example.org")), "{all:?}");
    assert!(all.iter().any(|(outcome, words)| *outcome == Outcome::Unknown && words.starts_with("when ")), "{all:?}");
}

#[test]
fn each_changed_byte_of_an_export_its_manifest_or_its_signature_is_found() {
    let case = Case::new(&[("a.pcapng", &capture(&packets(3), Format::Pcapng, &["asked for: udp".to_owned()]))]);
    assert!(case.holds());
    for name in ["a.pcapng", "case.json", "case.json.sig"] {
        let content = std::fs::read(case.path(name)).unwrap();
        for at in 0..content.len() {
            let mut changed = content.clone();
            changed[at] ^= 1 << (at % 8);
            // White space at the end of a signature is not part of it.
            if name.ends_with(".sig") && at == content.len() - 1 && changed[at].is_ascii_whitespace() {
                continue;
            }
            std::fs::write(case.path(name), &changed).unwrap();
            assert!(!case.holds(), "{name}: byte {at}");
        }
        std::fs::write(case.path(name), &content[..content.len() - 2]).unwrap();
        assert!(!case.holds(), "{name} is cut");
        std::fs::write(case.path(name), &content).unwrap();
    }
    assert!(case.holds());
}

#[test]
fn files_that_are_swapped_or_removed_are_found() {
    let (one, other) = (capture(&packets(4), Format::Pcap, &[]), capture(&packets(5), Format::Pcap, &[]));
    let case = Case::new(&[("one.pcap", &one), ("other.pcap", &other)]);
    assert!(case.holds());
    std::fs::write(case.path("one.pcap"), &other).unwrap();
    std::fs::write(case.path("other.pcap"), &one).unwrap();
    assert!(!case.holds());
    std::fs::write(case.path("one.pcap"), &one).unwrap();
    assert!(!case.holds());
    std::fs::remove_file(case.path("other.pcap")).unwrap();
    assert!(!case.holds());
    std::fs::write(case.path("other.pcap"), &other).unwrap();
    assert!(case.holds());
    std::fs::remove_file(case.path("case.json.sig")).unwrap();
    assert!(!case.holds(), "a signature was asked for");
    assert!(verify(&case.manifest, &VerifyOptions::default()).unwrap().hold(), "nobody asked for a signature");
}

#[test]
fn a_signature_of_another_key_is_found() {
    let case = Case::new(&[("notes.txt", b"x")]);
    let line = format!("bob@example.org {}", Key::read(include_str!("testdata/ecdsa")).unwrap().public());
    let against = VerifyOptions { signers: Some(AllowedSigners::read(&line).unwrap()), ..VerifyOptions::default() };
    assert!(!verify(&case.manifest, &against).unwrap().hold());
}

#[test]
fn a_manifest_that_leads_elsewhere_is_refused() {
    let case = Case::new(&[("notes.txt", b"x")]);
    let text = std::fs::read_to_string(&case.manifest).unwrap();
    for name in ["../notes.txt", "/etc/passwd", "a/../../b", ""] {
        assert!(Manifest::read(text.replace("notes.txt", name).as_bytes()).is_err(), "{name}");
    }
}

#[test]
fn packets_keep_their_digests_in_another_format() {
    let read = |bytes: Vec<u8>| Capture::read(Box::new(std::io::Cursor::new(bytes))).unwrap().packets;
    let comments = ["a comment".to_owned()];
    let (pcapng, pcap) = (capture(&packets(9), Format::Pcapng, &comments), capture(&packets(9), Format::Pcap, &[]));
    assert_eq!(read(pcapng), read(pcap));
}

#[test]
fn a_session_is_proven_out_of_a_whole_file() {
    let whole = capture(&packets(30), Format::Pcapng, &[]);
    let case = Case::new(&[("whole.pcapng", &whole)]);
    let key = parse_key("10.0.0.2:53 10.0.0.1:1001 udp").unwrap();
    let read = Capture::read(Box::new(std::io::Cursor::new(whole))).unwrap();
    let proof = read.prove("whole.pcapng", &key).unwrap();
    let session: Vec<_> = packets(30).into_iter().filter(|(number, _)| number % 3 == 1).collect();
    let check = |packets: &[(u64, Vec<u8>)]| {
        let path = case.path("session.pcap");
        std::fs::write(&path, capture(packets, Format::Pcap, &[])).unwrap();
        let against = VerifyOptions { proofs: vec![(proof.clone(), path)], ..VerifyOptions::default() };
        verify(&case.manifest, &against).unwrap().hold()
    };
    assert!(check(&session));
    for at in 0..session.len() {
        let mut without = session.clone();
        without.remove(at);
        assert!(!check(&without), "{at} is missing");
        let mut changed = session.clone();
        changed[at].1[45] ^= 1;
        assert!(!check(&changed), "{at} is changed");
        let mut moved = session.clone();
        moved[at].0 += 1;
        assert!(!check(&moved), "{at} has another time");
    }
    let mut reordered = session.clone();
    reordered.swap(2, 3);
    assert!(!check(&reordered));
    assert!(read.prove("whole.pcapng", "udp 10.0.0.1:9 10.0.0.2:53").is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Packets that are dropped, changed, repeated or moved change the root, in any capture.
    #[test]
    fn any_other_packets_have_another_root(
        packets in prop::collection::vec((0u64..1000, 0u16..6, prop::collection::vec(any::<u8>(), 0..40)), 1..40),
        at in any::<prop::sample::Index>(),
        byte in any::<prop::sample::Index>(),
    ) {
        let frames: Vec<_> =
            packets.iter().map(|(time, port, payload)| (*time, frame(*port, payload))).collect();
        let root = |frames: &[(u64, Vec<u8>)]| {
            let bytes = capture(frames, Format::Pcapng, &[]);
            Capture::read(Box::new(std::io::Cursor::new(bytes))).unwrap().packets
        };
        let whole = root(&frames);
        prop_assert_eq!(whole.count, frames.len() as u64);
        let at = at.index(frames.len());
        let mut dropped = frames.clone();
        dropped.remove(at);
        prop_assert_ne!(root(&dropped).merkle_root, whole.merkle_root);
        let mut repeated = frames.clone();
        repeated.insert(at, frames[at].clone());
        prop_assert_ne!(root(&repeated).merkle_root, whole.merkle_root);
        let mut changed = frames.clone();
        let byte = byte.index(changed[at].1.len());
        changed[at].1[byte] ^= 1;
        prop_assert_ne!(root(&changed).merkle_root, whole.merkle_root);
    }

    /// Nothing that is read can make the checks panic.
    #[test]
    fn hostile_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let text = String::from_utf8_lossy(&bytes);
        prop_assert!(signature::verify(&text, b"x").is_err());
        prop_assert!(timestamp::check(&bytes, Digest::default(), &[]).is_err());
        prop_assert!(Manifest::read(&bytes).is_err());
        let _ = AllowedSigners::read(&text);
        let _ = crate::chain::check([&bytes[..]]).unwrap();
        let _ = parse_key(&text);
    }
}

/// Runs a program that Debian has everywhere, and returns its output.
fn run(program: &str, arguments: &[&str], directory: &Path, input: &[u8]) -> Option<(bool, String)> {
    use std::io::Write as _;
    use std::process::Stdio;
    let child = Command::new(program)
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        eprintln!("SKIPPED: {program} is not installed");
        return None;
    };
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    Some((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
}

#[test]
fn ssh_keygen_checks_these_signatures_and_makes_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let message = b"{\"x\":1}\n";
    for kind in ["ed25519", "ecdsa", "rsa"] {
        let Some((made, said)) = run("ssh-keygen", &["-q", "-t", kind, "-N", "", "-f", kind], at, b"") else { return };
        assert!(made, "{said}");
        let public = std::fs::read_to_string(at.join(format!("{kind}.pub"))).unwrap();
        std::fs::write(at.join("signers"), format!("ann@example.org {public}")).unwrap();
        let check = ["-Y", "verify", "-f", "signers", "-I", "ann@example.org", "-n", NAMESPACE, "-s", "m.sig"];
        match Key::read(&std::fs::read_to_string(at.join(kind)).unwrap()) {
            Ok(key) => {
                std::fs::write(at.join("m.sig"), key.sign(message).unwrap()).unwrap();
                let (good, said) = run("ssh-keygen", &check, at, message).unwrap();
                assert!(good, "{kind}: {said}");
                assert!(!run("ssh-keygen", &check, at, b"other").unwrap().0, "{kind}");
                assert!(public.starts_with(&key.public()), "{public}");
            }
            Err(error) => assert!(kind == "rsa" && error.needs_ssh_keygen(), "{kind}: {error}"),
        }
        std::fs::write(at.join("m"), message).unwrap();
        std::fs::remove_file(at.join("m.sig")).ok();
        let (made, said) = run("ssh-keygen", &["-Y", "sign", "-f", kind, "-n", NAMESPACE, "m"], at, b"").unwrap();
        assert!(made, "{said}");
        let signature = std::fs::read_to_string(at.join("m.sig")).unwrap();
        let signer = signature::verify(&signature, message).unwrap_or_else(|error| panic!("{kind}: {error}"));
        assert!(public.starts_with(&signer.public), "{public}");
        assert!(AllowedSigners::read(&format!("a {public}")).unwrap().principals(&signer, "20261122000000").is_some());
        assert_eq!(signature::verify(&signature, b"other"), Err(signature::SignatureError::Wrong));
        let (made, _) = run("ssh-keygen", &["-Y", "sign", "-f", kind, "-n", "git", "-q"], at, message).unwrap();
        assert!(made);
    }
    let (_, other) = run("ssh-keygen", &["-Y", "sign", "-f", "ed25519", "-n", "git", "-q"], at, message).unwrap();
    let other = other.split_once("-----BEGIN").map(|(_, rest)| format!("-----BEGIN{rest}")).unwrap();
    assert_eq!(signature::verify(&other, message), Err(signature::SignatureError::Namespace("git".to_owned())));
}

/// An authority made with openssl, whose certificate a second one signed.
const AUTHORITY: &str = r#"
set -e
printf '[req]\ndistinguished_name=dn\n[dn]\n[ca]\nbasicConstraints=critical,CA:TRUE\nsubjectKeyIdentifier=hash\n[stamp]\nextendedKeyUsage=critical,timeStamping\nbasicConstraints=CA:FALSE\n[tsa]\ndefault_tsa=t\n[t]\nserial=serial\nsigner_digest=sha256\ndefault_policy=1.2.3.4\ndigests=sha256\ness_cert_id_alg=sha256\n' > ts.cnf
echo 01 > serial
openssl req -x509 -newkey NEWKEY -nodes -keyout ca.key -out ca.pem -subj '/CN=Test root' -days 9 -config ts.cnf -extensions ca
openssl req -newkey NEWKEY -nodes -keyout tsa.key -out tsa.csr -subj '/CN=Test authority' -config ts.cnf
openssl x509 -req -in tsa.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out tsa.pem -days 9 -extfile ts.cnf -extensions stamp
openssl x509 -in ca.pem -outform DER -out ca.der
"#;

#[test]
fn openssl_stamps_requests_and_its_responses_are_checked() {
    for new_key in ["rsa:2048", "ec -pkeyopt ec_paramgen_curve:P-256"] {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        let Some((made, said)) = run("sh", &["-c", &AUTHORITY.replace("NEWKEY", new_key)], at, b"") else { return };
        if said.contains("openssl: not found") {
            eprintln!("SKIPPED: openssl is not installed");
            return;
        }
        assert!(made, "{said}");
        let content = b"the manifest\n";
        std::fs::write(at.join("m"), content).unwrap();
        std::fs::write(at.join("m.tsq"), timestamp::request(Digest::of(content)).unwrap()).unwrap();
        let reply = "openssl ts -reply -config ts.cnf -queryfile m.tsq -signer tsa.pem -inkey tsa.key -out m.tsr && \
                     openssl ts -verify -queryfile m.tsq -in m.tsr -CAfile ca.pem";
        let (made, said) = run("sh", &["-c", reply], at, b"").unwrap();
        assert!(made, "{said}");
        let response = std::fs::read(at.join("m.tsr")).unwrap();
        let authority = std::fs::read(at.join("ca.der")).unwrap();
        let stamp = timestamp::check(&response, Digest::of(content), std::slice::from_ref(&authority)).unwrap();
        assert_eq!((stamp.trusted, stamp.authority.as_str()), (Some(true), "CN=Test authority"), "{stamp:?}");
        let untrusted = timestamp::check(&response, Digest::of(content), &[]).unwrap();
        assert_eq!((untrusted.trusted, untrusted.unix_seconds), (None, stamp.unix_seconds));
        let other = timestamp::check(&response, Digest::of(b"other"), &[]);
        assert_eq!(other, Err(TimeStampError::OtherContent));
        let alien = rogue(new_key);
        let distrusted = timestamp::check(&response, Digest::of(content), &[alien]).unwrap();
        assert_eq!(distrusted.trusted, Some(false), "{distrusted:?}");
        // Nothing that is changed in a response makes it state another time.
        for byte in 0..response.len() {
            let mut changed = response.clone();
            changed[byte] ^= 1;
            if let Ok(found) = timestamp::check(&changed, Digest::of(content), std::slice::from_ref(&authority))
                && found.trusted == Some(true)
            {
                assert_eq!((found.unix_seconds, &found.serial), (stamp.unix_seconds, &stamp.serial), "byte {byte}");
            }
        }
    }
}

/// Another authority with the same name.
fn rogue(new_key: &str) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let (made, said) = run("sh", &["-c", &AUTHORITY.replace("NEWKEY", new_key)], directory.path(), b"").unwrap();
    assert!(made, "{said}");
    std::fs::read(directory.path().join("ca.der")).unwrap()
}
