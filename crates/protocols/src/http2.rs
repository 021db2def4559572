//! HTTP/2 without TLS (RFC 9113): requests, responses and bodies of all its streams.

use std::collections::BTreeMap;

use streams::Sender;

use crate::event::Event;
use crate::hpack::Decoder;
use crate::http::{content_range, credentials, disposition_name, file_name, method_word};
use crate::lines;
use crate::object::ObjectHead;
use crate::parser::{Input, Parser, ParserOutput, Step};
use crate::probe::{Carrier, Probe, Verdict};
use crate::protocol::{Protocol, row};

pub(crate) const ROW: Protocol = row("http2", "HTTP/2 without TLS", Carrier::Tcp, probe, |_| Box::<Http2>::default());

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADER_BYTES: usize = 9;
/// The longest frame that is taken for one. Nobody asks for longer ones.
const FRAME_BYTES_MAX: usize = 1 << 20;
/// Bytes of a block of headers, in one frame or several.
const BLOCK_BYTES_MAX: usize = 64 << 10;
/// Fields of a message that are kept.
const FIELDS_MAX: usize = 128;
/// Streams of a session at a time.
const STREAMS_MAX: usize = 256;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const PUSH_PROMISE: u8 = 5;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 0x20;

fn probe(probe: &Probe<'_>) -> Verdict {
    match lines::starts(probe.first(), PREFACE) {
        Some(true) => Verdict::Yes,
        Some(false) => Verdict::No,
        None => Verdict::More,
    }
}

/// A frame of data of which more comes.
#[derive(Clone, Copy, Debug)]
struct OpenData {
    stream: u32,
    left: usize,
    padding: usize,
    ends: bool,
}

/// A block of headers of which more frames come.
#[derive(Debug)]
struct OpenBlock {
    stream: u32,
    ends: bool,
    bytes: Vec<u8>,
}

/// One side of the session.
#[derive(Debug, Default)]
struct Side {
    begun: bool,
    decoder: Decoder,
    block: Option<OpenBlock>,
    data: Option<OpenData>,
    /// Bytes of a frame that is not looked at.
    skip: usize,
}

/// A request and its response.
#[derive(Debug, Default)]
struct Exchange {
    url: String,
    name: String,
    /// The body of each side: its number and bytes so far.
    bodies: [Option<(u64, u64)>; 2],
}

#[derive(Debug, Default)]
struct Http2 {
    sides: [Side; 2],
    exchanges: BTreeMap<u32, Exchange>,
}

impl Parser for Http2 {
    fn data(&mut self, input: Input<'_>, out: &mut ParserOutput<'_>) -> Step {
        let side = &mut self.sides[input.sender.index()];
        if !side.begun {
            if input.sender == Sender::Originator {
                match lines::starts(input.data, PREFACE) {
                    None => return Step::More,
                    Some(false) => return Step::Stop,
                    Some(true) => {
                        side.begun = true;
                        let event = Event::new("http2.preface", input.sender, input.offset, PREFACE.len());
                        out.emit(event.word("hello"));
                        return Step::Used(PREFACE.len());
                    }
                }
            }
            side.begun = true;
        }
        if side.skip > 0 {
            let used = side.skip.min(input.data.len());
            side.skip -= used;
            return Step::Used(used);
        }
        match side.data {
            Some(data) => self.body(data, input, out),
            None => self.frame(input, out).unwrap_or(Step::Stop),
        }
    }

    fn gap(&mut self, sender: Sender, len: u64, out: &mut ParserOutput<'_>) -> bool {
        let side = &mut self.sides[sender.index()];
        let within = side.data.filter(|data| len <= data.left as u64);
        match (within, usize::try_from(len)) {
            (Some(data), Ok(len)) => {
                let left = data.left - len;
                side.data = Some(OpenData { left, padding: data.padding.min(left), ..data }).filter(|_| left > 0);
                let body = self.exchanges.get_mut(&data.stream).and_then(|one| one.bodies[sender.index()].as_mut());
                if let Some((_, at)) = body {
                    *at += len as u64;
                }
                if left == 0 {
                    self.end_body(data.stream, data.ends, sender, out);
                }
                true
            }
            // The headers after it refer to what is missing.
            _ => {
                self.end(out);
                false
            }
        }
    }

    fn end(&mut self, out: &mut ParserOutput<'_>) {
        for exchange in std::mem::take(&mut self.exchanges).into_values() {
            exchange.bodies.into_iter().flatten().for_each(|(object, _)| out.finish(object, None));
        }
    }
}

impl Http2 {
    /// Reads a frame; `None` if this is none.
    fn frame(&mut self, input: Input<'_>, out: &mut ParserOutput<'_>) -> Option<Step> {
        let Some(&[a, b, c, kind, flags, stream @ ..]) = input.data.first_chunk::<HEADER_BYTES>() else {
            return Some(Step::More);
        };
        let len = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        let stream = u32::from_be_bytes(stream) & 0x7fff_ffff;
        let side = &mut self.sides[input.sender.index()];
        let is_continued = side.block.is_some();
        if len > FRAME_BYTES_MAX || is_continued != (kind == CONTINUATION) {
            return None;
        }
        match kind {
            DATA => {
                let padding = if flags & PADDED == 0 {
                    None
                } else {
                    let Some(padding) = input.data.get(HEADER_BYTES) else { return Some(Step::More) };
                    Some(usize::from(*padding))
                };
                let head = HEADER_BYTES + usize::from(padding.is_some());
                let left = len.checked_sub(head - HEADER_BYTES)?;
                let (padding, ends) = (padding.unwrap_or(0), flags & END_STREAM != 0);
                side.data = Some(OpenData { stream, left, padding: Some(padding).filter(|&len| len <= left)?, ends });
                if left == 0 {
                    side.data = None;
                    self.end_body(stream, ends, input.sender, out);
                }
                Some(Step::Used(head))
            }
            HEADERS | PUSH_PROMISE | CONTINUATION => {
                if len > BLOCK_BYTES_MAX {
                    return None;
                }
                let Some(frame) = input.data.get(HEADER_BYTES..HEADER_BYTES + len) else { return Some(Step::More) };
                let (stream, fragment) = fragment(kind, flags, stream, frame)?;
                let mut block = side.block.take().unwrap_or_else(|| OpenBlock {
                    stream,
                    ends: kind == HEADERS && flags & END_STREAM != 0,
                    bytes: Vec::new(),
                });
                block.bytes.extend_from_slice(fragment);
                if block.bytes.len() > BLOCK_BYTES_MAX {
                    return None;
                }
                if flags & END_HEADERS == 0 {
                    side.block = Some(block);
                } else {
                    self.headers(&block, HEADER_BYTES + len, input, out)?;
                }
                Some(Step::Used(HEADER_BYTES + len))
            }
            _ => {
                if kind == RST_STREAM
                    && let Some(exchange) = self.exchanges.remove(&stream)
                {
                    exchange.bodies.into_iter().flatten().for_each(|(object, _)| out.finish(object, None));
                }
                self.sides[input.sender.index()].skip = len;
                Some(Step::Used(HEADER_BYTES))
            }
        }
    }

    fn body(&mut self, data: OpenData, input: Input<'_>, out: &mut ParserOutput<'_>) -> Step {
        let used = data.left.min(input.data.len());
        let content = used.min(data.left - data.padding.min(data.left));
        let body = self.exchanges.get_mut(&data.stream).and_then(|one| one.bodies[input.sender.index()].as_mut());
        if let Some((object, at)) = body {
            out.content(*object, *at, &input.data[..content]);
            *at += content as u64;
        }
        let left = data.left - used;
        let side = &mut self.sides[input.sender.index()];
        side.data = Some(OpenData { left, padding: data.padding.min(left), ..data }).filter(|data| data.left > 0);
        if left == 0 {
            self.end_body(data.stream, data.ends, input.sender, out);
        }
        Step::Used(used)
    }

    /// Ends the body of a side, if this was its last part.
    fn end_body(&mut self, stream: u32, ends: bool, sender: Sender, out: &mut ParserOutput<'_>) {
        let body = self.exchanges.get_mut(&stream).filter(|_| ends);
        if let Some((object, size)) = body.and_then(|exchange| exchange.bodies[sender.index()].take()) {
            out.finish(object, Some(size));
        }
        if ends && sender == Sender::Responder && self.exchanges.get(&stream).is_some_and(|one| one.bodies == [None; 2])
        {
            self.exchanges.remove(&stream);
        }
    }

    /// Reads the headers of a request or response, or trailers.
    fn headers(&mut self, block: &OpenBlock, len: usize, input: Input<'_>, out: &mut ParserOutput<'_>) -> Option<()> {
        let mut fields = Fields::default();
        self.sides[input.sender.index()].decoder.block(&block.bytes, &mut |name, value| fields.add(name, value))?;
        let head = if !fields.get(":method").is_empty() {
            self.request(&fields, block.stream, len, input, out)
        } else if let Ok(status) = fields.get(":status").parse::<u16>() {
            self.response(&fields, status, block.stream, len, input, out)
        } else {
            None
        };
        let end = input.offset + len as u64;
        if let (Some(head), false) = (head, block.ends) {
            let object = out.begin(head, input.sender, end);
            if let Some(exchange) = self.exchanges.get_mut(&block.stream) {
                let before = exchange.bodies[input.sender.index()].replace((object, 0));
                before.into_iter().for_each(|(object, _)| out.finish(object, None));
            }
        } else if block.ends {
            self.end_body(block.stream, true, input.sender, out);
        }
        Some(())
    }

    fn request(
        &mut self,
        fields: &Fields,
        stream: u32,
        len: usize,
        input: Input<'_>,
        out: &mut ParserOutput<'_>,
    ) -> Option<ObjectHead> {
        let (method, path, host) = (fields.get(":method"), fields.get(":path"), fields.get(":authority"));
        let url = format!("{}://{host}{path}", fields.get(":scheme"));
        let declared = fields.get("content-type");
        let uploads = method == "PUT" || declared.starts_with("multipart/form-data");
        let mut event = Event::new("http.request", input.sender, input.offset, len)
            .text("method", method)
            .text("host", host.split(':').next().unwrap_or_default())
            .text("path", path)
            .text("url", &url)
            .text("user_agent", fields.get("user-agent"))
            .text("headers", fields.all())
            .word(method_word(method))
            .word(if uploads { "upload" } else { "" });
        if let Some((user, password)) = credentials(fields.get("authorization")) {
            event = event.word("login").text("user", user).text("password", password).number("plaintext", 1);
        }
        out.emit(event);
        self.make_room(stream, out);
        let name = file_name(path);
        let exchange = Exchange { url: url.clone(), name: name.clone(), bodies: [None; 2] };
        if let Some(before) = self.exchanges.insert(stream, exchange) {
            before.bodies.into_iter().flatten().for_each(|(object, _)| out.finish(object, None));
        }
        // What a server promises to push has no body of a request.
        (input.sender == Sender::Originator).then(|| fields.object(declared, name, url))
    }

    /// Makes room for an exchange: the oldest ends.
    fn make_room(&mut self, stream: u32, out: &mut ParserOutput<'_>) {
        if self.exchanges.len() >= STREAMS_MAX
            && !self.exchanges.contains_key(&stream)
            && let Some((_, oldest)) = self.exchanges.pop_first()
        {
            oldest.bodies.into_iter().flatten().for_each(|(object, _)| out.finish(object, None));
        }
    }

    fn response(
        &mut self,
        fields: &Fields,
        status: u16,
        stream: u32,
        len: usize,
        input: Input<'_>,
        out: &mut ParserOutput<'_>,
    ) -> Option<ObjectHead> {
        // After an upgrade, the request of the first stream was one of HTTP/1.
        self.make_room(stream, out);
        let exchange = self.exchanges.entry(stream).or_default();
        let declared = fields.get("content-type");
        let event = Event::new("http.response", input.sender, input.offset, len)
            .number("status", status)
            .text("content_type", declared)
            .text("server", fields.get("server"))
            .text("headers", fields.all())
            .text("url", &exchange.url);
        out.emit(event.word(if status >= 400 { "error" } else { "" }));
        if (100..200).contains(&status) {
            return None;
        }
        let name = disposition_name(fields.get("content-disposition")).unwrap_or_else(|| exchange.name.clone());
        let mut head = fields.object(declared, name, exchange.url.clone());
        if status == 206 {
            (head.range_from, head.range_total) = content_range(fields.get("content-range"));
        }
        Some(head)
    }
}

/// The part of a block in a frame, without padding and priority, and the stream to which it belongs.
fn fragment(kind: u8, flags: u8, stream: u32, frame: &[u8]) -> Option<(u32, &[u8])> {
    let (mut rest, mut stream) = (frame, stream);
    if kind != CONTINUATION && flags & PADDED != 0 {
        let (&padding, after) = rest.split_first()?;
        rest = after.get(..after.len().checked_sub(usize::from(padding))?)?;
    }
    if kind == HEADERS && flags & PRIORITY != 0 {
        rest = rest.get(5..)?;
    }
    if kind == PUSH_PROMISE {
        let (promised, after) = rest.split_first_chunk()?;
        (stream, rest) = (u32::from_be_bytes(*promised) & 0x7fff_ffff, after);
    }
    Some((stream, rest))
}

/// The headers of a message.
#[derive(Debug, Default)]
struct Fields(Vec<(String, String)>);

impl Fields {
    fn add(&mut self, name: &[u8], value: &[u8]) {
        if self.0.len() < FIELDS_MAX {
            let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
            self.0.push((text(name), text(value)));
        }
    }

    fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(there, _)| there == name).map_or("", |(_, value)| value.trim())
    }

    /// All headers, one a line.
    fn all(&self) -> String {
        self.0.iter().map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>().join("\n")
    }

    fn object(&self, declared: &str, name: String, url: String) -> ObjectHead {
        let encodings = self.get("content-encoding").to_ascii_lowercase();
        ObjectHead {
            // To users, it is HTTP.
            protocol: "http",
            name,
            mime_declared: declared.to_owned(),
            size_declared: self.get("content-length").parse().ok(),
            encodings: encodings.split(',').map(|one| one.trim().to_owned()).filter(|one| !one.is_empty()).collect(),
            source: url,
            ..ObjectHead::default()
        }
    }
}
