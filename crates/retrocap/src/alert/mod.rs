//! Alerts of other tools, and the sessions they name: Suricata's EVE, Zeek's logs, Sysmon's network connections.
//!
//! A file is read line by line, and each line is recognised for itself, so that files may be joined. What always holds:
//! a line that cannot be read is told with its number, and costs no other line its packets; what is held is bounded.

mod eve;
mod json;
mod sysmon;
mod zeek;

use std::io::{BufRead, Read};
use std::net::IpAddr;

use serde_json::Value;

use base::time::Timestamp;
use query::search::SearchTarget;

/// Alerts that are read from one file at most.
pub const ALERTS_MAX: usize = 100_000;
/// Bytes of a line at most.
pub const LINE_BYTES_MAX: u64 = 1 << 20;
/// Bytes of a file that is one JSON document, not lines, at most.
pub const DOCUMENT_BYTES_MAX: u64 = 64 << 20;
/// Broken lines that are told one by one; further ones are counted.
pub const BROKEN_LISTED_MAX: usize = 1000;

/// Who wrote an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Suricata, EVE.
    Suricata,
    /// Zeek, conn.log, notice.log or another log with a connection.
    Zeek,
    /// Sysmon, event 3.
    Sysmon,
    /// No alert: a session that a recorder listed.
    Session,
}

impl Kind {
    /// Its name in file names and manifests.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Suricata => "suricata",
            Self::Zeek => "zeek",
            Self::Sysmon => "sysmon",
            Self::Session => "session",
        }
    }
}

/// One alert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    /// Where it stands in its file, from 1.
    pub line: u64,
    /// Who wrote it.
    pub kind: Kind,
    /// What it says: a signature, a notice, a program.
    pub name: String,
    /// What its writer calls it: a signature's number, a connection's uid.
    pub id: Option<String>,
    /// When it began.
    pub start: Timestamp,
    /// When it ended, the same for what has no duration.
    pub end: Timestamp,
    /// The sessions it names.
    pub names: SearchTarget,
}

/// What a file held.
#[derive(Debug, Default)]
pub struct Alerts {
    /// The alerts, as they stood.
    pub alerts: Vec<Alert>,
    /// Lines that could not be read, the first [`BROKEN_LISTED_MAX`], and why.
    pub broken: Vec<(u64, String)>,
    /// All such lines.
    pub broken_count: u64,
    /// Lines that name no session: statistics, other events.
    pub passed_over: u64,
    /// Events of Suricata that name a session and are not alerts, which were not asked for.
    pub other_events: u64,
    /// Set when there were more than [`ALERTS_MAX`].
    pub cut: bool,
    all_events: bool,
}

impl Alerts {
    /// Reads all of a file.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or is nothing that could hold alerts. Broken lines are no error.
    pub fn read(from: impl BufRead) -> Result<Self, String> {
        Self::read_events(from, true)
    }

    /// As [`read`](Self::read), but of Suricata's events alerts alone, unless `all` are wanted.
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
                    Err(error) => Err(format!("no whole JSON object: {}", json::reason(&error))),
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

    /// A file that is one JSON value, or several that reach over lines.
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
                    // Where an item of a list stands is not known; its number is.
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

    /// Whether it is an event of Suricata that names a session, is no alert, and was not asked for. Counts it then.
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

/// Whether what begins so is no file of lines: a list, or an object that reaches over lines.
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

/// Reads one JSON object, whoever wrote it.
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

/// An address as logs write it; what was mapped into IPv6 is IPv4 again.
fn address(name: &str, text: &str) -> Result<IpAddr, String> {
    let bare = text.split('%').next().unwrap_or_default();
    let address: IpAddr = bare.parse().map_err(|_| format!("{name} is {}, no IP address", json::shown(text)))?;
    Ok(address.to_canonical())
}

/// A port; what has none says 0 or nothing.
fn port(name: &str, text: Option<&str>) -> Result<u16, String> {
    let Some(text) = text else { return Ok(0) };
    text.parse().map_err(|_| format!("{name} is {}, no port", json::shown(text)))
}

/// A time: seconds (or milliseconds) since 1970, or a date and time, which is UTC where it does not say.
fn time(name: &str, text: &str) -> Result<Timestamp, String> {
    let wrong = || format!("{name} is {}, no time like 2026-11-22T10:00:00.123456+0000", json::shown(text));
    if let Ok(number) = text.parse::<f64>() {
        // A time in seconds has ten digits before its fraction until the year 2286.
        const MILLISECONDS_FROM: f64 = 1e11;
        if number >= MILLISECONDS_FROM {
            let micros = number * 1e3;
            let whole = format!("{:.0}", micros).parse::<u64>().map_err(|_| wrong())?;
            return Ok(Timestamp(whole.saturating_mul(1000)));
        }
        return base::time::parse(&format!("@{text}"), Timestamp::MIN, &jiff::tz::TimeZone::UTC).map_err(|_| wrong());
    }
    if !text.starts_with(|c: char| c.is_ascii_digit()) || text.len() < "2026-11-22T10:00:00".len() {
        return Err(wrong());
    }
    // +0100 is what strftime writes, +01:00 what RFC 3339 wants.
    if !text.is_ascii() {
        return Err(wrong());
    }
    let mut text = text.to_owned();
    let bytes = text.as_bytes();
    let sign = bytes.len() - 5;
    if matches!(bytes[sign], b'+' | b'-') && bytes[sign + 1..].iter().all(u8::is_ascii_digit) {
        text.insert(sign + 3, ':');
    }
    base::time::parse(&text, Timestamp::MIN, &jiff::tz::TimeZone::UTC).map_err(|_| wrong())
}

/// The number of a protocol; `None` where its name is not known, which then is any.
fn protocol(name: &str) -> Option<u8> {
    Some(match name.to_ascii_lowercase().as_str() {
        "icmp" => 1,
        "igmp" => 2,
        "tcp" => 6,
        "udp" => 17,
        "gre" => 47,
        "esp" => 50,
        "ah" => 51,
        "icmp6" | "icmpv6" | "ipv6-icmp" => 58,
        "sctp" => 132,
        number => return number.parse().ok().filter(|&number| number != 0),
    })
}

#[cfg(test)]
mod tests;
