//! HTTP/1 (RFC 9112) in both directions, with its bodies.

use std::collections::VecDeque;

use base64::Engine as _;
use streams::Sender;

use crate::event::Event;
use crate::lines::{self, Line};
use crate::object::ObjectHead;
use crate::parser::{Input, Parser, ParserOutput, Step};
use crate::probe::{Carrier, Probe, Verdict};
use crate::protocol::{Protocol, row};

pub(crate) const ROW: Protocol = Protocol {
    resumes: |data| starts_message(data) == Some(true),
    ..row("http", "HTTP/1", Carrier::Tcp, probe, |_| Box::<Http>::default())
};

const HEADERS_MAX: usize = 128;
/// Maximum length of a head; servers refuse longer ones.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Maximum number of requests that wait for their response.
const REQUESTS_MAX: usize = 256;
const METHODS: [&[u8]; 24] = [
    b"GET ",
    b"POST ",
    b"HEAD ",
    b"PUT ",
    b"DELETE ",
    b"OPTIONS ",
    b"PATCH ",
    b"CONNECT ",
    b"TRACE ",
    b"PROPFIND ",
    b"PROPPATCH ",
    b"MKCOL ",
    b"COPY ",
    b"MOVE ",
    b"LOCK ",
    b"UNLOCK ",
    b"REPORT ",
    b"SEARCH ",
    b"NOTIFY ",
    b"M-SEARCH ",
    b"SUBSCRIBE ",
    b"UNSUBSCRIBE ",
    b"RPC_IN_DATA ",
    b"RPC_OUT_DATA ",
];

fn starts_message(data: &[u8]) -> Option<bool> {
    let words = METHODS.iter().copied().chain([&b"HTTP/1."[..]]);
    let verdicts: Vec<_> = words.map(|word| lines::starts(data, word)).collect();
    if verdicts.contains(&Some(true)) {
        Some(true)
    } else if verdicts.contains(&None) {
        None
    } else {
        Some(false)
    }
}

fn probe(probe: &Probe<'_>) -> Verdict {
    let data = probe.first();
    match starts_message(data) {
        Some(false) => Verdict::No,
        None => Verdict::More,
        Some(true) if data.starts_with(b"HTTP/1.") => Verdict::Yes,
        // SIP and RTSP share some methods with HTTP.
        Some(true) => match lines::line(data) {
            Line::Whole(line, _) => {
                let version = line.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
                Verdict::from_bool(version.starts_with(b"HTTP/") || line.split(|byte| *byte == b' ').count() == 2)
            }
            Line::More => Verdict::More,
            Line::TooLong => Verdict::Yes,
        },
    }
}

/// The part of a body that is still to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    /// This number of bytes.
    Bytes(u64),
    /// A chunk's size line comes next.
    ChunkSize,
    /// This number of bytes of a chunk, then an empty line.
    Chunk(u64),
    /// The empty line after a chunk.
    ChunkEnd,
    /// Trailers, up to an empty line.
    Trailers,
    /// Everything up to the end of the session.
    UntilEnd,
}

/// The message that a sender is sending.
#[derive(Debug, Default)]
struct Message {
    body: Option<Body>,
    object: Option<u64>,
    /// Bytes of the object so far.
    at: u64,
    /// The body has a gap, so that its size is not known from the received bytes.
    broken: bool,
}

/// The properties of a request that its response depends on.
#[derive(Clone, Debug, Default)]
struct Request {
    head: bool,
    connect: bool,
    url: String,
    name: String,
}

#[derive(Default)]
struct Http {
    messages: [Message; 2],
    requests: VecDeque<Request>,
}

impl Parser for Http {
    fn data(&mut self, input: Input<'_>, out: &mut ParserOutput<'_>) -> Step {
        match self.messages[input.sender.index()].body {
            Some(body) => self.body(body, input, out),
            None => self.head(input, out),
        }
    }

    fn gap(&mut self, sender: Sender, len: u64, out: &mut ParserOutput<'_>) -> bool {
        let message = &mut self.messages[sender.index()];
        let left = match message.body {
            Some(Body::Bytes(left) | Body::Chunk(left)) if left >= len => Some(left - len),
            Some(Body::UntilEnd) => None,
            _ => {
                message.end(None, out);
                return false;
            }
        };
        message.at += len;
        message.broken = true;
        match (message.body, left) {
            (Some(Body::Bytes(_)), Some(0)) => message.end(Some(message.at), out),
            (Some(Body::Bytes(_)), Some(left)) => message.body = Some(Body::Bytes(left)),
            (Some(Body::Chunk(_)), Some(0)) => message.body = Some(Body::ChunkEnd),
            (Some(Body::Chunk(_)), Some(left)) => message.body = Some(Body::Chunk(left)),
            _ => {}
        }
        true
    }

    fn end(&mut self, out: &mut ParserOutput<'_>) {
        for message in &mut self.messages {
            let size = (message.body == Some(Body::UntilEnd)).then_some(message.at);
            message.end(size, out);
        }
    }
}

impl Message {
    /// Ends the body.
    fn end(&mut self, size: Option<u64>, out: &mut ParserOutput<'_>) {
        if let Some(object) = self.object.take() {
            out.finish(object, size);
        }
        *self = Self::default();
    }
}

impl Http {
    fn body(&mut self, body: Body, input: Input<'_>, out: &mut ParserOutput<'_>) -> Step {
        let message = &mut self.messages[input.sender.index()];
        let mut take = |message: &mut Message, most: u64| {
            let bytes = usize::try_from(most).unwrap_or(usize::MAX).min(input.data.len());
            if let Some(object) = message.object {
                out.content(object, message.at, &input.data[..bytes]);
            }
            message.at += bytes as u64;
            bytes
        };
        match body {
            Body::Bytes(left) => {
                let bytes = take(message, left);
                match left - bytes as u64 {
                    0 => message.end(Some(message.at), out),
                    left => message.body = Some(Body::Bytes(left)),
                }
                Step::Used(bytes)
            }
            Body::Chunk(left) => {
                let bytes = take(message, left);
                let left = left - bytes as u64;
                message.body = Some(if left == 0 { Body::ChunkEnd } else { Body::Chunk(left) });
                Step::Used(bytes)
            }
            Body::UntilEnd => Step::Used(take(message, u64::MAX)),
            Body::ChunkSize | Body::ChunkEnd | Body::Trailers => {
                let (line, used) = match lines::line(input.data) {
                    Line::Whole(line, used) => (line, used),
                    Line::More => return Step::More,
                    Line::TooLong => return Step::Stop,
                };
                match body {
                    Body::ChunkEnd => message.body = Some(Body::ChunkSize),
                    Body::Trailers if line.is_empty() => message.end(Some(message.at), out),
                    Body::ChunkSize => match chunk_size(line) {
                        Some(0) => message.body = Some(Body::Trailers),
                        Some(size) => message.body = Some(Body::Chunk(size)),
                        None => {
                            message.end(None, out);
                            return Step::Stop;
                        }
                    },
                    _ => {}
                }
                Step::Used(used)
            }
        }
    }

    fn head(&mut self, input: Input<'_>, out: &mut ParserOutput<'_>) -> Step {
        // Some clients send an empty line after a body.
        if let [b'\r', b'\n', ..] = input.data {
            return Step::Used(2);
        }
        match starts_message(input.data) {
            Some(true) => {}
            None => return Step::More,
            Some(false) => return Step::Stop,
        }
        let mut storage = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let short = |used: &httparse::Status<usize>| used.is_partial() && input.data.len() < HEAD_BYTES_MAX;
        if input.data.starts_with(b"HTTP/") {
            let mut response = httparse::Response::new(&mut storage);
            let config = {
                let mut config = httparse::ParserConfig::default();
                config.allow_spaces_after_header_name_in_responses(true);
                config.allow_obsolete_multiline_headers_in_responses(true);
                config.ignore_invalid_headers_in_responses(true);
                config
            };
            match config.parse_response(&mut response, input.data) {
                Ok(status) if short(&status) => Step::More,
                Ok(httparse::Status::Complete(used)) => self.response(&response, used, input, out),
                _ => Step::Stop,
            }
        } else {
            let mut request = httparse::Request::new(&mut storage);
            match httparse::ParserConfig::default()
                .ignore_invalid_headers_in_requests(true)
                .parse_request(&mut request, input.data)
            {
                Ok(status) if short(&status) => Step::More,
                Ok(httparse::Status::Complete(used)) => self.request(&request, used, input, out),
                _ => Step::Stop,
            }
        }
    }

    fn request(
        &mut self,
        request: &httparse::Request<'_, '_>,
        used: usize,
        input: Input<'_>,
        out: &mut ParserOutput<'_>,
    ) -> Step {
        let headers = Headers(request.headers);
        let (method, path) = (request.method.unwrap_or_default(), request.path.unwrap_or_default());
        let host = headers.text("host");
        let url = if path.starts_with('/') { format!("http://{host}{path}") } else { path.to_owned() };
        let declared = headers.text("content-type");
        let uploads = method == "PUT" || declared.starts_with("multipart/form-data");
        let credentials = credentials(&headers.text("authorization"));
        let mut event = Event::new("http.request", input.sender, input.offset, used)
            .text("method", method)
            .text("host", host.split(':').next().unwrap_or_default())
            .text("path", path)
            .text("url", &url)
            .text("user_agent", headers.text("user-agent"))
            .text("headers", headers.all())
            .word(method_word(method))
            .word(if uploads { "upload" } else { "" });
        if let Some((user, password)) = credentials {
            event = event.word("login").text("user", user).text("password", password).number("plaintext", 1);
        }
        out.emit(event);
        if self.requests.len() < REQUESTS_MAX {
            let name = file_name(path);
            self.requests.push_back(Request {
                head: method == "HEAD",
                connect: method == "CONNECT",
                url: url.clone(),
                name: name.clone(),
            });
        }
        let body = framing(&headers, false);
        self.begin((body, 0), &headers, (declared, file_name(path), url), input, used, out)
    }

    fn response(
        &mut self,
        response: &httparse::Response<'_, '_>,
        used: usize,
        input: Input<'_>,
        out: &mut ParserOutput<'_>,
    ) -> Step {
        let headers = Headers(response.headers);
        let status = response.code.unwrap_or(0);
        let asked = if (100..200).contains(&status) && status != 101 {
            self.requests.front().cloned().unwrap_or_default()
        } else {
            self.requests.pop_front().unwrap_or_default()
        };
        let declared = headers.text("content-type");
        let event = Event::new("http.response", input.sender, input.offset, used)
            .number("status", status)
            .text("content_type", &declared)
            .text("server", headers.text("server"))
            .text("headers", headers.all())
            .text("url", &asked.url);
        out.emit(event.word(if status >= 400 { "error" } else { "" }));
        if status == 101 || (asked.connect && (200..300).contains(&status)) {
            out.switch("");
            return Step::Used(used);
        }
        let bodyless = asked.head || (100..200).contains(&status) || matches!(status, 204 | 304);
        let body = if bodyless { None } else { framing(&headers, true) };
        let name = disposition_name(&headers.text("content-disposition")).unwrap_or(asked.name);
        self.begin((body, status), &headers, (declared, name, asked.url), input, used, out)
    }

    /// Begins a body, if there is one.
    fn begin(
        &mut self,
        (body, status): (Option<Body>, u16),
        headers: &Headers<'_>,
        (declared, name, url): (String, String, String),
        input: Input<'_>,
        used: usize,
        out: &mut ParserOutput<'_>,
    ) -> Step {
        let message = &mut self.messages[input.sender.index()];
        *message = Message { body, ..Message::default() };
        let Some(body) = body else { return Step::Used(used) };
        let size = if let Body::Bytes(size) = body { Some(size) } else { None };
        let (range_from, range_total) =
            if status == 206 { content_range(&headers.text("content-range")) } else { (0, None) };
        let encodings = headers.text("content-encoding").to_ascii_lowercase();
        let head = ObjectHead {
            name,
            mime_declared: declared,
            size_declared: size,
            encodings: encodings.split(',').map(|one| one.trim().to_owned()).filter(|one| !one.is_empty()).collect(),
            source: url,
            range_from,
            range_total,
            ..ObjectHead::default()
        };
        message.object = Some(out.begin(head, input.sender, input.offset + used as u64));
        Step::Used(used)
    }
}

/// The headers of a message.
struct Headers<'a>(&'a [httparse::Header<'a>]);

impl Headers<'_> {
    fn find(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
    }

    fn text(&self, name: &str) -> String {
        self.find(name).map(|value| String::from_utf8_lossy(value).trim().to_owned()).unwrap_or_default()
    }

    /// All headers, one a line.
    fn all(&self) -> String {
        let lines = self.0.iter().map(|header| format!("{}: {}", header.name, String::from_utf8_lossy(header.value)));
        lines.collect::<Vec<_>>().join("\n")
    }
}

/// How the body of a message is framed (RFC 9112, 6.3).
fn framing(headers: &Headers<'_>, response: bool) -> Option<Body> {
    if headers.text("transfer-encoding").to_ascii_lowercase().contains("chunked") {
        return Some(Body::ChunkSize);
    }
    match headers.text("content-length").split(',').next().unwrap_or_default().trim().parse::<u64>() {
        Ok(0) => None,
        Ok(bytes) => Some(Body::Bytes(bytes)),
        Err(_) if response => Some(Body::UntilEnd),
        Err(_) => None,
    }
}

/// The word of a request.
pub(crate) fn method_word(method: &str) -> &'static str {
    match method {
        "GET" | "HEAD" | "OPTIONS" | "PROPFIND" | "REPORT" | "SEARCH" => "read",
        "POST" | "PUT" | "PATCH" | "DELETE" | "MKCOL" | "MOVE" | "COPY" | "PROPPATCH" => "write",
        "CONNECT" => "control",
        _ => "",
    }
}

fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.split(|byte| matches!(byte, b';' | b' ' | b'\t')).next()?;
    if digits.is_empty() || digits.len() > 15 {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// The first byte and the total of `bytes 0-99/1000`.
pub(crate) fn content_range(text: &str) -> (u64, Option<u64>) {
    let Some((span, total)) = text.trim_start_matches("bytes").trim().split_once('/') else { return (0, None) };
    let from = span.split('-').next().and_then(|from| from.trim().parse().ok()).unwrap_or(0);
    (from, total.trim().parse().ok())
}

/// The last part of a path.
pub(crate) fn file_name(path: &str) -> String {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    path.rsplit('/').next().unwrap_or_default().to_owned()
}

/// The file name of a Content-Disposition.
pub(crate) fn disposition_name(text: &str) -> Option<String> {
    let at = text.to_ascii_lowercase().find("filename=")?;
    let value = text.get(at + "filename=".len()..)?;
    let name = match value.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next()?,
        None => value.split(';').next()?.trim(),
    };
    (!name.is_empty()).then(|| name.to_owned())
}

/// User and password of `Basic dXNlcjpwYXNz`.
pub(crate) fn credentials(text: &str) -> Option<(String, String)> {
    let (scheme, encoded) = text.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let plain = base64::engine::general_purpose::STANDARD.decode(encoded.trim()).ok()?;
    let plain = String::from_utf8_lossy(&plain).into_owned();
    let (user, password) = plain.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}
