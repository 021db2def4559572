//! Finds out which process of this host has which connection.
//!
//! ```text
//!  watcher, a process of its own                                recorder, without privileges
//!  eBPF: connect, bind, send ─────────────────► process ─┐
//!  sock_diag: sockets ─► inode ─► /proc/PID/fd ─► process ─┴► pipe ──► Table ◄── queries: who had this session?
//! ```
//!
//! - [`tracer`]: programs in the kernel that report which process connects, binds or sends, where the kernel permits it.
//!   A process that lives for a few milliseconds is named only by them.
//! - [`watcher`]: scans the sockets of the network namespace repeatedly, and reports new and closed ones.
//! - [`raw`]: sockets without ports, of ICMP and other protocols. [`conntrack`] reads which connections NAT translates, and
//!   [`translations`] finds a session on the other side.
//! - [`sockets`] asks the kernel for sockets, [`owners`] finds the processes that hold them, [`process`] describes
//!   these, and [`container`] reads container and unit out of the name of a cgroup.
//! - [`report`]: the events that the watcher sends to the recorder, one line of JSON each.
//! - [`table`]: a bounded table of sockets and processes, which finds the process of a session.
//!
//! Invariants: a session is never named by a guess. A socket that processes with different programs share has no owner,
//! and a socket names only sessions of the time in which it was seen. The table counts sockets that it forgets; such a
//! socket costs a name, never a packet. The packet path does no work for this.
#![forbid(unsafe_code)]

pub mod conntrack;
pub mod container;
mod events;
mod host;
mod known;
pub mod lifetime;
mod netlink;
pub mod owners;
pub mod process;
pub mod raw;
pub mod report;
pub mod sockets;
pub mod table;
pub mod tracer;
pub mod translations;
pub mod watcher;

#[cfg(test)]
mod tests;
