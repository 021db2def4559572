//! Removes packets on purpose, such as for a request under data protection law.
//!
//! A file never changes, so the spool writes a new file without these packets. The new file names the file that it
//! replaces. It is durable before the old file is removed, so that a crash leaves at least one of the two.

use std::io;
use std::sync::Arc;

use crate::blocks::SpooledInterface;
use crate::catalogue::Catalogue;
use crate::coding::Coding;
use crate::copy::{copy_packets, finish};
use crate::layout::{FileId, Header, parse_name};
use crate::medium::Medium;
use crate::read::{Packets, Selection};
use crate::sealed_file::SealedFile;
use base::packet::LinkType;
use base::time::Timestamp;

/// The result of a removal.
#[derive(Clone, Debug, Default)]
pub struct RemovalReport {
    /// Packets that were removed.
    pub packets: u64,
    /// Captured bytes of these packets.
    pub bytes: u64,
    /// Files that were written anew.
    pub rewritten: u64,
    /// Files that were removed because no packet was left.
    pub removed: u64,
    /// Files that are there no more, or were written anew: as they were before.
    pub changed: Vec<Arc<SealedFile>>,
    /// Files that are damaged, or could not be rewritten, each with the reason. Their packets stay.
    pub failed: Vec<(String, String)>,
}

/// Removes the packets before `before` that `matches` selects. `reason` is noted in the files that are written anew. A file
/// that is damaged does not keep others from being rewritten.
pub fn remove_packets<M: Medium + Clone>(
    medium: &M,
    catalogue: &Catalogue,
    before: Timestamp,
    reason: &str,
    now: Timestamp,
    matches: &mut dyn FnMut(LinkType, &[u8], u32) -> bool,
) -> RemovalReport {
    let mut removal = RemovalReport::default();
    let numbers = catalogue.unreadable.iter().filter_map(|(name, _)| Some(parse_name(name)?.0));
    let numbers = catalogue.sealed.iter().map(|entry| entry.counter()).chain(numbers);
    let next_counter = numbers.max().unwrap_or(0) + 1;
    for entry in catalogue.sealed.iter().filter(|entry| entry.times().0 < before) {
        let mut selected = |time: Timestamp, interface: &SpooledInterface, data: &[u8], original_len: u32| {
            time < before && matches(interface.link_type, data, original_len)
        };
        let counter = next_counter + removal.rewritten + removal.failed.len() as u64;
        if let Err(error) = remove_from(medium, entry, counter, reason, now, &mut selected, &mut removal) {
            removal.failed.push((entry.name.clone(), error.to_string()));
        }
    }
    removal
}

fn remove_from<M: Medium + Clone>(
    medium: &M,
    entry: &Arc<SealedFile>,
    counter: u64,
    reason: &str,
    now: Timestamp,
    selected: &mut SelectedPackets<'_>,
    removal: &mut RemovalReport,
) -> io::Result<()> {
    let found = count(medium, entry, selected)?;
    if found.packets == 0 {
        return Ok(());
    }
    let has_others = found.packets < entry.footer.packets;
    if has_others {
        rewrite(medium, entry, counter, reason, now, selected)?;
    }
    medium.remove(&entry.name)?;
    medium.sync_names()?;
    removal.changed.push(Arc::clone(entry));
    removal.packets += found.packets;
    removal.bytes += found.bytes;
    removal.rewritten += u64::from(has_others);
    removal.removed += u64::from(!has_others);
    Ok(())
}

type SelectedPackets<'a> = dyn FnMut(Timestamp, &SpooledInterface, &[u8], u32) -> bool + 'a;

fn packets_of<M: Medium + Clone>(medium: &M, entry: &Arc<SealedFile>) -> Packets<M> {
    let only = Catalogue { sealed: vec![Arc::clone(entry)], ..Catalogue::default() };
    Packets::new(medium.clone(), &only, &Selection::default())
}

/// Refuses to rewrite a file that cannot be read completely, because that would lose its unreadable packets.
fn check_whole<M: Medium>(packets: &Packets<M>, entry: &SealedFile) -> io::Result<()> {
    let summary = packets.summary();
    if summary.damaged + summary.failed + summary.gone > 0 {
        let error = format!("{} is damaged or cannot be read, so nothing was removed from it", entry.name);
        return Err(io::Error::new(io::ErrorKind::InvalidData, error));
    }
    Ok(())
}

fn count<M: Medium + Clone>(
    medium: &M,
    entry: &Arc<SealedFile>,
    selected: &mut SelectedPackets<'_>,
) -> io::Result<RemovalReport> {
    let mut found = RemovalReport::default();
    let mut packets = packets_of(medium, entry);
    while let Some(one) = packets.next() {
        let packet = one.packet;
        if selected(packet.time, one.interface, packet.data, packet.original_len) {
            found.packets += 1;
            found.bytes += packet.data.len() as u64;
        }
    }
    check_whole(&packets, entry)?;
    Ok(found)
}

fn rewrite<M: Medium + Clone>(
    medium: &M,
    entry: &Arc<SealedFile>,
    counter: u64,
    reason: &str,
    now: Timestamp,
    selected: &mut SelectedPackets<'_>,
) -> io::Result<()> {
    let old = entry.footer.header;
    let id = FileId { epoch: old.id.epoch, counter };
    // What was in the clear is encrypted, too, if there is a key now.
    let coding = Coding { encrypted: medium.keys().writing().is_some(), ..old.coding };
    let header = Header { id, coding, replaces: Some(old.id.counter), created: now, ..old };
    let comments = [format!("packets were removed from this file on purpose at {now}: {reason}")];
    let mut packets = packets_of(medium, entry);
    let file = copy_packets(&mut packets, medium, header, &comments, &mut |one| {
        !selected(one.packet.time, one.interface, one.packet.data, one.packet.original_len)
    })?;
    check_whole(&packets, entry)?;
    finish(file, medium)
}
