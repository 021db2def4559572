//! The settings of the recorder: from the table (`table.rs`), the configuration file and the command line.
//!
//! Flags win over the file, and the file over the defaults. A file with any mistake is refused as a whole.

mod file;
mod row;
mod sample;
mod table;
mod types;
mod value;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::LazyLock;

pub use file::FileMistake;
pub use row::{DefaultValue, Flag, Reload};
pub use sample::sample;
pub use table::{Settings, rows};
pub use types::{FeedFormat, Keep, Percent, Speed, SpoolSessions, UnlistedClients};

use crate::memory_limit::{self, BudgetError};
use engine::judge::Class;
use engine::store::retention::Policy;
use serve::audit;
use serve::pcap_over_ip::Feed;
use serve::tls::{ClientRules, TlsFiles};
use serve::{RetentionTarget, ServiceLimits};
use value::Value;

/// One setting.
pub type Row = row::Row<Settings>;

/// The default audit log when interfaces are recorded: in the directory that the service manager gave, or root's usual one.
/// It is decided once, because a reload has no root's rights any more.
static AUDIT_LOG: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
    let given = std::env::var_os("LOGS_DIRECTORY").filter(|given| !given.is_empty());
    let directory = given.and_then(|given| std::env::split_paths(&given).next());
    let directory = directory.or_else(|| rustix::process::geteuid().is_root().then(|| "/var/log/retrocap".into()));
    directory.map(|directory| directory.join("audit.log"))
});

/// Why settings do not go together.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A flag's value.
    #[error("--{0}: {1}")]
    Flag(&'static str, String),
    /// A pace without a replay.
    #[error("--speed is for a replay: add --replay big.pcap, or leave out --speed")]
    SpeedWithoutReplay,
    /// Options of PCAP-over-IP without an address.
    #[error("PCAP-over-IP has no address: add --pcap-over-ip 127.0.0.1:57012")]
    FeedWithoutAddress,
    /// An audit policy without a log.
    #[error("--audit needs a file: add --audit-log FILE, or leave out --audit")]
    AuditWithoutLog,
}

/// The classes that come with the program.
const SHIPPED_CLASSES: &str = include_str!("../../../../packaging/classes.toml");
/// The one of them that applies by default.
const INDUSTRIAL: &str = "industrial";

impl Settings {
    /// The classes of the settings, and the shipped class `industrial` unless they have one of that name.
    pub fn all_classes(&self) -> Vec<Class> {
        let mut classes = self.classes.clone();
        if classes.iter().all(|class| class.name != INDUSTRIAL) {
            let shipped = Self::read(SHIPPED_CLASSES).map(|settings| settings.classes).unwrap_or_default();
            classes.extend(shipped.into_iter().filter(|class| class.name == INDUSTRIAL));
        }
        classes
    }

    /// Reads the text of a configuration file.
    ///
    /// # Errors
    ///
    /// All mistakes in it, in the order of their lines.
    pub fn read(text: &str) -> Result<Self, Vec<FileMistake>> {
        file::read(text)
    }

    /// Takes over flags with their values: those of a switch are `true`.
    ///
    /// # Errors
    ///
    /// A value that is not understood.
    pub fn take_flags(&mut self, flags: &[(&'static Row, Vec<OsString>)]) -> Result<(), SettingsError> {
        for (row, words) in flags {
            let excludes = row.flag.and_then(|flag| flag.excludes);
            if let Some(other) = rows().find(|other| Some(other.name) == excludes) {
                (other.reset)(self);
            }
            (row.read)(self, Value::Flag(words)).map_err(|error| SettingsError::Flag(row.name, error))?;
        }
        let tls = flags.iter().any(|(row, _)| row.name == "pcap-over-ip-tls");
        if tls && self.pcap_over_ip.is_empty() { Err(SettingsError::FeedWithoutAddress) } else { Ok(()) }
    }

    /// Checks what settings need of each other, and fills in the defaults that depend on others.
    ///
    /// # Errors
    ///
    /// When they do not go together.
    pub fn complete(mut self) -> Result<Self, SettingsError> {
        if !self.interface.is_empty() {
            self.replay = None;
        }
        if self.replay.is_none() && self.speed != Speed::default() {
            return Err(SettingsError::SpeedWithoutReplay);
        }
        let feed = !self.pcap_over_ip_past.is_zero() || self.pcap_over_ip_format != FeedFormat::default();
        if self.pcap_over_ip.is_empty() && feed {
            return Err(SettingsError::FeedWithoutAddress);
        }
        // Whoever records a host has reads of it logged, unless another policy is set.
        if self.audit_log.is_none() && self.replay.is_none() {
            self.audit_log = AUDIT_LOG.clone();
        }
        let default = if self.audit_log.is_some() { audit::Policy::Required } else { audit::Policy::Off };
        let policy = *self.audit.get_or_insert(default);
        if self.audit_log.is_none() && policy != audit::Policy::Off {
            return Err(SettingsError::AuditWithoutLog);
        }
        Ok(self)
    }

    /// What of `new` differs and takes effect at this time, as the log names it.
    pub fn changes(&self, new: &Self, reload: Reload) -> Vec<String> {
        let mut labels = Vec::new();
        for row in rows().filter(|row| row.reload == reload && (row.differs)(self, new)) {
            let label = label(row);
            if !labels.contains(&label) {
                labels.push(label);
            }
        }
        labels
    }

    /// Takes over what takes effect at a reload.
    pub fn adopt_reloaded(&mut self, new: &Self) {
        for row in rows().filter(|row| row.reload == Reload::Now) {
            (row.adopt)(self, new);
        }
    }

    /// The memory budget in bytes.
    ///
    /// # Errors
    ///
    /// When the machine, or the cgroup, does not have so much.
    pub fn memory_bytes(&self) -> Result<u64, BudgetError> {
        memory_limit::budget_bytes(self.memory)
    }

    /// Bytes of a budget that the spool takes for its buffers and index; 0 without a spool.
    pub fn spool_memory_bytes(&self, budget_bytes: u64) -> u64 {
        const DIVISOR: u64 = 16;
        const MIN: u64 = 8 << 20;
        self.spool.as_ref().map_or(0, |_| (budget_bytes / DIVISOR).max(MIN))
    }

    /// Whether interfaces are recorded, and not a capture.
    pub fn is_live(&self) -> bool {
        self.replay.is_none()
    }

    /// Workers of this recording: a capture has one.
    pub fn workers_used(&self) -> u32 {
        if self.is_live() { self.workers.max(1) } else { 1 }
    }

    /// Whether interfaces are set to promiscuous mode.
    pub fn uses_promiscuous(&self) -> bool {
        self.promiscuous && !self.no_promiscuous
    }

    /// Whether privileges are dropped once everything is open.
    pub fn drops_privileges(&self) -> bool {
        !self.no_drop_privileges
    }

    /// The curve by which old sessions are shortened.
    pub fn retention(&self) -> Policy {
        match (self.retention_alpha, self.retention_keep) {
            (Some(alpha), _) => Policy::steepness(alpha),
            (None, Keep::Balanced) => Policy::default(),
            (None, keep) => Policy::steepness(keep.alpha()),
        }
    }

    /// How far back the history must reach.
    pub fn retention_target(&self) -> RetentionTarget {
        RetentionTarget { starts: self.health_starts, whole: self.health_whole }
    }

    /// How much load the service accepts.
    pub fn limits(&self) -> ServiceLimits {
        ServiceLimits {
            connections_max: self.limits_connections,
            remote_connections_max: self.limits_remote_connections,
            handshake_timeout: self.limits_handshake_timeout,
            head_timeout: self.limits_head_timeout,
            stall_timeout: self.limits_stall_timeout,
            queue_timeout: self.limits_queue_timeout,
            ..ServiceLimits::default()
        }
    }

    /// Where reads are logged.
    pub fn audit_log(&self) -> audit::Config {
        audit::Config {
            policy: self.audit.unwrap_or_default(),
            path: self.audit_log.clone().unwrap_or_default(),
            size_max: self.audit_log_size.0,
            keep: self.audit_log_keep,
            record: self.evidence_key.is_some(),
        }
    }

    /// The recorder's certificates.
    pub fn certificates(&self) -> TlsFiles {
        TlsFiles { ca: self.ca.clone(), cert: self.cert.clone(), key: self.key.clone() }
    }

    /// What clients on other machines may do.
    pub fn remote_clients(&self) -> ClientRules {
        let only_listed = self.unlisted_clients == UnlistedClients::Nothing;
        ClientRules { listed: self.clients.clone().into(), only_listed }
    }

    /// What PCAP-over-IP sends.
    pub fn feed(&self) -> Feed {
        let (format, precision) = self.pcap_over_ip_format.format();
        Feed { past: self.pcap_over_ip_past, format, precision }
    }
}

/// What the log calls a row: its section, where that changes as a whole.
fn label(row: &Row) -> String {
    let list = table::SECTIONS.iter().any(|section| section.name == row.section && section.add.is_some());
    match row.section {
        "" => row.name.to_owned(),
        section if list => format!("[[{section}]]"),
        section => format!("[{section}]"),
    }
}

#[cfg(test)]
mod tests;
