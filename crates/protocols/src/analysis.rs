//! Detects the protocol of each session, and passes its bytes to the parser.

use std::collections::HashMap;

use streams::{Gap, PacketRef, Run, Sender, Session, Sink};

use crate::event::ProtocolSink;
use crate::parser::{ExpectedConnection, ExpectedConnections, Input, Parser, ParserOutput, Step};
use crate::probe::{Carrier, Probe, Verdict};
use crate::protocol::Protocol;
use crate::table::TABLE;
use crate::waiting::UnparsedBytes;

/// Maximum number of bytes of a direction that wait for the rest of their message.
pub const BUFFER_BYTES_MAX: usize = 256 << 10;
/// Bytes of a direction after which detection stops.
const PROBE_BYTES_MAX: usize = 4 << 10;
/// Messages after which detection stops in a session of messages.
const PROBE_MESSAGES_MAX: u32 = 4;
/// Maximum number of bytes that wait in all sessions. The parser of the session that would exceed it is ended.
const WAITING_BYTES_MAX: usize = 64 << 20;

/// The state of protocol detection in a session.
enum ProtocolState {
    /// Not yet found.
    Probing { messages: u32 },
    /// The protocol, and its parser until it gives up.
    Known { protocol: &'static Protocol, parser: Option<Box<dyn Parser + Send>> },
    /// Not found.
    Unknown,
}

struct SessionAnalysis {
    reading: ProtocolState,
    waiting: [UnparsedBytes; 2],
    objects: u64,
    /// The packet of the newest bytes.
    now: PacketRef,
}

/// Detects and parses the protocols of all sessions.
pub struct Protocols<F: ProtocolSink> {
    /// The receiver of all events and object parts.
    pub sink: F,
    sessions: HashMap<u64, SessionAnalysis>,
    expected: ExpectedConnections,
    waiting_bytes: usize,
    waiting_bytes_max: usize,
    /// Number of parsers that were ended because a message was too large or memory was short.
    pub given_up: u64,
}

impl<F: ProtocolSink> std::fmt::Debug for Protocols<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Protocols").field("sessions", &self.sessions.len()).finish_non_exhaustive()
    }
}

impl<F: ProtocolSink> Protocols<F> {
    /// Passes all events and object parts to `sink`.
    pub fn new(sink: F) -> Self {
        Self {
            sink,
            sessions: HashMap::new(),
            expected: ExpectedConnections::default(),
            waiting_bytes: 0,
            waiting_bytes_max: WAITING_BYTES_MAX,
            given_up: 0,
        }
    }

    /// Limits the bytes that wait in all sessions.
    #[must_use]
    pub fn with_waiting_bytes_max(self, bytes: usize) -> Self {
        Self { waiting_bytes_max: bytes, ..self }
    }

    fn with(&mut self, session: &Session, work: impl FnOnce(&mut SessionAnalysis, &mut AnalysisContext<'_>)) {
        let Some(analysis) = self.sessions.get_mut(&session.number) else { return };
        let before = analysis.waiting_bytes();
        let mut shared = AnalysisContext { sink: &mut self.sink, session, expected: &mut self.expected, given_up: 0 };
        work(analysis, &mut shared);
        self.given_up += shared.given_up;
        self.waiting_bytes = self.waiting_bytes + analysis.waiting_bytes() - before;
        if self.waiting_bytes > self.waiting_bytes_max {
            self.waiting_bytes -= analysis.waiting_bytes();
            analysis.give_up();
            self.given_up += 1;
        }
    }
}

impl<F: ProtocolSink> Sink for Protocols<F> {
    fn event(&mut self, session: &Session, event: streams::Event<'_>) {
        match event {
            streams::Event::Begin => {
                let reading = ProtocolState::Probing { messages: 0 };
                let waiting = [UnparsedBytes::default(), UnparsedBytes::default()];
                let analysis = SessionAnalysis { reading, waiting, objects: 0, now: PacketRef::default() };
                self.sessions.insert(session.number, analysis);
            }
            streams::Event::Run(run) => self.with(session, |analysis, shared| analysis.run(&run, shared)),
            streams::Event::Gap(gap) if gap.len > 0 => {
                self.with(session, |analysis, shared| analysis.gap(&gap, shared));
            }
            streams::Event::Gap(_) | streams::Event::Conflict(_) => {}
            streams::Event::End => {
                self.with(session, |analysis, shared| {
                    analysis.end(shared);
                    analysis.give_up();
                });
                self.sessions.remove(&session.number);
            }
        }
    }
}

/// State shared by all sessions.
struct AnalysisContext<'a> {
    sink: &'a mut dyn ProtocolSink,
    session: &'a Session,
    expected: &'a mut ExpectedConnections,
    given_up: u64,
}

/// The part of a session's analysis that its parser may use.
fn parser_output<'a>(
    protocol: &Protocol,
    waiting: &'a [UnparsedBytes; 2],
    objects: &'a mut u64,
    now: PacketRef,
    shared: &'a mut AnalysisContext<'_>,
) -> ParserOutput<'a> {
    ParserOutput {
        sink: shared.sink,
        session: shared.session,
        app: protocol.name,
        places: waiting.each_ref().map(|waiting| &waiting.places),
        objects,
        expected: shared.expected,
        now,
        next: None,
    }
}

impl SessionAnalysis {
    fn waiting_bytes(&self) -> usize {
        self.waiting.iter().map(|waiting| waiting.data.capacity()).sum()
    }

    /// Stops reading the session.
    fn give_up(&mut self) {
        for waiting in &mut self.waiting {
            waiting.clear(waiting.offset());
        }
        match &mut self.reading {
            ProtocolState::Known { parser, .. } => *parser = None,
            reading => *reading = ProtocolState::Unknown,
        }
    }

    fn run(&mut self, run: &Run<'_>, shared: &mut AnalysisContext<'_>) {
        self.now = run.packet;
        match &self.reading {
            ProtocolState::Unknown | ProtocolState::Known { parser: None, .. } => return,
            ProtocolState::Known { protocol, .. } => {
                let waiting = &mut self.waiting[run.sender.index()];
                if waiting.lost {
                    let probe = Probe::of_one(run, shared.session);
                    if (protocol.probe)(&probe) != Verdict::Yes && !(protocol.resumes)(run.data) {
                        return;
                    }
                    waiting.lost = false;
                }
            }
            ProtocolState::Probing { .. } => {}
        }
        if shared.session.is_messages() {
            self.message(run, shared);
            return;
        }
        self.waiting[run.sender.index()].add(run);
        if matches!(self.reading, ProtocolState::Probing { .. }) && !self.probe(shared) {
            return;
        }
        self.feed(run.sender, shared);
    }

    fn message(&mut self, run: &Run<'_>, shared: &mut AnalysisContext<'_>) {
        if let ProtocolState::Probing { messages } = &mut self.reading {
            *messages += 1;
            let given = *messages >= PROBE_MESSAGES_MAX;
            let probe = Probe::of_one(run, shared.session);
            let expected = shared.expected.find(shared.session);
            let found = TABLE.iter().find(|row| {
                expected.as_ref().is_some_and(|expected| expected.protocol == row.name)
                    || (row.carrier.is_messages() && (row.probe)(&probe) == Verdict::Yes)
            });
            match found {
                Some(row) => self.begin(row, expected, shared),
                None if given => self.reading = ProtocolState::Unknown,
                None => return,
            }
        }
        let waiting = &mut self.waiting[run.sender.index()];
        waiting.clear(run.offset);
        waiting.places.set(run);
        let input = Input { sender: run.sender, data: run.data, offset: run.offset };
        // A message that the parser does not understand does not rule out that it understands the next one.
        let _ = self.parse(input, shared);
    }

    /// Tries to detect the protocol. Returns whether it is known now.
    fn probe(&mut self, shared: &mut AnalysisContext<'_>) -> bool {
        let session = shared.session;
        let probe = Probe {
            data: [self.waiting[0].rest(), self.waiting[1].rest()],
            ports: [session.originator().port, session.responder().port],
            carrier: Carrier::of(session),
        };
        let expected = shared.expected.find(session);
        let mut undecided = false;
        let found = TABLE.iter().find(|row| {
            if expected.as_ref().is_some_and(|expected| expected.protocol == row.name) {
                return true;
            }
            if !row.carrier.is_stream() {
                return false;
            }
            let verdict = (row.probe)(&probe);
            undecided |= verdict == Verdict::More;
            verdict == Verdict::Yes
        });
        let most = probe.data.iter().map(|data| data.len()).max().unwrap_or(0);
        match found {
            Some(row) => {
                self.begin(row, expected, shared);
                // The other direction may have been received first.
                self.feed(Sender::Originator, shared);
                self.feed(Sender::Responder, shared);
                true
            }
            None => {
                let both = self.waiting.iter().all(|waiting| !waiting.data.is_empty());
                if most > PROBE_BYTES_MAX || (both && !undecided) {
                    self.reading = ProtocolState::Unknown;
                    self.give_up();
                }
                false
            }
        }
    }

    fn begin(
        &mut self,
        row: &'static Protocol,
        expected: Option<ExpectedConnection>,
        shared: &mut AnalysisContext<'_>,
    ) {
        shared.sink.app(shared.session, row.name);
        self.reading = ProtocolState::Known { protocol: row, parser: Some((row.parser)(expected)) };
    }

    /// Passes waiting bytes to the parser for as long as it uses some of them.
    fn feed(&mut self, sender: Sender, shared: &mut AnalysisContext<'_>) {
        loop {
            let waiting = &mut self.waiting[sender.index()];
            let data = std::mem::take(&mut waiting.data);
            let input = Input { sender, data: &data[waiting.used..], offset: waiting.start + waiting.used as u64 };
            let len = input.data.len();
            let step = if len == 0 { Step::More } else { self.parse(input, shared) };
            let waiting = &mut self.waiting[sender.index()];
            waiting.data = data;
            match step {
                Step::Used(bytes) => {
                    waiting.used += bytes.clamp(1, len);
                    waiting.release();
                    // After a switch to an unknown protocol, detect it in the next run.
                    if matches!(self.reading, ProtocolState::Probing { .. }) {
                        return;
                    }
                }
                Step::Switch if matches!(self.reading, ProtocolState::Known { .. }) => {}
                Step::Switch => return,
                Step::More => {
                    if len > BUFFER_BYTES_MAX {
                        shared.given_up += 1;
                        self.give_up();
                    }
                    return;
                }
                Step::Stop => {
                    self.give_up();
                    return;
                }
            }
        }
    }

    fn parse(&mut self, input: Input<'_>, shared: &mut AnalysisContext<'_>) -> Step {
        let ProtocolState::Known { protocol, parser: Some(parser) } = &mut self.reading else { return Step::Stop };
        let mut out = parser_output(protocol, &self.waiting, &mut self.objects, self.now, shared);
        let step = parser.data(input, &mut out);
        if let Some(next) = out.next {
            self.switch(next, shared);
        }
        step
    }

    /// Continues with another protocol.
    fn switch(&mut self, to: &'static str, shared: &mut AnalysisContext<'_>) {
        match TABLE.iter().find(|row| row.name == to) {
            Some(row) => self.begin(row, None, shared),
            None => self.reading = ProtocolState::Probing { messages: 0 },
        }
    }

    fn gap(&mut self, gap: &Gap, shared: &mut AnalysisContext<'_>) {
        let next = gap.offset + gap.len;
        let at = gap.sender.index();
        let ProtocolState::Known { protocol, parser: Some(parser) } = &mut self.reading else {
            // Only the start of a stream identifies its protocol.
            self.waiting[at].clear(next);
            return;
        };
        let left = self.waiting[at].rest().len() as u64;
        let mut out = parser_output(protocol, &self.waiting, &mut self.objects, self.now, shared);
        let goes_on = parser.gap(gap.sender, gap.len + left, &mut out);
        self.waiting[at].clear(next);
        self.waiting[at].lost = !goes_on && !shared.session.is_messages();
    }

    fn end(&mut self, shared: &mut AnalysisContext<'_>) {
        let ProtocolState::Known { protocol, parser: Some(parser) } = &mut self.reading else { return };
        let mut out = parser_output(protocol, &self.waiting, &mut self.objects, self.now, shared);
        parser.end(&mut out);
    }
}
