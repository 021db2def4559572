//! What `--app` and `app=` ask for.

use std::fmt;
use std::str::FromStr;

use crate::table::TABLE;

/// The name that stands for every protocol.
const ANY: &str = "any";

/// A protocol and perhaps a word, as in `modbus:write`; or any protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppFilter {
    name: String,
    word: Option<String>,
}

impl FromStr for AppFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, word) = text.split_once(':').map_or((text, None), |(name, word)| (name, Some(word.to_owned())));
        if name != ANY && !TABLE.iter().any(|row| row.name == name) {
            let names = TABLE.iter().map(|row| row.name).collect::<Vec<_>>().join(", ");
            return Err(format!("no protocol is called {name:?}: any, or one of {names}"));
        }
        if word.as_ref().is_some_and(String::is_empty) {
            return Err(format!("which word of {name}? try {name}:read, or {name} alone"));
        }
        Ok(Self { name: name.to_owned(), word })
    }
}

impl fmt::Display for AppFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.word {
            Some(word) => write!(f, "{}:{word}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

impl AppFilter {
    /// The word of a message; `None` if whole sessions are meant.
    pub fn word(&self) -> Option<&str> {
        self.word.as_deref()
    }

    /// Whether messages of this protocol are meant.
    pub fn wants_app(&self, app: &str) -> bool {
        self.name == ANY || self.name == app
    }

    /// Whether a session is meant, of which `said` decides what was said in it. `None` is a session whose protocol is not
    /// known.
    pub fn wants_session(&self, app: Option<&str>, said: impl FnOnce(&str) -> bool) -> bool {
        match app {
            Some(app) => self.wants_app(app) && self.word.as_deref().is_none_or(said),
            None => self.name == ANY && self.word.is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_protocol_that_does_not_exist_is_refused_with_those_that_do() {
        let read = |text: &str| text.parse::<AppFilter>();
        for text in ["modbus:write", "tls", "any", "any:login"] {
            assert_eq!(read(text).unwrap().to_string(), text);
        }
        assert!(read("modbuss").unwrap_err().contains("modbus"));
        assert!(read("modbus:").unwrap_err().contains("which word"));
    }

    #[test]
    fn a_session_is_meant_by_its_protocol_and_by_what_was_said() {
        let wants = |filter: &str, app, words: &[&str]| {
            filter.parse::<AppFilter>().unwrap().wants_session(app, |word| words.contains(&word))
        };
        assert!(wants("modbus", Some("modbus"), &[]) && wants("modbus:write", Some("modbus"), &["read", "write"]));
        assert!(!wants("modbus:write", Some("modbus"), &["read"]) && !wants("modbus:write", Some("http"), &["write"]));
        assert!(wants("any", None, &[]) && !wants("any:write", None, &["write"]) && !wants("tls", None, &[]));
    }
}
