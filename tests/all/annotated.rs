//! What a capture says beside its packets comes through a replay, or is counted.

use std::path::Path;
use std::process::{Command, Output};

fn replay(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_retrocap")).arg("replay").args(arguments).output().unwrap()
}

/// Writes numbers in one byte order.
#[derive(Clone, Copy)]
struct Order {
    big: bool,
}

impl Order {
    fn u16(self, value: u16) -> Vec<u8> {
        if self.big { value.to_be_bytes() } else { value.to_le_bytes() }.to_vec()
    }

    fn u32(self, value: u32) -> Vec<u8> {
        if self.big { value.to_be_bytes() } else { value.to_le_bytes() }.to_vec()
    }

    fn u64(self, value: u64) -> Vec<u8> {
        if self.big { value.to_be_bytes() } else { value.to_le_bytes() }.to_vec()
    }

    fn option(self, code: u16, value: &[u8]) -> Vec<u8> {
        let padding = vec![0; value.len().wrapping_neg() & 3];
        [self.u16(code), self.u16(u16::try_from(value.len()).unwrap()), value.to_vec(), padding].concat()
    }

    fn block(self, kind: u32, parts: &[Vec<u8>]) -> Vec<u8> {
        let mut body = parts.concat();
        body.resize(body.len().next_multiple_of(4), 0);
        let length = self.u32(u32::try_from(body.len() + 12).unwrap());
        [self.u32(kind), length.clone(), body, length].concat()
    }

    /// Two packets, the first of which has every kind of option.
    fn capture(self) -> Vec<u8> {
        let end = self.option(0, &[]);
        let frame =
            [&[2; 12][..], &[8, 0], &[0x45, 0, 0, 20, 0, 0, 0, 0, 64, 99, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]].concat();
        let captured = self.u32(u32::try_from(frame.len()).unwrap());
        let time = 1_795_341_600_000_000_u64;
        let packet = |number: u64, options: Vec<u8>| {
            let time = time + number;
            let [high, low] = [time >> 32, time & 0xffff_ffff].map(|half| self.u32(u32::try_from(half).unwrap()));
            let mut padded = frame.clone();
            padded.resize(frame.len().next_multiple_of(4), 0);
            self.block(6, &[self.u32(0), high, low, captured.clone(), captured.clone(), padded, options])
        };
        let annotated = [
            self.option(1, b"what an analyst wrote"),
            // Broadcast, a check sequence of four bytes, a CRC error.
            self.option(2, &self.u32(3 << 2 | 4 << 5 | 1 << 24)),
            self.option(5, &self.u64(0x0102_0304_0506_0708)),
            self.option(6, &self.u32(77)),
            end.clone(),
        ];
        let name = [&[192, 0, 2, 1][..], b"the-suspect.example\0"].concat();
        let secrets = b"CLIENT_RANDOM 00 11\n".to_vec();
        [
            self.block(
                0x0a0d_0d0a,
                &[
                    self.u32(0x1a2b_3c4d),
                    self.u16(1),
                    self.u16(0),
                    self.u64(u64::MAX),
                    self.option(1, b"of the section"),
                    self.option(4, b"a sniffer"),
                    end.clone(),
                ],
            ),
            self.block(
                1,
                &[
                    self.u16(1),
                    self.u16(0),
                    self.u32(0),
                    self.option(1, b"of the interface"),
                    self.option(2, b"eth7"),
                    self.option(8, &self.u64(10_000_000_000)),
                    self.option(11, b"\0not port 22"),
                    end.clone(),
                ],
            ),
            self.block(10, &[self.u32(0x544c_534b), self.u32(u32::try_from(secrets.len()).unwrap()), secrets]),
            self.block(4, &[self.option(1, &name), end.clone()]),
            self.block(0x0bad, &[self.u32(32_473), b"of somebody else".to_vec()]),
            self.block(0x4000_0bad, &[self.u32(32_473), b"not to be copied".to_vec()]),
            packet(0, annotated.concat()),
            packet(1, Vec::new()),
            self.block(5, &[self.u32(0), self.u32(0), self.u32(0), self.option(5, &self.u64(4711)), end]),
        ]
        .concat()
    }
}

fn tshark(path: &Path, field: &str) -> Option<Vec<String>> {
    let output = Command::new("tshark").args(["-r", path.to_str()?, "-T", "fields", "-e", field]).output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}

#[test]
fn honest_13_07_a_replay_keeps_what_an_analyst_wrote() {
    let folder = tempfile::tempdir().unwrap();
    let (input, out) = (folder.path().join("in.pcapng"), folder.path().join("out.pcapng"));
    for big in [false, true] {
        std::fs::write(&input, Order { big }.capture()).unwrap();
        let output = replay(&[input.to_str().unwrap(), "-m", "16M", "-w", out.to_str().unwrap()]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let file = std::fs::read(&out).unwrap();
        let has = |bytes: &[u8]| file.windows(bytes.len()).any(|window| window == bytes);
        for text in [
            "what an analyst wrote",
            "of the section",
            "captured with a sniffer",
            "of the interface",
            "not port 22",
            "CLIENT_RANDOM 00 11",
            "the-suspect.example",
            "of somebody else",
        ] {
            assert!(has(text.as_bytes()), "big-endian {big}: {text}");
        }
        // Numbers are in this host's byte order now: packet id, queue, speed, drops.
        for number in [0x0102_0304_0506_0708u64, 10_000_000_000, 4711] {
            assert!(has(&number.to_ne_bytes()), "big-endian {big}: {number}");
        }
        assert!(has(&(3u32 << 2 | 4 << 5 | 1 << 24).to_ne_bytes()), "flags");
        assert!(!has(b"not to be copied"));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("left out of the capture: 1 custom blocks that must not be copied"), "{said}");
        match tshark(&out, "frame.comment") {
            // The custom block is a record of its own to tshark.
            Some(comments) => assert_eq!(comments.concat(), "what an analyst wrote"),
            None => eprintln!("SKIPPED in part: there is no tshark here"),
        }
        if let Some(ids) = tshark(&out, "frame.packet_id") {
            assert_eq!(ids.concat(), "72623859790382856");
        }
    }
}

/// A recorder that replays a capture keeps packets alone: it counts what it leaves out, in its log and in its status.
#[cfg(target_os = "linux")]
#[test]
fn honest_13_07_a_replaying_recorder_counts_what_it_leaves_out() {
    use crate::recorder::running::{Recorder, eventually};

    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("in.pcapng");
    for big in [false, true] {
        std::fs::write(&input, Order { big }.capture()).unwrap();
        let arguments = ["--replay", input.to_str().unwrap(), "--speed", "max", "-m", "16M"];
        let recorder = Recorder::replaying(&arguments, std::process::Stdio::null());
        recorder.arrived(2);
        eventually("the log says so", || recorder.log().contains("left out of the capture: "));
        let status = recorder.status().input.unwrap();
        // The same as what `replay` finds; of that, nothing is kept.
        let output = replay(&[input.to_str().unwrap(), "-m", "16M", "--json"]);
        let replayed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(serde_json::to_value(&status.annotations).unwrap(), replayed["input"]["annotations"]);
        assert_eq!(status.left_out, status.annotations, "big-endian {big}");
        for kind in [
            "comments",
            "custom blocks",
            "custom blocks that must not be copied",
            "decryption secrets blocks",
            "interface options",
            "interface statistics blocks",
            "name resolution blocks",
            "packet options",
        ] {
            assert!(status.left_out.get(&kind.into()).is_some_and(|count| *count > 0), "{kind}: {status:?}");
            assert!(recorder.log().contains(kind), "{kind}: {}", recorder.log());
        }
        let page = recorder.ask(&["status"]).stdout;
        assert!(page.contains("not kept") && page.contains("packet options"), "{page}");
    }
}

#[test]
fn honest_13_07_times_beyond_the_range_are_counted() {
    let order = Order { big: false };
    // Seconds, far beyond 2554.
    let mut file = order.block(0x0a0d_0d0a, &[order.u32(0x1a2b_3c4d), order.u16(1), order.u16(0), order.u64(u64::MAX)]);
    file.extend(
        order.block(1, &[order.u16(1), order.u16(0), order.u32(0), order.option(9, &[0]), order.option(0, &[])]),
    );
    for (high, low) in [(0, 1_795_341_600), (9, 1), (9, 2)] {
        let lengths = [order.u32(4), order.u32(4)].concat();
        file.extend(order.block(6, &[order.u32(0), order.u32(high), order.u32(low), lengths, vec![1; 4]]));
    }
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("in.pcapng");
    std::fs::write(&input, file).unwrap();
    let output = replay(&[input.to_str().unwrap(), "-m", "16M", "--json"]);
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&document["packets"]["received"], &document["input"]["times_changed"]), (&3.into(), &2.into()));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("2 packets have times outside 1970-01-01 to 2554-07-21"), "{said}");
}

#[test]
fn honest_13_07_a_file_that_is_no_capture_is_not_summed_up() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("odd.gz");
    std::fs::write(&input, b"\x1f\x8b\x08\0\0\0\0\0\0\0").unwrap();
    let output = replay(&[input.to_str().unwrap(), "-m", "16M"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("cannot read")
            && said.contains("odd.gz")
            && !said.contains("every packet before")
            && !said.contains("byte 0"),
        "{said}"
    );
}

/// Blocks beside the usual ones: kept where another file can have them, counted otherwise.
#[test]
fn honest_13_07_rare_blocks_are_kept_or_counted() {
    let folder = tempfile::tempdir().unwrap();
    let (input, out) = (folder.path().join("in.pcapng"), folder.path().join("out.pcapng"));
    for big in [false, true] {
        let order = Order { big };
        let end = order.option(0, &[]);
        let interface = |link_type: u16, name: &str, speed: u64| {
            let fixed = [order.u16(link_type), order.u16(0), order.u32(0)].concat();
            let options = [order.option(2, name.as_bytes()), order.option(8, &order.u64(speed)), end.clone()].concat();
            order.block(1, &[fixed, options])
        };
        let frame = [&[2; 12][..], &[0x88, 0xb5], &[7; 46]].concat();
        let length = order.u32(u32::try_from(frame.len()).unwrap());
        let time = 1_795_341_600_000_000_u64;
        let [high, low] = [time >> 32, time & 0xffff_ffff].map(|half| order.u32(u32::try_from(half).unwrap()));
        let secrets = b"CLIENT_RANDOM 00 11\n".to_vec();
        let secrets_length = order.u32(u32::try_from(secrets.len()).unwrap());
        let file = [
            order.block(0x0a0d_0d0a, &[order.u32(0x1a2b_3c4d), order.u16(1), order.u16(0), order.u64(u64::MAX)]),
            interface(1, "eth0", 1_000_000_000),
            interface(1, "eth1", 2_000_000_000),
            interface(220, "usb0", 3_000_000_000),
            interface(1, "eth0", 4_000_000_000),
            order.block(9, &[b"__REALTIME_TIMESTAMP=1795341600000000\nMESSAGE=a unit has started\n".to_vec()]),
            order.block(0x7001, &[b"a block of the future".to_vec()]),
            order.block(
                10,
                &[
                    order.u32(0x544c_534b),
                    secrets_length,
                    secrets,
                    order.option(1, b"of the secrets"),
                    order.option(77, b"odd"),
                    end.clone(),
                ],
            ),
            order.block(4, &[order.u32(0), order.option(1, b"of the names"), end.clone()]),
            order.block(
                6,
                &[order.u32(0), high, low, length.clone(), length.clone(), {
                    let mut padded = frame.clone();
                    padded.resize(frame.len().next_multiple_of(4), 0);
                    padded
                }],
            ),
            order.block(3, &[length.clone(), frame.clone()]),
            order.block(3, &[length, frame]),
        ];
        std::fs::write(&input, file.concat()).unwrap();
        let output = replay(&[input.to_str().unwrap(), "-m", "16M", "-w", out.to_str().unwrap()]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        let file = std::fs::read(&out).unwrap();
        let has = |bytes: &[u8]| file.windows(bytes.len()).any(|window| window == bytes);
        for text in ["MESSAGE=a unit has started", "of the secrets", "of the names", "CLIENT_RANDOM 00 11", "eth1"] {
            assert!(has(text.as_bytes()), "big-endian {big}: {text}");
        }
        assert!(has(&2_000_000_000_u64.to_ne_bytes()), "an interface without packets keeps its options");
        assert!(!has(b"usb0") && !has(b"a block of the future"));
        for words in [
            "1 blocks of other types",
            "1 interfaces without packets",
            "1 interfaces with the name and link type of another",
            "1 interface options",
            "1 options of blocks",
            "2 packets have no time (simple packet blocks): the time of the packet before was taken",
        ] {
            assert!(said.contains(words), "{words}: {said}");
        }
        let output = replay(&[input.to_str().unwrap(), "-m", "16M", "--json"]);
        let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(document["input"]["times_missing"], 2);
        assert_eq!(document["input"]["annotations"]["systemd journal blocks"], 1);
        // Everybody's tools read it: a journal entry is a record of its own to tshark.
        match tshark(&out, "frame.number") {
            Some(records) => assert_eq!(records.len(), 4, "{records:?}"),
            None => eprintln!("SKIPPED in part: there is no tshark here"),
        }
    }
}
