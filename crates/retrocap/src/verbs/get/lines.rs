//! `retrocap get --text`: one line per packet, with the process that has the session where the recorder names it.

use std::collections::HashMap;
use std::io::Read;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use jiff::tz::TimeZone;

use crate::options::Common;
use crate::terminal::hex_dump::{self, Dump};
use crate::terminal::printable::{note, print};
use base::foreign::Foreign;
use base::packet::Packet;
use base::source::{Batch, Source};
use base::time::{self, Timestamp};
use decode::text::{Line, Precision, Stamp, TextWriter};
use decode::{Decoded, Network};
use formats::annotations::{Annotations, fingerprint};
use formats::reader::FileSource;
use query::attribution::brief;

/// Sessions whose process is remembered for their later packets.
const SESSIONS_MAX: usize = 1 << 16;

/// How lines look.
pub(super) struct LineOptions {
    pub(super) precision: Precision,
    pub(super) stamp: Stamp,
    pub(super) dump: Option<Dump>,
}

/// Prints one line for each packet of a capture file.
pub(super) fn print_lines(
    file: Box<dyn Read + Send>,
    options: &LineOptions,
    common: &Common,
    tz: &TimeZone,
) -> anyhow::Result<()> {
    let LineOptions { precision, stamp, dump } = *options;
    let mut writer = TextWriter::new(tz.clone(), precision).beginning_with(stamp);
    let mut names_zone = stamp == Stamp::Clock && !common.quiet;
    let mut source = FileSource::from_reader(file, Arc::default());
    let mut lines = String::new();
    let mut labels = Labels::default();
    loop {
        let batch = source.batch(&mut |packet| {
            if std::mem::take(&mut names_zone) {
                note(&format!("retrocap: times are in {}", zone(packet.time, tz)));
            }
            let decoded = decode::decode(packet.link_type, packet.data);
            let (time, link_type, data) = (packet.time, packet.link_type, packet.data);
            let line = Line { time, link_type, data, original_len: packet.original_len, decoded: &decoded };
            let start = lines.len();
            writer.write(&mut lines, &line);
            labels.line(start..lines.len(), packet, &decoded);
            if let Some(dump) = dump {
                hex_dump::append(&mut lines, dump, packet.data, hex_dump::link_header_bytes(packet.link_type));
            }
        });
        print(&labels.put(&lines, source.annotations()))?;
        lines.clear();
        if batch? == Batch::End {
            return Ok(());
        }
    }
}

/// The two ends of a session, the lower first.
type Ends = (u8, [(IpAddr, u16); 2]);

/// Puts the processes of sessions at the ends of lines. The comment at the first packet of a session names them.
#[derive(Default)]
struct Labels {
    known: HashMap<Ends, String>,
    /// The lines of the batch: where, the packet's fingerprint, and its session.
    lines: Vec<(Range<usize>, u64, Ends)>,
}

impl Labels {
    fn line(&mut self, line: Range<usize>, packet: &Packet<'_>, decoded: &Decoded) {
        let address = |bits: u128| match decoded.network {
            Network::Ipv4 => u32::try_from(bits).ok().map(|bits| IpAddr::V4(bits.into())),
            Network::Ipv6 => Some(IpAddr::V6(bits.into())),
            _ => None,
        };
        let end = |bits, port| Some((address(bits)?, port));
        let (Some(source), Some(destination)) =
            (end(decoded.source, decoded.source_port), end(decoded.destination, decoded.destination_port))
        else {
            return;
        };
        let ends = (decoded.protocol, [source.min(destination), source.max(destination)]);
        self.lines.push((line, fingerprint(packet), ends));
    }

    /// The text of the batch with its labels.
    fn put(&mut self, text: &str, annotations: &mut Annotations) -> String {
        let (mut out, mut copied) = (String::with_capacity(text.len()), 0);
        for (line, fingerprint, ends) in self.lines.drain(..) {
            let annotation = annotations.take_by(fingerprint);
            if let Some(label) = annotation.iter().flat_map(|annotation| annotation.comments()).find_map(brief)
                && (self.known.len() < SESSIONS_MAX || self.known.contains_key(&ends))
            {
                self.known.insert(ends, label);
            }
            if let Some(label) = self.known.get(&ends) {
                let end = line.end.saturating_sub(1);
                out.push_str(text.get(copied..end).unwrap_or_default());
                out.push_str(&format!("  <{}>", Foreign::new(label).terminal()));
                copied = end;
            }
        }
        out.push_str(text.get(copied..).unwrap_or_default());
        out
    }
}

/// The time zone of lines: `UTC`, or `+01:00 (Europe/Berlin)`.
fn zone(time: Timestamp, tz: &TimeZone) -> String {
    let offset = time::zone(time, tz);
    match tz.iana_name() {
        Some(name) if offset != "UTC" => format!("{offset} ({name})"),
        _ => offset,
    }
}
