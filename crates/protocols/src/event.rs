//! The output of a parser: messages with their words and fields.

use streams::{PacketRef, Sender, Session};

use crate::object::ObjectPart;

/// Maximum length of a text field in bytes. Longer texts are cut.
pub const TEXT_BYTES_MAX: usize = 16 << 10;

/// The value of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A number.
    Number(i64),
    /// Text from the packets: untrusted.
    Text(String),
}

impl Value {
    /// The number, or `None` for text.
    pub fn number(&self) -> Option<i64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Text(_) => None,
        }
    }

    /// The value as text.
    pub fn text(&self) -> std::borrow::Cow<'_, str> {
        match self {
            Self::Number(number) => number.to_string().into(),
            Self::Text(text) => text.into(),
        }
    }
}

/// A message of a protocol.
#[derive(Clone, Debug)]
pub struct Event {
    /// The kind of message, as in `tls.heartbeat`.
    pub name: &'static str,
    /// The application's name, as in `tls`.
    pub app: &'static str,
    /// Words that describe the message, as in `read`, `write`, `login`.
    pub words: Vec<&'static str>,
    /// The fields of the message.
    pub fields: Vec<(&'static str, Value)>,
    /// The sender.
    pub sender: Sender,
    /// Its offset in the stream of its sender.
    pub offset: u64,
    /// Its length in bytes.
    pub len: u64,
    /// The packets that carried it.
    pub packets: Vec<PacketRef>,
}

impl Event {
    /// An event of a message of `len` bytes at `offset`.
    pub(crate) fn new(name: &'static str, sender: Sender, offset: u64, len: usize) -> Self {
        Self {
            name,
            app: "",
            words: Vec::new(),
            fields: Vec::new(),
            sender,
            offset,
            len: len as u64,
            packets: Vec::new(),
        }
    }

    /// Adds a word.
    pub(crate) fn word(mut self, word: &'static str) -> Self {
        if !word.is_empty() && !self.words.contains(&word) {
            self.words.push(word);
        }
        self
    }

    /// Adds a number.
    pub(crate) fn number(mut self, name: &'static str, value: impl TryInto<i64>) -> Self {
        self.fields.push((name, Value::Number(value.try_into().unwrap_or(i64::MAX))));
        self
    }

    /// Adds text, unless it is empty.
    pub(crate) fn text(mut self, name: &'static str, value: impl AsRef<str>) -> Self {
        let value = value.as_ref();
        if !value.is_empty() {
            let mut end = value.len().min(TEXT_BYTES_MAX);
            while !value.is_char_boundary(end) {
                end -= 1;
            }
            self.fields.push((name, Value::Text(value[..end].to_owned())));
        }
        self
    }

    /// Adds bytes as text.
    pub(crate) fn bytes(self, name: &'static str, value: &[u8]) -> Self {
        let value = &value[..value.len().min(TEXT_BYTES_MAX)];
        self.text(name, String::from_utf8_lossy(value))
    }

    /// The value of a field.
    pub fn field(&self, name: &str) -> Option<&Value> {
        self.fields.iter().find(|(field, _)| *field == name).map(|(_, value)| value)
    }
}

/// The receiver of events and object parts.
pub trait ProtocolSink {
    /// The application of a session was detected.
    fn app(&mut self, _session: &Session, _app: &'static str) {}
    /// A message was read.
    fn event(&mut self, _session: &Session, _event: &Event) {}
    /// A part of an object was read.
    fn object(&mut self, _session: &Session, _part: ObjectPart<'_>) {}
}
