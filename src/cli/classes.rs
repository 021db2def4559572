//! `[[class]]` and `[retention]` of the configuration file.

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

use crate::budget::ByteSize;
use crate::judge::Class;
use crate::store::retention::Policy;

/// One `[[class]]`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct ClassTable {
    name: String,
    filter: String,
    #[serde(default = "one", deserialize_with = "number")]
    weight: f64,
    #[serde(default, deserialize_with = "size")]
    cutoff: Option<ByteSize>,
    #[serde(default, deserialize_with = "size")]
    reserve: Option<ByteSize>,
}

fn one() -> f64 {
    1.0
}

impl From<ClassTable> for Class {
    fn from(table: ClassTable) -> Self {
        Self {
            name: table.name,
            filter: table.filter,
            weight: table.weight,
            cutoff_bytes: table.cutoff.map(ByteSize::bytes),
            reserve_bytes: table.reserve.map_or(0, ByteSize::bytes),
        }
    }
}

/// How old sessions are shortened.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(super) struct Retention {
    keep: Option<Keep>,
    /// See [`Policy::steepness`].
    #[serde(deserialize_with = "alpha")]
    pub(super) alpha: Option<f64>,
}

/// What to keep longest, in words.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum Keep {
    /// Starts of sessions, as long as possible.
    Starts,
    /// Starts for long, whole sessions as long as a ring of the same size.
    Balanced,
    /// Whole sessions, longer than starts would allow.
    Whole,
}

impl Keep {
    fn alpha(self) -> f64 {
        match self {
            Self::Starts => 1.5,
            Self::Balanced => 1.0,
            Self::Whole => 0.5,
        }
    }
}

impl Retention {
    /// The policy it describes.
    pub(super) fn policy(&self) -> Policy {
        let alpha = self.alpha.or(self.keep.map(Keep::alpha));
        alpha.map_or_else(Policy::default, Policy::steepness)
    }
}

/// With more than this, what makes room is nearly always the deepest packet there is.
const ALPHA_MAX: f64 = 8.0;

fn alpha<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    let alpha = f64::deserialize(deserializer)?;
    if (0.0..=ALPHA_MAX).contains(&alpha) {
        return Ok(Some(alpha));
    }
    Err(D::Error::custom(format_args!("alpha is {alpha}, not within 0 to {ALPHA_MAX}: try 1.0 or 0.5")))
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a number")]
enum Number {
    Whole(i64),
    Real(f64),
}

/// A number, with or without a decimal point.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    match Number::deserialize(deserializer)? {
        Number::Whole(whole) => i32::try_from(whole).map(f64::from).map_err(D::Error::custom),
        Number::Real(real) => Ok(real),
    }
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a size, as in \"4M\", or a number of bytes")]
enum Size {
    Text(String),
    Bytes(u64),
}

fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ByteSize>, D::Error> {
    match Size::deserialize(deserializer)? {
        Size::Text(text) => text.parse().map(Some).map_err(D::Error::custom),
        Size::Bytes(bytes) => Ok(Some(ByteSize(bytes))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::Classes;

    #[derive(Debug, Deserialize)]
    struct Part {
        #[serde(default)]
        class: Vec<ClassTable>,
        #[serde(default)]
        retention: Retention,
    }

    fn classes(text: &str) -> Result<Vec<Class>, String> {
        let part: Part = toml::from_str(text).map_err(|error| error.to_string())?;
        Ok(part.class.into_iter().map(Into::into).collect())
    }

    #[test]
    fn a_class_as_it_is_written() {
        let text = "[[class]]\nname = \"plc\"\nfilter = \"port 502\"\nweight = 20\nreserve = \"4M\"\n\
                    [[class]]\nname = \"backup\"\nfilter = \"port 873\"\nweight = 0.5\ncutoff = \"64K\"\n";
        let classes = classes(text).unwrap();
        assert_eq!((classes[0].weight, classes[0].cutoff_bytes, classes[0].reserve_bytes), (20.0, None, 4 << 20));
        assert_eq!((classes[1].weight, classes[1].cutoff_bytes, classes[1].reserve_bytes), (0.5, Some(64 << 10), 0));
    }

    #[test]
    fn a_mistake_says_what_would_be_right() {
        for (text, words) in [
            ("[[class]]\nname = \"x\"", "filter"),
            ("[[class]]\nname = \"x\"\nfilter = \"ip\"\ncutof = 1", "cutof"),
            ("[[class]]\nname = \"x\"\nfilter = \"ip\"\ncutoff = \"1 banana\"", "try 40MiB"),
            ("[[class]]\nname = \"x\"\nfilter = \"ip\"\nweight = \"big\"", "expected a number"),
            ("[retention]\nkeep = \"all\"", "starts"),
            ("[retention]\nalpha = -1.0", "try 1.0"),
        ] {
            let error = classes(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
        for (text, words) in [
            ("[[class]]\nname = \"x\"\nfilter = \"prt 5\"", "class \"x\": cannot compile"),
            ("[[class]]\nname = \"x\"\nfilter = \"ip\"\nweight = 0", "10 keeps ten times as long"),
            ("[[class]]\nname = \"x\"\nfilter = \"ip\"\n[[class]]\nname = \"x\"\nfilter = \"arp\"", "two classes"),
            ("[[class]]\nname = \"x\"\nfilter = \"ip\"\nreserve = \"20M\"", "reserve less"),
        ] {
            let error = Classes::new(&classes(text).unwrap(), 30 << 20).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn the_shipped_classes_can_be_used() {
        let classes = classes(include_str!("../../packaging/classes.toml")).unwrap();
        let names: Vec<&str> = classes.iter().map(|class| class.name.as_str()).collect();
        assert_eq!(names, ["industrial", "dns", "backup", "encrypted-bulk"]);
        Classes::new(&classes, 30 << 20).unwrap();
    }

    #[test]
    fn steepness_in_words() {
        let policy = |text: &str| toml::from_str::<Part>(text).unwrap().retention.policy();
        assert_eq!(policy(""), Policy::default());
        assert_eq!(policy("[retention]\nkeep = \"balanced\""), Policy::default());
        assert_eq!(policy("[retention]\nkeep = \"whole\""), Policy::steepness(0.5));
        assert_eq!(policy("[retention]\nkeep = \"starts\"\nalpha = 2.0"), Policy::steepness(2.0));
    }
}
