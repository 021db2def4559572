//! Names of kinds of 802.11 and LLC frames, and of pflog's reasons and actions.

use super::rare::Llc;
use super::refusal::{Refusal, refuse};

const MANAGEMENT: u32 = 0x00;
const CONTROL: u32 = 0x04;
const DATA: u32 = 0x08;

type Number = Result<u32, Refusal>;

fn find(name: &str, names: &[(&str, u32)]) -> Option<u32> {
    names.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
}

pub(super) fn frame_type(name: &str) -> Number {
    const NAMES: [(&str, u32); 5] =
        [("data", DATA), ("mgt", MANAGEMENT), ("management", MANAGEMENT), ("ctl", CONTROL), ("control", CONTROL)];
    find(name, &NAMES).map_or_else(|| refuse("this is no 802.11 type"), Ok)
}

fn subtypes(kind: u32) -> &'static [(&'static str, u32)] {
    match kind {
        MANAGEMENT => &[
            ("assocreq", 0x00),
            ("assoc-req", 0x00),
            ("assocresp", 0x10),
            ("assoc-resp", 0x10),
            ("reassocreq", 0x20),
            ("reassoc-req", 0x20),
            ("reassocresp", 0x30),
            ("reassoc-resp", 0x30),
            ("probereq", 0x40),
            ("probe-req", 0x40),
            ("proberesp", 0x50),
            ("probe-resp", 0x50),
            ("beacon", 0x80),
            ("atim", 0x90),
            ("disassoc", 0xa0),
            ("disassociation", 0xa0),
            ("auth", 0xb0),
            ("authentication", 0xb0),
            ("deauth", 0xc0),
            ("deauthentication", 0xc0),
        ],
        CONTROL => {
            &[("ps-poll", 0xa0), ("rts", 0xb0), ("cts", 0xc0), ("ack", 0xd0), ("cf-end", 0xe0), ("cf-end-ack", 0xf0)]
        }
        DATA => &[
            ("data", 0x00),
            ("data-cf-ack", 0x10),
            ("data-cf-poll", 0x20),
            ("data-cf-ack-poll", 0x30),
            ("null", 0x40),
            ("cf-ack", 0x50),
            ("cf-poll", 0x60),
            ("cf-ack-poll", 0x70),
            ("qos-data", 0x80),
            ("qos-data-cf-ack", 0x90),
            ("qos-data-cf-poll", 0xa0),
            ("qos-data-cf-ack-poll", 0xb0),
            ("qos", 0xc0),
            ("qos-cf-poll", 0xe0),
            ("qos-cf-ack-poll", 0xf0),
        ],
        _ => &[],
    }
}

pub(super) fn subtype(kind: u32, name: &str) -> Number {
    find(name, subtypes(kind)).map_or_else(|| refuse("this is no subtype of the 802.11 type"), Ok)
}

/// Returns the type and the subtype that a subtype names.
pub(super) fn type_of_subtype(name: &str) -> Number {
    let found = [MANAGEMENT, CONTROL, DATA].into_iter().find_map(|kind| Some(kind | find(name, subtypes(kind))?));
    found.map_or_else(|| refuse("this is no 802.11 subtype"), Ok)
}

pub(super) fn direction(name: &str) -> Number {
    const NAMES: [(&str, u32); 4] = [("nods", 0), ("tods", 1), ("fromds", 2), ("dstods", 3)];
    find(name, &NAMES).map_or_else(|| refuse("this is no direction of 802.11 frames"), Ok)
}

pub(super) fn llc_kind(name: &str) -> Option<Llc> {
    const SUPERVISORY: [(&str, u32); 3] = [("rr", 1), ("rnr", 5), ("rej", 9)];
    const UNNUMBERED: [(&str, u32); 8] = [
        ("ui", 0x03),
        ("ua", 0x63),
        ("disc", 0x43),
        ("dm", 0x0f),
        ("sabme", 0x6f),
        ("test", 0xe3),
        ("xid", 0xaf),
        ("frmr", 0x87),
    ];
    match name.to_ascii_lowercase().as_str() {
        "i" => Some(Llc::Information),
        "s" => Some(Llc::Supervisory),
        "u" => Some(Llc::Unnumbered),
        _ => {
            find(name, &SUPERVISORY).map(Llc::SupervisoryOf).or_else(|| find(name, &UNNUMBERED).map(Llc::UnnumberedOf))
        }
    }
}

pub(super) fn pf_reason(name: &str) -> Number {
    const NAMES: [&str; 15] = [
        "match",
        "bad-offset",
        "fragment",
        "short",
        "normalize",
        "memory",
        "bad-timestamp",
        "congestion",
        "ip-option",
        "proto-cksum",
        "state-mismatch",
        "state-insert",
        "state-limit",
        "src-limit",
        "synproxy",
    ];
    let at = NAMES.iter().position(|known| known.eq_ignore_ascii_case(name));
    at.and_then(|at| u32::try_from(at).ok()).map_or_else(|| refuse("this is no reason of pf"), Ok)
}

pub(super) fn pf_action(name: &str) -> Number {
    const NAMES: [(&str, u32); 13] = [
        ("pass", 0),
        ("accept", 0),
        ("drop", 1),
        ("block", 1),
        ("scrub", 2),
        ("noscrub", 3),
        ("nat", 4),
        ("nonat", 5),
        ("binat", 6),
        ("nobinat", 7),
        ("rdr", 8),
        ("nordr", 9),
        ("synproxy-drop", 10),
    ];
    find(name, &NAMES).map_or_else(|| refuse("this is no action of pf"), Ok)
}
