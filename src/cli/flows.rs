//! `retrocap flows`: the sessions known, also those whose packets are gone.

use std::io::{BufRead as _, BufReader};

use anyhow::{Context as _, anyhow};
use clap::Args;
use jiff::tz::TimeZone;

use super::client::{self, Target};
use super::selection::Selection;
use super::{Common, human, print};
use crate::query::flows::{Flow, FlowEndpoint};
use crate::time::{self, Timestamp};

/// Rows that are aligned together: as many as a screen shows, and some.
const PAGE_ROWS: usize = 256;

/// The sessions known, also those whose packets are gone.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  retrocap flows --since 1h --sort bytes --limit 10     the largest of the last hour
  retrocap flows host 10.0.0.5                          whom one host has talked to
  retrocap flows --json | jq 'select(.state == \"reset\")'    for scripts, one object a line")]
pub(super) struct Flows {
    #[command(flatten)]
    selection: Selection,
    /// Sort by this: times ascend, amounts descend
    #[arg(long, value_name = "KEY", default_value = "start", value_parser = ["start", "last", "bytes", "packets", "duration"])]
    sort: String,
    /// The first so many
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
}

impl Flows {
    /// Asks, and prints what comes as it comes.
    pub(super) fn run(&self, common: &Common) -> anyhow::Result<()> {
        let tz = TimeZone::system();
        let now = Timestamp::from(std::time::SystemTime::now());
        let target = self.selection.add(Target::new("/v1/flows"), None, now, &tz)?;
        let target = target.with("sort", Some(&self.sort)).with("limit", self.limit);
        let mut lines = BufReader::with_capacity(64 << 10, client::get(&common.socket, &target)?);
        let mut table = Table::new(tz);
        let (mut flows, mut out, mut line) = (0u64, String::new(), String::new());
        let mut page = Vec::new();
        while lines.read_line(&mut line)? > 0 {
            if !line.trim().is_empty() {
                flows += 1;
                if common.json {
                    out.push_str(&line);
                } else {
                    page.push(serde_json::from_str::<Flow>(&line).context("the recorder speaks another version")?);
                }
            }
            line.clear();
            if page.len() == PAGE_ROWS {
                table.page(&mut out, &page);
                page.clear();
            }
            if out.len() >= 64 << 10 {
                print(&out)?;
                out.clear();
            }
        }
        table.page(&mut out, &page);
        print(&out)?;
        if flows == 0 { Err(anyhow!("no session matches")) } else { Ok(()) }
    }
}

const COLUMNS: usize = 9;
const HEADINGS: [&str; COLUMNS] =
    ["first", "lasted", "proto", "originator > responder", "state", "packets", "bytes", "kept", "interface"];
/// Numbers end at the same place.
const RIGHT: [bool; COLUMNS] = [false, true, false, false, false, true, true, true, false];

/// Aligned columns; a later page is never narrower than one before it.
#[derive(Debug)]
struct Table {
    tz: TimeZone,
    widths: Option<[usize; COLUMNS]>,
}

impl Table {
    fn new(tz: TimeZone) -> Self {
        Self { tz, widths: None }
    }

    /// Appends some rows, the headings before the first.
    fn page(&mut self, out: &mut String, flows: &[Flow]) {
        if flows.is_empty() {
            return;
        }
        let mut rows: Vec<[String; COLUMNS]> = Vec::with_capacity(flows.len() + 1);
        if self.widths.is_none() {
            rows.push(HEADINGS.map(str::to_owned));
        }
        rows.extend(flows.iter().map(|flow| self.row(flow)));
        let mut widths = self.widths.unwrap_or_default();
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        self.widths = Some(widths);
        for row in &rows {
            let start = out.len();
            for ((cell, width), right) in row.iter().zip(widths).zip(RIGHT) {
                if out.len() > start {
                    out.push_str("  ");
                }
                if right {
                    out.push_str(&format!("{cell:>width$}"));
                } else {
                    out.push_str(&format!("{cell:<width$}"));
                }
            }
            out.truncate(out.trim_end().len());
            out.push('\n');
        }
    }

    fn row(&self, flow: &Flow) -> [String; COLUMNS] {
        let (first, last) = (human::time(&flow.first), human::time(&flow.last));
        let lasted = first.zip(last).map(|(first, last)| time::human_age(last.since(first)));
        let packets = flow.packets.originator + flow.packets.responder;
        let kept = match flow.kept_packets {
            kept if kept >= packets => "all".to_owned(),
            0 => "none".to_owned(),
            kept => format!("{} of {}", human::count(kept), human::count(packets)),
        };
        [
            first.map(|first| time::local(first, &self.tz)).unwrap_or_else(|| flow.first.clone()),
            lasted.unwrap_or_default(),
            flow.proto.clone(),
            format!("{} > {}", endpoint(&flow.originator), endpoint(&flow.responder)),
            flow.state.clone(),
            human::count(packets),
            human::size(flow.bytes.originator + flow.bytes.responder),
            kept,
            flow.vlan.map_or_else(|| flow.interface.clone(), |vlan| format!("{} vlan {vlan}", flow.interface)),
        ]
    }
}

fn endpoint(endpoint: &FlowEndpoint) -> String {
    match (&endpoint.ip, &endpoint.mac) {
        (Some(ip), _) if endpoint.port == 0 => ip.clone(),
        (Some(ip), _) if ip.contains(':') => format!("[{ip}]:{}", endpoint.port),
        (Some(ip), _) => format!("{ip}:{}", endpoint.port),
        (None, Some(mac)) => mac.clone(),
        (None, None) => "?".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOWS: [&str; 4] = [
        r#"{"first":"2026-11-22T10:00:00.123456789Z","last":"2026-11-22T10:00:42.5Z","proto":"tcp","originator":{"ip":"10.0.0.5","port":51234},"responder":{"ip":"192.0.2.7","port":443},"interface":"eth0","packets":{"originator":1000,"responder":3000},"bytes":{"originator":90000,"responder":4200000},"kept_bytes":9000,"kept_packets":12,"state":"closed","community_id":"1:LQU9qZlK+B5F3KDmev6m5PMibrg=","vlan":null}"#,
        r#"{"first":"2026-11-22T10:00:01Z","last":"2026-11-22T10:00:01.02Z","proto":"udp","originator":{"ip":"2001:db8::1","port":53000},"responder":{"ip":"2001:db8::53","port":53},"interface":"wlan0","packets":{"originator":1,"responder":1},"bytes":{"originator":80,"responder":160},"kept_bytes":240,"kept_packets":2,"state":"open","community_id":null,"vlan":42}"#,
        r#"{"first":"2026-11-22T10:00:02Z","last":"2026-11-22T10:00:02Z","proto":"arp","originator":{"ip":null,"port":0,"mac":"02:00:00:00:00:01"},"responder":{"ip":null,"port":0,"mac":"ff:ff:ff:ff:ff:ff"},"interface":"eth0","packets":{"originator":1,"responder":0},"bytes":{"originator":60,"responder":0},"kept_bytes":0,"kept_packets":0,"state":"open","community_id":null,"vlan":null}"#,
        r#"{"first":"2026-11-22T10:00:02Z","last":"2026-11-22T10:00:02Z","proto":"gre","originator":{"ip":"10.0.0.1","port":0},"responder":{"ip":"10.0.0.2","port":0},"interface":"eth0","packets":{"originator":1,"responder":0},"bytes":{"originator":60,"responder":0},"kept_bytes":60,"kept_packets":1,"state":"open","community_id":null,"vlan":null}"#,
    ];

    #[test]
    fn a_table_of_sessions() {
        let flows: Vec<Flow> = FLOWS.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        let mut out = String::new();
        let mut table = Table::new(TimeZone::UTC);
        table.page(&mut out, &flows[..3]);
        table.page(&mut out, &flows[3..]);
        table.page(&mut out, &[]);
        insta::assert_snapshot!(out);
    }
}
