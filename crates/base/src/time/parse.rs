//! Parses times and durations from user input.
//!
//! All computation uses integers, so times with nine fractional digits are exact to the nanosecond. A local time that a
//! change to summer time skips is read as the same distance after the change (02:30 becomes 03:30). Of a local time
//! that exists twice, the first is meant. `1d` and `3 days ago` are multiples of 24 hours, regardless of clock changes.

use std::time::Duration;

use jiff::civil;
use jiff::tz::TimeZone;

use super::{NANOS_PER_SECOND, Timestamp};
use parts::{digits, nano_fraction, split_offset, time_of_day};

mod parts;
mod written;

/// Why a time or a duration could not be parsed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    /// Not a time.
    #[error("cannot read the time {}: try 10m (ten minutes ago) or 2026-11-22T10:00:00Z", shown(.0))]
    Unreadable(String),
    /// A time outside the range of [`Timestamp`].
    #[error(
        "the time {} is not between 1970 and 2554: try 10m (ten minutes ago) or 2026-11-22T10:00:00Z", shown(.0)
    )]
    OutOfRange(String),
    /// A small number without a unit. It is more likely a duration without its unit than a second of 1970.
    #[error("the time {0:?} has no unit: try {0}s, {0}m or {0}h for so long ago, or @{0} for seconds since 1970")]
    NoUnit(String),
    /// A date whose day and month could be exchanged.
    #[error("the date {} can be read in two ways (day or month first): write it as 2026-11-22", shown(.0))]
    TwoReadings(String),
    /// A range instead of a point in time.
    #[error("{} is a range, not a point in time: use {option} {rest:?}", shown(.text))]
    Range {
        /// The input.
        text: String,
        /// The command-line option that expresses the range.
        option: &'static str,
        /// The value for that option.
        rest: String,
    },
    /// Not a duration.
    #[error("cannot read the duration {}: try 90s or 2h30m", shown(.0))]
    UnreadableDuration(String),
}

/// The fewest digits of seconds since 1970 without `@`: nine digits begin in March 1973.
const EPOCH_DIGITS_MIN: usize = 9;

/// The input in quotes, cut to 60 characters for a message.
fn shown(text: &str) -> String {
    const CHARS_MAX: usize = 60;
    if text.chars().count() <= CHARS_MAX {
        format!("{text:?}")
    } else {
        format!("{:?}…", text.chars().take(CHARS_MAX).collect::<String>())
    }
}

/// Parses a point in time.
///
/// Accepts RFC 3339, dates and times of day in the time zone `tz` (`2026-11-22 10:00`, `2026/11/22`, `10:00`,
/// `3:30 pm`, `yesterday 14:00`, `noon`) or in UTC (`2026-11-22 10:00 UTC`), formats of logs and mails (`Nov 27
/// 06:40:01`, `Fri, 27 Nov 2026 06:40:01 +0100`, `27/Nov/2026:06:40:01 +0100`), seconds since 1970 with a fraction
/// (`1795341600.5`, or with `@` for any number), `now`, `now-5m`, `now+5m`, and durations, which count back from
/// `now` (`10m`, `-10m`, `2h30m`, `3 days ago`). A duration that reaches beyond 1970 gives 1970.
///
/// # Errors
///
/// If the text is not a time, is out of range, or has no unit. The message quotes the text and gives examples.
pub fn parse(text: &str, now: Timestamp, tz: &TimeZone) -> Result<Timestamp, TimeError> {
    let read = join_half_of_day(&text.trim().to_ascii_lowercase());
    if let Some(found) = from_now(&read, now) {
        return Ok(found);
    }
    if let Some(span) = span(read.strip_suffix(" ago").unwrap_or_else(|| read.strip_prefix('-').unwrap_or(&read))) {
        return Ok(now.saturating_sub(span));
    }
    let (seconds, is_marked) = read.strip_prefix('@').map_or((&*read, false), |seconds| (seconds, true));
    if let Some(number) = read.strip_prefix('-').filter(|number| decimal(number, 1).is_some()) {
        return Err(TimeError::NoUnit(number.to_owned()));
    }
    let found = match decimal(seconds, NANOS_PER_SECOND) {
        Some(_) if !is_marked && seconds.split('.').next().is_some_and(|whole| whole.len() < EPOCH_DIGITS_MIN) => {
            return Err(TimeError::NoUnit(read));
        }
        Some(nanos) => Some(i128::try_from(nanos).unwrap_or(i128::MAX)),
        None => calendar(&read, now, tz).or_else(|| written::parse(&read, now, tz)),
    };
    match found.map(u64::try_from) {
        Some(Ok(nanos)) => Ok(Timestamp(nanos)),
        Some(Err(_)) => Err(TimeError::OutOfRange(text.to_owned())),
        None if has_two_readings(&read) => Err(TimeError::TwoReadings(text.to_owned())),
        None => Err(range(text, &read, now, tz).unwrap_or_else(|| TimeError::Unreadable(text.to_owned()))),
    }
}

/// `now`, `now-5m` and `now + 5m`.
fn from_now(read: &str, now: Timestamp) -> Option<Timestamp> {
    let rest = read.strip_prefix("now")?.trim_start();
    if rest.is_empty() {
        return Some(now);
    }
    let (sign, rest) = rest.split_at_checked(1)?;
    let span = span(rest.trim_start())?;
    match sign {
        "-" => Some(now.saturating_sub(span)),
        "+" => Some(now.saturating_add(span)),
        _ => None,
    }
}

/// Joins ` am` and ` pm` to the time of day before them.
fn join_half_of_day(text: &str) -> String {
    let mut joined = String::with_capacity(text.len());
    for word in text.split(' ') {
        let is_half = matches!(word, "am" | "pm") && joined.ends_with(|c: char| c.is_ascii_digit());
        if !is_half && !joined.is_empty() {
            joined.push(' ');
        }
        joined.push_str(word);
    }
    joined
}

/// Whether the text has a date such as `11/12/2026`.
fn has_two_readings(text: &str) -> bool {
    text.split(' ').any(|word| {
        let parts: Vec<&str> = word.splitn(4, ['/', '.']).collect();
        matches!(parts[..], [first, second, year] if year.len() == 4
            && [first, second, year].iter().all(|part| part.len() <= 4 && digits::<u16>(part).is_some()))
    })
}

/// The error for `before TIME` and similar input whose second part is a time.
fn range(text: &str, read: &str, now: Timestamp, tz: &TimeZone) -> Option<TimeError> {
    let (word, rest) = read.split_once(' ')?;
    let option = match word {
        "before" | "until" => "--until",
        "after" | "since" => "--since",
        "around" | "about" => "--around",
        _ => return None,
    };
    // A second such word is no time. Without this check, a line of such words would recurse once per word.
    (!is_range_word(rest) && parse(rest, now, tz).is_ok()).then(|| TimeError::Range {
        text: text.to_owned(),
        option,
        rest: rest.trim().to_owned(),
    })
}

fn is_range_word(text: &str) -> bool {
    let word = text.split_whitespace().next().unwrap_or_default();
    ["before", "until", "after", "since", "around", "about"].contains(&word)
}

/// As [`parse`], but a bare duration (`5m`) counts forward from `now`.
///
/// # Errors
///
/// As [`parse`].
pub fn parse_ahead(text: &str, now: Timestamp, tz: &TimeZone) -> Result<Timestamp, TimeError> {
    match parse_duration(text) {
        Ok(span) => Ok(now.saturating_add(span)),
        Err(_) => parse(text, now, tz),
    }
}

/// Parses a duration: `500ms`, `90s`, `10m`, `2h30m`, `1.5h`, `1d`, `1w`, `3 days`, `2 hours 30 minutes`.
///
/// # Errors
///
/// If the text is not a duration, or a number has no unit. The message quotes the text and gives examples.
pub fn parse_duration(text: &str) -> Result<Duration, TimeError> {
    span(&text.trim().to_ascii_lowercase()).ok_or_else(|| TimeError::UnreadableDuration(text.to_owned()))
}

/// Parses one or more numbers with units, in lower case. `None` also above 584 years.
fn span(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total: u64 = 0;
    loop {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(number_end);
        let tail = tail.trim_start();
        let unit_end = tail.find(|c: char| !c.is_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let nanos = decimal(number, unit_nanos(unit)?)?;
        total = total.checked_add(u64::try_from(nanos).ok()?)?;
        rest = tail.trim_start();
        if rest.is_empty() {
            return Some(Duration::from_nanos(total));
        }
    }
}

fn unit_nanos(unit: &str) -> Option<u64> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" | "sec" | "secs" | "second" | "seconds" => NANOS_PER_SECOND,
        "m" | "min" | "mins" | "minute" | "minutes" => 60 * NANOS_PER_SECOND,
        "h" | "hr" | "hrs" | "hour" | "hours" => 3_600 * NANOS_PER_SECOND,
        "d" | "day" | "days" => 86_400 * NANOS_PER_SECOND,
        "w" | "week" | "weeks" => 604_800 * NANOS_PER_SECOND,
        _ => return None,
    })
}

/// `12` or `12.5` times `unit`, rounded down to an integer. At most nine fractional digits.
fn decimal(text: &str, unit: u64) -> Option<u128> {
    let (whole, fraction) = text.split_once('.').map_or((text, None), |(whole, fraction)| (whole, Some(fraction)));
    let whole: u64 = digits(whole)?;
    let fraction = fraction.map_or(Some(0), nano_fraction)?;
    let unit = u128::from(unit);
    Some(u128::from(whole) * unit + u128::from(fraction) * unit / u128::from(NANOS_PER_SECOND))
}

/// Parses a date, a time of day, or both. Returns nanoseconds since the epoch.
fn calendar(text: &str, now: Timestamp, tz: &TimeZone) -> Option<i128> {
    // RFC 3339 separates date and time by a T after a digit; names of days contain a T after a letter.
    let bytes = text.as_bytes();
    let is_separator = |at: usize| match bytes[at] {
        b' ' => true,
        b't' => at > 0 && bytes[at - 1].is_ascii_digit(),
        _ => false,
    };
    let (day, clock) = match (0..bytes.len()).find(|&at| is_separator(at)) {
        Some(at) => (&text[..at], Some(text[at + 1..].trim_start())),
        None if text.contains(':') || text.ends_with(['m']) => ("today", Some(text)),
        None => (text, None),
    };
    let (day, clock) = match clock {
        // Accept `14:00 yesterday` as well as `yesterday 14:00`.
        Some(last @ ("today" | "yesterday")) => (last, Some(day)),
        _ if matches!(day, "noon" | "midnight") && clock.is_none() => ("today", Some(day)),
        clock => (day, clock),
    };
    let date = date(day, now, tz)?;
    let (clock, offset) = match clock {
        Some(clock) => split_offset(clock)?,
        None => ("00:00", None),
    };
    let moment = date.to_datetime(time_of_day(clock)?);
    let instant = match offset {
        Some(offset) => offset.to_timestamp(moment).ok()?,
        None => tz.to_timestamp(moment).ok()?,
    };
    Some(instant.as_nanosecond())
}

fn date(text: &str, now: Timestamp, tz: &TimeZone) -> Option<civil::Date> {
    let today = || Some(tz.to_datetime(jiff::Timestamp::from_nanosecond(i128::from(now.0)).ok()?).date());
    match text {
        "today" => return today(),
        "yesterday" => return today()?.yesterday().ok(),
        _ => {}
    }
    let mut parts = text.split(if text.contains('/') { '/' } else { '-' });
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || year.len() != 4 || month.len() != 2 || day.len() != 2 {
        return None;
    }
    civil::Date::new(digits(year)?, digits(month)?, digits(day)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn berlin() -> TimeZone {
        TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
    }

    /// 2026-11-22T10:00:00Z, a Sunday, 11:00 in Berlin.
    const NOW: Timestamp = Timestamp(1_795_341_600_000_000_000);

    #[test]
    fn times_as_people_type_them() {
        for (text, expected) in [
            ("2026-11-22T10:00:00Z", "2026-11-22T10:00:00.000000000Z"),
            ("2026-11-22t10:00:00.5z", "2026-11-22T10:00:00.500000000Z"),
            ("2026-11-22T10:00:00.123456789+01:00", "2026-11-22T09:00:00.123456789Z"),
            ("2026-11-22 10:00:00-05:30", "2026-11-22T15:30:00.000000000Z"),
            ("2026-11-22T10:00:00.123456+0000", "2026-11-22T10:00:00.123456000Z"),
            ("2026-11-22T10:00:00+02", "2026-11-22T08:00:00.000000000Z"),
            ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59.000000000Z"),
            ("2026-11-22 10:00", "2026-11-22T09:00:00.000000000Z"),
            ("2026-07-01 10:00", "2026-07-01T08:00:00.000000000Z"),
            ("  2026-11-22   10:00:00.5 ", "2026-11-22T09:00:00.500000000Z"),
            ("2026-11-22", "2026-11-21T23:00:00.000000000Z"),
            ("2024-02-29", "2024-02-28T23:00:00.000000000Z"),
            ("10:00", "2026-11-22T09:00:00.000000000Z"),
            ("9:30", "2026-11-22T08:30:00.000000000Z"),
            ("10:00:05", "2026-11-22T09:00:05.000000000Z"),
            ("10:00:00Z", "2026-11-22T10:00:00.000000000Z"),
            ("1795341600", "2026-11-22T10:00:00.000000000Z"),
            ("1795341600.123456789", "2026-11-22T10:00:00.123456789Z"),
            ("1795341600.000000001", "2026-11-22T10:00:00.000000001Z"),
            ("@1795341600.5", "2026-11-22T10:00:00.500000000Z"),
            ("@0", "1970-01-01T00:00:00.000000000Z"),
            ("@10", "1970-01-01T00:00:10.000000000Z"),
            ("-5m", "2026-11-22T09:55:00.000000000Z"),
            ("noon", "2026-11-22T11:00:00.000000000Z"),
            ("midnight", "2026-11-21T23:00:00.000000000Z"),
            ("yesterday noon", "2026-11-21T11:00:00.000000000Z"),
            ("noon yesterday", "2026-11-21T11:00:00.000000000Z"),
            ("14:00 yesterday", "2026-11-21T13:00:00.000000000Z"),
            ("now", "2026-11-22T10:00:00.000000000Z"),
            ("now-5m", "2026-11-22T09:55:00.000000000Z"),
            ("now - 1h30m", "2026-11-22T08:30:00.000000000Z"),
            ("now+5m", "2026-11-22T10:05:00.000000000Z"),
            ("2013-05-02 20:20:40 UTC", "2013-05-02T20:20:40.000000000Z"),
            ("2013-05-02 20:20:40.5 GMT", "2013-05-02T20:20:40.500000000Z"),
            ("2013-05-02T20:20:40UTC", "2013-05-02T20:20:40.000000000Z"),
            ("2013-05-02 20:20:40 +0200", "2013-05-02T18:20:40.000000000Z"),
            ("2013/05/02 20:20:40", "2013-05-02T18:20:40.000000000Z"),
            ("2013/05/02", "2013-05-01T22:00:00.000000000Z"),
            ("02/May/2013:20:20:40 +0000", "2013-05-02T20:20:40.000000000Z"),
            ("[02/May/2013:20:20:40 +0200]", "2013-05-02T18:20:40.000000000Z"),
            ("2-May-2013 20:20:40", "2013-05-02T18:20:40.000000000Z"),
            ("3:30pm", "2026-11-22T14:30:00.000000000Z"),
            ("3 pm", "2026-11-22T14:00:00.000000000Z"),
            ("12:05:01 am", "2026-11-21T23:05:01.000000000Z"),
            ("12 pm", "2026-11-22T11:00:00.000000000Z"),
            ("yesterday 3:30 pm", "2026-11-21T14:30:00.000000000Z"),
            ("Fri Nov 20 06:40:01 PM UTC 2026", "2026-11-20T18:40:01.000000000Z"),
            ("10m", "2026-11-22T09:50:00.000000000Z"),
            ("10M", "2026-11-22T09:50:00.000000000Z"),
            ("2h30m", "2026-11-22T07:30:00.000000000Z"),
            ("90s", "2026-11-22T09:58:30.000000000Z"),
            ("500ms", "2026-11-22T09:59:59.500000000Z"),
            ("1.5h", "2026-11-22T08:30:00.000000000Z"),
            ("1d", "2026-11-21T10:00:00.000000000Z"),
            ("1w", "2026-11-15T10:00:00.000000000Z"),
            ("10m ago", "2026-11-22T09:50:00.000000000Z"),
            ("3 days ago", "2026-11-19T10:00:00.000000000Z"),
            ("1 day 2 hours ago", "2026-11-21T08:00:00.000000000Z"),
            ("10000w ago", "1970-01-01T00:00:00.000000000Z"),
            ("yesterday", "2026-11-20T23:00:00.000000000Z"),
            ("Yesterday 14:00", "2026-11-21T13:00:00.000000000Z"),
            ("today 09:30", "2026-11-22T08:30:00.000000000Z"),
            ("today", "2026-11-21T23:00:00.000000000Z"),
            // Clocks change from 02:00 to 03:00 in March, and from 03:00 to 02:00 in October.
            ("2026-03-29 02:30", "2026-03-29T01:30:00.000000000Z"),
            ("2026-03-29 03:30", "2026-03-29T01:30:00.000000000Z"),
            ("2026-10-25 02:30", "2026-10-25T00:30:00.000000000Z"),
        ] {
            let found = parse(text, NOW, &berlin()).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(found.to_rfc3339(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_not_a_time_is_said_with_examples() {
        for text in [
            "",
            " ",
            "10 bananas",
            "bananas",
            "2026-02-29",
            "2026-13-01",
            "2026-11-22T25:00",
            "10:60",
            "10:00:61",
            "2026-11-22T10:00:00.1234567890Z",
            "1795341600.1234567890",
            "1.2.3",
            "now-5",
            "now 5m",
            "now-",
            "nowhere",
            "13 pm",
            "0 am",
            "pm",
            "10 pm pm",
            "2013/5/2",
            "2013-05/02",
            "2-Mai-2013",
            "- 5m",
            "-5m ago",
            "+5",
            "@",
            "@5m",
            "@-5",
            "before",
            "before noonish",
            "before before noon",
            "5 m 3",
            "2026-11-22T",
            "2026-11-22 ago",
            "10:00.5",
            "2026-1-2",
            "ago",
            "tomorrow",
            "2026-11-22T10:00:00+24:00",
            "١٠m",
            "10:00+é1",
            "yesterdayish",
            "today 9",
        ] {
            let error = parse(text, NOW, &berlin()).expect_err(text);
            assert_eq!(error, TimeError::Unreadable(text.to_owned()));
        }
        assert_eq!(
            parse("10 bananas", NOW, &berlin()).unwrap_err().to_string(),
            "cannot read the time \"10 bananas\": try 10m (ten minutes ago) or 2026-11-22T10:00:00Z"
        );
        for text in ["10", "0", "5.5", "12345678"] {
            assert_eq!(parse(text, NOW, &berlin()), Err(TimeError::NoUnit(text.to_owned())));
        }
        assert_eq!(
            parse("10", NOW, &berlin()).unwrap_err().to_string(),
            "the time \"10\" has no unit: try 10s, 10m or 10h for so long ago, or @10 for seconds since 1970"
        );
        assert_eq!(parse("-5", NOW, &berlin()), Err(TimeError::NoUnit("5".to_owned())));
        for text in ["11/12/2026", "11/27/2026 10:00", "27.11.2026"] {
            assert_eq!(parse(text, NOW, &berlin()), Err(TimeError::TwoReadings(text.to_owned())));
        }
        assert_eq!(
            parse("Before 3h ago", NOW, &berlin()).unwrap_err().to_string(),
            "\"Before 3h ago\" is a range, not a point in time: use --until \"3h ago\""
        );
        for text in ["1969-12-31T23:59:59Z", "1795341600123", "2600-01-01"] {
            assert_eq!(parse(text, NOW, &berlin()), Err(TimeError::OutOfRange(text.to_owned())));
        }
        assert!(parse(&"x".repeat(100_000), NOW, &berlin()).unwrap_err().to_string().len() < 200);
    }

    #[test]
    fn durations_as_people_type_them() {
        for (text, millis) in [
            ("2h", 7_200_000),
            ("2h30m", 9_000_000),
            ("2 hours 30 minutes", 9_000_000),
            ("0.5s", 500),
            (" 90 S ", 90_000),
            ("5min", 300_000),
            ("1w", 604_800_000),
            ("0s", 0),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(parse_duration("0.000000001s"), Ok(Duration::from_nanos(1)));
        for text in ["", "5", "h", "2x", "-2h", "2h ago", "99999999999w", ".5s", "1..5s"] {
            assert_eq!(parse_duration(text), Err(TimeError::UnreadableDuration(text.to_owned())));
        }
        assert_eq!(parse_duration("5").unwrap_err().to_string(), "cannot read the duration \"5\": try 90s or 2h30m");
    }

    proptest::proptest! {
        #[test]
        fn any_text_gives_an_answer(text in "\\PC{0,40}", now: u64) {
            let _ = parse(&text, Timestamp(now), &berlin());
            let _ = parse_duration(&text);
        }

        #[test]
        fn almost_times_give_an_answer(text in "[0-9tTzZ:. +\\-dhms]{0,32}", now: u64) {
            let _ = parse(&text, Timestamp(now), &berlin());
        }

        #[test]
        fn what_is_printed_can_be_read(nanos: u64) {
            let time = Timestamp(nanos);
            proptest::prop_assert_eq!(parse(&time.to_rfc3339(), Timestamp::MIN, &TimeZone::UTC), Ok(time));
            let epoch = format!("@{}.{:09}", time.unix_seconds(), time.subsec_nanos());
            proptest::prop_assert_eq!(parse(&epoch, Timestamp::MIN, &TimeZone::UTC), Ok(time));
        }
    }
}
