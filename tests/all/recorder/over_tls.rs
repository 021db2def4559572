//! PCAP-over-IP over TLS with openssl at the other end: served to clients with certificates, and pushed to listeners.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::generate;
use crate::namespaces::{Namespace, available};

use super::certs::Pki;
use super::following::{interrupted, next, numbers, running, send};
use super::running::{PROGRAM, Recorder, Reply, Sender, directory, eventually, have, reply, tshark};

const ADDRESS: &str = "10.57.0.2:57012";

/// A child process that is killed on drop.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Two hosts on a cable. The recorder runs on the far one and serves the near one.
struct Hosts {
    near: Namespace,
    far: Namespace,
    recorder: Recorder,
    pki: Pki,
}

impl Hosts {
    fn new(arguments: &[&str]) -> Self {
        let (near, far) = Namespace::pair();
        near.ip("address add 10.57.0.1/24 dev near");
        far.ip("address add 10.57.0.2/24 dev far");
        far.ip("link set lo up");
        let (pki, directory) = (Pki::new(), directory());
        let certificate = pki.path("far");
        let made = pki.certs(&["server", "10.57.0.2", "--out", certificate.to_str().unwrap()]);
        assert_eq!(made.code, 0, "{made:?}");
        let config = directory.path().join("retrocap.toml");
        std::fs::write(&config, "").unwrap();
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &far.name, PROGRAM, "run", "-m", "32M", "--sandbox", "required"]);
        command.args(arguments).arg("--config").arg(config).arg("--ca").arg(pki.path("ca.pem"));
        command.arg("--cert").arg(certificate.join("server.pem")).arg("--key").arg(certificate.join("server.key"));
        let recorder = Recorder::start(command, directory);
        Self { near, far, recorder, pki }
    }

    /// Starts openssl on the near host with this certificate and key; it writes the stream into a file.
    fn client(&self, cert: Option<&(PathBuf, PathBuf)>, into: &Path) -> Running {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.near.name, "openssl", "s_client", "-quiet", "-verify_return_error"]);
        command.args(["-connect", ADDRESS, "-CAfile"]).arg(self.pki.path("ca.pem"));
        if let Some((cert, key)) = cert {
            command.arg("-cert").arg(cert).arg("-key").arg(key);
        }
        let command = command.stdin(Stdio::null()).stdout(File::create(into).unwrap()).stderr(Stdio::null());
        Running(command.spawn().unwrap())
    }

    fn metric(&self, line: &str) {
        let metrics = || crate::service::asking::get(self.recorder.socket(), "/metrics").text();
        eventually(line, || metrics().lines().any(|there| there == line));
    }

    /// How many packets of the connections themselves were recorded.
    fn own_packets(&self) -> usize {
        let file = self.recorder.path("own.pcap");
        let reply = self.recorder.ask(&["get", "-w", file.to_str().unwrap(), "tcp"]);
        if reply.code == 0 { generate::read(&file).0.len() } else { 0 }
    }

    /// A verb that runs on the near host.
    fn verb(&self, client: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.near.name, PROGRAM]).args(arguments);
        command.args(["--remote", "https://10.57.0.2:57443"]).env("RETROCAP_CERTS", client).stdin(Stdio::null());
        command
    }
}

fn pair(client: &Path) -> (PathBuf, PathBuf) {
    (client.join("client.pem"), client.join("client.key"))
}

/// How many of the test's frames a file holds so far.
fn frames(file: &Path) -> usize {
    tshark_so_far(file).iter().filter(|kind| *kind == "0x88b5").count()
}

fn tshark_so_far(file: &Path) -> Vec<String> {
    // The file may end within a packet, about which tshark complains.
    let output =
        Command::new("tshark").args(["-n", "-T", "fields", "-e", "eth.type", "-r"]).arg(file).output().unwrap();
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn beyond_loopback_clients_need_tls_and_the_role() {
    let test = "PCAP-over-IP over TLS";
    if !available(test) || !have(test, &["tshark", "openssl"]) {
        return;
    }
    for format in ["pcap", "pcapng"] {
        let hosts =
            Hosts::new(&["--pcap-over-ip", ADDRESS, "--pcap-over-ip-past", "10m", "--pcap-over-ip-format", format]);
        let (recorder, pki) = (&hosts.recorder, &hosts.pki);
        let alice = pair(&pki.client("alice", "packets"));
        let mut sender = Sender::new(&hosts.near, "near");
        send(&mut sender, 0..50);
        eventually("they are kept", || recorder.status().packets.stored >= 50);
        let file = recorder.path("alice.pcap");
        let mut client = hosts.client(Some(&alice), &file);
        eventually("the past comes", || frames(&file) == 50);
        // Once these have arrived, so has everything that the kernel held back before.
        send(&mut sender, 50..100);
        eventually("what comes is sent", || frames(&file) == 100);
        // The handshake was recorded like other traffic, and the later content of the connection was not.
        let own = hosts.own_packets();
        assert!(own > 0, "who knocked can be seen");
        for number in 2..=20 {
            send(&mut sender, number * 50..(number + 1) * 50);
            let all = (number as usize + 1) * 50;
            eventually("what comes is sent", || frames(&file) == all);
        }
        assert_eq!(hosts.own_packets(), own);
        assert!(recorder.status().packets.filtered >= 20);
        let log = recorder.log();
        assert!(log.contains("PCAP-over-IP on 10.57.0.2:57012: over TLS, for clients with certificates"), "{log}");
        assert!(log.contains("alice at 10.57.0.1:") && log.contains("with the certificate number "), "{log}");
        let audit = std::fs::read_to_string(recorder.path("audit.log")).unwrap();
        let begun =
            audit.lines().find(|line| line.contains("\"pcap_over_ip\":true")).unwrap_or_else(|| panic!("{audit}"));
        assert!(begun.contains("\"certificate\":\"alice\"") && begun.contains("\"event\":\"begin\""), "{begun}");

        // A client that loses its role is disconnected within its stream.
        std::fs::write(recorder.path("retrocap.toml"), "[[client]]\nname = \"alice\"\nroles = [\"status\"]\n").unwrap();
        recorder.signal("-HUP");
        eventually("it is closed", || client.0.try_wait().unwrap().is_some());
        let may_not = "may no longer read packets, and is disconnected";
        eventually("it is logged", || recorder.log().contains(may_not));
        // The file is valid up to that point.
        assert_eq!(tshark(&file, "eth.type").iter().filter(|kind| *kind == "0x88b5").count(), 21 * 50, "{format}");
        hosts.metric("retrocap_clients_closed_total{reason=\"untrusted\"} 0");
    }
}

#[test]
fn an_unauthorised_client_gets_no_byte_and_is_named() {
    let test = "refusals over TLS";
    if !available(test) || !have(test, &["openssl"]) {
        return;
    }
    let hosts = Hosts::new(&["--pcap-over-ip", ADDRESS, "--pcap-over-ip-past", "10m", "-f", "ether proto 0x88b5"]);
    let (recorder, pki) = (&hosts.recorder, &hosts.pki);
    let alice = pair(&pki.client("alice", "packets"));
    let good = recorder.path("alice.pcap");
    let mut reading = hosts.client(Some(&alice), &good);
    eventually("alice reads", || std::fs::metadata(&good).unwrap().len() >= 24);
    let strangers = Pki::new();
    let expired = pki.sign("expired", false, 2021);
    for (who, says) in [
        (None, "peer sent no certificates"),
        (Some(pair(&strangers.client("eve", "packets"))), "its certificate \"eve\""),
        (Some(expired), "its certificate \"expired\""),
        (Some(pair(&pki.client("watcher", "status"))), "watcher at 10.57.0.1:"),
        (Some(pair(&pki.client("looker", "flows"))), "this takes the role packets"),
    ] {
        let file = recorder.path("refused.pcap");
        let mut client = hosts.client(who.as_ref(), &file);
        eventually("it is closed", || client.0.try_wait().unwrap().is_some());
        assert_eq!(std::fs::metadata(&file).unwrap().len(), 0, "{says}");
        eventually(says, || recorder.log().contains(says));
    }
    hosts.metric("retrocap_clients_closed_total{reason=\"untrusted\"} 3");
    let audit = std::fs::read_to_string(recorder.path("audit.log.refusals")).unwrap();
    assert_eq!(audit.lines().filter(|line| line.contains("\"event\":\"refused\"")).count(), 2, "{audit}");
    // The log has at most five lines per minute for a storm of refusals.
    for _ in 0..10 {
        let mut client = hosts.client(None, &recorder.path("refused.pcap"));
        eventually("it is closed", || client.0.try_wait().unwrap().is_some());
    }
    hosts.metric("retrocap_clients_closed_total{reason=\"untrusted\"} 13");
    assert_eq!(recorder.log().matches("peer sent no certificates").count(), 5, "{}", recorder.log());
    // Other clients are not disturbed.
    let mut sender = Sender::new(&hosts.near, "near");
    send(&mut sender, 0..50);
    eventually("alice still reads", || std::fs::metadata(&good).unwrap().len() >= 24 + 50 * (16 + 74));
    assert!(reading.0.try_wait().unwrap().is_none());
}

/// A TLS listener on the far host that writes what it receives into a file.
fn listener(hosts: &Hosts, port: u16, cert: &(PathBuf, PathBuf), ca: &Path, into: &Path) -> Running {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &hosts.far.name, "openssl", "s_server", "-quiet", "-Verify", "1"]);
    command.args(["-verify_return_error", "-accept", &port.to_string(), "-4", "-CAfile"]).arg(ca);
    command.arg("-cert").arg(&cert.0).arg("-key").arg(&cert.1);
    // openssl ends when its input ends.
    let command = command.stdin(Stdio::piped()).stdout(File::create(into).unwrap()).stderr(Stdio::null());
    Running(command.spawn().unwrap())
}

#[test]
fn packets_are_pushed_over_tls_to_trusted_listeners_only() {
    let test = "push over TLS";
    if !available(test) || !have(test, &["tshark", "openssl"]) {
        return;
    }
    let hosts = Hosts::new(&[]);
    let (recorder, pki) = (&hosts.recorder, &hosts.pki);
    let alice = pki.client("alice", "status");
    let mut sender = Sender::new(&hosts.near, "near");
    send(&mut sender, 0..200);
    eventually("they are kept", || recorder.status().packets.stored >= 200);
    let push = |certs: &Path, to: &str, count: &str| -> Reply {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &hosts.far.name, PROGRAM, "push", "--tls", "--since", "1h", "-c", count, to]);
        command.args(["ether", "proto", "0x88b5"]).env("RETROCAP_CERTS", certs);
        reply(&command.arg("--socket").arg(recorder.socket()).stdin(Stdio::null()).output().unwrap())
    };
    let (server, ca) = ((pki.path("server.pem"), pki.path("server.key")), pki.path("ca.pem"));
    let file = recorder.path("pushed.pcap");
    let good = listener(&hosts, 57100, &server, &ca, &file);
    // `push` waits until the listener is there.
    let pushed = push(&alice, "127.0.0.1:57100", "200");
    assert!(pushed.code == 0 && pushed.stderr.contains("200 packets -> 127.0.0.1:57100"), "{pushed:?}");
    eventually("all have come", || frames(&file) == 200);
    drop(good);

    // An untrusted peer gets nothing and is named, in both directions.
    let strangers = Pki::new();
    let expired = pki.sign("old-listener", true, 2021);
    let other_name = listener(&hosts, 57101, &server, &ca, &recorder.path("none1"));
    let untrusted = (strangers.path("server.pem"), strangers.path("server.key"));
    let of_strangers = listener(&hosts, 57102, &untrusted, &ca, &recorder.path("none2"));
    let too_old = listener(&hosts, 57103, &expired, &ca, &recorder.path("none3"));
    let picky = listener(&hosts, 57104, &server, &strangers.path("ca.pem"), &recorder.path("none4"));
    for (to, words) in [
        ("127.0.0.9:57101", &["\"localhost\"", "for another name"][..]),
        ("127.0.0.1:57102", &["not signed by the authority in", "\"localhost\""]),
        ("127.0.0.1:57103", &["\"old-listener\"", "has expired"]),
        ("127.0.0.1:57104", &["the listener at 127.0.0.1:57104 refuses the certificate \"alice\"", "does not know"]),
    ] {
        let refused = push(&alice, to, "200");
        assert!(refused.code == 1 && words.iter().all(|word| refused.stderr.contains(word)), "{to}: {refused:?}");
    }
    for none in ["none1", "none2", "none3", "none4"] {
        assert_eq!(std::fs::metadata(recorder.path(none)).unwrap().len(), 0, "{none}");
    }
    drop((other_name, of_strangers, too_old, picky));
    let nothing = push(Path::new("/nowhere"), "127.0.0.1:57100", "1");
    assert!(nothing.code == 1 && nothing.stderr.contains("retrocap certs client"), "{nothing:?}");
    let both = recorder.ask(&["push", "--tls", "--plain", "127.0.0.1:57100"]);
    assert_eq!(both.code, 2, "{both:?}");
}

/// A stream must not feed itself, but everything else is recorded.
#[test]
fn only_endless_streams_are_excluded_from_recording() {
    if !available("streams over TLS") {
        return;
    }
    let hosts = Hosts::new(&["--listen", "10.57.0.2:57443"]);
    let alice = hosts.pki.client("alice", "packets");
    let mut sender = Sender::new(&hosts.near, "near");
    send(&mut sender, 0..2000);
    eventually("they are kept", || hosts.recorder.status().packets.stored >= 2000);

    // A finite answer is recorded like other traffic.
    let file = hosts.recorder.path("whole.pcapng");
    let whole = reply(&hosts.verb(&alice, &["get", "-w", file.to_str().unwrap()]).output().unwrap());
    assert_eq!(whole.code, 0, "{whole:?}");
    eventually("it was recorded itself", || {
        let listed = hosts.recorder.ask(&["flows", "--json", "tcp port 57443"]);
        let flow: serde_json::Value = serde_json::from_str(&listed.stdout).unwrap_or_default();
        flow["bytes"]["responder"].as_u64().is_some_and(|bytes| bytes > 2000 * 74)
    });

    let mut follower = hosts.verb(&alice, &["get", "--follow", "-w", "-", "ether proto 0x88b5"]);
    let mut follower = Running(follower.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let numbers = numbers(follower.0.stdout.take().unwrap());
    (0..2000).for_each(|number| assert_eq!(next(&numbers), number));
    // Once these have arrived, so has everything that the kernel held back before.
    send(&mut sender, 2000..2050);
    (2000..2050).for_each(|number| assert_eq!(next(&numbers), number));
    let own = hosts.own_packets();
    for round in 41..60 {
        send(&mut sender, round * 50..(round + 1) * 50);
        (round * 50..(round + 1) * 50).for_each(|number| assert_eq!(next(&numbers), number));
    }
    assert_eq!(hosts.own_packets(), own, "nothing of the stream");
    // The other connections of the same client are recorded.
    assert_eq!(reply(&hosts.verb(&alice, &["status"]).output().unwrap()).code, 0);
    eventually("another connection is recorded", || hosts.own_packets() >= own + 10);
    assert!(hosts.recorder.log().contains("alice at 10.57.0.1:"), "{}", hosts.recorder.log());
}

#[test]
fn honest_13_2_an_interrupted_follower_over_tls_keeps_its_packets_and_says_what_it_could_not_see() {
    let test = "interrupt over TLS";
    if !available(test) || !have(test, &["gzip"]) {
        return;
    }
    let hosts = Hosts::new(&["--listen", "10.57.0.2:57443"]);
    let client = hosts.pki.client("alice", "packets");
    let (recorder, mut sender) = (&hosts.recorder, Sender::new(&hosts.near, "near"));
    send(&mut sender, 0..100);
    eventually("they are kept", || recorder.status().packets.stored >= 100);
    let follower = |arguments: &[&str]| {
        let mut command = hosts.verb(&client, &["get", "--follow"]);
        let child = command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        eventually("it follows", || running(recorder) >= 1);
        child
    };
    let file = recorder.path("kept.pcapng.gz");
    for arguments in [&["-w", file.to_str().unwrap(), "host 192.0.2.99"][..], &["--text", "host 192.0.2.99"]] {
        let ended = interrupted(follower(arguments));
        assert_eq!(ended.code, 0, "{ended:?}");
        assert!(ended.stderr.contains("100 packets with ethertype 0x88b5 were not opened"), "{arguments:?}: {ended:?}");
        eventually("its place is free again", || running(recorder) == 0);
    }
    let child = follower(&["-w", file.to_str().unwrap(), "ether proto 0x88b5"]);
    send(&mut sender, 100..150);
    eventually("they are kept", || recorder.status().packets.stored >= 150);
    // A follower polls many times a second, and nothing reports that it has written.
    std::thread::sleep(std::time::Duration::from_secs(1));
    let ended = interrupted(child);
    assert!(ended.code == 0 && ended.stderr.contains("150 packets"), "{ended:?}");
    // Other programs read what was compressed, up to its end.
    assert!(Command::new("gzip").arg("-t").arg(&file).status().unwrap().success());
    let listed = hosts.verb(&client, &["get", "-c", "1"]).output().unwrap();
    assert_eq!(reply(&listed).code, 0, "the recorder serves others afterwards");
    let plain = recorder.path("kept.pcapng");
    let unpacked = Command::new("gzip").arg("-dc").arg(&file).output().unwrap();
    std::fs::write(&plain, unpacked.stdout).unwrap();
    let (packets, end) = generate::read(&plain);
    assert!(end.is_ok() && packets.len() == 150, "{}", packets.len());
}
