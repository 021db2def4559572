//! One value of a setting, from a configuration file or from the command line.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use toml::de::DeValue;

use base::time;

/// A value as the user wrote it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    /// From a file.
    Toml(&'a DeValue<'a>),
    /// From the command line: once for each time that the flag was given.
    Flag(&'a [OsString]),
    /// From the table.
    Default(&'a str),
}

impl Value<'_> {
    fn wrong_type(self, expected: &str) -> String {
        let found = match self {
            Self::Toml(DeValue::String(_)) | Self::Default(_) => "a text",
            Self::Toml(DeValue::Integer(_) | DeValue::Float(_)) => "a number",
            Self::Toml(DeValue::Boolean(_)) => "true or false",
            Self::Toml(DeValue::Datetime(_)) => "a time",
            Self::Toml(DeValue::Array(_)) => "a list",
            Self::Toml(DeValue::Table(_)) => "a table",
            Self::Flag(_) => "several values, or text that is not UTF-8",
        };
        format!("expected {expected}, not {found}")
    }

    /// The only value of a flag, or a default. `None` for a value from a file.
    fn word(&self) -> Option<Result<&str, String>> {
        match self {
            Self::Toml(_) => None,
            Self::Default(text) => Some(Ok(text)),
            Self::Flag([word]) => Some(word.to_str().ok_or_else(|| self.wrong_type("a text"))),
            Self::Flag(_) => Some(Err(self.wrong_type("one value"))),
        }
    }

    pub(super) fn text(self) -> Result<String, String> {
        match (self.word(), self) {
            (Some(word), _) => word.map(str::to_owned),
            (None, Self::Toml(DeValue::String(text))) => Ok(text.to_string()),
            _ => Err(self.wrong_type("a text")),
        }
    }

    /// A path need not be UTF-8 on the command line.
    pub(super) fn path(self) -> Result<PathBuf, String> {
        match self {
            Self::Flag([path]) => Ok(path.into()),
            _ => self.text().map(PathBuf::from),
        }
    }

    /// A text, or a list of texts.
    pub(super) fn texts(self) -> Result<Vec<String>, String> {
        let texts = match self {
            Self::Flag(words) => words.iter().map(|word| word.to_str().map(str::to_owned)).collect(),
            Self::Default(text) => Some(vec![text.to_owned()]),
            Self::Toml(DeValue::String(text)) => Some(vec![text.to_string()]),
            Self::Toml(DeValue::Array(list)) => {
                list.iter().map(|one| one.get_ref().as_str().map(str::to_owned)).collect()
            }
            Self::Toml(_) => None,
        };
        texts.ok_or_else(|| self.wrong_type("a text or a list of texts"))
    }

    pub(super) fn switch(self) -> Result<bool, String> {
        let switch = match (self.word(), self) {
            (Some(word), _) => word?.parse().ok(),
            (None, Self::Toml(value)) => value.as_bool(),
            _ => None,
        };
        switch.ok_or_else(|| self.wrong_type("true or false"))
    }

    pub(super) fn whole<T: TryFrom<u64>>(self, range: RangeInclusive<u64>) -> Result<T, String> {
        let (text, radix) = match (self.word(), self) {
            (Some(word), _) => (word?.to_owned(), 10),
            (None, Self::Toml(DeValue::Integer(number))) => (number.as_str().to_owned(), number.radix()),
            _ => return Err(self.wrong_type("a whole number")),
        };
        let value = u64::from_str_radix(&text.replace('_', ""), radix).ok();
        let value = value.filter(|value| range.contains(value)).and_then(|value| T::try_from(value).ok());
        value.ok_or_else(|| format!("{text} is not within {} to {}", range.start(), range.end()))
    }

    pub(super) fn number(self, range: RangeInclusive<f64>, example: &str) -> Result<f64, String> {
        let text = match (self.word(), self) {
            (Some(word), _) => word?.to_owned(),
            (None, Self::Toml(DeValue::Float(number))) => number.as_str().to_owned(),
            (None, Self::Toml(DeValue::Integer(number))) => number.as_str().to_owned(),
            _ => return Err(self.wrong_type("a number")),
        };
        let number = text.replace('_', "").parse().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| {
            let limits = match (*range.start(), *range.end()) {
                (f64::MIN, f64::MAX) => "a usable number".to_owned(),
                (start, end) => format!("within {start} to {end}"),
            };
            format!("it is {text}, not {limits}: try {example}")
        })
    }

    /// A type that has a textual form of its own. In a file, a number may stand without quotes.
    pub(super) fn parse<T: FromStr<Err: std::fmt::Display>>(self) -> Result<T, String> {
        let text = match (self.word(), self) {
            (Some(word), _) => word?.to_owned(),
            (None, Self::Toml(DeValue::String(text))) => text.to_string(),
            (None, Self::Toml(DeValue::Integer(number))) => number.as_str().replace('_', ""),
            (None, Self::Toml(DeValue::Float(number))) => number.as_str().replace('_', ""),
            _ => return Err(self.wrong_type("a text or a number")),
        };
        text.parse().map_err(|error: T::Err| error.to_string())
    }

    /// A time span with its unit.
    pub(super) fn duration(self, minimum: Duration) -> Result<Duration, String> {
        let text = match (self.word(), self) {
            (Some(word), _) => word?.to_owned(),
            (None, Self::Toml(DeValue::String(text))) => text.to_string(),
            // A number without its unit could mean seconds or minutes.
            (None, Self::Toml(DeValue::Integer(number))) => {
                return Err(format!("cannot read the duration {:?}: try \"{0}s\"", number.as_str()));
            }
            _ => return Err(self.wrong_type("a duration like \"10s\"")),
        };
        let duration = time::parse_duration(&text).map_err(|error| error.to_string())?;
        if duration < minimum {
            return Err(format!("it is at least {minimum:?}, not {text:?}"));
        }
        Ok(duration)
    }

    /// An address with its port; `example` shows how it is written.
    pub(super) fn address(self, example: &str) -> Result<SocketAddr, String> {
        let text = self.text()?;
        text.parse().map_err(|_| format!("cannot read the address {text:?}: try {example}"))
    }

    /// Addresses with their ports; `example` shows how one is written.
    pub(super) fn addresses(self, example: &str) -> Result<Vec<SocketAddr>, String> {
        let read = |text: &String| {
            text.parse().map_err(|_| format!("cannot read the address {text:?}: try {example} or [::1]:57012"))
        };
        self.texts()?.iter().map(read).collect()
    }
}
