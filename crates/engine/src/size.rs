//! Sizes in text form: a number of bytes, or a share of physical memory.
//!
//! The units `K`, `M`, `G` and `T` are powers of 1024, with or without `i` and `B`.

use std::fmt;
use std::str::FromStr;

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

/// A memory size: a number of bytes, or a percentage of physical memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MemorySize {
    /// A number of bytes.
    Bytes(ByteSize),
    /// A percentage of physical memory, above 0 and at most 100.
    Percent(f64),
}

/// Why a size cannot be parsed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// The text is not a number of bytes.
    #[error("cannot read the size {0:?}: try 40MiB or 1.5G")]
    Bytes(String),
    /// The text is neither a number of bytes nor a percentage.
    #[error("cannot read the size {0:?}: try 40MiB, or 1% of physical memory")]
    Memory(String),
    /// The percentage is out of range.
    #[error("the share {0:?} is not above 0% and at most 100%: try 1% or 40MiB")]
    Percentage(String),
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

impl ByteSize {
    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    fn read(text: &str) -> Option<Self> {
        let text = text.trim();
        let number_end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(number_end);
        let unit = match unit.trim_start().to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kb" | "ki" | "kib" => KIB,
            "m" | "mb" | "mi" | "mib" => MIB,
            "g" | "gb" | "gi" | "gib" => GIB,
            "t" | "tb" | "ti" | "tib" => TIB,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u64>().ok())?;
        let scale = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
        let fraction = u128::from(digits(fraction)?) * u128::from(unit) / scale;
        let total = u128::from(digits(whole)?) * u128::from(unit) + fraction;
        u64::try_from(total).ok().map(Self)
    }
}

impl FromStr for ByteSize {
    type Err = SizeError;

    /// Parses `40MiB`, `40M`, `1.5G`, `64k` or `123456`.
    fn from_str(text: &str) -> Result<Self, SizeError> {
        Self::read(text).ok_or_else(|| SizeError::Bytes(text.to_owned()))
    }
}

/// Formats in the largest unit that does not exceed the size, with one decimal unless that is 0: `40 MiB`, `1.5 GiB`,
/// `123 B`.
impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, name) = match self.0 {
            ..KIB => return write!(f, "{} B", self.0),
            KIB..MIB => (KIB, "KiB"),
            MIB..GIB => (MIB, "MiB"),
            GIB..TIB => (GIB, "GiB"),
            TIB.. => (TIB, "TiB"),
        };
        let tenths = (u128::from(self.0) * 10 + u128::from(unit / 2)) / u128::from(unit);
        match tenths % 10 {
            0 => write!(f, "{} {name}", tenths / 10),
            tenth => write!(f, "{}.{tenth} {name}", tenths / 10),
        }
    }
}

impl MemorySize {
    /// The number of bytes on a machine with `physical` bytes of memory.
    pub fn resolve(self, physical: u64) -> u64 {
        match self {
            Self::Bytes(size) => size.0,
            Self::Percent(percent) => {
                // Integers with a resolution of a millionth of a percent, because `physical` can exceed the exact range
                // of `f64`.
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within 0 to 10⁸")]
                let millionths = (percent.clamp(0.0, 100.0) * 1e6).round() as u64;
                let bytes = u128::from(physical) * u128::from(millionths) / 100_000_000;
                u64::try_from(bytes).unwrap_or(physical)
            }
        }
    }
}

impl FromStr for MemorySize {
    type Err = SizeError;

    /// Parses the sizes that [`ByteSize`] parses, and percentages: `1%`, `0.5 %`.
    fn from_str(text: &str) -> Result<Self, SizeError> {
        let Some(percent) = text.trim().strip_suffix('%') else {
            return ByteSize::read(text).map(Self::Bytes).ok_or_else(|| SizeError::Memory(text.to_owned()));
        };
        let percent = percent.trim_end();
        if percent.is_empty() || !percent.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
            return Err(SizeError::Memory(text.to_owned()));
        }
        match percent.parse::<f64>() {
            Ok(share) if share > 0.0 && share <= 100.0 => Ok(Self::Percent(share)),
            Ok(_) => Err(SizeError::Percentage(text.to_owned())),
            Err(_) => Err(SizeError::Memory(text.to_owned())),
        }
    }
}

impl fmt::Display for MemorySize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(size) => size.fmt(f),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_as_people_write_them() {
        for (text, bytes, shown) in [
            ("0", 0, "0 B"),
            ("123456", 123_456, "120.6 KiB"),
            ("512B", 512, "512 B"),
            ("64K", 64 << 10, "64 KiB"),
            ("64 kib", 64 << 10, "64 KiB"),
            ("40MiB", 40 << 20, "40 MiB"),
            ("40M", 40 << 20, "40 MiB"),
            ("40mb", 40 << 20, "40 MiB"),
            ("1.5G", 3 << 29, "1.5 GiB"),
            (" 2.25 GiB ", 9 << 28, "2.3 GiB"),
            ("1T", 1 << 40, "1 TiB"),
            ("0.5", 0, "0 B"),
            ("18446744073709551615", u64::MAX, "16777216 TiB"),
        ] {
            let size: ByteSize = text.parse().unwrap_or_else(|e| panic!("{e}"));
            assert_eq!((size.0, size.to_string().as_str()), (bytes, shown), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_size_is_said_with_examples() {
        for text in
            ["", "M", "1.5.5M", "-1M", "+1M", "40 bananas", "1%", "99999999999999999999", "16777216T", ".5G", "1e3"]
        {
            assert_eq!(text.parse::<ByteSize>(), Err(SizeError::Bytes(text.to_owned())));
        }
        for text in ["0%", "100.1%", "1000000%"] {
            assert_eq!(text.parse::<MemorySize>(), Err(SizeError::Percentage(text.to_owned())));
        }
        for text in ["%", "-1%", "nan%", "inf%", "1%%", "1e1%", "x"] {
            assert_eq!(text.parse::<MemorySize>(), Err(SizeError::Memory(text.to_owned())));
        }
        assert_eq!(
            "40 bananas".parse::<ByteSize>().unwrap_err().to_string(),
            "cannot read the size \"40 bananas\": try 40MiB or 1.5G"
        );
        assert_eq!(
            "0%".parse::<MemorySize>().unwrap_err().to_string(),
            "the share \"0%\" is not above 0% and at most 100%: try 1% or 40MiB"
        );
    }

    #[test]
    fn a_share_is_of_physical_memory() {
        for (text, physical, bytes, shown) in [
            ("1%", 8 << 30, 85_899_345, "1%"),
            ("0.5 %", 1000 << 20, 5 << 20, "0.5%"),
            ("100%", u64::MAX, u64::MAX, "100%"),
            ("40M", 1, 40 << 20, "40 MiB"),
        ] {
            let size: MemorySize = text.parse().unwrap_or_else(|e| panic!("{e}"));
            assert_eq!((size.resolve(physical), size.to_string().as_str()), (bytes, shown), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_gives_an_answer(text in "\\PC{0,30}", number in "[0-9.]{0,40}[kKmMgGtTiIbB%]{0,3}") {
            let _ = (text.parse::<ByteSize>(), text.parse::<MemorySize>());
            let _ = (number.parse::<ByteSize>(), number.parse::<MemorySize>());
        }
    }
}
