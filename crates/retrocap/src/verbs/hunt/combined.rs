//! All searches of one hunt: those of streams here, that of objects in a process of its own, and YARA.

use std::cell::RefCell;
use std::rc::Rc;

use super::contents::{FoundObject, ObjectSearcher};
use super::matches::{Matches, Printer};
use super::rules::Compiled;
use super::yara::{Unscanned, YaraStreams};
use crate::terminal::human;
use base::interface::Interface;
use base::packet::Packet;
use hunt::{Hunter, Report, SearchScope};
use streams::{Event, Session, Sink, Streams};

/// The searches of one hunt.
pub(super) struct CombinedSearch {
    pub(super) hunter: Hunter<Matches>,
    yara: Option<YaraStreams>,
    objects: Option<ObjectSearcher>,
    matches: Rc<RefCell<Printer>>,
}

impl CombinedSearch {
    /// Starts the searches. Also returns the packets that a recorder may leave out.
    pub(super) fn start(rules: Compiled, place: SearchScope, matches: &Rc<RefCell<Printer>>) -> anyhow::Result<Self> {
        let (yara, in_streams) = rules.yara.unzip();
        let in_objects = rules.files.as_ref().is_some_and(|files| files.pass_contents);
        let of_objects = yara.clone().filter(|_| in_objects);
        let objects = rules.files.map(|files| ObjectSearcher::start(&files, of_objects)).transpose()?;
        let yara = yara.filter(|_| in_streams == Some(true)).map(YaraStreams::new).transpose()?;
        let found = Matches(Rc::clone(matches));
        let hunter = Hunter::new(rules.patterns, place, rules.indicators, rules.attacks, found);
        Ok(Self { hunter, yara, objects, matches: Rc::clone(matches) })
    }

    /// Takes a packet.
    pub(super) fn packet(
        &mut self,
        streams: &mut Streams,
        interface: Option<&Interface>,
        packet: &Packet<'_>,
        sequence: u64,
    ) -> anyhow::Result<()> {
        if let (Some(objects), Some(interface)) = (&mut self.objects, interface) {
            objects.packet(interface, packet);
            objects.found(&mut |found| print(&self.matches, &found));
        }
        streams.packet(packet, sequence, self);
        self.print_streams()
    }

    /// Searches what has come so far, in a search that goes on.
    pub(super) fn catch_up(&mut self) -> anyhow::Result<()> {
        self.hunter.catch_up();
        if let Some(objects) = &mut self.objects {
            objects.catch_up();
            objects.found(&mut |found| print(&self.matches, &found));
        }
        if let Some(yara) = &mut self.yara {
            yara.catch_up()?;
        }
        self.print_streams()
    }

    /// Whether packets are passed on to a process, with their interfaces.
    pub(super) fn wants_interfaces(&self) -> bool {
        self.objects.is_some()
    }

    fn print_streams(&mut self) -> anyhow::Result<()> {
        if let Some(yara) = &mut self.yara {
            for (session, one) in yara.found()? {
                self.matches.borrow_mut().add(&session, &one, None);
            }
        }
        Ok(())
    }

    /// Ends the searches before their end.
    pub(super) fn abandon(self) {
        if let Some(objects) = self.objects {
            objects.abandon();
        }
    }

    /// Ends the searches. Returns what was searched, and what else is to be said of that.
    pub(super) fn end(mut self, streams: &mut Streams) -> anyhow::Result<(Report, Vec<String>)> {
        if self.matches.borrow().is_done() {
            let report = self.hunter.report();
            self.abandon();
            return Ok((report, Vec::new()));
        }
        streams.finish(&mut self);
        self.hunter.finish();
        let mut notes = Vec::new();
        let mut unscanned = Unscanned::default();
        let mut report = self.hunter.report();
        if let Some(yara) = &mut self.yara {
            unscanned += yara.finish()?;
            report.in_pieces += yara.in_pieces;
        }
        self.print_streams()?;
        if let Some(objects) = self.objects.take() {
            let (summary, of_objects) = objects.end(&mut |found| print(&self.matches, &found))?;
            unscanned += of_objects;
            report.more_matches += summary.more_matches;
            let mut note = format!("searched {}", human::counted(summary.objects, "object"));
            if summary.incomplete > 0 {
                note.push_str(&format!(", {} of them incomplete", summary.incomplete));
            }
            if summary.left_out > 0 {
                note.push_str(&format!("; {} more were left out, because of the limit of objects", summary.left_out));
            }
            notes.push(note);
        }
        report.more_matches += unscanned.more_matches;
        if unscanned.failed > 0 {
            notes.push(format!("yara could not search {} to the end", human::counted(unscanned.failed, "content")));
        }
        if unscanned.uncertain > 0 {
            let times = human::counted(unscanned.uncertain, "time");
            notes.push(format!("yara warned {times} that a string occurs too often, so that its rule may be wrong"));
        }
        Ok((report, notes))
    }
}

impl Sink for CombinedSearch {
    fn event(&mut self, session: &Session, event: Event<'_>) {
        self.hunter.event(session, event);
        if let Some(yara) = &mut self.yara {
            yara.event(session, event);
        }
    }
}

fn print(matches: &Rc<RefCell<Printer>>, found: &FoundObject) {
    matches.borrow_mut().add(&found.session, &found.one, Some(&found.file));
}
