//! Which process of this host has which connection.
//!
//! ```text
//!  watcher, a process of its own                                recorder, without privileges
//!  sock_diag: sockets ─► inode ─► /proc/PID/fd ─► process ──►  pipe ──► Table ◄── queries: who had this session?
//! ```
//!
//! - [`watcher`]: looks at the sockets of the network namespace again and again, and reports those that are new or gone.
//! - [`sockets`] asks the kernel for sockets, [`owners`] finds the processes that hold them, [`process`] describes these,
//!   and [`container`] reads container and unit out of the name of a cgroup.
//! - [`report`]: what the watcher tells the recorder, one line of JSON each.
//! - [`table`]: a fixed number of sockets and processes, which answers who had a session.
//!
//! Invariants: a session is never named by a guess. A socket that processes with different programs share has no owner,
//! and a session is named only while its socket was seen. What does not fit into the table is counted, and costs a name
//! and never a packet. There is no work for a packet.
#![forbid(unsafe_code)]

pub mod container;
pub mod owners;
pub mod process;
pub mod report;
pub mod sockets;
pub mod table;
pub mod watcher;

#[cfg(test)]
mod tests;
