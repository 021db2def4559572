//! The third phase: the history is there, and nothing runs yet.

use super::resources::Resources;
use super::running::Running;
use crate::confinement::Confinement;
use crate::error::Error;
use crate::reload::Reload;
use engine::budget::ByteSize;
use query::History;

/// A confined process with its history.
#[derive(Debug)]
pub struct Restored {
    pub(super) resources: Resources,
    pub(super) confinement: Confinement,
    pub(super) history: History,
}

impl Restored {
    /// Starts the threads that record, answer and log. On SIGHUP, `reload` returns the settings that apply from then on.
    ///
    /// # Errors
    ///
    /// When the system refuses a thread.
    pub fn start(self, reload: Option<Reload>) -> Result<Running, Error> {
        Running::start(self.resources, &self.confinement, self.history, reload)
    }

    /// Logs what will run.
    pub(super) fn announce(&self) {
        let Self { resources: Resources { settings, split, socket, audit, remote, not_locked, .. }, .. } = self;
        let what = match (&settings.replay, settings.interface.as_slice()) {
            (Some(path), _) if path.as_os_str() == "-" => "standard input".to_owned(),
            (Some(path), _) => path.display().to_string(),
            (None, []) => "all interfaces".to_owned(),
            (None, names) => names.join(", "),
        };
        let filter = settings.filter.as_deref().map(|filter| format!(" ({filter})")).unwrap_or_default();
        let workers = u64::from(split.workers);
        let locked = self.history.workers.iter().all(|worker| worker.segments.are_locked());
        tracing::info!(
            "recording {what}{filter} into {} (packets {}, sessions {}, kernel rings {}, queries {}; {}) with {workers} {}; \
             socket {} for {}; {}; {}; {audit}",
            ByteSize(split.budget_bytes),
            ByteSize(workers * split.store_bytes),
            ByteSize(workers * split.sessions_bytes),
            ByteSize(split.rings_bytes()),
            ByteSize(split.queries_bytes),
            if locked { "locked in RAM" } else { "not locked, may be swapped out" },
            if workers == 1 { "worker" } else { "workers" },
            settings.socket.display(),
            if socket.for_group { "its owner and the group retrocap" } else { "its owner alone" },
            self.confinement.privileges,
            self.confinement.sandbox,
        );
        if let Some(reason) = not_locked {
            tracing::warn!("memory for answers and compression is not locked in RAM: {reason}");
        }
        remote.announce();
    }
}
