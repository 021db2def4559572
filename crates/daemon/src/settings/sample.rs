//! The sample file: every key with its documentation, none in force.

use std::fmt::Write as _;

use super::row::{DefaultValue, Reload, Row};
use super::table::{SECTIONS, Settings, rows_of};

/// Columns of the prose.
const COLUMNS: usize = 100;

/// A configuration file with every key as a comment.
pub fn sample() -> String {
    let mut sample = String::new();
    for section in SECTIONS {
        prose(&mut sample, section.about);
        match (section.name, section.add) {
            ("", _) => sample.push('\n'),
            // An empty section is valid.
            (name, None) => _ = writeln!(sample, "[{name}]\n"),
            (name, Some(_)) => _ = writeln!(sample, "#[[{name}]]\n"),
        }
        for row in rows_of(section.name) {
            prose(&mut sample, &about(row));
            let _ = writeln!(sample, "#{} = {}\n", row.name, row.sample());
        }
    }
    sample.truncate(sample.trim_end().len());
    sample.push('\n');
    sample
}

fn about(row: &Row<Settings>) -> String {
    let default = match row.default {
        DefaultValue::Is(_) => row.sample(),
        DefaultValue::Unset(words, _) => words.to_owned(),
    };
    let reload = match row.reload {
        Reload::Now => "Reloaded.",
        Reload::Restart => "Takes a restart.",
    };
    // Backticks are for the documentation of the code.
    format!("{} Default: {default}. {reload}", row.about.trim().replace("`[[", "[[").replace("]]`", "]]"))
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
