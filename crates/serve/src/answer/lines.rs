//! An answer in lines: pieces of files as they are made, an outcome for each selection, and a total.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use base64::Engine as _;

use super::super::audit::AuditEntry;
use super::super::service::Service;
use super::super::spool_health::is_on_disk;
use super::on_disk::disk_problem;
use super::packets;
use super::selection_query::SelectionQuery;
use super::stream::{AnswerEnd, ClientGone, Sink};
use api::Problem;
use api::answers::{Missing, NotOpened, Outcome, Piece, Total};
use api::parameters::PacketQuery;
use formats::writer::{ExportError, Exporter, Format};
use query::attribution::PacketProcesses;
use query::explain::{Cause, Question};
use query::search::{Selector, SessionTotals};
use query::{Found, SearchNotes, Summary, counted};

/// One answer in lines.
pub(crate) struct LinesAnswer {
    pub(crate) service: Arc<Service>,
    pub(crate) query: PacketQuery,
    pub(crate) selections: SelectionQuery,
    /// Whether each selection gets a file of its own.
    pub(crate) split: bool,
}

/// A file that is being made.
struct File {
    exporter: Exporter,
    pending: Vec<u8>,
    /// Packets in `pending`.
    packets: u64,
    left_out: u64,
}

impl File {
    fn put(&mut self, found: &Found<'_>, comment: Option<&str>) -> Result<(), ExportError> {
        let (exporter, pending) = (&mut self.exporter, &mut self.pending);
        match comment {
            Some(comment) => exporter.packet_with_comment(pending, found.interface, &found.packet, comment),
            None => exporter.packet(pending, found.interface, &found.packet),
        }
    }
}

impl LinesAnswer {
    /// Makes and sends the answer.
    pub(crate) fn run(self, mut sink: Sink, mut entry: AuditEntry) -> Result<(), ClientGone> {
        let stop = || sink.gone.load(Ordering::Relaxed) || self.service.is_stopping();
        let search = self.selections.search(&self.service, &stop);
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
        // Bytes of all files together after which they are sent.
        let pending_bytes_max = 2 * sink.chunk_bytes();
        let (mut pending, mut targets) = (0, Vec::new());
        let table = self.service.processes.as_deref().filter(|_| self.query.format == Format::Pcapng);
        let mut processes = table.map(PacketProcesses::new);
        while let Some(found) = packets.next() {
            let comment = processes.as_mut().and_then(|processes| processes.comment(&found.packet));
            entry.packet(found.packet.data.len());
            targets.clear();
            for &selection in found.selections {
                add(&mut outcomes[selection as usize], &found);
                targets.push(groups.get(selection as usize).copied().unwrap_or_default());
            }
            targets.sort_unstable();
            targets.dedup();
            for &target in &targets {
                let file = files.entry(target).or_insert_with(|| self.begin(target));
                let before = file.pending.len();
                match file.put(&found, comment.as_deref()) {
                    Ok(()) => file.packets += 1,
                    Err(_) => file.left_out += 1,
                }
                pending += file.pending.len() - before;
            }
            if pending >= pending_bytes_max {
                pending = 0;
                self.send(&mut files, packets.part(), &mut sink)?;
            }
        }
        let summary = packets.summary();
        let drops = packets.notes().clone();
        let on_disk = disk_problem(self.service.history(), &self.query.request, packets.disk_summary());
        drop(packets);
        self.service.counters.packets_sent.fetch_add(summary.packets, Ordering::Relaxed);
        self.service.counters.packets_overtaken.fetch_add(summary.overtaken, Ordering::Relaxed);
        self.explain(&mut outcomes, &known, &drops, &groups, &files);
        self.finish(&mut files, &outcomes, &mut sink)?;
        for outcome in &outcomes {
            sink.line(outcome)?;
        }
        let mut note = self.note(summary);
        if let Some(damage) = on_disk {
            note = if note.is_empty() { damage } else { format!("{note}; {damage}") };
        }
        let total = Total {
            done: true,
            packets: summary.packets,
            bytes: summary.bytes,
            overtaken: summary.overtaken,
            note: &note,
        };
        sink.line(&total)?;
        sink.end(AnswerEnd::default())?;
        entry.end(match summary.packets {
            _ if !note.is_empty() => &note,
            0 => "nothing matched",
            _ => "complete",
        });
        Ok(())
    }

    /// A file with its header alone.
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

    /// Fills in why something is missing, and which selections share a file.
    fn explain(
        &self,
        outcomes: &mut [Outcome],
        known: &[SessionTotals],
        drops: &SearchNotes,
        groups: &[u32],
        files: &BTreeMap<u32, File>,
    ) {
        let mut reach = self.selections.reach(&self.service);
        let is_on_disk = is_on_disk(self.service.history(), &self.query.request);
        for (number, outcome) in outcomes.iter_mut().enumerate() {
            let group = groups.get(number).copied().unwrap_or(outcome.selection);
            let cause = match outcome.packets {
                0 => Some(self.selections.cause(&mut reach, number, known[number], drops)),
                // The disk has what memory lost.
                _ if is_on_disk => None,
                _ => reach.missing(&Question::of(&self.selections.selectors[number], known[number], drops)),
            };
            let other = files.get(&if self.split { group } else { 0 }).map_or(0, |file| file.left_out);
            let cause = cause.or_else(|| {
                (other > 0).then(|| {
                    let why = format!(
                        "{} another link type, which classic pcap cannot hold; use pcapng",
                        counted(other, "packet has", "packets have")
                    );
                    Cause::new("link_type", why)
                })
            });
            outcome.missing = cause.map(|Cause { code, sentence, horizon, unopened }| Missing {
                cause: code,
                detail: sentence.into(),
                horizon,
                not_opened: NotOpened::list(&unopened),
            });
            outcome.same_as = (self.split && outcome.packets > 0 && group != outcome.selection).then_some(group);
        }
    }

    fn finish(&self, files: &mut BTreeMap<u32, File>, outcomes: &[Outcome], sink: &mut Sink) -> Result<(), ClientGone> {
        let statistics = packets::statistics(&self.service);
        for (&target, file) in files.iter_mut() {
            let missing = match self.split {
                true => outcomes[target as usize].missing.as_ref().map(|missing| missing.detail.untrusted().to_owned()),
                false => {
                    let count = outcomes.iter().filter(|outcome| outcome.missing.is_some()).count();
                    (count > 0).then(|| format!("{count} of {} selections are incomplete", outcomes.len()))
                }
            };
            file.exporter.end(&mut file.pending, &statistics, missing.as_slice());
        }
        self.send(files, 1.0, sink)
    }

    /// Sends the pending bytes of all files.
    fn send(&self, files: &mut BTreeMap<u32, File>, part: f64, sink: &mut Sink) -> Result<(), ClientGone> {
        let mut data = String::new();
        for (&target, file) in files.iter_mut().filter(|(_, file)| !file.pending.is_empty()) {
            data.clear();
            base64::engine::general_purpose::STANDARD.encode_string(&file.pending, &mut data);
            // Freed and not kept, because few of thousands of files have more bytes soon.
            file.pending = Vec::new();
            let packets = std::mem::take(&mut file.packets);
            sink.line(&Piece { selection: self.split.then_some(target), data: &data, packets, part })?;
        }
        Ok(())
    }

    fn note(&self, summary: Summary) -> String {
        if summary.interrupted {
            return "incomplete: the recorder was stopped while it sent this answer".to_owned();
        }
        if summary.overtaken > 0 {
            let packets = counted(summary.overtaken, "packet was", "packets were");
            return format!("{packets} evicted before being sent");
        }
        String::new()
    }
}

fn add(outcome: &mut Outcome, found: &Found<'_>) {
    outcome.packets += 1;
    outcome.bytes += found.packet.data.len() as u64;
    outcome.first = Some(outcome.first.map_or(found.packet.time, |first| first.min(found.packet.time)));
    outcome.last = Some(outcome.last.map_or(found.packet.time, |last| last.max(found.packet.time)));
}
