//! Parses dates with month names, as logs, mails and `date` write them.
//!
//! The words may have any order, and each part occurs once at most: `Nov 27 06:40:01` (syslog), `Fri Nov 27 06:40:01
//! UTC 2026` (`date`, `ctime`), `Fri, 27 Nov 2026 06:40:01 +0100` (RFC 5322), `27/Nov/2026:06:40:01 +0100` (the Common
//! Log Format of web servers). A date without a year means the latest
//! such date that is not in the future, as logs refer to the past.

use jiff::civil;
use jiff::tz::{Offset, TimeZone};

use super::parts::{digits, split_offset, time_of_day};
use crate::time::Timestamp;

const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];
const DAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
/// The most words of a date: weekday, month, day, year, time of day, zone.
const WORDS_MAX: usize = 6;

/// The parts of a date that have been parsed.
#[derive(Default)]
struct Words {
    has_weekday: bool,
    month: Option<i8>,
    day: Option<i8>,
    year: Option<i16>,
    clock: Option<civil::Time>,
    offset: Option<Offset>,
}

/// Parses a date with a month name, in lower case. Returns nanoseconds since the epoch.
pub(super) fn parse(text: &str, now: Timestamp, tz: &TimeZone) -> Option<i128> {
    let mut words = Words::default();
    let text = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    for (place, word) in text.split([' ', '\t', ',']).flat_map(parts_of_word).enumerate() {
        if place == WORDS_MAX {
            return None;
        }
        words.take(word)?;
    }
    let (month, day) = (words.month?, words.day?);
    let clock = words.clock.unwrap_or_else(civil::Time::midnight);
    let tz = words.offset.map_or_else(|| tz.clone(), TimeZone::fixed);
    let at = |year: i16| {
        let moment = civil::Date::new(year, month, day).ok()?.to_datetime(clock);
        Some(tz.to_timestamp(moment).ok()?.as_nanosecond())
    };
    if let Some(year) = words.year {
        return at(year);
    }
    let today = tz.to_datetime(jiff::Timestamp::from_nanosecond(i128::from(now.0)).ok()?).date();
    // 29 February may be up to eight years back, as 1900 was not a leap year.
    (0..=8).filter_map(|back| at(today.year() - back)).find(|&found| found <= i128::from(now.0))
}

/// Splits `27/nov/2026:06:40:01` and `27-nov-2026` into day, month, year and time of day. Other words stay whole.
fn parts_of_word(word: &str) -> impl Iterator<Item = &str> {
    let split = ['/', '-'].into_iter().find_map(|separator| {
        let mut parts = word.splitn(3, separator);
        let (day, month, rest) = (parts.next()?, parts.next()?, parts.next()?);
        named(&MONTHS, month)?;
        let (year, clock) = rest.split_once(':').unwrap_or((rest, ""));
        Some([day, month, year, clock])
    });
    split.unwrap_or([word, "", "", ""]).into_iter().filter(|part| !part.is_empty())
}

impl Words {
    /// Parses one more word. `None` if it is not part of a date, or repeats a part.
    fn take(&mut self, word: &str) -> Option<()> {
        if word.contains(':') {
            let (clock, offset) = split_offset(word)?;
            if offset.is_some() {
                self.set_offset(offset?)?;
            }
            return fill(&mut self.clock, time_of_day(clock)?);
        }
        match word {
            "utc" | "gmt" | "z" => return self.set_offset(Offset::UTC),
            _ if word.starts_with(['+', '-']) => return self.set_offset(split_offset(word)?.1?),
            _ => {}
        }
        if let Some(month) = named(&MONTHS, word) {
            return fill(&mut self.month, month);
        }
        if named(&DAYS, word).is_some() {
            return (!std::mem::replace(&mut self.has_weekday, true)).then_some(());
        }
        match word.len() {
            1 | 2 => fill(&mut self.day, digits(word)?),
            4 => fill(&mut self.year, digits(word)?),
            _ => None,
        }
    }

    fn set_offset(&mut self, offset: Offset) -> Option<()> {
        fill(&mut self.offset, offset)
    }
}

/// The position of a name, counted from 1. Three letters are enough, as in logs.
fn named(names: &[&str], word: &str) -> Option<i8> {
    let place = names.iter().position(|name| *name == word || (word.len() == 3 && name.starts_with(word)))?;
    i8::try_from(place + 1).ok()
}

fn fill<T>(place: &mut Option<T>, value: T) -> Option<()> {
    place.replace(value).is_none().then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-27T08:00:00Z.
    const NOW: Timestamp = Timestamp(1_795_766_400_000_000_000);

    fn read(text: &str) -> Option<String> {
        let nanos = parse(&text.to_ascii_lowercase(), NOW, &TimeZone::posix("CET-1").unwrap())?;
        Some(Timestamp(u64::try_from(nanos).unwrap()).to_rfc3339())
    }

    #[test]
    fn dates_as_logs_and_mails_write_them() {
        for (text, expected) in [
            ("Nov 27 06:40:01", "2026-11-27T05:40:01.000000000Z"),
            ("Nov  7 06:40:01.25", "2026-11-07T05:40:01.250000000Z"),
            ("27 Nov 06:40", "2026-11-27T05:40:00.000000000Z"),
            ("November 27", "2026-11-26T23:00:00.000000000Z"),
            ("Nov 27 2025 06:40:01", "2025-11-27T05:40:01.000000000Z"),
            ("Fri Nov 27 06:40:01 UTC 2026", "2026-11-27T06:40:01.000000000Z"),
            ("Fri, 27 Nov 2026 06:40:01 +0100", "2026-11-27T05:40:01.000000000Z"),
            ("Fri, 27 Nov 2026 06:40:01 GMT", "2026-11-27T06:40:01.000000000Z"),
            // Dates without a year are never in the future; a later date means that of last year.
            ("Dec 24 18:00", "2025-12-24T17:00:00.000000000Z"),
            ("Nov 27 23:00", "2025-11-27T22:00:00.000000000Z"),
            ("Feb 29 12:00", "2024-02-29T11:00:00.000000000Z"),
        ] {
            assert_eq!(read(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn other_words_are_no_date() {
        for text in [
            "",
            "Nov",
            "27",
            "Nov 31",
            "Nov 27 Nov",
            "Nov 27 28",
            "Nov 27 06:40 07:40",
            "Fri Fri Nov 27",
            "Nov 27 2026 2026",
            "Nov 27 06:40 UTC UTC",
            "Nove 27",
            "Nov 27 25:00",
            "Nov 27 bananas",
            "Fri Nov 27 06:40:01 UTC 2026 x",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
