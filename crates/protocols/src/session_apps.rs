//! The application of each session, and the words that were said in it.

use std::collections::HashMap;

use base::time::Timestamp;
use engine::session::SessionKey;
use streams::Session;

use crate::analysis::Protocols;
use crate::event::{Event, ProtocolSink};
use crate::session_ends::{EndOfSession, SessionEnds};

/// A session whose application is known.
#[derive(Clone, Copy, Debug)]
pub struct SessionApp {
    /// Its endpoints.
    pub key: SessionKey,
    /// Time of its first packet.
    pub first: Timestamp,
    /// Time of its last packet.
    pub last: Timestamp,
    /// The protocol.
    pub app: &'static str,
    /// A bit for each word, in the order of [`SessionApps::vocabulary`].
    words: u64,
}

/// The applications of sessions. A session takes some 80 bytes, and twice that while the list grows.
#[derive(Debug)]
pub struct SessionApps {
    open: HashMap<u64, (&'static str, u64)>,
    ended: Vec<SessionApp>,
    sessions_max: usize,
    left_out: u64,
    /// The words that were met. The parsers know about thirty.
    vocabulary: Vec<&'static str>,
}

impl SessionApps {
    /// Notes up to `sessions_max` sessions.
    pub fn new(sessions_max: usize) -> SessionEnds<Self> {
        SessionEnds(Protocols::new(Self {
            open: HashMap::new(),
            ended: Vec::new(),
            sessions_max,
            left_out: 0,
            vocabulary: Vec::new(),
        }))
    }

    /// Sessions for which there was no room.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// The sessions that have ended.
    pub fn sessions(&self) -> &[SessionApp] {
        &self.ended
    }

    /// The words of a session.
    pub fn words(&self, session: &SessionApp) -> impl Iterator<Item = &'static str> {
        let words = session.words;
        self.vocabulary.iter().take(64).enumerate().filter(move |(bit, _)| words >> bit & 1 == 1).map(|(_, word)| *word)
    }

    /// Sorts the sessions, after the last one has ended, so that [`find`](Self::find) finds them.
    pub fn sort(&mut self) {
        self.ended.sort_unstable_by_key(|seen| (seen.key.words(), seen.first));
    }

    /// The sessions with a key that overlap a time. They were sorted before.
    pub fn find(
        &self,
        key: SessionKey,
        first: Timestamp,
        last: Timestamp,
    ) -> impl Iterator<Item = &SessionApp> + use<'_> {
        let start = self.ended.partition_point(|seen| seen.key.words() < key.words());
        let of_key = self.ended[start..].iter().take_while(move |seen| seen.key == key);
        of_key.filter(move |seen| seen.first <= last && seen.last >= first)
    }

    fn bit(&mut self, word: &'static str) -> u64 {
        let at = self.vocabulary.iter().position(|known| *known == word).unwrap_or_else(|| {
            self.vocabulary.push(word);
            self.vocabulary.len() - 1
        });
        u32::try_from(at).ok().and_then(|at| 1u64.checked_shl(at)).unwrap_or(0)
    }
}

impl ProtocolSink for SessionApps {
    fn app(&mut self, session: &Session, app: &'static str) {
        self.open.entry(session.number).or_default().0 = app;
    }

    fn event(&mut self, session: &Session, event: &Event) {
        let words = event.words.iter().fold(0, |words, word| words | self.bit(word));
        if let Some(seen) = self.open.get_mut(&session.number) {
            seen.1 |= words;
        }
    }
}

impl EndOfSession for SessionApps {
    fn end(&mut self, session: &Session) {
        let Some((app, words)) = self.open.remove(&session.number) else { return };
        if self.ended.len() >= self.sessions_max {
            self.left_out += 1;
            return;
        }
        self.ended.push(SessionApp { key: session.key, first: session.first, last: session.last, app, words });
    }
}
