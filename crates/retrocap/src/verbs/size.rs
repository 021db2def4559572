//! `retrocap check --size`: estimates the memory that a load and a time to look back need.
//!
//! The model is that of docs/scaling.md. A first-in first-out ring of all memory for packets and sessions reaches back
//! `bytes / mean load`, and each part of a session reaches back a measured multiple of that. The model ignores
//! compression, because encrypted traffic does not compress.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde_json::json;

use base::time::{human_age, parse_duration};
use engine::budget::{ByteSize, Split};

/// Parts of a session: key, name, and how far back the part reaches in hundredths of a first-in first-out ring's reach.
/// The numbers are the means at 40 MiB in README.md, "How far back 40 MB reach".
const DEPTHS: [(&str, &str, u128); 4] = [
    ("start", "start of sessions", 2590),
    ("first_kb", "their first kilobyte", 1530),
    ("first_10kb", "their first 10 kB", 260),
    ("whole", "whole sessions", 116),
];
/// Mean bytes of a packet on the wire (IMIX, with preamble and gap), and nanoseconds that a worker at 70 % load takes
/// per packet.
const PACKET_BYTES: u64 = 378;
const PACKET_NS: u64 = 400;
/// The default time to look back: a day.
const AGE_DEFAULT: Duration = Duration::from_secs(24 * 3600);
/// Upper limits of plausible input.
const BITS_PER_S_MAX: u64 = 10_000_000_000_000;
const AGE_MAX: Duration = Duration::from_secs(10 * 366 * 24 * 3600);
const MIB: u64 = 1 << 20;

/// A mean load of both directions together, and a time to look back: `100Mbit/s,8h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    bits_per_s: u64,
    age: Duration,
}

/// An error that says how to write a [`Size`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a mean load, and how far back to look: try 100Mbit/s,8h or 1G,2d (without a unit, hours)")]
pub(crate) struct SizeUnreadable;

impl FromStr for Size {
    type Err = SizeUnreadable;

    fn from_str(text: &str) -> Result<Self, SizeUnreadable> {
        let (rate, age) = text.split_once(',').map_or((text, None), |(rate, age)| (rate, Some(age.trim())));
        let age = match age {
            None => Some(AGE_DEFAULT),
            Some(hours) if hours.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') => {
                parse_duration(&format!("{hours}h")).ok()
            }
            Some(age) => parse_duration(age).ok(),
        };
        let age = age.filter(|age| *age >= Duration::from_secs(1) && *age <= AGE_MAX);
        let bits_per_s = bits_per_s(rate.trim()).filter(|bits| (1..=BITS_PER_S_MAX).contains(bits));
        Ok(Self { bits_per_s: bits_per_s.ok_or(SizeUnreadable)?, age: age.ok_or(SizeUnreadable)? })
    }
}

/// Parses a rate in bits per second: `100M`, `100Mbit/s`, `1.5 Gbps`; `12MB/s` is bytes. Prefixes are powers of 1000.
fn bits_per_s(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(end);
    let unit = unit.trim_start();
    let prefix = unit.chars().next()?.to_ascii_lowercase();
    let scale: u64 = match prefix {
        'k' => 1_000,
        'm' => 1_000_000,
        'g' => 1_000_000_000,
        't' => 1_000_000_000_000,
        _ => return None,
    };
    let bits = match unit.get(1..)? {
        "" | "bit" | "bit/s" | "bits/s" | "bps" | "b/s" => 1,
        "B/s" | "Bps" => 8,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let fraction = format!("{fraction:0<6}");
    // Use at most six decimals, which is more than enough for a rate.
    let millionths = whole.parse::<u64>().ok()?.checked_mul(1_000_000)?;
    let millionths = millionths.checked_add(fraction.get(..6)?.parse().ok()?)?;
    u64::try_from(u128::from(millionths) * u128::from(scale) * bits / 1_000_000).ok()
}

/// Formats a load: `100 Mbit/s`.
struct Rate(u64);

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, name) = match self.0 {
            ..1_000_000 => (1_000, "kbit/s"),
            1_000_000..1_000_000_000 => (1_000_000, "Mbit/s"),
            _ => (1_000_000_000, "Gbit/s"),
        };
        let tenths = (u128::from(self.0) * 10 + unit / 2) / unit;
        match tenths % 10 {
            0 => write!(f, "{} {name}", tenths / 10),
            tenth => write!(f, "{}.{tenth} {name}", tenths / 10),
        }
    }
}

impl Size {
    /// Number of workers for this load.
    fn workers(self) -> u32 {
        let packets_per_s = self.bits_per_s / 8 / PACKET_BYTES;
        u32::try_from((packets_per_s * PACKET_NS).div_ceil(1_000_000_000)).unwrap_or(u32::MAX).clamp(1, 256)
    }

    /// How long a budget keeps a part of each session that reaches `hundredths` of a ring. `None` if the budget is too
    /// small.
    fn reach(self, budget_bytes: u64, hundredths: u128) -> Option<Duration> {
        let workers = self.workers();
        let split = Split::new(budget_bytes, workers, true).ok()?.compressing();
        let ring = u128::from(workers) * u128::from(split.store_bytes + split.sessions_bytes);
        let millis = ring * 8 * 1000 * hundredths / 100 / u128::from(self.bits_per_s);
        Some(Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX)))
    }

    /// The smallest budget in bytes, a multiple of 1 MiB, that keeps such a part for the requested time.
    fn budget_bytes(self, hundredths: u128) -> u64 {
        let enough = |mib: u64| self.reach(mib * MIB, hundredths).is_some_and(|reach| reach >= self.age);
        let (mut below, mut above) = (0, 1);
        while !enough(above) && above < u64::MAX / MIB / 2 {
            (below, above) = (above, above * 2);
        }
        while above - below > 1 {
            let middle = below + (above - below) / 2;
            if enough(middle) { above = middle } else { below = middle }
        }
        above * MIB
    }

    /// The estimate as text, with the reach of `memory_bytes`.
    pub(crate) fn text(self, memory_bytes: u64) -> String {
        let age = human_age(self.age);
        let start = self.budget_bytes(DEPTHS[0].2);
        let mut out = format!(
            "set memory = \"{}\" and workers = {} to keep the start of each session for {age} at a mean load of {}\n\n",
            setting_of(start),
            self.workers(),
            Rate(self.bits_per_s),
        );
        let headings =
            ["kept".to_owned(), format!("memory for {age}"), format!("{} reach back", ByteSize(memory_bytes))];
        let rows = DEPTHS.map(|(_, name, hundredths)| {
            let reach = self.reach(memory_bytes, hundredths).map_or_else(|| "-".to_owned(), human_age);
            [name.to_owned(), ByteSize(self.budget_bytes(hundredths)).to_string(), reach]
        });
        for [kept, needs, reach] in std::iter::once(headings).chain(rows) {
            out.push_str(&format!("{kept:<22}{needs:>20}{reach:>24}\n"));
        }
        out.push_str(
            "\nThis is an estimate by the model of docs/scaling.md, for a mix of sessions as on a campus, without what\n\
             compression adds. `retrocap status` shows what a recorder reaches with your traffic.\n",
        );
        out
    }

    /// The estimate as JSON.
    pub(crate) fn document(self, memory_bytes: u64) -> String {
        let depths = DEPTHS.map(|(key, _, hundredths)| {
            json!({
                "depth": key,
                "needed_bytes": self.budget_bytes(hundredths),
                "reach_s": self.reach(memory_bytes, hundredths).map(|reach| reach.as_secs()),
            })
        });
        let document = json!({
            "bits_per_s": self.bits_per_s,
            "wanted_s": self.age.as_secs(),
            "workers": self.workers(),
            "memory_bytes": memory_bytes,
            "depths": depths,
        });
        format!("{document}\n")
    }
}

/// A budget in the syntax of the configuration, rounded up.
fn setting_of(bytes: u64) -> String {
    let mib = bytes.div_ceil(MIB);
    if mib < 10 * 1024 { format!("{mib}M") } else { format!("{}G", mib.div_ceil(1024)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_and_a_time_are_read_as_people_write_them() {
        for (text, bits_per_s, seconds) in [
            ("100Mbit/s,8h", 100_000_000, 8 * 3600),
            ("100M", 100_000_000, 24 * 3600),
            ("1.5 Gbps, 2d", 1_500_000_000, 2 * 86_400),
            ("10G,0.5", 10_000_000_000, 1800),
            ("64kbit/s,30m", 64_000, 1800),
            ("12MB/s,1h30m", 96_000_000, 5400),
        ] {
            assert_eq!(text.parse(), Ok(Size { bits_per_s, age: Duration::from_secs(seconds) }), "{text}");
        }
        for text in
            ["", "100", "M", "8h", "100M,", "100M,0", "0M,8h", "100Mfoo", "100M,8x", "100T,1h", "1G,20000d", ",8h"]
        {
            assert_eq!(text.parse::<Size>(), Err(SizeUnreadable), "{text}");
        }
    }

    #[test]
    fn the_memory_it_names_is_enough_and_a_mebibyte_less_is_not() {
        for text in ["64k,1h", "1M,24h", "100M,8h", "1G,2d", "100G,10m"] {
            let size: Size = text.parse().unwrap();
            for (key, _, hundredths) in DEPTHS {
                let bytes = size.budget_bytes(hundredths);
                assert!(size.reach(bytes, hundredths).unwrap() >= size.age, "{text} {key}");
                assert!(size.reach(bytes - MIB, hundredths).is_none_or(|reach| reach < size.age), "{text} {key}");
            }
        }
    }

    /// The campus workload with 2 sessions/s is 87 kB/s. For it, `make retention` measured that a first-in first-out
    /// ring of 40 MiB reaches back 6.7 min.
    #[test]
    fn a_ring_reaches_as_far_as_was_measured() {
        let size = Size { bits_per_s: 87_000 * 8, age: AGE_DEFAULT };
        let ring = size.reach(40 * MIB, 100).unwrap().as_secs_f64() / 60.0;
        assert!((6.0..7.4).contains(&ring), "{ring} min");
    }

    #[test]
    fn workers_follow_the_load() {
        for (text, workers) in [("1M", 1), ("1G", 1), ("10G", 2), ("40G", 6), ("100G", 14)] {
            assert_eq!(text.parse::<Size>().unwrap().workers(), workers, "{text}");
        }
    }

    #[test]
    fn the_table_in_the_readme_is_what_it_prints() {
        let readme = include_str!("../../../../README.md");
        let rows: Vec<&str> =
            readme.lines().filter(|line| line.starts_with("| ") && line.contains("bit/s |")).collect();
        assert!(rows.len() >= 4, "{rows:?}");
        for row in rows {
            let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
            let expected = ["1h", "8h", "24h"].map(|age| {
                let size: Size = format!("{},{age}", cells[0]).parse().unwrap();
                ByteSize(size.budget_bytes(DEPTHS[0].2)).to_string()
            });
            assert_eq!(cells[1..], expected, "{row}");
        }
    }

    #[test]
    fn the_answer_comes_first_and_can_be_copied() {
        let size: Size = "100Mbit/s,8h".parse().unwrap();
        let text = size.text(1 << 30);
        let first = text.lines().next().unwrap();
        let setting = first.strip_prefix("set memory = \"").unwrap().split('"').next().unwrap();
        assert!(setting.parse::<ByteSize>().unwrap().bytes() >= size.budget_bytes(DEPTHS[0].2), "{text}");
        let document: serde_json::Value = serde_json::from_str(&size.document(1 << 30)).unwrap();
        assert_eq!(document["depths"][0]["needed_bytes"], size.budget_bytes(DEPTHS[0].2));
        assert_eq!((&document["wanted_s"], &document["workers"]), (&28_800.into(), &1.into()));
        assert!(setting_of(10 * 1024 * MIB) == "10G" && setting_of(MIB + 1) == "2M");
    }
}
