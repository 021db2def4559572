//! Tells the receiver of events when a session ends.

use streams::{Session, Sink};

use crate::analysis::Protocols;
use crate::event::ProtocolSink;

/// Takes what is known of a session when it ends.
pub trait EndOfSession {
    /// The last that is said of a session.
    fn end(&mut self, session: &Session);
}

/// Passes sessions to the parsers, and says when each ends.
#[derive(Debug)]
pub struct SessionEnds<F: ProtocolSink>(pub Protocols<F>);

impl<F: ProtocolSink + EndOfSession> Sink for SessionEnds<F> {
    fn event(&mut self, session: &Session, event: streams::Event<'_>) {
        self.0.event(session, event);
        if event == streams::Event::End {
            self.0.sink.end(session);
        }
    }
}
