//! Formats the sessions and sums that the recorder sends as JSON lines: as a table for people, or as CSV.

use jiff::tz::TimeZone;
use serde::de::DeserializeOwned;

use crate::terminal::csv::{self, Field};
use crate::terminal::human::{self, count, size};
use crate::terminal::listing_totals::ListingTotals;
use crate::terminal::screen::{CYAN, DIM, Screen, YELLOW};
use crate::terminal::table::{Cell, Column, Row, Table};
use base::foreign::Foreign;
use base::time;
use query::attribution::{FlowProcess, NatEnd, NatSide};
use query::flows::{Flow, FlowApp, FlowEndpoint};
use query::sums::{By, Sum};

/// Maximum number of rows that are aligned together. A screen shows fewer.
const PAGE_ROWS: usize = 256;
/// Maximum bytes of JSON per page of rows, so that a recorder with long rows cannot fill memory.
const PAGE_BYTES_MAX: usize = 1 << 20;

/// Converts lines of JSON to another format.
pub(crate) trait RowWriter {
    /// Converts one line. It may hold rows back to align them.
    fn line(&mut self, out: &mut String, line: &str) -> serde_json::Result<()>;
    /// Writes the rows that were held back. Returns a summary, if the format has one.
    fn end(&mut self, out: &mut String, totals: ListingTotals) -> Option<String>;
}

/// A row of a listing: its columns as CSV and as a table.
trait ListedRow: DeserializeOwned {
    /// The headings of the columns in CSV.
    const CSV: &'static [&'static str];
    /// Writes the row as a line of CSV.
    fn csv(&self, out: &mut String);
    /// The row of the table.
    fn row(&self, clock: &mut Clock) -> Row;
}

/// Formats rows as CSV at once, and as a table page by page.
struct Pages<R> {
    table: Table,
    clock: Clock,
    csv: bool,
    /// Whether the first column of the table has the day as its heading.
    dated_heading: bool,
    page: Vec<R>,
    page_bytes: usize,
    rows: u64,
}

impl<R: ListedRow> Pages<R> {
    fn new(table: Table, clock: Clock, csv: bool, dated_heading: bool) -> Self {
        Self { table, clock, csv, dated_heading, page: Vec::new(), page_bytes: 0, rows: 0 }
    }

    fn line(&mut self, out: &mut String, line: &str) -> serde_json::Result<()> {
        let row: R = serde_json::from_str(line)?;
        if self.csv {
            if self.rows == 0 {
                csv::headings(out, R::CSV);
            }
            row.csv(out);
        }
        self.rows += 1;
        if !self.csv {
            self.page.push(row);
            self.page_bytes += line.len();
            if self.page.len() == PAGE_ROWS || self.page_bytes >= PAGE_BYTES_MAX {
                self.show(out);
            }
        }
        Ok(())
    }

    fn show(&mut self, out: &mut String) {
        self.page_bytes = 0;
        let rows: Vec<Row> = self.page.drain(..).map(|listed| listed.row(&mut self.clock)).collect();
        let heading = self.dated_heading.then(|| self.clock.heading());
        self.table.page(out, heading.as_deref(), &rows);
    }
}

/// Formats sessions, one per line.
pub(crate) struct SessionRows(Pages<Flow>);

const fn column(heading: &'static str, right: bool, leave_out: u8) -> Column {
    Column { heading, right, leave_out }
}

const SESSION: [Column; 10] = [
    column("first", false, 0),
    column("lasted", true, 4),
    column("proto", false, 1),
    column("originator > responder", false, 0),
    column("state", false, 5),
    column("packets", true, 2),
    column("bytes", true, 0),
    column("kept", false, 0),
    column("cut", false, 3),
    column("interface", false, 6),
];

const SESSION_CSV: [&str; 32] = [
    "first",
    "last",
    "proto",
    "originator_ip",
    "originator_port",
    "responder_ip",
    "responder_port",
    "interface",
    "vlan",
    "originator_packets",
    "responder_packets",
    "originator_bytes",
    "responder_bytes",
    "kept_packets",
    "kept_bytes",
    "state",
    "community_id",
    "server_name",
    "http_host",
    "dns_question",
    "dns_type",
    "originator_mac",
    "responder_mac",
    "cut_at",
    "app",
    "app_words",
    "process",
    "pid",
    "container",
    "other_process",
    "other_pid",
    "other_container",
];

impl SessionRows {
    pub(crate) fn new(screen: Screen, tz: TimeZone, csv: bool) -> Self {
        let clock = Clock::new(tz, screen.width.is_some());
        Self(Pages::new(Table::new(screen, &SESSION), clock, csv, true))
    }
}

impl RowWriter for SessionRows {
    fn line(&mut self, out: &mut String, line: &str) -> serde_json::Result<()> {
        self.0.line(out, line)
    }

    fn end(&mut self, out: &mut String, totals: ListingTotals) -> Option<String> {
        self.0.show(out);
        Some(totals.of_sessions())
    }
}

impl ListedRow for Flow {
    const CSV: &'static [&'static str] = &SESSION_CSV;

    fn csv(&self, out: &mut String) {
        let names = &self.names;
        let app_words = self.app.as_ref().map(app_words);
        let [name, pid, container] = process_fields(self.attribution.process.as_ref());
        let [other_name, other_pid, other_container] = process_fields(self.attribution.other_process.as_ref());
        let fields: [Field<'_>; SESSION_CSV.len()] = [
            Field::from(&self.first),
            Field::from(&self.last),
            Field::from(&self.proto),
            Field::from(&self.originator.ip),
            Field::Number(self.originator.port.into()),
            Field::from(&self.responder.ip),
            Field::Number(self.responder.port.into()),
            Field::from(&self.interface),
            self.vlan.map_or(Field::Empty, |vlan| Field::Number(vlan.into())),
            Field::Number(self.packets.originator),
            Field::Number(self.packets.responder),
            Field::Number(self.bytes.originator),
            Field::Number(self.bytes.responder),
            Field::Number(self.kept_packets),
            Field::Number(self.kept_bytes),
            Field::from(&self.state),
            Field::from(&self.community_id),
            Field::from(&names.server_name),
            Field::from(&names.http_host),
            Field::from(&names.dns_question),
            Field::from(&names.dns_type),
            Field::from(&self.originator.mac),
            Field::from(&self.responder.mac),
            Field::from(&self.cut_at),
            self.app.as_ref().map_or(Field::Empty, |app| Field::from(&app.name)),
            Field::from(&app_words),
            name,
            pid,
            container,
            other_name,
            other_pid,
            other_container,
        ];
        csv::row(out, &fields);
    }

    fn row(&self, clock: &mut Clock) -> Row {
        session_row(self, clock)
    }
}

/// Name, number and container of a process.
fn process_fields(end: Option<&FlowProcess>) -> [Field<'_>; 3] {
    let Some(FlowProcess { process, .. }) = end else { return [Field::Empty; 3] };
    [
        process.name.as_deref().map_or(Field::Empty, Field::Text),
        process.pid.map_or(Field::Empty, |pid| Field::Number(pid.into())),
        process.container.as_deref().map_or(Field::Empty, Field::Text),
    ]
}

fn session_row(flow: &Flow, clock: &mut Clock) -> Row {
    let (first, last) = (human::printed_time(&flow.first), human::printed_time(&flow.last));
    let lasted = first.zip(last).filter(|(first, last)| first < last);
    let lasted = lasted.map(|(first, last)| time::human_age(last.since(first)));
    let packets = flow.packets.sum();
    let (kept, colour) = match flow.kept_packets {
        _ if flow.kept_unknown => ("unknown".to_owned(), Some(DIM)),
        0 => ("gone".to_owned(), Some(DIM)),
        _ if flow.holes > 0 => (format!("start, end: {}", size(flow.kept_bytes)), Some(YELLOW)),
        _ if flow.is_cut() => (format!("first {}", size(flow.kept_bytes)), Some(YELLOW)),
        _ => ("all".to_owned(), None),
    };
    let interface = flow.interface.terminal();
    let interface = flow.vlan.map_or_else(|| interface.to_string(), |vlan| format!("{interface} vlan {vlan}"));
    let cells = vec![
        Cell::from(clock.time(&flow.first)),
        lasted.unwrap_or_default().into(),
        flow.proto.terminal().to_string().into(),
        format!("{} > {}", endpoint(&flow.originator), endpoint(&flow.responder)).into(),
        flow.state.terminal().to_string().into(),
        count(packets).into(),
        size(flow.bytes.sum()).into(),
        Cell::new(&kept, colour),
        Cell::new(&flow.cut_at.as_ref().map(|at| clock.time(at)).unwrap_or_default(), colour),
        interface.into(),
    ];
    let names = &flow.names;
    let remark = if let Some(name) = &names.server_name {
        format!("TLS {}", name.terminal())
    } else if let Some(host) = &names.http_host {
        format!("HTTP {}", host.terminal())
    } else if let Some(question) = &names.dns_question {
        format!("DNS {} {}", question.terminal(), names.dns_type.clone().unwrap_or_default().terminal())
    } else {
        String::new()
    };
    let app = flow.app.as_ref().map(|app| format!("{} {}  ", app.name.terminal(), app_words(app).terminal()));
    let processes = [&flow.attribution.process, &flow.attribution.other_process].into_iter().flatten();
    let by = processes.map(|end| end.process.briefly()).collect::<Vec<_>>().join("; ");
    let by = if by.is_empty() { by } else { format!("  by {}", Foreign::new(by).terminal()) };
    let nat = flow.attribution.nat.as_ref().map(|nat| {
        let end = |end: &NatEnd| endpoint(&FlowEndpoint { ip: Some(end.ip.clone()), port: end.port, mac: None });
        let side = if nat.side == NatSide::Before { "before" } else { "after" };
        format!("  {side} NAT {} > {}", end(&nat.originator), end(&nat.responder))
    });
    let remark = format!("{}{remark}{by}{}", app.unwrap_or_default(), nat.unwrap_or_default());
    Row { cells, remark: Cell::new(remark.trim(), Some(CYAN)) }
}

/// The words of an application protocol's messages, as one text.
fn app_words(app: &FlowApp) -> Foreign {
    app.words.iter().map(Foreign::untrusted).collect::<Vec<_>>().join(" ").into()
}

pub(crate) fn endpoint(endpoint: &FlowEndpoint) -> String {
    match (&endpoint.ip, &endpoint.mac) {
        (Some(ip), _) if endpoint.port == 0 => ip.terminal().to_string(),
        (Some(ip), _) if ip.untrusted().contains(':') => format!("[{}]:{}", ip.terminal(), endpoint.port),
        (Some(ip), _) => format!("{}:{}", ip.terminal(), endpoint.port),
        (None, Some(mac)) => mac.terminal().to_string(),
        (None, None) => "?".to_owned(),
    }
}

/// Formats the times of a listing. The heading of the column names the time zone. In a terminal it names the day, too,
/// and only times of other days name their day.
struct Clock {
    tz: TimeZone,
    short: bool,
    day: Option<String>,
    zone: Option<String>,
}

impl Clock {
    fn new(tz: TimeZone, short: bool) -> Self {
        Self { tz, short, day: None, zone: None }
    }

    /// The heading of the column: `2026-11-22 UTC`, or `first (UTC)` where rows name their day.
    fn heading(&self) -> String {
        let zone = self.zone.as_deref().unwrap_or("UTC");
        match self.day.as_deref().filter(|_| self.short) {
            Some(day) => format!("{day} {zone}"),
            None => format!("first ({zone})"),
        }
    }

    fn time(&mut self, text: &Foreign) -> String {
        let Some(time) = human::printed_time(text) else { return text.terminal().to_string() };
        let zone = time::zone(time, &self.tz);
        if *self.zone.get_or_insert_with(|| zone.clone()) != zone {
            // The clock was changed for daylight saving time.
            return format!("{} {zone}", time::local(time, &self.tz));
        }
        let local = time::local(time, &self.tz);
        let Some((day, clock)) = local.split_once(' ').filter(|_| self.short) else { return local };
        let first = self.day.get_or_insert_with(|| day.to_owned());
        if first == day {
            clock.to_owned()
        } else if first.get(..5) == day.get(..5) {
            format!("{} {clock}", day.get(5..).unwrap_or(day))
        } else {
            local
        }
    }
}

/// Formats sums, one per line.
pub(crate) struct SumRows {
    pages: Pages<Sum>,
    by: By,
}

/// The columns, first the one that the sums are grouped by.
fn sum_columns(by: By) -> [Column; 7] {
    let [what, out, r#in] = match by {
        By::Host => ["host", "sent", "received"],
        By::Peer => ["host > peer", "out", "in"],
        By::Port => ["port", "from originators", "from responders"],
        By::Process => ["process", "sent", "received"],
        By::Container => ["container", "sent", "received"],
    };
    [
        column(what, false, 0),
        column("sessions", true, 1),
        column(out, true, 0),
        column(r#in, true, 0),
        column("packets", true, 3),
        column("first", false, 4),
        column("last", false, 2),
    ]
}

const SUM_CSV: [&str; 13] = [
    "host",
    "peer",
    "proto",
    "port",
    "sessions",
    "bytes_out",
    "bytes_in",
    "packets_out",
    "packets_in",
    "first",
    "last",
    "process",
    "container",
];

impl SumRows {
    pub(crate) fn new(screen: Screen, tz: TimeZone, csv: bool, by: By) -> Self {
        let table = Table::new(screen, &sum_columns(by));
        Self { pages: Pages::new(table, Clock::new(tz, false), csv, false), by }
    }
}

impl RowWriter for SumRows {
    fn line(&mut self, out: &mut String, line: &str) -> serde_json::Result<()> {
        self.pages.line(out, line)
    }

    fn end(&mut self, out: &mut String, totals: ListingTotals) -> Option<String> {
        self.pages.show(out);
        let what = match self.by {
            By::Host => "host",
            By::Peer => "pair",
            By::Port => "port",
            By::Process => "process",
            By::Container => "container",
        };
        let zone = self.pages.clock.zone.as_deref().unwrap_or("UTC");
        Some(format!("{}; times in {zone}", totals.of_sums(what)))
    }
}

impl ListedRow for Sum {
    const CSV: &'static [&'static str] = &SUM_CSV;

    fn csv(&self, out: &mut String) {
        let fields: [Field<'_>; SUM_CSV.len()] = [
            Field::from(&self.host),
            Field::from(&self.peer),
            Field::from(&self.proto),
            self.port.map_or(Field::Empty, |port| Field::Number(port.into())),
            Field::Number(self.sessions),
            Field::Number(self.bytes.out),
            Field::Number(self.bytes.r#in),
            Field::Number(self.packets.out),
            Field::Number(self.packets.r#in),
            Field::from(&self.first),
            Field::from(&self.last),
            Field::from(&self.process),
            Field::from(&self.container),
        ];
        csv::row(out, &fields);
    }

    fn row(&self, clock: &mut Clock) -> Row {
        sum_row(self, clock)
    }
}

fn sum_row(sum: &Sum, clock: &mut Clock) -> Row {
    let what = match (&sum.host, &sum.peer, &sum.proto, sum.port) {
        (Some(host), Some(peer), ..) => format!("{} > {}", host.terminal(), peer.terminal()),
        (Some(host), None, ..) => host.terminal().to_string(),
        (None, _, Some(proto), Some(port)) => format!("{port}/{}", proto.terminal()),
        (None, _, Some(proto), None) => proto.terminal().to_string(),
        (None, _, None, _) => match sum.process.as_ref().or(sum.container.as_ref()) {
            Some(name) if !name.untrusted().is_empty() => name.terminal().to_string(),
            _ => "(not known)".to_owned(),
        },
    };
    let cells = vec![
        what.into(),
        count(sum.sessions).into(),
        size(sum.bytes.out).into(),
        size(sum.bytes.r#in).into(),
        count(sum.packets.sum()).into(),
        clock.time(&sum.first).into(),
        clock.time(&sum.last).into(),
    ];
    Row { cells, remark: Cell::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sessions that are cut, gone, in a VLAN, or without addresses or ports, and with names of every kind.
    const FLOWS: [&str; 5] = [
        r#"{"first":"2026-11-22T10:00:00.123456789Z","last":"2026-11-22T10:00:42.5Z","proto":"tcp","originator":{"ip":"10.0.0.5","port":51234},"responder":{"ip":"192.0.2.7","port":443},"interface":"eth0","packets":{"originator":1000,"responder":3000},"bytes":{"originator":90000,"responder":4200000},"kept_bytes":9000,"kept_packets":12,"cut_at":"2026-11-22T10:47:11.5Z","state":"closed","community_id":"1:LQU9qZlK+B5F3KDmev6m5PMibrg=","vlan":null,"server_name":"www.example.com"}"#,
        r#"{"first":"2026-11-22T10:00:01Z","last":"2026-11-22T10:00:01.02Z","proto":"udp","originator":{"ip":"2001:db8::1","port":53000},"responder":{"ip":"2001:db8::53","port":53},"interface":"wlan0","packets":{"originator":1,"responder":1},"bytes":{"originator":80,"responder":160},"kept_bytes":240,"kept_packets":2,"state":"two-way","community_id":null,"vlan":42,"dns_question":"a.example","dns_type":"TXT"}"#,
        r#"{"first":"2026-11-22T10:00:02Z","last":"2026-11-22T10:00:02Z","proto":"arp","originator":{"ip":null,"port":0,"mac":"02:00:00:00:00:01"},"responder":{"ip":null,"port":0,"mac":"ff:ff:ff:ff:ff:ff"},"interface":"eth0","packets":{"originator":1,"responder":0},"bytes":{"originator":60,"responder":0},"kept_bytes":0,"kept_packets":0,"cut_at":"2026-11-23T00:30:00Z","state":"one-way","community_id":null,"vlan":null}"#,
        r#"{"first":"2026-11-22T10:00:02Z","last":"2026-11-22T10:00:02Z","proto":"gre","originator":{"ip":"10.0.0.1","port":0},"responder":{"ip":"10.0.0.2","port":0},"interface":"eth0","packets":{"originator":1,"responder":0},"bytes":{"originator":60,"responder":0},"kept_bytes":60,"kept_packets":1,"state":"one-way","community_id":null,"vlan":null}"#,
        r#"{"first":"2026-11-23T00:00:02Z","last":"2026-11-23T02:00:02Z","proto":"tcp","originator":{"ip":"10.0.0.1","port":1},"responder":{"ip":"10.0.0.2","port":80},"interface":"eth0","packets":{"originator":1,"responder":0},"bytes":{"originator":60,"responder":0},"kept_bytes":60,"kept_packets":1,"state":"midstream","community_id":null,"vlan":null,"http_host":"a-rather-long-name-of-a-host.in-some-zone.example:8080"}"#,
    ];

    fn shown(screen: Screen) -> String {
        let mut lines = SessionRows::new(screen, TimeZone::UTC, false);
        let mut out = String::new();
        for line in FLOWS {
            lines.line(&mut out, line).unwrap();
        }
        lines.end(&mut out, ListingTotals::default());
        assert!(out.lines().all(|line| line.trim_end() == line), "{out}");
        out
    }

    #[test]
    fn what_is_cut_and_what_is_gone() {
        let mut all = String::new();
        for (width, colour) in [(None, false), (Some(80), true), (Some(100), false), (Some(160), true)] {
            all.push_str(&format!("── {width:?} ──\n{}", shown(Screen { width, colour }).replace('\x1b', "␛")));
        }
        insta::assert_snapshot!(all);
    }
}
