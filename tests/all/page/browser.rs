//! The page in a real browser: Chromium, driven by the scripts of tests/page. `scripts/setup test` installs what they need.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Opened;
use crate::generate;
use crate::machine::{have, skipped};
use crate::recorder::certs::{Pki, browser_password};
use crate::recorder::running::{PROGRAM, Recorder, directory};

const CHROMIUM: [&str; 2] = ["/usr/bin/chromium", "/usr/bin/chromium-browser"];

fn scripts() -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/page")).to_owned()
}

/// The browser; `None`, with a message, where something is missing.
fn chromium(test: &str) -> Option<&'static str> {
    let chromium = CHROMIUM.into_iter().find(|path| Path::new(path).exists());
    if chromium.is_none() {
        skipped(test, "Chromium is not installed: scripts/setup test");
    } else if !scripts().join("node_modules/playwright-core").exists() {
        skipped(test, "its packages are not installed: npm ci --prefix tests/page");
        return None;
    }
    chromium.filter(|_| have(test, "node"))
}

/// A script of tests/page, about to run.
fn script(name: &str, chromium: &str, socket: &Path) -> Command {
    let mut command = Command::new("node");
    command.arg(scripts().join(name)).env("RETROCAP", PROGRAM).env("RETROCAP_SOCKET", socket);
    command.env("RETROCAP_CHROMIUM", chromium).env("TZ", "Europe/Berlin");
    command
}

pub(super) fn passes(test: &str, name: &str, recorder: &Recorder) {
    let Some(chromium) = chromium(test) else { return };
    let output = script(name, chromium, &recorder.socket()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains(" passed, 0 failed"), "{text}");
}

#[test]
fn each_region_and_each_button() {
    let Some(page) = Opened::new("mixed-lan.pcap", &[]) else { return };
    passes("each_region_and_each_button", "regions.mjs", &page.recorder);
}

#[test]
fn for_everyone() {
    let Some(page) = Opened::new("mixed-lan.pcap", &[]) else { return };
    passes("for_everyone", "everyone.mjs", &page.recorder);
}

#[test]
fn links_and_sessions_expire() {
    let folder = tempfile::tempdir().unwrap();
    let settings = folder.path().join("retrocap.toml");
    std::fs::write(&settings, "page-idle = \"12s\"\n").unwrap();
    let Some(page) = Opened::within("mixed-lan.pcap", &["--config", settings.to_str().unwrap()], 12) else { return };
    passes("links_and_sessions_expire", "expiry.mjs", &page.recorder);
}

#[test]
fn gaps_are_seen() {
    let Some(page) = Opened::new("http-pdf.pcap", &["--snaplen", "200"]) else { return };
    passes("gaps_are_seen", "gaps.mjs", &page.recorder);
}

#[test]
fn certificates_fingerprints_and_rules_of_ones_own() {
    let Some(page) = Opened::new("heartbleed.pcap", &[]) else { return };
    passes("certificates_fingerprints_and_rules_of_ones_own", "evidence.mjs", &page.recorder);
}

#[test]
fn a_dissector_runs_in_its_worker_alone() {
    const TEST: &str = "a_dissector_runs_in_its_worker_alone";
    let folder = scripts().join("dissector/node_modules/@goodtools/wiregasm/dist");
    if !folder.join("wiregasm.wasm").exists() {
        skipped(TEST, "wiregasm is not installed: scripts/setup test");
        return;
    }
    let Some(page) = Opened::new("http-gzip.pcap", &["--page-dissector", folder.to_str().unwrap()]) else { return };
    passes(TEST, "dissector.mjs", &page.recorder);
}

/// A home whose browser trusts the authority, and has the client's certificate if there is one.
fn home(pki: &Pki, client: Option<(&str, &str)>) -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    let database = home.path().join(".pki/nssdb");
    std::fs::create_dir_all(&database).unwrap();
    let database = format!("sql:{}", database.display());
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).args(["-d", &database]).output().unwrap();
        assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    };
    run("certutil", &["-N", "--empty-password"]);
    run("certutil", &["-A", "-n", "authority", "-t", "C,,", "-i", pki.path("ca.pem").to_str().unwrap()]);
    if let Some((name, password)) = client {
        let file = pki.path(name).join("client.p12");
        run("pk12util", &["-i", file.to_str().unwrap(), "-W", password, "-K", ""]);
    }
    home
}

#[test]
fn a_browser_with_a_client_certificate_needs_no_link() {
    const TEST: &str = "a_browser_with_a_client_certificate_needs_no_link";
    let (Some(chromium), Some(capture)) = (chromium(TEST), crate::machine::capture(TEST, "mixed-lan.pcap")) else {
        return;
    };
    if !["certutil", "pk12util", "unshare"].iter().all(|program| have(TEST, program)) {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        skipped(
            TEST,
            "a policy of the browser, which chooses the certificate, needs a mount namespace: run it as root",
        );
        return;
    }
    let pki = Pki::new();
    let made = pki.certs(&["client", "bob", "--role", "packets"]);
    let password = browser_password(&made.stdout);
    let made = pki.certs(&["client", "status", "--role", "status"]);
    let password_of_status = browser_password(&made.stdout);
    let port = free_port();
    let listen = format!("127.0.0.1:{port}");
    let files = ["ca.pem", "server.pem", "server.key"].map(|name| pki.path(name).to_str().unwrap().to_owned());
    let replay = ["--replay", capture.to_str().unwrap(), "--speed", "max", "-m", "32M", "--listen", &listen];
    let certificates = ["--ca", &files[0], "--cert", &files[1], "--key", &files[2]];
    let recorder = Recorder::replaying(&[&replay[..], &certificates].concat(), Stdio::null());
    let policy = format!(
        "{{\"AutoSelectCertificateForUrls\":[\"{{\\\"pattern\\\":\\\"https://{listen}\\\",\\\"filter\\\":{{}}}}\"]}}"
    );
    let run = |home: &Path, client: &str| {
        let mut command = Command::new("unshare");
        // The folder of policies belongs to the system: the test has one of its own in a mount namespace.
        let folder = if chromium.ends_with("browser") { "/etc/chromium-browser" } else { "/etc/chromium" };
        let inside = format!(
            "mkdir -p {folder} && mount -t tmpfs none {folder} && mkdir -p {folder}/policies/managed && \
             printf %s \"$1\" > {folder}/policies/managed/retrocap.json && shift && exec \"$@\""
        );
        command.args(["--mount", "sh", "-c", &inside, "sh", &policy, "node"]).arg(scripts().join("tls.mjs"));
        command.env("RETROCAP", PROGRAM).env("RETROCAP_SOCKET", recorder.socket()).env("HOME", home);
        command.env("RETROCAP_CHROMIUM", chromium).env("RETROCAP_CLIENT", client);
        let output = command.env("RETROCAP_PAGE_URL", format!("https://{listen}")).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        assert!(text.contains("1 passed, 0 failed"), "{text}");
    };
    run(home(&pki, Some(("bob", &password))).path(), "bob");
    run(home(&pki, Some(("status", &password_of_status))).path(), "status");
    run(home(&pki, None).path(), "");
}

#[test]
fn the_page_asks_what_the_openapi_document_has() {
    const TEST: &str = "the_page_asks_what_the_openapi_document_has";
    if !["node", "curl"].iter().all(|program| have(TEST, program)) {
        return;
    }
    if !scripts().join("node_modules/typescript").exists() {
        skipped(TEST, "TypeScript is not installed: scripts/setup test");
        return;
    }
    let Some(page) = Opened::new("http-gzip.pcap", &[]) else { return };
    let header = format!("Authorization: Bearer {}", page.token());
    let document = page.recorder.path("openapi.json");
    std::fs::write(&document, page.ask("/v1/openapi.json", &["-H", &header]).body).unwrap();
    let output = Command::new("node").arg(scripts().join("types.mjs")).arg(document).output().unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn hostile_names_are_text() {
    const NAME: &str = "<img/src=x/onerror=alert(1)>\u{202e}\u{2066}evil";
    let folder = tempfile::tempdir().unwrap();
    let request = format!("GET /{NAME} HTTP/1.1\r\nHost: {NAME}\r\nUser-Agent: {NAME}\r\n\r\n");
    let response = format!(
        "HTTP/1.1 200 OK\r\nContent-Disposition: attachment; filename=\"{NAME}\"\r\nContent-Type: {NAME}\r\n\
         Content-Length: 5\r\n\r\nhello"
    );
    let http =
        std::fs::read(crate::hunting::http(folder.path(), request.as_bytes(), response.as_bytes(), 1000)).unwrap();
    let dns = std::fs::read(crate::hostile_names::dns(folder.path(), NAME.as_bytes())).unwrap();
    assert_eq!(http[..24], dns[..24], "both have the same header");
    let both = folder.path().join("both.pcap");
    std::fs::write(&both, [&http[..], &dns[24..]].concat()).unwrap();
    let replay = ["--replay", both.to_str().unwrap(), "--speed", "max"];
    passes("hostile_names_are_text", "hostile.mjs", &Recorder::replaying(&replay, Stdio::null()));
}

/// Writes 10,000 packets a second until it is told to stop, at most for a minute.
fn traffic(mut into: ChildStdin) -> (Arc<AtomicBool>, JoinHandle<()>) {
    const PACKETS_AT_ONCE: u32 = 100;
    const EVERY: Duration = Duration::from_millis(10);
    let stop = Arc::new(AtomicBool::new(false));
    let stopping = Arc::clone(&stop);
    let thread = std::thread::spawn(move || {
        let start = Instant::now();
        let _ = into.write_all(&generate::header());
        for batch in 0..6000u32 {
            if stopping.load(Ordering::Relaxed) {
                return;
            }
            let mut bytes = Vec::new();
            for packet in 0..PACKETS_AT_ONCE {
                let nanos = u64::from(batch) * 10_000_000 + u64::from(packet) * 100_000;
                generate::packet(&mut bytes, nanos, batch * 2 + packet % 2, packet % 3 != 0, 60);
            }
            if into.write_all(&bytes).is_err() {
                return;
            }
            std::thread::sleep((EVERY * (batch + 1)).saturating_sub(start.elapsed()));
        }
    });
    (stop, thread)
}

/// A port that nobody listens at.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A recorder whose page has a port that stays the same.
fn at_port(port: u16, folder: tempfile::TempDir, replay: &[&str], stdin: Stdio) -> Recorder {
    let mut command = Command::new(PROGRAM);
    command.args(["run", "-m", "32M", "--page", &format!("127.0.0.1:{port}")]).args(replay).stdin(stdin);
    Recorder::start(command, folder)
}

#[test]
fn live_traffic_is_followed_and_a_recorder_may_go_away() {
    const TEST: &str = "live_traffic_is_followed_and_a_recorder_may_go_away";
    let (Some(chromium), Some(capture)) = (chromium(TEST), crate::machine::capture(TEST, "http-gzip.pcap")) else {
        return;
    };
    let port = free_port();
    let mut recorder = at_port(port, directory(), &["--replay", "-"], Stdio::piped());
    let (stop, generator) = traffic(recorder.stdin());
    let mut child =
        script("live.mjs", chromium, &recorder.socket()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    let (mut answers, lines) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
    let mut generator = Some(generator);
    for line in lines.lines().map_while(Result::ok) {
        said.push_str(&line);
        said.push('\n');
        let Some(what) = line.strip_prefix("ask ") else { continue };
        let mut answer = String::new();
        match what {
            "end-of-traffic" => {
                stop.store(true, Ordering::Relaxed);
                generator.take().unwrap().join().unwrap();
                std::thread::sleep(Duration::from_millis(500));
            }
            "sessions" => answer = recorder.ask(&["flows", "--json"]).stdout.lines().count().to_string(),
            "stop" => recorder.signal("-STOP"),
            "continue" => recorder.signal("-CONT"),
            "kill" => end(&mut recorder.child),
            "restart" => {
                let folder = std::mem::replace(&mut recorder.directory, directory());
                let _ = std::fs::remove_file(folder.path().join("socket"));
                let replay = ["--replay", capture.to_str().unwrap(), "--speed", "max"];
                recorder = at_port(port, folder, &replay, Stdio::null());
            }
            other => panic!("{other} is not known"),
        }
        writeln!(answers, "{answer}").unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    assert!(child.wait().unwrap().success(), "{said}");
}

fn end(child: &mut Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}
