//! Messages to the supervisor: recording has begun, goes on, ends (`sd_notify(3)`).
//!
//! What always holds: the socket is connected before privileges are dropped, and nothing else is needed later. A supervisor
//! that does not listen has no effect on recording. The watchdog is fed only while every worker makes progress, so that a
//! recorder that runs without recording is restarted.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::pipe::PipeFlags;
use rustix::time::{ClockId, clock_gettime};

/// Checks of the workers within each watchdog period, so that one late check causes no restart.
const CHECKS_PER_TIMEOUT: u32 = 4;
/// An idle worker makes progress ten times a second.
const CHECK_INTERVAL_MIN: Duration = Duration::from_millis(250);

/// The connection to the supervisor, if there is one.
#[derive(Debug, Default)]
pub(super) struct Supervisor {
    socket: Option<UnixDatagram>,
    /// The watchdog period.
    watchdog: Option<Duration>,
    /// How many files it stores, if it says so (`FileDescriptorStoreMax=`).
    fd_store_max: Option<u32>,
}

/// How long a supervisor may take to read a message.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

impl Supervisor {
    /// As the environment describes it.
    pub(super) fn from_environment() -> Self {
        let text = |name| std::env::var(name).ok();
        let socket = std::env::var_os("NOTIFY_SOCKET");
        let this = Self::new(socket.as_deref(), text("WATCHDOG_USEC").as_deref(), text("WATCHDOG_PID").as_deref());
        Self { fd_store_max: text("FDSTORE").and_then(|max| max.parse().ok()), ..this }
    }

    pub(super) fn new(socket: Option<&OsStr>, watchdog_us: Option<&str>, watchdog_pid: Option<&str>) -> Self {
        let connected = socket.map(|address| {
            connect(address).inspect_err(|error| {
                tracing::warn!("cannot notify the supervisor: NOTIFY_SOCKET is {address:?}: {error}");
            })
        });
        let mine = watchdog_pid.is_none_or(|pid| pid.parse() == Ok(std::process::id()));
        let watchdog = watchdog_us.filter(|_| mine).and_then(|us| us.parse().ok()).filter(|&us: &u64| us > 0);
        Self {
            socket: connected.and_then(Result::ok),
            watchdog: watchdog.map(Duration::from_micros),
            fd_store_max: None,
        }
    }

    /// Reports that recording has begun, or goes on after a reload.
    pub(super) fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={}", one_line(status)));
    }

    /// Reports that a reload has begun; [`Supervisor::ready`] reports its end.
    pub(super) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let us = Duration::try_from(now).map_or(0, |now| now.as_micros());
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={us}"));
    }

    /// Reports that the recorder ends.
    pub(super) fn stopping(&self, why: &str) {
        self.send(&format!("STOPPING=1\nSTATUS={}", one_line(why)));
    }

    /// Whether there is a supervisor.
    pub(super) fn is_connected(&self) -> bool {
        self.socket.is_some()
    }

    /// How many files it stores; `None` if it does not say (systemd before 254).
    pub(super) fn fd_store_max(&self) -> Option<u32> {
        self.fd_store_max
    }

    /// Requests more time for the start or the end.
    pub(super) fn extend_timeout(&self, by: Duration) {
        self.send(&format!("EXTEND_TIMEOUT_USEC={}", by.as_micros()));
    }

    /// Gives it a file to store and to pass on to the next process.
    pub(super) fn store(&self, name: &str, file: BorrowedFd<'_>) -> io::Result<()> {
        self.send_with(&format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0"), file)
    }

    /// Makes it close all stored files of a name.
    pub(super) fn remove_stored(&self, name: &str) {
        let Some(socket) = &self.socket else { return };
        let message = format!("FDSTOREREMOVE=1\nFDNAME={name}");
        let sent = loop {
            match socket.send(message.as_bytes()) {
                // Worth waiting for, because otherwise they would stay stored.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => match wait(socket.as_fd(), PollFlags::OUT) {
                    Ok(true) => {}
                    Ok(false) => break Err(not_reading()),
                    Err(error) => break Err(error),
                },
                sent => break sent.map(drop),
            }
        };
        if let Err(error) = sent {
            tracing::warn!("cannot make the supervisor close the files that it stores: {error}");
        }
    }

    /// Waits until it has read all messages, because it ignores messages of a process that has ended.
    pub(super) fn wait_until_processed(&self) -> io::Result<()> {
        let (ours, theirs) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        self.send_with("BARRIER=1", theirs.as_fd())?;
        drop(theirs);
        if wait(ours.as_fd(), PollFlags::HUP)? { Ok(()) } else { Err(not_reading()) }
    }

    fn send_with(&self, message: &str, file: BorrowedFd<'_>) -> io::Result<()> {
        let Some(socket) = &self.socket else { return Err(io::ErrorKind::NotConnected.into()) };
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        loop {
            let mut control = SendAncillaryBuffer::new(&mut space);
            let files = [file];
            if !control.push(SendAncillaryMessage::ScmRights(&files)) {
                return Err(io::ErrorKind::OutOfMemory.into());
            }
            match sendmsg(socket, &[io::IoSlice::new(message.as_bytes())], &mut control, SendFlags::NOSIGNAL) {
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => {
                    if !wait(socket.as_fd(), PollFlags::OUT)? {
                        return Err(not_reading());
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Feeds the watchdog while every counter of `turns`, one for each worker, increases. Never ends.
    pub(super) async fn watch(&self, turns: impl Fn() -> Vec<u64>) {
        let (Some(watchdog), Some(_)) = (self.watchdog, &self.socket) else { return std::future::pending().await };
        let mut ticks = tokio::time::interval((watchdog / CHECKS_PER_TIMEOUT).max(CHECK_INTERVAL_MIN));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut before: Option<Vec<u64>> = None;
        let mut silent = false;
        loop {
            ticks.tick().await;
            let now = turns();
            let stuck = before.as_deref().and_then(|before| stuck(before, &now));
            match stuck {
                None => self.send("WATCHDOG=1"),
                Some(worker) if !silent => tracing::error!(
                    "worker {worker} makes no progress; the supervisor will restart this recorder within {watchdog:?}"
                ),
                Some(_) => {}
            }
            silent = stuck.is_some();
            before = Some(now);
        }
    }

    fn send(&self, message: &str) {
        // A supervisor that is restarting itself misses this message and gets the next.
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(message.as_bytes())
        {
            tracing::debug!("cannot send {message:?} to the supervisor: {error}");
        }
    }
}

/// Waits for an event of a file; false after [`READ_TIMEOUT`].
fn wait(file: BorrowedFd<'_>, event: PollFlags) -> io::Result<bool> {
    let end = Instant::now() + READ_TIMEOUT;
    loop {
        let left = Timespec::try_from(end.saturating_duration_since(Instant::now())).map_err(io::Error::other)?;
        let mut fds = [PollFd::from_borrowed_fd(file, event)];
        match rustix::event::poll(&mut fds, Some(&left)) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn not_reading() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the supervisor does not read its messages")
}

/// The first worker without progress.
fn stuck(before: &[u64], now: &[u64]) -> Option<usize> {
    before.iter().zip(now).position(|(before, now)| before == now)
}

/// An address as `NOTIFY_SOCKET` has it: a path, or an abstract name after `@`.
fn connect(address: &OsStr) -> io::Result<UnixDatagram> {
    let address = match address.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None if address.as_bytes().starts_with(b"/") => SocketAddr::from_pathname(address)?,
        None => return Err(io::Error::new(io::ErrorKind::Unsupported, "neither a path nor an abstract name")),
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    // A supervisor that does not read must not stop the recorder.
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// What stands on one line of the protocol.
fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(address: &SocketAddr) -> UnixDatagram {
        let socket = UnixDatagram::bind_addr(address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket
    }

    fn heard(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    #[test]
    fn it_is_notified_at_a_path_and_at_an_abstract_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let name = format!("retrocap-test-{}", std::process::id());
        for (address, text) in [
            (SocketAddr::from_pathname(&path).unwrap(), path.to_str().unwrap().to_owned()),
            (SocketAddr::from_abstract_name(&name).unwrap(), format!("@{name}")),
        ] {
            let listening = listen(&address);
            let supervisor = Supervisor::new(Some(OsStr::new(&text)), None, None);
            supervisor.ready("recording\nall");
            assert_eq!(heard(&listening), "READY=1\nSTATUS=recording all");
            supervisor.reloading();
            let reloading = heard(&listening);
            let since = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
            assert!(since.parse::<u64>().unwrap() > 0);
            supervisor.stopping("SIGTERM");
            assert_eq!(heard(&listening), "STOPPING=1\nSTATUS=SIGTERM");
        }
    }

    #[test]
    fn without_a_supervisor_nothing_happens() {
        for address in [None, Some("/nowhere/at/all"), Some("vsock:2:1234"), Some("")] {
            let supervisor = Supervisor::new(address.map(OsStr::new), Some("1000000"), None);
            assert!(supervisor.socket.is_none(), "{address:?}");
            supervisor.ready("recording");
        }
    }

    #[test]
    fn the_watchdog_is_that_of_this_process() {
        let me = std::process::id().to_string();
        let watchdog = |us, pid| Supervisor::new(None, us, pid).watchdog;
        assert_eq!(watchdog(Some("30000000"), None), Some(Duration::from_secs(30)));
        assert_eq!(watchdog(Some("30000000"), Some(&*me)), Some(Duration::from_secs(30)));
        for (us, pid) in [(Some("30000000"), Some("1")), (Some("0"), None), (Some("x"), None), (None, Some(&*me))] {
            assert_eq!(watchdog(us, pid), None, "{us:?} {pid:?}");
        }
    }

    #[test]
    fn one_worker_that_stands_still_is_enough() {
        assert_eq!(stuck(&[1, 2], &[2, 3]), None);
        assert_eq!(stuck(&[1, 2], &[2, 2]), Some(1));
        assert_eq!(stuck(&[], &[]), None, "a replay has nobody to watch");
    }

    #[test]
    fn a_full_queue_blocks_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let _listening = listen(&SocketAddr::from_pathname(&path).unwrap());
        let supervisor = Supervisor::new(Some(path.as_os_str()), None, None);
        for _ in 0..10_000 {
            supervisor.send("WATCHDOG=1");
        }
    }
}
