//! Reads Zeek's logs: tab-separated columns that a header names, or JSON objects with the same names.
//!
//! Source: the chapters "Zeek Log Formats and Inspection", conn.log and notice.log of Zeek's documentation. Any log
//! with a connection (`id.orig_h` and so on) works. A notice may name only hosts (`src`, `dst`).

use std::borrow::Cow;
use std::time::Duration;

use serde_json::Value;

use super::event::{Alert, Kind};
use super::fields::{address, port, protocol, time};
use super::json;
use query::search::SearchTarget;
use query::selectors::Flow;

/// Maximum number of columns.
const COLUMNS_MAX: usize = 1024;

/// The header of a tab-separated log.
#[derive(Debug)]
pub(super) struct Table {
    separator: String,
    unset: String,
    empty: String,
    path: Option<String>,
    fields: Option<Vec<String>>,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            separator: "\t".to_owned(),
            unset: "-".to_owned(),
            empty: "(empty)".to_owned(),
            path: None,
            fields: None,
        }
    }
}

impl Table {
    /// Reads a header line, which begins with `#`.
    pub(super) fn header(&mut self, line: &str) -> Result<(), String> {
        if let Some(separator) = line.strip_prefix("#separator ") {
            // `#separator` is the first line of a log, so a new log begins here.
            *self = Self { separator: unescaped(separator.trim())?, ..Self::default() };
            return Ok(());
        }
        let mut words = line.split(self.separator.as_str());
        let name = words.next().unwrap_or_default();
        match name {
            "#unset_field" => self.unset = words.next().unwrap_or_default().to_owned(),
            "#empty_field" => self.empty = words.next().unwrap_or_default().to_owned(),
            "#path" => self.path = words.next().map(str::to_owned),
            "#fields" => {
                let fields: Vec<String> = words.take(COLUMNS_MAX).map(str::to_owned).collect();
                let has = |name: &str| fields.iter().any(|field| field == name);
                if !has("ts") || !(has("id.orig_h") || has("src") || has("dst")) {
                    self.fields = None;
                    return Err("the #fields have no ts, or neither id.orig_h nor src: this log names no sessions; \
                                conn.log and notice.log do"
                        .to_owned());
                }
                self.fields = Some(fields);
            }
            _ => {}
        }
        Ok(())
    }

    /// Reads a line of values.
    pub(super) fn row(&self, line: &str) -> Result<Option<Alert>, String> {
        let Some(fields) = &self.fields else {
            return Err("neither a JSON object nor a row below a #fields line of Zeek's".to_owned());
        };
        let values: Vec<&str> = line.split(self.separator.as_str()).take(COLUMNS_MAX + 1).collect();
        if values.len() != fields.len() {
            return Err(format!("it has {} columns, the #fields line {}", values.len(), fields.len()));
        }
        let path = self.path.as_deref();
        alert(|name| {
            if name == "_path" {
                return path.map(Cow::Borrowed);
            }
            let value = values[fields.iter().position(|field| field == name)?];
            (value != self.unset && value != self.empty && !value.is_empty()).then_some(Cow::Borrowed(value))
        })
    }
}

/// Decodes `\x09` to a tab.
fn unescaped(text: &str) -> Result<String, String> {
    let wrong = || format!("#separator is {}, not like \\x09", json::shown(text));
    let Some(hex) = text.strip_prefix("\\x") else {
        return if text.is_empty() { Err(wrong()) } else { Ok(text.to_owned()) };
    };
    match u8::from_str_radix(hex, 16) {
        Ok(byte) if byte.is_ascii() => Ok(char::from(byte).to_string()),
        _ => Err(wrong()),
    }
}

pub(super) fn is(value: &Value) -> bool {
    value.get("ts").is_some()
        && ["id.orig_h", "id", "note", "src", "dst", "uid", "_path"].iter().any(|name| value.get(name).is_some())
}

/// Reads a row through its fields.
pub(super) fn alert<'v>(field: impl Fn(&str) -> Option<Cow<'v, str>>) -> Result<Option<Alert>, String> {
    let protocol = field("proto").and_then(|name| protocol(&name));
    let ends = match (field("id.orig_h"), field("id.resp_h")) {
        (Some(a), Some(b)) => Some((("id.orig_h", a, "id.orig_p"), ("id.resp_h", b, "id.resp_p"))),
        _ => match (field("src"), field("dst")) {
            // A notice has one port, `p`, which belongs to the destination.
            (Some(a), Some(b)) => Some((("src", a, ""), ("dst", b, "p"))),
            _ => None,
        },
    };
    let names = match ends {
        Some((a, b)) => {
            let end = |(name, text, port_name): (&str, Cow<'v, str>, &str)| {
                Ok::<_, String>((address(name, &text)?, port(port_name, field(port_name).as_deref())?))
            };
            let (mut a, mut b) = (end(a)?, end(b)?);
            if a.0.is_ipv4() != b.0.is_ipv4() {
                return Err("the two addresses are of different IP versions".to_owned());
            }
            if matches!(protocol, Some(1 | 58)) {
                // Zeek encodes an ICMP type and code as ports in another way than the engine, so leave the ports out.
                (a.1, b.1) = (0, 0);
            }
            SearchTarget::Flow(Flow { a, b, protocol })
        }
        None => match field("src").map(|host| ("src", host)).or_else(|| field("dst").map(|host| ("dst", host))) {
            Some((name, host)) => SearchTarget::Host(address(name, &host)?),
            None => return Ok(None),
        },
    };
    let start = time("ts", &field("ts").ok_or("ts is missing")?)?;
    let lasted = match field("duration") {
        None => Duration::ZERO,
        Some(text) => {
            let seconds = text.parse::<f64>().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
            seconds.ok_or_else(|| format!("duration is {}, not a number of seconds", json::shown(&text)))?
        }
    };
    let name = ["note", "_path", "service"].iter().find_map(|name| field(name)).unwrap_or_else(|| "conn".into());
    let id = field("uid").map(|id| id.into_owned());
    let end = start.saturating_add(lasted);
    Ok(Some(Alert { line: 0, kind: Kind::Zeek, name: name.into_owned(), id, start, end, names }))
}
