//! Agents with a real NATS server (TLS, nkeys, permissions by subject, JetStream) and real recorders.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nkeys::KeyPair;
use serde_json::Value;
use tempfile::TempDir;

const AGENT: &str = env!("CARGO_BIN_EXE_retrocap-agent");
/// Packets of each recorder.
const PACKETS: u32 = 300;

/// A child process that is killed on drop.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what}: not within a minute");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The recorder's program; `None`, with a message, where it or the NATS server is missing.
fn recorder_program() -> Option<PathBuf> {
    let program = Path::new(AGENT).parent().unwrap().join("retrocap");
    if !program.exists() {
        eprintln!("SKIPPED: agents: {} is not built: cargo build", program.display());
        return None;
    }
    if Command::new("nats-server").arg("--version").stdout(Stdio::null()).status().is_err() {
        eprintln!("SKIPPED: agents: there is no nats-server");
        return None;
    }
    Some(program)
}

/// A user of the NATS server: its nkey, and a file with the seed.
struct User {
    public: String,
    seed: PathBuf,
}

/// A NATS server and its users.
struct Nats {
    folder: TempDir,
    server: Option<Running>,
    port: u16,
    agents: User,
    analyst: User,
    /// May ask for sessions and nothing else.
    watcher: User,
}

impl Nats {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let user = |name: &str| {
            let pair = KeyPair::new_user();
            let seed = folder.path().join(format!("{name}.nk"));
            std::fs::write(&seed, pair.seed().unwrap()).unwrap();
            User { public: pair.public_key(), seed }
        };
        let (agents, analyst, watcher) = (user("agents"), user("analyst"), user("watcher"));
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(folder.path().join("cert.pem"), made.cert.pem()).unwrap();
        std::fs::write(folder.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        // The port stays free until the server starts, which takes some milliseconds.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = format!(
            "listen: \"127.0.0.1:{port}\"\njetstream {{ store_dir: \"{0}/js\" }}\n\
             tls {{ cert_file: \"{0}/cert.pem\", key_file: \"{0}/key.pem\" }}\n\
             authorization {{ users: [\n\
             {{ nkey: {1} }}\n\
             {{ nkey: {2} }}\n\
             {{ nkey: {3}, permissions: {{ publish: [\"retrocap.*.flows\", \"retrocap.*.flows.*\"], subscribe: \"_INBOX.>\" }} }}\n\
             ] }}\n",
            folder.path().display(),
            agents.public,
            analyst.public,
            watcher.public
        );
        std::fs::write(folder.path().join("nats.conf"), config).unwrap();
        let mut nats = Self { folder, server: None, port, agents, analyst, watcher };
        nats.start();
        nats
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn start(&mut self) {
        let log = std::fs::File::create(self.path("nats.log")).unwrap();
        let mut command = Command::new("nats-server");
        command.arg("-c").arg(self.path("nats.conf")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.server = Some(Running(command.spawn().unwrap()));
        let port = self.port;
        eventually("the NATS server listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    }

    /// A command of the agent as this user.
    fn command(&self, user: &User) -> Command {
        let mut command = Command::new(AGENT);
        command.args(["--server", &format!("tls://localhost:{}", self.port), "--ca"]).arg(self.path("cert.pem"));
        command.arg("--nkey").arg(&user.seed).stdin(Stdio::null());
        command
    }

    fn ask(&self, user: &User, arguments: &[&str]) -> (i32, Vec<Value>, String) {
        let output = self.command(user).arg("ask").args(arguments).output().unwrap();
        let stdout = String::from_utf8(output.stdout).unwrap();
        let lines = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        (output.status.code().unwrap(), lines, String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// A recorder with its agent.
struct Host {
    _recorder: Running,
    _agent: Running,
    folder: TempDir,
}

impl Host {
    fn new(program: &Path, nats: &Nats, name: &str, site: &str, roles: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (socket, capture) = (folder.path().join("socket"), folder.path().join("in.pcap"));
        std::fs::write(&capture, capture_file()).unwrap();
        let mut command = Command::new(program);
        command.args(["run", "-m", "32M", "--speed", "max", "--replay"]).arg(&capture).arg("--socket").arg(&socket);
        command.arg("--audit-log").arg(folder.path().join("audit.log"));
        let log = |name: &str| std::fs::File::create(folder.path().join(name)).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log("recorder.log"));
        let recorder = Running(command.spawn().unwrap());
        eventually("the recorder answers", || socket.exists());
        let mut command = nats.command(&nats.agents);
        command.args(["serve", "--name", name, "--site", site, "--socket"]).arg(&socket);
        for role in roles {
            command.args(["--role", role]);
        }
        let agent = Running(command.stdout(Stdio::null()).stderr(log("agent.log")).spawn().unwrap());
        let host = Self { _recorder: recorder, _agent: agent, folder };
        eventually("the agent answers", || host.log().contains("answers for the site"));
        host
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("agent.log")).unwrap()
    }

    fn audit(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("audit.log")).unwrap()
    }
}

/// A pcap file with UDP packets from 10.0.0.1 to 192.0.2.7, three sessions in all.
fn capture_file() -> Vec<u8> {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65535, 1] {
        file.extend_from_slice(&word.to_le_bytes());
    }
    for number in 0..PACKETS {
        let mut frame = vec![2; 12];
        frame.extend_from_slice(&[8, 0, 0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 192, 0, 2, 7]);
        let port = u16::try_from(40_000 + number % 3).unwrap();
        frame.extend_from_slice(&port.to_be_bytes());
        frame.extend_from_slice(&[0x15, 0xb3, 0, 26, 0, 0]);
        frame.extend_from_slice(&number.to_be_bytes());
        frame.resize(60, 0);
        for word in [1_795_341_600 + number / 10, number % 10, 60, 60] {
            file.extend_from_slice(&word.to_le_bytes());
        }
        file.extend_from_slice(&frame);
    }
    file
}

fn ends(lines: &[Value]) -> Vec<(&str, &str)> {
    let mut ends: Vec<(&str, &str)> =
        lines.iter().filter_map(|line| Some((line["recorder"].as_str()?, line.get("outcome")?.as_str()?))).collect();
    ends.sort_unstable();
    ends
}

#[test]
fn fleet_19_3_recorders_that_dial_out_answer_by_site_and_role() {
    let Some(program) = recorder_program() else { return };
    let mut nats = Nats::new();
    let web = Host::new(&program, &nats, "web.example", "berlin", &["status", "flows", "packets"]);
    let mail = Host::new(&program, &nats, "mail", "paris", &["status", "flows"]);

    let (code, lines, stderr) = nats.ask(&nats.analyst, &["--wait", "3s", "flows", "address=192.0.2.7"]);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(ends(&lines), [("mail", "answered"), ("web_example", "answered")]);
    let rows = |name: &str| lines.iter().filter(|line| line["recorder"] == name && line.get("first").is_some()).count();
    assert_eq!((rows("mail"), rows("web_example")), (3, 3));
    let end = lines.iter().find(|line| line.get("outcome").is_some()).unwrap();
    assert!(end["whole_since"].is_string() && end["complete"] == true && end["found_rows"] == 3, "{end}");
    assert!(stderr.contains("who did not answer is unknown without --expect"), "{stderr}");
    // The agent writes down who asked for what.
    assert!(web.log().contains("asks retrocap.all.flows: /v1/flows?address=192.0.2.7"), "{}", web.log());

    let (code, lines, _) = nats.ask(&nats.analyst, &["--wait", "3s", "--site", "paris", "flows", "port=99"]);
    assert_eq!((code, ends(&lines)), (1, vec![("mail", "nothing")]));
    let (code, lines, _) = nats.ask(&nats.analyst, &["--recorder", "web.example", "status"]);
    assert_eq!((code, ends(&lines)), (0, vec![("web_example", "answered")]));
    assert_eq!(lines[0]["document"]["packets"]["received"], PACKETS);

    // The silent are named where it is known who should answer.
    let expected = nats.path("hosts");
    std::fs::write(&expected, "web.example # the web server\nmail\ngone\n").unwrap();
    let expected = expected.to_str().unwrap();
    let (code, lines, _) = nats.ask(&nats.analyst, &["--wait", "2s", "--expect", expected, "status"]);
    assert_eq!((code, ends(&lines)), (3, vec![("gone", "silent"), ("mail", "answered"), ("web_example", "answered")]));

    // An agent that was killed is silent, and one whose server restarts comes back.
    drop(mail);
    let (code, lines, _) = nats.ask(&nats.analyst, &["--wait", "2s", "--expect", expected, "status"]);
    assert_eq!((code, ends(&lines)), (3, vec![("gone", "silent"), ("mail", "silent"), ("web_example", "answered")]));
    nats.server = None;
    nats.start();
    eventually("the agent connects again", || {
        nats.ask(&nats.analyst, &["--wait", "2s", "--recorder", "web.example", "status"]).0 == 0
    });
}

#[test]
fn fleet_19_3_a_question_takes_the_role_of_its_subject() {
    let Some(program) = recorder_program() else { return };
    let nats = Nats::new();
    let _host = Host::new(&program, &nats, "web", "berlin", &["status", "flows", "packets"]);
    let (code, lines, _) = nats.ask(&nats.watcher, &["--wait", "2s", "flows"]);
    assert_eq!((code, ends(&lines)), (0, vec![("web", "answered")]));
    // NATS refuses the subject of another role.
    let output = nats.path("packets");
    let packets = ["--wait", "2s", "--bucket", "cases", "-o", output.to_str().unwrap(), "packets"];
    for question in [&["--wait", "2s", "status"][..], &["--wait", "2s", "hunt", "text=x"], &packets] {
        let (code, lines, stderr) = nats.ask(&nats.watcher, question);
        assert_eq!((code, lines.len()), (3, 0), "{question:?}: {stderr}");
    }
    // The agent refuses another question under a subject that is permitted.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let refused = |target: &str| {
        runtime.block_on(async {
            let seed = std::fs::read_to_string(&nats.watcher.seed).unwrap();
            let options = async_nats::ConnectOptions::new().nkey(seed).require_tls(true);
            let options = options.add_root_certificates(nats.path("cert.pem"));
            let client = options.connect(format!("tls://localhost:{}", nats.port)).await.unwrap();
            let question = serde_json::json!({ "target": target });
            let reply = client.request("retrocap.berlin.flows", question.to_string().into()).await.unwrap();
            let reply: Value = serde_json::from_slice(&reply.payload).unwrap();
            assert_eq!(reply["outcome"], "refused", "{target}: {reply}");
            reply["reason"].as_str().unwrap().to_owned()
        })
    };
    assert!(refused("/v1/packets").contains("takes the role packets, and came as flows"));
    assert!(refused("/v1/pins").contains("no questions for /v1/pins"));
    assert!(refused("/v1/flows?follow=true").contains("leave it out"));
}

#[test]
fn fleet_19_3_packets_come_through_the_object_store() {
    let Some(program) = recorder_program() else { return };
    let nats = Nats::new();
    let hosts = ["one", "two"].map(|name| Host::new(&program, &nats, name, "berlin", &["packets"]));
    let output = nats.path("packets");
    let folder = output.to_str().unwrap();
    let packets = ["--wait", "5s", "--bucket", "cases", "-o", folder, "packets", "address=192.0.2.7"];
    let (code, lines, stderr) = nats.ask(&nats.analyst, &packets);
    assert_eq!(code, 3, "there is no bucket yet: {stderr}");
    assert!(lines.iter().all(|line| line["reason"].as_str().unwrap().contains("bucket cases")), "{lines:?}");

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let objects = || {
        runtime.block_on(async {
            use futures_util::StreamExt as _;
            let seed = std::fs::read_to_string(&nats.analyst.seed).unwrap();
            let options = async_nats::ConnectOptions::new().nkey(seed).require_tls(true);
            let options = options.add_root_certificates(nats.path("cert.pem"));
            let client = options.connect(format!("tls://localhost:{}", nats.port)).await.unwrap();
            let config =
                async_nats::jetstream::object_store::Config { bucket: "cases".to_owned(), ..Default::default() };
            let store = async_nats::jetstream::new(client).create_object_store(config).await.unwrap();
            store.list().await.unwrap().count().await
        })
    };
    assert_eq!(objects(), 0);
    let (code, lines, stderr) = nats.ask(&nats.analyst, &packets);
    assert_eq!((code, ends(&lines)), (0, vec![("one", "answered"), ("two", "answered")]), "{stderr}");
    for name in ["one", "two"] {
        let mut file = Vec::new();
        std::fs::File::open(output.join(format!("{name}.pcapng"))).unwrap().read_to_end(&mut file).unwrap();
        let mut listing = Command::new(&program);
        listing.args(["get", "--text", "-q", "-r"]).arg(output.join(format!("{name}.pcapng")));
        let lines = String::from_utf8(listing.output().unwrap().stdout).unwrap();
        assert_eq!(lines.lines().count(), usize::try_from(PACKETS).unwrap());
        assert!(file.starts_with(&[0x0a, 0x0d, 0x0d, 0x0a]));
    }
    assert_eq!(objects(), 0, "what was fetched is removed");
    // The recorder writes down that packets were read.
    for host in &hosts {
        assert!(host.audit().contains("192.0.2.7"), "{}", host.audit());
    }
    // Files that are there are not overwritten.
    let (code, lines, _) = nats.ask(&nats.analyst, &packets);
    assert!(
        code == 3 && lines.iter().all(|line| line["reason"].as_str().unwrap().contains("cannot create")),
        "{lines:?}"
    );
}
