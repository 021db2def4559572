//! One pass over all sessions.

use std::collections::{HashMap, VecDeque};

use protocols::Protocols;
use streams::{Run, Sender, Session, Sink};

use crate::attack::Attack;
use crate::indicators::Indicators;
use crate::matched::{Match, MatchSink};
use crate::patterns::{Pattern, Patterns};
use crate::report::Report;
use crate::session_search::SessionSearch;
use crate::window::{Continuation, Window, context};

/// Maximum number of bytes in the windows of all sessions.
const WINDOWS_BYTES_MAX: usize = 48 << 20;

/// What is searched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SearchScope {
    /// The payload of each packet by itself.
    Payload,
    /// The bytes of each direction, across packets.
    #[default]
    Stream,
    /// The contents of objects; the caller searches them.
    File,
}

/// Searches all sessions.
pub struct Hunter<F: MatchSink> {
    search: Option<StreamSearch>,
    protocols: Protocols<SessionSearch<F>>,
}

impl<F: MatchSink> std::fmt::Debug for Hunter<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hunter").finish_non_exhaustive()
    }
}

/// The search of streams.
struct StreamSearch {
    patterns: Patterns,
    place: SearchScope,
    windows: HashMap<u64, (Session, [Window; 2])>,
    order: VecDeque<(u64, Sender)>,
    held_bytes: usize,
    windows_bytes_max: usize,
}

impl<F: MatchSink> Hunter<F> {
    /// A search that passes matches to `found`.
    pub fn new(patterns: Patterns, place: SearchScope, indicators: Indicators, attacks: Vec<Attack>, found: F) -> Self {
        let search = (!patterns.is_empty() && place != SearchScope::File).then(|| StreamSearch {
            patterns,
            place,
            windows: HashMap::new(),
            order: VecDeque::new(),
            held_bytes: 0,
            windows_bytes_max: WINDOWS_BYTES_MAX,
        });
        Self { search, protocols: Protocols::new(SessionSearch::new(found, attacks, indicators)) }
    }

    /// Limits the bytes that wait in the windows of all sessions, and the same for their parsers.
    #[must_use]
    pub fn with_waiting_bytes_max(mut self, bytes: usize) -> Self {
        if let Some(search) = &mut self.search {
            search.windows_bytes_max = bytes;
        }
        self.protocols = self.protocols.with_waiting_bytes_max(bytes);
        self
    }

    /// What was searched so far.
    pub fn report(&self) -> Report {
        Report { unread_messages: self.protocols.given_up, ..self.protocols.sink.report.clone() }
    }

    /// The receiver of matches.
    pub fn found(&mut self) -> &mut F {
        &mut self.protocols.sink.found
    }

    /// Ends the search: no further packets come.
    pub fn finish(&mut self) {
        self.protocols.sink.finish();
    }

    /// Searches the bytes of all sessions so far, although more may follow.
    pub fn catch_up(&mut self) {
        if let Some(search) = &mut self.search {
            let mut numbers: Vec<u64> = search.windows.keys().copied().collect();
            numbers.sort_unstable();
            numbers.into_iter().for_each(|number| search.flush(number, Continuation::Pause, &mut self.protocols.sink));
        }
    }
}

impl<F: MatchSink> Sink for Hunter<F> {
    fn event(&mut self, session: &Session, event: streams::Event<'_>) {
        self.protocols.sink.note(session, &event);
        self.protocols.event(session, event);
        if let Some(search) = &mut self.search {
            search.event(session, &event, &mut self.protocols.sink);
        }
        if event == streams::Event::End {
            self.protocols.sink.end(session);
        }
    }
}

impl StreamSearch {
    fn event<F: MatchSink>(&mut self, session: &Session, event: &streams::Event<'_>, asked: &mut SessionSearch<F>) {
        match event {
            streams::Event::Run(run) if self.place == SearchScope::Payload || session.is_messages() => {
                self.patterns.find(
                    run.data,
                    |_| 0,
                    |_, named, from, to| {
                        asked.pattern(session, run.sender, named, payload_match(named, run, from, to));
                    },
                );
            }
            streams::Event::Run(run) => {
                let new = || (session.clone(), [Window::default(), Window::default()]);
                let (_, windows) = self.windows.entry(session.number).or_insert_with(new);
                let window = &mut windows[run.sender.index()];
                let before = window.held_bytes();
                if before == 0 {
                    self.order.push_back((session.number, run.sender));
                }
                window.add(run, &self.patterns, &mut |named, one| asked.pattern(session, run.sender, named, one));
                self.held_bytes = self.held_bytes + window.held_bytes() - before;
                self.make_room(asked);
            }
            streams::Event::Gap(gap) => {
                let Some((_, windows)) = self.windows.get_mut(&session.number) else { return };
                let window = &mut windows[gap.sender.index()];
                self.held_bytes -= window.held_bytes();
                window.gap(&self.patterns, &mut |named, one| asked.pattern(session, gap.sender, named, one));
                self.held_bytes += window.held_bytes();
            }
            streams::Event::End => {
                self.flush(session.number, Continuation::End, asked);
                self.windows.remove(&session.number);
            }
            _ => {}
        }
    }

    /// Searches the bytes of a session so far.
    fn flush<F: MatchSink>(&mut self, number: u64, then: Continuation, asked: &mut SessionSearch<F>) {
        let Some((session, windows)) = self.windows.get_mut(&number) else { return };
        for sender in Sender::BOTH {
            let window = &mut windows[sender.index()];
            self.held_bytes -= window.held_bytes();
            window.search(then, &self.patterns, &mut |named, one| asked.pattern(session, sender, named, one));
            self.held_bytes += window.held_bytes();
        }
    }

    /// Searches and drops the oldest windows. A match that continues beyond them is missed, which is counted.
    fn make_room<F: MatchSink>(&mut self, asked: &mut SessionSearch<F>) {
        while self.held_bytes > self.windows_bytes_max
            && let Some((number, sender)) = self.order.pop_front()
        {
            let Some((session, windows)) = self.windows.get_mut(&number) else { continue };
            let window = &mut windows[sender.index()];
            self.held_bytes -= window.held_bytes();
            window.search(Continuation::End, &self.patterns, &mut |named, one| {
                asked.pattern(session, sender, named, one)
            });
            self.held_bytes += window.held_bytes();
            asked.report.in_pieces += 1;
        }
    }
}

/// A match in the payload of one packet.
fn payload_match(named: &Pattern, run: &Run<'_>, from: usize, to: usize) -> Match {
    Match {
        rule: named.rule.clone(),
        kind: named.kind,
        stage: named.stage.clone(),
        sender: Some(run.sender),
        stream_offset: Some(run.offset + from as u64),
        packet: run.packet,
        length: (to - from) as u64,
        context: context(run.data, from, to),
        gap_before: false,
        detail: String::new(),
    }
}
