//! Every setting of the recorder: the one place that names it, its type, default, documentation, and when a change
//! takes effect.
//!
//! To add a setting, add a row here and use its field. The flag of `retrocap run`, the key of the configuration file,
//! its place in `packaging/retrocap.toml` (`retrocap check --sample`) and reloading follow from the row.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::row::{DefaultValue, Flag, Reload, Row, Section, settings};
use super::types::{FeedFormat, Keep, Percent, Speed, SpoolSessions, SpoolSize, UnlistedClients};
use super::value::Value;
use crate::sandbox::SandboxMode;
use api::{Role, Roles};
use engine::budget::{ByteSize, MemorySize};
use engine::judge::Class;
use serve::audit;
use serve::tls::ClientRule;

use DefaultValue::{Is, Unset};

/// Maximum steepness. With steeper curves, the deepest packet is nearly always evicted.
const ALPHA_MAX: f64 = 8.0;
/// Minimum of a horizon.
const HORIZON_MIN: Duration = Duration::from_secs(1);
/// A page that is looked at asks every five seconds at least.
const PAGE_IDLE_MIN: Duration = Duration::from_secs(10);
/// Minimum of a timeout. With a shorter one, no client of a busy machine succeeds.
const TIMEOUT_MIN: Duration = Duration::from_millis(10);

/// The headings of the file, in the order of the sample.
pub(super) const SECTIONS: &[Section<Settings>] = &[
    section(
        "",
        "Retrocap's configuration. Every key is shown with its default, or with an example where there is none; remove the \
         # in front of a key to change it. `retrocap check --config FILE` checks a file. A running recorder reads its file \
         again on SIGHUP (systemctl reload retrocap). A flag on the command line wins over its key.",
    ),
    section("retention", "How old sessions are shortened."),
    Section {
        name: "class",
        about: "A class of sessions with its own weight, cutoff or reserve; write it once for each class. A session belongs \
                to the first class whose filter its first packet matches, or could have matched.",
        add: Some(|settings| settings.classes.push(UNNAMED_CLASS)),
        required: &["name", "filter"],
    },
    Section {
        name: "client",
        about: "A client on another machine; write it once for each client. Its roles replace those in its \
                certificate; the first entry that matches applies. roles = [] locks the client out, and closes its connections \
                at the reload.",
        add: Some(|settings| {
            settings.clients.push(ClientRule { name: String::new(), serial: None, roles: Roles::default() });
        }),
        required: &["name", "roles"],
    },
    section(
        "health",
        "How far back the history must reach. When younger packets had to be evicted, /v1/health reports degraded, for the \
         reason horizon_short.",
    ),
    section("limits", "How much load the service accepts."),
];

const fn section(name: &'static str, about: &'static str) -> Section<Settings> {
    Section { name, about, add: None, required: &[] }
}

settings! {
    /// Interfaces to record, by name. An interface that appears later is recorded from then on.
    "" "interface" => interface: Vec<String> = Unset("all interfaces", r#"["eth0", "eth1"]"#), Now,
        Some(Flag::many("NAME").short('i').excludes("replay")), |value| value.texts();
    /// Record only packets that match this tcpdump expression.
    "" "filter" => filter: Option<String> = Unset("every packet", r#""not port 22""#), Now,
        Some(Flag::value("EXPR").short('f')), |value| value.text().map(Some);
    /// Bytes to keep of each packet; 0 for all of them.
    "" "snaplen" => snaplen: u32 = Is("0"), Restart,
        Some(Flag::value("BYTES").short('s')), |value| value.whole(0..=u64::from(u32::MAX));
    /// Memory budget: a size, or a percentage of the memory that the recorder may use, but then at least 16 MiB. K, M
    /// and G (or KiB, MiB and GiB) are powers of 1024; a bare number is bytes. A percentage is of the machine's memory,
    /// or of the cgroup's limit where that is lower.
    "" "memory" => memory: Option<MemorySize> = Is("1%"), Restart,
        Some(Flag::value("SIZE|PERCENT").short('m')), |value| value.parse().map(Some);
    /// Threads that share the packets, each with its part of the memory; 1 to 256.
    "" "workers" => workers: u32 = Is("1"), Restart,
        Some(Flag::value("N")), |value| value.whole(1..=256);
    /// Share of one core for compression, in percent; 0 for no compression.
    "" "compression-cpu" => compression_cpu: Percent = Is("10"), Restart,
        Some(Flag::value("PERCENT")), |value| value.parse();
    /// Set the interfaces to promiscuous mode, to record packets for other hosts too.
    "" "promiscuous" => promiscuous: bool = Is("false"), Restart,
        Some(Flag::SWITCH.excludes("no-promiscuous")), |value| value.switch();
    /// Never set an interface to promiscuous mode; this wins over the key promiscuous. It is tcpdump's -p.
    "" "no-promiscuous" => no_promiscuous: bool = Is("false"), Restart,
        Some(Flag::SWITCH.short('p').excludes("promiscuous")), |value| value.switch();
    /// Record a capture file instead of interfaces, then continue to answer queries; - is stdin.
    "" "replay" => replay: Option<PathBuf> = Unset("none", r#""/var/tmp/big.pcap""#), Restart,
        Some(Flag::value("FILE").excludes("interface")), |value| value.path().map(Some);
    /// How fast to replay: 2 for twice the recorded pace, or max.
    "" "speed" => speed: Speed = Is("1"), Restart,
        Some(Flag::value("X|max")), |value| value.parse();
    /// Also keep full packets on disk, in this directory. Retrocap creates it if it is missing. It must be on a local
    /// disk.
    "" "spool" => spool: Option<PathBuf> = Unset("nowhere", r#""/var/lib/retrocap/spool""#), Restart,
        Some(Flag::value("DIR").heading("Spool")), |value| value.path().map(Some);
    /// Limit of the spool: the size of its own files, or a percentage of its file system, which everything on it counts
    /// towards.
    "" "spool-size" => spool_size: SpoolSize = Is("90%"), Restart,
        Some(Flag::value("SIZE|PERCENT").heading("Spool")), |value| value.parse();
    /// How long every packet should stay on disk; a duration with its unit. If packets had to be removed earlier,
    /// /v1/health reports degraded.
    "" "spool-keep" => spool_keep: Option<Duration> = Unset("as long as there is room", r#""7d""#), Restart,
        Some(Flag::value("DURATION").heading("Spool")), |value| value.duration(HORIZON_MIN).map(Some);
    /// Compress the files of the spool: 0 for plain pcapng, or a level of gzip from 1 to 9. Any gzip decoder can read
    /// the files.
    "" "spool-compression" => spool_compression: u32 = Is("0"), Restart,
        Some(Flag::value("LEVEL").heading("Spool")), |value| value.whole(0..=9);
    /// Encrypt new files of the spool with the first key in this file; all of its keys decrypt. A key is a line of 64
    /// hexadecimal digits (openssl rand -hex 32). credential:NAME names a credential that systemd passes. It is read
    /// before privileges are dropped.
    "" "spool-key" => spool_key: Option<PathBuf> = Unset("files are not encrypted", r#""/etc/retrocap/spool.key""#), Restart,
        Some(Flag::value("FILE").heading("Spool")), |value| value.path().map(Some);
    /// Log of sessions in the directory of the spool: a Parquet file for each hour, which databases read and flows answers
    /// from. compact leaves out the Community ID, which takes more than half of the bytes.
    "" "spool-sessions" => spool_sessions: SpoolSessions = Is("full"), Restart,
        Some(Flag::value("KIND").heading("Spool").words(SpoolSessions::WORDS)), |value| value.parse();
    /// Path of the Unix socket of the service. Retrocap creates its directory if it is missing. Members of the group
    /// retrocap may connect.
    "" "socket" => socket: PathBuf = Is("/run/retrocap/retrocap.sock"), Restart,
        None, |value| value.path();
    /// Switch to this user once everything is open.
    "" "user" => user: Option<String> = Unset("retrocap, where there is such a user", r#""retrocap""#), Restart,
        Some(Flag::value("NAME")), |value| value.text().map(Some);
    /// Keep the privileges of root. Use it for debugging only.
    "" "no-drop-privileges" => no_drop_privileges: bool = Is("false"), Restart,
        Some(Flag::SWITCH), |value| value.switch();
    /// What to do if the kernel lacks a part of the sandbox (seccomp, Landlock): required refuses to start, best-effort
    /// continues and reports what is missing, off restricts nothing.
    "" "sandbox" => sandbox: SandboxMode = Is("best-effort"), Restart,
        Some(Flag::value("MODE").words(&["required", "best-effort", "off"])), |value| value.parse();
    /// Seed of Community IDs, the same as that of Zeek and Suricata here; 0 to 65535. It applies to the IDs in
    /// listings, and to queries without --community-id-seed.
    "" "community-id-seed" => community_id_seed: u16 = Is("0"), Now,
        Some(Flag::value("N")), |value| value.whole(0..=65_535);
    /// Serve a live stream of packets at these addresses (PCAP-over-IP). At a loopback address, every user of this host
    /// is served without encryption. At other addresses, clients are served over TLS if they have a certificate of the
    /// authority in ca and the role packets.
    "" "pcap-over-ip" => pcap_over_ip: Vec<SocketAddr> = Unset("nowhere", r#"["127.0.0.1:57012", "[::]:57013"]"#), Restart,
        Some(Flag::many("ADDR:PORT").heading("PCAP-over-IP")), |value| value.addresses("127.0.0.1:57012");
    /// Use TLS for PCAP-over-IP on loopback addresses too.
    "" "pcap-over-ip-tls" => pcap_over_ip_tls: bool = Is("false"), Restart,
        Some(Flag::SWITCH.heading("PCAP-over-IP")), |value| value.switch();
    /// How much of the past a PCAP-over-IP stream begins with; a duration with its unit.
    "" "pcap-over-ip-past" => pcap_over_ip_past: Duration = Is("0s"), Restart,
        Some(Flag::value("DURATION").heading("PCAP-over-IP")), |value| value.duration(Duration::ZERO);
    /// Format of PCAP-over-IP: pcap, pcap-nano or pcapng.
    "" "pcap-over-ip-format" => pcap_over_ip_format: FeedFormat = Is("pcap"), Restart,
        Some(Flag::value("FORMAT").heading("PCAP-over-IP").words(FeedFormat::WORDS)), |value| value.parse();
    /// Serve other machines at these addresses, over TLS. A client needs a certificate of the authority in ca.
    "" "listen" => listen: Vec<SocketAddr> = Unset("nowhere", r#"["[::]:57443"]"#), Restart,
        Some(Flag::many("ADDR:PORT").heading("Other machines")), |value| value.addresses("0.0.0.0:57443");
    /// Serve every user of this host at these loopback addresses, without encryption.
    "" "listen-plain" => listen_plain: Vec<SocketAddr> = Unset("nowhere", r#"["127.0.0.1:57080"]"#), Restart,
        Some(Flag::many("ADDR:PORT").heading("Other machines")), |value| value.addresses("127.0.0.1:57080");
    /// Serve the web page at this loopback address from the start. Without it, the page has a port that opens when somebody
    /// asks for a link with `retrocap page`. A browser needs such a link either way.
    "" "page" => page: Option<SocketAddr> = Unset("a free port, which `retrocap page` opens", r#""127.0.0.1:57081""#), Restart,
        Some(Flag::value("ADDR:PORT").heading("Page").alone("127.0.0.1:57081")), |value| value.address("127.0.0.1:57081").map(Some);
    /// Time without a use after which a link to the page, or the session of a browser, ends; a duration with its unit.
    "" "page-idle" => page_idle: Duration = Is("1h"), Restart, None, |value| value.duration(PAGE_IDLE_MIN);
    /// Folder with a dissector for the page, wiregasm 1.9 (npm @goodtools/wiregasm): its files wiregasm.js, wiregasm.wasm
    /// and wiregasm.data. The page then shows packets as Wireshark does. Everybody who reaches the page gets these files.
    "" "page-dissector" => page_dissector: Option<PathBuf> = Unset("none", r#""/usr/share/retrocap/wiregasm""#), Restart,
        Some(Flag::value("DIR").heading("Page")), |value| value.path().map(Some);
    /// Certificate of the authority whose clients are served, a PEM file. A reload reads ca, cert and key again, if the
    /// recorder's user may read them.
    "" "ca" => ca: PathBuf = Is("/etc/retrocap/tls/ca.pem"), Now, None, |value| value.path();
    /// Certificate of the recorder, a PEM file.
    "" "cert" => cert: PathBuf = Is("/etc/retrocap/tls/server.pem"), Now, None, |value| value.path();
    /// Private key of that certificate, a PEM file.
    "" "key" => key: PathBuf = Is("/etc/retrocap/tls/server.key"), Now, None, |value| value.path();
    /// The roles of clients without a `[[client]]` entry: certified grants those in their certificates. nothing grants
    /// none, so that removing a `[[client]]` entry removes the client's access.
    "" "unlisted-clients" => unlisted_clients: UnlistedClients = Is("certified"), Now, None, |value| value.parse();
    /// What to do if the audit log cannot be written: required refuses the read, best-effort serves it. off writes no
    /// audit log.
    "" "audit" => audit: Option<audit::Policy> =
        Unset("required with an audit log, otherwise off", r#""required""#), Restart,
        Some(Flag::value("POLICY").heading("Audit log").words(&["required", "best-effort", "off"])),
        |value| value.parse().map(Some);
    /// File of the audit log, which records who read which packets.
    "" "audit-log" => audit_log: Option<PathBuf> = Unset(
        "/var/log/retrocap/audit.log when the service or root records interfaces, otherwise none",
        r#""/var/log/retrocap/audit.log""#), Restart,
        Some(Flag::value("FILE").heading("Audit log")), |value| value.path().map(Some);
    /// Maximum size of an audit log file. At this size, Retrocap starts a new file.
    "" "audit-log-size" => audit_log_size: ByteSize = Is("10MiB"), Restart,
        Some(Flag::value("SIZE").heading("Audit log")), |value| value.parse();
    /// Old audit log files to keep; 1 to 10000.
    "" "audit-log-keep" => audit_log_keep: u32 = Is("9"), Restart,
        Some(Flag::value("N").heading("Audit log")), |value| value.whole(1..=10_000);
    /// Name the processes of local sessions: a second process scans the sockets of this host. It keeps the capabilities
    /// CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH. Without them, it finds only users.
    "" "processes" => processes: bool = Is("false"), Restart,
        Some(Flag::SWITCH.excludes("replay")), |value| value.switch();
    /// Private SSH key that signs exports that are sealed (`get --seal`) and, once a day, the audit log: Ed25519 or
    /// ECDSA (P-256), without a passphrase. It is read before privileges are dropped.
    "" "evidence-key" => evidence_key: Option<PathBuf> = Unset("nothing is signed", r#""/etc/retrocap/evidence_key""#), Restart,
        Some(Flag::value("FILE").heading("Evidence")), |value| value.path().map(Some);
    /// Processor time for sealing the record, in percent of what the workers take; 0.05 % of one core in any case. What
    /// cannot be sealed within that before it is evicted is counted. A recorder seals the rest when it stops.
    "" "evidence-cpu" => evidence_cpu: Percent = Is("3"), Restart,
        Some(Flag::value("PERCENT").heading("Evidence")), |value| value.parse();
    /// Verbosity of the log: 0 for important messages, 1 for details, 2 for everything.
    "" "verbose" => verbose: u8 = Is("0"), Now, None, |value| value.whole(0..=2);
    /// Log errors only.
    "" "quiet" => quiet: bool = Is("false"), Now, None, |value| value.switch();

    /// What to keep longest: starts of sessions, whole sessions, or balanced.
    "retention" "keep" => retention_keep: Keep = Is("balanced"), Now, None, |value| value.parse();
    /// How much the depth in a session counts against a packet; 0 to 8. At 0, only age counts: whole sessions stay
    /// longer, and starts of sessions shorter. At 2, hardly anything but starts is kept. alpha overrides keep.
    "retention" "alpha" => retention_alpha: Option<f64> = Unset("set by keep", "1.0"), Now, None,
        |value| value.number(0.0..=ALPHA_MAX, "1.0 or 0.5").map(Some);

    /// How far back the first packets of sessions should reach; a duration with its unit.
    "health" "starts" => health_starts: Option<Duration> = Unset("not checked", r#""6h""#), Now, None,
        |value| value.duration(HORIZON_MIN).map(Some);
    /// How far back every packet should be retained; a duration with its unit.
    "health" "whole" => health_whole: Option<Duration> = Unset("not checked", r#""1m""#), Now, None,
        |value| value.duration(HORIZON_MIN).map(Some);

    /// Maximum number of connections to the socket. Beyond it, connections without a request are closed. 1 to 100000.
    "limits" "connections" => limits_connections: usize = Is("256"), Now, None, |value| value.whole(1..=100_000);
    /// Maximum number of connections to each address for other machines. 1 to 100000.
    "limits" "remote-connections" => limits_remote_connections: usize = Is("64"), Now, None,
        |value| value.whole(1..=100_000);
    /// How long a client may take for its part of a TLS handshake; a duration with its unit.
    "limits" "handshake-timeout" => limits_handshake_timeout: Duration = Is("10s"), Now, None,
        |value| value.duration(TIMEOUT_MIN);
    /// How long a client may take for the head of a request; a duration with its unit.
    "limits" "head-timeout" => limits_head_timeout: Duration = Is("10s"), Now, None,
        |value| value.duration(TIMEOUT_MIN);
    /// The time over which a client has to read at least 8 KiB/s of its answer on average; a duration with its unit.
    "limits" "stall-timeout" => limits_stall_timeout: Duration = Is("60s"), Now, None,
        |value| value.duration(TIMEOUT_MIN);
    /// How long a query waits for other queries to end; a duration with its unit.
    "limits" "queue-timeout" => limits_queue_timeout: Duration = Is("5s"), Now, None,
        |value| value.duration(TIMEOUT_MIN);

    lists {
        /// The classes of sessions.
        classes: Vec<Class>,
        /// The clients on other machines.
        clients: Vec<ClientRule>,
        /// The file that is read at a reload; its directory stays readable.
        file: Option<PathBuf>,
    }
}

/// A class before its keys are read.
const UNNAMED_CLASS: Class = Class {
    name: String::new(),
    filter: String::new(),
    weight: 1.0,
    cutoff_bytes: None,
    reserve_bytes: 0,
    important: None,
};

/// A key of the section `[[class]]`, which applies to the last element of the list.
macro_rules! class {
    ($name:literal, $about:literal, $default:expr, |$class:ident, $value:ident| $read:expr) => {
        Row {
            section: "class",
            name: $name,
            about: $about,
            default: $default,
            reload: Reload::Restart,
            flag: None,
            read: |settings, $value| {
                let $class = settings.classes.last_mut().ok_or("it belongs in a [[class]]")?;
                $read;
                Ok(())
            },
            reset: |settings| settings.classes.clear(),
            differs: |one, other| one.classes != other.classes,
            adopt: |to, from| to.classes.clone_from(&from.classes),
        }
    };
}

/// A key of the section `[[client]]`.
macro_rules! client {
    ($name:literal, $about:literal, $default:expr, |$client:ident, $value:ident| $read:expr) => {
        Row {
            section: "client",
            name: $name,
            about: $about,
            default: $default,
            reload: Reload::Now,
            flag: None,
            read: |settings, $value| {
                let $client = settings.clients.last_mut().ok_or("it belongs in a [[client]]")?;
                $read;
                Ok(())
            },
            reset: |settings| settings.clients.clear(),
            differs: |one, other| one.clients != other.clients,
            adopt: |to, from| to.clients.clone_from(&from.clients),
        }
    };
}

/// The keys of sections that may occur several times.
const LIST_ROWS: &[Row<Settings>] = &[
    class!("name", "Name in listings.", Unset("none, it must be given", r#""industrial""#), |class, value| class
        .name =
        value.text()?),
    class!(
        "filter",
        "A tcpdump expression.",
        Unset("none, it must be given", r#""port 502 or port 2404""#),
        |class, value| class.filter = value.text()?
    ),
    class!(
        "weight",
        "How long its packets stay, relative to others: 20 for twenty times as long, 0.1 for a tenth.",
        Is("1"),
        |class, value| class.weight = value.number(f64::MIN..=f64::MAX, "20 or 0.1")?
    ),
    class!(
        "cutoff",
        "Bytes of each session to keep at most, a size. Later packets are dropped at once, and counted.",
        Unset("no limit", r#""256K""#),
        |class, value| class.cutoff_bytes = Some(value.parse().map(ByteSize::bytes)?)
    ),
    class!(
        "reserve",
        "Memory that other sessions cannot take from it, a size. All classes together reserve at most half of the memory for \
         packets.",
        Is("0"),
        |class, value| class.reserve_bytes = value.parse().map(ByteSize::bytes)?
    ),
    class!(
        "important",
        "A tcpdump expression for the packets of the class. Those that match are kept as long as the start of a session. \
         \"control\" stands for control messages of industrial protocols, \"control or EXPR\" adds others.",
        Unset("none", r#""tcp dst port 502""#),
        |class, value| class.important = Some(value.text()?)
    ),
    client!(
        "name",
        "Name in its certificate, as given to `retrocap certs client`.",
        Unset("none, it must be given", r#""laptop""#),
        |client, value| client.name = value.text()?
    ),
    client!(
        "serial",
        "Serial number of its certificate in hexadecimal, as in the audit log. The entry then applies to that one \
         alone, such as a lost one whose owner has a new one with the same name.",
        Unset("any", r#""4f:a0:01""#),
        |client, value| client.serial = Some(serial(&value.text()?)?)
    ),
    client!(
        "roles",
        "Its roles: \"status\", \"flows\", \"packets\", \"pin\". An empty list locks it out.",
        Unset("none, it must be given", r#"["packets", "pin"]"#),
        |client, value| {
            client.roles = value.texts()?.iter().map(|role| role.parse::<Role>()).collect::<Result<Roles, _>>()?;
        }
    ),
];

/// Every row, in the order of the sample.
pub fn rows() -> impl Iterator<Item = &'static Row<Settings>> {
    SECTIONS.iter().flat_map(|section| rows_of(section.name))
}

/// The rows of a section.
pub(super) fn rows_of(section: &str) -> impl Iterator<Item = &'static Row<Settings>> {
    ROWS.iter().chain(LIST_ROWS).filter(move |row| row.section == section)
}

/// The serial number of a certificate, in the notation of openssl, browsers and the audit log.
fn serial(text: &str) -> Result<String, String> {
    let digits: String = text.chars().filter(|c| *c != ':').map(|c| c.to_ascii_lowercase()).collect();
    let number = digits.trim_start_matches('0');
    if number.is_empty() || number.len() > 40 || !number.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(format!(
            "{text:?} is not the serial number of a certificate: try \"4f:a0:01\", as `openssl x509 -serial` shows it"
        ));
    }
    Ok(number.to_owned())
}
