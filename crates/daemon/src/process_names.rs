//! The second process, which names processes: it is started with privileges that the recorder then drops.
//!
//! ```text
//! retrocap run ── starts, while it has privileges ──► retrocap watch-sockets   loads the programs of the tracer, and
//!      ▲                                                      │                keeps CAP_SYS_PTRACE and
//!      │                                                      │                CAP_DAC_READ_SEARCH alone; reads no packet
//!      └──────────────── lines of JSON through a pipe ────────┘
//! ```
//!
//! It ends when the recorder ends, and the recorder goes on without names if it ends.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::SystemTime;

use caps::{CapSet, Capability, CapsHashSet};

use super::error::{Error, system};
use super::priority;
use processes::conntrack::Conntrack;
use processes::report::{LINE_BYTES_MAX, Report};
use processes::table::SocketTable;
use processes::tracer::Tracer;

/// The command of the second process.
pub const COMMAND: &str = "watch-sockets";
/// What it needs to see whose descriptors are open.
const NEEDED: [Capability; 2] = [Capability::CAP_SYS_PTRACE, Capability::CAP_DAC_READ_SEARCH];
/// Bytes of the stack of the thread that listens to it.
const STACK_BYTES: usize = 256 << 10;

/// The second process.
#[derive(Debug)]
pub(super) struct Watcher(Child);

impl Watcher {
    /// Starts it. Call it before privileges are dropped.
    pub(super) fn start() -> Result<Self, Error> {
        let mut command = Command::new("/proc/self/exe");
        command.arg(COMMAND).env_clear().stdin(Stdio::null()).stdout(Stdio::piped());
        command.spawn().map(Self).map_err(system("start the process that watches sockets"))
    }

    /// Takes its reports over into a table of so many bytes, on a thread that calls `enter` first.
    pub(super) fn listen(
        mut self,
        bytes_max: u64,
        enter: impl FnOnce() + Send + 'static,
    ) -> Result<Arc<SocketTable>, Error> {
        let table = Arc::new(SocketTable::new(usize::try_from(bytes_max).unwrap_or(usize::MAX)));
        let Some(reports) = self.0.stdout.take() else { return Ok(table) };
        let shared = Arc::clone(&table);
        let thread = std::thread::Builder::new().name("retrocap-names".to_owned()).stack_size(STACK_BYTES);
        let listen = move || {
            enter();
            let mut lines = BufReader::new(reports);
            let mut line = Vec::new();
            loop {
                line.clear();
                match lines.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
                    Ok(bytes) if bytes > 0 => {}
                    _ => break,
                }
                match serde_json::from_slice::<Report>(&line) {
                    Ok(report) => {
                        if let Report::Method(_, Some(reason)) = &report {
                            tracing::warn!("processes of brief connections are not named: {reason}");
                        }
                        shared.take(report);
                    }
                    Err(error) => tracing::debug!("cannot parse a report about sockets: {error}"),
                }
            }
            shared.end(now_ns());
            tracing::warn!("processes are no longer named: the process that watches sockets has ended");
        };
        thread.spawn(listen).map_err(system("start the thread that names processes"))?;
        Ok(table)
    }
}

/// The second process: watches sockets until the recorder is gone.
///
/// # Errors
///
/// When the kernel does not list its sockets.
pub fn watch() -> std::io::Result<()> {
    let tracer = Tracer::new(Path::new("/proc"));
    let conntrack = Conntrack::open(Path::new("/proc"));
    restrict();
    // After the change of privileges, which would undo it.
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    // A watcher that waits for a processor misses sockets; it limits its use itself.
    priority::normal();
    let (tracer, why_untraced) = match tracer {
        Ok(tracer) => (Some(tracer), None),
        Err(error) => (None, Some(error.to_string())),
    };
    let why_no_nat = conntrack.as_ref().err().map(|error| format!("connection tracking cannot be read: {error}"));
    let watcher = processes::watcher::Watcher::new(Path::new("/proc"))?;
    let watcher = watcher.with_tracer(tracer).with_conntrack(conntrack.ok());
    watcher.run(why_untraced, why_no_nat, std::io::stdout().lock())
}

/// Drops all privileges but those that are needed. What cannot be dropped does not keep it from its work.
fn restrict() {
    let permitted = caps::read(None, CapSet::Permitted).unwrap_or_default();
    let kept: CapsHashSet = NEEDED.into_iter().filter(|capability| permitted.contains(capability)).collect();
    let dropped = caps::clear(None, CapSet::Ambient)
        .and_then(|()| caps::set(None, CapSet::Effective, &kept))
        .and_then(|()| caps::set(None, CapSet::Permitted, &kept))
        .and_then(|()| caps::clear(None, CapSet::Inheritable));
    if let Err(error) = dropped {
        eprintln!("retrocap {COMMAND}: privileges were not dropped: {error}");
    }
    if let Err(error) = rustix::thread::set_no_new_privs(true) {
        eprintln!("retrocap {COMMAND}: no_new_privs was not set: {error}");
    }
}

fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
