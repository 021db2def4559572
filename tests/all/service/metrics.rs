//! `/metrics` as strict parsers accept it, and the dashboard and alerts that use it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use super::asking::{curl, get, have};
use super::recording::{Recording, Server};

/// A family of metrics: its type, and its lines as (name, labels, value).
#[derive(Debug, Default)]
struct Family {
    kind: String,
    lines: Vec<(String, BTreeMap<String, String>, f64)>,
}

/// Parses version 0.0.4 of the text format, and panics at the slightest deviation.
fn parse(text: &str) -> BTreeMap<String, Family> {
    assert!(text.ends_with('\n'), "the last line must end");
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let mut current = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').unwrap();
            assert!(is_name(name) && !help.trim().is_empty() && !families.contains_key(name), "{line}");
            let kind = lines.next().and_then(|line| line.strip_prefix(&format!("# TYPE {name} "))).unwrap();
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
            families.insert(name.to_owned(), Family { kind: kind.to_owned(), lines: Vec::new() });
            current = name.to_owned();
            continue;
        }
        let (name, labels, value) = sample(line);
        let family = families.get_mut(&current).expect("a line belongs to a family");
        let of = if family.kind == "histogram" {
            ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).expect(line)
        } else {
            &*name
        };
        assert_eq!(of, current, "{line}");
        assert!(family.kind == "gauge" || value >= 0.0, "{line}");
        assert!(seen.insert((name.clone(), labels.clone())), "twice: {line}");
        family.lines.push((name, labels, value));
    }
    families.values().filter(|family| family.kind == "histogram").for_each(histogram);
    families
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Parses `name{label="value",…} number`.
fn sample(line: &str) -> (String, BTreeMap<String, String>, f64) {
    let end = line.find(['{', ' ']).expect(line);
    let (name, mut rest) = line.split_at(end);
    assert!(is_name(name), "{line}");
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, after) = rest.split_once("=\"").expect(line);
            assert!(is_name(label) && !label.contains(':'), "{line}");
            let (value, after) = quoted(after, line);
            assert!(labels.insert(label.to_owned(), value).is_none(), "{line}");
            if let Some(more) = after.strip_prefix(',') {
                rest = more;
            } else {
                rest = after.strip_prefix('}').expect(line);
                break;
            }
        }
    }
    let value = rest.strip_prefix(' ').expect(line);
    let value = if value == "+Inf" { f64::INFINITY } else { value.parse().expect(line) };
    assert!(!value.is_nan(), "{line}");
    (name.to_owned(), labels, value)
}

/// Splits the text at the closing quote.
fn quoted<'a>(text: &'a str, line: &str) -> (String, &'a str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &text[at + 1..]),
            '\\' => match chars.next().expect(line).1 {
                'n' => value.push('\n'),
                c @ ('"' | '\\') => value.push(c),
                other => panic!("\\{other} in {line}"),
            },
            c => value.push(c),
        }
    }
    panic!("no closing quote: {line}")
}

/// Checks that buckets increase up to `+Inf`, and that the last one equals the count.
fn histogram(family: &Family) {
    let find = |end: &'static str| family.lines.iter().filter(move |line| line.0.ends_with(end));
    let buckets: Vec<(f64, f64)> = find("_bucket")
        .map(|(_, labels, count)| (labels["le"].replace("+Inf", "inf").parse().unwrap(), *count))
        .collect();
    assert!(buckets.len() > 2 && buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{buckets:?}");
    assert_eq!(buckets.last().unwrap().0, f64::INFINITY);
    assert_eq!(Some(buckets.last().unwrap().1), find("_count").next().map(|line| line.2));
    assert_eq!(find("_sum").count(), 1);
}

/// The names of the metrics `retrocap_…` in a text, without the suffixes of histograms.
pub(crate) fn named(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, _) in text.match_indices("retrocap_") {
        let name = text[at..].split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).next().unwrap();
        names.insert(name.trim_end_matches("_bucket").to_owned());
    }
    names
}

pub(crate) fn packaging(path: &str) -> String {
    std::fs::read_to_string(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("packaging").join(path))
        .unwrap()
}

#[test]
fn strict_parsers_accept_the_metrics() {
    // A container may give an interface a name like this.
    let server = Server::start(Recording::default().udp(3, 100).tcp_session().odd_interface("e\"t\\h\n0"));
    assert_eq!(curl(&server, "/v1/packets", &[]).status, 200);
    assert_eq!(curl(&server, "/v1/packets?filter=sctp", &[]).status, 404);
    let text = get(&server, "/metrics").text();
    let families = parse(&text);
    let interfaces = &families["retrocap_interface_packets_total"].lines;
    assert!(interfaces.iter().any(|(_, labels, _)| labels["interface"] == "e\"t\\h\n0"), "{interfaces:?}");
    let asked = families["retrocap_query_latency_seconds"].lines.last().unwrap();
    assert_eq!((asked.0.as_str(), asked.2), ("retrocap_query_latency_seconds_count", 2.0));
    let value = |name: &str| families[name].lines[0].2;
    assert_eq!((value("retrocap_ready"), value("retrocap_live"), value("retrocap_workers")), (0.0, 0.0, 1.0));
    let degraded = &families["retrocap_degraded"].lines;
    let not_recording = degraded.iter().find(|(_, labels, _)| labels["reason"] == "not_recording").unwrap();
    assert_eq!(not_recording.2, 1.0);

    if have("promtool") {
        let mut child =
            Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let child = child.as_mut().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let mut said = String::new();
        std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut said).unwrap();
        assert!(child.wait().unwrap().success(), "{said}");
    }
}

/// Whether a metric is there only with a spool.
pub(crate) fn is_of_disk(name: &str) -> bool {
    name.starts_with("retrocap_spool_") || name.starts_with("retrocap_session_log_")
}

#[test]
fn dashboards_and_alerts_use_existing_metrics() {
    // Every metric that depends on traffic is there, because something was evicted.
    let server = Server::start(Recording::default().bulk(40_000));
    let families = parse(&get(&server, "/metrics").text());
    let there: BTreeSet<String> = families.keys().cloned().collect();
    let alerts = packaging("prometheus/alerts.yml");
    let dashboard = packaging("grafana/retrocap.json");
    for (file, text) in [("alerts", &alerts), ("dashboard", &dashboard)] {
        // Those of the disk are there with a spool: `recorder::on_disk` looks for them.
        let named: BTreeSet<String> = named(text).into_iter().filter(|name| !is_of_disk(name)).collect();
        let missing: Vec<_> = named.difference(&there).cloned().collect();
        assert!(named.len() > 5 && missing.is_empty(), "{file}: {missing:?}");
    }
    serde_json::from_str::<serde_json::Value>(&dashboard).unwrap();
    // An alert for a reason that is never reported would never fire.
    let reasons: BTreeSet<&str> =
        families["retrocap_degraded"].lines.iter().map(|(_, labels, _)| labels["reason"].as_str()).collect();
    for (at, selector) in alerts.match_indices("retrocap_degraded{reason=\"") {
        let reason = alerts[at + selector.len()..].split('"').next().unwrap();
        assert!(reasons.contains(reason), "{reason}: {reasons:?}");
    }
    if have("promtool") {
        let rules = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("packaging/prometheus/alerts.yml");
        let tests = rules.with_file_name("tests.yml");
        for (verb, file) in [("check", &rules), ("test", &tests)] {
            let output = Command::new("promtool").args([verb, "rules"]).arg(file).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        }
    }
}
