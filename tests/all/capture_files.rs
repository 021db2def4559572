//! Real captures: our reader agrees with tshark, tcpdump and capinfos, and these tools read back what is exported.

use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use retrocap::formats::reader::FileSource;
use retrocap::formats::writer::{ExportError, Exporter, Format, InterfaceStatistics, Options, Precision};
use retrocap::interface::{Interface, Interfaces};
use retrocap::packet::{LinkType, Packet};
use retrocap::source::{Batch, Source};

use crate::machine;

/// The fields of a packet that are compared.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    /// Seconds since 1970 with nine decimals; empty where tshark shows none.
    time: String,
    original_len: u32,
    captured_len: usize,
    interface: String,
}

struct Kept {
    row: Row,
    interface: Arc<Interface>,
    nanos: u64,
    template: Packet<'static>,
    data: Vec<u8>,
}

#[test]
fn captures_are_read_as_tshark_reads_them() {
    for capture in machine::captures("capture files") {
        let Some(theirs) = tshark(&capture) else { return };
        compare(&capture, &read(&capture), &theirs);
    }
}

#[test]
fn exported_pcapng_is_read_by_tshark_and_capinfos() {
    let folder = tempfile::tempdir().unwrap();
    for capture in machine::captures("capture files") {
        let kept = read(&capture);
        let file = folder.path().join("export.pcapng");
        std::fs::write(&file, export(&kept, Format::Pcapng, Precision::Nano).unwrap()).unwrap();
        let Some(theirs) = tshark(&file) else { return };
        compare(&capture, &kept, &theirs);
        let Some(count) = tool("capinfos", &["-c", "-M", "-T", "-r", path(&file)]) else { return };
        let count = count.split_whitespace().last().unwrap();
        assert_eq!(count.parse(), Ok(kept.len()), "{}", capture.display());
    }
}

#[test]
fn exports_of_one_link_type_are_read_by_tcpdump() {
    let folder = tempfile::tempdir().unwrap();
    for capture in machine::captures("capture files") {
        let all = read(&capture);
        let mut link_types: Vec<LinkType> = all.iter().map(|kept| kept.interface.link_type).collect();
        link_types.sort();
        link_types.dedup();
        if link_types.len() > 1 {
            let error = export(&all, Format::Pcap, Precision::Nano).unwrap_err();
            assert!(matches!(error, ExportError::SeveralLinkTypes { .. }));
        }
        for link_type in link_types {
            let kept: Vec<&Kept> = all.iter().filter(|kept| kept.interface.link_type == link_type).collect();
            for (format, precision) in [
                (Format::Pcapng, Precision::Nano),
                (Format::Pcapng, Precision::Micro),
                (Format::Pcap, Precision::Nano),
                (Format::Pcap, Precision::Micro),
            ] {
                let file = folder.path().join("export");
                std::fs::write(&file, export(kept.iter().copied(), format, precision).unwrap()).unwrap();
                let Some(theirs) = tcpdump_times(&file) else { return };
                let ours: Vec<_> = kept.iter().map(|kept| seconds(kept.nanos, precision)).collect();
                assert_eq!(theirs.len(), ours.len(), "{} {link_type} {format:?}", capture.display());
                assert!(theirs == ours, "{} {link_type} {format:?} {precision:?}", capture.display());
            }
        }
    }
}

#[test]
fn exports_without_packets_open_everywhere() {
    let folder = tempfile::tempdir().unwrap();
    for format in [Format::Pcapng, Format::Pcap] {
        let file = folder.path().join("empty");
        std::fs::write(&file, export([], format, Precision::Nano).unwrap()).unwrap();
        let Some(rows) = tshark(&file) else { return };
        assert_eq!(rows, []);
        let Some(times) = tcpdump_times(&file) else { return };
        assert!(times.is_empty());
        let Some(count) = tool("capinfos", &["-c", "-M", "-T", "-r", path(&file)]) else { return };
        assert_eq!(count.split_whitespace().last(), Some("0"));
    }
}

#[test]
fn tshark_shows_flags_drops_and_comments_of_an_export() {
    use retrocap::packet::{Direction, PacketFlags};
    use retrocap::time::Timestamp;

    let interfaces = Interfaces::default();
    let id =
        interfaces.intern_with("eth7", 0, LinkType::ETHERNET, |new| new.description = Some("uplink".into())).unwrap();
    let interface = interfaces.interface(id).unwrap();
    let packet = Packet {
        time: Timestamp(1_700_000_000_123_456_789),
        interface: id,
        link_type: LinkType::ETHERNET,
        direction: Direction::Out,
        flags: PacketFlags { checksum_not_ready: true, segmentation_offload: false },
        original_len: 60,
        drops_before: 5,
        data: &[0; 60],
    };
    let mut exporter = Exporter::new(Format::Pcapng, Options::default());
    let mut out = Vec::new();
    exporter.begin(&mut out, &["of the file".into()]);
    exporter.packet_with_comment(&mut out, &interface, &packet, "of the packet").unwrap();
    exporter.end(&mut out, &[InterfaceStatistics { received: Some(6), ..InterfaceStatistics::of(id) }], &[]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("export.pcapng");
    std::fs::write(&file, out).unwrap();
    let fields = ["frame.time_epoch", "frame.interface_name", "frame.interface_description", "frame.comment"];
    let flags = ["frame.packet_flags", "frame.drop_count"];
    let mut arguments = vec!["-n", "-r", path(&file), "-T", "fields"];
    arguments.extend(fields.into_iter().chain(flags).flat_map(|field| ["-e", field]));
    let Some(line) = tool("tshark", &arguments) else { return };
    assert_eq!(line.trim_end(), "1700000000.123456789\teth7\tuplink\tof the packet\t0x00000202\t5");
    let Some(about) = tool("capinfos", &["-M", path(&file)]) else { return };
    for expected in ["of the file", "retrocap", "Name = eth7", "nanoseconds (9)", "Number of stat entries = 1"] {
        assert!(about.contains(expected), "capinfos does not say {expected:?}: {about}");
    }
}

fn read(file: &Path) -> Vec<Kept> {
    let interfaces = Arc::new(Interfaces::default());
    let mut source = FileSource::open(file, interfaces.clone()).unwrap();
    let mut kept = Vec::new();
    let mut keep = |packet: &Packet<'_>| {
        let interface = interfaces.interface(packet.interface).unwrap();
        let row = Row {
            time: seconds(packet.time.0, Precision::Nano),
            original_len: packet.original_len,
            captured_len: packet.data.len(),
            interface: interface.name.clone(),
        };
        let template = Packet { data: &[], ..*packet };
        kept.push(Kept { row, interface, nanos: packet.time.0, template, data: packet.data.to_vec() });
    };
    while source.batch(&mut keep).unwrap_or_else(|error| panic!("{}: {error}", file.display())) != Batch::End {}
    assert_eq!(source.refused(), 0);
    kept
}

fn export<'k>(
    kept: impl IntoIterator<Item = &'k Kept>,
    format: Format,
    precision: Precision,
) -> Result<Vec<u8>, ExportError> {
    let options = Options {
        precision,
        hardware: Some("a test".into()),
        os: Some("an operating system".into()),
        filter: Some("ip or ip6".into()),
        ..Options::default()
    };
    let mut exporter = Exporter::new(format, options);
    let mut out = Vec::new();
    let mut statistics: Vec<InterfaceStatistics> = Vec::new();
    exporter.begin(&mut out, &["exported by a test".into()]);
    for kept in kept {
        exporter.packet(&mut out, &kept.interface, &Packet { data: &kept.data, ..kept.template })?;
        if statistics.iter().all(|known| known.interface != kept.interface.id) {
            statistics.push(InterfaceStatistics { received: Some(1), ..InterfaceStatistics::of(kept.interface.id) });
        }
    }
    exporter.end(&mut out, &statistics, &["and this is its end".into()]);
    Ok(out)
}

/// The name that tshark shows for an interface of a pcapng file that has none.
const TSHARK_NAMELESS: &str = "unknown";

/// Compares packets. Fields that tshark does not know are left out.
fn compare(capture: &Path, ours: &[Kept], theirs: &[Row]) {
    let name = capture.display();
    assert_eq!(ours.len(), theirs.len(), "packets of {name}");
    for (number, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
        let mut ours = ours.row.clone();
        if theirs.time.is_empty() {
            ours.time.clear();
        }
        if theirs.interface.is_empty() {
            ours.interface.clear();
        }
        if ours.interface.is_empty() && !theirs.interface.is_empty() {
            ours.interface.push_str(TSHARK_NAMELESS);
        }
        assert_eq!(&ours, theirs, "packet {} of {name}", number + 1);
    }
}

/// The packets as tshark reads them; `None` when tshark is not installed.
fn tshark(file: &Path) -> Option<Vec<Row>> {
    let fields = ["frame.encap_type", "frame.time_epoch", "frame.len", "frame.cap_len", "frame.interface_name"];
    let fields = fields.into_iter().chain(["frame.section_number"]);
    let mut arguments = vec!["-n", "-r", path(file), "-T", "fields"];
    arguments.extend(fields.flat_map(|field| ["-e", field]));
    let rows = tool("tshark", &arguments)?;
    let row = |line: &str| {
        let mut fields = line.split('\t');
        let mut next = || fields.next().unwrap_or_else(|| panic!("{line:?}"));
        // tshark shows blocks of other kinds as packets without an encapsulation.
        let is_packet = !next().is_empty();
        let mut row = Row {
            time: next().to_owned(),
            original_len: next().parse().unwrap(),
            captured_len: next().parse().unwrap(),
            interface: next().to_owned(),
        };
        // In later sections tshark 4.0 shows the interface names of the first section.
        if next() != "1" {
            row.interface.clear();
        }
        is_packet.then_some(row)
    };
    Some(rows.lines().filter_map(row).collect())
}

/// The time at the beginning of each packet's first line; `None` when tcpdump is not installed.
fn tcpdump_times(file: &Path) -> Option<Vec<String>> {
    let is_time = |word: &&str| word.split_once('.').is_some_and(|(s, n)| s.parse::<u64>().is_ok() && n.len() == 9);
    let lines = tool("tcpdump", &["-nn", "-q", "-tt", "--nano", "-r", path(file)])?;
    Some(lines.lines().filter_map(|line| line.split(' ').next().filter(is_time)).map(str::to_owned).collect())
}

/// The output of a tool that must succeed; `None`, with a message, when it is not installed.
fn tool(name: &str, arguments: &[&str]) -> Option<String> {
    let output = match Command::new(name).args(arguments).output() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            machine::skipped("capture files", format_args!("{name} is not installed"));
            return None;
        }
        output => output.unwrap(),
    };
    assert!(output.status.success(), "{name} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn seconds(nanos: u64, precision: Precision) -> String {
    let nanos = match precision {
        Precision::Nano => nanos,
        Precision::Micro => nanos / 1000 * 1000,
    };
    format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000)
}

fn path(file: &Path) -> &str {
    file.to_str().expect("paths of tests are text")
}
