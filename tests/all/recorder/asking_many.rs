//! One question to many recorders: real ones over TLS, beside hosts that hang, are gone, break off or speak something else.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use serde_json::Value;

use super::certs::Pki;
use super::remote::{Listening, PACKETS};
use super::running::{PROGRAM, Reply, have, reply};
use crate::generate;

/// Simulated recorders of the large test.
const RECORDERS: usize = 1000;

fn ask(client: &Path, arguments: &[&str]) -> Reply {
    let mut command = Command::new(PROGRAM);
    command.arg("ask").args(arguments).env("RETROCAP_CERTS", client).stdin(Stdio::null());
    reply(&command.output().unwrap())
}

/// The lines of JSON that tell how each recorder's answer ended.
fn outcomes(reply: &Reply) -> Vec<Value> {
    let lines = reply.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line.get("outcome").is_some()).collect()
}

fn outcome<'a>(outcomes: &'a [Value], recorder: &str) -> &'a str {
    let of_it: Vec<&Value> = outcomes.iter().filter(|line| line["recorder"] == recorder).collect();
    assert_eq!(of_it.len(), 1, "{recorder}: {outcomes:?}");
    of_it[0]["outcome"].as_str().unwrap()
}

/// A host that accepts connections and sends `says`, and then nothing.
fn host(says: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept() {
            let _ = stream.write_all(says);
            open.push(stream);
        }
    });
    address
}

/// Passes on what a recorder sends, up to so many bytes, and then nothing more: a partition.
fn partitioned(port: u16, bytes: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        while let Ok((client, _)) = listener.accept() {
            let recorder = TcpStream::connect(("127.0.0.1", port)).unwrap();
            let (mut from, mut to) = (client.try_clone().unwrap(), recorder.try_clone().unwrap());
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Both);
            });
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut (&recorder).take(bytes as u64), &mut &client);
                // Both stay open, and nothing comes.
                std::thread::sleep(std::time::Duration::from_secs(60));
            });
        }
    });
    address
}

#[test]
fn fleet_19_2_each_answer_names_its_recorder_and_the_silent_are_listed() {
    let pki = Pki::new();
    let alice = pki.client("alice", "packets");
    let (one, other) = (Listening::new(&pki, ""), Listening::new(&pki, ""));
    let (a, b) = (format!("localhost:{}", one.port), format!("127.0.0.1:{}", other.port));

    let answered = ask(&alice, &[&a, &b, "--json", "--", "flows"]);
    assert_eq!(answered.code, 0, "{answered:?}");
    let rows = |recorder: &str| {
        let lines = answered.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["recorder"] == recorder && line.get("originator").is_some()).count()
    };
    assert_eq!((rows(&a), rows(&b)), (10, 10));
    // A window that begins before the recorder's packets is not answered completely.
    let early = ask(&alice, &[&a, "--json", "--", "get", "--since", "2000-01-01", "-c", "1", "-w", "/dev/null"]);
    assert!(
        outcomes(&early).iter().all(|line| line["complete"] == false && line["reaches_back"] == false),
        "{early:?}"
    );
    for line in outcomes(&answered) {
        let is_complete = line["complete"] == true && line["found"] == true && line["rows"] == 10;
        assert!(is_complete && line["whole_since"].is_string() && line["lost_packets"] == 0, "{line}");
    }
    let table = ask(&alice, &[&a, &b, "--", "flows"]);
    assert!(table.stdout.contains(&a) && table.stdout.contains("every packet since"), "{table:?}");
    assert!(table.stderr.starts_with("2 of 2 recorders have it\n"), "{table:?}");
    let csv = ask(&alice, &[&a, &b, "--", "flows", "--csv"]);
    assert!(csv.stdout.starts_with("recorder,first,last,") && csv.stdout.lines().count() == 21, "{csv:?}");
    assert!(csv.stdout.contains(&format!("\r\n\"{b}\",\"")), "{csv:?}");
    let nothing = ask(&alice, &[&a, &b, "--", "flows", "port 99"]);
    assert_eq!(nothing.code, 1, "{nothing:?}");
    assert!(nothing.stderr.starts_with("0 of 2 recorders have it, 2 found nothing\n"), "{nothing:?}");
    let status = ask(&alice, &[&a, &b, "--", "status"]);
    assert!(status.code == 0 && status.stdout.lines().count() == 2, "{status:?}");

    // A file of hosts: one hangs, one is gone, one speaks something else.
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (hangs, other_protocol) = (host(b""), host(b"220 mail.example ESMTP\r\n"));
    let hosts = pki.path("hosts");
    std::fs::write(&hosts, format!("# sensors\n{a}\n{hangs}, {gone}\n{other_protocol}\nhttps://{b}/\n")).unwrap();
    let hosts = hosts.to_str().unwrap();
    let part = ask(&alice, &["--hosts", hosts, "--timeout", "2s", "--json", "--", "flows"]);
    assert_eq!(part.code, 3, "{part:?}");
    let ended = outcomes(&part);
    assert_eq!(ended.len(), 5);
    for (recorder, word) in
        [(&a, "answered"), (&b, "answered"), (&hangs, "silent"), (&gone, "silent"), (&other_protocol, "failed")]
    {
        assert_eq!(outcome(&ended, recorder.trim_end_matches('/')), word, "{recorder}");
    }
    let text = ask(&alice, &["--hosts", hosts, "--timeout", "2s", "--", "flows"]);
    assert!(text.stderr.starts_with("2 of 5 recorders have it, 1 failed, 2 did not answer\n"), "{text:?}");
    assert!(text.stderr.contains(&format!("{gone} did not answer: nobody listens on")), "{text:?}");
    assert!(text.stderr.contains(&format!("{hangs} did not answer")), "{text:?}");
    assert!(text.stderr.contains(&format!("{other_protocol} failed: ")), "{text:?}");
}

#[test]
fn fleet_19_2_packets_of_many_recorders_become_one_file() {
    if !have("merged packets", &["tshark"]) {
        return;
    }
    let pki = Pki::new();
    let alice = pki.client("alice", "packets");
    let (one, other) = (Listening::new(&pki, ""), Listening::new(&pki, ""));
    let (a, b) = (format!("localhost:{}", one.port), format!("localhost:{}", other.port));
    let file = pki.path("all.pcapng");
    let merged = ask(&alice, &[&a, &b, "--", "get", "-w", file.to_str().unwrap()]);
    assert!(merged.code == 0 && merged.stderr.contains("4,000 packets"), "{merged:?}");
    let fields = |field: &str| super::running::tshark(&file, field);
    let names = fields("frame.interface_name");
    for recorder in [&a, &b] {
        let of_it = names.iter().filter(|name| name.starts_with(&format!("{recorder}/"))).count();
        assert_eq!(of_it as u64, PACKETS, "{recorder}");
    }
    let times = fields("frame.time_epoch");
    assert!(times.is_sorted(), "packets come by time");
    let lines = ask(&alice, &[&a, &b, "--", "get", "--text", "-c", "5"]);
    assert_eq!(lines.stdout.lines().count(), 10, "{lines:?}");
    let nothing = pki.path("nothing.pcapng");
    let none = ask(&alice, &[&a, &b, "--", "get", "port 99", "-w", nothing.to_str().unwrap()]);
    assert!(none.code == 1 && none.stderr.contains("no packet that matches"), "{none:?}");
    assert!(!nothing.exists());

    // A cable breaks within an answer: what came before is there, and the answer is not called whole.
    let broken = partitioned(other.port, 300_000);
    let part = ask(&alice, &[&a, &broken, "--timeout", "3s", "--", "get", "-w", file.to_str().unwrap()]);
    assert_eq!(part.code, 3, "{part:?}");
    assert!(part.stderr.contains(&format!("{broken} failed: ")), "{part:?}");
    let (packets, end) = generate::read(&file);
    let packets = packets.len() as u64;
    assert!(end.is_ok() && packets > PACKETS && packets < 2 * PACKETS, "{packets}");
}

#[test]
fn fleet_19_2_roles_and_mistakes_are_reported() {
    let pki = Pki::new();
    let (watcher, alice) = (pki.client("watcher", "status"), pki.client("alice", "packets"));
    let one = Listening::new(&pki, "");
    let a = format!("localhost:{}", one.port);
    let refused = ask(&watcher, &[&a, "--", "get", "-w", "-"]);
    assert!(refused.code == 3 && refused.stderr.contains(&format!("{a} refused: ")), "{refused:?}");
    assert_eq!(ask(&watcher, &[&a, "--", "status"]).code, 0);
    let found = ask(&alice, &[&a, "--json", "--", "hunt", "--bytes", "00 00"]);
    assert!(matches!(found.code, 0 | 1), "{found:?}");
    for (arguments, expected) in [
        (&["--", "flows"][..], "no recorder is named"),
        (&["http://sensor1", "--", "flows"], "use https://"),
        (&["localhost:1", "--", "flows", "--by", "app"], "leave out --by app"),
        (&["localhost:1", "--", "get", "--follow", "-w", "-"], "leave out --follow"),
        (&["localhost:1", "--", "hunt"], "nothing to search for"),
        (&["localhost:1", "--", "flows", "-r", "x.pcap"], "leave out -r"),
        (&["localhost:1", "--", "flows", "--remote", "sensor2"], "leave out --remote"),
        (&["localhost:1", "--", "run"], "run"),
        (&["localhost:1"], "QUESTION"),
    ] {
        let wrong = ask(&alice, arguments);
        assert!(wrong.code == 2 && wrong.stderr.contains(expected), "{arguments:?}: {wrong:?}");
    }
}

/// A thousand recorders on loopback that answer with a status and one session.
fn simulated(pki: &Pki) -> Vec<String> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::rustls::pki_types::pem::PemObject as _;
    use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use tokio_rustls::rustls::{ServerConfig, crypto::ring::default_provider, version};
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_file_iter(pki.path("server.pem")).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(pki.path("server.key")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listeners: Vec<TcpListener> = (0..RECORDERS).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let addresses = listeners.iter().map(|listener| listener.local_addr().unwrap().to_string()).collect();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            for (number, listener) in listeners.into_iter().enumerate() {
                listener.set_nonblocking(true).unwrap();
                let (listener, acceptor) = (tokio::net::TcpListener::from_std(listener).unwrap(), acceptor.clone());
                tokio::spawn(async move {
                    // Every hundredth never answers.
                    while let Ok((stream, _)) = listener.accept().await {
                        if number % 100 == 99 {
                            std::mem::forget(stream);
                            continue;
                        }
                        let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                        for body in [
                            r#"{"retained":{"oldest":"2026-11-22T10:00:00Z","whole_since":"2026-11-22T10:00:00Z"}}"#
                                .to_owned(),
                            format!("{{\"first\":\"2026-11-22T10:00:00Z\",\"number\":{number}}}\n"),
                        ] {
                            let mut request = vec![0; 2048];
                            if stream.read(&mut request).await.unwrap_or(0) == 0 {
                                break;
                            }
                            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                            if stream.write_all(answer.as_bytes()).await.is_err() {
                                break;
                            }
                        }
                    }
                });
            }
            std::future::pending::<()>().await;
        });
    });
    addresses
}

#[test]
fn fleet_19_2_a_thousand_recorders_answer_although_some_hang() {
    let pki = Pki::new();
    let alice = pki.client("alice", "flows");
    let recorders = simulated(&pki);
    let hosts = pki.path("hosts");
    let answering: Vec<&String> =
        recorders.iter().enumerate().filter(|(n, _)| n % 100 != 99).map(|(_, one)| one).collect();
    std::fs::write(&hosts, answering.iter().map(|one| format!("{one}\n")).collect::<String>()).unwrap();
    let start = std::time::Instant::now();
    let quick = ask(&alice, &["--hosts", hosts.to_str().unwrap(), "--json", "--", "flows"]);
    println!("{} recorders have answered in {:.2?}", answering.len(), start.elapsed());
    assert_eq!((quick.code, outcomes(&quick).len()), (0, answering.len()), "{}", quick.stderr);
    std::fs::write(&hosts, recorders.join("\n")).unwrap();
    let asked = ask(&alice, &["--hosts", hosts.to_str().unwrap(), "--timeout", "5s", "--json", "--", "flows"]);
    assert_eq!(asked.code, 3, "{}", asked.stderr);
    let ended = outcomes(&asked);
    assert_eq!(ended.len(), RECORDERS, "{}", asked.stderr);
    let of = |word: &str| ended.iter().filter(|line| line["outcome"] == word).count();
    assert_eq!((of("answered"), of("silent")), (RECORDERS - RECORDERS / 100, RECORDERS / 100));
}

/// The names of the parameters that an artifact of Velociraptor passes, and the path that it asks.
fn requests(artifact: &str) -> (String, Vec<String>) {
    let path = artifact.split("Socket + ':").nth(1).unwrap().split('\'').next().unwrap().to_owned();
    let dict = artifact.split("LET question = dict(").nth(1).map(|rest| rest.split("\n\n").next().unwrap());
    let names = dict.unwrap_or_default().lines().filter_map(|line| {
        let name = line.trim().split('=').next()?.trim_matches('`');
        (!name.is_empty()).then(|| name.to_owned())
    });
    (path, names.collect())
}

#[test]
fn fleet_19_1_artifacts_of_velociraptor_ask_what_the_api_takes() {
    let pki = Pki::new();
    let one = Listening::new(&pki, "");
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../packaging/velociraptor"));
    let mut artifacts = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.file_stem().unwrap().to_str().unwrap();
        assert!(text.starts_with(&format!("name: {name}\n")), "{name}");
        let (target, names) = requests(&text);
        let values = |name: &str| match name {
            "address" => "10.0.0.0/8",
            "port" => "1-65535",
            "name" => ".example.com",
            "filter" => "udp or tcp",
            "since" => "2000-01-01T00:00:00Z",
            "until" => "now",
            "limit" | "count" => "10",
            "text" => "GET",
            "regex" => "G.T",
            "bytes" => "47 45",
            "ioc" => "evil.example",
            "attack" => "all",
            "community-id" => "1:LQU9qZlK+B5F3KDmev6m5PMibrg=",
            "flow" => "10.0.0.5:51234 192.0.2.7:443 tcp",
            "whole-sessions" => "true",
            other => panic!("{path:?} passes {other}, of which this test knows no value"),
        };
        // One parameter at a time beside the window, as people fill in a form.
        for name in names.iter().filter(|name| *name != "since") {
            let mut query = form_urlencoded::Serializer::new(String::new());
            query.append_pair("since", values("since")).append_pair(name, values(name));
            if target == "/v1/hunt" && matches!(name.as_str(), "limit") {
                query.append_pair("text", "GET");
            }
            let reply = crate::service::asking::get(one.recorder.socket(), &format!("{target}?{}", query.finish()));
            assert!(matches!(reply.status, 200 | 404), "{path:?} {name}: {} {}", reply.status, reply.text());
        }
        assert!(!names.is_empty() || target == "/v1/status");
        artifacts += 1;
    }
    assert_eq!(artifacts, 4);
}
