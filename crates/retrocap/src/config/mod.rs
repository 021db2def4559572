//! The configuration file of `run`: TOML, every flag under its own name; a flag on the command line wins.
//!
//! All that is known of a key stands in one place, [`keys`]: what it means, its unit and default, and how it is read.
//! The documented sample is printed from there.

mod keys;
mod schema;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context as _;

use crate::cli::Usage;
use crate::verbs::feed::FeedFormat;
use crate::verbs::run::{Percent, Speed};
use daemon::SandboxMode;
use engine::budget::{ByteSize, MemorySize};
use engine::judge::Class;
use engine::store::retention::Policy;
use serve::tls::ClientRule;
use serve::{RetentionTarget, audit};

pub(crate) use schema::Mistake;

/// What a configuration file may hold.
#[derive(Debug, Default)]
pub(crate) struct File {
    pub(crate) socket: Option<PathBuf>,
    pub(crate) verbose: Option<u8>,
    pub(crate) quiet: Option<bool>,
    pub(crate) interface: Vec<String>,
    pub(crate) filter: Option<String>,
    pub(crate) snaplen: Option<u32>,
    pub(crate) memory: Option<MemorySize>,
    pub(crate) workers: Option<u32>,
    pub(crate) compression_cpu: Option<Percent>,
    pub(crate) promiscuous: Option<bool>,
    pub(crate) no_promiscuous: Option<bool>,
    pub(crate) replay: Option<PathBuf>,
    pub(crate) speed: Option<Speed>,
    pub(crate) no_drop_privileges: Option<bool>,
    pub(crate) user: Option<String>,
    pub(crate) sandbox: Option<SandboxMode>,
    pub(crate) pcap_over_ip: Vec<SocketAddr>,
    pub(crate) pcap_over_ip_tls: Option<bool>,
    pub(crate) pcap_over_ip_past: Option<Duration>,
    pub(crate) pcap_over_ip_format: Option<FeedFormat>,
    pub(crate) community_id_seed: Option<u16>,
    pub(crate) retention: Retention,
    pub(crate) classes: Vec<Class>,
    pub(crate) limits: Limits,
    pub(crate) wanted: RetentionTarget,
    pub(crate) listen: Vec<String>,
    pub(crate) listen_plain: Vec<String>,
    pub(crate) ca: Option<PathBuf>,
    pub(crate) cert: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
    pub(crate) clients: Vec<ClientRule>,
    pub(crate) only_listed: Option<bool>,
    pub(crate) audit: Option<audit::Policy>,
    pub(crate) audit_log: Option<PathBuf>,
    pub(crate) audit_log_size: Option<ByteSize>,
    pub(crate) audit_log_keep: Option<u32>,
}

/// How old sessions are shortened.
#[derive(Debug, Default)]
pub(crate) struct Retention {
    pub(crate) keep: Option<Keep>,
    /// See [`Policy::steepness`].
    pub(crate) alpha: Option<f64>,
}

/// What to keep longest, in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
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

impl FromStr for Keep {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "starts" => Ok(Self::Starts),
            "balanced" => Ok(Self::Balanced),
            "whole" => Ok(Self::Whole),
            _ => Err(format!("cannot keep {word:?}: there are starts, balanced and whole")),
        }
    }
}

impl Retention {
    /// The policy it describes.
    pub(crate) fn policy(&self) -> Policy {
        let alpha = self.alpha.or(self.keep.map(Keep::alpha));
        alpha.map_or_else(Policy::default, Policy::steepness)
    }
}

/// See [`Limits`](serve::Limits).
#[derive(Debug, Default)]
pub(crate) struct Limits {
    pub(crate) connections: Option<usize>,
    pub(crate) remote_connections: Option<usize>,
    pub(crate) handshake_timeout: Option<Duration>,
    pub(crate) head_timeout: Option<Duration>,
    pub(crate) stall_timeout: Option<Duration>,
    pub(crate) queue_timeout: Option<Duration>,
}

impl Limits {
    /// These, and what is usual for those that are not given.
    pub(crate) fn complete(&self) -> serve::Limits {
        let usual = serve::Limits::default();
        serve::Limits {
            connections_max: self.connections.unwrap_or(usual.connections_max),
            remote_connections_max: self.remote_connections.unwrap_or(usual.remote_connections_max),
            handshake_timeout: self.handshake_timeout.unwrap_or(usual.handshake_timeout),
            head_timeout: self.head_timeout.unwrap_or(usual.head_timeout),
            stall_timeout: self.stall_timeout.unwrap_or(usual.stall_timeout),
            queue_timeout: self.queue_timeout.unwrap_or(usual.queue_timeout),
            ..usual
        }
    }
}

impl File {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// [`Usage`] with all that is not understood, each with its line and key.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).map_err(|mistakes| {
            let lines = mistakes.iter().map(|mistake| format!("{}: {mistake}", path.display()));
            Usage::of(lines.collect::<Vec<_>>().join("\nretrocap: "))
        })
    }

    pub(crate) fn parse(text: &str) -> Result<Self, Vec<Mistake>> {
        schema::read(text, keys::SECTIONS)
    }
}

/// A file with every key, documented, as a comment.
pub(crate) fn sample() -> String {
    schema::sample(keys::SECTIONS)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The sample with all its keys in force.
    pub(crate) fn sample_in_force() -> String {
        sample()
            .lines()
            .map(|line| format!("{}\n", line.strip_prefix('#').filter(|l| !l.starts_with(' ')).unwrap_or(line)))
            .collect()
    }

    #[test]
    fn the_sample_is_the_one_in_the_repository() {
        let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("packaging/retrocap.toml");
        let there = std::fs::read_to_string(path).unwrap();
        assert!(there == sample(), "write it anew: retrocap check --sample > packaging/retrocap.toml");
    }

    #[test]
    fn the_sample_is_all_comment_and_covers_every_key() {
        let empty = sample();
        assert!(empty.lines().all(|line| line.is_empty() || line.starts_with(['#', '['])), "{empty}");
        File::parse(&empty).unwrap();
        let whole = sample_in_force();
        let file = File::parse(&whole).unwrap_or_else(|mistakes| panic!("{mistakes:?}\n{whole}"));
        let shown = format!("{file:#?}");
        // Every field was given something: none of a key that the sample does not have.
        assert!(!shown.contains("None") && !shown.contains("[]"), "{shown}");
        for section in keys::SECTIONS {
            for key in section.keys {
                assert!(key.about.contains("Default: "), "{}: say what is usual", key.name);
                assert!(key.about.is_ascii() && key.about.ends_with('.'), "{}", key.name);
            }
        }
    }

    #[test]
    fn every_flag_has_a_key() {
        let file = File::parse(
            r#"
            interface = ["eth0", "eth1"]
            memory = "2%"
            speed = 2.5
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
        assert_eq!(File::parse("[retention]\nalpha = 2").unwrap().retention.alpha, Some(2.0));
        let limits = File::parse("[limits]\nstall-timeout = \"2m\"\nconnections = 9").unwrap().limits.complete();
        assert_eq!((limits.stall_timeout, limits.connections_max), (Duration::from_secs(120), 9));
    }

    #[test]
    fn a_mistake_is_told_with_line_and_key() {
        for (text, line, words) in [
            ("snaplen = 1\nsnaplem = 1\n", "line 2", "no key snaplem; did you mean snaplen?"),
            ("snaplen = 1\nbogus = 1\n", "line 2", "no key bogus; --sample"),
            ("alpha = 1.0", "line 1", "no key alpha here; it belongs into [retention]"),
            ("[retention]\nmemory = \"1%\"", "line 2", "it belongs before the first [section]"),
            ("[retension]\nalpha = 1.0", "line 1", "no section [retension]; did you mean [retention]?"),
            ("retention = 1", "line 1", "[retention] is a section"),
            ("memory = { size = 1 }", "line 1", "memory: expected a text or a number, not a table"),
            ("\n\nmemory = \"40 bananas\"\n", "line 3", "memory: cannot read the size \"40 bananas\""),
            ("snaplen = -1", "line 1", "snaplen: -1 is not within 0 to"),
            ("snaplen = \"64\"", "line 1", "snaplen: expected a whole number, not a text"),
            ("workers = 0", "line 1", "workers: 0 is not within 1 to 256"),
            ("interface = 5", "line 1", "expected a text or a list of texts"),
            ("interface = [\"eth0\", 5]", "line 1", "expected a text or a list of texts"),
            ("promiscuous = \"yes\"", "line 1", "expected true or false"),
            ("[retention]\nalpha = 9.5", "line 2", "try 1.0"),
            ("[retention]\nbeta = 1", "line 2", "no key beta in [retention]"),
            ("compression-cpu = 200", "line 1", "try 10"),
            ("speed = 0", "line 1", "max"),
            ("sandbox = \"strict\"", "line 1", "best-effort"),
            ("pcap-over-ip = \"localhost\"", "line 1", "pcap-over-ip: cannot read the address \"localhost\": try 127"),
            ("pcap-over-ip-format = \"csv\"", "line 1", "pcap-nano"),
            ("pcap-over-ip-past = 5", "line 1", "pcap-over-ip-past: cannot read the duration \"5\""),
            ("[limits]\nstall-timeout = 5", "line 2", "stall-timeout: cannot read the duration \"5\""),
            ("[limits]\nstall-timeout = \"0s\"", "line 2", "stall-timeout: it is at least 10ms"),
            ("filter = \"x", "line 1", "string"),
            ("audit = \"yes\"", "line 1", "try required, best-effort or off"),
            ("audit-log-keep = 0", "line 1", "not within 1 to"),
            ("[[client]]\nname = \"a\"\nroles = [\"admin\"]", "line 3", "try status, flows"),
            ("[[client]]\nname = \"a\"", "line 1", "roles is missing in this [[client]]"),
            ("snaplen = 1\nsnaplen = 2", "line 2", "duplicate key"),
        ] {
            let mistakes = File::parse(text).unwrap_err();
            let told = mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
            assert!(told.contains(line) && told.contains(words), "{text}: {told}");
        }
    }

    #[test]
    fn all_mistakes_are_told_at_once_in_the_order_of_their_lines() {
        let mistakes = File::parse("workers = 0\nbogus = 1\nsocket = 1\n").unwrap_err();
        assert_eq!(mistakes.iter().map(|mistake| mistake.line).collect::<Vec<_>>(), [1, 2, 3]);
    }

    /// What the sample says of reloading is what happens.
    #[test]
    fn every_key_says_whether_it_is_reloaded() {
        use daemon::reload::{ReloadEffect, compare};
        let common = crate::cli::Common::default();
        let config = |text: &str| {
            let file = File::parse(text).unwrap();
            crate::verbs::run::Run::default().config(&common, file).unwrap()
        };
        // Values that are not those by default; with what they need beside them.
        for (section, text) in [
            ("", "interface = \"eth0\""),
            ("", "filter = \"ip\""),
            ("", "snaplen = 5"),
            ("", "memory = \"64M\""),
            ("", "workers = 2"),
            ("", "compression-cpu = 5"),
            ("", "promiscuous = true"),
            ("", "replay = \"x\""),
            ("", "socket = \"/tmp/x\""),
            ("", "user = \"nobody\""),
            ("", "no-drop-privileges = true"),
            ("", "sandbox = \"off\""),
            ("", "pcap-over-ip = \"127.0.0.1:57012\""),
            ("", "pcap-over-ip-tls = true\npcap-over-ip = \"127.0.0.1:57012\""),
            ("", "pcap-over-ip-past = \"5m\"\npcap-over-ip = \"127.0.0.1:57012\""),
            ("", "pcap-over-ip-format = \"pcapng\"\npcap-over-ip = \"127.0.0.1:57012\""),
            ("", "community-id-seed = 5"),
            ("", "listen = \"127.0.0.1:1\""),
            ("", "listen-plain = \"127.0.0.1:1\""),
            ("", "ca = \"x.pem\""),
            ("", "cert = \"x.pem\""),
            ("", "key = \"x.key\""),
            ("", "audit-log = \"/tmp/x\""),
            ("", "audit-log-size = \"1M\""),
            ("", "audit-log-keep = 1"),
            ("client", "name = \"laptop\"\nroles = []"),
            ("retention", "keep = \"whole\""),
            ("retention", "alpha = 2.0"),
            ("limits", "connections = 5"),
            ("limits", "remote-connections = 5"),
            ("limits", "handshake-timeout = \"5m\""),
            ("limits", "head-timeout = \"5m\""),
            ("limits", "stall-timeout = \"5m\""),
            ("limits", "queue-timeout = \"5m\""),
        ] {
            let whole = match section {
                "" => text.to_owned(),
                "client" => format!("[[client]]\n{text}"),
                _ => format!("[{section}]\n{text}"),
            };
            // By itself it would leave the audit log out.
            let beside = if text.starts_with("replay") { "audit-log = \"/tmp/x\"\n" } else { "" };
            let (old, new) = (config(beside), config(&format!("{beside}{whole}")));
            let changed: Vec<_> = compare(&old, &new).into_iter().filter(|(.., is)| *is).collect();
            let [(_, when, _)] = changed[..] else { panic!("{text}: {changed:?}") };
            let name = text.split(' ').next().unwrap();
            let keys = keys::SECTIONS.iter().filter(|of| of.name == section).flat_map(|of| of.keys);
            let key = keys.into_iter().find(|key| key.name == name).unwrap();
            let says = if when == ReloadEffect::Now { "Reloaded." } else { "Takes a restart." };
            assert!(key.about.ends_with(says), "{name}: {}", key.about);
        }
        // And the sample's defaults are the defaults: only what has none is left out.
        let mut sample = sample_in_force();
        // Nor are there classes or clients by default.
        let many = sample.find("[[class]]").unwrap()..sample.find("[limits]").unwrap();
        sample.replace_range(many, "");
        let without = [
            "interface",
            "filter",
            "replay",
            "speed",
            "user",
            "listen",
            "listen-plain",
            "audit",
            "audit-log",
            "pcap-over-ip",
            "pcap-over-ip-past",
            "pcap-over-ip-format",
        ];
        let given = |line: &&str| !without.iter().any(|name| line.starts_with(&format!("{name} = ")));
        let text = sample.lines().filter(given).collect::<Vec<_>>().join("\n");
        assert_eq!(config(&text), config(""));
    }

    #[test]
    fn a_class_as_it_is_written() {
        let text = "[[class]]\nname = \"plc\"\nfilter = \"port 502\"\nweight = 20\nreserve = \"4M\"\n\
                    [[class]]\nname = \"backup\"\nfilter = \"port 873\"\nweight = 0.5\ncutoff = \"64K\"\n";
        let classes = File::parse(text).unwrap().classes;
        assert_eq!((classes[0].weight, classes[0].cutoff_bytes, classes[0].reserve_bytes), (20.0, None, 4 << 20));
        assert_eq!((classes[1].weight, classes[1].cutoff_bytes, classes[1].reserve_bytes), (0.5, Some(64 << 10), 0));
    }

    #[test]
    fn a_mistake_in_a_class_says_what_would_be_right() {
        use engine::judge::Classes;
        for (text, words) in [
            ("[[class]]\nname = \"x\"", "filter"),
            ("[[class]]\nname = \"x\"\nfilter = \"ip\"\ncutof = 1", "cutof"),
            ("[[class]]\nname = \"x\"\nfilter = \"ip\"\ncutoff = \"1 banana\"", "try 40MiB"),
            ("[[class]]\nname = \"x\"\nfilter = \"ip\"\nweight = \"big\"", "expected a number"),
            ("[retention]\nkeep = \"all\"", "starts"),
            ("[retention]\nalpha = -1.0", "try 1.0"),
        ] {
            let error = File::parse(text).unwrap_err()[0].text.clone();
            assert!(error.contains(words), "{text}: {error}");
        }
        for (text, words) in [
            ("[[class]]\nname = \"x\"\nfilter = \"prt 5\"", "class \"x\": cannot compile"),
            ("[[class]]\nname = \"x\"\nfilter = \"ip\"\nweight = 0", "10 keeps ten times as long"),
            ("[[class]]\nname = \"x\"\nfilter = \"ip\"\n[[class]]\nname = \"x\"\nfilter = \"arp\"", "two classes"),
            ("[[class]]\nname = \"x\"\nfilter = \"ip\"\nreserve = \"20M\"", "reserve less"),
        ] {
            let error = Classes::new(&File::parse(text).unwrap().classes, 30 << 20).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn the_shipped_classes_can_be_used() {
        let classes = File::parse(include_str!("../../../../packaging/classes.toml")).unwrap().classes;
        let names: Vec<&str> = classes.iter().map(|class| class.name.as_str()).collect();
        assert_eq!(names, ["industrial", "dns", "backup", "encrypted-bulk"]);
        engine::judge::Classes::new(&classes, 30 << 20).unwrap();
    }

    #[test]
    fn steepness_in_words() {
        let policy = |text: &str| File::parse(text).unwrap().retention.policy();
        assert_eq!(policy(""), Policy::default());
        assert_eq!(policy("[retention]\nkeep = \"balanced\""), Policy::default());
        assert_eq!(policy("[retention]\nkeep = \"whole\""), Policy::steepness(0.5));
        assert_eq!(policy("[retention]\nkeep = \"starts\"\nalpha = 2.0"), Policy::steepness(2.0));
    }
}
