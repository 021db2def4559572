//! The configuration file of `run`: TOML, every flag under its own name; a flag on the command line wins.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Context as _;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

use super::Usage;
use super::classes::{ClassTable, Retention};
use super::feed::FeedFormat;
use super::run::{Percent, Speed};
use crate::budget::MemorySize;

/// What a configuration file may hold.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(super) struct File {
    pub(super) socket: Option<PathBuf>,
    pub(super) verbose: Option<u8>,
    pub(super) quiet: Option<bool>,
    #[serde(deserialize_with = "one_or_many")]
    pub(super) interface: Vec<String>,
    pub(super) filter: Option<String>,
    pub(super) snaplen: Option<u32>,
    #[serde(deserialize_with = "text_or_number")]
    pub(super) memory: Option<MemorySize>,
    pub(super) workers: Option<u32>,
    #[serde(deserialize_with = "text_or_number")]
    pub(super) compression_cpu: Option<Percent>,
    pub(super) promiscuous: Option<bool>,
    pub(super) no_promiscuous: Option<bool>,
    pub(super) replay: Option<PathBuf>,
    #[serde(deserialize_with = "text_or_number")]
    pub(super) speed: Option<Speed>,
    pub(super) no_drop_privileges: Option<bool>,
    pub(super) user: Option<String>,
    pub(super) pcap_over_ip: Option<SocketAddr>,
    pub(super) pcap_over_ip_past: Option<String>,
    pub(super) pcap_over_ip_format: Option<FeedFormat>,
    pub(super) retention: Retention,
    pub(super) class: Vec<ClassTable>,
}

impl File {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// [`Usage`] that names the line and the key when something in it is not understood.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).map_err(|error| Usage::of(format_args!("{}: {error}", path.display())))
    }

    fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())
    }
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a text or a list of texts")]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(match OneOrMany::deserialize(deserializer)? {
        OneOrMany::One(one) => vec![one],
        OneOrMany::Many(many) => many,
    })
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a text or a number")]
enum TextOrNumber {
    Text(String),
    Whole(i64),
    Number(f64),
}

/// What a flag would understand, a number without quotes too.
fn text_or_number<'de, D: Deserializer<'de>, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: FromStr,
    T::Err: std::fmt::Display,
{
    let text = match TextOrNumber::deserialize(deserializer)? {
        TextOrNumber::Text(text) => text,
        TextOrNumber::Whole(number) => number.to_string(),
        TextOrNumber::Number(number) => number.to_string(),
    };
    text.parse().map(Some).map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_has_a_key() {
        let file = File::parse(
            r#"
            socket = "/tmp/s"
            interface = ["eth0", "eth1"]
            filter = "not port 22"
            snaplen = 256
            memory = "2%"
            workers = 2
            compression-cpu = 5
            promiscuous = true
            no-promiscuous = false
            replay = "big.pcap"
            speed = 2.5
            no-drop-privileges = true
            user = "nobody"
            pcap-over-ip = "127.0.0.1:57012"
            pcap-over-ip-past = "10m"
            pcap-over-ip-format = "pcapng"
            verbose = 1
            quiet = false
            [retention]
            alpha = 0.5
            "#,
        )
        .unwrap();
        assert_eq!((file.interface.len(), file.memory), (2, Some(MemorySize::Percent(2.0))));
        assert_eq!((file.speed, file.retention.alpha), (Some(Speed::Times(2.5)), Some(0.5)));
        assert_eq!(File::parse("interface = \"eth0\"").unwrap().interface, ["eth0"]);
        assert_eq!(File::parse("memory = 41943040").unwrap().memory, Some("40M".parse().unwrap()));
        assert_eq!(File::parse("speed = \"max\"").unwrap().speed, Some(Speed::Max));
    }

    #[test]
    fn a_mistake_is_told_with_line_and_key() {
        for (text, line, words) in [
            ("snaplen = 1\nbogus = 1\n", "line 2", "unknown field `bogus`"),
            ("\n\nmemory = \"40 bananas\"\n", "line 3", "try 40MiB"),
            ("snaplen = -1", "line 1", "snaplen"),
            ("interface = 5", "line 1", "expected a text or a list of texts"),
            ("[retention]\nalpha = 9.5", "line 2", "try 1.0"),
            ("[retention]\nbeta = 1", "line 2", "beta"),
            ("compression-cpu = 200", "line 1", "try 10"),
            ("speed = 0", "line 1", "max"),
            ("pcap-over-ip = \"localhost\"", "line 1", "pcap-over-ip"),
            ("pcap-over-ip-format = \"csv\"", "line 1", "pcap-nano"),
            ("filter = \"x", "line 1", "filter"),
        ] {
            let error = File::parse(text).unwrap_err();
            assert!(error.contains(line) && error.contains(words), "{text}: {error}");
        }
    }
}
