//! Literals and regular expressions, searched in runs of bytes.

use aho_corasick::{AhoCorasick, AhoCorasickBuilder, AhoCorasickKind, MatchKind};
use regex::bytes::{Regex, RegexBuilder};

use crate::matched::Kind;

/// Maximum size of a compiled regular expression, in bytes.
const REGEX_BYTES_MAX: usize = 16 << 20;
/// Maximum length of a match of a regular expression in bytes. Longer ones are truncated, because a stream has no end.
pub const MATCH_BYTES_MAX: usize = 4 << 10;
/// Bytes of all literals together up to which a table of all states is built. It takes at most a kilobyte for each.
const TABLE_BYTES_MAX: usize = 32 << 10;
/// The longest literal.
pub const LITERAL_BYTES_MAX: usize = 4 << 10;

/// A mistake in a pattern.
#[derive(Debug, thiserror::Error)]
pub enum PatternError {
    /// The pattern is empty.
    #[error("the pattern is empty: name what to look for, as in --text password")]
    Empty,
    /// Too long.
    #[error("the pattern has {0} bytes, and at most {LITERAL_BYTES_MAX} are searched for")]
    TooLong(usize),
    /// Not hexadecimal.
    #[error("{0:?} is not hexadecimal: write two digits per byte, as in --bytes '4d 5a 90 00' or --bytes 4d5a9000")]
    NotHex(String),
    /// Not a regular expression.
    #[error("cannot read the regular expression {0:?}: {1}")]
    Regex(String, String),
}

/// The origin of a pattern, and the conditions under which it may match.
#[derive(Clone, Debug)]
pub struct Pattern {
    /// The pattern as the user wrote it, or the name of the rule.
    pub rule: String,
    /// Its kind.
    pub kind: Kind,
    /// The stage, for a pattern of an attack.
    pub stage: String,
    /// Only in what this sender sent.
    pub sender: Option<streams::Sender>,
    /// Only in sessions of this application.
    pub app: String,
}

impl Pattern {
    /// A pattern of the command line.
    pub fn new(rule: &str, kind: Kind) -> Self {
        Self { rule: rule.to_owned(), kind, stage: String::new(), sender: None, app: String::new() }
    }
}

/// Patterns that are being collected.
#[derive(Debug)]
pub struct Builder {
    literals: Vec<(Pattern, Vec<u8>)>,
    regexes: Vec<(Pattern, Regex)>,
    regex_bytes_max: usize,
}

impl Default for Builder {
    fn default() -> Self {
        Self { literals: Vec::new(), regexes: Vec::new(), regex_bytes_max: REGEX_BYTES_MAX }
    }
}

impl Builder {
    /// Limits what each compiled regular expression may take.
    #[must_use]
    pub fn with_regex_bytes_max(self, bytes: usize) -> Self {
        Self { regex_bytes_max: bytes, ..self }
    }

    /// Adds bytes to look for.
    ///
    /// # Errors
    ///
    /// If there are none, or too many.
    pub fn literal(&mut self, named: Pattern, bytes: &[u8]) -> Result<(), PatternError> {
        match bytes.len() {
            0 => Err(PatternError::Empty),
            len if len > LITERAL_BYTES_MAX => Err(PatternError::TooLong(len)),
            _ => {
                self.literals.push((named, bytes.to_vec()));
                Ok(())
            }
        }
    }

    /// Adds bytes in hexadecimal.
    ///
    /// # Errors
    ///
    /// If the text is not hexadecimal.
    pub fn hex(&mut self, named: Pattern, text: &str) -> Result<(), PatternError> {
        let bytes = unhex(text).ok_or_else(|| PatternError::NotHex(text.to_owned()))?;
        self.literal(named, &bytes)
    }

    /// Adds a regular expression.
    ///
    /// # Errors
    ///
    /// If the expression is invalid or too large.
    pub fn regex(&mut self, named: Pattern, text: &str) -> Result<(), PatternError> {
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        let most = self.regex_bytes_max;
        let regex = RegexBuilder::new(text).size_limit(most).dfa_size_limit(most).unicode(true).build();
        let regex = regex.map_err(|error| PatternError::Regex(text.to_owned(), error.to_string()))?;
        self.regexes.push((named, regex));
        Ok(())
    }

    /// Whether there is nothing to look for.
    pub fn is_empty(&self) -> bool {
        self.literals.is_empty() && self.regexes.is_empty()
    }

    /// Compiles the patterns.
    ///
    /// # Errors
    ///
    /// If there are too many for an automaton.
    pub fn build(self) -> Result<Patterns, PatternError> {
        let automaton = if self.literals.is_empty() {
            None
        } else {
            let literals = self.literals.iter().map(|(_, bytes)| bytes);
            // A table of all states is faster than one of links, and small as long as patterns are.
            let total: usize = self.literals.iter().map(|(_, bytes)| bytes.len()).sum();
            let kind = (total <= TABLE_BYTES_MAX).then_some(AhoCorasickKind::DFA);
            let built = AhoCorasickBuilder::new().kind(kind).match_kind(MatchKind::Standard).build(literals);
            Some(built.map_err(|error| PatternError::Regex("all texts".to_owned(), error.to_string()))?)
        };
        let longest = self.literals.iter().map(|(_, bytes)| bytes.len()).max().unwrap_or(1);
        let keep_bytes = if self.regexes.is_empty() { longest - 1 } else { MATCH_BYTES_MAX };
        let (literals, regexes) = (self.literals.into_iter().map(|(named, _)| named).collect(), self.regexes);
        Ok(Patterns { automaton, literals, regexes, keep_bytes })
    }
}

/// Compiled patterns.
#[derive(Debug, Default)]
pub struct Patterns {
    automaton: Option<AhoCorasick>,
    literals: Vec<Pattern>,
    regexes: Vec<(Pattern, Regex)>,
    /// Bytes at the end of a run in which a match may begin that ends in the next one.
    pub(crate) keep_bytes: usize,
}

impl Patterns {
    /// Whether there is nothing to look for.
    pub fn is_empty(&self) -> bool {
        self.literals.is_empty() && self.regexes.is_empty()
    }

    /// Passes all matches in `data`, as start and end, with a number for each pattern.
    ///
    /// `begin` gives the place from which matches of a pattern begin. What lies before it is context only (for `\b`).
    pub fn find(
        &self,
        data: &[u8],
        begin: impl Fn(usize) -> usize,
        mut each: impl FnMut(usize, &Pattern, usize, usize),
    ) {
        if let Some(automaton) = &self.automaton {
            for one in automaton.find_overlapping_iter(data) {
                let number = one.pattern().as_usize();
                if one.start() >= begin(number)
                    && let Some(named) = self.literals.get(number)
                {
                    each(number, named, one.start(), one.end());
                }
            }
        }
        for (number, (named, regex)) in self.regexes.iter().enumerate() {
            let number = self.literals.len() + number;
            let mut at = begin(number);
            while at <= data.len()
                && let Some(one) = regex.find_at(data, at)
            {
                at = one.end() + usize::from(one.is_empty());
                if !one.is_empty() {
                    each(number, named, one.start(), one.end());
                }
            }
        }
    }

    /// Whether matches of this pattern may overlap. Those of a regular expression never do.
    pub(crate) fn overlaps(&self, number: usize) -> bool {
        number < self.literals.len()
    }
}

/// Bytes of hexadecimal text; blanks, colons and `\x` between them are left out.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let text = text.replace("\\x", "").replace("0x", "");
    let digits: Vec<u8> = text.bytes().filter(|byte| !matches!(byte, b' ' | b':' | b'-' | b'\n' | b'\t')).collect();
    if digits.len() % 2 == 1 {
        return None;
    }
    digits.chunks(2).map(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok()).collect()
}
