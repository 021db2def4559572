//! Handshake messages of TLS: hello and certificate, and the fingerprints JA3, JA3S and JA4 of a hello.
//!
//! Sources: RFC 8446 and RFC 5246 for the messages; the published descriptions of JA3 (Salesforce, BSD-3) and of the
//! client fingerprint JA4 (FoxIO, BSD-3).

use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::cursor::Cursor;
use crate::event::Event;
use crate::fingerprint::{is_grease, joined, md5, sha256_short};
use crate::parser::{Input, ParserOutput};

/// Maximum number of bytes of handshake messages that wait for the rest.
const WAITING_BYTES_MAX: usize = 64 << 10;
/// Maximum number of extensions and of cipher suites read from a hello.
const LIST_MAX: usize = 1024;
const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
const CERTIFICATE: u8 = 11;

/// The parameters that both sides agreed on.
#[derive(Debug, Default)]
pub(crate) struct Negotiated {
    cipher: u16,
    version: u16,
    server_name: bool,
}

impl Negotiated {
    /// Minimum number of bytes that encryption adds to a record.
    pub(crate) fn overhead_bytes(&self) -> usize {
        match self.cipher {
            // AES-GCM and AES-CCM up to 1.2: nonce and tag.
            0x009c..=0x00a7 | 0xc02b..=0xc032 | 0xc09c..=0xc0af => 8 + 16,
            // TLS 1.3: type and tag. ChaCha20-Poly1305: tag.
            0x1301..=0x1305 => 1 + 16,
            0xcca8..=0xccae => 16,
            // RC4 with MD5 or SHA-1: a MAC of at least 16 bytes.
            0x0004 | 0x0005 | 0xc007 | 0xc011 => 16,
            // CBC: a SHA-1 MAC, and since TLS 1.1 an initialization vector. Padding is not counted.
            _ if self.version >= 0x0302 => 16 + 20,
            _ => 16,
        }
    }
}

/// The handshake messages of one sender.
#[derive(Debug, Default)]
pub(crate) struct Handshake {
    waiting: Vec<u8>,
    ended: bool,
}

impl Handshake {
    /// Adds the content of a record.
    pub(crate) fn record(
        &mut self,
        body: &[u8],
        input: Input<'_>,
        negotiated: &mut Negotiated,
        out: &mut ParserOutput<'_>,
    ) {
        if self.ended {
            return;
        }
        self.waiting.extend_from_slice(body);
        loop {
            let mut cursor = Cursor(&self.waiting);
            let (Some(kind), Some(len)) = (cursor.u8(), cursor.u24()) else { break };
            if len > WAITING_BYTES_MAX || self.waiting.len() > WAITING_BYTES_MAX {
                self.ended = true;
                self.waiting = Vec::new();
                return;
            }
            let Some(message) = cursor.take(len) else { break };
            let event = |name| Event::new(name, input.sender, input.offset, 5 + body.len());
            match kind {
                CLIENT_HELLO => {
                    if let Some(hello) = Hello::read(message, true) {
                        negotiated.server_name = !hello.server_name.is_empty();
                        out.emit(hello.client(event("tls.client_hello")));
                    }
                }
                SERVER_HELLO => {
                    if let Some(hello) = Hello::read(message, false) {
                        negotiated.cipher = hello.ciphers.first().copied().unwrap_or(0);
                        negotiated.version = hello.version();
                        out.emit(hello.server(event("tls.server_hello")));
                    }
                }
                CERTIFICATE => {
                    if let Some(event) = certificate(message, event("tls.certificate")) {
                        out.emit(event.number("server_name_sent", u8::from(negotiated.server_name)));
                    }
                }
                _ => {}
            }
            self.waiting.drain(..4 + len);
        }
    }
}

/// A client's or a server's hello.
#[derive(Debug, Default)]
struct Hello {
    legacy_version: u16,
    ciphers: Vec<u16>,
    extensions: Vec<u16>,
    groups: Vec<u16>,
    formats: Vec<u16>,
    signatures: Vec<u16>,
    versions: Vec<u16>,
    server_name: String,
    protocol: String,
}

impl Hello {
    fn read(message: &[u8], client: bool) -> Option<Self> {
        let mut cursor = Cursor(message);
        let mut hello = Self { legacy_version: cursor.u16()?, ..Self::default() };
        cursor.skip(32)?;
        cursor.short()?;
        if client {
            hello.ciphers = numbers(cursor.long()?);
            cursor.short()?;
        } else {
            hello.ciphers = vec![cursor.u16()?];
            cursor.u8()?;
        }
        let mut extensions = Cursor(cursor.long().unwrap_or_default());
        while let (Some(kind), Some(content)) = (extensions.u16(), extensions.long()) {
            if hello.extensions.len() < LIST_MAX {
                hello.extensions.push(kind);
            }
            let _ = hello.extension(kind, content, client);
        }
        Some(hello)
    }

    fn extension(&mut self, kind: u16, content: &[u8], client: bool) -> Option<()> {
        let mut cursor = Cursor(content);
        match kind {
            0 if client => {
                let mut list = Cursor(cursor.long()?);
                if list.u8()? == 0 {
                    self.server_name = String::from_utf8_lossy(list.long()?).into_owned();
                }
            }
            10 => self.groups = numbers(cursor.long()?),
            11 => self.formats = cursor.short()?.iter().map(|format| u16::from(*format)).collect(),
            13 => self.signatures = numbers(cursor.long()?),
            16 => self.protocol = String::from_utf8_lossy(Cursor(cursor.long()?).short()?).into_owned(),
            43 if client => self.versions = numbers(cursor.short()?),
            43 => self.versions = vec![cursor.u16()?],
            _ => {}
        }
        Some(())
    }

    fn version(&self) -> u16 {
        let offered = self.versions.iter().copied().filter(|version| !is_grease(*version)).max();
        offered.unwrap_or(self.legacy_version)
    }

    fn client(&self, event: Event) -> Event {
        let lists = [&self.ciphers, &self.extensions, &self.groups, &self.formats].map(|list| joined(list));
        let ja3 = md5(&format!("{},{}", self.legacy_version, lists.join(",")));
        event
            .text("server_name", &self.server_name)
            .text("alpn", &self.protocol)
            .text("version", version_name(self.version()))
            .text("ja3", ja3)
            .text("ja4", self.ja4())
            .word("hello")
    }

    fn server(&self, event: Event) -> Event {
        let ja3s = md5(&format!("{},{},{}", self.legacy_version, joined(&self.ciphers), joined(&self.extensions)));
        event
            .text("version", version_name(self.version()))
            .number("cipher", self.ciphers.first().copied().unwrap_or(0))
            .text("alpn", &self.protocol)
            .text("ja3s", ja3s)
    }

    /// JA4 of a client over TCP.
    fn ja4(&self) -> String {
        let version = match self.version() {
            0x0304 => "13",
            0x0303 => "12",
            0x0302 => "11",
            0x0301 => "10",
            0x0300 => "s3",
            0x0002 => "s2",
            _ => "00",
        };
        let clean = |list: &[u16]| list.iter().copied().filter(|one| !is_grease(*one)).collect::<Vec<u16>>();
        let (mut ciphers, mut extensions) = (clean(&self.ciphers), clean(&self.extensions));
        let name = if self.extensions.contains(&0) { 'd' } else { 'i' };
        let counts = format!("{:02}{:02}", ciphers.len().min(99), extensions.len().min(99));
        ciphers.sort_unstable();
        extensions.retain(|one| !matches!(one, 0 | 16));
        extensions.sort_unstable();
        let hexadecimal = |list: &[u16]| list.iter().map(|one| format!("{one:04x}")).collect::<Vec<_>>().join(",");
        let mut second = hexadecimal(&extensions);
        let signatures = clean(&self.signatures);
        if !signatures.is_empty() && !second.is_empty() {
            second += &format!("_{}", hexadecimal(&signatures));
        }
        let (first, second) = (sha256_short(&hexadecimal(&ciphers)), sha256_short(&second));
        format!("t{version}{name}{counts}{}_{first}_{second}", self.ja4_protocol())
    }

    /// The first and last character of the first protocol that the client offers.
    fn ja4_protocol(&self) -> String {
        let bytes = self.protocol.as_bytes();
        match (bytes.first(), bytes.last()) {
            (Some(first), Some(last)) if first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() => {
                format!("{}{}", char::from(*first), char::from(*last))
            }
            (Some(first), Some(last)) => format!("{:x}{:x}", first >> 4, last & 15),
            _ => "00".to_owned(),
        }
    }
}

fn numbers(list: &[u8]) -> Vec<u16> {
    list.chunks_exact(2).take(LIST_MAX).map(|two| u16::from_be_bytes([two[0], two[1]])).collect()
}

fn version_name(version: u16) -> String {
    match version {
        0x0300 => "SSLv3".to_owned(),
        0x0301 => "TLSv1.0".to_owned(),
        0x0302 => "TLSv1.1".to_owned(),
        0x0303 => "TLSv1.2".to_owned(),
        0x0304 => "TLSv1.3".to_owned(),
        other => format!("0x{other:04x}"),
    }
}

/// Reports the first certificate of a chain.
fn certificate(message: &[u8], event: Event) -> Option<Event> {
    let mut cursor = Cursor(message);
    let len = cursor.u24()?;
    let mut list = Cursor(cursor.take(len)?);
    let len = list.u24()?;
    let der = list.take(len)?;
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let (subject, issuer) = (certificate.subject().to_string(), certificate.issuer().to_string());
    let names = certificate.subject_alternative_name().ok().flatten();
    let names =
        names.map(|names| names.value.general_names.iter().take(32).map(|name| name.to_string()).collect::<Vec<_>>());
    Some(
        event
            .number("self_signed", u8::from(subject == issuer))
            .text("subject", subject)
            .text("issuer", issuer)
            .text("names", names.unwrap_or_default().join(" "))
            .text("serial", certificate.raw_serial_as_string())
            .number("not_before", certificate.validity().not_before.timestamp())
            .number("not_after", certificate.validity().not_after.timestamp())
            .number("bytes", der.len())
            .word("certificate"),
    )
}
