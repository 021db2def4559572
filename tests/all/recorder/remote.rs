//! Reading from another machine: every verb, and the messages for clients that are refused.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::certs::Pki;
use super::running::{PROGRAM, Recorder, Reply, directory, eventually, have, reply};
use crate::generate;

pub(super) const PACKETS: u64 = 2000;

/// A recorder that accepts remote clients, and its port.
pub(super) struct Listening {
    pub(super) recorder: Recorder,
    pub(super) port: u16,
}

impl Listening {
    pub(super) fn new(pki: &Pki, config: &str) -> Self {
        Self::showing(&pki.path("ca.pem"), &pki.path("server.pem"), &pki.path("server.key"), config)
    }

    /// A recorder that accepts the clients of this authority.
    pub(super) fn trusting(pki: &Pki, ca: &Path, config: &str) -> Self {
        Self::showing(ca, &pki.path("server.pem"), &pki.path("server.key"), config)
    }

    fn showing(ca: &Path, cert: &Path, key: &Path, config: &str) -> Self {
        let directory = directory();
        let (capture, file) = (directory.path().join("capture.pcap"), directory.path().join("retrocap.toml"));
        let mut bytes = generate::header();
        for number in 0..PACKETS {
            generate::packet(&mut bytes, number * 1000, u32::try_from(number % 10).unwrap(), true, 500);
        }
        std::fs::write(&capture, bytes).unwrap();
        std::fs::write(&file, config).unwrap();
        let mut command = Command::new(PROGRAM);
        command.args(["run", "-m", "40M", "--speed", "max", "--listen", "127.0.0.1:0", "--replay"]).arg(capture);
        command.arg("--config").arg(file).arg("--ca").arg(ca);
        command.arg("--cert").arg(cert).arg("--key").arg(key);
        let recorder = Recorder::start(command, directory);
        let port = port(&recorder, " for clients with certificates");
        recorder.arrived(PACKETS);
        Self { recorder, port }
    }

    /// Runs a verb as a remote client.
    pub(super) fn ask(&self, client: &Path, arguments: &[&str]) -> Reply {
        self.ask_as(client, &format!("https://localhost:{}", self.port), arguments)
    }

    fn ask_as(&self, client: &Path, url: &str, arguments: &[&str]) -> Reply {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).args(["--remote", url]).env("RETROCAP_CERTS", client).stdin(Stdio::null());
        reply(&command.output().unwrap())
    }

    /// The answer that openssl's client gets; `files` are its certificate and key.
    pub(super) fn openssl(&self, pki: &Pki, files: Option<(&Path, &Path)>) -> String {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-quiet", "-connect", &format!("localhost:{}", self.port), "-CAfile"]);
        command.arg(pki.path("ca.pem"));
        if let Some((cert, key)) = files {
            command.arg("-cert").arg(cert).arg("-key").arg(key);
            // Certificates between it and the authority, where a test has some.
            let chain = cert.with_extension("chain");
            if chain.exists() {
                command.arg("-cert_chain").arg(chain);
            }
        }
        let pipe = Stdio::piped;
        let mut child = command.stdin(pipe()).stdout(pipe()).stderr(pipe()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let _ = stdin.write_all(b"GET /v1/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        // openssl stays connected until the recorder closes the connection.
        let output = child.wait_with_output().unwrap();
        drop(stdin);
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    }

    fn metric(&self, line: &str) {
        eventually(line, || self.metrics().lines().any(|there| there == line));
    }

    fn metrics(&self) -> String {
        crate::service::asking::get(self.recorder.socket(), "/metrics").text()
    }
}

/// The port named in the log.
pub(super) fn port(recorder: &Recorder, after: &str) -> u16 {
    // The socket exists before the log says where else the recorder listens.
    eventually("the log names the port", || recorder.log().contains(after));
    let log = recorder.log();
    let line = log.lines().find(|line| line.contains("listening on") && line.contains(after));
    let address = line.unwrap_or_else(|| panic!("{log}")).split("listening on ").nth(1).unwrap();
    address.split(' ').next().unwrap().rsplit(':').next().unwrap().parse().unwrap()
}

#[test]
fn every_verb_that_reads_works_from_another_machine() {
    let pki = Pki::new();
    let alice = pki.client("alice", "packets");
    let listening = Listening::new(&pki, "");
    let recorder = &listening.recorder;

    let reply = listening.ask(&alice, &["status", "--json"]);
    let status: serde_json::Value = serde_json::from_str(&reply.stdout).unwrap_or_else(|_| panic!("{reply:?}"));
    assert_eq!(status["packets"]["received"], PACKETS);
    let (here, there) = (recorder.ask(&["flows", "--json"]), listening.ask(&alice, &["flows", "--json"]));
    assert_eq!((there.code, there.stdout.lines().count()), (0, 10));
    assert_eq!(there.stdout, here.stdout);

    let file = recorder.path("remote.pcapng");
    let reply = listening.ask(&alice, &["get", "-w", file.to_str().unwrap()]);
    assert!(reply.code == 0 && reply.stderr.contains("2,000 packets"), "{reply:?}");
    let (packets, end) = generate::read(&file);
    assert!(end.is_ok());
    assert_eq!(packets, recorder.packets(&[]), "the same as over the socket");

    let nothing = listening.ask(&alice, &["get", "port 99"]);
    assert!(nothing.code == 1 && nothing.stderr.contains("no packet that matches"), "{nothing:?}");
    let wrong = listening.ask(&alice, &["get", "prot 99"]);
    assert_eq!(wrong.code, 2, "{wrong:?}");
    // The environment names the recorder, and a socket on the command line overrules it.
    let environment = |arguments: &[&str]| {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).env("RETROCAP_CERTS", &alice).env("RETROCAP_SOCKET", "/nowhere");
        command.env("RETROCAP_REMOTE", format!("https://127.0.0.1:{}", listening.port));
        super::running::reply(&command.output().unwrap())
    };
    assert_eq!(environment(&["status"]).code, 0);
    assert_eq!(environment(&["status", "--socket", recorder.socket().to_str().unwrap()]).code, 0);
    assert_eq!(environment(&["status", "--socket", "/elsewhere"]).code, 1);

    let pinner = pki.client("pinner", "pin");
    let (here, there) = (recorder.ask(&["pin", "--list"]), listening.ask(&pinner, &["pin", "--list"]));
    assert_eq!((here.code, here.stdout, here.stderr), (there.code, there.stdout, there.stderr));
}

#[test]
fn a_refusal_names_the_missing_role() {
    let pki = Pki::new();
    let config = "[[client]]\nname = \"lost\"\nroles = []\n[[client]]\nname = \"grown\"\nroles = [\"packets\"]\n";
    let listening = Listening::new(&pki, config);
    for (name, role, may) in [
        ("watcher", "status", "status"),
        ("looker", "flows", "status flows"),
        ("reader", "packets", "status flows get"),
        ("pinner", "pin", "status"),
        // The configuration overrules the roles in a certificate.
        ("lost", "packets", ""),
        ("grown", "status", "status flows get"),
    ] {
        let client = pki.client(name, role);
        for verb in ["status", "flows", "get", "pin"] {
            let reply =
                listening.ask(&client, if verb == "pin" { &["pin", "--list"] } else { std::slice::from_ref(&verb) });
            let refused = reply.stderr.contains("takes the role");
            let allowed = may.split(' ').any(|allowed| allowed == verb) || (verb == "pin" && name == "pinner");
            assert_eq!(refused, !allowed, "{name} {verb}: {reply:?}");
            assert!(
                !refused || (reply.code == 1 && reply.stderr.contains(name) && reply.stdout.is_empty()),
                "{reply:?}"
            );
        }
    }
    // A certificate without any role is not accepted.
    let (cert, key) = pki.sign("roleless", false, 2090);
    let reply =
        listening.ask(&pki.path("reader"), &["get", "--cert", cert.to_str().unwrap(), "--key", key.to_str().unwrap()]);
    assert!(reply.code == 1 && reply.stderr.contains("no role"), "{reply:?}");
}

#[test]
fn an_unknown_path_has_no_role_and_is_refused_alike_for_every_role() {
    if !have("an_unknown_path_has_no_role_and_is_refused_alike_for_every_role", &["curl"]) {
        return;
    }
    let pki = Pki::new();
    let listening = Listening::new(&pki, "[[client]]\nname = \"lost\"\nroles = []\n");
    let answer = |client: &Path, method: &str, path: &str| {
        let mut command = Command::new("curl");
        command.args(["-s", "-w", " %{http_code}", "-X", method, "--cacert"]).arg(pki.path("ca.pem"));
        command.arg("--cert").arg(client.join("client.pem")).arg("--key").arg(client.join("client.key"));
        command.arg(format!("https://localhost:{}{path}", listening.port));
        reply(&command.output().unwrap()).stdout
    };
    let clients =
        [("watcher", "status"), ("looker", "flows"), ("reader", "packets"), ("pinner", "pin"), ("lost", "pin")];
    let clients = clients.map(|(name, role)| pki.client(name, role));
    for (method, path) in [
        ("GET", "/v1/packet"),
        ("GET", "/v1/packets/"),
        ("GET", "/v2/status"),
        ("POST", "/other"),
        ("DELETE", "/v1/pins/1"),
    ] {
        let first = answer(&clients[0], method, path);
        assert!(first.ends_with(" 404") && first.contains("no-such-path"), "{method} {path}: {first}");
        for client in &clients {
            assert_eq!(answer(client, method, path), first, "{method} {path} {client:?}");
        }
    }
}

#[test]
fn a_client_without_a_valid_certificate_is_refused_with_the_reason() {
    let pki = Pki::new();
    let alice = pki.client("alice", "packets");
    let strangers = Pki::new();
    let eve = strangers.client("eve", "packets");
    let expired = pki.sign("expired", false, 2021);
    let recorders = pki.sign("recorder", true, 2090);
    let listening = Listening::new(&pki, "");
    let text = |path: &PathBuf| path.to_str().unwrap().to_owned();

    // The recorder's own refusals, as another program sees them.
    if have("refused clients", &["openssl"]) {
        for (files, alert) in [
            (None, "certificate required"),
            (Some((eve.join("client.pem"), eve.join("client.key"))), "unknown ca"),
            (Some(expired.clone()), "certificate expired"),
            (Some(recorders.clone()), "alert"),
        ] {
            let files = files.as_ref().map(|(cert, key)| (cert.as_path(), key.as_path()));
            let answer = listening.openssl(&pki, files);
            assert!(answer.contains(alert) && !answer.contains("HTTP/1.1"), "{alert}: {answer}");
        }
        let answer = listening.openssl(&pki, Some((&alice.join("client.pem"), &alice.join("client.key"))));
        assert!(answer.contains("HTTP/1.1 200 OK"), "{answer}");
        listening.metric("retrocap_clients_closed_total{reason=\"untrusted\"} 4");
        for says in
            ["\"eve\"", "\"expired\"", "UnknownIssuer", "until 2021-01-01T00:00:00Z", "peer sent no certificates"]
        {
            eventually(says, || listening.recorder.log().contains(says));
        }
    }

    // The messages of our client.
    let own =
        |cert: &PathBuf, key: &PathBuf| listening.ask(&alice, &["get", "--cert", &text(cert), "--key", &text(key)]);
    let reply = own(&eve.join("client.pem"), &eve.join("client.key"));
    assert!(reply.code == 1 && reply.stderr.contains("\"eve\"") && reply.stderr.contains("does not know"), "{reply:?}");
    let reply = own(&expired.0, &expired.1);
    assert!(
        reply.code == 1 && reply.stderr.contains("\"expired\"") && reply.stderr.contains("has expired"),
        "{reply:?}"
    );
    let reply = own(&alice.join("client.pem"), &eve.join("client.key"));
    assert!(reply.code == 1 && reply.stderr.contains("do not belong together"), "{reply:?}");
    let reply = listening.ask(&eve, &["get"]);
    assert!(reply.code == 1 && reply.stderr.contains("not signed by the authority"), "{reply:?}");
    assert!(reply.stderr.contains("\"localhost\""), "{reply:?}");
    let reply = listening.ask(Path::new("/nowhere"), &["get"]);
    assert!(reply.code == 1 && reply.stderr.contains("retrocap certs client"), "{reply:?}");
    let reply = listening.ask_as(&alice, "https://localhost:1", &["get"]);
    assert!(reply.code == 1 && reply.stderr.contains("nobody listens on localhost:1"), "{reply:?}");
    let reply = listening.ask_as(&alice, &format!("http://localhost:{}", listening.port), &["get"]);
    assert!(reply.code == 1 && reply.stderr.contains("use https://"), "{reply:?}");
    for url in ["http://192.0.2.1:1", "ftp://localhost", "https://localhost/x"] {
        let reply = listening.ask_as(&alice, url, &["get"]);
        assert!(reply.code == 2 && reply.stderr.contains("https://sensor1:57443"), "{reply:?}");
    }
    assert_eq!(listening.ask(&alice, &["status"]).code, 0);

    let expired = pki.sign("old-sensor", true, 2021);
    let listening = Listening::showing(&pki.path("ca.pem"), &expired.0, &expired.1, "");
    assert!(listening.recorder.log().contains("has expired"), "the log says so from the start");
    let reply = listening.ask(&alice, &["status"]);
    assert!(
        reply.code == 1 && reply.stderr.contains("\"old-sensor\"") && reply.stderr.contains("has expired"),
        "{reply:?}"
    );
    let other = pki.sign("other", true, 2090);
    let listening = Listening::showing(&pki.path("ca.pem"), &other.0, &other.1, "");
    let reply = listening.ask_as(&alice, &format!("https://127.0.0.1:{}", listening.port), &["status"]);
    assert!(
        reply.code == 1 && reply.stderr.contains("for another name") && reply.stderr.contains("\"other\""),
        "{reply:?}"
    );
}

#[test]
fn invalid_listen_settings_are_reported_at_start() {
    let pki = Pki::new();
    let directory = directory();
    let capture = directory.path().join("capture.pcap");
    std::fs::write(&capture, generate::header()).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(PROGRAM);
        command.args(["run", "-m", "40M", "--replay"]).arg(&capture).args(arguments);
        command.arg("--socket").arg(directory.path().join("socket"));
        reply(&command.output().unwrap())
    };
    let path = |name: &str| pki.path(name).to_str().unwrap().to_owned();
    let (ca, cert, key) = (path("ca.pem"), path("server.pem"), path("server.key"));
    let open = path("open.key");
    std::fs::copy(&key, &open).unwrap();
    std::fs::set_permissions(&open, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for (arguments, code, says) in [
        (&["--listen-plain", "0.0.0.0:57080"][..], 2, "--listen-plain 127.0.0.1:57080"),
        (&["--listen-plain", "192.0.2.1:57080"], 2, "is not a loopback address"),
        (&["--listen", "sensor"], 2, "try 0.0.0.0:57443"),
        (&["--listen-plain", &taken], 1, "cannot listen on 127.0.0.1"),
        (&["--listen", "127.0.0.1:0", "--ca", "/nowhere/ca.pem"], 1, "cannot read /nowhere/ca.pem"),
        (&["--listen", "127.0.0.1:0", "--ca", &key, "--cert", &cert, "--key", &key], 1, "holds no certificate"),
        (&["--listen", "127.0.0.1:0", "--ca", &ca, "--cert", &cert, "--key", &cert], 1, "holds no private key"),
        (&["--listen", "127.0.0.1:0", "--ca", &ca, "--cert", &cert, "--key", &open], 1, "chmod 600"),
        (&["--listen", "127.0.0.1:0", "--ca", &ca, "--cert", &cert, "--key", &path("ca.key")], 1, "cannot serve TLS"),
    ] {
        let refused = run(arguments);
        assert!(refused.code == code && refused.stderr.contains(says), "{arguments:?}: {refused:?}");
    }
    assert!(!directory.path().join("socket").exists());
}

#[test]
fn plain_tcp_is_for_reading_on_this_host_only() {
    let directory = directory();
    let capture = directory.path().join("capture.pcap");
    let mut bytes = generate::header();
    generate::packet(&mut bytes, 0, 1, true, 100);
    std::fs::write(&capture, bytes).unwrap();
    let mut command = Command::new(PROGRAM);
    command.args(["run", "-m", "40M", "--listen-plain", "127.0.0.1:0", "--speed", "max", "--replay"]).arg(capture);
    let recorder = Recorder::start(command, directory);
    let port = port(&recorder, " without encryption");
    recorder.arrived(1);
    let status = recorder.ask(&["status", "--remote", &format!("http://127.0.0.1:{port}")]);
    assert_eq!(status.code, 0, "{status:?}");
    let ask = |head: &str| {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    };
    for (head, status) in [
        ("GET /v1/packets HTTP/1.1\r\nHost: localhost\r\n", "200"),
        // A browser sends this host for a page whose DNS name points to the loopback address.
        ("GET /v1/packets HTTP/1.1\r\nHost: evil.example\r\n", "421"),
        ("GET /v1/packets HTTP/1.1\r\n", "421"),
        ("POST /v1/pins HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n", "403"),
        // Two hosts, of which a proxy may believe the other one.
        ("GET /v1/packets HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n", "400"),
        ("GET /v1/packets HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n", "400"),
        ("GET http://evil.example/v1/packets HTTP/1.1\r\nHost: localhost\r\n", "421"),
        // Pages of other origins, and of files.
        ("GET /v1/packets HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\n", "403"),
        ("GET /v1/packets HTTP/1.1\r\nHost: localhost\r\nOrigin: null\r\n", "403"),
        ("GET /v1/packets HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\n", "200"),
    ] {
        let answer = ask(head);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{head}: {answer}");
    }
}

/// After a machine was lost, its roles are revoked and a certificate is replaced without a restart: the history
/// stays.
#[test]
fn a_reload_applies_clients_and_certificates() {
    if !have("reload", &["openssl"]) {
        return;
    }
    let pki = Pki::new();
    let alice = pki.client("alice", "packets");
    let listening = Listening::new(&pki, "");
    let reload = |text: &str, says: &str| {
        let before = listening.recorder.log().len();
        std::fs::write(listening.recorder.path("retrocap.toml"), text).unwrap();
        listening.recorder.signal("-HUP");
        eventually(says, || listening.recorder.log()[before..].contains(says));
    };
    // One client stays connected throughout.
    let mut command = Command::new("openssl");
    command.args(["s_client", "-quiet", "-connect", &format!("localhost:{}", listening.port), "-CAfile"]);
    command
        .arg(pki.path("ca.pem"))
        .arg("-cert")
        .arg(alice.join("client.pem"))
        .arg("-key")
        .arg(alice.join("client.key"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut connected = command.spawn().unwrap();
    let (mut questions, answers) = (connected.stdin.take().unwrap(), connected.stdout.take().unwrap());
    let mut answers = std::io::BufReader::new(answers);
    let mut ask = |says: &str| {
        questions.write_all(b"GET /v1/flows?limit=1 HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut line = String::new();
        // Skip the rest of the previous answer.
        while !line.starts_with("HTTP/1.1 ") && !line.contains("}HTTP/1.1 ") {
            line.clear();
            assert!(std::io::BufRead::read_line(&mut answers, &mut line).unwrap() > 0, "{says}");
        }
        assert!(line.trim_end().ends_with(says), "{line}");
    };
    ask("HTTP/1.1 200 OK");
    assert_eq!(listening.ask(&alice, &["get", "-c", "1", "-w", "/dev/null"]).code, 0);
    reload("[[client]]\nname = \"alice\"\nroles = [\"status\"]\n", "reloaded: [[client]] changed");
    // A client with fewer roles than before is disconnected, whatever it is doing.
    let mut rest = Vec::new();
    std::io::Read::read_to_end(&mut answers, &mut rest).unwrap();
    let refused = listening.ask(&alice, &["get", "-c", "1"]);
    assert!(refused.code == 1 && refused.stderr.contains("takes the role packets"), "{refused:?}");
    assert_eq!(listening.ask(&alice, &["status"]).code, 0);

    // Replace the files, as tools that renew certificates do.
    let (cert, key) = pki.sign("renewed", true, 2031);
    std::fs::rename(cert, pki.path("server.pem")).unwrap();
    std::fs::rename(key, pki.path("server.key")).unwrap();
    reload("", "the recorder's certificate is now \"renewed\"");
    assert_eq!(listening.ask(&alice, &["get", "-c", "1", "-w", "/dev/null"]).code, 0);
    // A file that cannot be read changes nothing.
    std::fs::write(pki.path("server.pem"), "nonsense").unwrap();
    reload("", "the recorder keeps its certificates");
    assert_eq!(listening.ask(&alice, &["status"]).code, 0);
    connected.kill().unwrap();
    connected.wait().unwrap();
}

#[test]
fn a_revoked_client_is_disconnected_within_an_answer() {
    let pki = Pki::new();
    let (alice, bob) = (pki.client("alice", "packets"), pki.client("bob", "packets"));
    let listening = Listening::new(&pki, "");
    let config = listening.recorder.directory.path().join("retrocap.toml");
    let reload = |text: &str| {
        let said = listening.recorder.log().matches("the configuration is reloaded").count();
        std::fs::write(&config, text).unwrap();
        listening.recorder.signal("-HUP");
        eventually("it is reloaded", || {
            listening.recorder.log().matches("the configuration is reloaded").count() > said
        });
    };
    let follow = |client: &Path| {
        let mut command = Command::new(PROGRAM);
        command.args(["get", "--follow", "-w", "-", "--remote", &format!("https://localhost:{}", listening.port)]);
        let mut child = command.env("RETROCAP_CERTS", client).stdout(Stdio::piped()).spawn().unwrap();
        // Wait until the stream has begun.
        child.stdout.as_mut().unwrap().read_exact(&mut [0; 1000]).unwrap();
        child
    };
    let mut followers = [follow(&alice), follow(&bob)];
    let serial = |client: &Path| {
        let mut command = Command::new("openssl");
        let output =
            command.args(["x509", "-noout", "-serial", "-in"]).arg(client.join("client.pem")).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        text.trim().trim_start_matches("serial=").to_owned()
    };

    reload("[[client]]\nname = \"alice\"\nroles = []\n");
    let ended = |child: &mut std::process::Child| {
        std::io::copy(child.stdout.as_mut().unwrap(), &mut std::io::sink()).unwrap();
        child.wait().unwrap().code()
    };
    assert_eq!(ended(&mut followers[0]), Some(1), "her answer was broken off, which is no success");
    assert!(followers[1].try_wait().unwrap().is_none(), "his goes on");
    let reply = listening.ask(&alice, &["status"]);
    assert!(reply.code == 1 && reply.stderr.contains("alice"), "{reply:?}");
    assert_eq!(listening.ask(&bob, &["status"]).code, 0);
    listening.metric("retrocap_clients_closed_total{reason=\"revoked\"} 1");
    assert!(listening.recorder.log().contains("alice at 127.0.0.1"), "{}", listening.recorder.log());

    // Revoke one of two certificates with the same name.
    if have("serial numbers", &["openssl"]) {
        let lost = serial(&bob);
        let again = pki.client_again("bob", "packets");
        reload(&format!("[[client]]\nname = \"bob\"\nserial = \"{lost}\"\nroles = []\n"));
        assert_eq!(ended(&mut followers[1]), Some(1));
        assert_eq!((listening.ask(&bob, &["get"]).code, listening.ask(&again, &["get"]).code), (1, 0));
        assert_eq!(listening.ask(&alice, &["status"]).code, 0, "the list has no word of her any more");
    }

    // A client that is not listed has no role.
    reload("unlisted-clients = \"nothing\"\n[[client]]\nname = \"alice\"\nroles = [\"status\"]\n");
    let reply = listening.ask(&bob, &["status"]);
    assert!(reply.code == 1 && reply.stderr.contains("no role"), "{reply:?}");
    assert_eq!((listening.ask(&alice, &["status"]).code, listening.ask(&alice, &["get"]).code), (0, 1));

    // After the authority is replaced, a connected client is disconnected although it sends no new request.
    reload("");
    let mut follower = follow(&alice);
    let others = Pki::new();
    std::fs::copy(others.path("ca.pem"), pki.path("ca.pem")).unwrap();
    listening.recorder.signal("-HUP");
    assert_eq!(ended(&mut follower), Some(1));
    eventually("the log says why", || listening.recorder.log().contains("its certificate is no longer valid"));
}
