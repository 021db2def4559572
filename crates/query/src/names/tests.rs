use super::starts::*;
use crate::session_names::Names;
use decode::Decoded;
use decode::names::Parsed;

fn tcp(source_port: u16, sequence: u32) -> Decoded {
    Decoded { protocol: TCP, source_port, destination_port: 80, tcp_sequence: sequence, ..Decoded::default() }
}

/// Parses the packets of one session, given as sender's port, sequence number and payload.
fn parsed(packets: &[(u16, u32, &[u8])]) -> Parsed<Names> {
    let mut request = Request::default();
    for (port, sequence, payload) in packets {
        let parsed = request.packet(&tcp(*port, *sequence), payload.to_vec());
        if parsed != Parsed::More {
            return parsed;
        }
    }
    Parsed::More
}

#[test]
fn a_request_over_several_packets_is_put_together() {
    let host = Parsed::Name(Names { http_host: Some("example.com".into()), ..Names::default() });
    let (a, b, c) = (&b"GET / HTTP/1.1\r\nUser-"[..], &b"Agent: x\r\nHost: exam"[..], &b"ple.com\r\n\r\n"[..]);
    let at = |n: usize| u32::MAX.wrapping_sub(5).wrapping_add(u32::try_from(n).unwrap());
    let (second, third) = (at(a.len()), at(a.len() + b.len()));
    for (order, packets) in [
        ("in order, over the end of the numbers", vec![(9, at(0), a), (9, second, b), (9, third, c)]),
        ("the last two swapped", vec![(9, at(0), a), (9, third, c), (9, second, b)]),
        ("the first comes second", vec![(9, second, b), (9, at(0), a), (9, third, c)]),
        ("one sent twice", vec![(9, at(0), a), (9, at(0), a), (9, second, b), (9, third, c)]),
        ("an acknowledgement between", vec![(9, at(0), a), (80, 7, b""), (9, second, b), (9, third, c)]),
    ] {
        assert_eq!(parsed(&packets), host, "{order}");
    }
    assert_eq!(parsed(&[(9, at(0), a), (9, third, c)]), Parsed::More, "a gap");
    assert_eq!(parsed(&[(80, 1, b"220 mail.example ESMTP\r\n"), (9, 5, b"GET / HTTP/1.1\r\n")]), Parsed::More);
    assert_eq!(parsed(&[(9, 1, b"nothing known"), (9, 14, b" at all")]), Parsed::Nothing);
    let endless: Vec<(u16, u32, &[u8])> = (0..20).map(|i| (9, i * 4, &b"GET "[..])).collect();
    assert_eq!(parsed(&endless), Parsed::Nothing, "a request without end");
}
