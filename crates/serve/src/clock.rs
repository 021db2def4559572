//! The wall clock of the service. The packet path has none: its time comes with packets.

use std::time::SystemTime;

use base::time::Timestamp;

pub(crate) fn now() -> Timestamp {
    SystemTime::now().into()
}
