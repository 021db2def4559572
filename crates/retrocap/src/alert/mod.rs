//! Reads alerts of other tools and the sessions they name: Suricata's EVE, Zeek's logs and Sysmon's network
//! connections.
//!
//! The reader recognises each line on its own, so that users can concatenate files. Invariants: a line that cannot be
//! read is reported with its number and affects no other line; memory is bounded.

mod eve;
mod event;
mod fields;
mod json;
mod sysmon;
mod zeek;

use std::io::{BufRead, Read};

use serde_json::Value;

pub use event::{Alert, Kind};

/// Maximum number of alerts read from one file.
pub const ALERTS_MAX: usize = 100_000;
/// Maximum bytes of a line.
pub const LINE_BYTES_MAX: u64 = 1 << 20;
/// Maximum bytes of a file that is one JSON document instead of lines.
pub const DOCUMENT_BYTES_MAX: u64 = 64 << 20;
/// Maximum number of broken lines that are listed. Further ones are only counted.
pub const BROKEN_LISTED_MAX: usize = 1000;

/// The content of a file of alerts.
#[derive(Debug, Default)]
pub struct Alerts {
    /// The alerts, in file order.
    pub alerts: Vec<Alert>,
    /// The first [`BROKEN_LISTED_MAX`] lines that could not be read: line number and reason.
    pub broken: Vec<(u64, String)>,
    /// Number of lines that could not be read.
    pub broken_count: u64,
    /// Number of events that name no session, such as statistics.
    pub passed_over: u64,
    /// Number of Suricata events that name a session, are no alerts and were not requested.
    pub other_events: u64,
    /// Whether the file has more than [`ALERTS_MAX`] alerts.
    pub cut: bool,
    all_events: bool,
}

impl Alerts {
    /// Reads a whole file, with all events.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, is UTF-16 or compressed, or is a JSON document that is too large. Broken lines are
    /// no error.
    pub fn read(from: impl BufRead) -> Result<Self, String> {
        Self::read_events(from, true)
    }

    /// As [`read`](Self::read), but takes only alerts from Suricata's events unless `all` is set.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn read_events(mut from: impl BufRead, all: bool) -> Result<Self, String> {
        let mut alerts = Self { all_events: all, ..Self::default() };
        let start = from.fill_buf().map_err(|error| error.to_string())?;
        if start.starts_with(&[0xff, 0xfe]) || start.starts_with(&[0xfe, 0xff]) {
            return Err("it is UTF-16; convert it first, as in iconv -f UTF-16 -t UTF-8 FILE".to_owned());
        }
        if start.starts_with(&[0x1f, 0x8b]) {
            return Err("it is compressed with gzip; try zcat FILE | retrocap get --alert -".to_owned());
        }
        if start.starts_with(b"\xef\xbb\xbf") {
            from.consume(3);
        }
        if is_document(from.fill_buf().map_err(|error| error.to_string())?) {
            alerts.document(from)?;
        } else {
            alerts.lines(from)?;
        }
        Ok(alerts)
    }

    fn lines(&mut self, mut from: impl BufRead) -> Result<(), String> {
        let mut zeek = zeek::Table::default();
        let (mut bytes, mut number) = (Vec::new(), 0u64);
        loop {
            bytes.clear();
            number += 1;
            let read = from.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut bytes);
            if read.map_err(|error| error.to_string())? == 0 {
                return Ok(());
            }
            if bytes.last() != Some(&b'\n') && bytes.len() as u64 == LINE_BYTES_MAX {
                skip_line(&mut from).map_err(|error| error.to_string())?;
                self.add(number, Err(format!("longer than {} MiB", LINE_BYTES_MAX >> 20)));
                continue;
            }
            let Ok(text) = std::str::from_utf8(&bytes) else {
                self.add(number, Err("not text in UTF-8".to_owned()));
                continue;
            };
            let text = text.trim_end_matches(['\n', '\r']);
            let alert = match text.trim_start().bytes().next() {
                None => continue,
                Some(b'{') => match serde_json::from_str::<Value>(text) {
                    Ok(value) if self.is_other_event(&value) => continue,
                    Ok(value) => alert(&value),
                    Err(error) => Err(format!("not a whole JSON object: {}", json::reason(&error))),
                },
                Some(b'#') => zeek.header(text).map(|()| None),
                Some(_) => zeek.row(text),
            };
            let is_header = text.starts_with('#');
            if !(is_header && alert.is_ok()) {
                self.add(number, alert);
            }
            if self.cut {
                return Ok(());
            }
        }
    }

    /// Reads a file that holds one JSON value, or several values that span lines.
    fn document(&mut self, from: impl Read) -> Result<(), String> {
        let mut bytes = Vec::new();
        from.take(DOCUMENT_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
        if bytes.len() as u64 > DOCUMENT_BYTES_MAX {
            let mib = DOCUMENT_BYTES_MAX >> 20;
            return Err(format!("it is one JSON document above {mib} MiB; write it as lines, as in jq -c '.[]' FILE"));
        }
        let mut values = serde_json::Deserializer::from_slice(&bytes).into_iter::<Value>();
        let (mut line, mut counted) = (1, 0);
        let mut line_at = |offset: usize| {
            let offset = offset.min(bytes.len());
            let space = bytes[counted..offset].iter().filter(|&&byte| byte == b'\n').count();
            line += space as u64;
            counted = offset;
            line
        };
        loop {
            let at = line_at(values.byte_offset());
            match values.next() {
                None => return Ok(()),
                Some(Ok(Value::Array(items))) => {
                    // The parser gives no line for an item of a list, so report its number.
                    for (number, item) in (1u64..).zip(&items) {
                        if !self.is_other_event(item) {
                            self.add(number, alert(item));
                        }
                        if self.cut {
                            return Ok(());
                        }
                    }
                }
                Some(Ok(value)) if self.is_other_event(&value) => {}
                Some(Ok(value)) => self.add(at, alert(&value)),
                Some(Err(error)) => {
                    self.add(at.max(error.line() as u64), Err(format!("no JSON: {}", json::reason(&error))));
                    return Ok(());
                }
            }
            if self.cut {
                return Ok(());
            }
        }
    }

    /// Whether `value` is a Suricata event that names a session, is no alert and was not requested. Counts such events.
    fn is_other_event(&mut self, value: &Value) -> bool {
        let kind = value.get("event_type").and_then(Value::as_str);
        let is_other = !self.all_events && kind.is_some_and(|kind| kind != "alert") && value.get("src_ip").is_some();
        self.other_events += u64::from(is_other);
        is_other
    }

    fn add(&mut self, line: u64, alert: Result<Option<Alert>, String>) {
        match alert {
            Ok(Some(_)) if self.alerts.len() == ALERTS_MAX => self.cut = true,
            Ok(Some(alert)) => self.alerts.push(Alert { line, ..alert }),
            Ok(None) => self.passed_over += 1,
            Err(why) => {
                self.broken_count += 1;
                if self.broken.len() < BROKEN_LISTED_MAX {
                    self.broken.push((line, why));
                }
            }
        }
    }
}

/// Whether a file that begins with `start` holds a list, or an object that spans lines.
fn is_document(start: &[u8]) -> bool {
    let text = start.trim_ascii_start();
    let line = text.split(|&byte| byte == b'\n').next().unwrap_or_default().trim_ascii();
    line.starts_with(b"[") || line == b"{"
}

fn skip_line(from: &mut impl BufRead) -> std::io::Result<()> {
    loop {
        let buffer = from.fill_buf()?;
        let (bytes, ended) = match buffer.iter().position(|&byte| byte == b'\n') {
            Some(at) => (at + 1, true),
            None => (buffer.len(), buffer.is_empty()),
        };
        from.consume(bytes);
        if ended {
            return Ok(());
        }
    }
}

/// Reads one JSON object of any supported tool.
fn alert(value: &Value) -> Result<Option<Alert>, String> {
    if !value.is_object() {
        return Err("no JSON object".to_owned());
    }
    if let Some(event) = sysmon::event(value) {
        return sysmon::alert(value, event);
    }
    if eve::is(value) {
        return eve::alert(value);
    }
    if zeek::is(value) {
        return zeek::alert(|name| json::field(value, name));
    }
    Err("neither Suricata's EVE (event_type, src_ip), nor Zeek's conn.log or notice.log (ts, id.orig_h), nor Sysmon's \
         event 3 (UtcTime, SourceIp)"
        .to_owned())
}

#[cfg(test)]
mod tests;
