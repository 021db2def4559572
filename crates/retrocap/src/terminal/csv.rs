//! Writes comma-separated values (RFC 4180). Lines end with CR LF.
//!
//! Every text is quoted and escaped, so that spreadsheets do not evaluate it as a formula; see [`base::foreign::Csv`].

use std::fmt::Write as _;

use base::foreign::{Csv, Foreign};

/// One value of a row.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Field<'a> {
    /// Text that may be foreign. Empty text is an empty field.
    Text(&'a str),
    Number(u64),
    Empty,
}

impl<'a> From<&'a Foreign> for Field<'a> {
    fn from(text: &'a Foreign) -> Self {
        Field::Text(text.untrusted())
    }
}

impl<'a> From<&'a Option<Foreign>> for Field<'a> {
    fn from(text: &'a Option<Foreign>) -> Self {
        text.as_ref().map_or(Field::Empty, Field::from)
    }
}

/// Appends the line of column names, which are constants of this program and need no quotes.
pub(crate) fn headings(out: &mut String, names: &[&'static str]) {
    let _ = write!(out, "{}\r\n", names.join(","));
}

/// Appends a row.
pub(crate) fn row(out: &mut String, fields: &[Field<'_>]) {
    for (i, field) in fields.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        // Writing to a `String` cannot fail.
        let _ = match field {
            Field::Text("") | Field::Empty => Ok(()),
            Field::Text(text) => write!(out, "{}", Csv(text)),
            Field::Number(number) => write!(out, "{number}"),
        };
    }
    out.push_str("\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_quoted_and_formulas_do_not_run() {
        for (text, written) in [
            ("eth0", "\"eth0\""),
            ("", ""),
            ("say \"x\"", "\"say \"\"x\"\"\""),
            ("two\nlines", "\"two\u{fffd}lines\""),
            ("a;=cmd|' /C calc'!A0", "\"a;'=cmd|' /C calc'!A0\""),
            ("\u{ff1d}1+1", "\"'\u{ff1d}1+1\""),
            (" =1", "\" '=1\""),
            ("\x1b[31m\u{202e}", "\"\u{fffd}[31m\u{fffd}\""),
        ] {
            let mut out = String::new();
            row(&mut out, &[Field::Text(text), Field::Number(7), Field::Empty]);
            assert_eq!(out, format!("{written},7,\r\n"), "{text:?}");
        }
    }
}
