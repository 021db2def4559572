//! The log of sessions of a spool without a recorder.

use std::sync::Arc;

use anyhow::Context as _;

use base::interface::Interfaces;
use base::time::Timestamp;
use query::logged::SessionLog;
use sessionlog::shared::SharedLog;
use sessionlog::tree::LogTree;
use spool::directory::Directory;

/// The log in a directory, and the time of its latest row; `None` if there is none.
pub(super) fn open(
    directory: &Directory,
    interfaces: &Arc<Interfaces>,
) -> anyhow::Result<Option<(Arc<dyn SessionLog>, Timestamp)>> {
    let tree = Arc::new(LogTree::new(directory.descriptor().try_clone()?));
    let files = tree.list().context("cannot read the log of sessions")?;
    let Some(latest) = files.last().map(|file| file.times()) else { return Ok(None) };
    let log = SharedLog::new(tree, Arc::clone(interfaces));
    log.publish(files);
    let mut end = Timestamp::MIN;
    log.read((latest.0, Timestamp::MAX), &mut |row| {
        end = end.max(row.session.last);
        true
    });
    Ok(Some((Arc::new(log), end)))
}
