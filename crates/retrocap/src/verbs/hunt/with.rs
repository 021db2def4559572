//! `hunt --with PROGRAM`: runs a program of the user over the selection, and turns its alerts back into sessions.
//!
//! The program gets a classic capture file on its standard input, because libpcap refuses pcapng with several link types or
//! snapshot lengths. So it gets packets of one link type, that of the first packet; the others are counted.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::{Args, ValueEnum};

use crate::alert::{Alert, Alerts};
use crate::error::Usage;
use crate::terminal::printable::{note, plain};
use crate::verbs::packet_pipe::PacketPipe;
use base::interface::Interface;
use base::packet::Packet;
use base::time::Timestamp;
use engine::session::Endpoint;
use formats::writer::{Format, Options, Precision};
use query::search::SearchTarget;
use query::selectors::Flow;
use streams::{Event, Session};

/// Sessions that are remembered, to find those that alerts name.
const SESSIONS_MAX: usize = 400_000;
/// Lines of a program's errors that are repeated.
const ERROR_LINES: usize = 5;
/// How far the time of an alert may lie outside of its session.
const SLACK: Duration = Duration::from_secs(1);
/// Fields of a packet that tshark prints.
const FIELDS: [&str; 10] = [
    "frame.time_epoch",
    "ip.src",
    "ipv6.src",
    "ip.dst",
    "ipv6.dst",
    "tcp.srcport",
    "tcp.dstport",
    "udp.srcport",
    "udp.dstport",
    "_ws.col.Info",
];

/// A program that finds something in packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Program {
    /// Its alerts, by its own rules
    Suricata,
    /// Its notices, signatures and intelligence
    Zeek,
    /// The packets of a display filter: -- -Y 'http.request'
    Tshark,
}

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Programs")]
pub(super) struct WithArgs {
    /// Run this program over the packets; its alerts are the matches
    #[arg(long = "with", value_name = "PROGRAM", value_enum,
        conflicts_with_all = ["text", "bytes", "regex", "ioc", "attack", "follow"])]
    pub(super) program: Option<Program>,
    /// Arguments of the program, as in: --with suricata -- -S new.rules
    #[arg(last = true, value_name = "ARGS")]
    arguments: Vec<String>,
}

impl WithArgs {
    /// Refuses arguments without a program, and tshark without a filter.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        match self.program {
            None if !self.arguments.is_empty() => {
                Err(Usage::of("what follows -- goes to the program of --with suricata, zeek or tshark: name one"))
            }
            Some(Program::Tshark) if self.arguments.is_empty() => {
                Err(Usage::of("name what tshark is to find, as in --with tshark -- -Y 'http.request.method == PUT'"))
            }
            _ => Ok(()),
        }
    }
}

impl Program {
    fn name(self) -> &'static str {
        match self {
            Self::Suricata => "suricata",
            Self::Zeek => "zeek",
            Self::Tshark => "tshark",
        }
    }

    /// Where to get the program.
    fn package(self) -> &'static str {
        match self {
            Self::Suricata => "install the package suricata (Debian 12 has it in bookworm-backports)",
            Self::Zeek => "install the package zeek (docs.zeek.org says from where)",
            Self::Tshark => "install the package tshark",
        }
    }

    fn command(self, arguments: &[String], folder: &Path) -> Command {
        let mut command = Command::new(self.name());
        match self {
            // Packets of the past often have no valid checksums, and a pipe cannot be read ahead.
            Self::Suricata => {
                command.args(["-r", "/dev/stdin", "-k", "none", "--set", "pcap-file.buffer-size=0", "-l"]).arg(folder)
            }
            Self::Zeek => command.args(["-C", "-r", "-", "LogAscii::use_json=T"]),
            Self::Tshark => {
                command.args(["-n", "-r", "-", "-T", "fields"]);
                command.args(FIELDS.iter().flat_map(|field| ["-e", field]))
            }
        };
        command.args(arguments).current_dir(folder);
        command
    }
}

/// A running program, and the sessions of the packets that it gets.
pub(super) struct Running {
    program: Program,
    child: Child,
    pipe: PacketPipe,
    folder: tempfile::TempDir,
    /// Packets of other link types.
    left_out: u64,
    sessions: HashMap<[IpAddr; 2], Vec<Session>>,
    session_count: usize,
}

impl Running {
    /// Starts the program.
    pub(super) fn start(with: &WithArgs, program: Program) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("cannot make a folder for the program's output")?;
        let file = |name: &str| std::fs::File::create(folder.path().join(name)).context("cannot make a file");
        let mut command = program.command(&with.arguments, folder.path());
        command.stdin(Stdio::piped()).stdout(file("stdout")?).stderr(file("stderr")?);
        let name = program.name();
        let mut child = command.spawn().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => anyhow!("there is no program {name}: {}", program.package()),
            _ => anyhow!("cannot start {name}: {error}"),
        })?;
        let options = Options { precision: Precision::Micro, ..Options::default() };
        let pipe = PacketPipe::new(child.stdin.take(), Format::Pcap, options);
        Ok(Self { program, child, pipe, folder, left_out: 0, sessions: HashMap::new(), session_count: 0 })
    }

    /// Passes a packet on. Breaks off when the program reads no more.
    pub(super) fn packet(&mut self, interface: &Interface, packet: &Packet<'_>) -> ControlFlow<()> {
        self.pipe.packet(interface, packet).unwrap_or_else(|_| {
            self.left_out += 1;
            ControlFlow::Continue(())
        })
    }

    /// Notes a session that has ended.
    pub(super) fn event(&mut self, session: &Session, event: &Event<'_>) {
        if *event == Event::End
            && self.session_count < SESSIONS_MAX
            && let (Some(a), Some(b)) = (session.originator().ip, session.responder().ip)
        {
            self.session_count += 1;
            self.sessions.entry([a.min(b), a.max(b)]).or_default().push(session.clone());
        }
    }

    /// Ends the input, waits for the program, and passes on each alert with its session. Returns how many alerts name no
    /// session of the selection.
    pub(super) fn end(mut self, each: &mut dyn FnMut(&Session, &Alert)) -> anyhow::Result<u64> {
        self.pipe.end();
        let name = self.program.name();
        let status = self.child.wait().with_context(|| format!("cannot wait for {name}"))?;
        if !status.success() {
            return Err(anyhow!("{name} failed ({status}): {}", self.errors()));
        }
        if self.left_out > 0 {
            note(&format!("retrocap: {} packets of other link types were not given to {name}", self.left_out));
        }
        let mut unknown = 0;
        for alert in self.alerts()? {
            match self.session(&alert) {
                Some(session) => each(session, &alert),
                None => unknown += 1,
            }
        }
        Ok(unknown)
    }

    /// The last lines of what the program wrote about its errors.
    fn errors(&self) -> String {
        let text = std::fs::read(self.folder.path().join("stderr")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text[text.len().saturating_sub(16 << 10)..]).into_owned();
        let lines: Vec<&str> = text.lines().rev().filter(|line| !line.trim().is_empty()).take(ERROR_LINES).collect();
        plain(&lines.into_iter().rev().collect::<Vec<_>>().join("; ")).into_owned()
    }

    fn alerts(&self) -> anyhow::Result<Vec<Alert>> {
        let files: &[&str] = match self.program {
            Program::Suricata => &["eve.json"],
            Program::Zeek => &["notice.log", "signatures.log", "intel.log"],
            Program::Tshark => return self.packets(),
        };
        let mut all = Vec::new();
        for name in files {
            let path = self.folder.path().join(name);
            let Ok(file) = std::fs::File::open(&path) else { continue };
            let read = Alerts::read_events(BufReader::new(file), false);
            let alerts = read.map_err(|error| anyhow!("cannot read {name} of {}: {error}", self.program.name()))?;
            if alerts.broken_count > 0 || alerts.cut {
                let cut = if alerts.cut { "; it has more than 100,000 alerts" } else { "" };
                note(&format!("retrocap: {} lines of {name} cannot be read{cut}", alerts.broken_count));
            }
            all.extend(alerts.alerts);
        }
        if self.program == Program::Suricata && !self.folder.path().join("eve.json").exists() {
            return Err(anyhow!("suricata wrote no eve.json: enable eve-log in its configuration"));
        }
        Ok(all)
    }

    /// The packets that tshark printed.
    fn packets(&self) -> anyhow::Result<Vec<Alert>> {
        let file =
            std::fs::File::open(self.folder.path().join("stdout")).context("cannot read the output of tshark")?;
        let lines = BufReader::new(file).split(b'\n').map_while(Result::ok).take(crate::alert::ALERTS_MAX);
        Ok(lines.filter_map(|line| packet(&String::from_utf8_lossy(&line))).collect())
    }

    /// The session that an alert names.
    fn session(&self, alert: &Alert) -> Option<&Session> {
        let at = |session: &&Session| {
            session.first.saturating_sub(SLACK) <= alert.end && alert.start <= session.last.saturating_add(SLACK)
        };
        match &alert.names {
            SearchTarget::Flow(flow) => {
                let [a, b] = flow.ends();
                let sessions = self.sessions.get(&[a.0.min(b.0), a.0.max(b.0)])?;
                let of = || sessions.iter().filter(|session| names(flow, session));
                of().find(at).or_else(|| of().next_back())
            }
            SearchTarget::Host(host) => {
                let ends =
                    |session: &&Session| [session.originator().ip, session.responder().ip].contains(&Some(*host));
                self.sessions.values().flatten().filter(ends).find(at)
            }
            SearchTarget::CommunityId(_) => None,
        }
    }
}

/// Whether a session has the ports and the protocol that an alert names.
fn names(flow: &Flow, session: &Session) -> bool {
    let [a, b] = flow.ends();
    let is = |(ip, port): (IpAddr, u16), end: Endpoint| end.ip == Some(ip) && (port == 0 || port == end.port);
    let (originator, responder) = (session.originator(), session.responder());
    let ports = matches!(session.key.protocol(), 6 | 17 | 132);
    let ends = (is(a, originator) && is(b, responder)) || (is(a, responder) && is(b, originator)) || !ports;
    ends && flow.protocol.is_none_or(|protocol| protocol == session.key.protocol())
}

/// A packet that tshark printed.
fn packet(line: &str) -> Option<Alert> {
    let fields: Vec<&str> = line.split('\t').collect();
    let field = |at: usize| fields.get(at).map(|field| field.split(',').next().unwrap_or_default());
    let either = |a: usize, b: usize| field(a).filter(|text| !text.is_empty()).or_else(|| field(b));
    let ip = |a, b| either(a, b)?.parse::<IpAddr>().ok();
    let port = |a, b| either(a, b).and_then(|port| port.parse().ok()).unwrap_or(0);
    let (source, destination) = (ip(1, 2)?, ip(3, 4)?);
    let time = field(0).and_then(time)?;
    Some(Alert {
        line: 0,
        kind: crate::alert::Kind::Session,
        name: fields.get(9).map_or("packet", |info| info.trim()).chars().take(200).collect(),
        id: None,
        start: time,
        end: time,
        names: SearchTarget::Flow(Flow { a: (source, port(5, 7)), b: (destination, port(6, 8)), protocol: None }),
    })
}

/// Seconds since 1970 with a fraction.
fn time(text: &str) -> Option<Timestamp> {
    base::time::parse(&format!("@{text}"), Timestamp::MIN, &jiff::tz::TimeZone::UTC).ok()
}
