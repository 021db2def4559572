//! Untrusted text: names in packets and certificates, queries of clients, answers of recorders.
//!
//! [`Foreign`] has no `Display`. It can only be written for a specific sink, and each sink replaces or escapes
//! characters that could deceive its reader. The sinks also wrap a plain `&str`. Invariants: no sink passes a character
//! for which [`is_deceptive`] is true, and each sink writes one line.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The replacement for a deceptive character.
const REPLACEMENT: char = char::REPLACEMENT_CHARACTER;

/// Untrusted text. JSON that contains it is made safe as a whole, by [`json_document`].
///
/// Printing it without a sink does not compile:
///
/// ```compile_fail
/// println!("{}", base::foreign::Foreign::new("a name in a packet"));
/// ```
///
/// ```
/// println!("{}", base::foreign::Foreign::new("a name in a packet").terminal());
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct Foreign<T = String>(T);

impl<T: AsRef<str>> Foreign<T> {
    /// Marks `text` as untrusted.
    pub fn new(text: T) -> Self {
        Self(text)
    }

    /// The unchanged text, for comparison and search. Do not print it.
    pub fn untrusted(&self) -> &str {
        self.0.as_ref()
    }

    /// The text for a terminal.
    pub fn terminal(&self) -> Terminal<'_> {
        Terminal(self.untrusted())
    }

    /// The text for a field of a CSV file.
    pub fn csv(&self) -> Csv<'_> {
        Csv(self.untrusted())
    }

    /// The text for a line of a log.
    pub fn log(&self) -> Log<'_> {
        Log(self.untrusted())
    }

    /// The text for a string of a JSON document.
    pub fn json(&self) -> Json<'_> {
        Json(self.untrusted())
    }

    /// The text for the content or a quoted attribute of an HTML page.
    pub fn html(&self) -> Html<'_> {
        Html(self.untrusted())
    }
}

impl<T> From<T> for Foreign<T> {
    fn from(text: T) -> Self {
        Self(text)
    }
}

impl From<&str> for Foreign {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl<T: AsRef<str>> PartialEq<str> for Foreign<T> {
    fn eq(&self, other: &str) -> bool {
        self.untrusted() == other
    }
}

impl<T: AsRef<str>> PartialEq<&str> for Foreign<T> {
    fn eq(&self, other: &&str) -> bool {
        self.untrusted() == *other
    }
}

/// Writes the text in quotes, escaped as in a log.
impl<T: AsRef<str>> fmt::Debug for Foreign<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.log())
    }
}

/// Whether a character moves the cursor, reorders its neighbours, or is invisible: the C0 and C1 controls, DEL,
/// Unicode's default-ignorable characters (among them bidirectional controls, joiners, fillers, variation selectors and
/// tags), the line and paragraph separators, and the annotation characters.
pub const fn is_deceptive(c: char) -> bool {
    matches!(c,
        '\0'..='\x1f' | '\x7f'..='\u{9f}' | '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}'
        | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
        | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}')
}

/// Text for a terminal: U+FFFD replaces each deceptive character.
#[derive(Clone, Copy, Debug)]
pub struct Terminal<'t>(pub &'t str);

impl fmt::Display for Terminal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| f.write_char(if is_deceptive(c) { REPLACEMENT } else { c }))
    }
}

/// Text for a line of a log: deceptive characters become escapes such as `\u{202e}`, and backslashes are doubled, so
/// that escapes are unambiguous.
#[derive(Clone, Copy, Debug)]
pub struct Log<'t>(pub &'t str);

impl fmt::Display for Log<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '\\' => f.write_str("\\\\"),
            c if is_deceptive(c) => write!(f, "{}", c.escape_unicode()),
            c => f.write_char(c),
        })
    }
}

/// A field of a CSV file: always quoted, with U+FFFD in place of each deceptive character, and with an apostrophe
/// before text that a spreadsheet would read as the start of a formula.
///
/// Spreadsheets take the separator from their locale, not from the file. Where it is a semicolon, `a;=1` makes two
/// cells even in quotes. Formulas are therefore also recognized after each common separator.
#[derive(Clone, Copy, Debug)]
pub struct Csv<'t>(pub &'t str);

impl fmt::Display for Csv<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        let mut at_start = true;
        for c in self.0.chars() {
            if at_start && begins_formula(c) {
                f.write_char('\'')?;
            }
            // Spreadsheets skip these characters when they look for a formula.
            let skipped = at_start && (c.is_whitespace() || is_deceptive(c) || matches!(c, '"' | '\''));
            at_start = skipped || matches!(c, ',' | ';' | '|' | '\t' | '\n' | '\r');
            match c {
                '"' => f.write_str("\"\"")?,
                c if is_deceptive(c) => f.write_char(REPLACEMENT)?,
                c => f.write_char(c)?,
            }
        }
        f.write_char('"')
    }
}

/// Whether a character is `=`, `+`, `-` or `@`, or a variant that spreadsheets or compatibility normalization convert
/// to one.
const fn begins_formula(c: char) -> bool {
    matches!(
        c,
        '=' | '\u{ff1d}'
            | '\u{fe66}'
            | '\u{207c}'
            | '\u{208c}'
            | '+'
            | '\u{ff0b}'
            | '\u{fe62}'
            | '\u{207a}'
            | '\u{208a}'
            | '\u{fb29}'
            | '-'
            | '\u{ff0d}'
            | '\u{fe63}'
            | '\u{2212}'
            | '\u{207b}'
            | '\u{208b}'
            | '@'
            | '\u{ff20}'
            | '\u{fe6b}'
    )
}

/// A quoted string of a JSON document. Deceptive characters are escaped, so its value does not change.
#[derive(Clone, Copy, Debug)]
pub struct Json<'t>(pub &'t str);

impl fmt::Display for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        self.0.chars().try_for_each(|c| match c {
            '"' | '\\' => write!(f, "\\{c}"),
            c if is_deceptive(c) => json_escape(f, c),
            c => f.write_char(c),
        })?;
        f.write_char('"')
    }
}

/// Escapes the deceptive characters of a JSON document or a line of JSON; its value does not change. Outside strings,
/// JSON contains no deceptive characters except whitespace, which stays.
pub fn json_document(document: &str) -> Cow<'_, str> {
    let escaped = |c: char| is_deceptive(c) && !c.is_ascii_whitespace();
    let Some(first) = document.find(escaped) else { return Cow::Borrowed(document) };
    let mut safe = String::with_capacity(document.len() + 16);
    safe.push_str(&document[..first]);
    for c in document[first..].chars() {
        if escaped(c) {
            // Writing to a `String` cannot fail.
            let _ = json_escape(&mut safe, c);
        } else {
            safe.push(c);
        }
    }
    Cow::Owned(safe)
}

fn json_escape(out: &mut impl fmt::Write, c: char) -> fmt::Result {
    c.encode_utf16(&mut [0; 2]).iter().try_for_each(|unit| write!(out, "\\u{unit:04x}"))
}

/// Text for the content or a quoted attribute of an HTML page: U+FFFD replaces each deceptive character, and references
/// replace characters that have a meaning in HTML.
#[derive(Clone, Copy, Debug)]
pub struct Html<'t>(pub &'t str);

impl fmt::Display for Html<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            '\'' => f.write_str("&#39;"),
            '`' => f.write_str("&#96;"),
            c if is_deceptive(c) => f.write_char(REPLACEMENT),
            c => f.write_char(c),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// At least one deceptive character of each kind.
    const DECEPTIVE: &[char] = &[
        '\0',
        '\x07',
        '\t',
        '\n',
        '\r',
        '\x1b',
        '\x7f',
        '\u{80}',
        '\u{9b}',
        '\u{9f}',
        '\u{ad}',
        '\u{61c}',
        '\u{180e}',
        '\u{200b}',
        '\u{200c}',
        '\u{200d}',
        '\u{200e}',
        '\u{200f}',
        '\u{2028}',
        '\u{2029}',
        '\u{202a}',
        '\u{202b}',
        '\u{202c}',
        '\u{202d}',
        '\u{202e}',
        '\u{2060}',
        '\u{2066}',
        '\u{2067}',
        '\u{2068}',
        '\u{2069}',
        '\u{feff}',
        '\u{fffb}',
        '\u{e0000}',
        '\u{e0001}',
        '\u{e0020}',
        '\u{e007f}',
        '\u{e0100}',
    ];

    #[test]
    fn no_sink_lets_a_deceptive_character_through() {
        for &c in DECEPTIVE {
            let text = Foreign::new(format!("a{c}b"));
            let number = u32::from(c);
            assert_eq!(text.terminal().to_string(), "a\u{fffd}b", "{number:x}");
            assert_eq!(text.csv().to_string(), "\"a\u{fffd}b\"", "{number:x}");
            assert_eq!(text.log().to_string(), format!("a\\u{{{number:x}}}b"));
            assert_eq!(text.html().to_string(), "a\u{fffd}b", "{number:x}");
            assert_eq!(format!("{text:?}"), format!("\"a\\u{{{number:x}}}b\""));
            let json = text.json().to_string();
            assert!(json.is_ascii(), "{json}");
            assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text.untrusted());
        }
        for text in ["plain", "fenêtre", "サーバー", "файл", "\u{1f600}", "a b", "e\u{301}"] {
            assert_eq!(Terminal(text).to_string(), text);
            assert_eq!(Log(text).to_string(), text);
            assert_eq!(Html(text).to_string(), text);
            assert_eq!(Json(text).to_string(), format!("\"{text}\""));
        }
        assert_eq!(Log("C:\\u{202e}").to_string(), "C:\\\\u{202e}");
    }

    #[test]
    fn no_field_begins_a_formula_in_any_locale() {
        for (text, field) in [
            ("example.com", "\"example.com\""),
            ("a \"b\"", "\"a \"\"b\"\"\""),
            ("=1+1", "\"'=1+1\""),
            ("+1", "\"'+1\""),
            ("-1", "\"'-1\""),
            ("@SUM(1)", "\"'@SUM(1)\""),
            ("  =1", "\"  '=1\""),
            ("\u{a0}=1", "\"\u{a0}'=1\""),
            ("\u{3000}=1", "\"\u{3000}'=1\""),
            ("\t=1", "\"\u{fffd}'=1\""),
            ("\u{feff}=1", "\"\u{fffd}'=1\""),
            ("\u{ff1d}1", "\"'\u{ff1d}1\""),
            ("\u{ff0b}1", "\"'\u{ff0b}1\""),
            ("\u{ff0d}1", "\"'\u{ff0d}1\""),
            ("\u{ff20}a", "\"'\u{ff20}a\""),
            ("a;=cmd|' /C calc'!A0", "\"a;'=cmd|' /C calc'!A0\""),
            ("a; \"=1\"", "\"a; \"\"'=1\"\"\""),
            ("a,=1|@b\t+c", "\"a,'=1|'@b\u{fffd}'+c\""),
            ("a\n=1", "\"a\u{fffd}'=1\""),
            ("web-1.example", "\"web-1.example\""),
        ] {
            assert_eq!(Csv(text).to_string(), field, "{text:?}");
        }
    }

    #[test]
    fn html_stays_text() {
        assert_eq!(Html("<b a='\"`'>&").to_string(), "&lt;b a=&#39;&quot;&#96;&#39;&gt;&amp;");
    }

    proptest! {
        #[test]
        fn sinks_are_safe_and_json_means_the_same(text in any::<String>()) {
            for safe in [Terminal(&text).to_string(), Csv(&text).to_string(), Log(&text).to_string(),
                         Json(&text).to_string(), Html(&text).to_string()] {
                prop_assert!(!safe.contains(is_deceptive));
            }
            prop_assert_eq!(&serde_json::from_str::<String>(&Json(&text).to_string()).unwrap(), &text);
            let pretty = serde_json::to_string_pretty(&serde_json::json!({ &text: [&text] })).unwrap();
            let safe = json_document(&pretty);
            prop_assert!(!safe.contains(|c| is_deceptive(c) && c != '\n'));
            prop_assert_eq!(
                serde_json::from_str::<serde_json::Value>(&safe).unwrap(),
                serde_json::from_str::<serde_json::Value>(&pretty).unwrap()
            );
        }
    }
}
