//! A program that was built without the feature `session-log` makes sessions of packets.

use std::sync::Arc;

use base::interface::Interfaces;
use base::time::Timestamp;
use query::logged::SessionLog;
use spool::directory::Directory;

#[expect(clippy::unnecessary_wraps, reason = "the other module can fail")]
pub(super) fn open(_: &Directory, _: &Arc<Interfaces>) -> anyhow::Result<Option<(Arc<dyn SessionLog>, Timestamp)>> {
    Ok(None)
}
