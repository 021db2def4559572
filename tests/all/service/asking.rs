//! Clients of the service: curl, and a hand-written one.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// A response.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    trailers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    pub(crate) fn trailer(&self, name: &str) -> Option<&str> {
        find(&self.trailers, name)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }
}

fn find<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

fn fields(text: &str) -> Vec<(String, String)> {
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).collect()
}

/// Whether a program is installed; prints when it is not.
pub(crate) fn have(program: &str) -> bool {
    let thread = std::thread::current();
    crate::machine::have(&format!("{}, in part", thread.name().unwrap_or("a test")), program)
}

/// Sends a request with curl, or by hand where curl is not installed.
pub(crate) fn curl(socket: impl AsRef<Path>, question: &str, arguments: &[&str]) -> Answer {
    if !have("curl") {
        let method = arguments.windows(2).find(|pair| pair[0] == "-X").map_or("GET", |pair| pair[1]);
        return ask(socket, &request(method, question));
    }
    let directory = tempfile::tempdir().unwrap();
    let (head, body) = (directory.path().join("head"), directory.path().join("body"));
    let output = Command::new("curl")
        .args(["-sS", "--max-time", "30", "--path-as-is", "--unix-socket"])
        .arg(socket.as_ref())
        .arg("-D")
        .arg(&head)
        .arg("-o")
        .arg(&body)
        .args(arguments)
        .arg(format!("http://localhost{question}"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{question}: {}", String::from_utf8_lossy(&output.stderr));
    let head = std::fs::read_to_string(head).unwrap();
    Answer {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        headers: fields(&head),
        trailers: Vec::new(),
        body: std::fs::read(body).unwrap_or_default(),
    }
}

fn request(method: &str, question: &str) -> String {
    format!("{method} {question} HTTP/1.1\r\nHost: localhost\r\nTE: trailers\r\nConnection: close\r\n\r\n")
}

/// Sends the head of a request for `question`.
pub(crate) fn send(stream: &mut UnixStream, question: &str) {
    stream.write_all(request("GET", question).as_bytes()).unwrap();
}

/// Sends a request by hand, and reads the response with its trailers.
pub(crate) fn get(socket: impl AsRef<Path>, question: &str) -> Answer {
    ask(socket, &request("GET", question))
}

/// Sends a request with a body.
pub(crate) fn post(socket: impl AsRef<Path>, question: &str, body: &str) -> Answer {
    let head = request("POST", question);
    ask(socket, &head.replace("\r\n\r\n", &format!("\r\nContent-Length: {}\r\n\r\n{body}", body.len())))
}

fn ask(socket: impl AsRef<Path>, request: &str) -> Answer {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    parse(&bytes)
}

/// Parses a response, which must be complete.
pub(crate) fn parse(bytes: &[u8]) -> Answer {
    let (head, mut rest) = split(bytes, b"\r\n\r\n").expect("the head is whole");
    let head = String::from_utf8(head.to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let mut answer = Answer { status, headers: fields(&head), ..Answer::default() };
    if answer.header("transfer-encoding") != Some("chunked") {
        answer.body = rest.to_vec();
        return answer;
    }
    loop {
        let (size, after) = split(rest, b"\r\n").expect("a chunk's size");
        let size = usize::from_str_radix(std::str::from_utf8(size).unwrap(), 16).unwrap();
        if size == 0 {
            answer.trailers = fields(std::str::from_utf8(after).unwrap());
            assert!(after.ends_with(b"\r\n"), "the answer ends");
            return answer;
        }
        answer.body.extend_from_slice(after.get(..size).expect("a whole chunk"));
        rest = after[size..].strip_prefix(b"\r\n").expect("a chunk's end");
    }
}

fn split<'a>(bytes: &'a [u8], at: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let position = bytes.windows(at.len()).position(|window| window == at)?;
    Some((&bytes[..position], &bytes[position + at.len()..]))
}
