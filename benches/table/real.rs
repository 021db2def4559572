//! A large capture made of real ones: repeated with other addresses and later times.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use retrocap::formats::reader::FileSource;
use retrocap::packet::LinkType;
use retrocap::source::{Batch, Source as _};

/// First second of the capture.
const START_S: u64 = 1_795_341_600;
/// Nanoseconds between two packets, which are spread over the whole time: a minute has 3,000 packets.
const STEP_NS: u64 = 20_000_000;

/// The packets of the real captures with Ethernet, mixed.
pub(crate) struct RealPackets(Vec<Vec<u8>>);

impl RealPackets {
    /// Reads them; `None` where the captures are not there.
    pub(crate) fn read() -> Option<Self> {
        let folder = std::env::var_os("RETROCAP_CAPTURES").map_or_else(|| "../shared/captures".into(), PathBuf::from);
        let mut files: Vec<PathBuf> = [folder.clone(), PathBuf::from("../..").join(folder)]
            .iter()
            .find_map(|folder| std::fs::read_dir(folder).ok())?
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|end| end == "pcap" || end == "pcapng"))
            .collect();
        files.sort();
        let mut packets = Vec::new();
        for file in files {
            let Ok(mut source) = FileSource::open(&file, Arc::default()) else { continue };
            let mut each = |packet: &retrocap::packet::Packet<'_>| {
                if packet.link_type == LinkType::ETHERNET {
                    packets.push(packet.data.to_vec());
                }
            };
            while !matches!(source.batch(&mut each), Ok(Batch::End) | Err(_)) {}
        }
        (!packets.is_empty()).then_some(Self(packets))
    }

    /// Writes a classic capture of about so many bytes. Returns its length, and the seconds that it spans.
    pub(crate) fn write(&self, path: &Path, bytes: u64) -> std::io::Result<(u64, u64)> {
        let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
        for field in [0xa1b2_3c4d_u32, 0x0004_0002, 0, 0, 262_144, 1] {
            out.write_all(&field.to_le_bytes())?;
        }
        let (mut written, mut number, mut round) = (24u64, 0u64, 0u32);
        let mut frame = Vec::new();
        while written < bytes {
            for packet in &self.0 {
                frame.clear();
                frame.extend_from_slice(packet);
                readdress(&mut frame, round);
                let nanos = number * STEP_NS;
                let seconds = u32::try_from(START_S + nanos / 1_000_000_000).unwrap_or(u32::MAX);
                let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
                let fraction = u32::try_from(nanos % 1_000_000_000).unwrap_or(0);
                for field in [seconds, fraction, length, length] {
                    out.write_all(&field.to_le_bytes())?;
                }
                out.write_all(&frame)?;
                written += 16 + u64::from(length);
                number += 1;
                if written >= bytes {
                    break;
                }
            }
            round += 1;
        }
        out.flush()?;
        Ok((written, number * STEP_NS / 1_000_000_000))
    }
}

/// Gives the hosts of an IPv4 packet other addresses in each round.
fn readdress(frame: &mut [u8], round: u32) {
    if frame.len() < 34 || frame[12..14] != [8, 0] || round == 0 {
        return;
    }
    for at in [26, 30] {
        let address = u32::from_be_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]]);
        let other = address.wrapping_add(round.wrapping_mul(0x0001_0001));
        frame[at..at + 4].copy_from_slice(&other.to_be_bytes());
    }
}

/// The first address of a capture that a spool was made of, and the time of its packet in seconds.
pub(crate) const FIRST_SECOND: u64 = START_S;
