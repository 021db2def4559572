//! Real captures for tests that compare with tshark. The crates above `streams` use this file, too.

use std::path::{Path, PathBuf};
use std::process::Command;

use base::source::{Batch, Source as _};
use formats::reader::FileSource;
use streams::{Sink, Streams};

/// The folder of captures; `None`, with a line that says so, where it or tshark is missing.
pub(crate) fn captures() -> Option<PathBuf> {
    let folder = std::env::var_os("RETROCAP_CAPTURES").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("../shared/captures"),
        PathBuf::from,
    );
    if !folder.is_dir() || Command::new("tshark").arg("--version").output().is_err() {
        eprintln!("SKIPPED: no tshark, or no captures in {}; set RETROCAP_CAPTURES", folder.display());
        return None;
    }
    Some(folder)
}

/// Passes the events of all sessions of a capture to `sink`.
pub(crate) fn read(file: &Path, sink: &mut dyn Sink) {
    let mut source = FileSource::open(file, Default::default()).unwrap();
    let (mut streams, mut sequence) = (Streams::default(), 0);
    loop {
        let batch = source.batch(&mut |packet| {
            sequence += 1;
            streams.packet(packet, sequence, sink);
        });
        if batch.unwrap() == Batch::End {
            break;
        }
    }
    streams.finish(sink);
}
