//! An answer in lines: pieces of files as they are made, what was found for each selection, and that it is all.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use base64::Engine as _;
use serde::Serialize;

use super::super::Service;
use super::super::audit::AuditEntry;
use super::super::packets;
use super::super::parameters::PacketQuery;
use super::super::problem::Problem;
use super::super::stream::{Closed, Sink};
use super::SelectionQuery;
use base::time::Timestamp;
use formats::writer::Exporter;
use query::explain::{Cause, Question};
use query::search::{Selector, SessionTotals};
use query::{Found, SearchNotes, Summary};

/// Bytes that are waiting to be sent, of all files together, before they are.
const PENDING_BYTES_MAX: usize = 128 << 10;

/// A piece of a file.
#[derive(Serialize)]
struct Piece<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    selection: Option<u32>,
    data: &'a str,
    /// Packets in it.
    packets: u64,
    /// How far the search has come, 0 to 1.
    part: f64,
}

/// What was found for a selection.
#[derive(Debug, Default, Serialize)]
struct Outcome {
    selection: u32,
    packets: u64,
    bytes: u64,
    first: Option<Timestamp>,
    last: Option<Timestamp>,
    sessions: u64,
    /// The selection whose file is this one's too.
    #[serde(skip_serializing_if = "Option::is_none")]
    same_as: Option<u32>,
    missing: Option<Missing>,
}

/// Why something is missing.
#[derive(Debug, Serialize)]
struct Missing {
    cause: &'static str,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    horizon: Option<Timestamp>,
}

/// The last line.
#[derive(Serialize)]
struct Total<'a> {
    done: bool,
    packets: u64,
    bytes: u64,
    overtaken: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    note: &'a str,
}

/// One answer in lines.
pub(super) struct LinesAnswer {
    pub(super) service: Arc<Service>,
    pub(super) query: PacketQuery,
    pub(super) selections: SelectionQuery,
    /// Whether each selection gets a file of its own.
    pub(super) split: bool,
}

/// A file that is being made.
struct File {
    exporter: Exporter,
    pending: Vec<u8>,
    /// Packets in that.
    packets: u64,
    left_out: u64,
}

impl LinesAnswer {
    /// Makes and sends it.
    pub(super) fn run(self, mut sink: Sink, mut entry: AuditEntry) -> Result<(), Closed> {
        let search = self.selections.search(&self.service);
        let groups = if self.split { search.groups() } else { Vec::new() };
        let known = search.known.clone();
        let mut packets = match self.service.history().searched(&self.query.request, search) {
            Ok(packets) => {
                packets.interrupted_by(Arc::clone(&sink.gone)).interrupted_by(Arc::clone(&self.service.stopping))
            }
            Err(error) => {
                let problem: Problem = error.into();
                entry.end(problem.outcome());
                return sink.refuse(problem);
            }
        };
        let mut outcomes: Vec<Outcome> = (0u32..)
            .zip(&known)
            .map(|(selection, known)| Outcome { selection, sessions: known.sessions, ..Outcome::default() })
            .collect();
        let mut files: BTreeMap<u32, File> = BTreeMap::new();
        let (mut pending, mut targets) = (0, Vec::new());
        while let Some(found) = packets.next() {
            entry.packet(found.packet.data.len());
            targets.clear();
            for &selection in found.selections {
                outcomes[selection as usize].add(&found);
                targets.push(groups.get(selection as usize).copied().unwrap_or_default());
            }
            targets.sort_unstable();
            targets.dedup();
            for &target in &targets {
                let file = files.entry(target).or_insert_with(|| self.begin(target));
                let before = file.pending.len();
                match file.exporter.packet(&mut file.pending, found.interface, &found.packet) {
                    Ok(()) => file.packets += 1,
                    Err(_) => file.left_out += 1,
                }
                pending += file.pending.len() - before;
            }
            if pending >= PENDING_BYTES_MAX {
                pending = 0;
                self.send(&mut files, packets.part(), &mut sink)?;
            }
        }
        let summary = packets.summary();
        let drops = packets.notes().clone();
        drop(packets);
        self.service.counters.packets_sent.fetch_add(summary.packets, Ordering::Relaxed);
        self.service.counters.packets_overtaken.fetch_add(summary.overtaken, Ordering::Relaxed);
        self.explain(&mut outcomes, &known, &drops, &groups, &files);
        self.finish(&mut files, &outcomes, &mut sink)?;
        for outcome in &outcomes {
            line(&mut sink, outcome)?;
        }
        let note = self.note(summary);
        let total = Total {
            done: true,
            packets: summary.packets,
            bytes: summary.bytes,
            overtaken: summary.overtaken,
            note: &note,
        };
        line(&mut sink, &total)?;
        sink.end(axum::http::HeaderMap::new())?;
        entry.end(match summary.packets {
            _ if !note.is_empty() => &note,
            0 => "nothing matched",
            _ => "complete",
        });
        Ok(())
    }

    /// A file that nothing was written to.
    fn begin(&self, target: u32) -> File {
        let mut file = File {
            exporter: Exporter::new(self.query.format, packets::options(&self.query)),
            pending: Vec::new(),
            packets: 0,
            left_out: 0,
        };
        let asked = if self.split {
            let Selector { target, since, until } = &self.selections.selectors[target as usize];
            format!("asked for: {target}, since {since}, until {until}")
        } else {
            format!("asked for: {} selections", self.selections.selectors.len())
        };
        file.exporter.begin(&mut file.pending, &[asked]);
        file
    }

    /// Fills in why something is missing, and whose file is another's too.
    fn explain(
        &self,
        outcomes: &mut [Outcome],
        known: &[SessionTotals],
        drops: &SearchNotes,
        groups: &[u32],
        files: &BTreeMap<u32, File>,
    ) {
        let mut reach = self.service.history().reach();
        for (number, outcome) in outcomes.iter_mut().enumerate() {
            let group = groups.get(number).copied().unwrap_or(outcome.selection);
            let cause = match outcome.packets {
                0 => Some(self.selections.cause(&mut reach, number, known[number], drops)),
                _ => reach.missing(&Question::of(&self.selections.selectors[number], known[number], drops)),
            };
            let other = files.get(&if self.split { group } else { 0 }).map_or(0, |file| file.left_out);
            let cause = cause.or_else(|| {
                (other > 0).then(|| {
                    let why =
                        format!("{other} packets have another link type, which classic pcap cannot hold; use pcapng");
                    Cause::new("link_type", why)
                })
            });
            outcome.missing =
                cause.map(|Cause { code, sentence, horizon }| Missing { cause: code, detail: sentence, horizon });
            outcome.same_as = (self.split && outcome.packets > 0 && group != outcome.selection).then_some(group);
        }
    }

    fn finish(&self, files: &mut BTreeMap<u32, File>, outcomes: &[Outcome], sink: &mut Sink) -> Result<(), Closed> {
        let statistics = packets::statistics(&self.service);
        for (&target, file) in files.iter_mut() {
            let missing = match self.split {
                true => outcomes[target as usize].missing.as_ref().map(|missing| missing.detail.clone()),
                false => {
                    let count = outcomes.iter().filter(|outcome| outcome.missing.is_some()).count();
                    (count > 0).then(|| format!("of {} selections {count} miss something", outcomes.len()))
                }
            };
            file.exporter.end(&mut file.pending, &statistics, missing.as_slice());
        }
        self.send(files, 1.0, sink)
    }

    /// Sends what the files have waiting.
    fn send(&self, files: &mut BTreeMap<u32, File>, part: f64, sink: &mut Sink) -> Result<(), Closed> {
        let mut data = String::new();
        for (&target, file) in files.iter_mut().filter(|(_, file)| !file.pending.is_empty()) {
            data.clear();
            base64::engine::general_purpose::STANDARD.encode_string(&file.pending, &mut data);
            // Freed, not kept: of thousands of files few have more to come at any time.
            file.pending = Vec::new();
            let packets = std::mem::take(&mut file.packets);
            line(sink, &Piece { selection: self.split.then_some(target), data: &data, packets, part })?;
        }
        Ok(())
    }

    fn note(&self, summary: Summary) -> String {
        if summary.interrupted {
            return "incomplete: the recorder was stopped while this was sent".to_owned();
        }
        if summary.overtaken > 0 {
            return format!("{} packets were evicted before they could be sent", summary.overtaken);
        }
        String::new()
    }
}

impl Outcome {
    fn add(&mut self, found: &Found<'_>) {
        self.packets += 1;
        self.bytes += found.packet.data.len() as u64;
        self.first = Some(self.first.map_or(found.packet.time, |first| first.min(found.packet.time)));
        self.last = Some(self.last.map_or(found.packet.time, |last| last.max(found.packet.time)));
    }
}

fn line(sink: &mut Sink, value: &impl Serialize) -> Result<(), Closed> {
    let buffer = sink.buffer();
    if serde_json::to_writer(&mut *buffer, value).is_err() {
        unreachable!("texts and numbers can be written, and a buffer takes all of it");
    }
    buffer.push(b'\n');
    sink.send_full()
}
