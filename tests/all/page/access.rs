//! Links, tokens, hosts and origins.

use std::os::linux::fs::MetadataExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use super::{Opened, curl, link};
use crate::machine;
use crate::namespaces::{Namespace, available};
use crate::recorder::running::{PROGRAM, Recorder, eventually, have};

/// Ports at which a process listens.
fn listening_ports(process: u32) -> Vec<u16> {
    let sockets: Vec<u64> = std::fs::read_dir(format!("/proc/{process}/fd"))
        .unwrap()
        .filter_map(|entry| Some(std::fs::metadata(entry.ok()?.path()).ok()?.st_ino()))
        .collect();
    let table = std::fs::read_to_string(format!("/proc/{process}/net/tcp")).unwrap();
    let listening = table.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let is_listening = fields[3] == "0A" && sockets.contains(&fields[9].parse().unwrap());
        is_listening.then(|| u16::from_str_radix(fields[1].split(':').nth(1).unwrap(), 16).unwrap())
    });
    listening.collect()
}

#[test]
fn nothing_listens_until_somebody_asks_for_the_page() {
    let Some(capture) = machine::capture("the page", "http-gzip.pcap") else { return };
    let replay = ["--replay", capture.to_str().unwrap(), "--speed", "max"];
    let recorder = Recorder::replaying(&replay, Stdio::null());
    assert!(listening_ports(recorder.child.id()).is_empty());
    let (origin, _) = link(&recorder, 3600);
    let port: u16 = origin.strip_prefix("http://127.0.0.1:").unwrap().parse().unwrap();
    assert_eq!(listening_ports(recorder.child.id()), [port]);
    assert_eq!(link(&recorder, 3600).0, origin, "one port for all links");

    let from_start = Recorder::replaying(&[&replay[..], &["--page", "127.0.0.1:0"]].concat(), Stdio::null());
    eventually("the page listens", || listening_ports(from_start.child.id()).len() == 1);
    let mut refused = std::process::Command::new(PROGRAM);
    refused.args(["run", "--page", "10.0.0.1:1"]).args(replay);
    let refused = refused.arg("--socket").arg(recorder.path("other")).output().unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("is not a loopback address"), "{refused:?}");
}

#[test]
fn a_link_opens_the_page_once() {
    if !have("a_link_opens_the_page_once", &["curl"]) {
        return;
    }
    let Some(page) = Opened::new("http-gzip.pcap", &[]) else { return };
    for path in ["/v1/status", "/v1/flows", "/v1/packets", "/v1/columns", "/v1/pins", "/metrics", "/v1/openapi.json"] {
        assert_eq!(page.ask(path, &[]).status, 401, "{path} without a token");
        assert_eq!(page.ask(path, &["-H", "Authorization: Bearer nonsense"]).status, 401, "{path}");
    }
    let link_as_token = format!("Authorization: Bearer {}", page.link);
    assert_eq!(page.ask("/v1/status", &["-H", &link_as_token]).status, 401, "a link is no token");
    let token = page.token();
    let header = format!("Authorization: Bearer {token}");
    let visitor = page.ask("/v1/page", &["-H", &header]).json();
    assert_eq!(visitor["roles"], serde_json::json!(["status", "flows", "packets", "pin"]), "those of the socket");
    assert_eq!(visitor["idle_s"], 3600);
    for path in ["/v1/status", "/v1/flows", "/v1/packets", "/v1/columns", "/v1/pins", "/metrics"] {
        assert_eq!(page.ask(path, &["-H", &header]).status, 200, "{path}");
    }
    // A cookie, which other servers of this host would get too, is never set and never read.
    assert_eq!(page.ask("/v1/status", &["-b", &format!("token={token}")]).status, 401);
    let again = page.ask("/v1/page/session", &["-d", &format!("{{\"link\":\"{}\"}}", page.link)]);
    assert_eq!(again.status, 401, "a second use");
    assert!(again.text().contains("retrocap page"), "{}", again.text());
    assert_eq!(page.ask("/v1/page", &["-H", &header, "-d", "{}"]).status, 403, "links are made over the socket alone");
    assert_eq!(page.ask("/v1/page/session", &["-H", &header, "-X", "DELETE"]).status, 204);
    assert_eq!(page.ask("/v1/status", &["-H", &header]).status, 401, "after its end");
}

#[test]
fn another_user_cannot_use_a_link_or_a_token() {
    if !have("another_user_cannot_use_a_link_or_a_token", &["curl", "setpriv"]) || !rustix::process::geteuid().is_root()
    {
        return;
    }
    let Some(page) = Opened::new("http-gzip.pcap", &[]) else { return };
    let other = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let body = format!("{{\"link\":\"{}\"}}", page.link);
    let stolen = curl(&other, &format!("{}/v1/page/session", page.origin), &["-d", &body]);
    assert_eq!(stolen.status, 401, "{}", stolen.text());
    let header = format!("Authorization: Bearer {}", page.token());
    let url = format!("{}/v1/status", page.origin);
    assert_eq!(curl(&other, &url, &["-H", &header]).status, 401);
    assert_eq!(curl(&[], &url, &["-H", &header]).status, 200);
    // Root may name the user of the browser, as sudo does.
    let mut asking = page.recorder.verb(&["page", "--json"]);
    let reply = asking.env("SUDO_UID", "65534").output().unwrap();
    let document: serde_json::Value = serde_json::from_slice(&reply.stdout).unwrap();
    let secret = document["url"].as_str().unwrap().split_once("/#link=").unwrap().1.to_owned();
    let body = format!("{{\"link\":\"{secret}\"}}");
    let exchanged = curl(&other, &format!("{}/v1/page/session", page.origin), &["-d", &body]);
    assert_eq!(exchanged.status, 201, "{}", exchanged.text());
}

#[test]
fn the_page_answers_to_its_own_name_and_to_its_own_pages() {
    if !have("the_page_answers_to_its_own_name_and_to_its_own_pages", &["curl"]) {
        return;
    }
    let Some(page) = Opened::new("http-gzip.pcap", &[]) else { return };
    let header = format!("Authorization: Bearer {}", page.token());
    let origin = format!("Origin: {}", page.origin);
    let port = page.origin.rsplit(':').next().unwrap();
    let other_port = format!("Origin: http://127.0.0.1:1{}", &port[1..]);
    for (extra, status) in [
        ("Host: evil.example", 421),
        ("Host: localhost.evil.example:80", 421),
        ("Origin: http://evil.example", 403),
        ("Origin: null", 403),
        (other_port.as_str(), if other_port == origin { 200 } else { 403 }),
        (origin.as_str(), 200),
    ] {
        for path in ["/", "/v1/status"] {
            assert_eq!(page.ask(path, &["-H", &header, "-H", extra]).status, status, "{path} {extra}");
        }
    }
    let document = page.ask("/", &[]);
    let policy = document.header("content-security-policy").unwrap();
    for part in
        ["default-src 'none'", "script-src 'self';", "require-trusted-types-for 'script'", "frame-ancestors 'none'"]
    {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    let worker = page.ask("/page/dissector.js", &[]);
    assert!(worker.header("content-security-policy").unwrap().contains("'unsafe-eval'"), "of this file alone");
    for (name, value) in [("x-content-type-options", "nosniff"), ("referrer-policy", "no-referrer")] {
        assert_eq!(document.header(name), Some(value));
    }
    assert!(document.header("set-cookie").is_none());
    assert_eq!(page.ask("/page/../Cargo.toml", &["--path-as-is"]).status, 404);
    assert_eq!(page.ask("/page/dissector/wiregasm.js", &[]).status, 404, "nobody installed one");
}

#[test]
fn what_the_page_polls_is_in_the_audit_log_once_with_the_name_of_who_asked() {
    if !have("what_the_page_polls_is_in_the_audit_log_once_with_the_name_of_who_asked", &["curl"]) {
        return;
    }
    let Some(page) = Opened::new("http-files.pcap", &[]) else { return };
    let header = format!("Authorization: Bearer {}", page.token());
    for since in 0..5 {
        assert_eq!(page.ask(&format!("/v1/columns?since=@{since}"), &["-H", &header]).status, 200);
        assert_eq!(page.ask(&format!("/v1/timeline?since=@{since}"), &["-H", &header]).status, 200);
    }
    assert_eq!(page.ask("/v1/columns?filter=udp", &["-H", &header]).status, 200);
    for _ in 0..2 {
        assert_eq!(page.ask("/v1/lines?count=1", &["-H", &header]).status, 200, "packets are never a poll");
    }
    let log = std::fs::read_to_string(page.recorder.path("audit.log")).unwrap();
    let begun: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .filter(|line| line["event"] == "begin")
        .collect();
    let of = |key: &str| begun.iter().filter(|line| !line["query"][key].is_null()).count();
    assert_eq!((of("columns"), of("timeline")), (2, 1), "{log}");
    assert_eq!(begun.iter().filter(|line| line["action"] == "packets").count(), 2, "{log}");
    let uid = rustix::process::getuid().as_raw();
    for line in &begun {
        assert_eq!(line["who"]["uid"], uid, "{line}");
        assert!(line["from"].as_str().unwrap().starts_with("page, 127.0.0.1:"), "{line}");
    }
}

#[test]
fn a_page_that_is_open_costs_no_packet() {
    const TEST: &str = "a_page_that_is_open_costs_no_packet";
    if !available(TEST) || !have(TEST, &["curl", "ip", "bash"]) {
        return;
    }
    let namespace = Namespace::new();
    assert!(namespace.ip("link set lo up").status.success());
    let recorder = Recorder::live(&namespace, &["-m", "16M", "--user", "nobody"]);
    let (origin, secret) = link(&recorder, 3600);
    let inside = ["ip", "netns", "exec", &namespace.name];
    let exchanged = curl(&inside, &format!("{origin}/v1/page/session"), &["-d", &format!("{{\"link\":\"{secret}\"}}")]);
    assert_eq!(exchanged.status, 201, "{}", exchanged.text());
    let header = format!("Authorization: Bearer {}", exchanged.json()["token"].as_str().unwrap());
    for path in ["/", "/page/main.js", "/v1/columns", "/v1/timeline", "/v1/status", "/v1/health"] {
        for _ in 0..3 {
            assert_eq!(curl(&inside, &format!("{origin}{path}"), &["-H", &header]).status, 200, "{path}");
        }
    }
    // Other traffic of the same interface is recorded.
    assert!(namespace.exec(&["bash", "-c", "echo x >/dev/udp/127.0.0.1/4009"]).status.success());
    let flows = || -> Vec<serde_json::Value> {
        let listed = recorder.ask(&["flows", "--json"]).stdout;
        listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    eventually("the datagram is recorded", || flows().iter().any(|flow| flow["responder"]["port"] == 4009));
    let of_page: Vec<_> = flows().into_iter().filter(|flow| flow["proto"] == "tcp").collect();
    assert!(of_page.is_empty(), "{of_page:?}");
}

#[test]
fn a_desktop_opens_the_link_as_the_user_who_ran_sudo() {
    const TEST: &str = "a_desktop_opens_the_link_as_the_user_who_ran_sudo";
    if !have(TEST, &["script"]) {
        return;
    }
    let Some(page) = Opened::new("http-gzip.pcap", &[]) else { return };
    let folder = tempfile::tempdir().unwrap();
    let mode = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(folder.path(), 0o755);
    let (opener, opened) = (folder.path().join("xdg-open"), folder.path().join("opened"));
    std::fs::write(&opener, format!("#!/bin/sh\necho \"$(id -u) $1\" > {}\n", opened.display())).unwrap();
    mode(&opener, 0o755);
    std::fs::write(&opened, "").unwrap();
    mode(&opened, 0o666);
    let asked = format!("{PROGRAM} page --socket {}", page.recorder.socket().display());
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let mut command = std::process::Command::new("script");
    command.args(["-qec", &asked, "/dev/null"]).env("PATH", path).env("DISPLAY", ":9").stdin(Stdio::null());
    let is_root = rustix::process::geteuid().is_root();
    if is_root {
        command.env("SUDO_UID", "65534").env("SUDO_GID", "65534");
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let expected = if is_root { "65534".to_owned() } else { rustix::process::geteuid().as_raw().to_string() };
    eventually("the browser was started", || {
        let text = std::fs::read_to_string(&opened).unwrap();
        text.starts_with(&format!("{expected} {}/#link=", page.origin))
    });
}
