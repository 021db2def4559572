//! One pass over all sessions.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use base::counted::counted;
use engine::budget::ByteSize;
use protocols::table::TABLE;
use protocols::{Event, ObjectPart, ProtocolSink, Protocols};
use streams::{Cause, PacketRef, Run, Sender, Session, Sink};

use crate::attack::{Attack, Count};
use crate::counting::Counting;
use crate::indicators::Indicators;
use crate::matched::{Kind, Match, MatchSink};
use crate::narrow::Searched;
use crate::patterns::{Pattern, Patterns};
use crate::window::{Continuation, Window, context};

/// Maximum number of bytes in the windows of all sessions.
const WINDOWS_BYTES_MAX: usize = 48 << 20;
/// Reported matches of one rule in one session. Further ones are only counted.
const MATCHES_MAX: u32 = 100;

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

/// What was searched, and what could not be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Sessions.
    pub sessions: u64,
    /// Payload bytes.
    pub bytes: u64,
    /// Sessions of protocols that encrypt.
    pub encrypted_sessions: u64,
    /// Their payload bytes.
    pub encrypted_bytes: u64,
    /// Missing parts, by cause: how many, and bytes where the length is known.
    pub gaps: BTreeMap<Cause, (u64, u64)>,
    /// Sessions with missing parts.
    pub cut_sessions: u64,
    /// Sessions that have lost packets, as the recorder knows.
    pub lost_sessions: u64,
    /// Retransmissions that differ from the original bytes. The original bytes were searched.
    pub conflicts: u64,
    /// Matches beyond the limit for one rule in one session.
    pub more_matches: u64,
    /// Directions searched in pieces to save memory.
    pub in_pieces: u64,
    /// Parsers that gave up.
    pub unread_messages: u64,
    /// Packets that were evicted before the search came to them; the caller counts them.
    pub overtaken: u64,
}

impl Report {
    /// The report if the recorder looked at these sessions, and only some of them were searched closely.
    #[must_use]
    pub fn with_looked_at(self, searched: &Searched, lost_sessions: u64) -> Self {
        let gaps = [(Cause::NoSyn, (searched.without_start, 0)), (Cause::Snaplen, searched.truncated)];
        Self {
            sessions: searched.sessions,
            bytes: searched.bytes,
            encrypted_sessions: searched.encrypted_sessions,
            encrypted_bytes: searched.encrypted_bytes,
            gaps: gaps.into_iter().filter(|(_, (times, _))| *times > 0).collect(),
            lost_sessions,
            ..self
        }
    }

    /// What was searched, and what could not be.
    pub fn sentence(&self, counts: streams::Counts) -> String {
        let mut not = Vec::new();
        for (cause, (times, bytes)) in &self.gaps {
            let (one, several, what) = match cause {
                Cause::NoSyn => ("direction", "directions", "whose start was not captured"),
                Cause::Snaplen => ("truncated packet", "truncated packets", ""),
                Cause::Dropped => ("gap", "gaps", "where packets were dropped"),
                Cause::Cut => ("gap", "gaps", "at the end of sessions that were cut"),
                Cause::Evicted => ("gap", "gaps", "within sessions, of evicted packets"),
                Cause::Overtaken => ("gap", "gaps", "of streams that gave way to others"),
                Cause::Missing => ("gap", "gaps", "whose packets are not in the file"),
            };
            let space = if what.is_empty() { "" } else { " " };
            let size = if *bytes > 0 { format!(" ({})", ByteSize(*bytes)) } else { String::new() };
            not.push(format!("{}{space}{what}{size}", counted(*times, one, several)));
        }
        if self.encrypted_sessions > 0 {
            let (sessions, bytes) = (self.encrypted_sessions, ByteSize(self.encrypted_bytes));
            not.push(format!("{} of encrypted protocols ({bytes})", counted(sessions, "session", "sessions")));
        }
        for (number, one, several, what) in [
            (self.lost_sessions, "session", "sessions", "with lost packets"),
            (self.overtaken, "packet", "packets", "evicted during the search"),
            (counts.undecoded, "packet", "packets", "with unknown headers"),
            (counts.incomplete_datagrams, "datagram", "datagrams", "with missing fragments"),
            (counts.ended_early, "session", "sessions", "split to save memory"),
            (self.in_pieces, "direction", "directions", "searched in pieces to save memory"),
            (self.unread_messages, "session", "sessions", "whose messages could not be read to the end"),
            (
                self.conflicts,
                "conflicting retransmission",
                "conflicting retransmissions",
                "of which the first bytes were searched",
            ),
            (self.more_matches, "further match", "further matches", "of one rule in one session, not listed"),
        ] {
            if number > 0 {
                not.push(format!("{} {what}", counted(number, one, several)));
            }
        }
        let searched =
            format!("searched {} of {}", ByteSize(self.bytes), counted(self.sessions, "session", "sessions"));
        if not.is_empty() { searched } else { format!("{searched}; not searched completely: {}", not.join(", ")) }
    }
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

/// The search of messages, and the state that all searches share.
struct SessionSearch<F> {
    found: F,
    attacks: Vec<Attack>,
    indicators: Indicators,
    counting: Counting,
    sessions: HashMap<u64, SessionState>,
    report: Report,
}

/// The state of a session that has not ended.
#[derive(Debug, Default)]
struct SessionState {
    app: &'static str,
    encrypted: bool,
    bytes: u64,
    cut: bool,
    /// Matches by rule.
    matches: HashMap<String, u32>,
    packet: PacketRef,
    gap: [bool; 2],
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
        let (counting, report) = (Counting::default(), Report::default());
        let asked = SessionSearch { found, attacks, indicators, counting, sessions: HashMap::new(), report };
        Self { search, protocols: Protocols::new(asked) }
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

impl<F: MatchSink> SessionSearch<F> {
    /// Counts what is searched.
    fn note(&mut self, session: &Session, event: &streams::Event<'_>) {
        match event {
            streams::Event::Begin => {
                self.report.sessions += 1;
                self.sessions.insert(session.number, SessionState::default());
                self.addresses(session);
            }
            streams::Event::Run(run) => {
                self.report.bytes += run.data.len() as u64;
                if let Some(state) = self.sessions.get_mut(&session.number) {
                    state.bytes += run.data.len() as u64;
                    state.packet = run.packet;
                }
            }
            streams::Event::Gap(gap) => {
                let of_cause = self.report.gaps.entry(gap.cause).or_default();
                *of_cause = (of_cause.0 + 1, of_cause.1 + gap.len);
                if let Some(state) = self.sessions.get_mut(&session.number) {
                    state.cut = true;
                    state.gap[gap.sender.index()] = true;
                }
            }
            streams::Event::Conflict(_) => self.report.conflicts += 1,
            streams::Event::End => {}
        }
    }

    fn end(&mut self, session: &Session) {
        let Some(state) = self.sessions.remove(&session.number) else { return };
        self.report.cut_sessions += u64::from(state.cut);
        if state.encrypted {
            self.report.encrypted_sessions += 1;
            self.report.encrypted_bytes += state.bytes;
        }
    }

    fn addresses(&mut self, session: &Session) {
        if self.indicators.is_empty() {
            return;
        }
        for sender in Sender::BOTH {
            let Some(ip) = session.endpoint(sender).ip else { continue };
            if let Some(rule) = self.indicators.address(ip) {
                let packet = PacketRef { time: session.first, sequence: 0 };
                self.report_match(session, of_message(rule, None, packet, &format!("{} is the {}", ip, sender.name())));
            }
        }
    }

    /// Reports a match of a pattern, unless its conditions exclude it.
    fn pattern(&mut self, session: &Session, sender: Sender, named: &Pattern, one: Match) {
        let state = self.sessions.get(&session.number);
        let app = state.map_or("", |state| state.app);
        if named.sender.is_some_and(|wanted| wanted != sender) || (!named.app.is_empty() && named.app != app) {
            return;
        }
        self.report_match(session, Match { sender: Some(sender), ..one });
    }

    fn report_match(&mut self, session: &Session, one: Match) {
        if let Some(state) = self.sessions.get_mut(&session.number) {
            let reported = state.matches.entry(format!("{}/{}", one.rule, one.stage)).or_default();
            *reported += 1;
            if *reported > MATCHES_MAX {
                self.report.more_matches += 1;
                return;
            }
        }
        self.found.found(session, one);
    }

    /// Looks for the names, addresses and fingerprints of a message.
    fn indicators(&mut self, session: &Session, event: &Event) {
        for (field, value) in &event.fields {
            let protocols::Value::Text(text) = value else { continue };
            let found = match *field {
                "server_name" | "host" | "question" => self.indicators.name(text),
                "names" => text
                    .split(' ')
                    .find_map(|name| self.indicators.name(name.trim_matches(|c: char| !c.is_ascii_alphanumeric()))),
                "url" => self.indicators.url(text),
                "addresses" => text.split(' ').find_map(|ip| self.indicators.address(ip.parse().ok()?)),
                "ja3" | "ja3s" | "ja4" | "hassh" | "hassh_server" => {
                    self.indicators.fingerprint(text).then(|| text.to_ascii_lowercase())
                }
                _ => None,
            };
            if let Some(rule) = found {
                let packet = event.packets.first().copied().unwrap_or_default();
                self.report_match(session, of_message(rule, Some(event), packet, &format!("{field} {text}")));
            }
        }
    }

    fn attacks(&mut self, session: &Session, event: &Event) {
        let mut reported = Vec::new();
        for (number, attack) in self.attacks.iter().enumerate() {
            for (place, sign) in attack.matches.iter().enumerate() {
                if !sign.matches(event) {
                    continue;
                }
                let packet = event.packets.first().copied().unwrap_or_default();
                if let Some(count) = &sign.count {
                    let (key, value) = counts_of(count, session, event);
                    let key = (number * 256 + place, key);
                    if !self.counting.add(key, packet.time, value, count.within(), count.at_least) {
                        continue;
                    }
                }
                let state = self.sessions.get(&session.number);
                let key = format!("{}/{}", attack.name, sign.stage);
                if sign.once && state.is_some_and(|state| state.matches.contains_key(&key)) {
                    continue;
                }
                let gap_before = state.is_some_and(|state| state.gap[event.sender.index()]);
                let one = of_message(attack.name.clone(), Some(event), packet, &described(event));
                reported.push(Match { kind: Kind::Attack, stage: sign.stage.clone(), gap_before, ..one });
                break;
            }
        }
        reported.into_iter().for_each(|one| self.report_match(session, one));
    }
}

impl<F: MatchSink> ProtocolSink for SessionSearch<F> {
    fn app(&mut self, session: &Session, app: &'static str) {
        if let Some(state) = self.sessions.get_mut(&session.number) {
            state.app = app;
            state.encrypted |= TABLE.iter().any(|row| row.name == app && row.encrypted);
        }
    }

    fn event(&mut self, session: &Session, event: &Event) {
        if !self.indicators.is_empty() {
            self.indicators(session, event);
        }
        self.attacks(session, event);
    }

    fn object(&mut self, _: &Session, _: ObjectPart<'_>) {}
}

/// The key and the value that a rule counts.
fn counts_of(count: &Count, session: &Session, event: &Event) -> (String, u64) {
    let part = |name: &String| match name.as_str() {
        "source" => session.endpoint(event.sender).ip.map(|ip| ip.to_string()).unwrap_or_default(),
        "destination" => session.endpoint(event.sender.other()).ip.map(|ip| ip.to_string()).unwrap_or_default(),
        "session" => session.number.to_string(),
        field => event.field(field).map(|value| value.text().into_owned()).unwrap_or_default(),
    };
    let key = count.per.iter().map(part).collect::<Vec<_>>().join(" ");
    let mut hasher = DefaultHasher::new();
    match &count.distinct {
        Some(field) => event.field(field).map(|value| value.text().into_owned()).hash(&mut hasher),
        None => (session.number, event.offset, event.sender).hash(&mut hasher),
    }
    (key, hasher.finish())
}

/// The name and the fields of a message.
fn described(event: &Event) -> String {
    let secret = |name: &str| matches!(name, "password" | "headers");
    let fields = event.fields.iter().filter(|(name, _)| !secret(name));
    let fields = fields.map(|(name, value)| format!("{name}={}", value.text().chars().take(120).collect::<String>()));
    format!("{} {}", event.name, fields.collect::<Vec<_>>().join(" "))
}

fn of_message(rule: String, event: Option<&Event>, packet: PacketRef, detail: &str) -> Match {
    Match {
        rule,
        kind: Kind::Ioc,
        stage: String::new(),
        sender: event.map(|event| event.sender),
        stream_offset: event.map(|event| event.offset),
        packet,
        length: event.map_or(0, |event| event.len),
        context: Vec::new(),
        gap_before: false,
        detail: detail.to_owned(),
    }
}
