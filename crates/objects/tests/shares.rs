//! Files of SMB 1 and NFS 3, in conversations that are written here, message by message.

use base::packet::InterfaceId;
use base::time::Timestamp;
use decode::{Decoded, Network};
use engine::session::SessionKey;
use objects::{Collector, Object, ObjectLimits, ObjectSink};
use protocols::Protocols;
use streams::{Event, PacketRef, Run, Sender, Session, Sink as _};

#[derive(Default)]
struct All(Vec<Object>);

impl ObjectSink for All {
    fn object(&mut self, _: &Session, object: Object) {
        self.0.push(object);
    }
}

/// The objects of a session, whose messages come in pieces of `piece` bytes, or whole if they are messages of UDP.
fn objects(protocol: u8, port: u16, said: &[(Sender, Vec<u8>)], piece: usize) -> Vec<Object> {
    let decoded = Decoded {
        network: Network::Ipv4,
        protocol,
        source: 0x0a00_0001,
        destination: 0xc000_0202,
        source_port: 40_000,
        destination_port: port,
        ..Decoded::default()
    };
    let (key, originator_is) = SessionKey::new(&decoded, InterfaceId(0));
    let session = Session::new(0, key, originator_is, true, Timestamp::MIN);
    let mut protocols = Protocols::new(Collector::new(ObjectLimits::default(), All::default()));
    protocols.event(&session, Event::Begin);
    let (mut offsets, mut sequence) = ([0; 2], 0);
    for (sender, bytes) in said {
        for data in bytes.chunks(piece) {
            sequence += 1;
            let packet = PacketRef { time: Timestamp::MIN, sequence };
            let offset = offsets[sender.index()];
            protocols.event(&session, Event::Run(Run { sender: *sender, offset, data, packet }));
            offsets[sender.index()] += data.len() as u64;
        }
    }
    protocols.event(&session, Event::End);
    protocols.sink.finish();
    std::mem::take(&mut protocols.sink.objects.0)
}

fn content(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from(at * 7 % 251).unwrap()).collect()
}

/// A message of SMB 1 with one command.
fn smb1(command: u8, response: bool, id: u16, words: &[u8], bytes: &[u8]) -> Vec<u8> {
    let mut message = b"\xffSMB".to_vec();
    message.extend([command, 0, 0, 0, 0, if response { 0x88 } else { 0x08 }, 0, 0x80]);
    message.extend([0; 12]);
    message.extend([0, 0, 1, 0, 0, 0]);
    message.extend(id.to_le_bytes());
    message.push(u8::try_from(words.len() / 2).unwrap());
    message.extend(words);
    message.extend(u16::try_from(bytes.len().min(65_535)).unwrap().to_le_bytes());
    message.extend(bytes);
    let len = u32::try_from(message.len()).unwrap();
    [len.to_be_bytes().to_vec(), message].concat()
}

fn smb1_conversation(content: &[u8]) -> Vec<(Sender, Vec<u8>)> {
    use Sender::{Originator as Client, Responder as Server};
    let name: Vec<u8> = "\\docs\\plan.txt".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let none = [0xff, 0, 0, 0];
    let len = u32::try_from(content.len()).unwrap().to_le_bytes();
    let mut create = vec![0xff, 0, 0, 0, 0];
    create.extend(u16::try_from(name.len()).unwrap().to_le_bytes());
    create.resize(48, 0);
    let mut created = vec![0xff, 0, 0, 0, 0, 0x34, 0x12];
    created.resize(55, 0);
    created.extend([&len[..], &[0; 4]].concat());
    created.resize(68, 0);
    let read = [&none[..], &[0x34, 0x12, 0, 0, 0, 0, len[0], len[1], 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]].concat();
    // The content begins behind a header of 32 bytes, 25 of parameters, two of a length, and one to fill up.
    let mut data = vec![0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, len[0], len[1], 60, 0, len[2], len[3]];
    data.resize(24, 0);
    let mut write =
        vec![0xff, 0, 0, 0, 0x34, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, len[2], len[3], len[0], len[1], 64, 0];
    write.resize(28, 0);
    vec![
        (Client, smb1(0x72, false, 1, &[], b"\x02NT LM 0.12\0")),
        (Server, smb1(0x72, true, 1, &[0; 34], &[])),
        (Client, smb1(0xa2, false, 2, &create, &[&[0], &name[..]].concat())),
        (Server, smb1(0xa2, true, 2, &created, &[])),
        (Client, smb1(0x2e, false, 3, &read, &[])),
        (Server, smb1(0x2e, true, 3, &data, &[&[0], content].concat())),
        (Client, smb1(0x2f, false, 4, &write, &[&[0], content].concat())),
        (Client, smb1(0x04, false, 5, &[0x34, 0x12, 0, 0, 0, 0], &[])),
        (Server, smb1(0x04, true, 5, &[], &[])),
    ]
}

#[test]
fn files_of_smb_1_are_read_and_written() {
    for (len, piece) in [(3000, 1448), (100_000, 1448), (100_000, 100_000), (5000, 7), (1, 1448)] {
        let content = content(len);
        let objects = objects(6, 445, &smb1_conversation(&content), piece);
        assert_eq!(objects.len(), 2, "{len} {piece}");
        for object in &objects {
            assert_eq!(
                (object.protocol, object.name.as_str(), object.complete),
                ("smb1", "plan.txt", true),
                "{len} {piece}"
            );
            assert_eq!(object.content, content, "{len} {piece}");
        }
    }
}

/// A field of RPC whose length precedes it.
fn opaque(bytes: &[u8]) -> Vec<u8> {
    let mut field = u32::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
    field.extend(bytes);
    field.resize(field.len().next_multiple_of(4), 0);
    field
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

fn call(id: u32, procedure: u32, arguments: &[Vec<u8>]) -> Vec<u8> {
    let credentials = [words(&[1]), opaque(&[7; 20])].concat();
    [words(&[id, 0, 2, 100_003, 3, procedure]), credentials, words(&[0, 0]), arguments.concat()].concat()
}

fn reply(id: u32, results: &[Vec<u8>]) -> Vec<u8> {
    [words(&[id, 1, 0, 0, 0, 0]), results.concat()].concat()
}

fn nfs_conversation(content: &[u8]) -> Vec<(Sender, Vec<u8>)> {
    use Sender::{Originator as Client, Responder as Server};
    let (folder, file, other) = (opaque(&[1; 32]), opaque(&[2; 28]), opaque(&[3; 28]));
    let half = content.len() / 2;
    let (first, second) = content.split_at(half);
    let len = |part: &[u8]| u32::try_from(part.len()).unwrap();
    let attributes = words(&[&[1][..], &[0; 5], &[0, len(content)], &[0; 14]].concat());
    let write =
        |id, part: &[u8], offset: u32| call(id, 7, &[other.clone(), words(&[0, offset, len(part), 2]), opaque(part)]);
    vec![
        (Client, call(1, 3, &[folder.clone(), opaque(b"plan.txt")])),
        (Server, reply(1, &[words(&[0]), file.clone(), words(&[0, 0])])),
        (Client, call(2, 6, &[file.clone(), words(&[0, 0, len(first)])])),
        (Client, call(3, 6, &[file.clone(), words(&[0, len(first), len(second)])])),
        (Server, reply(3, &[words(&[0]), attributes.clone(), words(&[len(second), 1]), opaque(second)])),
        (Server, reply(2, &[words(&[0]), attributes, words(&[len(first), 0]), opaque(first)])),
        (Client, call(4, 8, &[folder, opaque(b"new.txt"), words(&[0, 0, 0, 0, 0, 0, 0])])),
        (Server, reply(4, &[words(&[0, 1]), other.clone(), words(&[0, 0, 0])])),
        (Client, write(5, first, 0)),
        (Client, write(6, second, len(first))),
        (Client, call(7, 21, &[other, words(&[0, 0, 0])])),
        (Server, reply(7, &[words(&[0, 0, 0, 0, 0])])),
    ]
}

#[test]
fn files_of_nfs_3_are_read_and_written() {
    for (protocol, len, piece) in [(6, 60_000, 1448), (6, 60_001, 60_001), (6, 900, 5), (17, 16_001, 65_535)] {
        let content = content(len);
        let mut said = nfs_conversation(&content);
        if protocol == 6 {
            for (_, message) in &mut said {
                let marker = 0x8000_0000 | u32::try_from(message.len()).unwrap();
                message.splice(0..0, marker.to_be_bytes());
            }
        }
        let mut objects = objects(protocol, 2049, &said, piece);
        objects.sort_by(|a, b| a.name.cmp(&b.name));
        let names: Vec<&str> = objects.iter().map(|object| object.name.as_str()).collect();
        assert_eq!(names, ["new.txt", "plan.txt"], "{protocol} {len}");
        for object in &objects {
            assert_eq!((object.protocol, object.complete), ("nfs", true), "{protocol} {len} {}", object.name);
            assert_eq!(object.content, content, "{protocol} {len} {}", object.name);
        }
    }
}
