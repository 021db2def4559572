//! Attacks of readers: on the audit log, on the places of other readers, and with certificates.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use serde_json::Value;

use super::certs::Pki;
use super::remote::{Listening, port};
use super::running::{PROGRAM, Recorder, conserves, directory, eventually, have};
use crate::generate;

/// Requests that are refused; without a limit each of them is a line.
const REFUSALS: usize = 5000;

/// A recorder that serves a replayed capture of so many packets over plain TCP, and its port.
pub(super) fn plain(packets: u64, payload: u16, arguments: &[&str]) -> (Recorder, u16) {
    let directory = directory();
    let capture = directory.path().join("capture.pcap");
    let mut bytes = generate::header();
    for number in 0..packets {
        generate::packet(&mut bytes, number * 1000, u32::try_from(number % 1000).unwrap(), true, payload);
    }
    std::fs::write(&capture, bytes).unwrap();
    let mut command = Command::new(PROGRAM);
    command
        .args(["run", "--listen-plain", "127.0.0.1:0", "--speed", "max"])
        .args(arguments)
        .arg("--replay")
        .arg(capture);
    let recorder = Recorder::start(command, directory);
    let port = port(&recorder, " without encryption");
    recorder.arrived(packets);
    (recorder, port)
}

pub(super) fn lines(recorder: &Recorder, name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(recorder.path(name)).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Refusals cost a client nothing, and the log is small: still no read is displaced, and the refusals are counted.
#[test]
fn refusals_displace_no_read_from_the_audit_log() {
    let (recorder, port) = plain(100, 100, &["-m", "40M", "--audit-log-size", "4K", "--audit-log-keep", "1"]);
    assert_eq!(recorder.ask(&["get", "-c", "1", "-w", "/dev/null"]).code, 0);
    // A line at its beginning, and one at its end, which may come after the client has its answer.
    let reads = 2;
    eventually("the read is in the log", || lines(&recorder, "audit.log").len() == reads);
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut answers = stream.try_clone().unwrap();
    let reader = std::thread::spawn(move || {
        let (mut buffer, mut refused, mut rest) = ([0; 65536], 0, Vec::new());
        while refused < REFUSALS {
            let length = answers.read(&mut buffer).unwrap();
            assert!(length > 0, "closed after {refused} refusals");
            rest.extend_from_slice(&buffer[..length]);
            let text = String::from_utf8_lossy(&rest).into_owned();
            refused += text.matches("HTTP/1.1 403").count();
            // What may be the beginning of the next one stays.
            let keep = rest.len().saturating_sub(11).max(text.rfind("HTTP/1.1 403").map_or(0, |at| at + 12));
            rest.drain(..keep.min(rest.len()));
        }
    });
    for _ in 0..REFUSALS {
        stream.write_all(b"DELETE /v1/pins?id=1 HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    }
    reader.join().unwrap();
    assert_eq!(lines(&recorder, "audit.log").len(), reads, "nothing but reads, and all of them");
    let refused = lines(&recorder, "audit.log.refusals");
    assert_eq!(refused.len(), 5, "{refused:?}");
    assert_eq!(refused[0]["who"]["uid"], rustix::process::getuid().as_raw(), "the user is known over plain TCP too");
    // When the recorder stops it says how many there were.
    let path = recorder.path("audit.log.refusals");
    recorder.signal("-TERM");
    eventually("the refusals are counted", || {
        let text = std::fs::read_to_string(&path).unwrap();
        text.lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .any(|line| line["event"] == "refused-more" && line["refused"] == REFUSALS - 5)
    });
}

/// What rotation removes is stated in the log.
#[test]
fn rotation_states_what_it_removes() {
    let (recorder, _) = plain(100, 100, &["-m", "40M", "--audit-log-size", "4K", "--audit-log-keep", "1"]);
    for _ in 0..20 {
        assert_eq!(crate::service::asking::get(recorder.socket(), "/v1/packets?c=1").status, 200);
    }
    let kept = [lines(&recorder, "audit.log.1"), lines(&recorder, "audit.log")].concat();
    let removed: Vec<&Value> = kept.iter().filter(|line| line["event"] == "removed").collect();
    assert!(!removed.is_empty(), "{kept:?}");
    for line in removed {
        assert_eq!(line["removed"]["file"], "audit.log.1", "{line}");
        assert!(line["removed"]["lines"].as_u64().unwrap() > 0 && line["removed"]["first"].is_string(), "{line}");
    }
}

/// A user of the host asks for large answers over plain TCP and reads none of them.
#[test]
fn stalled_readers_shut_nobody_out() {
    const PACKETS: u64 = 20_000;
    let (recorder, port) = plain(PACKETS, 1000, &["-m", "64M"]);
    let stalled: Vec<TcpStream> = ["/v1/packets", "/v1/flows", "/v1/packets?whole-sessions"]
        .into_iter()
        .cycle()
        .take(36)
        .map(|path| {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).unwrap();
            stream
        })
        .collect();
    eventually("they hold what they can get", || {
        let metrics = crate::service::asking::get(recorder.socket(), "/metrics").text();
        let running = metrics.lines().find_map(|line| line.strip_prefix("retrocap_queries_running "));
        running.unwrap().parse::<usize>().unwrap() >= 3
    });
    for _ in 0..3 {
        let got = recorder.ask(&["get", "-c", "1", "-w", "/dev/null"]);
        assert_eq!(got.code, 0, "{got:?}");
        let flows = recorder.ask(&["flows", "--limit", "10"]);
        assert_eq!(flows.code, 0, "{flows:?}");
    }
    let status = recorder.status();
    conserves(&status);
    assert_eq!(status.packets.received, PACKETS);
    assert!(status.memory.used_bytes <= status.memory.budget_bytes);
    drop(stalled);
}

/// Certificates that a client of a named authority could make for others, or use for what they are not for.
#[test]
fn certificates_beyond_what_the_authority_permits_are_refused() {
    if !have("hostile certificates", &["openssl"]) {
        return;
    }
    let pki = Pki::new();
    // An authority that permits none below it, in place of the one that `certs` made.
    let authority = authority("strict", Some(0));
    std::fs::write(pki.path("strict.pem"), authority.pem()).unwrap();
    let listening = Listening::trusting(&pki, &pki.path("strict.pem"), "");
    let good = client(&pki, "good", &[ExtendedKeyUsagePurpose::ClientAuth], &authority, "");
    assert!(listening.openssl(&pki, Some((&good.0, &good.1))).contains("HTTP/1.1 200"));
    for (name, usage) in [("unused", &[][..]), ("server", &[ExtendedKeyUsagePurpose::ServerAuth][..])] {
        let bad = client(&pki, name, usage, &authority, "");
        let answer = listening.openssl(&pki, Some((&bad.0, &bad.1)));
        assert!(!answer.contains("HTTP/1.1"), "{name}: {answer}");
    }
    let pair = KeyPair::generate().unwrap();
    let mut parameters = parameters("below", Some(0));
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let below = parameters.signed_by(&pair, &authority).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&below.pem(), pair).unwrap();
    let bad = client(&pki, "beneath", &[ExtendedKeyUsagePurpose::ClientAuth], &issuer, &below.pem());
    let answer = listening.openssl(&pki, Some((&bad.0, &bad.1)));
    assert!(!answer.contains("HTTP/1.1"), "{answer}");
    for why in ["clientAuth is missing", "path length"] {
        // The client can have its answer before the line is written.
        eventually(why, || listening.recorder.log().contains(why));
    }
}

fn parameters(name: &str, path_length: Option<u8>) -> CertificateParams {
    let mut parameters = CertificateParams::new(Vec::new()).unwrap();
    parameters.distinguished_name.push(DnType::CommonName, name);
    let constraints = path_length.map_or(BasicConstraints::Unconstrained, BasicConstraints::Constrained);
    parameters.is_ca = IsCa::Ca(constraints);
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    parameters
}

fn authority(name: &str, path_length: Option<u8>) -> CertifiedIssuer<'static, KeyPair> {
    CertifiedIssuer::self_signed(parameters(name, path_length), KeyPair::generate().unwrap()).unwrap()
}

/// A client's certificate and its key; beside them `chain`, which the client sends too.
fn client(
    pki: &Pki,
    name: &str,
    usage: &[ExtendedKeyUsagePurpose],
    issuer: &Issuer<'_, KeyPair>,
    chain: &str,
) -> (PathBuf, PathBuf) {
    let mut parameters = CertificateParams::new(Vec::new()).unwrap();
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.extended_key_usages = usage.to_vec();
    parameters.subject_alt_names = vec![SanType::URI("urn:retrocap:role:status".try_into().unwrap())];
    let pair = KeyPair::generate().unwrap();
    let made = parameters.signed_by(&pair, issuer).unwrap();
    let (cert, key) = (pki.path(&format!("{name}.pem")), pki.path(&format!("{name}.key")));
    std::fs::write(&cert, made.pem()).unwrap();
    if !chain.is_empty() {
        std::fs::write(cert.with_extension("chain"), chain).unwrap();
    }
    std::fs::write(&key, pair.serialize_pem()).unwrap();
    (cert, key)
}
