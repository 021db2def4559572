//! Formats the status for people: first the summary, then what share of sessions is left, then facts about losses and
//! memory, and last the interfaces.

use std::fmt::Write as _;
use std::time::Duration;

use crate::terminal::human::{count, counted, printed_time as read_time, seconds, size};
use crate::terminal::interface_lines::{InterfaceLines, gap};
use crate::terminal::screen::{BOLD, CYAN, GREEN, RED, Screen};
use crate::terminal::session_tables::endpoint;
use crate::terminal::spool_page;
use base::counters::DropReason;
use base::foreign::Foreign;
use base::time::{self, Timestamp};
use jiff::tz::TimeZone;
use query::status::{
    CarriedCounts, OddityCounts, ProcessNaming, RankStatus, RestartStatus, SandboxStatus, Source, Status,
};

/// How to show the status. Together with the status it determines the output.
#[derive(Clone, Debug)]
pub(crate) struct View {
    /// What the summary is about.
    pub(crate) heading: Heading,
    /// Width and colour.
    pub(crate) screen: Screen,
    /// Time zone of the times shown.
    pub(crate) tz: TimeZone,
}

/// The subject of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heading {
    /// A recorder.
    Recording {
        /// The current time, from which ages count.
        now: Timestamp,
    },
    /// A replayed capture file. Ages count from its newest packet.
    Replayed,
    /// A damaged capture file, replayed up to the damage.
    ReplayedInPart,
}

/// Clock steps up to this size do not make a recording look like a replay.
const CLOCK_STEP: Duration = Duration::from_secs(3600);
/// Width of the labels in the list of facts.
const LABEL_COLUMNS: usize = 11;

/// The whole page, with line feeds.
pub(crate) fn status(status: &Status, view: &View) -> String {
    let mut page = StatusPage { out: String::new(), status, view };
    page.answer();
    page.coverage();
    page.facts();
    page.largest();
    page.interfaces();
    page.out
}

struct StatusPage<'a> {
    out: String,
    status: &'a Status,
    view: &'a View,
}

impl StatusPage<'_> {
    /// The time from which ages count. A recorder that replays a capture has a newest packet from before its own start;
    /// then ages count from that packet.
    fn now(&self) -> Timestamp {
        let newest = self.status.retained.newest.as_ref().and_then(read_time);
        match self.view.heading {
            Heading::Recording { now } => {
                let began = now.saturating_sub(seconds(self.status.uptime_s).saturating_add(CLOCK_STEP));
                newest.filter(|newest| *newest < began).unwrap_or(now)
            }
            Heading::Replayed | Heading::ReplayedInPart => newest.unwrap_or_default(),
        }
    }

    /// Parses a time of the status, and returns it with its age.
    fn point(&self, time: Option<&Foreign>) -> Option<(Timestamp, Duration)> {
        let time = read_time(time?)?;
        Some((time, self.now().since(time)))
    }

    /// Packets lost against the user's intention.
    fn lost(&self) -> u64 {
        let lost = self.status.packets.dropped.saturating_sub(self.left_out());
        lost.saturating_add(self.status.packets.kernel_dropped)
    }

    /// Packets dropped by the cutoff of their class, as configured.
    fn left_out(&self) -> u64 {
        self.status.dropped.get(&DropReason::ClassCutoff.as_str().into()).copied().unwrap_or(0)
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        self.view.screen.paint(colour, text)
    }

    fn answer(&mut self) {
        let status = self.status;
        let age = time::human_age(seconds(status.uptime_s));
        let answer = match self.view.heading {
            Heading::Recording { .. } => {
                let up = status.interfaces.iter().filter(|interface| interface.up).count();
                format!("recording {} for {age}", counted(up as u64, "interface"))
            }
            Heading::Replayed | Heading::ReplayedInPart => format!(
                "{}kept {} of {} in {age} ({} of {})",
                if self.view.heading == Heading::ReplayedInPart { "BEFORE THE DAMAGE " } else { "" },
                count(status.packets.retained),
                counted(status.packets.received, "packet"),
                size(status.bytes.retained),
                size(status.bytes.received)
            ),
        };
        let reach = match status.coverage.last() {
            Some(all) if all.sessions > 0 => {
                format!("{} of {} still have their start", share(all.first_packet), counted(all.sessions, "session"))
            }
            _ => "no session so far".to_owned(),
        };
        let loss = match self.lost() {
            0 if self.view.heading == Heading::ReplayedInPart => self.paint(RED, "the rest cannot be read"),
            0 => self.paint(GREEN, "nothing lost"),
            lost => self.paint(RED, &format!("LOST {}", counted(lost, "packet"))),
        };
        let (answer, reach) = (self.paint(BOLD, &answer), self.paint(BOLD, &reach));
        let _ = writeln!(self.out, "{answer}, {loss}, {reach}");
    }

    /// The share of sessions that is still there, by start time and by depth.
    fn coverage(&mut self) {
        let periods: Vec<_> = self.status.coverage.iter().filter(|period| period.sessions > 0).collect();
        if !periods.is_empty() {
            self.out.push_str("\nshare of sessions that still have all of their\n");
            self.out.push_str("  began             sessions  first packet  first kB  first 10 kB   packets\n");
        }
        for period in periods {
            let began = if period.period == "all" {
                "ever".to_owned()
            } else {
                format!("in the last {}", period.period.terminal())
            };
            let cell = |value: f64, width: usize| {
                let colour = if value >= 0.9 { GREEN } else { CYAN };
                self.paint(colour, &format!("{:>width$}", share(value)))
            };
            let cells = [
                cell(period.first_packet, 12),
                cell(period.first_kb, 8),
                cell(period.first_10kb, 11),
                cell(period.whole, 8),
            ];
            let _ = writeln!(self.out, "  {began:<15} {:>10}  {}", count(period.sessions), cells.join("  "));
        }
        if let Some((whole_since, age)) = self.point(self.status.retained.whole_since.as_ref()) {
            let (since, age) = (time::local(whole_since, &self.view.tz), time::human_age(age));
            let zone = time::zone(whole_since, &self.view.tz);
            let packet = if self.lost() > 0 { "packet that was recorded" } else { "packet" };
            let _ = writeln!(self.out, "every {packet} is there since {since} {zone} ({age})");
        }
    }

    /// The sessions and the hosts with the most memory.
    fn largest(&mut self) {
        for (at, largest) in self.status.largest.iter().enumerate() {
            let flow = &largest.flow;
            let (from, to) = (endpoint(&flow.originator), endpoint(&flow.responder));
            let text = format!("{} of {from} > {to} {}", size(largest.kept_bytes), flow.proto.terminal());
            self.fact(if at == 0 { "largest" } else { "" }, &text);
        }
        for (at, host) in self.status.largest_hosts.iter().enumerate() {
            let address = host.ip.as_ref().or(host.mac.as_ref()).map(|address| address.terminal().to_string());
            let sessions = counted(host.sessions, "session");
            let text = format!("{} of {} with {sessions}", size(host.kept_bytes), address.unwrap_or_default());
            self.fact(if at == 0 { "hosts" } else { "" }, &text);
        }
    }

    fn facts(&mut self) {
        let Status { packets, memory, sessions, carried, oddities, capture, .. } = self.status;
        self.out.push('\n');
        self.fact(
            "packets",
            &format!(
                "{} received, {} filtered, {} kept, {} evicted",
                count(packets.received),
                count(packets.filtered),
                count(packets.retained),
                count(packets.evicted)
            ),
        );
        let mut reasons = vec![("the kernel's ring was full".to_owned(), packets.kernel_dropped)];
        let dropped = self.status.dropped.iter().filter(|(reason, _)| *reason != DropReason::ClassCutoff.as_str());
        reasons.extend(dropped.map(|(reason, n)| (reason.terminal().to_string().replace('_', " "), *n)));
        reasons.retain(|(_, n)| *n > 0);
        let lost: Vec<String> = reasons.iter().map(|(reason, n)| format!("{} ({reason})", count(*n))).collect();
        self.fact("lost", if lost.is_empty() { "nothing".to_owned() } else { lost.join(", ") }.as_str());

        if self.left_out() > 0 {
            let packets = counted(self.left_out(), "packet");
            self.fact("left out", &format!("{packets} beyond the cutoff of their class"));
        }

        let parts = [
            ("packets", memory.segments_bytes),
            ("rings", memory.rings_bytes),
            ("sessions", memory.sessions_bytes),
            ("ledger", memory.ledger_bytes),
            ("queries", memory.queries_bytes),
            ("compression", memory.compression_bytes),
        ];
        let parts: Vec<String> =
            parts.iter().filter(|part| part.1 > 0).map(|(name, n)| format!("{} {name}", size(*n))).collect();
        let (used, budget) = (size(memory.used_bytes), size(memory.budget_bytes));
        self.fact("memory", &format!("{used} of {budget}: {}", parts.join(", ")));
        self.fact("resident", &size(memory.resident_bytes));
        self.fact(
            "sessions",
            &format!(
                "{} live, {} ended, room for {}",
                count(sessions.live),
                count(sessions.ledger),
                count(sessions.capacity)
            ),
        );
        self.starts(carried);
        self.input();
        if let Some(sandbox) = &self.status.sandbox {
            self.fact("guarded", &guarded(sandbox));
        }
        if let Some(processes) = &self.status.processes {
            self.fact("processes", &named(processes));
        }
        if let Some(spool) = &self.status.spool {
            self.fact("spool", &spool_page::line(spool, self.now(), &self.view.tz));
        }
        if let Some(restart) = &self.status.restart {
            self.fact("restarted", &self.restarted(restart));
        }
        self.compressed();
        if let Some(filter) = &capture.filter {
            self.fact("filter", &filter.terminal().to_string());
        }
        self.odd(oddities);
    }

    /// The starts of sessions that were moved so that they stay, and those that are lost.
    fn starts(&mut self, carried: &CarriedCounts) {
        if carried.packets > 0 || carried.lost > 0 {
            let (starts, bytes) = (counted(carried.packets, "packet"), size(carried.bytes));
            let lost =
                if carried.lost > 0 { format!(", {} found no room", count(carried.lost)) } else { String::new() };
            self.fact("starts", &format!("{starts} carried forward ({bytes}){lost}"));
        }
        if carried.headless_sessions > 0 || carried.untracked_sessions > 0 {
            let headless = counted(carried.headless_sessions, "session");
            let unknown = match carried.untracked_sessions {
                0 => String::new(),
                some => format!(", unknown of {}", count(some)),
            };
            self.fact("headless", &format!("{headless} lost the first packet and kept others{unknown}"));
        }
    }

    /// Packets that were recorded although something is wrong with them.
    fn odd(&mut self, oddities: &OddityCounts) {
        let odd = [
            ("truncated", oddities.truncated),
            ("end within a header", oddities.cut_headers),
            ("malformed", oddities.malformed),
            ("nested too deeply", oddities.too_deep),
            ("out of order", oddities.out_of_order),
        ];
        let odd: Vec<String> =
            odd.iter().filter(|odd| odd.1 > 0).map(|(name, n)| format!("{} {name}", count(*n))).collect();
        if !odd.is_empty() {
            self.fact("odd", &odd.join(", "));
        }
    }

    /// What a recorder leaves out of the capture that it replays.
    fn input(&mut self) {
        let Some(input) = self.status.input.as_ref().filter(|_| self.is_live()) else { return };
        let mut parts: Vec<String> =
            input.left_out.iter().map(|(kind, n)| format!("{} {}", count(*n), kind.terminal())).collect();
        if input.times_changed > 0 {
            parts.push(format!("{} times changed to fit", count(input.times_changed)));
        }
        if input.times_missing > 0 {
            parts.push(format!("{} packets without a time", count(input.times_missing)));
        }
        if !parts.is_empty() {
            self.fact("not kept", &parts.join(", "));
        }
    }

    /// Whether the page is about a recorder.
    fn is_live(&self) -> bool {
        matches!(self.view.heading, Heading::Recording { .. })
    }

    /// What a restart took over, and the gap in the recording.
    fn restarted(&self, restart: &RestartStatus) -> String {
        if let (Some(problem), 0) = (&restart.problem, restart.packets) {
            return format!("EMPTY: {}", problem.terminal());
        }
        let mut text = format!("{} taken over", counted(restart.packets, "packet"));
        if restart.lost_packets > 0 {
            text.push_str(&format!(", {} found no room", count(restart.lost_packets)));
        }
        if let Some(from) = restart.gap_from.as_ref().and_then(read_time) {
            let zone = time::zone(from, &self.view.tz);
            let (from, age) = (time::local(from, &self.view.tz), time::human_age(seconds(restart.gap_s)));
            text.push_str(&format!("; nothing recorded for {age} from {from} {zone}"));
        }
        if let Some(problem) = &restart.problem {
            text.push_str(&format!("; NOT ALL: {}", problem.terminal()));
        }
        text
    }

    /// The data that is compressed now. Metrics have the counts since start.
    fn compressed(&mut self) {
        let sum = |of: fn(&RankStatus) -> u64| self.status.ranks.iter().map(of).fold(0, u64::saturating_add);
        let (raw, packed) = (sum(|rank| rank.compressed_raw_bytes), sum(|rank| rank.compressed_bytes));
        if let Some(tenths) = raw.saturating_mul(10).checked_div(packed) {
            let ratio = format!("{}.{} times", tenths / 10, tenths % 10);
            self.fact("compressed", &format!("{} in {} ({ratio})", size(raw), size(packed)));
        }
    }

    fn fact(&mut self, label: &str, text: &str) {
        let _ = writeln!(self.out, "{label:<LABEL_COLUMNS$}{text}");
    }

    fn interfaces(&mut self) {
        let live = self.is_live();
        let (there, gone): (Vec<_>, Vec<_>) = self.status.interfaces.iter().partition(|i| i.gone.is_none());
        let mut lines = InterfaceLines::default();
        for interface in there {
            let remark = if live && !interface.up { "down" } else { "" };
            lines.add(interface, remark.to_owned());
        }
        lines.write(&mut self.out);
        if !gone.is_empty() {
            let (interfaces, verb) =
                (counted(gone.len() as u64, "interface"), if gone.len() == 1 { "is" } else { "are" });
            let _ = writeln!(self.out, "{interfaces} {verb} gone: retrocap interfaces --gone");
        }
        if let Some(last) = self.status.interface_gaps.last() {
            let (total, last) = (self.status.interface_gaps_total, gap(last, &self.view.tz));
            let _ = writeln!(self.out, "{} in recording of an interface, the last one: {last}", counted(total, "gap"));
        }
    }
}

/// The sandbox of the recorder: gaps if there are any, else its restrictions.
fn guarded(sandbox: &SandboxStatus) -> String {
    if sandbox.mode == "off" {
        return format!("NOT AT ALL: --sandbox=off; runs as uid {}", sandbox.uid);
    }
    if let [_, ..] = sandbox.missing.as_slice() {
        return format!(
            "IN PART: {}",
            sandbox.missing.iter().map(|gap| gap.terminal().to_string()).collect::<Vec<_>>().join("; ")
        );
    }
    let rights = if sandbox.capabilities.untrusted().bytes().all(|digit| digit == b'0') { "no" } else { "SOME" };
    format!(
        "uid {}, {rights} capability; system calls filtered by role, files by Landlock {}",
        sandbox.uid, sandbox.landlock.abi
    )
}

/// How processes are named, and how many sockets have no name.
fn named(naming: &ProcessNaming) -> String {
    let how = match (naming.method, &naming.reason) {
        (Some(Source::Ebpf), _) => "named when they connect (eBPF)".to_owned(),
        (Some(Source::SockDiag), Some(reason)) => {
            format!("named by scans alone, which miss brief ones, because {}", reason.terminal())
        }
        (Some(Source::SockDiag), None) => "named by scans alone, which miss brief ones".to_owned(),
        (None, _) => "not named yet".to_owned(),
    };
    let mut text = format!("{how}; {}", counted(naming.sockets, "socket"));
    for (number, what) in [(naming.forgotten, "forgotten"), (naming.lost, "lost")] {
        if number > 0 {
            text.push_str(&format!(", {} {what}", count(number)));
        }
    }
    text
}

/// A share in per cent, rounded down to a tenth, so that only 1.0 shows as 100 %.
fn share(value: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1000")]
    let tenths = (value.clamp(0.0, 1.0) * 1000.0 + 1e-9) as u32;
    if tenths == 1000 { "100 %".to_owned() } else { format!("{}.{} %", tenths / 10, tenths % 10) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = include_str!("testdata/status.json");

    fn shown(change: impl FnOnce(&mut Status), heading: Heading, width: usize, colour: bool) -> String {
        let mut document: Status = serde_json::from_str(STATUS).unwrap();
        change(&mut document);
        let tz = TimeZone::fixed(jiff::tz::offset(1));
        status(&document, &View { heading, screen: Screen { width: Some(width), colour }, tz })
    }

    fn now() -> Heading {
        Heading::Recording { now: read_time(&"2026-11-22T10:00:00Z".into()).unwrap() }
    }

    #[test]
    fn a_recorder_at_a_glance() {
        insta::assert_snapshot!(shown(|_| {}, now(), 80, false));
    }

    #[test]
    fn a_recorder_that_loses_packets() {
        let lose = |status: &mut Status| {
            status.packets.kernel_dropped = 1234;
            status.packets.dropped = 12;
            status.dropped.insert("interfaces_full".into(), 5);
            status.dropped.insert("class_cutoff".into(), 7);
            status.interfaces[1].up = false;
            status.carried.lost = 12;
        };
        insta::assert_snapshot!(shown(lose, now(), 50, true).replace('\x1b', "␛"));
    }

    #[test]
    fn a_recorder_that_has_just_begun() {
        let begin = |status: &mut Status| {
            status.uptime_s = 0.25;
            status.ranks.clear();
            status.coverage.clear();
            status.largest.clear();
            status.largest_hosts.clear();
            (status.retained.oldest, status.retained.newest, status.retained.whole_since) = (None, None, None);
            (status.carried.packets, status.carried.bytes) = (0, 0);
            status.oddities.malformed = 0;
            status.oddities.out_of_order = 0;
        };
        insta::assert_snapshot!(shown(begin, now(), 80, false));
    }

    #[test]
    fn a_recorder_that_was_restarted() {
        let restart = RestartStatus {
            packets: 12_345,
            gap_from: Some("2026-11-22T09:30:00Z".into()),
            gap_s: 1.25,
            ..RestartStatus::default()
        };
        let shown = |restart: RestartStatus| {
            let page = shown(|status| status.restart = Some(restart), now(), 80, false);
            page.lines().find_map(|line| line.strip_prefix("restarted  ")).unwrap().to_owned()
        };
        assert!(shown(restart.clone()).starts_with("12,345 packets taken over; nothing recorded for 1"));
        let problem = Some("it ends too early".into());
        let part = shown(RestartStatus { lost_packets: 7, problem: problem.clone(), ..restart });
        assert!(part.contains("7 found no room") && part.ends_with("; NOT ALL: it ends too early"), "{part}");
        assert_eq!(shown(RestartStatus { problem, ..RestartStatus::default() }), "EMPTY: it ends too early");
    }

    #[test]
    fn a_replay() {
        insta::assert_snapshot!(shown(
            |status| status.capture.filter = Some("not port 22".into()),
            Heading::Replayed,
            120,
            false
        ));
    }

    #[test]
    fn a_share_is_never_more_than_it_is() {
        for (value, text) in [(1.0, "100 %"), (0.99999, "99.9 %"), (0.5, "50.0 %"), (0.0004, "0.0 %"), (0.071, "7.1 %")]
        {
            assert_eq!(share(value), text);
        }
    }
}
