//! Reports the sockets of this host as they open and close.
//!
//! Where the kernel permits it, [`tracer`](crate::tracer) sees sockets when their process connects, binds or sends. In
//! addition, sockets are scanned repeatedly: that finds those that existed before, those that were accepted, and, without
//! the tracer, all that live long enough.
//!
//! The watcher is a process of its own, because it needs privileges that the recorder drops, to read the descriptors of
//! other processes. It uses at most a tenth of one core, so a host with very many sockets is scanned less often.

use std::collections::{HashMap, HashSet};
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::conntrack::Conntrack;
use crate::host::{addresses, forks, processor_time};
use crate::known::{KnownSocket, name_of};
use crate::owners::{self, Holders};
use crate::process::{Certainty, Process, Source};
use crate::raw::{self, RawWatch};
use crate::report::{Report, SocketName};
use crate::sockets::{Protocol, Socket, SocketDiagnostics, now_ns};
use crate::tracer::{TracedSocket, Tracer};

/// Minimum time between two scans.
const PAUSE_MIN: Duration = Duration::from_millis(15);
/// Maximum time between two scans.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Pause for each unit of processor time that a scan takes, which limits the watcher to a tenth of one core.
const REST: u32 = 9;
/// Number of scans after which a socket without a visible process is reported with its user alone.
const TRIES: u8 = 3;
/// Maximum number of stored sockets; others are only counted.
const KNOWN_MAX: usize = 1 << 17;
/// Interval of writes even if nothing has changed.
const BEAT_INTERVAL: Duration = Duration::from_secs(2);
/// Minimum time between two examinations of the holders of sockets that receive from anybody, while processes are started: a
/// server may share them with workers.
const HOLDERS_INTERVAL: Duration = Duration::from_millis(100);
/// Maximum time between them: a socket can also be passed on to another process that was there before.
const HOLDERS_INTERVAL_MAX: Duration = Duration::from_secs(5);
/// Interval at which raw sockets from before the tracer are looked for.
const RAW_INTERVAL: Duration = Duration::from_secs(1);
/// Minimum time between two listings of all raw sockets, after events were lost.
const MISSED_INTERVAL: Duration = Duration::from_secs(1);
/// Interval of reports of the host's addresses.
const ADDRESSES_INTERVAL: Duration = Duration::from_secs(10);

/// Maximum number of sockets with the name of another one that one scan examines.
const SHARING_MAX: usize = 4096;

/// The state of a watcher.
#[derive(Debug)]
pub struct Watcher<'p> {
    proc: &'p Path,
    diagnostics: SocketDiagnostics,
    tracer: Option<Tracer>,
    traced: Vec<TracedSocket>,
    known: HashMap<SocketName, KnownSocket>,
    sockets: Vec<Socket>,
    raw: RawWatch,
    conntrack: Option<Conntrack>,
    round: u64,
    lost: u64,
    last_ns: u64,
    /// When the holders of sockets that receive from anybody were last examined.
    examined: Option<Instant>,
    /// The number of processes that were started until then.
    forks: Option<u64>,
    raw_looked: Option<(Instant, u64)>,
    /// What the tracer had lost when raw sockets were last listed, and when that was.
    missed: (u64, Option<Instant>),
    /// Processor time that was used beside scans.
    used_beside: Duration,
    addresses: Vec<IpAddr>,
    addressed: Option<Instant>,
}

impl<'p> Watcher<'p> {
    /// A watcher of this network namespace. `proc` is where proc(5) is mounted.
    ///
    /// # Errors
    ///
    /// When the kernel has no sock_diag.
    pub fn new(proc: &'p Path) -> io::Result<Self> {
        Ok(Self {
            proc,
            diagnostics: SocketDiagnostics::open()?,
            tracer: None,
            traced: Vec::new(),
            known: HashMap::new(),
            sockets: Vec::new(),
            raw: RawWatch::default(),
            conntrack: None,
            examined: None,
            forks: None,
            raw_looked: None,
            missed: (0, None),
            used_beside: Duration::ZERO,
            round: 0,
            lost: 0,
            last_ns: 0,
            addresses: Vec::new(),
            addressed: None,
        })
    }

    /// Also takes over what a tracer sees.
    #[must_use]
    pub fn with_tracer(self, tracer: Option<Tracer>) -> Self {
        Self { tracer, ..self }
    }

    /// Also reports which connections NAT translates.
    #[must_use]
    pub fn with_conntrack(self, conntrack: Option<Conntrack>) -> Self {
        Self { conntrack, ..self }
    }

    /// Watches until the reader of `out` has closed it. `why_untraced` says why there is no tracer.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to list its sockets.
    pub fn run(
        mut self,
        why_untraced: Option<String>,
        why_no_nat: Option<String>,
        mut out: impl Write,
    ) -> io::Result<()> {
        let method = if self.tracer.is_some() { Source::Ebpf } else { Source::SockDiag };
        let mut first = vec![Report::Method(method, why_untraced), Report::NatUnseen(why_no_nat)];
        let mut beat = Instant::now();
        loop {
            let (began, used_before) = (Instant::now(), processor_time());
            let mut reports = std::mem::take(&mut first);
            reports.extend(self.look()?);
            // Only a write detects that the pipe has no reader.
            if beat.elapsed() >= BEAT_INTERVAL {
                beat = began;
                reports.push(Report::Lost(self.lost()));
            }
            let mut text = Vec::new();
            for report in &reports {
                serde_json::to_writer(&mut text, report)?;
                text.push(b'\n');
            }
            if let Err(error) = out.write_all(&text).and_then(|()| out.flush()) {
                return if error.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error) };
            }
            let used = processor_time().saturating_sub(used_before) + std::mem::take(&mut self.used_beside);
            self.rest((used * REST).clamp(PAUSE_MIN, PAUSE_MAX));
        }
    }

    /// Rests before the next scan. The buffers of the kernel do not wait so long; what reading them takes counts for the next
    /// rest.
    fn rest(&mut self, time: Duration) {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(PAUSE_MIN));
            let before = processor_time();
            if let Some(tracer) = &mut self.tracer {
                tracer.read(&mut self.traced);
            }
            if let Some(conntrack) = &mut self.conntrack {
                conntrack.fetch();
            }
            self.used_beside += processor_time().saturating_sub(before);
        }
    }

    /// Scans once, and returns the changes.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to list its sockets.
    pub fn look(&mut self) -> io::Result<Vec<Report>> {
        let mut reports = Vec::new();
        self.look_at_addresses(&mut reports);
        let (before_ns, lost_before) = (self.last_ns, self.lost());
        self.take_traced(&mut reports);
        self.take_translations(&mut reports);
        self.look_at_raw(&mut reports);
        self.diagnostics.sockets(&mut self.sockets)?;
        self.last_ns = now_ns();
        self.round += 1;
        let examines = self.is_to_examine();
        let (unreported, sharing) = self.note_sockets(examines);
        self.known.retain(|socket, known| {
            let is_there = known.round == self.round;
            if !is_there && known.reported {
                reports.push(Report::Closed { time_ns: before_ns, socket: *socket });
            }
            is_there
        });
        if !(unreported.is_empty() && sharing.is_empty()) {
            self.name(&unreported, &sharing, &mut reports);
        }
        if examines || self.is_examined() {
            reports.push(Report::Examined(self.last_ns));
        }
        if self.lost() != lost_before {
            reports.push(Report::Lost(self.lost()));
        }
        Ok(reports)
    }

    /// Whether the holders of sockets that receive from anybody are to be examined in this scan.
    fn is_to_examine(&mut self) -> bool {
        let since = self.examined.map(|at| at.elapsed());
        let examines = since.is_none_or(|since| {
            since >= HOLDERS_INTERVAL_MAX
                || (since >= HOLDERS_INTERVAL && (self.forks.is_none() || !self.is_examined()))
        });
        if examines {
            (self.examined, self.forks) = (Some(Instant::now()), forks(self.proc));
        }
        examines
    }

    /// Whether no process was started since the last examination, so that nobody can have inherited a socket.
    fn is_examined(&self) -> bool {
        self.forks.is_some() && self.forks == forks(self.proc)
    }

    /// Looks for raw sockets: all of them without the tracer, which sees all but those that were there before it. When it has
    /// lost events, all of them again.
    fn look_at_raw(&mut self, reports: &mut Vec<Report>) {
        let now_ns = now_ns();
        let last_ns = self.raw_looked.map_or(now_ns, |(_, last_ns)| last_ns);
        let Some(tracer) = &self.tracer else {
            self.raw.look(self.proc, (last_ns, now_ns), reports);
            self.raw_looked = Some((Instant::now(), now_ns));
            return;
        };
        let lost = tracer.lost();
        let has_missed = lost != self.missed.0 && self.missed.1.is_none_or(|at| at.elapsed() >= MISSED_INTERVAL);
        if has_missed {
            self.missed = (lost, Some(Instant::now()));
            reports.push(Report::SocketsMissed(now_ns));
            self.raw.forget();
        }
        if has_missed || self.raw_looked.is_none() {
            self.raw.look(self.proc, (last_ns, now_ns), reports);
        } else if self.raw_looked.is_some_and(|(at, _)| at.elapsed() >= RAW_INTERVAL) {
            self.raw.look_at_known(self.proc, last_ns, reports);
        } else {
            return;
        }
        self.raw_looked = Some((Instant::now(), now_ns));
    }

    fn lost(&self) -> u64 {
        self.lost + self.tracer.as_ref().map_or(0, Tracer::lost) + self.conntrack.as_ref().map_or(0, Conntrack::lost)
    }

    fn take_translations(&mut self, reports: &mut Vec<Report>) {
        let Some(conntrack) = &mut self.conntrack else { return };
        let mut translations = Vec::new();
        conntrack.read(&mut translations);
        let time_ns = now_ns();
        if conntrack.take_missed() {
            reports.push(Report::TranslationsMissed(time_ns));
        }
        reports.extend(translations.into_iter().map(|translation| Report::Translated { time_ns, translation }));
    }

    /// Reports what the tracer has seen. Sockets that it saw open belong to the next scan, which must not close them.
    fn take_traced(&mut self, reports: &mut Vec<Report>) {
        let Some(tracer) = &mut self.tracer else { return };
        let mut traced = std::mem::take(&mut self.traced);
        tracer.read(&mut traced);
        reports.extend(tracer.take_raw().into_iter().map(raw::report));
        for TracedSocket { socket: name, since_ns, closed_ns, is_elsewhere, process } in traced.drain(..) {
            // A loopback address of another namespace is another host's.
            if name.local.port() == 0 || (is_elsewhere && (name.local.ip().is_loopback() || name.remote.port() == 0)) {
                continue;
            }
            let receives_from_anybody = name.remote.port() == 0;
            // A scan was faster: the same process accepted it.
            if closed_ns.is_none()
                && !receives_from_anybody
                && self.known.get(&name).is_some_and(|known| known.reported && known.pid == process.pid)
            {
                continue;
            }
            if closed_ns.is_none()
                && receives_from_anybody
                && !is_elsewhere
                && let Some(known) = self.known.get_mut(&name)
                && known.reported
            {
                // Another socket may share the name. The next scan finds out who has which.
                if !known.is_shared && known.pid != process.pid {
                    reports.push(Report::Closed { time_ns: since_ns, socket: name });
                    known.reported = false;
                }
                continue;
            }
            // Connections are reported when they are opened. A connected UDP socket is reported when it is closed, because its
            // port is not known before.
            let is_reported = if is_elsewhere {
                name.protocol == Protocol::Tcp
            } else {
                self.known.get(&name).is_some_and(|known| known.reported)
            };
            let pid = process.pid;
            if closed_ns.is_none() || !is_reported {
                let process = Process { other_namespace: is_elsewhere, ..(*process).clone() };
                reports.push(Report::Open { time_ns: since_ns, socket: name, process: Box::new(process) });
            }
            if let Some(time_ns) = closed_ns {
                self.known.remove(&name);
                reports.push(Report::Closed { time_ns, socket: name });
            } else if is_elsewhere {
                // No scan sees it. Its end is reported by the tracer.
            } else if self.known.len() < KNOWN_MAX {
                let known = KnownSocket {
                    reported: true,
                    pid,
                    is_held_by_others: receives_from_anybody,
                    alone_ns: since_ns,
                    round: self.round + 1,
                    ..KnownSocket::default()
                };
                self.known.insert(name, known);
            }
        }
        self.traced = traced;
    }

    /// Stores the existing sockets. Returns those that were not reported yet, and those that share a name with another one
    /// and were not examined yet.
    fn note_sockets(&mut self, examines: bool) -> (Vec<Socket>, Vec<Socket>) {
        let (mut unreported, mut sharing): (Vec<Socket>, Vec<Socket>) = (Vec::new(), Vec::new());
        for socket in &self.sockets {
            // A socket that no process has open is being closed by the kernel, or was never connected.
            if socket.inode == 0 || (socket.local.port() == 0) {
                continue;
            }
            let name = name_of(socket);
            let is_full = self.known.len() >= KNOWN_MAX;
            match self.known.get_mut(&name) {
                // The tracer does not know inodes.
                Some(known) if known.reported && known.inode == 0 => {
                    known.inode = socket.inode;
                    known.round = self.round;
                    if known.is_held_by_others {
                        unreported.push(*socket);
                    }
                }
                Some(known) if known.inode == socket.inode => {
                    known.round = self.round;
                    if !known.reported || (examines && socket.remote.port() == 0) {
                        unreported.push(*socket);
                    }
                }
                Some(known) => {
                    if !known.others.contains(&socket.inode) {
                        sharing.push(*socket);
                    }
                    known.others_there += 1;
                }
                None if is_full => self.lost += 1,
                None => {
                    let known = KnownSocket { inode: socket.inode, round: self.round, ..KnownSocket::default() };
                    self.known.insert(name, known);
                    unreported.push(*socket);
                }
            }
        }
        // A socket that took the place of another one, which is not listed any more, is reported by the next scan.
        sharing.retain(|socket| {
            self.known.get(&name_of(socket)).is_some_and(|known| known.round == self.round && !known.is_shared)
        });
        sharing.truncate(SHARING_MAX);
        self.forget_others();
        (unreported, sharing)
    }

    /// Forgets the other sockets of a name that are not there any more, such as those of workers that were replaced.
    fn forget_others(&mut self) {
        let mut fewer: HashSet<SocketName> = HashSet::new();
        for (name, known) in &mut self.known {
            if std::mem::take(&mut known.others_there) < known.others.len() {
                fewer.insert(*name);
            }
        }
        if !fewer.is_empty() {
            let there: HashSet<u32> = self
                .sockets
                .iter()
                .filter(|socket| fewer.contains(&name_of(socket)))
                .map(|socket| socket.inode)
                .collect();
            for name in &fewer {
                if let Some(known) = self.known.get_mut(name) {
                    known.others.retain(|inode| there.contains(inode));
                }
            }
        }
    }

    /// Finds the processes of sockets. Those that are `sharing` have the name of another one.
    fn name(&mut self, sockets: &[Socket], sharing: &[Socket], reports: &mut Vec<Report>) {
        let of_name = |socket: &Socket| self.known.get(&name_of(socket)).map(|known| known.inode);
        let inodes = sockets.iter().chain(sharing).map(|socket| socket.inode);
        let wanted: HashSet<u32> = inodes.chain(sharing.iter().filter_map(of_name)).collect();
        let mut holders = Holders::new(self.proc, owners::find(self.proc, &wanted));
        for socket in sharing {
            let Some(known) = self.known.get_mut(&name_of(socket)) else { continue };
            // A process that ends meanwhile is no other program.
            let is_held = |inode| holders.hold(inode);
            if !(is_held(known.inode) && is_held(socket.inode)) && known.tries < TRIES {
                known.tries += 1;
                continue;
            }
            let (mine, other) = (holders.program(known.inode, true), holders.program(socket.inode, true));
            let is_lost = known.share(socket, [mine, other], self.last_ns, reports);
            self.lost += u64::from(is_lost);
        }
        for socket in sockets {
            let name = name_of(socket);
            let Some(known) = self.known.get_mut(&name) else { continue };
            if known.is_shared || known.is_of_several {
                continue;
            }
            known.tries = known.tries.saturating_add(1);
            let is_held = holders.hold(socket.inode);
            let process = match holders.program(socket.inode, socket.remote.port() == 0) {
                Some(process) if known.reported && process.pid == known.pid => {
                    known.alone_ns = self.last_ns;
                    continue;
                }
                // Its process has ended.
                None if known.reported && !is_held => continue,
                Some(process) => process,
                None if known.tries < TRIES && !is_held => continue,
                None => Process::only_user(socket.uid),
            };
            // It was shared from some time after it was last seen alone.
            let since_ns = if process.certainty == Certainty::Program { known.alone_ns } else { self.last_ns };
            let time_ns = if since_ns == 0 { self.last_ns } else { since_ns };
            (known.reported, known.pid, known.alone_ns) = (true, process.pid, self.last_ns);
            reports.push(Report::Open { time_ns, socket: name, process: Box::new(process) });
        }
    }

    fn look_at_addresses(&mut self, reports: &mut Vec<Report>) {
        if self.addressed.is_some_and(|at| at.elapsed() < ADDRESSES_INTERVAL) {
            return;
        }
        self.addressed = Some(Instant::now());
        let text = |name: &str| std::fs::read_to_string(self.proc.join("self/net").join(name)).unwrap_or_default();
        let addresses = addresses(&text("fib_trie"), &text("if_inet6"));
        if addresses != self.addresses {
            self.addresses.clone_from(&addresses);
            reports.push(Report::Addresses(addresses));
        }
    }
}
