//! The log of sessions of a spool without a recorder.

use std::sync::Arc;

use anyhow::Context as _;

use base::interface::Interfaces;
use base::time::Timestamp;
use query::logged::SessionLog;
use sessionlog::shared::SharedLog;
use sessionlog::tree::LogTree;
use spool::directory::Directory;
use spool::medium::Medium as _;

/// A log, and the times from which on and until which it has rows.
pub(super) type OpenLog = (Arc<dyn SessionLog>, (Timestamp, Timestamp));

/// The log in a directory; `None` if there is none.
pub(super) fn open(directory: &Directory, interfaces: &Arc<Interfaces>) -> anyhow::Result<Option<OpenLog>> {
    let tree = Arc::new(LogTree::new(directory.descriptor().try_clone()?, directory.keys().clone()));
    let files = tree.list().context("cannot read the log of sessions")?;
    let (Some(first), Some(latest)) = (files.first().map(|file| file.times().0), files.last().map(|file| file.times()))
    else {
        return Ok(None);
    };
    let log = SharedLog::new(tree, Arc::clone(interfaces));
    log.publish(files);
    // If the latest files cannot be read, packets tell of their hour.
    let mut end = Timestamp(latest.0.0.saturating_sub(1));
    log.read((latest.0, Timestamp::MAX), &mut |row| {
        end = end.max(row.session.last);
        true
    });
    Ok(Some((Arc::new(log), (first, end))))
}
