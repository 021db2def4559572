//! `retrocap hunt`: searches the past for texts, bytes, regular expressions, indicators and named attacks.

mod combined;
mod contents;
mod matches;
mod rules;
mod sessions;
mod with;
mod yara;

use std::cell::RefCell;
use std::num::NonZeroU64;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use anyhow::anyhow;
use clap::{Args, ValueEnum};

use crate::archived::{ReadsArchive, Wanted};
use crate::client::Trailers;
use crate::error::Usage;
use crate::options::Common;
use crate::terminal::human;
use crate::terminal::output::FileMode;
use crate::terminal::printable::note;
use crate::verbs::analysis::{self, InputEvent, SessionInput};
use crate::verbs::apps;
use crate::verbs::selection::{Selection, TimeWindowArgs, duration};
use crate::verbs::trailers;
use api::question::HuntQuestion;
use base::interface::Interfaces;
use base::time::Timestamp;
use combined::CombinedSearch;
pub(crate) use contents::SearchObjects;
use hunt::indicators::Indicators;
use hunt::narrow::Searched;
use hunt::patterns::Patterns;
use hunt::{Hunter, Report, SearchScope};
use jiff::tz::TimeZone;
use matches::{Matches, Printer};
use protocols::AppFilter;
use rules::Compiled;
use streams::{Cause, Counts, Event, Session, Sink, Streams};
use with::{Program, Running};
pub(crate) use yara::ScanConfined;

/// Search the past: text, bytes, regular expressions, indicators, named attacks
#[derive(Debug, Args)]
#[command(after_help = "\
hunt searches the bytes that each side of a session sent. A match can span packets, but not missing bytes. At the end,
hunt reports what it could not search, such as cut or encrypted sessions. The exit status is 1 if nothing matched.

Examples:
  retrocap hunt --attack heartbleed --since 1d      was this used against me?
  retrocap hunt --text 'BEGIN RSA PRIVATE KEY' --json     who sent a key?
  retrocap hunt --ioc indicators.txt -w seen.pcapng       the sessions of known addresses, names and hashes
  retrocap hunt --regex '(?i)passw(or)?d=[^&]+' port 80   passwords in submitted forms
  retrocap hunt --yara rules/ --since 1h             with YARA rules, in streams and in transferred files
  retrocap hunt --attack list                        the attacks that have a name
  retrocap hunt --check rule.toml                    run the test conversations of a rule
  retrocap hunt -r odd.pcapng --attack all           a capture file instead of a recorder
  retrocap hunt --with suricata -- -S new.rules      the alerts of your own rules, over the past")]
pub(crate) struct Hunt {
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    around: TimeWindowArgs,
    /// Only sessions of this application protocol, in which this was said: http, modbus:write
    #[arg(long, value_name = "NAME[:WORD]", help_heading = "Selection", conflicts_with = "follow")]
    app: Option<AppFilter>,
    #[command(flatten)]
    rules: rules::RuleArgs,
    #[command(flatten)]
    with: with::WithArgs,
    /// Where to search: in single packets, in the stream of each side, or in transferred files [default: stream; with --yara: both]
    #[arg(long = "in", value_name = "WHERE", value_enum, help_heading = "Patterns")]
    place: Option<SearchIn>,
    /// Print the matches at the end, in the order of their times, instead of as they are found
    #[arg(long, conflicts_with = "follow")]
    sort: bool,
    /// Stop after N matches
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Write all packets of the sessions that matched to this file
    #[arg(short, long, value_name = "FILE", conflicts_with = "follow")]
    write: Option<PathBuf>,
    /// Permissions of the file written
    #[arg(long, value_name = "OCTAL", default_value = "600")]
    mode: FileMode,
    /// Keep the sessions that matched for this long, at most 36 of them
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pin: Option<std::time::Duration>,
    /// Continue with packets that arrive later, until --until 5m (from now), --limit or Ctrl-C
    #[arg(long, conflicts_with = "around")]
    follow: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum SearchIn {
    /// The payload of single packets
    Payload,
    /// The bytes that each side sent, across packets
    Stream,
    /// The decoded contents of transferred files
    File,
}

impl From<SearchIn> for SearchScope {
    fn from(place: SearchIn) -> Self {
        match place {
            SearchIn::Payload => Self::Payload,
            SearchIn::Stream => Self::Stream,
            SearchIn::File => Self::File,
        }
    }
}

impl ReadsArchive for Hunt {
    fn asked(&mut self) -> (&mut Selection, &mut TimeWindowArgs, Wanted) {
        let wanted = Wanted { sessions: false, whole_sessions: false, follows: self.follow };
        (&mut self.selection, &mut self.around, wanted)
    }

    fn run_verb(&self, common: &Common) -> anyhow::Result<()> {
        self.run(common)
    }
}

impl Hunt {
    /// The question for recorders elsewhere, which search themselves.
    ///
    /// # Errors
    ///
    /// [`Usage`] for options that need the packets here.
    pub(crate) fn question_for_recorders(&self, now: Timestamp, tz: &TimeZone) -> anyhow::Result<HuntQuestion> {
        self.selection.check_no_files()?;
        if self.app.is_some() || self.write.is_some() || self.pin.is_some() || self.follow {
            return Err(Usage::of("ask searches in the recorders: leave out --app, -w, --pin and --follow"));
        }
        let mut rules = self.rules.for_recorders()?;
        rules.place = self.place.map(Into::into);
        rules.limit = self.limit.and_then(NonZeroU64::new);
        Ok(HuntQuestion { selection: self.selection.question(Some(&self.around), now, tz)?, rules })
    }

    /// Searches, and prints matches as they are found.
    pub(crate) fn run(&self, common: &Common) -> anyhow::Result<()> {
        if let Some(done) = self.rules.answers_alone(common)? {
            return done;
        }
        let of_files = !self.selection.read.is_empty() || self.selection.spool().is_some();
        if self.follow && of_files {
            return Err(Usage::of("--follow waits for new packets, and files get none: leave out --follow"));
        }
        if self.pin.is_some() && of_files {
            return Err(Usage::of(
                "--pin keeps sessions in a recorder, and -r and --spool read files: leave out --pin",
            ));
        }
        self.with.check()?;
        if let Some(program) = self.with.program {
            return analysis::reading(common, &self.selection, |common| self.run_program(common, program));
        }
        // A mistake in a rule shows before anything is read.
        let rules = self.rules.compiled(self.place.map(Into::into), self.is_of_recorder())?;
        analysis::reading(common, &self.selection, |common| self.ask(common, rules))
    }

    fn ask(&self, common: &Common, mut rules: Compiled) -> anyhow::Result<()> {
        let interfaces = Arc::<Interfaces>::default();
        let matches = Rc::new(RefCell::new(self.printer(common, &interfaces)));
        let narrowed = rules.narrowed.take();
        let mut all = CombinedSearch::start(rules, self.place.unwrap_or(SearchIn::Stream).into(), &matches)?;
        // A recorder cuts sessions. A capture file does not say why packets are missing.
        let cause = if self.selection.read.is_empty() { Cause::Cut } else { Cause::Missing };
        let mut streams = Streams::default().with_cause(cause);
        let question = SessionInput {
            common,
            selection: &self.selection,
            around: &self.around,
            follow: self.follow,
            whole_sessions: false,
            // In a capture file, a packet has the number that other programs give it.
            narrowed: narrowed.as_ref().filter(|_| self.is_of_recorder() && !self.follow && self.app.is_none()),
        };
        let mut chosen = self.app.as_ref().map(|app| apps::find(app, &question, &interfaces, true)).transpose()?;
        let mut failed = None;
        let read = question.read(&interfaces, &mut |moment| {
            match moment {
                InputEvent::Packet(packet, _) if chosen.as_mut().is_some_and(|chosen| !chosen.has(packet)) => {}
                InputEvent::Packet(packet, sequence) => {
                    let interface = if all.wants_interfaces() { interfaces.interface(packet.interface) } else { None };
                    failed = all.packet(&mut streams, interface.as_deref(), packet, sequence).err();
                }
                InputEvent::Pause => failed = all.catch_up().err(),
            }
            if failed.is_some() || matches.borrow().is_done() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        let trailers = match failed.map_or(read, Err) {
            Ok(trailers) => trailers,
            Err(error) => {
                all.abandon();
                return Err(error);
            }
        };
        let (report, mut notes) = all.end(&mut streams)?;
        // Packets that were evicted while the search was on its way to them.
        let overtaken = trailers.text("retrocap-overtaken").and_then(|text| text.untrusted().parse().ok()).unwrap_or(0);
        let report = Report { overtaken, ..report };
        let looked_at = looked_at(&trailers);
        if looked_at.is_some() && narrowed.as_ref().is_some_and(|query| query.objects) {
            notes.push("the recorder left out sessions without an object in which something can match".to_owned());
        }
        let report = looked_at.iter().fold(report, |report, (searched, lost)| report.with_looked_at(searched, *lost));
        // Where nothing matched, this is a part of the answer, too.
        trailers::missing(&trailers, common);
        let undecoded = looked_at.map_or(streams.counts().undecoded, |(searched, _)| searched.undecoded);
        let counts = Counts { undecoded, ..streams.counts() };
        if !common.quiet {
            notes.iter().for_each(|text| note(&format!("retrocap: {text}")));
        }
        self.end(common, &matches, &report, counts, &interfaces)?;
        trailers::complete(&trailers)
    }

    fn printer(&self, common: &Common, interfaces: &Arc<Interfaces>) -> Printer {
        let mut printer = Printer::new(common, Arc::clone(interfaces), self.limit);
        if self.sort {
            printer.sort();
        }
        printer
    }

    fn is_of_recorder(&self) -> bool {
        self.selection.read.is_empty() && self.selection.spool().is_none()
    }

    /// Runs a program over the packets; its alerts are the matches.
    fn run_program(&self, common: &Common, program: Program) -> anyhow::Result<()> {
        let interfaces = Arc::<Interfaces>::default();
        let matches = Rc::new(RefCell::new(self.printer(common, &interfaces)));
        let nothing = (Patterns::default(), SearchScope::Stream, Indicators::default(), Vec::new());
        let hunter = Hunter::new(nothing.0, nothing.1, nothing.2, nothing.3, Matches(Rc::clone(&matches)));
        let mut given = Given { hunter, running: Running::start(&self.with, program)? };
        let cause = if self.selection.read.is_empty() { Cause::Cut } else { Cause::Missing };
        let mut streams = Streams::default().with_cause(cause);
        let question = SessionInput {
            common,
            selection: &self.selection,
            around: &self.around,
            follow: false,
            whole_sessions: false,
            narrowed: None,
        };
        let mut chosen = self.app.as_ref().map(|app| apps::find(app, &question, &interfaces, true)).transpose()?;
        let trailers = question.read(&interfaces, &mut |moment| {
            let InputEvent::Packet(packet, sequence) = moment else { return ControlFlow::Continue(()) };
            if chosen.as_mut().is_some_and(|chosen| !chosen.has(packet)) {
                return ControlFlow::Continue(());
            }
            streams.packet(packet, sequence, &mut given);
            match interfaces.interface(packet.interface) {
                Some(interface) => given.running.packet(&interface, packet),
                None => ControlFlow::Continue(()),
            }
        })?;
        streams.finish(&mut given);
        let report = given.hunter.report();
        let unknown = given.running.end(&mut |session, alert| matches.borrow_mut().alert(session, alert))?;
        if unknown > 0 {
            note(&format!("retrocap: {unknown} alerts name no session of the selection"));
        }
        trailers::missing(&trailers, common);
        self.end(common, &matches, &report, streams.counts(), &interfaces)?;
        trailers::complete(&trailers)
    }

    /// Writes and pins the sessions that matched, and says what was searched.
    fn end(
        &self,
        common: &Common,
        matches: &Rc<RefCell<Printer>>,
        report: &Report,
        counts: streams::Counts,
        interfaces: &Arc<Interfaces>,
    ) -> anyhow::Result<()> {
        let mut matches = matches.borrow_mut();
        matches.end();
        matches.result()?;
        let (count, sessions) = (matches.count(), matches.sessions());
        if let Some(path) = &self.write
            && count > 0
        {
            sessions::write(self.question(common), path, self.mode, &sessions, interfaces)?;
        }
        if let Some(time) = self.pin
            && count > 0
        {
            sessions::pin(common, time, &sessions)?;
        }
        if !common.quiet {
            note(&format!("retrocap: {}", report.sentence(counts)));
        }
        if count == 0 {
            return Err(anyhow!("nothing matched in the bytes that could be searched"));
        }
        if !common.quiet {
            let of = human::counted(sessions.len() as u64, "session");
            let times = if count == 1 { "1 match".to_owned() } else { format!("{} matches", human::count(count)) };
            note(&format!("retrocap: {times} in {of}"));
        }
        Ok(())
    }

    fn question<'a>(&'a self, common: &'a Common) -> SessionInput<'a> {
        SessionInput {
            common,
            selection: &self.selection,
            around: &self.around,
            follow: false,
            whole_sessions: true,
            narrowed: None,
        }
    }
}

/// What a recorder looked at to leave out sessions, and how many of them have lost packets.
fn looked_at(trailers: &Trailers) -> Option<(Searched, u64)> {
    let count = |name: &str| trailers.text(&format!("retrocap-{name}"))?.untrusted().parse::<u64>().ok();
    let number = |name| count(name).unwrap_or(0);
    let searched = Searched {
        sessions: count("searched-sessions")?,
        bytes: number("searched-bytes"),
        encrypted_sessions: number("encrypted-sessions"),
        encrypted_bytes: number("encrypted-bytes"),
        undecoded: number("undecoded"),
        without_start: number("without-start"),
        truncated: (number("truncated"), number("truncated-bytes")),
    };
    Some((searched, number("cut-sessions")))
}

/// The packets that a program gets: what is said of them, and the sessions that its alerts may name.
struct Given {
    hunter: Hunter<Matches>,
    running: Running,
}

impl Sink for Given {
    fn event(&mut self, session: &Session, event: Event<'_>) {
        self.hunter.event(session, event);
        self.running.event(session, &event);
    }
}
