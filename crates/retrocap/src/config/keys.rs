//! Every key of the configuration file. To add one: a field in [`File`], and an entry here; then `run.rs` uses it, and
//! `daemon/reload.rs` decides whether it takes a restart.

use std::time::Duration;

use super::File;
use super::schema::{Key, Section, Value};
use crate::verbs::run::address;
use engine::budget::ByteSize;
use engine::judge::Class;
use serve::peer::{Role, Roles};
use serve::tls::ClientRule;

/// With more than this, what makes room is nearly always the deepest packet there is.
const ALPHA_MAX: f64 = 8.0;
/// The shortest reach that can be wanted.
const WANTED_MIN: Duration = Duration::from_secs(1);
/// Less, and no client on a busy machine makes it in time.
const TIMEOUT_MIN: Duration = Duration::from_millis(10);

/// All keys, in the order of the sample.
pub(crate) const SECTIONS: &[Section<File>] = &[
    Section {
        name: "",
        about: "Retrocap's configuration. Every key is shown with its default, or with an example where there is none; \
                remove the # in front of what you change. `retrocap check --config FILE` says whether a file is right; \
                SIGHUP (systemctl reload retrocap) has a running recorder read it anew. A flag on the command line wins \
                over its key.",
        keys: RUN,
        another: None,
        needed: &[],
    },
    Section {
        name: "retention",
        about: "How old sessions are shortened.",
        keys: &[
            Key {
                name: "keep",
                about: "What to keep longest, in a word: \"starts\" of sessions, \"whole\" sessions, or \"balanced\". \
                        Default: \"balanced\". Reloaded.",
                sample: "\"balanced\"",
                take: |file, value| store(&mut file.retention.keep, value.as_flag()),
            },
            Key {
                name: "alpha",
                about: "How steeply: towards 0, where only age counts, whole sessions stay longer and starts of sessions \
                    shorter; 2 keeps hardly anything but starts. A number within 0 to 8; it wins over keep. Default: 1.0. \
                    Reloaded.",
                sample: "1.0",
                take: |file, value| store(&mut file.retention.alpha, alpha(value)),
            },
        ],
        another: None,
        needed: &[],
    },
    Section {
        name: "class",
        about: "Sessions that are kept otherwise; write it once for each class. A session belongs to the first class whose \
                filter its first packet matches, or could have matched.",
        keys: CLASS,
        another: Some(|file| file.classes.push(UNNAMED)),
        needed: &["name", "filter"],
    },
    Section {
        name: "client",
        about: "A client on another machine; write it once for each. Its roles are these, whatever its certificate says; \
                the first that fits holds. With roles = [] it is locked out: who is connected is disconnected at the \
                reload.",
        keys: CLIENT,
        another: Some(|file| {
            file.clients.push(ClientRule { name: String::new(), serial: None, roles: Roles::default() })
        }),
        needed: &["name", "roles"],
    },
    Section {
        name: "health",
        about: "How far back one must be able to look. Where packets had to go that are younger, /v1/health says degraded, \
                for the reason horizon_short.",
        keys: HEALTH,
        another: None,
        needed: &[],
    },
    Section { name: "limits", about: "How much the service bears.", keys: LIMITS, another: None, needed: &[] },
];

/// A class that nothing is said of yet.
const UNNAMED: Class =
    Class { name: String::new(), filter: String::new(), weight: 1.0, cutoff_bytes: None, reserve_bytes: 0 };

const CLASS: &[Key<File>] = &[
    Key {
        name: "name",
        about: "What it is called in listings. Default: none, it must be there. Takes a restart.",
        sample: "\"industrial\"",
        take: |file, value| {
            class(file)?.name = value.text()?;
            Ok(())
        },
    },
    Key {
        name: "filter",
        about: "A tcpdump expression. Default: none, it must be there. Takes a restart.",
        sample: "\"port 502 or port 2404\"",
        take: |file, value| {
            class(file)?.filter = value.text()?;
            Ok(())
        },
    },
    Key {
        name: "weight",
        about: "How many times as long as others its packets stay: 20, or 0.1 for a tenth. Default: 1. Takes a restart.",
        sample: "1",
        take: |file, value| {
            class(file)?.weight = value.number()?;
            Ok(())
        },
    },
    Key {
        name: "cutoff",
        about: "How much of each session is kept at most, a size; what comes later is dropped at once, and counted. \
                Default: no limit. Takes a restart.",
        sample: "\"256K\"",
        take: |file, value| {
            class(file)?.cutoff_bytes = Some(value.as_flag().map(ByteSize::bytes)?);
            Ok(())
        },
    },
    Key {
        name: "reserve",
        about: "Memory that others cannot take from it, a size; all classes together at most half of what packets have. \
                Default: 0. Takes a restart.",
        sample: "0",
        take: |file, value| {
            class(file)?.reserve_bytes = value.as_flag().map(ByteSize::bytes)?;
            Ok(())
        },
    },
];

/// The class that is being read.
fn class(file: &mut File) -> Result<&mut Class, String> {
    file.classes.last_mut().ok_or_else(|| "it belongs into a [[class]]".to_owned())
}

const CLIENT: &[Key<File>] = &[
    Key {
        name: "name",
        about: "The name in its certificate, as `retrocap certs client` was given it. Default: none, it must be there. \
                Reloaded.",
        sample: "\"laptop\"",
        take: |file, value| {
            client(file)?.name = value.text()?;
            Ok(())
        },
    },
    Key {
        name: "serial",
        about: "The number of its certificate in hexadecimal, as the audit log has it, where only that one is meant: a \
                lost one, while its owner has a new one of the same name. Default: any. Reloaded.",
        sample: "\"4f:a0:01\"",
        take: |file, value| {
            client(file)?.serial = Some(serial(&value.text()?)?);
            Ok(())
        },
    },
    Key {
        name: "roles",
        about: "What it may ask: \"status\", \"flows\", \"packets\", \"pin\"; an empty list keeps it out. Default: none, it \
                must be there. Reloaded.",
        sample: "[\"packets\", \"pin\"]",
        take: |file, value| {
            client(file)?.roles =
                value.texts()?.iter().map(|role| role.parse::<Role>()).collect::<Result<Roles, _>>()?;
            Ok(())
        },
    },
];

/// The number of a certificate, as openssl, browsers and the audit log write it.
fn serial(text: &str) -> Result<String, String> {
    let digits: String = text.chars().filter(|c| *c != ':').map(|c| c.to_ascii_lowercase()).collect();
    let number = digits.trim_start_matches('0');
    if number.is_empty() || number.len() > 40 || !number.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(format!(
            "{text:?} is no number of a certificate: try \"4f:a0:01\" as `openssl x509 -serial` shows it"
        ));
    }
    Ok(number.to_owned())
}

/// The client that is being read.
fn client(file: &mut File) -> Result<&mut ClientRule, String> {
    file.clients.last_mut().ok_or_else(|| "it belongs into a [[client]]".to_owned())
}

const RUN: &[Key<File>] = &[
    Key {
        name: "interface",
        about: "The interfaces to record, by name; one that comes later is recorded from then on. Default: all of them. \
                Reloaded.",
        sample: "[\"eth0\", \"eth1\"]",
        take: |file, value| {
            file.interface = value.texts()?;
            Ok(())
        },
    },
    Key {
        name: "filter",
        about: "A tcpdump expression: what does not match is not recorded. Default: everything is. Reloaded.",
        sample: "\"not port 22\"",
        take: |file, value| store(&mut file.filter, value.text()),
    },
    Key {
        name: "snaplen",
        about: "How much is kept of each packet, in bytes; 0 for all of it. Default: 0. Takes a restart.",
        sample: "0",
        take: |file, value| store(&mut file.snaplen, value.whole(0..1 << 32)),
    },
    Key {
        name: "memory",
        about: "The memory that everything fits into: a size (K, M and G, or KiB, MiB and GiB, are powers of 1024; a bare \
                number is bytes), or a share of physical memory in percent, then at least 16 MiB. Default: 1%. Takes a \
                restart.",
        sample: "\"1%\"",
        take: |file, value| store(&mut file.memory, value.as_flag()),
    },
    Key {
        name: "workers",
        about: "How many threads share the packets, each with its part of the memory; 1 to 256. Default: 1. Takes a \
                restart.",
        sample: "1",
        take: |file, value| store(&mut file.workers, value.whole(1..257)),
    },
    Key {
        name: "compression-cpu",
        about: "How much of one core compression may take, in percent; 0 for no compression. Default: 10. Takes a \
                restart.",
        sample: "10",
        take: |file, value| store(&mut file.compression_cpu, value.as_flag()),
    },
    Key {
        name: "promiscuous",
        about: "Whether interfaces are asked for packets to other hosts too. Default: false. Takes a restart.",
        sample: "false",
        take: |file, value| store(&mut file.promiscuous, value.yes_or_no()),
    },
    Key {
        name: "no-promiscuous",
        about: "The same the other way round, for those who know tcpdump's -p; true wins. Default: false. Takes a restart.",
        sample: "false",
        take: |file, value| store(&mut file.no_promiscuous, value.yes_or_no()),
    },
    Key {
        name: "replay",
        about: "A capture file to record in place of interfaces. Default: none. Takes a restart.",
        sample: "\"/var/tmp/big.pcap\"",
        take: |file, value| store(&mut file.replay, value.text().map(Into::into)),
    },
    Key {
        name: "speed",
        about: "How fast it is replayed: 2 for twice the recorded pace, or \"max\". Default: 1. Takes a restart.",
        sample: "1",
        take: |file, value| store(&mut file.speed, value.as_flag()),
    },
    Key {
        name: "socket",
        about: "Where the service listens; its directory is made if it is missing. Members of the group retrocap may \
                connect. Default: \"/run/retrocap/retrocap.sock\". Takes a restart.",
        sample: "\"/run/retrocap/retrocap.sock\"",
        take: |file, value| store(&mut file.socket, value.text().map(Into::into)),
    },
    Key {
        name: "user",
        about: "The user to become once everything is open. Default: \"retrocap\", if there is one. Takes a restart.",
        sample: "\"retrocap\"",
        take: |file, value| store(&mut file.user, value.text()),
    },
    Key {
        name: "no-drop-privileges",
        about: "Whether root's privileges are kept, which only helps to debug. Default: false. Takes a restart.",
        sample: "false",
        take: |file, value| store(&mut file.no_drop_privileges, value.yes_or_no()),
    },
    Key {
        name: "sandbox",
        about: "What happens where the kernel lacks a part of the sandbox (seccomp, Landlock): \"required\" does not start, \
                \"best-effort\" goes on and says what is missing, \"off\" restricts nothing. Default: \"best-effort\". Takes \
                a restart.",
        sample: "\"best-effort\"",
        take: |file, value| store(&mut file.sandbox, value.as_flag()),
    },
    Key {
        name: "community-id-seed",
        about: "The seed that Community IDs are made with, as Zeek and Suricata here have it: those that are listed, and \
                those that are asked for without --community-id-seed; 0 to 65535. Default: 0. Reloaded.",
        sample: "0",
        take: |file, value| store(&mut file.community_id_seed, value.whole(0..65_536)),
    },
    Key {
        name: "pcap-over-ip",
        about: "Where packets are served as they come, as a bare stream (PCAP-over-IP): an address with its port, or a \
                list. On a loopback address every user of this host is served, in the clear; elsewhere clients that have \
                a certificate of the authority in ca and the role packets, over TLS. Default: nowhere. Takes a restart.",
        sample: "[\"127.0.0.1:57012\", \"[::]:57013\"]",
        take: |file, value| {
            file.pcap_over_ip = value.texts()?.iter().map(|at| address(at)).collect::<Result<_, _>>()?;
            Ok(())
        },
    },
    Key {
        name: "pcap-over-ip-tls",
        about: "Whether it is TLS on loopback addresses, too. Default: false. Takes a restart.",
        sample: "false",
        take: |file, value| store(&mut file.pcap_over_ip_tls, value.yes_or_no()),
    },
    Key {
        name: "pcap-over-ip-past",
        about: "How much of the past comes first there; a duration with its unit. Default: \"0s\". Takes a restart.",
        sample: "\"0s\"",
        take: |file, value| store(&mut file.pcap_over_ip_past, value.duration(Duration::ZERO)),
    },
    Key {
        name: "pcap-over-ip-format",
        about: "In which format: \"pcap\", \"pcap-nano\" or \"pcapng\". Default: \"pcap\". Takes a restart.",
        sample: "\"pcap\"",
        take: |file, value| store(&mut file.pcap_over_ip_format, value.as_flag()),
    },
    Key {
        name: "listen",
        about: "Where other machines are served, over TLS: an address with its port, or a list. Those are served that have \
                a certificate of the authority in ca. Default: nowhere. Takes a restart.",
        sample: "[\"[::]:57443\"]",
        take: |file, value| {
            file.listen = value.texts()?;
            Ok(())
        },
    },
    Key {
        name: "listen-plain",
        about: "Where every user of this host is served, without encryption: an address of loopback with its port, or a \
                list. Default: nowhere. Takes a restart.",
        sample: "[\"127.0.0.1:57080\"]",
        take: |file, value| {
            file.listen_plain = value.texts()?;
            Ok(())
        },
    },
    Key {
        name: "ca",
        about: "The authority whose clients are served where other machines are, a file in PEM. It, cert and key are read \
                anew, too, when the configuration is reloaded, as far as the recorder's user may. Default: \
                \"/etc/retrocap/tls/ca.pem\". Reloaded.",
        sample: "\"/etc/retrocap/tls/ca.pem\"",
        take: |file, value| store(&mut file.ca, value.text().map(Into::into)),
    },
    Key {
        name: "cert",
        about: "The recorder's certificate that they are shown, a file in PEM. Default: \"/etc/retrocap/tls/server.pem\". \
                Reloaded.",
        sample: "\"/etc/retrocap/tls/server.pem\"",
        take: |file, value| store(&mut file.cert, value.text().map(Into::into)),
    },
    Key {
        name: "key",
        about: "The private key to that. Default: \"/etc/retrocap/tls/server.key\". Reloaded.",
        sample: "\"/etc/retrocap/tls/server.key\"",
        take: |file, value| store(&mut file.key, value.text().map(Into::into)),
    },
    Key {
        name: "unlisted-clients",
        about: "What clients may that no [[client]] names: \"certified\", what their certificates say; \"nothing\", so that \
                taking a [[client]] away takes the access away. Default: \"certified\". Reloaded.",
        sample: "\"certified\"",
        take: |file, value| {
            let only_listed = match value.text()?.as_str() {
                "certified" => false,
                "nothing" => true,
                other => return Err(format!("{other:?} is neither \"certified\" nor \"nothing\"")),
            };
            file.only_listed = Some(only_listed);
            Ok(())
        },
    },
    Key {
        name: "audit",
        about: "What happens when it cannot be written down who reads: \"required\" refuses the read, \"best-effort\" serves \
                it, \"off\" writes nothing. Default: \"required\" with an audit log, otherwise \"off\". Takes a restart.",
        sample: "\"required\"",
        take: |file, value| store(&mut file.audit, value.as_flag()),
    },
    Key {
        name: "audit-log",
        about: "The file where it is written down who reads which packets. Default: \"/var/log/retrocap/audit.log\" for the \
                service and for root, otherwise none. Takes a restart.",
        sample: "\"/var/log/retrocap/audit.log\"",
        take: |file, value| store(&mut file.audit_log, value.text().map(Into::into)),
    },
    Key {
        name: "audit-log-size",
        about: "Another file is begun when this one is so large, a size. Default: \"10MiB\". Takes a restart.",
        sample: "\"10MiB\"",
        take: |file, value| store(&mut file.audit_log_size, value.as_flag()),
    },
    Key {
        name: "audit-log-keep",
        about: "How many old files of it are kept; 1 to 10000. Default: 9. Takes a restart.",
        sample: "9",
        take: |file, value| store(&mut file.audit_log_keep, value.whole(1..10_001)),
    },
    Key {
        name: "verbose",
        about: "How much is logged: 0 for what matters, 1 for details, 2 for everything. Default: 0. Reloaded.",
        sample: "0",
        take: |file, value| store(&mut file.verbose, value.whole(0..3)),
    },
    Key {
        name: "quiet",
        about: "Whether nothing but errors is logged. Default: false. Reloaded.",
        sample: "false",
        take: |file, value| store(&mut file.quiet, value.yes_or_no()),
    },
];

const HEALTH: &[Key<File>] = &[
    Key {
        name: "starts",
        about: "How far back the first packets of sessions should reach; a duration with its unit. Default: nobody minds. \
                Reloaded.",
        sample: "\"6h\"",
        take: |file, value| store(&mut file.wanted.starts, value.duration(WANTED_MIN)),
    },
    Key {
        name: "whole",
        about: "How far back every packet should be there; a duration with its unit. Default: nobody minds. Reloaded.",
        sample: "\"1m\"",
        take: |file, value| store(&mut file.wanted.whole, value.duration(WANTED_MIN)),
    },
];

const LIMITS: &[Key<File>] = &[
    Key {
        name: "connections",
        about: "Connections to the socket at once; beyond them those that ask nothing are closed. 1 to 100000. Default: \
                256. Reloaded.",
        sample: "256",
        take: |file, value| store(&mut file.limits.connections, value.whole(1..100_001)),
    },
    Key {
        name: "remote-connections",
        about: "The same for each address where other machines connect. Default: 64. Reloaded.",
        sample: "64",
        take: |file, value| store(&mut file.limits.remote_connections, value.whole(1..100_001)),
    },
    Key {
        name: "handshake-timeout",
        about: "How long a client may take for its part of a TLS handshake; a duration with its unit. Default: \"10s\". \
                Reloaded.",
        sample: "\"10s\"",
        take: |file, value| store(&mut file.limits.handshake_timeout, value.duration(TIMEOUT_MIN)),
    },
    Key {
        name: "head-timeout",
        about: "How long a client may take for the head of a request; a duration with its unit. Default: \"10s\". Reloaded.",
        sample: "\"10s\"",
        take: |file, value| store(&mut file.limits.head_timeout, value.duration(TIMEOUT_MIN)),
    },
    Key {
        name: "stall-timeout",
        about: "How long a client may take nothing of what it is sent; a duration with its unit. Default: \"60s\". Reloaded.",
        sample: "\"60s\"",
        take: |file, value| store(&mut file.limits.stall_timeout, value.duration(TIMEOUT_MIN)),
    },
    Key {
        name: "queue-timeout",
        about: "How long a query waits for others to end; a duration with its unit. Default: \"5s\". Reloaded.",
        sample: "\"5s\"",
        take: |file, value| store(&mut file.limits.queue_timeout, value.duration(TIMEOUT_MIN)),
    },
];

fn store<T>(field: &mut Option<T>, value: Result<T, String>) -> Result<(), String> {
    *field = Some(value?);
    Ok(())
}

fn alpha(value: Value<'_>) -> Result<f64, String> {
    let alpha = value.number()?;
    if (0.0..=ALPHA_MAX).contains(&alpha) {
        return Ok(alpha);
    }
    Err(format!("it is {alpha}, not within 0 to {ALPHA_MAX}: try 1.0 or 0.5"))
}
