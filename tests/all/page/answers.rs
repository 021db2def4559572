//! What the page is told equals what the command line prints.

use std::collections::BTreeMap;

use base64::Engine as _;
use serde_json::Value;

use super::Opened;
use crate::recorder::running::have;

const COLUMNS: usize = 19;

/// The sessions of an answer in columns, by their ids, and its end. Addresses are texts.
fn sessions(answer: &[u8]) -> (BTreeMap<String, Vec<Value>>, Value) {
    let (mut at, mut sessions) = (0, BTreeMap::new());
    let number = |at: usize, width: usize| {
        let mut bytes = [0; 8];
        bytes[..width].copy_from_slice(&answer[at..at + width]);
        u64::from_le_bytes(bytes)
    };
    loop {
        let (magic, count) = (&answer[at..at + 4], usize::try_from(number(at + 4, 4)).unwrap());
        if magic == b"RCBE" {
            let end = serde_json::from_slice(&answer[at + 16..at + 16 + count]).unwrap();
            assert_eq!((at + 16 + count).next_multiple_of(8), answer.len());
            return (sessions, end);
        }
        assert_eq!(magic, b"RCB1");
        let addresses = usize::try_from(number(at + 8, 4)).unwrap();
        at += 16;
        let mut texts = Vec::new();
        for _ in 0..addresses {
            let bytes = [4, 6, 16][usize::from(answer[at] == 1) + 2 * usize::from(answer[at] == 6)];
            texts.push(address(answer[at], &answer[at + 1..][..bytes]));
            at += 1 + bytes;
        }
        at = at.next_multiple_of(8);
        let mut rows = vec![Vec::new(); count];
        for column in 0..COLUMNS {
            let (base, width) = (number(at, 8), usize::from(answer[at + 8]));
            at += 16;
            for row in &mut rows {
                let value = base + number(at, width);
                at += width;
                row.push(match column {
                    3 | 4 => texts[usize::try_from(value).unwrap()].as_str().into(),
                    _ => Value::from(value),
                });
            }
            at = at.next_multiple_of(8);
        }
        for row in rows {
            let id = format!("{:016x}", row[0].as_u64().unwrap());
            assert!(sessions.insert(id, row).is_none(), "a session comes once");
        }
    }
}

fn address(network: u8, bytes: &[u8]) -> String {
    match network {
        4 => std::net::Ipv4Addr::from(<[u8; 4]>::try_from(bytes).unwrap()).to_string(),
        6 => std::net::Ipv6Addr::from(<[u8; 16]>::try_from(bytes).unwrap()).to_string(),
        _ => bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":"),
    }
}

fn nanoseconds(time: &Value) -> u64 {
    let time: jiff::Timestamp = time.as_str().unwrap().parse().unwrap();
    u64::try_from(time.as_nanosecond()).unwrap()
}

#[test]
fn columns_have_what_the_listing_has() {
    if !have("columns_have_what_the_listing_has", &["curl"]) {
        return;
    }
    for capture in
        ["mixed-lan.pcap", "scans-many-flows.pcap", "many-interfaces.pcapng", "ics-profinet-dcp.pcap", "sll2.pcap"]
    {
        let Some(page) = Opened::new(capture, &[]) else { return };
        let header = format!("Authorization: Bearer {}", page.token());
        for filter in ["", "?filter=udp", "?port=443"] {
            let answer = page.ask(&format!("/v1/columns{filter}"), &["-H", &header]);
            let (rows, end) = sessions(&answer.body);
            let listed = page.ask(&format!("/v1/flows{filter}"), &["-H", &header]);
            let listed = if listed.status == 404 { Vec::new() } else { listed.lines() };
            assert_eq!(rows.len(), listed.len(), "{capture} {filter}");
            assert_eq!(end["sessions"], listed.len());
            for flow in listed {
                let row = &rows[flow["id"].as_str().unwrap()];
                let first = nanoseconds(&flow["first"]);
                let end_of = |side: &str| match &flow[side] {
                    end if end["ip"].is_string() => end["ip"].clone(),
                    end => end["mac"].clone(),
                };
                let name =
                    |list: &str, number: &Value| end[list][usize::try_from(number.as_u64().unwrap()).unwrap()].clone();
                let expected: [Value; 13] = [
                    first.into(),
                    (nanoseconds(&flow["last"]) - first).into(),
                    end_of("originator"),
                    end_of("responder"),
                    flow["originator"]["port"].clone(),
                    flow["responder"]["port"].clone(),
                    flow["packets"]["originator"].clone(),
                    flow["packets"]["responder"].clone(),
                    flow["bytes"]["originator"].clone(),
                    flow["bytes"]["responder"].clone(),
                    flow["kept_packets"].clone(),
                    flow["kept_bytes"].clone(),
                    flow["holes"].clone(),
                ];
                let got = [1, 2, 3, 4, 5, 6, 12, 13, 14, 15, 16, 17, 18].map(|column: usize| row[column].clone());
                assert_eq!(got, expected, "{capture}: {flow}");
                assert_eq!(name("states", &row[8]), flow["state"]);
                assert_eq!(name("interfaces", &row[10]), flow["interface"]);
                assert_eq!(row[11].as_u64().unwrap().checked_sub(1).map_or(Value::Null, Value::from), flow["vlan"]);
            }
        }
    }
}

#[test]
fn sessions_that_had_packets_since_a_time_come_in_an_answer_since_then() {
    if !have("sessions_that_had_packets_since_a_time_come_in_an_answer_since_then", &["curl"]) {
        return;
    }
    let Some(page) = Opened::new("mixed-lan.pcap", &[]) else { return };
    let header = format!("Authorization: Bearer {}", page.token());
    let (all, end) = sessions(&page.ask("/v1/columns", &["-H", &header]).body);
    let middle = all.values().map(|row| row[1].as_u64().unwrap()).max().unwrap();
    let since = jiff::Timestamp::from_nanosecond(middle.into()).unwrap();
    let (later, _) = sessions(&page.ask(&format!("/v1/columns?since={since}"), &["-H", &header]).body);
    let expected = all.iter().filter(|(_, row)| row[1].as_u64().unwrap() + row[2].as_u64().unwrap() >= middle);
    assert_eq!(later.keys().collect::<Vec<_>>(), expected.map(|(id, _)| id).collect::<Vec<_>>());
    assert!(!later.is_empty() && later.len() < all.len());
    assert_eq!(end["as_of"], page.recorder.status().retained.newest.unwrap().untrusted());
}

#[test]
fn a_listing_by_ids_has_these_sessions_and_no_others() {
    if !have("a_listing_by_ids_has_these_sessions_and_no_others", &["curl"]) {
        return;
    }
    let Some(page) = Opened::new("mixed-lan.pcap", &[]) else { return };
    let reply = page.recorder.ask(&["flows", "--json"]);
    let all: Vec<Value> = reply.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let wanted: Vec<&str> = all.iter().step_by(7).map(|flow| flow["id"].as_str().unwrap()).collect();
    let mut arguments = vec!["flows", "--json"];
    wanted.iter().for_each(|id| arguments.extend(["--id", id]));
    let listed = page.recorder.ask(&arguments);
    let listed: Vec<Value> = listed.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(listed.iter().map(|flow| flow["id"].as_str().unwrap()).collect::<Vec<_>>(), wanted);
}

#[test]
fn the_timeline_sums_up_to_the_listing() {
    if !have("the_timeline_sums_up_to_the_listing", &["curl"]) {
        return;
    }
    for capture in ["mixed-lan.pcap", "scans-many-flows.pcap"] {
        let Some(page) = Opened::new(capture, &[]) else { return };
        let header = format!("Authorization: Bearer {}", page.token());
        let listed = page.ask("/v1/flows", &["-H", &header]).lines();
        let sum = |of: &dyn Fn(&Value) -> u64| listed.iter().map(of).sum::<u64>();
        let count = |flow: &Value, key: &str| {
            flow[key]["originator"].as_u64().unwrap() + flow[key]["responder"].as_u64().unwrap()
        };
        for spans in [1, 7, 600, 4096] {
            let timeline = page.ask(&format!("/v1/timeline?spans={spans}"), &["-H", &header]).json();
            let total = |key: &str| {
                let list = timeline[key].as_array().unwrap();
                assert!(list.len() <= spans && !list.is_empty(), "{key}: {}", list.len());
                list.iter().map(|number| number.as_u64().unwrap()).sum::<u64>()
            };
            assert_eq!(total("sessions"), listed.len() as u64);
            assert_eq!(total("bytes"), sum(&|flow| count(flow, "bytes")));
            assert_eq!(total("kept_bytes"), sum(&|flow| flow["kept_bytes"].as_u64().unwrap()));
            let whole = |flow: &Value| u64::from(flow["kept_packets"].as_u64().unwrap() >= count(flow, "packets"));
            assert_eq!(total("whole"), sum(&whole));
        }
    }
}

#[test]
fn lines_are_those_that_get_prints_and_their_end_is_in_reach_of_a_browser() {
    if !have("lines_are_those_that_get_prints_and_their_end_is_in_reach_of_a_browser", &["curl"]) {
        return;
    }
    let Some(page) = Opened::new("http-files.pcap", &[]) else { return };
    let header = format!("Authorization: Bearer {}", page.token());
    let answer = page.ask("/v1/lines", &["-H", &header, "-H", "Retrocap-End: line"]);
    let mut lines = answer.lines();
    let end = lines.pop().unwrap();
    assert_eq!(end["end"]["retrocap-packets"], lines.len().to_string());
    let printed = page.recorder.ask(&["get", "--text", "-t"]).stdout;
    assert_eq!(
        lines.iter().map(|line| line["text"].as_str().unwrap()).collect::<Vec<_>>(),
        printed.lines().collect::<Vec<_>>()
    );
    let limited = page.ask("/v1/lines?count=3", &["-H", &header, "-H", "Retrocap-End: line"]).lines();
    assert_eq!(limited.len(), 4);
    assert!(limited[3]["end"]["retrocap-note"].as_str().unwrap().contains("limit"));
    assert_eq!(page.ask("/v1/lines?count=3", &["-H", &header]).lines().len(), 3);
}

#[test]
fn streams_have_the_bytes_in_order_and_say_where_some_are_missing() {
    if !have("streams_have_the_bytes_in_order_and_say_where_some_are_missing", &["curl"]) {
        return;
    }
    // Only the first bytes of each packet are kept, so that there are gaps.
    for (arguments, has_gaps) in [(&[][..], false), (&["--snaplen", "200"][..], true)] {
        let Some(page) = Opened::new("http-pdf.pcap", arguments) else { return };
        let header = format!("Authorization: Bearer {}", page.token());
        let parts = page.ask("/v1/streams?bytes=4194304", &["-H", &header]).lines();
        let mut next: BTreeMap<String, u64> = BTreeMap::new();
        let (mut there, mut missing) = (0, 0);
        for part in parts.iter().filter(|part| part["conflict"].is_null()) {
            let (offset, length) = (part["offset"].as_u64().unwrap(), part["length"].as_u64().unwrap());
            let key = format!("{} {}", part["session"], part["direction"]);
            assert_eq!(next.insert(key, offset + length).unwrap_or(0), offset, "{part}");
            match part["data"].as_str() {
                Some(data) => {
                    assert_eq!(base64::prelude::BASE64_STANDARD.decode(data).unwrap().len() as u64, length);
                    there += length;
                }
                None => {
                    assert_eq!(part["gap"], "snaplen");
                    missing += length;
                }
            }
        }
        assert_eq!((there > 0, missing > 0), (true, has_gaps));
    }
}
