//! Handing the history over across a restart: in sealed files in memory, which the supervisor stores meanwhile (`FDSTORE=1`
//! of `sd_notify(3)`).
//!
//! ```text
//!  stop:   workers end ─ history written to files, its memory freed ─ each sealed, given to the supervisor ─ end
//!  start:  confined ─ seals, owner and completeness checked ─ the supervisor closes its files ─ history read
//! ```
//!
//! What always holds: memory never holds a second copy of the history, beyond one file. Nothing is read before its seals are
//! checked. The supervisor closes its files before anything is read, so that a history that this version cannot read is
//! offered only once.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, memfd_create};

use super::confinement::Confinement;
use super::notify::Supervisor;
use base::interface::Interfaces;
use base::time::{Timestamp, human_age};
use engine::budget::ByteSize;
use engine::handover::chunk::{HandoverError, PartStore, Reader, Writer};
use engine::handover::{self, RestartReport};
use engine::judge::Pins;
use engine::pipeline::Pipeline;

/// The name of the files at the supervisor.
const NAME: &str = "retrocap-history";
/// The first descriptor that a supervisor passes (`sd_listen_fds(3)`).
const FIRST_FD: i32 = 3;
/// Descriptors that are examined at most.
const FDS_MAX: usize = 4096;
/// Files that a history is written to, unless the supervisor stores fewer.
const FILES_MAX: u64 = 32;
const FILE_BYTES_MIN: u64 = 4 << 20;
/// The seals of a file that cannot change any more.
const SEALED: SealFlags = SealFlags::SEAL.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::WRITE);
/// Time that writing or reading one file may take.
const FILE_TIMEOUT: Duration = Duration::from_secs(20);

/// The files that the supervisor has passed to this process.
#[derive(Debug, Default)]
pub(super) struct InheritedHistory {
    files: Vec<OwnedFd>,
    /// A file has the right name, but is not a file in memory.
    foreign: bool,
}

impl InheritedHistory {
    /// As the environment describes them. Only the first call finds them.
    pub(super) fn from_environment() -> Self {
        let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<usize>().ok());
        if number("LISTEN_PID") != usize::try_from(std::process::id()).ok() {
            return Self::default();
        }
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let names: Vec<&str> = names.split(':').collect();
        let count = number("LISTEN_FDS").unwrap_or(0).min(FDS_MAX);
        let named = |number: usize| names.get(number) == Some(&NAME);
        let files: Vec<_> = sys::inherited_memory_files(FIRST_FD, count)
            .into_iter()
            .filter_map(|(number, file)| named(number).then_some(file))
            .collect();
        Self { foreign: (0..count).filter(|number| named(*number)).count() > files.len(), files }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty() && !self.foreign
    }

    /// Checks that it is a history that can be read, and that nobody can change meanwhile.
    fn open(self) -> Result<Reader<File>, HandoverError> {
        if self.foreign {
            return Err(HandoverError::Foreign);
        }
        let me = rustix::process::geteuid().as_raw();
        for file in &self.files {
            if !fcntl_get_seals(file).map_err(io::Error::from)?.contains(SEALED) {
                return Err(HandoverError::Unsealed("it is not sealed"));
            }
            let owner = fstat(file).map_err(io::Error::from)?.st_uid;
            if owner != me && owner != 0 {
                return Err(HandoverError::Unsealed("it belongs to another user"));
            }
        }
        Reader::new(self.files.into_iter().map(File::from).collect())
    }

    /// Reads it, if it can be read, in a process that is confined already. The supervisor closes its files before.
    pub(super) fn take_over(
        self,
        _: &Confinement,
        supervisor: &Supervisor,
        now: Timestamp,
        interfaces: &Interfaces,
        pins: &Pins,
        pipelines: &mut [Pipeline],
    ) -> RestartReport {
        if self.is_empty() {
            return RestartReport::default();
        }
        let start = Instant::now();
        supervisor.extend_timeout(FILE_TIMEOUT * u32::try_from(self.files.len()).unwrap_or(1));
        let opened = self.open();
        supervisor.remove_stored(NAME);
        let before = match opened {
            Err(refused) => RestartReport { problem: Some(refused.to_string()), ..RestartReport::default() },
            Ok(mut reader) => handover::read(&mut reader, now, interfaces, pins, pipelines),
        };
        log_outcome(&before, start.elapsed());
        before
    }

    /// Discards it.
    pub(super) fn discard(self, supervisor: &Supervisor) {
        if !self.is_empty() {
            supervisor.remove_stored(NAME);
            tracing::info!("the history of the last recorder is discarded, because a capture is replayed");
        }
    }
}

fn log_outcome(before: &RestartReport, took: Duration) {
    let taken = &before.restored;
    let what = format!(
        "{} packets ({}) and {} sessions of the last recorder taken over in {took:.0?}",
        taken.packets,
        ByteSize(taken.bytes),
        taken.sessions
    );
    let gap = before.gaps.last().map_or(Duration::ZERO, |gap| gap.until.since(gap.from));
    match &before.problem {
        Some(problem) if taken.packets == 0 => {
            tracing::warn!(
                "the history of the last recorder cannot be taken over, and this one starts empty: {problem}"
            );
        }
        Some(problem) => tracing::warn!("{what}, but not all of it: {problem}"),
        None if taken.lost_packets > 0 => tracing::warn!(
            "{what}; {} packets found no room; nothing was recorded for {}",
            taken.lost_packets,
            human_age(gap)
        ),
        None => tracing::info!("{what}; nothing was recorded for {}", human_age(gap)),
    }
}

/// Files in memory, stored by the supervisor.
struct SupervisorStore<'a>(&'a Supervisor);

impl PartStore for SupervisorStore<'_> {
    type File = File;

    fn make(&mut self) -> io::Result<File> {
        self.0.extend_timeout(FILE_TIMEOUT);
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        // Linux before 6.3 does not know this flag.
        let file = memfd_create(NAME, flags | MemfdFlags::NOEXEC_SEAL).or_else(|_| memfd_create(NAME, flags))?;
        Ok(File::from(file))
    }

    fn keep(&mut self, file: File) -> io::Result<()> {
        fcntl_add_seals(&file, SEALED)?;
        self.0.store(NAME, file.as_fd())
    }
}

/// Hands the history over to the next recorder, if there is a supervisor to store it meanwhile.
pub(super) fn hand_over(
    supervisor: &Supervisor,
    budget_bytes: u64,
    before: &RestartReport,
    stopped: Timestamp,
    interfaces: &Interfaces,
    pins: &Pins,
    pipelines: &mut [Pipeline],
) {
    let files = supervisor.fd_store_max().map_or(FILES_MAX, |max| u64::from(max).saturating_sub(1).min(FILES_MAX));
    if !supervisor.is_connected() || files == 0 {
        return;
    }
    let start = Instant::now();
    // Files of an earlier handover that no recorder took.
    supervisor.remove_stored(NAME);
    // Two recorders do not stop at the same nanosecond with the same process ID.
    let whole = stopped.0 ^ u64::from(std::process::id()) << 32;
    let file_bytes = (budget_bytes / files).max(FILE_BYTES_MIN);
    let mut writer = Writer::new(SupervisorStore(supervisor), whole, file_bytes);
    let written = handover::write(&mut writer, before, stopped, interfaces, pins, pipelines)
        .and_then(|()| writer.finish())
        .and_then(|(_, files, bytes)| supervisor.wait_until_processed().map(|()| (files, bytes)));
    match written {
        Ok((files, bytes)) => tracing::info!(
            "history handed over to the next recorder: {} in {files} parts, in {:.0?}",
            ByteSize(bytes),
            start.elapsed()
        ),
        Err(error) => {
            supervisor.remove_stored(NAME);
            tracing::warn!("the history cannot be handed over to the next recorder, and is lost: {error}");
        }
    }
}
