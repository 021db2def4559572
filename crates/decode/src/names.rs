//! Extracts the requested name from the first bytes that a client sends: TLS, HTTP, DNS.
//!
//! The input is untrusted. No function panics, indexes or recurses, and each reads its input once. Names are returned
//! as printable ASCII, so that they cannot contain control sequences for terminals.

/// The result of parsing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed<T> {
    /// The name.
    Name(T),
    /// The name may be in the bytes that follow.
    More,
    /// The bytes contain no name.
    Nothing,
}

/// The maximum length of a name in bytes, as in DNS. Longer names are truncated.
const NAME_BYTES_MAX: usize = 255;

/// A DNS question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The requested name, without the final dot.
    pub name: String,
    /// The record type: `A`, `TXT`, `TYPE4711`.
    pub kind: String,
}

/// Reads bytes in order; `None` at the end.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<usize> {
        self.take(1)?.first().map(|&byte| usize::from(byte))
    }

    fn u16(&mut self) -> Option<usize> {
        self.take(2)?.try_into().ok().map(|bytes| usize::from(u16::from_be_bytes(bytes)))
    }
}

const HANDSHAKE: usize = 22;
const CLIENT_HELLO: usize = 1;
const SERVER_NAME: usize = 0;
/// The maximum size of a TLS record in bytes (RFC 8446, 5.1).
const RECORD_BYTES_MAX: usize = 1 << 14;

/// Extracts the server name from a TLS Client Hello (RFC 6066). The hello may span several records and be truncated.
/// The name is returned as soon as it is complete. With Encrypted Client Hello, it is the public name of the outer
/// hello.
pub fn server_name(stream: &[u8]) -> Parsed<String> {
    let mut records = Reader(stream);
    let mut hello = Vec::new();
    loop {
        let here = records.0.len();
        let Some((kind, version, bytes)) = record(&mut records) else {
            // The record header is incomplete or absent. If its first byte is present, it must be that of a handshake
            // record.
            let begins = here == 0 || stream.get(stream.len() - here) == Some(&22);
            return if !begins {
                Parsed::Nothing
            } else if hello.is_empty() {
                Parsed::More
            } else {
                client_hello(&hello).unwrap_or(Parsed::More)
            };
        };
        if kind != HANDSHAKE || version >> 8 != 3 || bytes > RECORD_BYTES_MAX {
            return Parsed::Nothing;
        }
        let there = records.take(bytes.min(records.0.len())).unwrap_or_default();
        hello.extend_from_slice(there);
        if there.len() < bytes || records.0.is_empty() {
            return client_hello(&hello).unwrap_or(Parsed::More);
        }
    }
}

fn record(reader: &mut Reader<'_>) -> Option<(usize, usize, usize)> {
    Some((reader.u8()?, reader.u16()?, reader.u16()?))
}

/// Parses a handshake message. Returns `None` if the name may follow after the end of `message`.
fn client_hello(message: &[u8]) -> Option<Parsed<String>> {
    let mut reader = Reader(message);
    if reader.u8()? != CLIENT_HELLO {
        return Some(Parsed::Nothing);
    }
    let bytes = reader.u8()? << 16 | reader.u16()?;
    let mut body = Reader(reader.0.get(..bytes).unwrap_or(reader.0));
    let whole = reader.0.len() >= bytes;
    let parsed = extensions(&mut body);
    if whole { Some(parsed.unwrap_or(Parsed::Nothing)) } else { parsed }
}

fn extensions(body: &mut Reader<'_>) -> Option<Parsed<String>> {
    // Version and random, session id, cipher suites, compression methods.
    body.take(2 + 32)?;
    let session_id = body.u8()?;
    body.take(session_id)?;
    let cipher_suites = body.u16()?;
    body.take(cipher_suites)?;
    let compression = body.u8()?;
    body.take(compression)?;
    let mut left = body.u16()?;
    while left > 0 {
        let (kind, bytes) = (body.u16()?, body.u16()?);
        left = left.saturating_sub(4 + bytes);
        if kind != SERVER_NAME {
            body.take(bytes)?;
            continue;
        }
        // A list with one entry of type host_name.
        let mut list = Reader(body.take(bytes)?);
        let entry = (|| {
            let _ = list.u16()?;
            let host_name = list.u8()? == 0;
            let bytes = list.u16()?;
            list.take(bytes).filter(|name| host_name && !name.is_empty())
        })();
        return Some(entry.map_or(Parsed::Nothing, |name| Parsed::Name(printable(name))));
    }
    Some(Parsed::Nothing)
}

const METHODS: [&[u8]; 11] = [
    b"GET ",
    b"POST ",
    b"HEAD ",
    b"PUT ",
    b"DELETE ",
    b"OPTIONS ",
    b"CONNECT ",
    b"PATCH ",
    b"TRACE ",
    b"PROPFIND ",
    b"M-SEARCH ",
];

/// Returns whether the bytes start with the method of an HTTP/1 request, or with a prefix of one if they are shorter.
pub(crate) fn begins_with_method(stream: &[u8]) -> bool {
    METHODS.iter().any(|method| stream.iter().zip(*method).all(|(a, b)| a == b))
}

/// Extracts the `Host` field of an HTTP/1 request, as it was sent.
pub fn http_host(stream: &[u8]) -> Parsed<String> {
    if !begins_with_method(stream) {
        return Parsed::Nothing;
    }
    // Ignore the last line while it is incomplete.
    let mut lines = stream.split_inclusive(|&byte| byte == b'\n').filter(|line| line.ends_with(b"\n"));
    let _request_line = lines.next();
    for line in lines {
        let line = line.trim_ascii();
        if line.is_empty() {
            return Parsed::Nothing;
        }
        if let Some((field, value)) = line.split_at_checked(5)
            && field.eq_ignore_ascii_case(b"host:")
        {
            let host = value.trim_ascii();
            return if host.is_empty() { Parsed::Nothing } else { Parsed::Name(printable(host)) };
        }
    }
    Parsed::More
}

/// Extracts the first question of a DNS query or response, also of mDNS and LLMNR.
pub fn dns_question(message: &[u8]) -> Parsed<Question> {
    question(message).map_or(Parsed::Nothing, Parsed::Name)
}

/// Like [`dns_question`], for DNS over TCP, where a length precedes the message.
pub fn dns_question_in_stream(stream: &[u8]) -> Parsed<Question> {
    let mut reader = Reader(stream);
    let Some(bytes) = reader.u16() else { return Parsed::More };
    match (question(reader.0), reader.0.len() < bytes) {
        (Some(question), _) => Parsed::Name(question),
        (None, true) => Parsed::More,
        (None, false) => Parsed::Nothing,
    }
}

fn question(message: &[u8]) -> Option<Question> {
    let mut reader = Reader(message);
    reader.take(2)?;
    let flags = reader.u16()?;
    let (questions, _answers) = (reader.u16()?, reader.take(6)?);
    // Accept standard queries and their responses, with the reserved bit zero.
    if flags & 0x7840 != 0 || questions == 0 || questions > 16 {
        return None;
    }
    let mut name = String::new();
    let mut bytes = 0;
    loop {
        let len = reader.u8()?;
        bytes += 1 + len;
        // A compression pointer in the first name is invalid, because no name precedes it.
        if len > 63 || bytes > NAME_BYTES_MAX {
            return None;
        }
        if len == 0 {
            break;
        }
        if !name.is_empty() {
            name.push('.');
        }
        for &byte in reader.take(len)? {
            match byte {
                b'.' | b'\\' => name.extend(['\\', char::from(byte)]),
                _ => push_printable(&mut name, byte),
            }
        }
    }
    if name.is_empty() {
        name.push('.');
    }
    let kind = type_name(reader.u16()?);
    Some(Question { name, kind })
}

/// Returns the name of a DNS record type, or `TYPE4711` (RFC 3597).
pub(crate) fn type_name(number: usize) -> String {
    let known = match number {
        1 => "A",
        2 => "NS",
        5 => "CNAME",
        6 => "SOA",
        10 => "NULL",
        12 => "PTR",
        15 => "MX",
        16 => "TXT",
        28 => "AAAA",
        33 => "SRV",
        35 => "NAPTR",
        43 => "DS",
        48 => "DNSKEY",
        64 => "SVCB",
        65 => "HTTPS",
        251 => "IXFR",
        252 => "AXFR",
        255 => "ANY",
        number => return format!("TYPE{number}"),
    };
    known.to_owned()
}

/// Returns bytes as printable text. Bytes that are not printable ASCII become `\ddd`, as in DNS master files.
fn printable(bytes: &[u8]) -> String {
    let mut text = String::new();
    for &byte in bytes.iter().take(NAME_BYTES_MAX) {
        if byte == b'\\' { text.push_str("\\\\") } else { push_printable(&mut text, byte) }
    }
    if bytes.len() > NAME_BYTES_MAX {
        text.push('…');
    }
    text
}

pub(crate) fn push_printable(text: &mut String, byte: u8) {
    if byte.is_ascii_graphic() { text.push(char::from(byte)) } else { text.push_str(&format!("\\{byte:03}")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn u16s(n: usize) -> [u8; 2] {
        u16::try_from(n).unwrap().to_be_bytes()
    }

    /// Builds a Client Hello in one record, with the name after an extension of `padding` bytes.
    pub(crate) fn hello(name: &[u8], padding: usize) -> Vec<u8> {
        let mut list = vec![0];
        list.extend(u16s(name.len()));
        list.extend(name);
        let mut extensions = [&[0, 21][..], &u16s(padding), &vec![0; padding]].concat();
        extensions.extend([&[0, 0][..], &u16s(list.len() + 2), &u16s(list.len()), &list].concat());
        let mut body = [&[3, 3][..], &[7; 32], &[2, 9, 9], &[0, 4, 19, 1, 19, 2], &[1, 0]].concat();
        body.extend(u16s(extensions.len()));
        body.extend(extensions);
        let mut message = vec![1, 0];
        message.extend(u16s(body.len()));
        message.extend(body);
        [&[22, 3, 1][..], &u16s(message.len()), &message].concat()
    }

    pub(crate) fn query(labels: &[&[u8]], kind: u8) -> Vec<u8> {
        let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in labels {
            message.push(u8::try_from(label.len()).unwrap());
            message.extend_from_slice(label);
        }
        message.extend([0, 0, kind, 0, 1]);
        message
    }

    #[test]
    fn a_client_hello_says_whom_it_wants() {
        let name = || Parsed::Name("www.example.com".to_owned());
        let whole = hello(b"www.example.com", 1200);
        assert_eq!(server_name(&whole), name());
        for cut in [1, 4, 5, 6, 40, 600, whole.len() - 1] {
            assert_eq!(server_name(&whole[..cut]), Parsed::More, "{cut}");
        }
        // The name is split over two records.
        let (head, tail) = whole[5..].split_at(whole.len() - 10);
        let records = [&[22, 3, 1][..], &u16s(head.len()), head, &[22, 3, 1], &u16s(tail.len()), tail].concat();
        assert_eq!(server_name(&records), name());
        for (stream, why) in [
            (&b"SSH-2.0-OpenSSH_9"[..], "not TLS"),
            (&[22, 3, 1, 0, 4, 2, 0, 0, 0], "a Server Hello"),
            (&[22, 3, 1, 255, 255, 1], "a record that is too long"),
            (&[22, 2, 0, 0, 4, 1, 0, 0, 0], "a version that never was"),
            (&hello(b"", 0), "an empty name"),
        ] {
            assert_eq!(server_name(stream), Parsed::Nothing, "{why}");
        }
        assert_eq!(server_name(&hello("ä\x1b[2J".as_bytes(), 0)), Parsed::Name(r"\195\164\027[2J".to_owned()));
        let Parsed::Name(long) = server_name(&hello(&[b'a'; 4000], 0)) else { panic!() };
        assert_eq!(long.chars().count(), 256);
    }

    #[test]
    fn a_request_says_whom_it_wants() {
        let name = |name: &str| Parsed::Name(name.to_owned());
        for (stream, parsed) in [
            (&b"GET / HTTP/1.1\r\nAccept: */*\r\nhOsT:  example.com:8080 \r\n\r\n"[..], name("example.com:8080")),
            (b"GET / HTTP/1.1\nHost: example.com\n", name("example.com")),
            (b"M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\n", name("239.255.255.250:1900")),
            (b"GET / HTTP/1.1\r\nHost: exam", Parsed::More),
            (b"PO", Parsed::More),
            (b"", Parsed::More),
            (b"GET / HTTP/1.0\r\n\r\nHost: body.example", Parsed::Nothing),
            (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", Parsed::Nothing),
            (b"GETTING / HTTP/1.1\r\nHost: x\r\n", Parsed::Nothing),
            (b"GET / HTTP/1.1\r\nHost: \x1b]0;=x\r\n", name(r"\027]0;=x")),
        ] {
            assert_eq!(http_host(stream), parsed, "{:?}", String::from_utf8_lossy(stream));
        }
    }

    #[test]
    fn a_question_is_read() {
        let asked = |name: &str, kind: &str| Parsed::Name(Question { name: name.to_owned(), kind: kind.to_owned() });
        let example = query(&[b"www", b"example", b"com"], 28);
        assert_eq!(dns_question(&example), asked("www.example.com", "AAAA"));
        assert_eq!(dns_question(&query(&[], 2)), asked(".", "NS"));
        assert_eq!(dns_question(&query(&[b"a.b\\c", b"\x07\xff"], 200)), asked(r"a\.b\\c.\007\255", "TYPE200"));
        for cut in 0..example.len() - 2 {
            assert_eq!(dns_question(&example[..cut]), Parsed::Nothing, "{cut}");
        }
        let mut pointer = example.clone();
        pointer[12] = 0xc0;
        assert_eq!(dns_question(&pointer), Parsed::Nothing);
        let mut long = query(&[&[b'a'; 63][..]; 3], 1);
        assert!(matches!(dns_question(&long), Parsed::Name(_)));
        long = query(&[&[b'a'; 63][..]; 4], 1);
        assert_eq!(dns_question(&long), Parsed::Nothing);
        let stream = [&u16s(example.len())[..], &example].concat();
        assert_eq!(dns_question_in_stream(&stream), asked("www.example.com", "AAAA"));
        assert_eq!(dns_question_in_stream(&stream[..20]), Parsed::More);
        assert_eq!(dns_question_in_stream(b"\0\x04abcdefghijkl"), Parsed::Nothing);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_and_come_out_printable(
            bytes in prop::collection::vec(any::<u8>(), 0..600), at in 0usize..1500, byte: u8,
        ) {
            let mut near = hello(b"www.example.com", 1200);
            let end = near.len();
            near[at % end] = byte;
            let cut = near[..end.min(at + 40)].to_vec();
            let mixed = [&cut[..], &bytes].concat();
            for input in [&bytes, &near, &cut, &mixed] {
                for parsed in [server_name(input), http_host(input)] {
                    if let Parsed::Name(name) = parsed {
                        prop_assert!(name.chars().all(|c| c.is_ascii_graphic() || c == '…'));
                        prop_assert!(name.len() <= 4 * NAME_BYTES_MAX + 3);
                    }
                }
                for parsed in [dns_question(input), dns_question_in_stream(input)] {
                    if let Parsed::Name(question) = parsed {
                        prop_assert!(question.name.bytes().all(|c| c.is_ascii_graphic()));
                    }
                }
            }
        }
    }
}
