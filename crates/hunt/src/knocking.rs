//! Connections after attempts to connect to other ports of the same host that nobody answered, as in port knocking.
//!
//! No single session shows it, and no log of a server: the ports are closed. Memory is bounded: hosts, attempts and
//! connections that find no room push out the oldest.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use base::time::Timestamp;
use protocols::{Event, Value};
use streams::{PacketRef, Sender, Session};

/// The event of a connection that was answered.
pub(crate) const CONNECT: &str = "session.connect";
/// How long before a connection attempts may lie.
const BEFORE: Duration = Duration::from_secs(30);
/// How long a connection waits, because packets that were captured before it may come later.
const SETTLE: Duration = Duration::from_secs(60);
const PAIRS_MAX: usize = 65_536;
const ATTEMPTS_MAX: usize = 64;
const CONNECTIONS_MAX: usize = 4096;

/// Two hosts: who tries, and who is tried.
type Pair = (IpAddr, IpAddr);

/// An attempt that was not answered so far.
#[derive(Clone, Copy, Debug)]
struct Attempt {
    session: u64,
    at: Timestamp,
    port: u16,
}

/// Attempts, and connections that wait to be judged.
#[derive(Debug, Default)]
pub(crate) struct Knocking {
    attempts: HashMap<Pair, VecDeque<Attempt>>,
    order: VecDeque<Pair>,
    connections: VecDeque<Session>,
    answered: HashSet<u64>,
    newest: Timestamp,
}

impl Knocking {
    /// Takes what happens in a session. Returns the connections that were judged.
    pub(crate) fn event(&mut self, session: &Session, event: &streams::Event<'_>) -> Vec<(Session, Event)> {
        match event {
            streams::Event::Begin => self.begin(session),
            streams::Event::Run(run) if run.sender == Sender::Responder && self.answered.insert(session.number) => {
                self.answer(session);
            }
            streams::Event::End => {
                self.answered.remove(&session.number);
            }
            _ => return Vec::new(),
        }
        self.newest = self.newest.max(session.last);
        let limit = self.newest.saturating_sub(SETTLE);
        let mut settled = Vec::new();
        while self.connections.front().is_some_and(|one| one.first < limit) || self.connections.len() > CONNECTIONS_MAX
        {
            settled.extend(self.connections.pop_front().map(|session| self.judge(session)));
        }
        settled
    }

    /// Judges all connections.
    pub(crate) fn finish(&mut self) -> Vec<(Session, Event)> {
        let waiting = std::mem::take(&mut self.connections);
        waiting.into_iter().map(|session| self.judge(session)).collect()
    }

    fn begin(&mut self, session: &Session) {
        let Some(pair) = pair(session).filter(|_| session.opened) else { return };
        if !self.attempts.contains_key(&pair) {
            if self.order.len() >= PAIRS_MAX
                && let Some(oldest) = self.order.pop_front()
            {
                self.attempts.remove(&oldest);
            }
            self.order.push_back(pair);
        }
        let attempts = self.attempts.entry(pair).or_default();
        if attempts.len() >= ATTEMPTS_MAX {
            attempts.pop_front();
        }
        let (at, port) = (session.first, session.responder().port);
        attempts.push_back(Attempt { session: session.number, at, port });
    }

    fn answer(&mut self, session: &Session) {
        let Some(attempts) = pair(session).and_then(|pair| self.attempts.get_mut(&pair)) else { return };
        attempts.retain(|attempt| attempt.session != session.number);
        if !attempts.is_empty() && !session.is_messages() {
            self.connections.push_back(session.clone());
        }
    }

    /// The event of a connection, with the number of ports that were tried before.
    fn judge(&self, session: Session) -> (Session, Event) {
        let port = session.responder().port;
        let attempts = pair(&session).and_then(|pair| self.attempts.get(&pair));
        let before = |attempt: &&Attempt| {
            attempt.at <= session.first && session.first.since(attempt.at) <= BEFORE && attempt.port != port
        };
        let ports: HashSet<u16> = attempts.into_iter().flatten().filter(before).map(|attempt| attempt.port).collect();
        let mut tried: Vec<u16> = ports.into_iter().collect();
        tried.sort_unstable();
        let named: Vec<String> = tried.iter().take(8).map(u16::to_string).collect();
        let event = Event {
            name: CONNECT,
            app: "",
            words: Vec::new(),
            fields: vec![
                ("port", Value::Number(port.into())),
                ("knocks", Value::Number(i64::try_from(tried.len()).unwrap_or(i64::MAX))),
                ("tried", Value::Text(named.join(" "))),
            ],
            sender: Sender::Originator,
            offset: 0,
            len: 0,
            packets: vec![PacketRef { time: session.first, sequence: 0 }],
        };
        (session, event)
    }
}

/// Both hosts, if the session is one of TCP or UDP.
fn pair(session: &Session) -> Option<Pair> {
    matches!(session.key.protocol(), 6 | 17).then_some(())?;
    Some((session.originator().ip?, session.responder().ip?))
}
