//! Parts of a time: digits, times of day and offsets from UTC.

use jiff::civil;
use jiff::tz::Offset;

/// Parses a non-empty string of ASCII digits, without sign or spaces.
pub(super) fn digits<N: std::str::FromStr>(text: &str) -> Option<N> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// Parses one to nine fractional digits as billionths.
pub(super) fn nano_fraction(text: &str) -> Option<u32> {
    let value: u32 = digits(text)?;
    let missing = 9_u32.checked_sub(u32::try_from(text.len()).ok()?)?;
    Some(value * 10_u32.pow(missing))
}

/// Parses `10:00`, `10:00:05`, `10:00:05.123456789` or `3:30pm`. A leap second (`:60`) becomes the second before it.
pub(super) fn time_of_day(text: &str) -> Option<civil::Time> {
    match text {
        "noon" => return civil::Time::new(12, 0, 0, 0).ok(),
        "midnight" => return Some(civil::Time::midnight()),
        _ => {}
    }
    let halves = [("am", 0), ("pm", 12)].into_iter();
    match halves.filter_map(|(half, hours)| Some((text.strip_suffix(half)?, hours))).next() {
        Some((clock, hours)) => {
            let minutes = if clock.contains(':') { "" } else { ":00" };
            let time = time_of_24_hours(&format!("{clock}{minutes}"))?;
            // The hours count 12, 1, 2 … 11 in each half of the day.
            (1..=12).contains(&time.hour()).then(|| time.with().hour(time.hour() % 12 + hours).build().ok())?
        }
        None => time_of_24_hours(text),
    }
}

fn time_of_24_hours(text: &str) -> Option<civil::Time> {
    let (clock, fraction) = text.split_once('.').map_or((text, None), |(clock, fraction)| (clock, Some(fraction)));
    let mut parts = clock.split(':');
    let (hour, minute, second) = (parts.next()?, parts.next()?, parts.next());
    if parts.next().is_some() || hour.is_empty() || hour.len() > 2 || minute.len() != 2 {
        return None;
    }
    let (second, nanos) = match (second, fraction) {
        (None, None) => (0, 0),
        (None, Some(_)) => return None,
        (Some(second), _) if second.len() != 2 => return None,
        (Some(second), fraction) => (digits::<i8>(second)?, fraction.map_or(Some(0), nano_fraction)?),
    };
    let second = if second == 60 { 59 } else { second };
    civil::Time::new(digits(hour)?, digits(minute)?, second, i32::try_from(nanos).ok()?).ok()
}

/// Splits `Z`, `UTC`, `GMT`, `+01:00`, `+0100` or `-05` from the end of a time of day.
pub(super) fn split_offset(text: &str) -> Option<(&str, Option<Offset>)> {
    if let Some(clock) = ["z", "utc", "gmt"].into_iter().find_map(|utc| text.strip_suffix(utc)) {
        return Some((clock.trim_end(), Some(Offset::UTC)));
    }
    let Some(at) = text.find(['+', '-']) else {
        return Some((text, None));
    };
    let (clock, offset) = text.split_at(at);
    let (sign, offset) = if let Some(ahead) = offset.strip_prefix('+') { (1, ahead) } else { (-1, &offset[1..]) };
    let (hours, minutes) = match offset.len() {
        2 => (offset, "00"),
        4 if offset.is_ascii() => offset.split_at(2),
        5 => offset.split_once(':')?,
        _ => return None,
    };
    let (hours, minutes): (i32, i32) = (digits(hours)?, digits(minutes)?);
    if hours > 23 || minutes > 59 {
        return None;
    }
    Some((clock.trim_end(), Some(Offset::from_seconds(sign * (hours * 3_600 + minutes * 60)).ok()?)))
}
