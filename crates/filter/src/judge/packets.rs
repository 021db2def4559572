//! Packets of the shared captures, put behind the headers of every link type, changed and cut.

use super::random::Random;

pub(super) struct Packet {
    pub(super) data: Vec<u8>,
    pub(super) len: u32,
}

pub(super) struct Packets {
    /// Ethernet frames.
    frames: Vec<Vec<u8>>,
}

/// Captures with many kinds of packets. All are little-endian pcap files of Ethernet, or of SLL2.
const CAPTURES: [&str; 10] = [
    "mixed-lan.pcap",
    "scans-many-flows.pcap",
    "iot-setup.pcap",
    "pppoe-over-qinq.pcap",
    "gre-within-gre.pcap",
    "ipv6-fragmented-dns.pcap",
    "vxlan-http.pcap",
    "ics-profinet-dcp.pcap",
    "nfs.pcap",
    "tftp.pcap",
];

impl Packets {
    pub(super) fn new(random: &mut Random) -> Self {
        let mut frames = made();
        let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/captures");
        for name in CAPTURES {
            match std::fs::read(directory.join(name)) {
                Ok(file) => frames.extend(read(&file)),
                Err(error) => eprintln!("SKIPPED: the packets of {name}: {error}"),
            }
        }
        for _ in 0..frames.len() / 4 {
            let mut frame = random.choose(&frames).clone();
            wrap(&mut frame, random);
            frames.push(frame);
        }
        Self { frames }
    }

    pub(super) fn frame(&self, random: &mut Random) -> &[u8] {
        &self.frames[random.below(self.frames.len())]
    }

    /// Packets of a link type. Half are unchanged.
    pub(super) fn sample(&self, link_type: u16, random: &mut Random, count: usize) -> Vec<Packet> {
        let mut packets = Vec::with_capacity(count);
        for _ in 0..count {
            let frame = random.choose(&self.frames);
            let mut data = behind(link_type, frame, random);
            let len = u32::try_from(data.len()).unwrap() + u32::try_from(random.below(3) * 40).unwrap();
            match random.below(8) {
                0 | 1 => change(&mut data, random),
                2 => data.truncate(random.below(80)),
                3 => {
                    change(&mut data, random);
                    data.truncate(random.below(80));
                }
                _ => {}
            }
            packets.push(Packet { data, len });
        }
        packets
    }
}

fn change(data: &mut [u8], random: &mut Random) {
    let near = data.len().min(80);
    for _ in 0..1 + random.below(4) {
        if near > 0 {
            let at = random.below(near);
            data[at] = match random.below(3) {
                0 => u8::try_from(random.below(256)).unwrap(),
                1 => u8::try_from(random.below(8)).unwrap(),
                _ => data[at] ^ (1 << random.below(8)),
            };
        }
    }
}

/// Puts a layer between Ethernet and its payload.
fn wrap(frame: &mut Vec<u8>, random: &mut Random) {
    if frame.len() < 34 {
        return;
    }
    let payload = frame.split_off(14);
    let small = u8::try_from(random.below(8)).unwrap();
    match random.below(7) {
        0 => frame.splice(12..12, [0x81, 0, 0, small]).for_each(drop),
        1 => frame.splice(12..12, [0x88, 0xa8, 0, small, 0x81, 0, 0, 5]).for_each(drop),
        2 => frame.splice(12.., [0x88, 0x47, 0, 0, small << 4 | 1, 64]).for_each(drop),
        3 => frame.splice(12.., [0x88, 0x47, 0, 0, small << 4, 64, 0, 0, 0x21, 64]).for_each(drop),
        4 => frame.splice(12.., [0x88, 0x64, 0x11, 0, 0, small, 0, 60, 0, 0x21]).for_each(drop),
        5 => {
            // Geneve over IPv4, with and without Ethernet inside.
            let inner = if small < 4 { [0x65, 0x58] } else { [8, 0] };
            frame
                .splice(12.., [8, 0, 0x45, 0, 0, 90, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2])
                .for_each(drop);
            frame.extend([0x17, 0xc1, 0x17, 0xc1, 0, 70, 0, 0, 0, 0]);
            frame.extend(inner);
            frame.extend([0, 0, small, 0]);
            if small < 4 {
                frame.extend([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]);
            }
        }
        _ => {
            // An LLC header, with SNAP and without.
            let kinds: [&[u8]; 4] =
                [&[0xaa, 0xaa, 3, 0, 0, 0, 8, 0], &[0x42, 0x42, 3], &[0xfe, 0xfe, 3, 0x83], &[0xff, 0xff, 0]];
            frame.splice(12.., [0, 60]).for_each(drop);
            frame.extend(*random.choose(&kinds));
        }
    }
    frame.extend(payload);
}

/// The payload of an Ethernet frame behind the header of another link type.
fn behind(link_type: u16, frame: &[u8], random: &mut Random) -> Vec<u8> {
    if frame.len() < 14 || link_type == 1 {
        return frame.to_vec();
    }
    let (head, payload) = frame.split_at(14);
    let kind = [head[12], head[13]];
    let is_v6 = kind == [0x86, 0xdd];
    let small = u8::try_from(random.below(8)).unwrap();
    let snap = [0xaa, 0xaa, 3, 0, 0, 0, kind[0], kind[1]];
    let ppp = [0, if is_v6 { 0x57 } else { 0x21 }];
    let mut header: Vec<u8> = match link_type {
        0 | 109 => {
            [if is_v6 { 10_u32 } else { 2 }.to_ne_bytes().to_vec(), vec![0; if link_type == 109 { 8 } else { 0 }]]
                .concat()
        }
        108 => if is_v6 { 10_u32 } else { 2 }.to_be_bytes().to_vec(),
        6 => [&[0, 0], &head[..12], &snap[..]].concat(),
        8 => vec![small; 16],
        9 | 50 | 166 => [&[small & 1, 3][..], &ppp].concat(),
        10 => [&[0x50], &head[..12], &snap[..]].concat(),
        11 | 19 => snap.to_vec(),
        15 | 16 => [&[0xff, 3, 0, 0, 0][..], &ppp, &[0; 17]].concat(),
        51 => [&[0x11, 0, 0, small, 0, 60][..], &ppp].concat(),
        104 | 112 => [&[0x0f, 0][..], &kind].concat(),
        105 => wlan(head, &snap, small),
        107 => vec![0x18, 0x41, 3, if is_v6 { 0x8e } else { 0xcc }],
        113 => [&[0, small, 0, 1, 0, 6][..], &head[6..12], &[0, 0], &kind].concat(),
        117 => [&[61, if is_v6 { 10 } else { 2 }, small & 1, small][..], &[b'e'; 8], &[0; 48], &[small & 3, 0, 0, 0]]
            .concat(),
        119 => [&[0, 0, 0, 0x44][..], &[0; 140], &wlan(head, &snap, small)].concat(),
        122 => [&[0, 0][..], &head[..6], &[0, 0], &head[6..12], &snap].concat(),
        123 => [&[small & 3, 0, 0, small][..], &snap].concat(),
        127 => [&[0, 0, 10, 0, 2, 0, 0, 0, small << 4, 0][..], &wlan(head, &snap, small)].concat(),
        138 => [&[0; 16][..], &kind].concat(),
        163 => [&[0x80, 0x21, 0x10, 1, 0, 0, 0, 64][..], &[0; 56], &wlan(head, &snap, small)].concat(),
        192 => [&[0, 0, 8, 0, 105, 0, 0, 0][..], &wlan(head, &snap, small)].concat(),
        226 => [&[2, if is_v6 { 26 } else { 2 }, 0, small & 3][..], &[0; 20]].concat(),
        240 => [&[0; 4], head].concat(),
        241 => [&[0; 12], head].concat(),
        276 => [&kind[..], &[0, 0, 0, 0, 0, small, 0, 1, small, 6], &head[6..12], &[0, 0]].concat(),
        12 | 228 | 229 => Vec::new(),
        _ => vec![small; random.below(24)],
    };
    header.extend(payload);
    header
}

/// An 802.11 header: mostly of data, in all directions, with and without quality of service.
fn wlan(head: &[u8], snap: &[u8], small: u8) -> Vec<u8> {
    let kind = [0x08, 0x88, 0x80, 0xd4, 0x08, 0x88, 0x48, 0x08][usize::from(small)];
    let mut header = vec![kind, small & 3, 0, 0];
    for addresses in [&head[..6], &head[6..12], &head[..6]] {
        header.extend(addresses);
    }
    header.extend([0, 0]);
    if kind & 0x80 != 0 && kind & 8 != 0 {
        header.extend([0, 0]);
    }
    header.extend(snap);
    header
}

/// The packets of a classic little-endian pcap file, at most 400 of them from all over it.
fn read(file: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let mut rest = &file[24..];
    while rest.len() > 16 {
        let len = usize::try_from(u32::from_le_bytes(rest[8..12].try_into().unwrap())).unwrap();
        if let Some(packet) = rest.get(16..16 + len) {
            all.push(packet[..len.min(400)].to_vec());
        }
        rest = rest.get(16 + len..).unwrap_or_default();
    }
    let step = all.len() / 400 + 1;
    all.into_iter().step_by(step).collect()
}

/// Frames that captures seldom have.
fn made() -> Vec<Vec<u8>> {
    let ethernet =
        |kind: [u8; 2], payload: &[u8]| [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2], &kind[..], payload, &[7; 40]].concat();
    let v4 = |protocol: u8, transport: &[u8]| {
        ethernet(
            [8, 0],
            &[&[0x45, 0, 0, 60, 0, 1, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2], transport].concat(),
        )
    };
    let v6 = |next: u8, transport: &[u8]| {
        let address = |last| [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
        let header = [&[0x60, 0, 0, 0, 0, 20, next, 64][..], &address(1), &address(2)].concat();
        ethernet([0x86, 0xdd], &[&header[..], transport].concat())
    };
    let mut frames = Vec::new();
    for protocol in [1, 2, 6, 9, 17, 50, 51, 58, 103, 112, 132] {
        frames.push(v4(protocol, &[0, 53, 0, 80, 0, 1, 2, 3]));
        frames.push(v6(protocol, &[0, 53, 0, 80, 0, 1, 2, 3]));
        frames.push(v6(44, &[protocol, 0, 0, 1, 0, 0, 0, 1, 0, 53, 0, 80]));
    }
    for kind in [[8, 6], [0x80, 0x35], [0x60, 3], [0x80, 0x9b], [0x80, 0xf3], [0x81, 0x37], [0x88, 0x63], [0x60, 4]] {
        frames.push(ethernet(
            kind,
            &[0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2],
        ));
    }
    frames.push([&[0xff; 6][..], &[2, 0, 0, 0, 0, 2, 8, 0, 0x46], &[9; 60]].concat());
    frames
}
