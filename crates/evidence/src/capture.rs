//! The packets of a capture file as digests.
//!
//! The packets of one session, in file order, are a *run*. The leaves of the Merkle tree are the digests of all runs,
//! in the order of their keys. A session can therefore be handed over alone, with its path, and compared with the root
//! of a file that stays closed. The order of packets of different sessions is not part of the root; the SHA-256 of the
//! file covers it.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, Hasher};
use crate::merkle::{self, Path};
use base::interface::Interfaces;
use base::packet::Packet;
use base::source::{Batch, Source as _};
use base::time::Timestamp;
use decode::Network;
use formats::reader::FileSource;

/// The packets of a file, as a manifest lists them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packets {
    /// Packets in the file.
    pub count: u64,
    /// Their captured bytes.
    pub captured_bytes: u64,
    /// The earliest time.
    pub first: Option<String>,
    /// The latest time.
    pub last: Option<String>,
    /// The number of sessions.
    pub runs: u64,
    /// The root of the Merkle tree over the runs.
    pub merkle_root: Digest,
    /// The damage, if the file could not be read to its end.
    pub damage: Option<String>,
}

/// The content of a capture file.
#[derive(Debug)]
pub struct Capture {
    /// Its packets.
    pub packets: Packets,
    /// Comments of its sections and statistics.
    pub comments: Vec<String>,
    runs: Vec<Run>,
}

/// The packets of one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Protocol and endpoints, as in `tcp 10.0.0.1:80 10.0.0.2:51234`.
    pub key: String,
    /// Packets of the session.
    pub packets: u64,
    /// The digest of their digests.
    pub digest: Digest,
}

impl Run {
    /// The leaf of the Merkle tree for this run.
    pub fn leaf(&self) -> Digest {
        merkle::leaf(&[self.key.as_bytes(), b"\0", &self.packets.to_be_bytes(), &self.digest.0].concat())
    }
}

/// Proof that a session belongs to a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionProof {
    /// The format of this document.
    pub retrocap_session_proof: u32,
    /// The name of the whole file, as in its manifest.
    pub of: String,
    /// The Merkle root of the whole file.
    pub merkle_root: Digest,
    /// The session.
    pub session: String,
    /// Its packets.
    pub packets: u64,
    /// The path from the session to the root.
    pub path: Path,
}

/// The format of [`SessionProof`].
pub const PROOF_FORMAT: u32 = 1;

/// The reason why a session cannot be proven.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// No session has this key.
    #[error("no session of the file is {0:?}; `retrocap flows -r FILE` lists them")]
    NoSession(String),
}

impl Capture {
    /// Reads a capture file. Reading stops at damage, which is part of the result.
    ///
    /// # Errors
    ///
    /// When the reader fails.
    pub fn read(reader: Box<dyn Read + Send>) -> std::io::Result<Self> {
        let mut source = FileSource::from_reader(reader, Arc::<Interfaces>::default());
        let mut counted = Counting::default();
        let damage = loop {
            match source.batch(&mut |packet| counted.add(packet)) {
                Ok(Batch::End) => break None,
                Ok(Batch::More | Batch::Idle) => {}
                Err(base::source::SourceError::Io { source, .. }) => return Err(source),
                Err(error) => break Some(error.to_string()),
            }
        };
        let refused = source.refused();
        let damage = damage.or_else(|| (refused > 0).then(|| format!("{refused} packets name no known interface")));
        let comments = std::mem::take(&mut source.annotations().comments);
        Ok(counted.finish(damage, comments))
    }

    /// The sessions, in the order of the tree.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// The proof for the session with this key in the file `of`.
    ///
    /// # Errors
    ///
    /// When there is no such session.
    pub fn prove(&self, of: &str, key: &str) -> Result<SessionProof, ProofError> {
        let place = self.runs.binary_search_by(|run| run.key.as_str().cmp(key));
        let index = place.map_err(|_| ProofError::NoSession(key.to_owned()))?;
        let leaves: Vec<_> = self.runs.iter().map(Run::leaf).collect();
        let path = Path::of(&leaves, index).ok_or_else(|| ProofError::NoSession(key.to_owned()))?;
        Ok(SessionProof {
            retrocap_session_proof: PROOF_FORMAT,
            of: of.to_owned(),
            merkle_root: self.packets.merkle_root,
            session: key.to_owned(),
            packets: self.runs[index].packets,
            path,
        })
    }
}

/// The digests of the packets of a capture, in file order, and its comments. Reading stops at damage.
///
/// # Errors
///
/// When the reader fails.
pub fn digests(reader: Box<dyn Read + Send>) -> std::io::Result<(Vec<Digest>, Vec<String>)> {
    let mut source = FileSource::from_reader(reader, Arc::<Interfaces>::default());
    let mut digests = Vec::new();
    loop {
        match source.batch(&mut |packet| digests.push(Digest::of_packet(packet))) {
            Ok(Batch::More | Batch::Idle) => {}
            Err(base::source::SourceError::Io { source, .. }) => return Err(source),
            Ok(Batch::End) | Err(_) => break,
        }
    }
    Ok((digests, std::mem::take(&mut source.annotations().comments)))
}

#[derive(Default)]
struct Counting {
    runs: BTreeMap<String, (u64, Hasher)>,
    count: u64,
    captured_bytes: u64,
    span: Option<(Timestamp, Timestamp)>,
}

impl Counting {
    fn add(&mut self, packet: &Packet<'_>) {
        self.count += 1;
        self.captured_bytes += packet.data.len() as u64;
        let (first, last) = self.span.get_or_insert((packet.time, packet.time));
        (*first, *last) = (packet.time.min(*first), packet.time.max(*last));
        let (packets, hasher) = self.runs.entry(session_key(packet)).or_default();
        *packets += 1;
        hasher.update(&Digest::of_packet(packet).0);
    }

    fn finish(self, damage: Option<String>, comments: Vec<String>) -> Capture {
        let finish = |(key, (packets, hasher)): (String, (u64, Hasher))| Run { key, packets, digest: hasher.finish() };
        let runs: Vec<_> = self.runs.into_iter().map(finish).collect();
        let leaves: Vec<_> = runs.iter().map(Run::leaf).collect();
        let packets = Packets {
            count: self.count,
            captured_bytes: self.captured_bytes,
            first: self.span.map(|(first, _)| first.to_rfc3339()),
            last: self.span.map(|(_, last)| last.to_rfc3339()),
            runs: runs.len() as u64,
            merkle_root: merkle::root(&leaves),
            damage,
        };
        Capture { packets, comments, runs }
    }
}

/// The session of a packet: protocol, then both endpoints, the lower one first. All packets without IP are one session.
pub fn session_key(packet: &Packet<'_>) -> String {
    let decoded = decode::decode(packet.link_type, packet.data);
    let address = |bits: u128| match decoded.network {
        Network::Ipv4 => {
            u32::try_from(bits).map_or(IpAddr::V6(Ipv6Addr::from(bits)), |bits| Ipv4Addr::from(bits).into())
        }
        _ => IpAddr::V6(Ipv6Addr::from(bits)),
    };
    match decoded.network {
        Network::Ipv4 | Network::Ipv6 => {
            let source = SocketAddr::new(address(decoded.source), decoded.source_port);
            let destination = SocketAddr::new(address(decoded.destination), decoded.destination_port);
            key(decoded.protocol, source, destination)
        }
        _ => "not ip".to_owned(),
    }
}

/// The key of a session between two endpoints. Only TCP, UDP and SCTP have ports.
pub fn key(protocol: u8, one: SocketAddr, other: SocketAddr) -> String {
    let (low, high) = if one <= other { (one, other) } else { (other, one) };
    let named = match protocol {
        6 => "tcp",
        17 => "udp",
        132 => "sctp",
        1 => return format!("icmp {} {}", low.ip(), high.ip()),
        58 => return format!("icmp6 {} {}", low.ip(), high.ip()),
        other => return format!("ip-proto-{other} {} {}", low.ip(), high.ip()),
    };
    format!("{named} {low} {high}")
}

/// The key of a session in the notation of `retrocap get --flow`: `10.0.0.5:51234 192.0.2.7:443 [tcp|udp|sctp]`.
pub fn parse_key(text: &str) -> Option<String> {
    let words: Vec<_> = text.split_ascii_whitespace().collect();
    let (endpoints, protocol) = match words[..] {
        [one, other] => ([one, other], "tcp"),
        [one, other, protocol] => ([one, other], protocol),
        _ => return None,
    };
    let protocol = match protocol {
        "tcp" => 6,
        "udp" => 17,
        "sctp" => 132,
        "icmp" => 1,
        "icmp6" => 58,
        _ => return None,
    };
    let endpoint = |text: &str| {
        let address = |text: &str| text.parse().ok().map(|ip: IpAddr| SocketAddr::new(ip, 0));
        text.parse::<SocketAddr>().ok().or_else(|| address(text))
    };
    Some(key(protocol, endpoint(endpoints[0])?, endpoint(endpoints[1])?))
}
