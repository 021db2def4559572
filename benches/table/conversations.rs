//! A capture file of web traffic, in which something can be searched: requests, and answers of which one half is text and the
//! other half looks random, as compressed or encrypted content does.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use crate::traffic::{PCAP_HEADER, Random};

/// Sessions at a time.
const AT_A_TIME: usize = 64;
/// Payload of a packet.
const SEGMENT_BYTES: usize = 1448;
const FIN_ACK: u8 = 17;

/// What answers are made of.
struct Contents {
    text: Vec<u8>,
    noise: Vec<u8>,
}

impl Contents {
    fn new(random: &mut Random) -> Self {
        let mut words: Vec<Vec<u8>> = Vec::new();
        for _ in 0..5000 {
            let len = 2 + random.below(9);
            words.push((0..len).map(|_| b'a' + u8::try_from(random.below(26)).unwrap_or(0)).collect());
        }
        let (mut text, mut noise) = (Vec::new(), Vec::new());
        while text.len() < 2 << 20 {
            text.extend_from_slice(&words[random.below(5000) as usize]);
            text.push(b' ');
        }
        while noise.len() < 4 << 20 {
            noise.extend_from_slice(&random.below(1 << 31).to_le_bytes()[..3]);
        }
        Self { text, noise }
    }

    fn part(&self, random: &mut Random, len: usize) -> &[u8] {
        let of = if random.below(2) == 0 { &self.text } else { &self.noise };
        let from = random.below(u32::try_from(of.len() - len).unwrap_or(1)) as usize;
        &of[from..from + len]
    }
}

/// A session that is under way.
struct Conversation {
    number: u32,
    sequences: [u32; 2],
    requests_left: u32,
    answer: Vec<u8>,
    sent: usize,
    opened: bool,
}

impl Conversation {
    fn new(number: u32, random: &mut Random) -> Self {
        let sequences = [random.below(1 << 31), random.below(1 << 31)];
        Self { number, sequences, requests_left: 1 + random.below(3), answer: Vec::new(), sent: 0, opened: false }
    }

    /// Writes the next packets; returns whether more follow.
    fn next(&mut self, random: &mut Random, contents: &Contents, out: &mut dyn FnMut(&[u8])) -> bool {
        if !self.opened {
            self.opened = true;
            self.packet(0, 2, &[], out);
            self.packet(1, 18, &[], out);
            self.packet(0, 16, &[], out);
            return true;
        }
        if self.sent < self.answer.len() {
            let end = (self.sent + SEGMENT_BYTES).min(self.answer.len());
            let part = self.answer[self.sent..end].to_vec();
            self.sent = end;
            self.packet(1, 24, &part, out);
            if random.below(2) == 0 {
                self.packet(0, 16, &[], out);
            }
            return true;
        }
        if self.requests_left == 0 {
            self.packet(0, FIN_ACK, &[], out);
            self.packet(1, FIN_ACK, &[], out);
            self.packet(0, 16, &[], out);
            return false;
        }
        self.requests_left -= 1;
        let request = format!(
            "GET /{}/{} HTTP/1.1\r\nHost: www.{}.example\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\nAccept: */*\r\n\r\n",
            self.number,
            random.below(1000),
            random.below(100_000)
        );
        self.packet(0, 24, request.as_bytes(), out);
        // Most answers are small, and a few are large.
        let rough = if random.below(200) == 0 { 260_000 } else { 1000_u32 << random.below(6) };
        let len = (rough + random.below(1000)) as usize;
        self.answer =
            format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {len}\r\n\r\n").into_bytes();
        self.answer.extend_from_slice(contents.part(random, len));
        self.sent = 0;
        true
    }

    fn packet(&mut self, from: usize, flags: u8, payload: &[u8], out: &mut dyn FnMut(&[u8])) {
        let [third, fourth] = [self.number >> 8 & 255, self.number & 255].map(|part| u8::try_from(part).unwrap_or(0));
        let server = u8::try_from(self.number % 250 + 1).unwrap_or(1);
        let port = u16::try_from(1024 + self.number % 60_000).unwrap_or(1024);
        let ends = [([10, 1, third, fourth], port), ([198, 51, 100, server], 80)];
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0];
        frame.extend(u16::try_from(40 + payload.len()).unwrap_or(u16::MAX).to_be_bytes());
        frame.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
        frame.extend([ends[from].0, ends[1 - from].0].concat());
        frame.extend([ends[from].1.to_be_bytes(), ends[1 - from].1.to_be_bytes()].concat());
        frame.extend([self.sequences[from], self.sequences[1 - from]].map(u32::to_be_bytes).concat());
        frame.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        frame.extend(payload);
        let moved = u32::try_from(payload.len()).unwrap_or(0) + u32::from(flags & 3 != 0);
        self.sequences[from] = self.sequences[from].wrapping_add(moved);
        out(&frame);
    }
}

/// Writes a capture file of about `bytes` bytes; returns the packets and the sessions in it.
pub(crate) fn write_conversations(path: &Path, bytes: u64) -> io::Result<(u64, u32)> {
    let mut out = BufWriter::with_capacity(1 << 20, std::fs::File::create(path)?);
    out.write_all(&PCAP_HEADER)?;
    let mut random = Random(7);
    let contents = Contents::new(&mut random);
    let (mut micros, mut written, mut packets, mut sessions) = (1_700_000_000_000_000_u64, 0, 0, 0);
    let mut result = Ok(());
    let mut live: Vec<Conversation> = Vec::new();
    while written < bytes && result.is_ok() {
        while live.len() < AT_A_TIME {
            live.push(Conversation::new(sessions, &mut random));
            sessions += 1;
        }
        let at = random.below(u32::try_from(AT_A_TIME).unwrap_or(1)) as usize;
        let goes_on = live[at].next(&mut random, &contents, &mut |frame| {
            micros += 2000;
            packets += 1;
            written += 16 + frame.len() as u64;
            let len = u32::try_from(frame.len()).unwrap_or(0);
            let [seconds, micros] =
                [micros / 1_000_000, micros % 1_000_000].map(|part| u32::try_from(part).unwrap_or(0));
            for field in [seconds, micros, len, len] {
                result = std::mem::replace(&mut result, Ok(())).and_then(|()| out.write_all(&field.to_le_bytes()));
            }
            result = std::mem::replace(&mut result, Ok(())).and_then(|()| out.write_all(frame));
        });
        if !goes_on {
            live.swap_remove(at);
        }
    }
    result?;
    out.flush()?;
    Ok((packets, sessions))
}
