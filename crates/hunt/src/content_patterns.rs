//! What a hunt is asked to look for.

use crate::attack::{Attack, AttackError};
use crate::builtin;
use crate::matched::Kind;
use crate::patterns::{Builder, Pattern, PatternError, Patterns};
use crate::plan;

/// Texts, bytes, regular expressions and attacks, joined by "or".
#[derive(Clone, Debug, Default)]
pub struct ContentPatterns {
    /// Texts, exactly.
    pub texts: Vec<String>,
    /// Bytes in hexadecimal.
    pub bytes: Vec<String>,
    /// Regular expressions.
    pub regexes: Vec<String>,
    /// Named attacks.
    pub attacks: Vec<Attack>,
    /// What each compiled regular expression may take; `None` for the default.
    pub regex_bytes_max: Option<usize>,
}

impl ContentPatterns {
    /// Whether there is nothing to look for.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty() && self.bytes.is_empty() && self.regexes.is_empty() && self.attacks.is_empty()
    }

    /// The patterns for streams, with those of attacks.
    ///
    /// # Errors
    ///
    /// If one of them cannot be read, or compiles to too much.
    pub fn stream_patterns(&self) -> Result<Patterns, PatternError> {
        let mut builder = self.collected()?;
        for attack in &self.attacks {
            plan::patterns(attack, &mut builder)?;
        }
        builder.build()
    }

    /// The patterns for the contents of objects, without those of attacks.
    ///
    /// # Errors
    ///
    /// As [`stream_patterns`](Self::stream_patterns).
    pub fn object_patterns(&self) -> Result<Patterns, PatternError> {
        self.collected()?.build()
    }

    fn collected(&self) -> Result<Builder, PatternError> {
        let mut builder = Builder::default();
        if let Some(bytes) = self.regex_bytes_max {
            builder = builder.with_regex_bytes_max(bytes);
        }
        for text in &self.texts {
            builder.literal(Pattern::new(text, Kind::Text), text.as_bytes())?;
        }
        for hex in &self.bytes {
            builder.hex(Pattern::new(hex, Kind::Bytes), hex)?;
        }
        for regex in &self.regexes {
            builder.regex(Pattern::new(regex, Kind::Regex), regex)?;
        }
        Ok(builder)
    }
}

/// The built-in attack of this name; all of them for `all`, none for a name that is not known.
///
/// # Errors
///
/// If a built-in rule is broken, which a test refuses.
pub fn attacks_named(name: &str) -> Result<Vec<Attack>, AttackError> {
    Ok(builtin::all()?.into_iter().filter(|attack| name == "all" || attack.name == name).collect())
}
