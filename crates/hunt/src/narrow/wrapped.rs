//! Tells whether a session may carry an object whose bytes are not in one piece in a stream.
//!
//! A search of objects can leave out a session without any of its literals only if each object lies in a stream as it is. That
//! is so for a session of HTTP/1 without content and transfer codings, ranges, multipart bodies and archives, which has not
//! become another protocol, and for a session of TLS or SSH, of which no object is known. Every other session is sent.

use aho_corasick::{AhoCorasick, AhoCorasickKind};

use super::edges::Edges;
use super::order::{Entry, StreamStart};

/// What stands in the stream wherever HTTP/1 wraps an object, in upper or lower case.
const MARKERS: [&[u8]; 12] = [
    b"connect ",
    b"content-encoding",
    b"transfer-encoding",
    b"content-range",
    b"multipart/",
    b"http/1.0 101",
    b"http/1.1 101",
    // Archives: zip, with parts and without; gzip; zstd; tar.
    b"pk\x03\x04",
    b"pk\x05\x06",
    b"\x1f\x8b\x08",
    b"\x28\xb5\x2f\xfd",
    b"ustar",
];
/// Starts of the first requests and answers of HTTP/1. CONNECT is not among them: another protocol follows it.
const HTTP: [&[u8]; 8] = [b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"OPTIONS ", b"PATCH ", b"HTTP/1."];
/// Bytes of each end of a packet that are compared with parts of markers.
const EDGE_BYTES: usize = 20;

/// Looks for wrapped objects.
#[derive(Debug)]
pub(super) struct Wrapped {
    markers: Option<AhoCorasick>,
    edges: Edges,
}

impl Wrapped {
    pub(super) fn new() -> Self {
        let mut builder = AhoCorasick::builder();
        builder.ascii_case_insensitive(true).kind(Some(AhoCorasickKind::DFA));
        // Markers that do not compile leave no session out.
        Self { markers: builder.build(MARKERS).ok(), edges: Edges::new(&MARKERS.map(<[u8]>::to_vec)) }
    }

    /// Whether a packet of a stream shows that its session may carry a wrapped object.
    pub(super) fn may_be_in_stream(&self, payload: &[u8], side: usize, start: StreamStart, entry: &mut Entry) -> bool {
        match start {
            StreamStart::Uncertain => return true,
            StreamStart::Here if is_sealed(payload) => entry.set_sealed(side),
            StreamStart::Here if !HTTP.iter().any(|start| payload.starts_with(start)) => return true,
            _ => {}
        }
        if entry.is_sealed() || payload.is_empty() {
            return false;
        }
        self.markers.as_ref().is_none_or(|markers| markers.is_match(payload)) || self.edges.may_cut(&folded(payload))
    }

    /// Whether a packet that is no part of a stream may carry a block of TFTP, or a call of NFS.
    pub(super) fn may_be_in_message(payload: &[u8]) -> bool {
        const NFS: [u8; 4] = 100_003_u32.to_be_bytes();
        matches!(payload, [0, 1..=6, ..]) || memchr::memmem::find(payload, &NFS).is_some()
    }
}

/// Whether a stream begins as TLS or SSH does.
fn is_sealed(payload: &[u8]) -> bool {
    matches!(payload, [0x16, 3, 0..=4, ..]) || payload.starts_with(b"SSH-")
}

/// Both ends of a payload in lower case, or all of a short one.
fn folded(payload: &[u8]) -> Vec<u8> {
    let mut ends = match payload.len() > 2 * EDGE_BYTES {
        true => [&payload[..EDGE_BYTES], &payload[payload.len() - EDGE_BYTES..]].concat(),
        false => payload.to_vec(),
    };
    ends.make_ascii_lowercase();
    ends
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_candidate(pieces: &[&[u8]]) -> bool {
        let (wrapped, mut entry) = (Wrapped::new(), Entry::default());
        pieces.iter().enumerate().any(|(number, piece)| {
            let start = if number == 0 { StreamStart::Here } else { StreamStart::Later };
            wrapped.may_be_in_stream(piece, 0, start, &mut entry)
        })
    }

    #[test]
    fn plain_http_is_left_out_and_what_wraps_a_body_is_not() {
        assert!(!is_candidate(&[b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", b"hello"]));
        assert!(!is_candidate(&[b"GET /a HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n"]));
        for header in
            ["cOnTent-EncOding: x", "Transfer-Encoding: chunked", "CONTENT-RANGE: x", "Content-Type: Multipart/x"]
        {
            let whole = format!("HTTP/1.1 200 OK\r\n{header}\r\n\r\n");
            assert!(is_candidate(&[whole.as_bytes()]), "{header}");
            // However it is cut.
            for cut in 17..whole.len() - 1 {
                let (first, second) = whole.as_bytes().split_at(cut);
                assert!(is_candidate(&[first, second]), "{header} at {cut}");
            }
        }
        for content in [&b"PK\x03\x04"[..], b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"....ustar"] {
            let head = b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n";
            assert!(is_candidate(&[head, content]), "{content:02x?}");
        }
        for other in [
            &b"220 mail.example ESMTP\r\n"[..],
            b"* OK",
            b"+OK",
            b"\0\0\0\x54\xfeSMB",
            b"PRI * HTTP/2.0",
            b"",
            b"CONNECT a:1",
        ] {
            assert!(is_candidate(&[other]), "{other:?}");
        }
        let (wrapped, mut entry) = (Wrapped::new(), Entry::default());
        assert!(wrapped.may_be_in_stream(b"GET / HTTP/1.1\r\n", 0, StreamStart::Uncertain, &mut entry));
        assert!(Wrapped::may_be_in_message(b"\0\x03\0\x01data") && !Wrapped::may_be_in_message(b"\x12\x34\x01\0"));
    }

    #[test]
    fn sealed_sessions_are_not_read_where_both_sides_are_sealed() {
        let (wrapped, mut entry) = (Wrapped::new(), Entry::default());
        assert!(!wrapped.may_be_in_stream(b"\x16\x03\x01\x02\0", 0, StreamStart::Here, &mut entry));
        assert!(
            wrapped.may_be_in_stream(b"PK\x03\x04", 0, StreamStart::Later, &mut entry),
            "only one side is sealed yet"
        );
        assert!(!wrapped.may_be_in_stream(b"\x16\x03\x03\0\x7a", 1, StreamStart::Here, &mut entry));
        assert!(!wrapped.may_be_in_stream(b"PK\x03\x04", 0, StreamStart::Later, &mut entry));
    }
}
