//! Merges the packets of many recorders into one pcapng file, in the order of their times, with an interface block for each
//! interface of each recorder.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::sync::Arc;

use anyhow::Context as _;

use base::interface::{Interface, Interfaces};
use base::packet::{Direction, InterfaceId, LinkType, Packet, PacketFlags};
use base::source::{Batch, Source as _};
use base::time::Timestamp;
use formats::reader::FileSource;
use formats::writer::{Exporter, Format, Options};

/// Files that are merged at a time: each has a buffer and an open descriptor.
const FILES_MAX: usize = 128;
/// Bytes that are collected before a write.
const WRITE_BYTES: usize = 256 << 10;

/// The packets of one recorder.
#[derive(Debug)]
pub(crate) struct RecorderFile {
    /// What the names of its interfaces begin with; empty for a file that was merged before.
    pub(crate) recorder: String,
    pub(crate) file: File,
}

/// What was merged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Merged {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    pub(crate) span: Option<(Timestamp, Timestamp)>,
    /// Packets of interfaces beyond the number that a file can have.
    pub(crate) left_out_packets: u64,
    /// Recorders whose file is damaged: what came before the damage is there.
    pub(crate) damaged: Vec<(String, String)>,
}

/// Merges files into one, which `to` takes in parts.
pub(crate) fn merge(
    mut files: Vec<RecorderFile>,
    format: Format,
    options: Options,
    comments: &[String],
    to: &mut dyn FnMut(&mut Vec<u8>) -> anyhow::Result<()>,
) -> anyhow::Result<Merged> {
    let mut damaged = Vec::new();
    while files.len() > FILES_MAX {
        let mut fewer = Vec::new();
        let mut rest = files.into_iter().peekable();
        while rest.peek().is_some() {
            let some: Vec<RecorderFile> = rest.by_ref().take(FILES_MAX).collect();
            let mut file = tempfile::tempfile().context("cannot make a temporary file")?;
            let part = merge_some(some, Format::Pcapng, Options::default(), &[], &mut |bytes| {
                file.write_all(bytes).context("cannot write a temporary file")?;
                bytes.clear();
                Ok(())
            })?;
            damaged.extend(part.damaged);
            file.rewind().context("cannot read a temporary file")?;
            fewer.push(RecorderFile { recorder: String::new(), file });
        }
        files = fewer;
    }
    let mut merged = merge_some(files, format, options, comments, to)?;
    damaged.append(&mut merged.damaged);
    Ok(Merged { damaged, ..merged })
}

fn merge_some(
    files: Vec<RecorderFile>,
    format: Format,
    options: Options,
    comments: &[String],
    to: &mut dyn FnMut(&mut Vec<u8>) -> anyhow::Result<()>,
) -> anyhow::Result<Merged> {
    let mut merged = Merged::default();
    let mut streams: Vec<Stream> = files.into_iter().map(Stream::new).collect();
    let mut next = BinaryHeap::new();
    for (place, stream) in streams.iter_mut().enumerate() {
        if let Some(time) = stream.next_time() {
            next.push(Reverse((time, place)));
        }
    }
    let mut exporter = Exporter::new(format, options);
    let (mut out, mut names) = (Vec::new(), InterfaceNames::default());
    exporter.begin(&mut out, comments);
    while let Some(Reverse((time, place))) = next.pop() {
        let stream = &mut streams[place];
        if let Some(packet) = stream.pending.pop_front() {
            match names.interface(place, &stream.recorder, &stream.interfaces, packet.interface) {
                None => merged.left_out_packets += 1,
                Some(interface) => {
                    exporter.packet(&mut out, interface, &packet.packet(interface.id))?;
                    merged.packets += 1;
                    merged.bytes += packet.data.len() as u64;
                    let (first, last) = merged.span.get_or_insert((time, time));
                    (*first, *last) = ((*first).min(time), (*last).max(time));
                }
            }
        }
        if let Some(time) = stream.next_time() {
            next.push(Reverse((time, place)));
        }
        if out.len() >= WRITE_BYTES {
            to(&mut out)?;
        }
    }
    exporter.end(&mut out, &[], &[]);
    to(&mut out)?;
    for stream in streams {
        if let Some(damage) = stream.damage {
            merged.damaged.push((stream.recorder, damage));
        }
    }
    Ok(merged)
}

/// The interfaces of the merged file.
#[derive(Default)]
struct InterfaceNames {
    known: HashMap<(usize, InterfaceId), Interface>,
}

impl InterfaceNames {
    /// The interface of the merged file for one of a recorder; `None` if there are too many.
    fn interface(
        &mut self,
        place: usize,
        recorder: &str,
        interfaces: &Interfaces,
        id: InterfaceId,
    ) -> Option<&Interface> {
        let count = self.known.len();
        match self.known.entry((place, id)) {
            std::collections::hash_map::Entry::Occupied(known) => Some(known.into_mut()),
            std::collections::hash_map::Entry::Vacant(place) => {
                let mut interface = Interface::clone(&*interfaces.interface(id)?);
                interface.id = InterfaceId(u16::try_from(count).ok()?);
                if !recorder.is_empty() {
                    interface.name = format!("{recorder}/{}", interface.name);
                }
                Some(place.insert(interface))
            }
        }
    }
}

/// One file, of which the packets of a batch wait.
struct Stream {
    recorder: String,
    source: FileSource,
    interfaces: Arc<Interfaces>,
    pending: VecDeque<OwnedPacket>,
    ended: bool,
    damage: Option<String>,
}

struct OwnedPacket {
    time: Timestamp,
    interface: InterfaceId,
    link_type: LinkType,
    direction: Direction,
    flags: PacketFlags,
    original_len: u32,
    drops_before: u32,
    data: Vec<u8>,
}

impl OwnedPacket {
    fn packet(&self, interface: InterfaceId) -> Packet<'_> {
        Packet {
            time: self.time,
            interface,
            link_type: self.link_type,
            direction: self.direction,
            flags: self.flags,
            original_len: self.original_len,
            drops_before: self.drops_before,
            data: &self.data,
        }
    }
}

impl Stream {
    fn new(file: RecorderFile) -> Self {
        let interfaces = Arc::<Interfaces>::default();
        let source = FileSource::from_reader(Box::new(file.file), Arc::clone(&interfaces));
        Self { recorder: file.recorder, source, interfaces, pending: VecDeque::new(), ended: false, damage: None }
    }

    /// The time of the next packet; `None` at the end.
    fn next_time(&mut self) -> Option<Timestamp> {
        while self.pending.is_empty() && !self.ended {
            let pending = &mut self.pending;
            let batch = self.source.batch(&mut |packet| {
                pending.push_back(OwnedPacket {
                    time: packet.time,
                    interface: packet.interface,
                    link_type: packet.link_type,
                    direction: packet.direction,
                    flags: packet.flags,
                    original_len: packet.original_len,
                    drops_before: packet.drops_before,
                    data: packet.data.to_vec(),
                });
            });
            match batch {
                Ok(Batch::End) => self.ended = true,
                Ok(_) => {}
                Err(error) => {
                    self.ended = true;
                    self.damage = Some(error.to_string());
                }
            }
        }
        self.pending.front().map(|packet| packet.time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(recorder: &str, times: &[u64]) -> RecorderFile {
        let mut exporter = Exporter::new(Format::Pcapng, Options::default());
        let mut out = Vec::new();
        exporter.begin(&mut out, &[]);
        let interfaces = Interfaces::default();
        for (time, number) in times.iter().zip([0, 1].into_iter().cycle()) {
            let id = interfaces.intern(&format!("eth{number}"), 1 + number, LinkType::ETHERNET).unwrap();
            let data = [7; 60];
            let packet = OwnedPacket {
                time: Timestamp(*time),
                interface: id,
                link_type: LinkType::ETHERNET,
                direction: Direction::In,
                flags: PacketFlags::default(),
                original_len: 60,
                drops_before: 0,
                data: data.to_vec(),
            };
            exporter.packet(&mut out, &interfaces.interface(id).unwrap(), &packet.packet(id)).unwrap();
        }
        exporter.end(&mut out, &[], &[]);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&out).unwrap();
        file.rewind().unwrap();
        RecorderFile { recorder: recorder.to_owned(), file }
    }

    fn merged(files: Vec<RecorderFile>) -> (Merged, Vec<(u64, String)>) {
        let mut whole = Vec::new();
        let report = merge(files, Format::Pcapng, Options::default(), &["asked".to_owned()], &mut |bytes| {
            whole.append(bytes);
            Ok(())
        });
        let interfaces = Arc::<Interfaces>::default();
        let mut source = FileSource::from_reader(Box::new(std::io::Cursor::new(whole)), Arc::clone(&interfaces));
        let mut packets = Vec::new();
        while source
            .batch(&mut |packet| {
                packets.push((packet.time.0, interfaces.interface(packet.interface).unwrap().name.clone()))
            })
            .unwrap()
            != Batch::End
        {}
        (report.unwrap(), packets)
    }

    #[test]
    fn packets_come_by_time_with_the_recorder_in_the_name_of_their_interface() {
        let (report, packets) = merged(vec![file("a:1", &[10, 30, 50]), file("b:2", &[20, 40])]);
        let expected = [(10, "a:1/eth0"), (20, "b:2/eth0"), (30, "a:1/eth1"), (40, "b:2/eth1"), (50, "a:1/eth0")];
        let expected: Vec<(u64, String)> = expected.iter().map(|(time, name)| (*time, (*name).to_owned())).collect();
        assert_eq!(packets, expected);
        assert_eq!((report.packets, report.span), (5, Some((Timestamp(10), Timestamp(50)))));
    }

    #[test]
    fn more_files_than_buffers_are_merged_in_parts() {
        let files: Vec<RecorderFile> = (0..300).map(|n| file(&format!("r{n}"), &[1000 - n, 2000 + n])).collect();
        let (report, packets) = merged(files);
        assert_eq!((report.packets, packets.len()), (600, 600));
        assert!(packets.windows(2).all(|pair| pair[0].0 <= pair[1].0));
        let names: std::collections::BTreeSet<&str> = packets.iter().map(|(_, name)| name.as_str()).collect();
        assert_eq!(names.len(), 600);
    }

    #[test]
    fn a_damaged_file_keeps_what_came_before() {
        let cut = file("cut", &[1, 2, 3]);
        let length = cut.file.metadata().unwrap().len();
        cut.file.set_len(length - 100).unwrap();
        let (report, packets) = merged(vec![cut, file("whole", &[4])]);
        assert!(packets.len() >= 2 && packets.iter().any(|(_, name)| name == "whole/eth0"), "{packets:?}");
        assert_eq!(report.damaged.len(), 1);
        assert_eq!(report.damaged[0].0, "cut");
    }
}
