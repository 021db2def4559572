//! Formats the interfaces of a status, and the gaps in their recording.

use std::fmt::Write as _;

use jiff::tz::TimeZone;
use unicode_width::UnicodeWidthStr as _;

use crate::terminal::human::{count, printed_time, size};
use base::foreign::Foreign;
use base::time;
use query::status::{InterfaceGapStatus, InterfaceStatus};

/// Maximum width that interface names are padded to. Linux allows 15 bytes.
const NAME_COLUMNS_MAX: usize = 64;

/// A table of interfaces, each with a remark in the last column.
#[derive(Debug, Default)]
pub(crate) struct InterfaceLines(Vec<[String; 5]>);

impl InterfaceLines {
    pub(crate) fn add(&mut self, interface: &InterfaceStatus, remark: String) {
        let name = interface.name.terminal().to_string();
        let name = if name.is_empty() { "(no name)".to_owned() } else { name };
        let link_type = interface.link_type.terminal().to_string();
        self.0.push([name, link_type, count(interface.packets), size(interface.bytes), remark]);
    }

    /// Writes the table after an empty line; nothing if it has no rows.
    pub(crate) fn write(&self, out: &mut String) {
        if self.0.is_empty() {
            return;
        }
        let width = self.0.iter().map(|row| row[0].width()).max().unwrap_or(0);
        let width = width.clamp("interface".len(), NAME_COLUMNS_MAX);
        let _ = writeln!(out, "\n{:<width$}  {:<10}  {:>15}  {:>10}", "interface", "link type", "packets", "bytes");
        for [name, link_type, packets, bytes, remark] in &self.0 {
            let blanks = " ".repeat(width.saturating_sub(name.width()));
            let remark = if remark.is_empty() { String::new() } else { format!("  {remark}") };
            let _ = writeln!(out, "{name}{blanks}  {link_type:<10}  {packets:>15}  {bytes:>10}{remark}");
        }
    }
}

/// Describes a gap in the recording of an interface.
pub(crate) fn gap(gap: &InterfaceGapStatus, tz: &TimeZone) -> String {
    let name = gap.interface.terminal();
    let until = gap.until.as_ref().map_or_else(|| "and lasts".to_owned(), |until| format!("to {}", local(until, tz)));
    let why = match (gap.reason.untrusted(), &gap.renamed_to) {
        ("renamed", Some(new)) => format!("renamed to {}", new.terminal()),
        _ => gap.reason.terminal().to_string(),
    };
    format!("{name} {why} from {} {until}", local(&gap.from, tz))
}

/// A time of an answer in the local time zone, or unchanged if it is none.
pub(crate) fn local(text: &Foreign, tz: &TimeZone) -> String {
    printed_time(text).map_or_else(|| text.terminal().to_string(), |at| time::local(at, tz))
}
