//! Selects sessions by the process or the container that had them.

use clap::Args;

/// The process of a session.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Selection")]
pub(crate) struct ProcessSelection {
    /// Only sessions of this process of the recorder's host: its number, its name, or the path of its program. The
    /// recorder has to run with --processes
    #[arg(long, value_name = "NAME|PID", conflicts_with = "name")]
    pub(crate) process: Option<String>,
    /// Only sessions of processes in this container (runtime:id, or the start of the id), pod or systemd unit
    #[arg(long, value_name = "NAME", conflicts_with = "name")]
    pub(crate) container: Option<String>,
}

impl ProcessSelection {
    /// Whether anything is selected.
    pub(crate) fn is_given(&self) -> bool {
        self.process.is_some() || self.container.is_some()
    }
}
