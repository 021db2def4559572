//! Short conversations, and hostile ones for every protocol.

use base::packet::InterfaceId;
use base::time::Timestamp;
use decode::{Decoded, Network};
use engine::session::SessionKey;
use proptest::prelude::*;
use streams::{Cause, Gap, PacketRef, Run, Sender, Session, Sink as _};

use super::*;
use crate::probe::Carrier;
use crate::table::TABLE;

/// Writes down what is found.
#[derive(Default)]
struct Notes {
    found: Vec<String>,
    objects: Vec<(ObjectHead, Vec<u8>, Option<Option<u64>>)>,
}

impl ProtocolSink for Notes {
    fn app(&mut self, _: &Session, app: &'static str) {
        self.found.push(app.to_owned());
    }

    fn event(&mut self, _: &Session, event: &Event) {
        self.found.push(format!("{} {}", event.name, event.words.join(",")));
        assert!(!event.packets.is_empty());
    }

    fn object(&mut self, _: &Session, part: ObjectPart<'_>) {
        match part {
            ObjectPart::Begin { head, .. } => self.objects.push((head, Vec::new(), None)),
            ObjectPart::Data { id, at, bytes } => {
                let (_, content, _) = self.objects.iter_mut().find(|(head, ..)| head.id == id).unwrap();
                let at = usize::try_from(at).unwrap();
                if at + bytes.len() < 1 << 20 {
                    content.resize(content.len().max(at + bytes.len()), b'?');
                    content[at..at + bytes.len()].copy_from_slice(bytes);
                }
            }
            ObjectPart::End { id, size } => {
                self.objects.iter_mut().find(|(head, ..)| head.id == id).unwrap().2 = Some(size);
            }
        }
    }
}

fn session(protocol: u8, ports: [u16; 2], ethertype: u16) -> Session {
    let network = if protocol == 0 { Network::Link } else { Network::Ipv4 };
    let decoded = Decoded {
        network,
        protocol,
        ethertype,
        source: 0x0a00_0001,
        destination: 0x0a00_0002,
        source_port: ports[0],
        destination_port: ports[1],
        ..Decoded::default()
    };
    let (key, originator_is) = SessionKey::new(&decoded, InterfaceId(0));
    Session::new(0, key, originator_is, true, Timestamp::MIN)
}

/// A part of a conversation: who sends, and bytes or the length of a gap.
type Part<'a> = (Sender, Result<&'a [u8], u64>);

fn talk(session: &Session, parts: &[Part<'_>], piece: usize) -> Notes {
    let mut protocols = Protocols::new(Notes::default());
    let mut offsets = [0u64; 2];
    let mut sequence = 0;
    protocols.event(session, streams::Event::Begin);
    for (sender, part) in parts {
        let offset = &mut offsets[sender.index()];
        match part {
            Ok(bytes) => {
                for data in bytes.chunks(piece) {
                    sequence += 1;
                    let packet = PacketRef { time: Timestamp::MIN, sequence };
                    protocols
                        .event(session, streams::Event::Run(Run { sender: *sender, offset: *offset, data, packet }));
                    *offset += data.len() as u64;
                }
            }
            Err(len) => {
                let gap = Gap { sender: *sender, offset: *offset, len: *len, cause: Cause::Missing };
                protocols.event(session, streams::Event::Gap(gap));
                *offset += len;
            }
        }
    }
    protocols.event(session, streams::Event::End);
    protocols.sink
}

const A: Sender = Sender::Originator;
const B: Sender = Sender::Responder;

#[test]
fn a_body_is_the_same_in_pieces_of_any_size() {
    let parts: [Part<'_>; 3] = [
        (A, Ok(b"GET /a/b.txt?x=1 HTTP/1.1\r\nHost: example.com\r\n\r\nPUT /up HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc")),
        (B, Ok(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/plain\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n")),
        (B, Ok(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")),
    ];
    for piece in [1, 2, 3, 7, 1000] {
        let notes = talk(&session(6, [1000, 8080], 0), &parts, piece);
        let mut found = notes.found.clone();
        found.sort();
        assert_eq!(
            found,
            ["http", "http.request read", "http.request write,upload", "http.response ", "http.response error"]
        );
        let mut objects: Vec<_> =
            notes.objects.iter().map(|(head, content, end)| (head.name.as_str(), content.as_slice(), *end)).collect();
        objects.sort();
        assert_eq!(objects, [("b.txt", &b"hello world"[..], Some(Some(11))), ("up", b"abc", Some(Some(3)))], "{piece}");
    }
}

#[test]
fn a_hole_in_a_body_keeps_the_rest_in_place() {
    let parts: [Part<'_>; 5] = [
        (A, Ok(b"GET / HTTP/1.0\r\n\r\n")),
        (B, Ok(b"HTTP/1.0 200 OK\r\nContent-Length: 10\r\n\r\nabc")),
        (B, Err(4)),
        (B, Ok(b"hijHTTP/1.0 500 no\r\nContent-Length: 1\r\n\r\n!")),
        (B, Err(7)),
    ];
    let notes = talk(&session(6, [1000, 80], 0), &parts, 1000);
    assert_eq!(notes.objects[0].1, b"abc????hij");
    assert_eq!(notes.objects[1].1, b"!");
}

#[test]
fn a_parser_goes_on_behind_a_gap() {
    let request = |transaction: u8| [0, transaction, 0, 0, 0, 6, 1, 3, 0, 0, 0, 1];
    let (first, second) = (request(1), request(2));
    let cut = [&second[..], &second[..5]].concat();
    let parts: [Part<'_>; 5] = [(A, Ok(&first)), (A, Ok(&cut)), (A, Err(7)), (A, Ok(&[9, 9, 9])), (A, Ok(&second))];
    let notes = talk(&session(6, [1000, 502], 0), &parts, 100);
    assert_eq!(notes.found, ["modbus", "modbus.request read", "modbus.request read", "modbus.request read"]);
}

#[test]
fn mails_and_credentials_are_found() {
    let parts: [Part<'_>; 6] = [
        (B, Ok(b"220 mail.example.com ESMTP\r\n")),
        (A, Ok(b"EHLO me\r\nAUTH PLAIN AGFubmEAc2VjcmV0\r\n")),
        (A, Ok(b"MAIL FROM:<a@example.com>\r\nDATA\r\n")),
        (A, Ok(b"Subject: x\r\n\r\n..dot\r\n.\r\n")),
        (A, Ok(b"BDAT 4\r\nabcdBDAT 2 LAST\r\nef")),
        (B, Ok(b"250 ok\r\n550 no\r\n")),
    ];
    for piece in [1, 5, 1000] {
        let notes = talk(&session(6, [1000, 25], 0), &parts, piece);
        assert!(notes.found.contains(&"smtp.login login".to_owned()), "{:?}", notes.found);
        assert_eq!(notes.objects[0].1, b"Subject: x\r\n\r\n.dot\r\n");
        assert_eq!((notes.objects[1].1.as_slice(), notes.objects[1].2), (&b"abcdef"[..], Some(Some(6))), "{piece}");
    }
}

#[test]
fn names_of_protocols_differ() {
    let mut names: Vec<_> = TABLE.iter().map(|row| row.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), TABLE.len());
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&len[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

#[test]
fn http_2_without_tls_has_requests_and_bodies_of_streams_at_a_time() {
    // POST /up of two streams, the second of which refers to the table that the first one filled.
    let first = b"\x83\x86\x44\x03/up\x41\x08a.exampl\x5f\x0atext/plain";
    let second = b"\x83\x86\xc0\xbf\xbe";
    let client = [
        &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
        &frame(4, 0, 0, b""),
        &frame(
            1,
            0x28,
            1,
            &[&b"\x02\0\0\0\0\x10"[..], &first[..10]].concat().iter().copied().chain([0, 0]).collect::<Vec<_>>(),
        ),
        &frame(9, 4, 1, &first[10..]),
        &frame(1, 4, 3, second),
        &frame(0, 0, 1, b"one "),
        &frame(0, 9, 3, b"\x03two\0\0\0"),
        &frame(0, 1, 1, b"and more"),
    ]
    .concat();
    let server =
        [&frame(4, 1, 0, b"")[..], &frame(1, 4, 1, b"\x88"), &frame(0, 1, 1, b"hello"), &frame(1, 5, 3, b"\x8d")]
            .concat();
    for piece in [1, 3, 1000] {
        let notes = talk(&session(6, [1000, 8080], 0), &[(A, Ok(&client)), (B, Ok(&server))], piece);
        let expected = [
            "http2",
            "http2.preface hello",
            "http.request write",
            "http.request write",
            "http.response ",
            "http.response error",
        ];
        assert_eq!(notes.found, expected, "{piece}");
        let mut objects: Vec<_> = notes
            .objects
            .iter()
            .map(|(head, content, end)| (head.source.as_str(), head.mime_declared.as_str(), content.as_slice(), *end))
            .collect();
        objects.sort();
        let url = "http://a.exampl/up";
        let expected = [
            (url, "", &b"hello"[..], Some(Some(5))),
            (url, "text/plain", b"one and more", Some(Some(12))),
            (url, "text/plain", b"two", Some(Some(3))),
        ];
        assert_eq!(objects, expected, "{piece}");
        assert!(notes.objects.iter().all(|(head, ..)| head.protocol == "http" && head.name == "up"));
    }
    let half = client.len() - frame(0, 1, 1, b"and more").len() - 3;
    let notes = talk(&session(6, [1000, 8080], 0), &[(A, Ok(&client[..half])), (A, Err(20)), (A, Ok(b"\0\0\0"))], 1000);
    assert!(notes.objects.iter().any(|(_, _, end)| *end == Some(None)), "a body whose end is missing is not whole");
}

/// Beginnings that make each probe say yes, to get into the parsers.
fn beginnings() -> Vec<Vec<u8>> {
    let mut smb2 = b"\0\0\x01\0\xfeSMB".to_vec();
    smb2.resize(260, 0);
    let mut smb1 = b"\0\0\x01\0\xffSMB\x32".to_vec();
    smb1.resize(260, 15);
    let mut dhcp = vec![1; 236];
    dhcp.extend([0x63, 0x82, 0x53, 0x63, 53, 1, 1, 12, 200]);
    let mut enip = vec![0x6f, 0, 40, 0];
    enip.resize(64, 0);
    [
        &b"\x16\x03\x01\x00\xf4\x01\x00\x00\xf0\x03\x03"[..],
        b"SSH-2.0-x\r\n\0\0\x02\x00\x08\x14",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x03\x01\x04\0\0\0\x01\x82\x86\x84\0\0\x08\0\0\0\0\0\x01",
        &smb2,
        &smb1,
        b"\x03\0\0\x13\x0e\xe0\0\0\0\0\0\x01\0\x08\0\x03\0\0\0",
        b"\x03\0\0\x19\x02\xf0\x80\x32\x01\0\0\0\0\0\x08\0\0\xf0",
        b"HELF\x20\0\0\0",
        b"\x10\x20\0\x04MQTT\x05\xc6",
        b"INVITE sip:a SIP/2.0\r\n",
        b"220 FTP ready\r\n",
        b"220 ESMTP\r\n",
        b"EHLO x\r\n",
        b"+OK pop\r\n",
        b"* OK imap\r\n* 1 FETCH BODY[] {100}\r\n",
        b"\x05\x64\xff\xc4\0\0\0\0\0\0\xc0\xc0\x01",
        b"\x68\x0e\0\0\0\0\x64\x01\x06\0\0\0\0\0\0\x14",
        &enip,
        b"\x81\x0a\0\x10\x01\x28\xff\xff",
        b"\xfe\xfe\x05\0\0\0\0\0\0\0\0\x20\x01\x01\0\x20",
        &dhcp,
        &[0x1b; 48],
        b"\0\x01a\0octet\0",
        b"\0\x01\0\0\0\x06\x01\x10\0\0\0\x01",
        b"\0\x20\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03www",
        b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03www\xc0\x0c",
    ]
    .iter()
    .map(|bytes| bytes.to_vec())
    .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn hostile_bytes_end_a_parser_not_the_program(
        begin in 0..beginnings().len(),
        noise in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..400), 1..6),
        change in prop::option::of((0usize..64, any::<u8>())),
        gap in prop::option::of(1u64..100_000),
        port in prop::sample::select(vec![502u16, 80, 21, 25, 53, 67, 102, 110, 123, 139, 143, 443, 445, 502, 1883, 2404, 3389, 44_818, 47_808, 5555]),
        carrier in prop::sample::select(vec![(6u8, 0u16), (17, 0), (0, 0x8892)]),
    ) {
        let mut first = beginnings().swap_remove(begin);
        if let Some((at, byte)) = change && at < first.len() {
            first[at] = byte;
        }
        let mut parts: Vec<Part<'_>> = vec![(A, Ok(&first))];
        for (number, bytes) in noise.iter().enumerate() {
            parts.push((if number % 2 == 0 { B } else { A }, Ok(bytes)));
        }
        if let Some(gap) = gap {
            parts.insert(parts.len() / 2 + 1, (A, Err(gap)));
            parts.push((B, Err(gap)));
            parts.push((A, Ok(&first)));
        }
        let session = session(carrier.0, [40_000, port], carrier.1);
        talk(&session, &parts, 100);
        prop_assert!(Carrier::of(&session) != Carrier::Other);
    }
}
