//! Writes what encrypted files contain as files in the clear, so that other programs can read it.

use std::io;

use crate::catalogue::Catalogue;
use crate::coding::Coding;
use crate::copy::{copy_packets, finish};
use crate::layout::{Header, file_name};
use crate::medium::Medium;
use crate::read::{Packets, Selection};
use base::time::Timestamp;

/// The result of decrypting a spool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DecryptReport {
    /// Files that were written.
    pub files: u64,
    /// Files that are not complete in the copy, each with the reason.
    pub failed: Vec<(String, String)>,
}

/// Copies the packets of all files of a catalogue into files of the same numbers in the clear, on another medium.
pub fn decrypt<M: Medium + Clone, N: Medium>(
    medium: &M,
    catalogue: &Catalogue,
    to: &N,
    now: Timestamp,
) -> DecryptReport {
    let sealed = catalogue.sealed.iter().map(|entry| {
        let only = Catalogue { sealed: vec![entry.clone()], ..Catalogue::default() };
        (entry.footer.header, only)
    });
    let open = catalogue.open.iter().map(|shared| {
        let only = Catalogue { open: vec![shared.clone()], ..Catalogue::default() };
        (shared.header, only)
    });
    let mut report = DecryptReport::default();
    // Files that are in the clear already are copied, too, so that the copy is whole.
    for (header, only) in sealed.chain(open) {
        let name = file_name(header.id.counter, header.band, header.coding);
        match decrypt_one(medium, header, &only, to, now) {
            Ok(unread) => {
                report.files += 1;
                if unread > 0 {
                    report.failed.push((name, format!("{unread} stretches of it are damaged or cannot be read")));
                }
            }
            Err(error) => report.failed.push((name, error.to_string())),
        }
    }
    report
}

/// Returns the number of stretches that could not be read.
fn decrypt_one<M: Medium + Clone, N: Medium>(
    medium: &M,
    header: Header,
    only: &Catalogue,
    to: &N,
    now: Timestamp,
) -> io::Result<u64> {
    let coding = Coding { encrypted: false, ..header.coding };
    let plain = Header { coding, replaces: None, ..header };
    let comments = [format!("decrypted at {now}")];
    let mut packets = Packets::new(medium.clone(), only, &Selection::default());
    let file = copy_packets(&mut packets, to, plain, &comments, &mut |_| true)?;
    finish(file, to)?;
    let summary = packets.summary();
    Ok(summary.damaged + summary.failed + summary.gone)
}
