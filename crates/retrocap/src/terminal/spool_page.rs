//! Formats the state of a spool for people.

use std::fmt::Write as _;
use std::time::Duration;

use jiff::tz::TimeZone;

use crate::terminal::human::{count, counted, size, time as read_time};
use crate::terminal::printable::plain;
use base::time::{self, Timestamp};
use query::status::{DiskTimes, SpoolStatus};

/// One line: the state, what is there, and what is not.
pub(crate) fn line(spool: &SpoolStatus, now: Timestamp, tz: &TimeZone) -> String {
    let state = plain(&spool.state).to_string();
    let state = if spool.state == "ok" { state } else { state.to_uppercase() };
    let lost = match spool.lost_packets {
        0 => "nothing lost".to_owned(),
        lost => format!("{} NEVER WRITTEN", counted(lost, "packet")),
    };
    let whole = spool.whole_since.as_deref().and_then(read_time).map_or(String::new(), |since| {
        format!(", every packet since {} ({})", time::local(since, tz), time::human_age(now.since(since)))
    });
    let room = format!("{} of {}", size(spool.used_bytes), size(spool.budget_bytes));
    let problem = spool.problem.as_deref().map_or(String::new(), |problem| format!(": {}", plain(problem)));
    format!("{state}{problem}, {room} on disk, {lost}{whole}")
}

/// The whole page.
pub(crate) fn page(spool: &SpoolStatus, now: Timestamp, tz: &TimeZone) -> String {
    let mut out = format!("{}: {}\n\n", plain(&spool.dir), line(spool, now, tz));
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{:<8} {:>12} {:>7} {:>11}  OLDEST PACKET", "BAND", "FROM BYTE", "FILES", "BYTES");
    for band in &spool.bands {
        let oldest = band.oldest.as_deref().and_then(read_time);
        let oldest = oldest.map_or("-".to_owned(), |oldest| {
            format!("{} ({})", time::local(oldest, tz), time::human_age(now.since(oldest)))
        });
        let (from, files) = (count(band.offset_from), count(band.files));
        let _ = writeln!(out, "{:<8} {from:>12} {files:>7} {:>11}  {oldest}", band.band, size(band.bytes));
    }
    let _ = writeln!(
        out,
        "\nwritten    {} ({})\nwaiting    {} ({})",
        counted(spool.written_packets, "packet"),
        size(spool.written_bytes),
        counted(spool.behind_packets, "packet"),
        size(spool.behind_bytes)
    );
    let lost = &spool.lost;
    let reasons = [("disk too slow", lost.too_slow), ("no room", lost.no_room), ("disk failed", lost.failed)];
    let reasons: Vec<String> =
        reasons.iter().filter(|(_, n)| *n > 0).map(|(reason, n)| format!("{} ({reason})", count(*n))).collect();
    let reasons = if reasons.is_empty() { "nothing".to_owned() } else { reasons.join(", ") };
    let removed = counted(spool.removed_packets, "packet");
    let _ = writeln!(out, "lost       {reasons}\nremoved    {removed} for room");
    let _ = writeln!(out, "writes     {}\nsyncs      {}", durations(&spool.writes), durations(&spool.syncs));
    if let Some(log) = &spool.log {
        let (rows, files) = (counted(log.rows, "row"), counted(log.files, "file"));
        let lacks = log.missed_sessions.saturating_add(log.lost_rows);
        let lacks = if lacks == 0 { String::new() } else { format!(", lacks {}", counted(lacks, "session")) };
        let problem = log.problem.as_deref().map_or(String::new(), |problem| format!("; FAILS: {}", plain(problem)));
        let _ = writeln!(out, "sessions   {rows} written, {files} of {}{lacks}{problem}", size(log.bytes));
    }
    out
}

/// The mean and the slowest of some operations.
fn durations(times: &DiskTimes) -> String {
    let Some(mean) = times.sum_us.checked_div(times.count) else { return "none so far".to_owned() };
    let slowest = times.buckets.iter().rev().find(|bucket| bucket.count > 0);
    let slowest = match slowest.and_then(|bucket| bucket.up_to_us) {
        Some(us) => format!("at most {:.1?}", Duration::from_micros(us)),
        None => "some longer than 10 s".to_owned(),
    };
    format!("{}, mean {:.1?}, {slowest}", count(times.count), Duration::from_micros(mean))
}
