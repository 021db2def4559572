//! What both processes say to each other: a question first, then packets; back come objects in which something was found, and a
//! summary at the end. Each is a document of JSON after its length.

use std::io::{self, Read, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use api::content::MatchedObject;
use base::packet::InterfaceId;
use base::time::Timestamp;
use engine::session::SessionKey;
use engine::session::key::Side;
use streams::{PacketRef, Sender, Session};

/// Bytes of a question at most: two million hashes.
pub(super) const QUESTION_BYTES_MAX: u64 = 256 << 20;
/// Bytes of an answer at most.
const ANSWER_BYTES_MAX: u64 = 16 << 20;
/// Bytes of the content of an object at most.
const CONTENT_BYTES_MAX: u64 = 128 << 20;

/// What is searched for in objects.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(in super::super) struct ObjectRules {
    pub(in super::super) texts: Vec<String>,
    pub(in super::super) bytes: Vec<String>,
    pub(in super::super) regexes: Vec<String>,
    /// Hashes, in hexadecimal.
    pub(in super::super) hashes: Vec<String>,
    /// Whether the contents of all objects are passed on, for a program that searches them.
    pub(in super::super) pass_contents: bool,
    /// Bytes of which a content has one of if it is passed on, in hexadecimal; empty for all contents.
    pub(in super::super) pass_if: Vec<String>,
    /// Whether packets come from a recorder, which cuts sessions.
    pub(in super::super) of_recorder: bool,
}

/// What the process says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    /// An object, and what was found in it. Bytes of content follow.
    Object(Box<ObjectAnswer>),
    /// The end.
    End(Summary),
}

/// An object.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ObjectAnswer {
    pub(super) session: SessionSeed,
    pub(super) file: MatchedObject,
    pub(super) from_originator: bool,
    /// Where it begins in its stream.
    pub(super) offset: u64,
    pub(super) time: u64,
    pub(super) sequence: u64,
    pub(super) matches: Vec<MatchInObject>,
    /// Bytes of content that follow.
    pub(super) content_bytes: u64,
}

impl ObjectAnswer {
    pub(super) fn sender(&self) -> Sender {
        if self.from_originator { Sender::Originator } else { Sender::Responder }
    }

    pub(super) fn packet(&self) -> PacketRef {
        PacketRef { time: Timestamp(self.time), sequence: self.sequence }
    }
}

/// A match in an object.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct MatchInObject {
    pub(super) rule: String,
    pub(super) kind: String,
    pub(super) length: u64,
    pub(super) context: Vec<u8>,
    pub(super) detail: String,
}

/// What was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in super::super) struct Summary {
    /// Objects that were searched.
    pub(in super::super) objects: u64,
    /// Of these, those that lack bytes, or are not decoded or unpacked to the end.
    pub(in super::super) incomplete: u64,
    /// Objects beyond the limit.
    pub(in super::super) left_out: u64,
    /// Matches beyond the limit for one rule in one object.
    pub(in super::super) more_matches: u64,
}

/// A session, as another process makes it again.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SessionSeed {
    number: u64,
    key: [u64; 6],
    interface: u16,
    low_opened: bool,
    opened: bool,
    first: u64,
    last: u64,
    packets: [u64; 2],
    wire_bytes: [u64; 2],
}

impl SessionSeed {
    pub(super) fn of(session: &Session) -> Self {
        Self {
            number: session.number,
            key: session.key.words(),
            interface: session.key.interface().0,
            low_opened: session.originator_is == Side::Low,
            opened: session.opened,
            first: session.first.0,
            last: session.last.0,
            packets: session.packets,
            wire_bytes: session.wire_bytes,
        }
    }

    /// The session. `interfaces` are those whose packets were passed on, in their order.
    pub(super) fn session(&self, interfaces: &[InterfaceId]) -> Session {
        let interface = interfaces.get(usize::from(self.interface)).copied().unwrap_or(InterfaceId(self.interface));
        let key = SessionKey::from_words(self.key, interface);
        let side = if self.low_opened { Side::Low } else { Side::High };
        let mut session = Session::new(self.number, key, side, self.opened, Timestamp(self.first));
        session.last = Timestamp(self.last);
        (session.packets, session.wire_bytes) = (self.packets, self.wire_bytes);
        session
    }
}

/// Writes a document.
pub(super) fn write(to: &mut impl Write, document: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_vec(document)?;
    to.write_all(&(text.len() as u64).to_le_bytes())?;
    to.write_all(&text)
}

/// Reads a document of so many bytes at most; `None` at the end.
pub(super) fn read<T: DeserializeOwned>(from: &mut impl Read, most: u64) -> io::Result<Option<T>> {
    let mut len = [0; 8];
    match from.read_exact(&mut len) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let bytes = take(from, u64::from_le_bytes(len), most)?;
    serde_json::from_slice(&bytes).map(Some).map_err(Into::into)
}

/// Reads an answer and the content behind it.
pub(super) fn read_answer(from: &mut impl Read) -> io::Result<Option<(Answer, Vec<u8>)>> {
    let Some(answer) = read::<Answer>(from, ANSWER_BYTES_MAX)? else { return Ok(None) };
    let content = match &answer {
        Answer::Object(object) => take(from, object.content_bytes, CONTENT_BYTES_MAX)?,
        Answer::End(_) => Vec::new(),
    };
    Ok(Some((answer, content)))
}

fn take(from: &mut impl Read, len: u64, most: u64) -> io::Result<Vec<u8>> {
    if len > most {
        return Err(io::Error::other("a message of the process that decodes objects is too long"));
    }
    let mut bytes = Vec::new();
    let read = from.take(len).read_to_end(&mut bytes)?;
    if read as u64 == len { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_longer_than_agreed_or_cut_is_refused() {
        let mut sent = Vec::new();
        write(&mut sent, &ObjectRules { texts: vec!["a".to_owned()], ..ObjectRules::default() }).unwrap();
        let rules: ObjectRules = read(&mut sent.as_slice(), QUESTION_BYTES_MAX).unwrap().unwrap();
        assert_eq!(rules.texts, ["a"]);
        assert!(read::<ObjectRules>(&mut sent.as_slice(), 10).is_err());
        assert!(read::<ObjectRules>(&mut &sent[..sent.len() - 1], QUESTION_BYTES_MAX).is_err());
        assert!(read::<ObjectRules>(&mut &[][..], QUESTION_BYTES_MAX).unwrap().is_none());
    }
}
