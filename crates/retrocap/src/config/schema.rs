//! Reading TOML by a table of keys, and printing that table as a sample.

use std::fmt;
use std::fmt::Write as _;
use std::ops::Range;
use std::str::FromStr;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use base::time;

/// Columns of the sample's prose.
const COLUMNS: usize = 100;
/// A key that takes more changes than this to become another was not meant to be it.
const DISTANCE_MAX: usize = 3;

/// One key: all that is known of it.
pub(crate) struct Key<F> {
    pub(crate) name: &'static str,
    /// What it is for, with its unit and its default, in sentences.
    pub(crate) about: &'static str,
    /// A value as it may stand in a file: the default, where there is one.
    pub(crate) sample: &'static str,
    /// Takes a value over.
    pub(crate) take: fn(&mut F, Value<'_>) -> Result<(), String>,
}

/// Keys under one heading.
pub(crate) struct Section<F: 'static> {
    /// `retention` for `[retention]`; empty for what stands before the first heading.
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) keys: &'static [Key<F>],
    /// For a section that may be there many times (`[[class]]`): makes room for the next one, before its keys are
    /// taken.
    pub(crate) another: Option<fn(&mut F)>,
    /// Keys that must be there in each.
    pub(crate) needed: &'static [&'static str],
}

/// Something in a file that cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mistake {
    /// Where, from 1 on.
    pub(crate) line: usize,
    /// What, and what to do.
    pub(crate) text: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.text)
    }
}

/// A value that somebody wrote.
#[derive(Clone, Copy)]
pub(crate) struct Value<'a>(&'a DeValue<'a>);

impl Value<'_> {
    fn not(self, expected: &str) -> String {
        let is = match self.0 {
            DeValue::String(_) => "a text",
            DeValue::Integer(_) | DeValue::Float(_) => "a number",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a time",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        format!("expected {expected}, not {is}")
    }

    pub(crate) fn text(self) -> Result<String, String> {
        self.0.as_str().map(str::to_owned).ok_or_else(|| self.not("a text"))
    }

    /// A text, or a list of them.
    pub(crate) fn texts(self) -> Result<Vec<String>, String> {
        let many = || self.0.as_array()?.iter().map(|one| one.get_ref().as_str().map(str::to_owned)).collect();
        let one = || self.0.as_str().map(|text| vec![text.to_owned()]);
        one().or_else(many).ok_or_else(|| self.not("a text or a list of texts"))
    }

    pub(crate) fn yes_or_no(self) -> Result<bool, String> {
        self.0.as_bool().ok_or_else(|| self.not("true or false"))
    }

    pub(crate) fn whole<T: TryFrom<u64>>(self, range: Range<u64>) -> Result<T, String> {
        let number = self.0.as_integer().ok_or_else(|| self.not("a whole number"))?;
        let value = u64::from_str_radix(&number.as_str().replace('_', ""), number.radix()).ok();
        let value = value.filter(|value| range.contains(value)).and_then(|value| T::try_from(value).ok());
        value.ok_or_else(|| format!("{} is not within {} to {}", number.as_str(), range.start, range.end - 1))
    }

    pub(crate) fn number(self) -> Result<f64, String> {
        let number = match self.0 {
            DeValue::Float(number) => number.as_str(),
            DeValue::Integer(number) => number.as_str(),
            _ => return Err(self.not("a number")),
        };
        number.replace('_', "").parse().map_err(|_| format!("{number} is no number that can be used here"))
    }

    /// What a flag would understand, a number without quotes too.
    pub(crate) fn as_flag<T: FromStr<Err: fmt::Display>>(self) -> Result<T, String> {
        let text = match self.0 {
            DeValue::String(text) => text.to_string(),
            DeValue::Integer(number) => number.as_str().replace('_', ""),
            DeValue::Float(number) => number.as_str().replace('_', ""),
            _ => return Err(self.not("a text or a number")),
        };
        text.parse().map_err(|error: T::Err| error.to_string())
    }

    /// A time span with its unit.
    pub(crate) fn duration(self, at_least: Duration) -> Result<Duration, String> {
        let text = match self.0 {
            DeValue::String(text) => text.to_string(),
            // Seconds or minutes? Not for us to guess.
            DeValue::Integer(number) => {
                return Err(format!("cannot read the duration {:?}: try \"{0}s\"", number.as_str()));
            }
            _ => return Err(self.not("a duration like \"10s\"")),
        };
        let duration = time::parse_duration(&text).map_err(|error| error.to_string())?;
        if duration < at_least {
            return Err(format!("it is at least {at_least:?}, not {text:?}"));
        }
        Ok(duration)
    }
}

/// Reads a file.
///
/// # Errors
///
/// All that is wrong with it.
pub(crate) fn read<F: Default>(text: &str, sections: &'static [Section<F>]) -> Result<F, Vec<Mistake>> {
    let table = DeTable::parse(text).map_err(|error| {
        let line = line(text, error.span().map_or(text.len(), |span| span.start));
        vec![Mistake { line, text: error.message().to_owned() }]
    })?;
    let mut reader = Reader { text, sections, file: F::default(), mistakes: Vec::new() };
    for (name, value) in table.get_ref() {
        match sections.iter().find(|section| !section.name.is_empty() && section.name == name.get_ref()) {
            Some(section) => reader.section(section, name, value),
            None => reader.key("", name, value),
        }
    }
    reader.mistakes.sort_by_key(|mistake| mistake.line);
    if reader.mistakes.is_empty() { Ok(reader.file) } else { Err(reader.mistakes) }
}

struct Reader<'a, F: 'static> {
    text: &'a str,
    sections: &'static [Section<F>],
    file: F,
    mistakes: Vec<Mistake>,
}

type Name<'a> = Spanned<std::borrow::Cow<'a, str>>;

impl<F> Reader<'_, F> {
    fn section(&mut self, section: &Section<F>, name: &Name<'_>, value: &Spanned<DeValue<'_>>) {
        match (section.another, value.get_ref()) {
            (None, DeValue::Table(table)) => self.keys(section, table, value.span().start),
            (Some(another), DeValue::Array(tables)) if tables.iter().all(|table| table.get_ref().is_table()) => {
                for one in tables {
                    let Some(table) = one.get_ref().as_table() else { continue };
                    another(&mut self.file);
                    self.keys(section, table, one.span().start);
                }
            }
            (None, _) => {
                self.mistake(name, format!("[{0}] is a section: write its keys below a line [{0}]", section.name))
            }
            (Some(_), _) => {
                self.mistake(
                    name,
                    format!("there may be many of [[{0}]]: begin each with a line [[{0}]]", section.name),
                );
            }
        }
    }

    fn keys(&mut self, section: &Section<F>, table: &DeTable<'_>, at: usize) {
        for (name, value) in table {
            self.key(section.name, name, value);
        }
        for needed in section.needed.iter().filter(|needed| !table.iter().any(|(name, _)| name.get_ref() == **needed)) {
            let text = format!("{needed} is missing in this [[{}]]", section.name);
            self.mistakes.push(Mistake { line: line(self.text, at), text });
        }
    }

    fn key(&mut self, section: &str, name: &Name<'_>, value: &Spanned<DeValue<'_>>) {
        let known = self.sections.iter().filter(|of| of.name == section).flat_map(|of| of.keys);
        match known.into_iter().find(|key| key.name == name.get_ref()) {
            None => {
                let is_section = value.get_ref().is_table() || self.is_list_of_tables(value);
                self.mistake(name, self.unknown(section, name.get_ref(), is_section));
            }
            Some(key) => {
                if let Err(error) = (key.take)(&mut self.file, Value(value.get_ref())) {
                    self.mistake(name, format!("{}: {error}", key.name));
                }
            }
        }
    }

    fn is_list_of_tables(&self, value: &Spanned<DeValue<'_>>) -> bool {
        value.get_ref().as_array().is_some_and(|list| list.iter().any(|one| one.get_ref().is_table()))
    }

    /// What to say of a name that nobody knows.
    fn unknown(&self, section: &str, name: &str, is_section: bool) -> String {
        if is_section && section.is_empty() {
            let names = self.sections.iter().map(|section| section.name).filter(|name| !name.is_empty());
            return match nearest(name, names) {
                Some(near) => format!("there is no section [{name}]; did you mean [{near}]?"),
                None => format!("there is no section [{name}]; `retrocap check --sample` shows all there are"),
            };
        }
        if let Some(other) = self.sections.iter().find(|of| of.keys.iter().any(|key| key.name == name)) {
            return match other.name {
                "" => format!("there is no key {name} in [{section}]; it belongs before the first [section]"),
                other => format!("there is no key {name} here; it belongs into [{other}]"),
            };
        }
        let place = if section.is_empty() { String::new() } else { format!(" in [{section}]") };
        let here = self.sections.iter().filter(|of| of.name == section);
        match nearest(name, here.flat_map(|of| of.keys).map(|key| key.name)) {
            Some(near) => format!("there is no key {name}{place}; did you mean {near}?"),
            None => format!("there is no key {name}{place}; --sample of `retrocap check` shows all there are"),
        }
    }

    fn mistake(&mut self, name: &Name<'_>, text: String) {
        self.mistakes.push(Mistake { line: line(self.text, name.span().start), text });
    }
}

/// The known name that somebody may have meant.
fn nearest(name: &str, known: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    let name: String = name.chars().take(64).collect::<String>().replace('_', "-").to_ascii_lowercase();
    let near = known.map(|known| (strsim::damerau_levenshtein(&name, known), known)).min()?;
    (near.0 <= DISTANCE_MAX.min(near.1.len() / 2)).then_some(near.1)
}

/// The line of a byte, from 1 on.
fn line(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

/// Every key with its documentation, none in force.
pub(crate) fn sample<F>(sections: &[Section<F>]) -> String {
    let mut sample = String::new();
    for section in sections {
        prose(&mut sample, section.about);
        match (section.name, section.another) {
            ("", _) => sample.push('\n'),
            // It may stand there without keys.
            (name, None) => _ = writeln!(sample, "[{name}]\n"),
            (name, Some(_)) => _ = writeln!(sample, "#[[{name}]]\n"),
        }
        for key in section.keys {
            prose(&mut sample, key.about);
            let _ = writeln!(sample, "#{} = {}\n", key.name, key.sample);
        }
    }
    sample.truncate(sample.trim_end().len());
    sample.push('\n');
    sample
}

fn prose(sample: &mut String, text: &str) {
    let mut column = 0;
    for word in text.split_ascii_whitespace() {
        if column == 0 || column + word.len() >= COLUMNS {
            sample.push_str(if column == 0 { "# " } else { "\n# " });
            column = 2;
        } else {
            sample.push(' ');
            column += 1;
        }
        sample.push_str(word);
        column += word.len();
    }
    sample.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq)]
    struct Farm {
        animals: Vec<(String, u8)>,
    }

    const SECTIONS: &[Section<Farm>] = &[Section {
        name: "animal",
        about: "Who lives there.",
        another: Some(|farm| farm.animals.push((String::new(), 4))),
        needed: &["name"],
        keys: &[
            Key {
                name: "name",
                about: "What it is called.",
                sample: "\"Rex\"",
                take: |farm, value| {
                    farm.animals.last_mut().ok_or("nobody")?.0 = value.text()?;
                    Ok(())
                },
            },
            Key {
                name: "legs",
                about: "How many.",
                sample: "4",
                take: |farm, value| {
                    farm.animals.last_mut().ok_or("nobody")?.1 = value.whole(0..101)?;
                    Ok(())
                },
            },
        ],
    }];

    #[test]
    fn a_section_may_be_there_many_times() {
        let farm = read("[[animal]]\nname = \"Rex\"\n[[animal]]\nname = \"Tweety\"\nlegs = 2\n", SECTIONS).unwrap();
        assert_eq!(farm.animals, [("Rex".to_owned(), 4), ("Tweety".to_owned(), 2)]);
        let told = |text| read(text, SECTIONS).unwrap_err()[0].to_string();
        assert_eq!(
            told("[[animal]]\nname = \"a\"\n[[animal]]\nname = \"b\"\nlegs = 101"),
            "line 5: legs: 101 is not within 0 to 100"
        );
        assert_eq!(told("\n[[animal]]\nlegs = 1"), "line 2: name is missing in this [[animal]]");
        assert_eq!(
            told("[animal]\nlegs = 1"),
            "line 1: there may be many of [[animal]]: begin each with a line [[animal]]"
        );
        assert_eq!(told("[[animals]]\nlegs = 1"), "line 1: there is no section [animals]; did you mean [animal]?");
        assert_eq!(
            sample(SECTIONS),
            "# Who lives there.\n#[[animal]]\n\n# What it is called.\n#name = \"Rex\"\n\n# How many.\n#legs = 4\n"
        );
    }
}
