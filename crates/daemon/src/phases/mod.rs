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
mod resources;
mod restored;
mod running;
mod stop;

pub use confined::Confined;
pub use opened::Opened;
pub use restored::Restored;
pub use running::Running;
pub use stop::StopCondition;

#[cfg(test)]
mod tests;
