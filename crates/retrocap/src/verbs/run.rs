//! `retrocap run`: the recorder, in the foreground.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::LazyLock;
use std::time::Duration;

use clap::Args;

use crate::cli::{Common, Usage};
use crate::config::File;
use crate::machine;
use crate::verbs::certs;
use crate::verbs::feed::FeedFormat;
use crate::verbs::selection;
use daemon::{self, Config, PcapOverIp, Remote, Replay, SandboxMode};
use engine::budget::{ByteSize, MemorySize};
use serve::audit;
use serve::pcap_over_ip::Feed;
use serve::tls::{ClientRules, TlsFiles};

pub(crate) use daemon::Speed;

/// Where it is written down who reads when interfaces are recorded and nothing else is said: by a service manager's
/// service in the directory that it was given for logs, by root in the usual one. It is decided once, because root's rights
/// are given up.
static AUDIT_LOG: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
    let given = std::env::var_os("LOGS_DIRECTORY").filter(|given| !given.is_empty());
    let directory = given.and_then(|given| std::env::split_paths(&given).next());
    let directory = directory.or_else(|| is_root().then(|| "/var/log/retrocap".into()));
    directory.map(|directory| directory.join("audit.log"))
});

/// Record, and answer questions about the past until it is stopped.
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "\
Examples:
  sudo retrocap run                             all interfaces, 1% of the memory
  sudo retrocap run -i eth0 -m 1G not port 22   one interface, 1 GiB, without SSH
  sudo retrocap run --pcap-over-ip 127.0.0.1:57012    for `wireshark -k -i TCP@127.0.0.1:57012` too
  sudo retrocap run --pcap-over-ip 0.0.0.0:57012      over TLS, for `openssl s_client` elsewhere
  retrocap run --replay big.pcap --speed max --socket ./r.sock    a capture file instead

Under systemd a restart forgets nothing: what was recorded is handed on to the next recorder in memory, as long as the unit
has FileDescriptorStoreMax=.")]
pub(crate) struct Run {
    /// Record this interface; may be repeated [default: all]
    #[arg(short, long, value_name = "NAME")]
    interface: Vec<String>,
    /// Record only what matches this tcpdump expression
    #[arg(short, long, value_name = "EXPR")]
    filter: Option<String>,
    /// Bytes to keep of each packet; 0 for all of them [default: 0]
    #[arg(short, long, value_name = "BYTES")]
    snaplen: Option<u32>,
    /// Memory to use: a size, or a share of physical memory [default: 1%, at least 16 MiB]
    #[arg(short, long, value_name = "SIZE|PERCENT")]
    memory: Option<MemorySize>,
    /// Workers that share the load, each with its part of the memory [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    workers: Option<u32>,
    /// Share of one core for compression, 0 for none [default: 10]
    #[arg(long, value_name = "PERCENT")]
    compression_cpu: Option<Percent>,
    /// Never ask an interface for packets to other hosts, which is the default
    #[arg(short = 'p', long)]
    no_promiscuous: bool,
    /// Ask interfaces for packets to other hosts too
    #[arg(long, conflicts_with = "no_promiscuous")]
    promiscuous: bool,
    /// Read flags from this TOML file, again on SIGHUP; those given here win
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Record a capture file instead of interfaces, then go on serving; - is stdin
    #[arg(long, value_name = "FILE", conflicts_with = "interface")]
    replay: Option<PathBuf>,
    /// How fast to replay: 2 for twice the recorded pace, or max [default: 1]
    #[arg(long, value_name = "X|max")]
    speed: Option<Speed>,
    /// Make Community IDs with this seed, as Zeek and Suricata here do [default: 0]
    #[arg(long, value_name = "N")]
    community_id_seed: Option<u16>,
    /// Keep root's privileges
    #[arg(long)]
    no_drop_privileges: bool,
    /// What to do where the kernel lacks a part of the sandbox: required, best-effort or off [default: best-effort]
    #[arg(long, value_name = "MODE")]
    sandbox: Option<SandboxMode>,
    /// Become this user once everything is open [default: retrocap, where there is one]
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Serve packets as they come here (PCAP-over-IP): over plain TCP for every user of this host on a loopback address,
    /// as 127.0.0.1:57012; elsewhere over TLS, as --listen, for clients with the role packets
    #[arg(long, value_name = "ADDR:PORT", value_parser = address, help_heading = "PCAP-over-IP")]
    pcap_over_ip: Vec<SocketAddr>,
    /// Serve it over TLS on loopback addresses too
    #[arg(long, help_heading = "PCAP-over-IP")]
    pcap_over_ip_tls: bool,
    /// How much of the past comes first [default: 0s]
    #[arg(long, value_name = "DURATION", value_parser = selection::duration, help_heading = "PCAP-over-IP")]
    pcap_over_ip_past: Option<Duration>,
    /// In which format [default: pcap]
    #[arg(long, value_name = "FORMAT", help_heading = "PCAP-over-IP")]
    pcap_over_ip_format: Option<FeedFormat>,
    /// Serve other machines here too, over TLS: those with a certificate of the authority --ca; --cert and --key are the
    /// recorder's own [default: ca.pem, server.pem, server.key in /etc/retrocap/tls]
    #[arg(long, value_name = "ADDR:PORT", help_heading = "Other machines")]
    listen: Vec<String>,
    /// Serve every user of this host here, without encryption; loopback alone
    #[arg(long, value_name = "ADDR:PORT", help_heading = "Other machines")]
    listen_plain: Vec<String>,
    /// When it cannot be written down who reads: required refuses the read, best-effort serves it, off writes nothing
    /// [default: required with an audit log, otherwise off]
    #[arg(long, value_name = "POLICY", help_heading = "Audit log")]
    audit: Option<audit::Policy>,
    /// Write down here who reads which packets [default: /var/log/retrocap/audit.log when root or the service records
    /// interfaces, otherwise none]
    #[arg(long, value_name = "FILE", help_heading = "Audit log")]
    audit_log: Option<PathBuf>,
    /// Begin another file when this one is so large [default: 10MiB]
    #[arg(long, value_name = "SIZE", help_heading = "Audit log")]
    audit_log_size: Option<ByteSize>,
    /// Keep so many old files [default: 9]
    #[arg(long, value_name = "N", help_heading = "Audit log", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    audit_log_keep: Option<u32>,
    /// The filter as last arguments
    #[arg(value_name = "EXPR", conflicts_with = "filter", allow_negative_numbers = true)]
    expression: Vec<String>,
}

impl Run {
    /// Records until a signal ends it.
    pub(crate) fn run(self, common: &Common) -> anyhow::Result<()> {
        let file = self.config.as_deref().map(File::read).transpose()?.unwrap_or_default();
        let mut log = crate::terminal::log::start(level(common, &file));
        let ended = match self.config.clone() {
            None => daemon::run(self.config(common, file)?),
            Some(path) => {
                let (flags, common) = (self.clone(), common.clone());
                let config = self.config(&common, file)?;
                let mut reload = move || -> anyhow::Result<Config> {
                    let file = File::read(&path)?;
                    let level = level(&common, &file);
                    let config = flags.clone().config(&common, file)?;
                    log(level);
                    Ok(config)
                };
                daemon::run_reloading(config, Box::new(move || reload().map_err(|error| format!("{error:#}"))))
            }
        };
        ended.map_err(|error| match error {
            daemon::Error::Budget(_)
            | daemon::Error::Filter(_)
            | daemon::Error::Class(_)
            | daemon::Error::Speed(_)
            | daemon::Error::NotLoopback(_)
            | daemon::Error::NoCertificates => Usage::of(error),
            _ => error.into(),
        })
    }

    /// What runs without flags, by this file alone.
    pub(crate) fn of_file(path: &Path, common: &Common) -> anyhow::Result<Config> {
        let flags = Self { config: Some(path.to_owned()), ..Self::default() };
        flags.config(common, File::read(path)?)
    }

    /// Flags first, then the file, then what is usual.
    pub(crate) fn config(self, common: &Common, file: File) -> anyhow::Result<Config> {
        let words = match (self.filter, file.filter) {
            (Some(filter), _) => vec![filter],
            (None, Some(filter)) if self.expression.is_empty() => vec![filter],
            (None, _) => self.expression,
        };
        let interfaces = if self.interface.is_empty() { file.interface } else { self.interface };
        let speed = self.speed.or(file.speed);
        let replay = self.replay.or(file.replay.filter(|_| interfaces.is_empty()));
        if replay.is_none() && speed.is_some() {
            return Err(Usage::of("--speed is for a replay: add --replay big.pcap, or leave out --speed"));
        }
        let feeds = if self.pcap_over_ip.is_empty() { file.pcap_over_ip } else { self.pcap_over_ip };
        let tls = self.pcap_over_ip_tls || file.pcap_over_ip_tls == Some(true);
        let past = self.pcap_over_ip_past.or(file.pcap_over_ip_past);
        let feed_format = self.pcap_over_ip_format.or(file.pcap_over_ip_format);
        if feeds.is_empty() && (past.is_some() || feed_format.is_some() || self.pcap_over_ip_tls) {
            return Err(Usage::of("PCAP-over-IP is served nowhere: add --pcap-over-ip 127.0.0.1:57012"));
        }
        let past = past.unwrap_or_default();
        let (format, precision) = feed_format.unwrap_or_default().format();
        let promiscuous_file = file.promiscuous == Some(true) && file.no_promiscuous != Some(true);
        let remote = Remote {
            listen: addresses(if self.listen.is_empty() { file.listen } else { self.listen })?,
            listen_plain: addresses(if self.listen_plain.is_empty() { file.listen_plain } else { self.listen_plain })?,
            files: Some(TlsFiles {
                ca: common.ca.clone().or(file.ca).unwrap_or_else(|| Path::new(certs::DIRECTORY).join("ca.pem")),
                cert: common
                    .cert
                    .clone()
                    .or(file.cert)
                    .unwrap_or_else(|| Path::new(certs::DIRECTORY).join("server.pem")),
                key: common.key.clone().or(file.key).unwrap_or_else(|| Path::new(certs::DIRECTORY).join("server.key")),
            }),
            clients: ClientRules { listed: file.clients.into(), only_listed: file.only_listed.unwrap_or(false) },
            pcap_over_ip: PcapOverIp { listen: feeds, tls, feed: Feed { past, format, precision } },
        };
        // What root records of a host is not read unseen, unless somebody says so.
        let usual_log = || AUDIT_LOG.clone().filter(|_| replay.is_none());
        let log = self.audit_log.or(file.audit_log).or_else(usual_log);
        let policy = self.audit.or(file.audit);
        let policy = policy.unwrap_or(if log.is_some() { audit::Policy::Required } else { audit::Policy::Off });
        if log.is_none() && policy != audit::Policy::Off {
            return Err(Usage::of("where to write who reads? add --audit-log FILE, or leave out --audit"));
        }
        let audit = audit::Config {
            policy,
            path: log.unwrap_or_default(),
            size_max: self.audit_log_size.or(file.audit_log_size).map_or(audit::SIZE_DEFAULT, |size| size.0),
            keep: self.audit_log_keep.or(file.audit_log_keep).unwrap_or(audit::KEEP_DEFAULT),
        };
        Ok(Config {
            remote,
            audit,
            socket: common.socket.clone().or(file.socket).unwrap_or_else(Common::socket_default),
            interfaces: if replay.is_some() { Vec::new() } else { interfaces },
            filter: selection::expression(&words)?,
            snaplen: self.snaplen.or(file.snaplen).unwrap_or(0),
            memory_bytes: machine::budget_bytes(self.memory.or(file.memory))?,
            workers: self.workers.or(file.workers).unwrap_or(1).max(1),
            promiscuous: self.promiscuous || (promiscuous_file && !self.no_promiscuous),
            replay: replay.map(|path| Replay { path, speed: speed.unwrap_or_default() }),
            drop_privileges: !(self.no_drop_privileges || file.no_drop_privileges == Some(true)),
            user: self.user.or(file.user),
            compression_cpu: self.compression_cpu.or(file.compression_cpu).unwrap_or_default().0,
            sandbox: self.sandbox.or(file.sandbox).unwrap_or_default(),
            file: self.config,
            limits: file.limits.complete(),
            wanted: file.wanted,
            retention: file.retention.policy(),
            classes: file.classes,
            community_id_seed: self.community_id_seed.or(file.community_id_seed).unwrap_or(0),
        })
    }
}

/// Reads where PCAP-over-IP is served.
pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("cannot read the address {text:?}: try 127.0.0.1:57012 or [::1]:57012"))
}

/// Reads addresses with a port.
fn addresses(texts: Vec<String>) -> anyhow::Result<Vec<SocketAddr>> {
    let read = |text: &String| {
        text.parse().map_err(|_| {
            Usage::of(format_args!("cannot listen on {text:?}: try 0.0.0.0:57443, [::]:57443 or 127.0.0.1:57080"))
        })
    };
    texts.iter().map(read).collect()
}

#[cfg(unix)]
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[cfg(not(unix))]
fn is_root() -> bool {
    false
}

/// How much is logged: as `-v` and `-q` say, or the file.
fn level(common: &Common, file: &File) -> &'static str {
    let quiet = common.quiet || (common.verbose == 0 && file.quiet == Some(true));
    match (quiet, common.verbose.max(file.verbose.unwrap_or(0))) {
        (true, _) => "error",
        (false, 0) => "info",
        (false, 1) => "debug",
        (false, _) => "trace",
    }
}

/// A share of one core, 0 to 100 percent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Percent(pub(crate) f64);

impl Default for Percent {
    fn default() -> Self {
        Self(10.0)
    }
}

impl FromStr for Percent {
    type Err = String;

    /// Reads `10`, `10%` or `2.5`.
    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.trim().strip_suffix('%').unwrap_or(text.trim());
        match number.parse::<f64>() {
            Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(Self(percent)),
            _ => Err(format!("cannot read the share {text:?}: it is within 0 to 100, try 10 or 0")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use engine::store::retention::Policy;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        run: Run,
    }

    fn config(arguments: &str, file: &str) -> anyhow::Result<Config> {
        let line = Line::try_parse_from(std::iter::once("run").chain(arguments.split_whitespace()))?;
        let file = File::parse(file).map_err(|mistakes| anyhow::anyhow!("{mistakes:?}"))?;
        line.run.config(&line.common, file)
    }

    #[test]
    fn flags_win_over_the_file() {
        let file = "interface = \"eth0\"\nfilter = \"port 1\"\nsnaplen = 64\nmemory = \"32M\"\nworkers = 2\n\
                    promiscuous = true\nuser = \"nobody\"\nsocket = \"/tmp/file\"\ncompression-cpu = 0\n\
                    no-drop-privileges = true\n[retention]\nalpha = 2.0\n";
        let of_file = config("", file).unwrap();
        assert_eq!((&of_file.interfaces[..], of_file.filter.as_deref()), (&["eth0".to_owned()][..], Some("port 1")));
        assert_eq!((of_file.snaplen, of_file.memory_bytes, of_file.workers), (64, 32 << 20, 2));
        assert_eq!(
            (of_file.promiscuous, of_file.drop_privileges, of_file.retention),
            (true, false, Policy::steepness(2.0))
        );

        let of_flags =
            config("-p -i lo -m 64M -s 0 --workers 1 --user root --socket /tmp/flag not port 2", file).unwrap();
        assert_eq!(
            (&of_flags.interfaces[..], of_flags.filter.as_deref()),
            (&["lo".to_owned()][..], Some("not port 2"))
        );
        assert_eq!((of_flags.snaplen, of_flags.memory_bytes, of_flags.workers), (0, 64 << 20, 1));
        assert_eq!((of_flags.promiscuous, of_flags.user.as_deref()), (false, Some("root")));
        assert_eq!(of_flags.socket, PathBuf::from("/tmp/flag"));
    }

    #[test]
    fn what_is_usual() {
        let usual = config("-m 40M", "").unwrap();
        assert_eq!((usual.interfaces.len(), usual.filter, usual.replay, usual.workers), (0, None, None, 1));
        assert!(usual.drop_privileges && !usual.promiscuous);
        assert_eq!((usual.compression_cpu, usual.retention), (10.0, Policy::default()));
    }

    #[test]
    fn a_replay_has_a_pace() {
        let speed = |arguments: &str| config(arguments, "").unwrap().replay.unwrap().speed;
        assert_eq!(speed("-m 40M --replay x"), Speed::Recorded);
        assert_eq!(speed("-m 40M --replay x --speed 2.5"), Speed::Times(2.5));
        assert_eq!(speed("-m 40M --replay x --speed max"), Speed::Max);
        for (arguments, words) in [
            ("--speed max", "--replay"),
            ("--replay x --speed 0", "try 2"),
            ("--replay x -i lo", "cannot be used"),
            ("prot 1", "try"),
        ] {
            let error = config(arguments, "").unwrap_err().to_string();
            assert!(error.contains(words), "{arguments}: {error}");
        }
    }
}
