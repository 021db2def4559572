//! The life of a recorder. Each phase is a type that only the one before it can make, so that a wrong order of steps does
//! not compile.
//!
//! ```text
//! Opened ──── confine() ──► Confined ──── restore() ──► Restored ──── start() ──► Running ──── run() ──► end
//! everything   privileges    nothing can    the history   no untrusted  threads     service,    history handed
//! is open      dropped,      be opened      of the last   byte was read start       reload,     over
//!              sandbox       any more       recorder      before                    stop
//! ```
//!
//! The right order:
//!
//! ```no_run
//! use daemon::phases::{Opened, StopCondition};
//! # fn main() -> Result<(), daemon::Error> {
//! let settings = daemon::Settings::default();
//! Opened::open(settings)?.confine()?.restore()?.start(None)?.run(StopCondition::Signal)
//! # }
//! ```
//!
//! Threads cannot start while the process has its privileges:
//!
//! ```compile_fail,E0599
//! # use daemon::phases::{Opened, StopCondition};
//! # fn main() -> Result<(), daemon::Error> {
//! # let settings = daemon::Settings::default();
//! Opened::open(settings)?.start(None)?.run(StopCondition::Signal)
//! # }
//! ```
//!
//! Nor is the history of another process read then:
//!
//! ```compile_fail,E0599
//! # use daemon::phases::Opened;
//! # fn main() -> Result<(), daemon::Error> {
//! # let settings = daemon::Settings::default();
//! Opened::open(settings)?.restore()?;
//! # Ok(())
//! # }
//! ```
//!
//! And privileges cannot be dropped late, once a later phase has begun:
//!
//! ```compile_fail,E0382
//! # use daemon::phases::{Opened, StopCondition};
//! # fn main() -> Result<(), daemon::Error> {
//! # let settings = daemon::Settings::default();
//! let opened = Opened::open(settings)?;
//! let running = opened.confine()?.restore()?.start(None)?;
//! opened.confine()?;
//! running.run(StopCondition::Signal)
//! # }
//! ```

mod confined;
mod opened;
mod restored;
mod running;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

pub use confined::Confined;
pub use opened::Opened;
pub use restored::Restored;
pub use running::Running;

use super::error::{Error, system};

/// What ends a recorder.
#[derive(Debug)]
pub enum StopCondition {
    /// SIGTERM or SIGINT.
    Signal,
    /// A message, or the end of its sender. Signals keep their default actions.
    Requested(oneshot::Receiver<()>),
}

impl StopCondition {
    /// Listens from now on. The future resolves to the reason.
    fn listen(self) -> Result<impl Future<Output = &'static str>, Error> {
        let listen = |kind| signal(kind).map_err(system("listen for signals"));
        let (requested, mut signals) = match self {
            Self::Requested(stop) => (Some(stop), None),
            Self::Signal => (None, Some((listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?))),
        };
        Ok(async move {
            match (requested, &mut signals) {
                (Some(stop), _) => {
                    let _ = stop.await;
                    "as requested"
                }
                (None, Some((terminate, interrupt))) => {
                    tokio::select! { _ = terminate.recv() => "SIGTERM", _ = interrupt.recv() => "SIGINT" }
                }
                (None, None) => unreachable!("it waits for one of the two"),
            }
        })
    }
}

#[cfg(test)]
mod tests;
