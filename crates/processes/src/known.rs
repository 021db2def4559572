//! What the watcher knows of a socket, or of several with one name.

use std::collections::HashSet;

use crate::process::Process;
use crate::report::{Report, SocketName};
use crate::sockets::Socket;

/// Maximum number of other sockets of one name that are examined.
const OTHERS_MAX: usize = 4096;

/// An existing socket, or several that share a name (`SO_REUSEPORT`).
#[derive(Clone, Debug, Default)]
pub(crate) struct KnownSocket {
    /// 0 for a socket that no scan has seen yet.
    pub(crate) inode: u32,
    pub(crate) tries: u8,
    pub(crate) reported: bool,
    /// The process id that was reported.
    pub(crate) pid: Option<u32>,
    /// Whether the tracer reported a socket that receives from anybody. A service manager binds such sockets for others, so
    /// a scan looks for the process that holds it.
    pub(crate) is_held_by_others: bool,
    /// The last time at which the reported process was known to hold it alone.
    pub(crate) alone_ns: u64,
    /// Other sockets of this name that the same program has.
    pub(crate) others: HashSet<u32>,
    /// How many sockets of this name, beside it, the present scan has listed.
    pub(crate) others_there: usize,
    /// Whether these belong to several processes.
    pub(crate) is_of_several: bool,
    /// Whether different programs have sockets of this name, so that none of them is named.
    pub(crate) is_shared: bool,
    pub(crate) round: u64,
}

impl KnownSocket {
    /// Another socket has its name: `mine` holds it, and `other` holds the other one. True if their programs differ, so that none
    /// of them is named.
    pub(crate) fn share(
        &mut self,
        socket: &Socket,
        [mine, other]: [Option<Process>; 2],
        last_ns: u64,
        reports: &mut Vec<Report>,
    ) -> bool {
        let name = name_of(socket);
        let path = |process: &Option<Process>| process.as_ref().and_then(|process| process.path.clone());
        let is_same = path(&mine).is_some() && path(&mine) == path(&other);
        if is_same
            && self.others.len() < OTHERS_MAX
            && let (Some(mine), Some(other)) = (mine, other)
        {
            self.others.insert(socket.inode);
            if mine.pid != other.pid && !self.is_of_several {
                let process = Box::new(mine.of_program(&other));
                reports.push(Report::Open { time_ns: self.alone_ns.max(1), socket: name, process });
                (self.is_of_several, self.reported, self.pid) = (true, true, None);
            }
            return false;
        }
        if self.reported {
            reports.push(Report::Closed { time_ns: last_ns, socket: name });
        }
        (self.is_shared, self.reported) = (true, true);
        true
    }
}

pub(crate) fn name_of(socket: &Socket) -> SocketName {
    SocketName { protocol: socket.protocol, local: socket.local, remote: socket.remote }
}
