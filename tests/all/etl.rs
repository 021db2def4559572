//! Trace files of Windows, made after the documented layout: no file of a real Windows was available.

use crate::cli;

/// Microsoft-Windows-NDIS-PacketCapture.
const PROVIDER: [u8; 16] =
    [0x6e, 0x00, 0xd6, 0x2e, 0x29, 0x47, 0x09, 0x46, 0xb4, 0x23, 0x3e, 0xe7, 0xbc, 0xd6, 0x78, 0xef];
/// 2026-11-28 00:00:00 UTC, since 1601 in units of 100 ns.
const START: i64 = 134_402_976_000_000_000;

/// A buffer with events after its header.
fn buffer(events: &[Vec<u8>]) -> Vec<u8> {
    let used = 72 + events.iter().map(Vec::len).sum::<usize>();
    let size = used.next_multiple_of(1024);
    let mut buffer = vec![0; 72];
    buffer[..4].copy_from_slice(&u32::try_from(size).unwrap().to_le_bytes());
    buffer[4..8].copy_from_slice(&u32::try_from(used).unwrap().to_le_bytes());
    buffer.extend(events.concat());
    buffer.resize(size, 0xff);
    buffer
}

/// A packet that was sent, from the interface with index 12.
fn packet(millis: i64, data: &[u8]) -> Vec<u8> {
    let mut event = vec![0, 0, 19, 0xc0];
    event.resize(16, 0);
    event.extend((START + millis * 10_000).to_le_bytes());
    event.extend(PROVIDER);
    event.extend(1001_u64.to_le_bytes());
    event.extend(0x1_c000_0000_u64.to_le_bytes());
    event.resize(80, 0);
    event.extend([12_u32, 12, u32::try_from(data.len()).unwrap()].map(u32::to_le_bytes).as_flattened());
    event.extend(data);
    let len = u16::try_from(event.len()).unwrap();
    event[..2].copy_from_slice(&len.to_le_bytes());
    event.resize(event.len().next_multiple_of(8), 0);
    event
}

/// A file with these packets, of which two events were lost.
pub(crate) fn file(packets: &[Vec<u8>]) -> Vec<u8> {
    let mut log = vec![2, 0, 2, 0xc0, 0x38, 1, 0, 0];
    log.resize(32 + 280, 0);
    for (at, value) in [(44, 8), (48, 2), (272, 2)] {
        log[32 + at] = value;
    }
    let events: Vec<Vec<u8>> = packets.iter().zip(1..).map(|(data, millis)| packet(millis, data)).collect();
    [buffer(&[log]), buffer(&events)].concat()
}

#[test]
fn trace_files_of_windows_are_read_like_captures() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.etl");
    let syn = [
        &[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0, 0, 40, 0, 1, 0, 0, 64, 6, 0, 0][..],
        &[10, 0, 0, 1, 10, 0, 0, 2, 0x9c, 0x40, 1, 187, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0],
    ]
    .concat();
    std::fs::write(&path, file(&[syn.clone(), syn])).unwrap();
    let (code, listed, errors) = cli::reply(&cli::run(&["get", "--text", "-r", path.to_str().unwrap(), "port 443"]));
    assert_eq!(code, 0, "{errors}");
    assert_eq!(listed.lines().filter(|line| line.contains("10.0.0.1.40000")).count(), 2, "{listed}");
    let replayed = cli::run(&["replay", "--json", path.to_str().unwrap()]);
    let status: serde_json::Value = serde_json::from_slice(&replayed.stdout).unwrap();
    assert_eq!(status["packets"]["received"], 2, "{status}");
    assert!(status.to_string().contains("ifindex 12"), "{status}");
}
