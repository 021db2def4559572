//! What ends a recorder.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use crate::error::{Error, system};

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
    pub(super) fn listen(self) -> Result<impl Future<Output = &'static str>, Error> {
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
