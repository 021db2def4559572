//! Named attacks: rules as data, one TOML document each. `docs/hunting.md` describes the format.

use std::time::Duration;

use protocols::Event;
use regex::{Regex, RegexBuilder};
use serde::Deserialize;
use streams::Sender;

use crate::normal;

/// A rule that describes an attack.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attack {
    /// The name that `--attack` takes.
    pub name: String,
    /// A description in one sentence.
    pub title: String,
    /// References: CVE, RFC, URL.
    pub reference: Vec<String>,
    /// The triggers. Any of them is a match.
    #[serde(rename = "match")]
    pub matches: Vec<Trigger>,
    /// Test conversations with and without the attack.
    #[serde(rename = "case", default)]
    pub cases: Vec<Conversation>,
}

/// What a rule looks for: an event with conditions, or bytes in a stream.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trigger {
    /// `attempt`, `success` or another word.
    #[serde(default)]
    pub stage: String,
    /// The name of an event; `*` for any.
    pub event: Option<String>,
    /// Conditions, all of which must hold.
    #[serde(rename = "where", default)]
    pub conditions: Vec<Condition>,
    /// Whether only the first match of a session is reported.
    #[serde(default)]
    pub once: bool,
    /// Number of events required for a match.
    pub count: Option<Count>,
    /// Text that a stream contains.
    pub text: Option<String>,
    /// Hexadecimal bytes that a stream contains.
    pub bytes: Option<String>,
    /// Regular expression that matches in a stream.
    pub regex: Option<String>,
    /// Restricts the match to sessions of this application protocol.
    #[serde(default)]
    pub app: String,
    /// Restricts the match to bytes and events of this side.
    pub sender: Option<RuleSender>,
}

/// A sender in a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuleSender {
    /// The client.
    Originator,
    /// The server.
    Responder,
}

impl RuleSender {
    /// The sender.
    pub fn sender(self) -> Sender {
        match self {
            Self::Originator => Sender::Originator,
            Self::Responder => Sender::Responder,
        }
    }
}

/// A condition on a field of an event.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// The name of the field, or `word` for the kinds of the event.
    pub field: String,
    /// The value equals this number, or this text in upper or lower case.
    pub is: Option<FieldValue>,
    /// The value equals none of these.
    #[serde(default)]
    pub is_not: Vec<FieldValue>,
    /// The value is greater than this.
    pub above: Option<i64>,
    /// The value is less than this.
    pub below: Option<i64>,
    /// The value contains this text, in upper or lower case.
    pub contains: Option<String>,
    /// The regular expression matches in the value.
    pub regex: Option<String>,
    /// Encodings to decode before the comparison: `url`, `log4j`.
    #[serde(default)]
    pub undo: Vec<Encoding>,
    #[serde(skip)]
    compiled: Option<Regex>,
}

/// A value in a rule.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum FieldValue {
    /// A number.
    Number(i64),
    /// Text.
    Text(String),
}

impl FieldValue {
    fn is(&self, value: &protocols::Value) -> bool {
        match self {
            Self::Number(number) => value.number() == Some(*number),
            Self::Text(text) => value.text().eq_ignore_ascii_case(text),
        }
    }
}

/// An encoding that hides a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// Percent encoding.
    Url,
    /// Lookups of Log4j.
    Log4j,
}

/// The number of events that make an attack.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Count {
    /// Minimum number of events.
    pub at_least: usize,
    /// Length of the time window in seconds.
    pub within_s: u64,
    /// What the events have in common: `source`, `destination`, `session`, or a field.
    pub per: Vec<String>,
    /// The field whose different values are counted instead of events.
    pub distinct: Option<String>,
}

impl Count {
    /// Length of the time window.
    pub fn within(&self) -> Duration {
        Duration::from_secs(self.within_s)
    }
}

/// A conversation for `hunt --check`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conversation {
    /// What the conversation tests.
    pub name: String,
    /// Whether the rule must match.
    pub matches: bool,
    /// The server's port.
    pub port: u16,
    /// Whether the conversation uses UDP instead of TCP.
    #[serde(default)]
    pub udp: bool,
    /// The messages, in order.
    pub say: Vec<Utterance>,
    /// Ports of the server to which the client tries to connect in vain before, a second apart.
    #[serde(default)]
    pub knocks: Vec<u16>,
    /// How often the messages are repeated. `{n}` in a text stands for the number of the round.
    #[serde(default = "once")]
    pub rounds: u32,
}

fn once() -> u32 {
    1
}

/// A message of one side.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Utterance {
    /// The sender.
    pub from: RuleSender,
    /// The message as text, in which `\r\n` must be explicit.
    pub text: Option<String>,
    /// The message as hexadecimal bytes.
    pub hex: Option<String>,
    /// Number of zero bytes after the message.
    #[serde(default)]
    pub zeros: usize,
}

/// A mistake in a rule.
#[derive(Debug, thiserror::Error)]
pub enum AttackError {
    /// Not TOML, or not a rule.
    #[error("{0}")]
    Toml(String),
    /// A rule that cannot work.
    #[error("rule {0}: {1}")]
    Rule(String, String),
}

impl Attack {
    /// Reads a rule.
    ///
    /// # Errors
    ///
    /// What is wrong with it, and where.
    pub fn read(text: &str) -> Result<Self, AttackError> {
        let mut attack: Self = toml::from_str(text).map_err(|error| AttackError::Toml(error.to_string()))?;
        let name = attack.name.clone();
        let wrong = |what: String| AttackError::Rule(name.clone(), what);
        if attack.matches.is_empty() {
            return Err(wrong("it has no [[match]]".to_owned()));
        }
        for sign in &mut attack.matches {
            let streams = [&sign.text, &sign.bytes, &sign.regex].into_iter().flatten().count();
            if streams + usize::from(sign.event.is_some()) != 1 {
                return Err(wrong("a [[match]] has one of event, text, bytes and regex".to_owned()));
            }
            if sign.event.is_none() && (!sign.conditions.is_empty() || sign.count.is_some()) {
                return Err(wrong("where and count need an event".to_owned()));
            }
            let many = |count: &Count| count.at_least > crate::counting::EVENTS_MAX || count.at_least == 0;
            if sign.count.as_ref().is_some_and(many) {
                return Err(wrong(format!("at_least is 1 to {}", crate::counting::EVENTS_MAX)));
            }
            for condition in &mut sign.conditions {
                if let Some(text) = &condition.regex {
                    let built = RegexBuilder::new(text).size_limit(1 << 20).build();
                    condition.compiled = Some(built.map_err(|error| wrong(error.to_string()))?);
                }
            }
        }
        Ok(attack)
    }
}

impl Attack {
    /// Whether it looks at events of this name, which are not those of a protocol.
    pub(crate) fn wants(&self, event: &str) -> bool {
        self.matches.iter().any(|sign| sign.event.as_deref() == Some(event))
    }
}

impl Trigger {
    /// Whether an event matches, apart from the required number of events.
    pub(crate) fn matches(&self, event: &Event) -> bool {
        let Some(name) = &self.event else { return false };
        (name == "*" || name == event.name)
            && (self.app.is_empty() || self.app == event.app)
            && self.sender.is_none_or(|side| side.sender() == event.sender)
            && self.conditions.iter().all(|condition| condition.holds(event))
    }
}

impl Condition {
    fn holds(&self, event: &Event) -> bool {
        if self.field == "word" {
            let is =
                |wanted: &FieldValue| matches!(wanted, FieldValue::Text(text) if event.words.contains(&text.as_str()));
            return self.is.as_ref().is_none_or(is) && !self.is_not.iter().any(is);
        }
        let Some(value) = event.field(&self.field) else { return false };
        let number = value.number();
        let plain = self.is.as_ref().is_none_or(|wanted| wanted.is(value))
            && !self.is_not.iter().any(|wanted| wanted.is(value))
            && self.above.is_none_or(|least| number.is_some_and(|number| number > least))
            && self.below.is_none_or(|most| number.is_some_and(|number| number < most));
        if !plain || (self.contains.is_none() && self.compiled.is_none()) {
            return plain;
        }
        let mut text = value.text().into_owned();
        for undo in &self.undo {
            text = match undo {
                Encoding::Url => normal::url(&text),
                Encoding::Log4j => normal::log4j(&text),
            };
        }
        let contains = |part: &String| text.to_ascii_lowercase().contains(&part.to_ascii_lowercase());
        self.contains.as_ref().is_none_or(contains) && self.compiled.as_ref().is_none_or(|regex| regex.is_match(&text))
    }
}
