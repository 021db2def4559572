//! The fingerprints of a connection of SSH, on the page and in the API.

use etherparse::PacketBuilder;

use super::Opened;
use crate::generate;
use crate::recorder::running::have;

/// `md5sum` of "curve25519-sha256;aes128-ctr;hmac-sha2-256;none".
const CLIENT: &str = "e97d07603350d1111ec2b64bf25413c9";
/// `md5sum` of "curve25519-sha256;aes256-ctr;hmac-sha2-512;zlib".
const SERVER: &str = "13475e66a348152c5153e178e028706a";

/// A KEXINIT (RFC 4253, section 7.1) whose algorithms differ by direction.
fn offer() -> Vec<u8> {
    let mut message = vec![20];
    message.extend([7; 16]);
    for names in [
        "curve25519-sha256",
        "ssh-ed25519",
        "aes128-ctr",
        "aes256-ctr",
        "hmac-sha2-256",
        "hmac-sha2-512",
        "none",
        "zlib",
        "",
        "",
    ] {
        message.extend(u32::try_from(names.len()).unwrap().to_be_bytes());
        message.extend(names.as_bytes());
    }
    message.extend([0; 5]);
    let padding = 4 + (8 - (message.len() + 9) % 8) % 8;
    let length = u32::try_from(1 + message.len() + padding).unwrap();
    [&length.to_be_bytes()[..], &[u8::try_from(padding).unwrap()], &message, &vec![0; padding]].concat()
}

/// A capture file of one connection, without its end.
fn capture() -> Vec<u8> {
    let offer = offer();
    let mut file = generate::header();
    let mut next = [1000u32, 9000];
    let said: [(usize, &[u8]); 6] =
        [(0, b""), (1, b""), (0, b"SSH-2.0-client\r\n"), (1, b"SSH-2.0-server\r\n"), (0, &offer), (1, &offer)];
    for (number, (from, payload)) in said.into_iter().enumerate() {
        let ends = [([10, 0, 0, 1], 50_000), ([10, 0, 0, 2], 22)];
        let ((source, source_port), (target, target_port)) = (ends[from], ends[1 - from]);
        let packet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]).ipv4(source, target, 64);
        let packet = packet.tcp(source_port, target_port, next[from], 64_000);
        let packet = if number < 2 { packet.syn() } else { packet };
        let packet = if number > 0 { packet.ack(next[1 - from]) } else { packet };
        let mut frame = Vec::new();
        packet.write(&mut frame, payload).unwrap();
        next[from] += u32::try_from(payload.len()).unwrap() + u32::from(number < 2);
        let length = u32::try_from(frame.len()).unwrap();
        for field in [1_700_000_000, u32::try_from(number).unwrap() * 1_000_000, length, length] {
            file.extend(field.to_le_bytes());
        }
        file.extend(frame);
    }
    file
}

#[test]
fn hassh_of_both_sides_is_shown() {
    const TEST: &str = "hassh_of_both_sides_is_shown";
    if !have(TEST, &["curl"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ssh.pcap");
    std::fs::write(&path, capture()).unwrap();
    let page = Opened::of(&path, &[], 3600);
    let messages = page.recorder.ask(&["get", "--messages", "--json"]).stdout;
    assert!(messages.contains(CLIENT) && messages.contains(SERVER), "{messages}");
    super::browser::passes(TEST, "ssh.mjs", &page.recorder);
}
