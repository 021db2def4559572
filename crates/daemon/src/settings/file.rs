//! The configuration file: TOML, read by the table of settings.

use std::fmt;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::row::Section;
use super::table::{SECTIONS, Settings, rows, rows_of};
use super::value::Value;

/// A name that needs more edits than this to become a known one was not meant to be it.
const EDITS_MAX: usize = 3;

/// Something in a file that is not understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileMistake {
    /// The line, from 1 on.
    pub line: usize,
    /// What is wrong, and what to do.
    pub text: String,
}

impl fmt::Display for FileMistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.text)
    }
}

/// Reads a file.
///
/// # Errors
///
/// All mistakes in it, in the order of their lines.
pub(super) fn read(text: &str) -> Result<Settings, Vec<FileMistake>> {
    let table = DeTable::parse(text).map_err(|error| {
        let line = line(text, error.span().map_or(text.len(), |span| span.start));
        vec![FileMistake { line, text: error.message().to_owned() }]
    })?;
    let mut reader = Reader { text, settings: Settings::default(), mistakes: Vec::new() };
    for (name, value) in table.get_ref() {
        match SECTIONS.iter().find(|section| !section.name.is_empty() && section.name == name.get_ref()) {
            Some(section) => reader.section(section, name, value),
            None => reader.key("", name, value),
        }
    }
    reader.mistakes.sort_by_key(|mistake| mistake.line);
    if reader.mistakes.is_empty() { Ok(reader.settings) } else { Err(reader.mistakes) }
}

struct Reader<'a> {
    text: &'a str,
    settings: Settings,
    mistakes: Vec<FileMistake>,
}

type Name<'a> = Spanned<std::borrow::Cow<'a, str>>;

impl Reader<'_> {
    fn section(&mut self, section: &Section<Settings>, name: &Name<'_>, value: &Spanned<DeValue<'_>>) {
        match (section.add, value.get_ref()) {
            (None, DeValue::Table(table)) => self.keys(section, table, value.span().start),
            (Some(add), DeValue::Array(tables)) if tables.iter().all(|table| table.get_ref().is_table()) => {
                for element in tables {
                    let Some(table) = element.get_ref().as_table() else { continue };
                    add(&mut self.settings);
                    self.keys(section, table, element.span().start);
                }
            }
            (None, _) => {
                self.mistake(name, format!("[{0}] is a section: write its keys below a line [{0}]", section.name));
            }
            (Some(_), _) => {
                self.mistake(
                    name,
                    format!("[[{0}]] may occur several times: begin each one with a line [[{0}]]", section.name),
                );
            }
        }
    }

    fn keys(&mut self, section: &Section<Settings>, table: &DeTable<'_>, at: usize) {
        for (name, value) in table {
            self.key(section.name, name, value);
        }
        for required in
            section.required.iter().filter(|required| !table.iter().any(|(name, _)| name.get_ref() == **required))
        {
            let text = format!("{required} is missing in this [[{}]]", section.name);
            self.mistakes.push(FileMistake { line: line(self.text, at), text });
        }
    }

    fn key(&mut self, section: &str, name: &Name<'_>, value: &Spanned<DeValue<'_>>) {
        match rows_of(section).find(|row| row.name == name.get_ref()) {
            None => {
                let is_section = value.get_ref().is_table() || is_list_of_tables(value);
                self.mistake(name, unknown(section, name.get_ref(), is_section));
            }
            Some(row) => {
                if let Err(error) = (row.read)(&mut self.settings, Value::Toml(value.get_ref())) {
                    self.mistake(name, format!("{}: {error}", row.name));
                }
            }
        }
    }

    fn mistake(&mut self, name: &Name<'_>, text: String) {
        self.mistakes.push(FileMistake { line: line(self.text, name.span().start), text });
    }
}

fn is_list_of_tables(value: &Spanned<DeValue<'_>>) -> bool {
    value.get_ref().as_array().is_some_and(|list| list.iter().any(|element| element.get_ref().is_table()))
}

/// The message for a name that is not in the table.
fn unknown(section: &str, name: &str, is_section: bool) -> String {
    if is_section && section.is_empty() {
        let names = SECTIONS.iter().map(|section| section.name).filter(|name| !name.is_empty());
        return match nearest(name, names) {
            Some(near) => format!("there is no section [{name}]; did you mean [{near}]?"),
            None => format!("there is no section [{name}]; `retrocap check --sample` shows all of them"),
        };
    }
    if let Some(elsewhere) = rows().find(|row| row.name == name) {
        return match elsewhere.section {
            "" => format!("there is no key {name} in [{section}]; it belongs before the first [section]"),
            other => format!("there is no key {name} here; it belongs in [{other}]"),
        };
    }
    let place = if section.is_empty() { String::new() } else { format!(" in [{section}]") };
    match nearest(name, rows_of(section).map(|row| row.name)) {
        Some(near) => format!("there is no key {name}{place}; did you mean {near}?"),
        None => format!("there is no key {name}{place}; `retrocap check --sample` shows all keys"),
    }
}

/// The known name that was probably meant.
fn nearest(name: &str, known: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    let name: String = name.chars().take(64).collect::<String>().replace('_', "-").to_ascii_lowercase();
    let near = known.map(|known| (strsim::damerau_levenshtein(&name, known), known)).min()?;
    (near.0 <= EDITS_MAX.min(near.1.len() / 2)).then_some(near.1)
}

/// The line of a byte, from 1 on.
fn line(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}
