//! Finds the packets or sessions of an application.

use std::collections::HashSet;

use streams::{ChosenPackets, Session};

use crate::analysis::Protocols;
use crate::app_filter::AppFilter;
use crate::event::{Event, ProtocolSink};
use crate::session_ends::{EndOfSession, SessionEnds};

/// Chooses packets: of a protocol, those of its sessions; of a word, those that carry it, or with `whole_sessions` those of
/// their sessions.
#[derive(Debug)]
pub struct AppSearch<'a> {
    filter: &'a AppFilter,
    whole_sessions: bool,
    /// The sessions that match and have not ended.
    open: HashSet<u64>,
    /// What was chosen.
    pub chosen: ChosenPackets,
}

impl<'a> AppSearch<'a> {
    /// Adds to `chosen` what `filter` asks for.
    pub fn new(filter: &'a AppFilter, whole_sessions: bool, chosen: ChosenPackets) -> SessionEnds<Self> {
        let whole_sessions = whole_sessions || filter.word().is_none();
        SessionEnds(Protocols::new(Self { filter, whole_sessions, open: HashSet::new(), chosen }))
    }
}

impl ProtocolSink for AppSearch<'_> {
    fn app(&mut self, session: &Session, app: &'static str) {
        if self.filter.wants_app(app) && self.filter.word().is_none() {
            self.open.insert(session.number);
        }
    }

    fn event(&mut self, session: &Session, event: &Event) {
        let Some(word) = self.filter.word() else { return };
        if !self.filter.wants_app(event.app) || !event.words.contains(&word) {
            return;
        }
        if self.whole_sessions {
            self.open.insert(session.number);
        } else {
            event.packets.iter().for_each(|packet| self.chosen.add_packet(session.key, packet.time));
        }
    }
}

impl EndOfSession for AppSearch<'_> {
    fn end(&mut self, session: &Session) {
        if self.open.remove(&session.number) {
            self.chosen.add_session(session);
        }
    }
}
