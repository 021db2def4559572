//! The search of messages: indicators, attacks, and what is known of each session meanwhile.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use protocols::table::TABLE;
use protocols::{Event, ObjectPart, ProtocolSink};
use streams::{PacketRef, Sender, Session};

use crate::attack::{Attack, Count};
use crate::counting::Counting;
use crate::indicators::Indicators;
use crate::knocking::{CONNECT, Knocking};
use crate::matched::{Kind, Match, MatchSink};
use crate::patterns::Pattern;
use crate::report::Report;

/// Reported matches of one rule in one session. Further ones are only counted.
const MATCHES_MAX: u32 = 100;

/// The search of messages, and the state that all searches share.
pub(crate) struct SessionSearch<F> {
    pub(crate) found: F,
    attacks: Vec<Attack>,
    indicators: Indicators,
    counting: Counting,
    sessions: HashMap<u64, SessionState>,
    pub(crate) report: Report,
    knocking: Option<Knocking>,
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

impl<F: MatchSink> SessionSearch<F> {
    pub(crate) fn new(found: F, attacks: Vec<Attack>, indicators: Indicators) -> Self {
        let wants_connections = attacks.iter().any(|attack| attack.wants(CONNECT));
        Self {
            found,
            attacks,
            indicators,
            counting: Counting::default(),
            sessions: HashMap::new(),
            report: Report::default(),
            knocking: wants_connections.then(Knocking::default),
        }
    }

    /// Judges the connections of which more was to be learned.
    pub(crate) fn finish(&mut self) {
        let settled = self.knocking.as_mut().map(Knocking::finish).unwrap_or_default();
        settled.iter().for_each(|(session, event)| self.attacks(session, event));
    }

    /// Takes what connections show.
    fn knock(&mut self, session: &Session, event: &streams::Event<'_>) {
        let settled = self.knocking.as_mut().map(|knocking| knocking.event(session, event)).unwrap_or_default();
        settled.iter().for_each(|(session, event)| self.attacks(session, event));
    }

    /// Counts what is searched.
    pub(crate) fn note(&mut self, session: &Session, event: &streams::Event<'_>) {
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
        if self.knocking.is_some() {
            self.knock(session, event);
        }
    }

    pub(crate) fn end(&mut self, session: &Session) {
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
    pub(crate) fn pattern(&mut self, session: &Session, sender: Sender, named: &Pattern, one: Match) {
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
