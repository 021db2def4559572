//! The web page: who may open it, what it is told, and how it behaves in a browser.

mod access;
mod answers;
mod browser;
mod said;
mod ssh;
mod vlans;

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::machine;
use crate::recorder::running::{Recorder, eventually};

/// A recorder of these captures of the collection, and the origin of its page.
struct Opened {
    recorder: Recorder,
    origin: String,
    link: String,
}

impl Opened {
    fn new(capture: &str, arguments: &[&str]) -> Option<Self> {
        Self::within(capture, arguments, 3600)
    }

    /// As [`new`](Self::new), for a recorder whose links end after so many seconds without a use.
    fn within(capture: &str, arguments: &[&str], idle_s: u64) -> Option<Self> {
        Some(Self::of(&machine::capture("the page", capture)?, arguments, idle_s))
    }

    /// A recorder of this file.
    fn of(path: &std::path::Path, arguments: &[&str], idle_s: u64) -> Self {
        let replay = ["--replay", path.to_str().unwrap(), "--speed", "max", "-m", "32M", "--audit", "required"];
        let recorder = Recorder::replaying(&[&replay, arguments].concat(), Stdio::null());
        let mut received = 0;
        eventually("the capture was read", || {
            let before = std::mem::replace(&mut received, recorder.status().packets.received);
            std::thread::sleep(Duration::from_millis(50));
            received > 0 && received == before
        });
        let (origin, link) = link(&recorder, idle_s);
        Self { recorder, origin, link }
    }

    fn token(&self) -> String {
        let answer = self.ask("/v1/page/session", &["-d", &format!("{{\"link\":\"{}\"}}", self.link)]);
        assert_eq!(answer.status, 201, "{}", answer.text());
        answer.json()["token"].as_str().unwrap().to_owned()
    }

    fn ask(&self, path: &str, arguments: &[&str]) -> Answer {
        curl(&[], &format!("{}{path}", self.origin), arguments)
    }
}

/// Asks for a link: the origin of the page, and the secret.
fn link(recorder: &Recorder, idle_s: u64) -> (String, String) {
    let reply = recorder.ask(&["page", "--json"]);
    assert_eq!(reply.code, 0, "{}", reply.stderr);
    let document: Value = serde_json::from_str(&reply.stdout).unwrap();
    assert_eq!(document["idle_s"], idle_s);
    let (origin, secret) = document["url"].as_str().unwrap().split_once("/#link=").unwrap();
    (origin.to_owned(), secret.to_owned())
}

/// What curl got.
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    fn lines(&self) -> Vec<Value> {
        self.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .find_map(|line| line.split_once(": ").filter(|(key, _)| key.eq_ignore_ascii_case(name)))
            .map(|(_, v)| v)
    }
}

/// Asks with curl; `before` are the words of a command that starts it.
fn curl(before: &[&str], url: &str, arguments: &[&str]) -> Answer {
    let words = [before, &["curl", "-sS", "-i", "--max-time", "20", url], arguments].concat();
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    let end = output.stdout.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let head = String::from_utf8_lossy(&output.stdout[..end]).replace("\r\n", "\n");
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head, body: output.stdout[end + 4..].to_vec() }
}
