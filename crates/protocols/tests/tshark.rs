//! Function codes, services and fingerprints of real captures, compared one by one with those that tshark finds.

#[path = "../../streams/tests/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use protocols::{Event, ProtocolSink, Protocols};
use streams::Session;
use support::{captures, read};

type Tally = BTreeMap<String, i64>;

/// Counts the values of a field of events.
struct Count<'a> {
    event: &'a str,
    field: &'a str,
    tally: Tally,
}

impl ProtocolSink for Count<'_> {
    fn event(&mut self, _: &Session, event: &Event) {
        if event.name.starts_with(self.event)
            && let Some(value) = event.field(self.field)
        {
            *self.tally.entry(value.text().into_owned()).or_default() += 1;
        }
    }
}

fn ours(file: &Path, event: &str, field: &str) -> Tally {
    let mut protocols = Protocols::new(Count { event, field, tally: Tally::new() });
    read(file, &mut protocols);
    protocols.sink.tally
}

fn theirs(file: &Path, fields: &[&str]) -> Tally {
    let mut arguments = vec!["-n", "-r", file.to_str().unwrap(), "-T", "fields"];
    fields.iter().for_each(|field| arguments.extend(["-e", field]));
    let output = Command::new("tshark").args(arguments).output().unwrap();
    let mut tally = Tally::new();
    for value in String::from_utf8_lossy(&output.stdout).split([',', '\t', '\n']).filter(|value| !value.is_empty()) {
        let number = value.strip_prefix("0x").map(|hex| u64::from_str_radix(hex, 16).unwrap().to_string());
        *tally.entry(number.unwrap_or_else(|| value.to_owned())).or_default() += 1;
    }
    tally
}

#[test]
fn function_codes_are_those_of_tshark() {
    let Some(folder) = captures() else { return };
    for (file, event, field, fields) in [
        ("ics-modbus.pcap", "modbus.", "function", &["modbus.func_code"][..]),
        ("ics-dnp3.pcap", "dnp3.", "function", &["dnp3.al.func"]),
        ("ics-iec104.pcap", "iec104.", "type", &["iec60870_asdu.typeid"]),
        ("ics-s7.pcapng", "s7comm.", "function", &["s7comm.param.func"]),
        ("ics-s7.pcapng", "s7comm.", "rosctr", &["s7comm.header.rosctr"]),
        ("ics-s7-write.pcapng", "s7comm.", "rosctr", &["s7comm.header.rosctr"]),
        ("ics-s7-write.pcapng", "s7comm.", "subfunction", &["s7comm.param.userdata.subfunc"]),
        ("ics-enip.pcap", "enip.message", "command", &["enip.command"]),
        ("ics-cip-start.pcap", "enip.cip", "service", &["cip.sc"]),
        ("ics-bacnet.pcap", "bacnet.", "service", &["bacapp.confirmed_service", "bacapp.unconfirmed_service"]),
        ("ics-profinet-dcp.pcap", "profinet.", "service", &["pn_dcp.service_id"]),
        ("smb2-100-files.pcap", "smb2.request", "code", &["smb2.cmd"]),
        ("tftp.pcap", "tftp.request", "name", &["tftp.source_file"]),
        ("smtp-mime.pcap", "smtp.command", "command", &["smtp.req.command"]),
    ] {
        let file = folder.join(file);
        if !file.exists() {
            eprintln!("SKIPPED: there is no {}", file.display());
            continue;
        }
        let (mine, mut expected) = (ours(&file, event, field), theirs(&file, fields));
        if field == "code" {
            // tshark counts responses as well.
            expected.values_mut().for_each(|count| *count /= 2);
        }
        if field == "command" {
            expected.retain(|command, _| mine.contains_key(command));
        }
        assert_eq!(mine, expected, "{}: {field}", file.display());
        assert!(!mine.is_empty(), "{}: {field}", file.display());
    }
}

/// What tshark 4.0 counts too many (negative) or too few of, in traces of ICSNPP.
const EXPLAINED: [(&str, (&str, &str), i64); 7] = [
    // BACnet over Ethernet, which is not BACnet/IP.
    ("bacnet_services.pcap", ("bacapp", "0"), -101),
    ("bacnet_services.pcap", ("bacapp", "6"), -1),
    ("bacnet_services.pcap", ("bacapp", "7"), -2),
    ("bacnet_services.pcap", ("bacapp", "8"), -4),
    // Responses of several segments, which ICSNPP counts as here: 364 and 4.
    ("dnp3_example.pcap", ("dnp3", "129"), 4),
    ("dnp3_example.pcap", ("dnp3", "130"), 1),
    ("dnp3_example.pcap", ("dnp3", "0"), -1),
];

/// All captures of a folder, such as the traces of ICSNPP (github.com/cisagov): `RETROCAP_ICS_TRACES` names it.
#[test]
fn function_codes_of_other_traces_are_those_of_tshark() {
    let Some(folder) = std::env::var_os("RETROCAP_ICS_TRACES") else {
        eprintln!("SKIPPED: RETROCAP_ICS_TRACES names no folder of captures");
        return;
    };
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut different = Vec::new();
    for file in files {
        for (event, field, fields) in [
            ("modbus.", "function", &["modbus.func_code"][..]),
            ("dnp3.", "function", &["dnp3.al.func"]),
            ("iec104.", "type", &["iec60870_asdu.typeid"]),
            ("s7comm.", "rosctr", &["s7comm.header.rosctr"]),
            ("s7comm.", "function", &["s7comm.param.func"]),
            ("enip.message", "command", &["enip.command"]),
            ("enip.cip", "service", &["cip.sc"]),
            ("bacnet.", "service", &["bacapp.confirmed_service", "bacapp.unconfirmed_service"]),
            ("profinet.", "service", &["pn_dcp.service_id"]),
        ] {
            let (mine, mut expected) = (ours(&file, event, field), theirs(&file, fields));
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            for (of, key, count) in EXPLAINED {
                if name.ends_with(of) && fields[0].starts_with(key.0) {
                    *expected.entry(key.1.to_owned()).or_default() += count;
                }
            }
            expected.retain(|_, count| *count > 0);
            if !mine.is_empty() || !expected.is_empty() {
                let equal = mine == expected;
                eprintln!("{}: {event}{field}: {mine:?}{}", file.display(), if equal { "" } else { " DIFFERENT" });
                if !equal {
                    different.push(format!("{}: {event}{field}: {mine:?}, tshark {expected:?}", file.display()));
                }
            }
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

#[test]
fn fingerprints_are_those_of_tshark() {
    let Some(folder) = captures() else { return };
    let mut found = 0;
    for file in
        ["heartbleed.pcap", "mixed-lan.pcap", "many-interfaces.pcapng", "pppoe-over-qinq.pcap", "scans-many-flows.pcap"]
    {
        let file = folder.join(file);
        if !file.exists() {
            eprintln!("SKIPPED: there is no {}", file.display());
            continue;
        }
        for (field, theirs_name) in
            [("ja3", "tls.handshake.ja3"), ("ja3s", "tls.handshake.ja3s"), ("hassh", "ssh.kex.hassh")]
        {
            let (mine, expected) = (ours(&file, "", field), theirs(&file, &[theirs_name]));
            assert_eq!(mine, expected, "{}: {field}", file.display());
            found += mine.len();
        }
    }
    assert!(found > 3, "{found} fingerprints");
}
