//! Monitors the changes of interfaces in a thread.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::SystemTime;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use rustix::net::RecvFlags;

use super::interfaces::{BUFFER_BYTES, RTMGRP_LINK, links, netlink_socket, reports};
use super::selection::{InterfaceSelection, Link};
use base::interface::{GapReason, InterfaceGap, Interfaces, LinkChange, LinkState};
use base::log_limit::LogLimit;
use base::time::Timestamp;

/// A thread that keeps an [`InterfaceSelection`] and the interface table current. Dropping the value ends the thread.
///
/// The thread sleeps until the kernel reports a change. It needs no privileges.
#[derive(Debug)]
pub struct Monitor {
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Monitor {
    /// Subscribes to the interfaces of the calling thread's network namespace, lists them, and starts the thread. The
    /// thread calls `begin` first.
    ///
    /// # Errors
    ///
    /// Errors of the netlink socket, of the first dump, and of starting the thread.
    pub fn start(
        selection: Arc<InterfaceSelection>,
        interfaces: Arc<Interfaces>,
        begin: impl FnOnce() + Send + 'static,
    ) -> io::Result<Self> {
        let socket = netlink_socket(RTMGRP_LINK)?;
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let listener = LinkListener { socket, stop: Arc::clone(&stop), selection, interfaces };
        // The subscription precedes the dump, so that changes during the dump are reported after it.
        listener.resync()?;
        let thread = std::thread::Builder::new().name("interfaces".to_owned()).spawn(move || {
            begin();
            listener.run();
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Monitor {
    /// Returns whether the thread is still running. If not, later changes of interfaces are not noticed.
    pub fn is_watching(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        // An eventfd accepts any eight bytes that are not all ones.
        let _ = rustix::io::write(&self.stop, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct LinkListener {
    socket: OwnedFd,
    stop: Arc<OwnedFd>,
    selection: Arc<InterfaceSelection>,
    interfaces: Arc<Interfaces>,
}

impl LinkListener {
    fn run(&self) {
        let mut buffer = vec![0; BUFFER_BYTES];
        // After a failed dump, wake up soon for another attempt. Otherwise only events wake the thread.
        let mut retry: Option<Timespec> = None;
        loop {
            let mut fds = [PollFd::new(&*self.stop, PollFlags::IN), PollFd::new(&self.socket, PollFlags::IN)];
            match poll(&mut fds, retry.as_ref()) {
                Err(Errno::INTR) => continue,
                Err(error) => {
                    tracing::error!("interfaces are no longer watched: {error}");
                    return;
                }
                Ok(_) if !fds[0].revents().is_empty() => return,
                Ok(_) => {}
            }
            let resync = match rustix::net::recv(&self.socket, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((length, _)) => {
                    apply(&buffer[..length], &self.selection, &self.interfaces);
                    retry.is_some()
                }
                Err(Errno::AGAIN | Errno::INTR) => retry.is_some(),
                // ENOBUFS means that reports were lost. A new dump is the only remedy for other errors, too.
                Err(error) => {
                    tracing::debug!("interfaces are listed again: {error}");
                    true
                }
            };
            retry = None;
            if resync && let Err(error) = self.resync() {
                static LIMIT: LogLimit = LogLimit::new();
                if let Some(left_out) = LIMIT.admit() {
                    tracing::warn!("cannot list interfaces, trying again: {error}{left_out}");
                }
                retry = Some(Timespec { tv_sec: 1, tv_nsec: 0 });
            }
        }
    }

    fn resync(&self) -> io::Result<()> {
        let links = links()?;
        self.selection.refresh(links.clone());
        for gone in self.interfaces.snapshot().iter().filter(|i| i.gone.is_none() && i.index != 0) {
            if !links.iter().any(|link| link.index == gone.index) {
                report(&self.interfaces.set_link(gone.index, &gone.name, LinkState::Gone, now()));
            }
        }
        links.iter().for_each(|link| note(link, &self.selection, &self.interfaces));
        Ok(())
    }
}

/// Applies the changes in a netlink datagram to the selection and to the interface table.
pub fn apply(datagram: &[u8], selection: &InterfaceSelection, interfaces: &Interfaces) {
    for (interface, gone) in reports(datagram) {
        let link = Link::from(interface);
        if gone {
            selection.forget(link.index);
            report(&interfaces.set_link(link.index, &link.name, LinkState::Gone, now()));
        } else {
            selection.learn(link.clone());
            note(&link, selection, interfaces);
        }
    }
}

/// Updates an interface in the table.
fn note(link: &Link, selection: &InterfaceSelection, interfaces: &Interfaces) {
    if selection.contains(link.index) {
        let _ = selection.register(interfaces, link.index, &link.name, link.hatype);
    }
    let state = if link.up { LinkState::Up } else { LinkState::Down };
    report(&interfaces.set_link(link.index, &link.name, state, now()));
}

fn now() -> Timestamp {
    Timestamp::from(SystemTime::now())
}

/// Logs that recording from an interface stopped or resumed. Each kind of message has its own limit, so that a flapping
/// interface does not hide that another is gone.
fn report(changes: &[LinkChange]) {
    static DOWN: LogLimit = LogLimit::new();
    static GONE: LogLimit = LogLimit::new();
    static RENAMED: LogLimit = LogLimit::new();
    static UP: LogLimit = LogLimit::new();

    for change in changes {
        let (limit, line) = match change {
            LinkChange::Began(InterfaceGap { name, reason: GapReason::Down, .. }) => {
                (&DOWN, format!("interface {name} is down: nothing is recorded from it until it is up"))
            }
            LinkChange::Began(InterfaceGap { name, reason: GapReason::Gone, .. }) => {
                (&GONE, format!("interface {name} is gone: nothing is recorded from it until it is back"))
            }
            LinkChange::Began(InterfaceGap { name, reason: GapReason::Renamed(new), .. }) => {
                (&RENAMED, format!("interface {name} was renamed to {new}: its packets are recorded under that name"))
            }
            LinkChange::Ended(InterfaceGap { name, from, until, .. }) => {
                let seconds = until.map_or(0.0, |until| until.since(*from).as_secs_f64());
                (&UP, format!("interface {name} is up again after {seconds:.1} s"))
            }
        };
        if let Some(left_out) = limit.admit() {
            tracing::warn!("{line}{left_out}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_monitor_takes_over_what_is_there_and_ends_when_dropped() {
        let (selection, interfaces) = (Arc::new(InterfaceSelection::new(&[])), Arc::new(Interfaces::default()));
        let monitor = Monitor::start(Arc::clone(&selection), Arc::clone(&interfaces), || {}).unwrap();
        assert!(selection.links().iter().any(|link| link.loopback));
        assert!(interfaces.snapshot().iter().any(|interface| interface.name == "lo"));
        drop(monitor);
        assert_eq!(Arc::strong_count(&selection), 1);
    }
}
