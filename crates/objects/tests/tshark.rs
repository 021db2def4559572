//! The objects of real captures, compared with those that `tshark --export-objects` writes.

#[path = "../../streams/tests/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use objects::{Collector, Object, ObjectLimits, ObjectSink};
use protocols::Protocols;
use streams::Session;
use support::{captures, read};

#[derive(Default)]
struct All(Vec<Object>);

impl ObjectSink for All {
    fn object(&mut self, _: &Session, object: Object) {
        self.0.push(object);
    }
}

fn ours(file: &Path) -> Vec<Object> {
    let mut protocols = Protocols::new(Collector::new(ObjectLimits::default(), All::default()));
    read(file, &mut protocols);
    protocols.sink.finish();
    std::mem::take(&mut protocols.sink.objects.0)
}

/// The contents that tshark writes, by content and how often.
fn theirs(file: &Path, protocol: &str, folder: &Path) -> BTreeMap<Vec<u8>, usize> {
    let export = format!("{protocol},{}", folder.display());
    let status =
        Command::new("tshark").args(["-n", "-q", "-r", file.to_str().unwrap(), "--export-objects", &export]).output();
    assert!(status.unwrap().status.success());
    let mut contents = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let content = std::fs::read(entry.unwrap().path()).unwrap();
        *contents.entry(content).or_default() += 1;
    }
    contents
}

#[test]
fn no_object_of_tshark_is_missed() {
    let Some(captures) = captures() else { return };
    for (name, protocol, count) in [
        ("http-files.pcap", "http", 11),
        ("http-pdf.pcap", "http", 1),
        ("mixed-lan.pcap", "http", 0),
        ("smb2-100-files.pcap", "smb", 100),
        ("smtp-mime.pcap", "imf", 1),
        ("imap.pcap", "imf", 26),
        ("tftp.pcap", "tftp", 1),
        ("ftp-retr.pcap", "ftp-data", 0),
    ] {
        let file = captures.join(name);
        if !file.exists() {
            eprintln!("SKIPPED: there is no {}", file.display());
            continue;
        }
        let folder = std::env::temp_dir().join(format!("retrocap-objects-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let expected = theirs(&file, protocol, &folder);
        std::fs::remove_dir_all(&folder).unwrap();
        let mine = ours(&file);
        let summary = || {
            mine.iter().map(|one| format!("{} {} {}\n", one.protocol, one.name, one.content.len())).collect::<String>()
        };
        let total: usize = expected.values().sum();
        assert!(count == 0 || total == count, "{name}: tshark writes {total} objects");
        let mut missed = Vec::new();
        for (content, times) in &expected {
            // tshark ends the lines of mails with a line feed that is not theirs, or leaves one out.
            let same =
                |one: &&Object| one.content == *content || one.content.trim_ascii_end() == content.trim_ascii_end();
            let found = mine.iter().filter(|one| one.complete).filter(same).count();
            if found < *times {
                missed.push((content.len(), *times, found));
            }
        }
        eprintln!("{name}: tshark {total}, here {}", mine.len());
        assert!(missed.is_empty(), "{name}: length, times, found: {missed:?} of {total}\n{}", summary());
    }
}

#[test]
fn codings_are_undone_ranges_joined_and_uploads_taken_apart() {
    let Some(captures) = captures() else { return };
    let of = |name: &str| {
        let file = captures.join(name);
        if file.exists() {
            ours(&file)
        } else {
            eprintln!("SKIPPED: there is no {}", file.display());
            Vec::new()
        }
    };
    for one in of("http-gzip.pcap") {
        assert_eq!((one.mime, one.complete), ("application/json", true));
        assert!(one.content.starts_with(b"{"));
    }
    for one in of("http-ranges.pcap") {
        assert_eq!((one.content.len(), one.complete, one.name.as_str()), (34, true, "zeek.txt"));
    }
    let upload = of("http-upload.pcap");
    assert!(upload.is_empty() || upload.iter().any(|one| one.part_of.is_some()), "{} objects", upload.len());
}
