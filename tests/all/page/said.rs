//! What sessions said: bytes and gaps, messages of protocols, and rules of one's own.

use serde_json::{Value, json};

use super::Opened;
use crate::recorder::running::have;

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn get_prints_the_streams_that_the_page_shows() {
    if !have("get_prints_the_streams_that_the_page_shows", &["curl"]) {
        return;
    }
    for (arguments, has_gaps) in [(&[][..], false), (&["--snaplen", "200"][..], true)] {
        let Some(page) = Opened::new("http-pdf.pcap", arguments) else { return };
        let header = format!("Authorization: Bearer {}", page.token());
        let parts = page.ask("/v1/streams?bytes=4194304", &["-H", &header]).lines();
        assert_eq!(lines(&page.recorder.ask(&["get", "--streams", "--json"]).stdout), parts);
        let text = page.recorder.ask(&["get", "--streams"]).stdout;
        let first = &parts[0];
        let heading =
            format!("== {} -> {}\n", first["originator"].as_str().unwrap(), first["responder"].as_str().unwrap());
        assert!(text.starts_with(&format!("{heading}> GET ")), "{text:.200}");
        assert!(text.contains("\n< HTTP/1.1 200 OK\n"), "{text:.500}");
        assert_eq!(text.contains("are missing here (snaplen)"), has_gaps);
        let hex = page.recorder.ask(&["get", "--streams", "-X"]).stdout;
        assert!(hex.contains("> ") && hex.contains("    0x0000:  4745 5420"), "{hex:.500}");
        let nothing = page.recorder.ask(&["get", "--streams", "port", "9"]);
        assert_eq!((nothing.code, nothing.stdout.as_str()), (1, ""), "{}", nothing.stderr);
    }
}

#[test]
fn messages_have_certificates_and_fingerprints() {
    if !have("messages_have_certificates_and_fingerprints", &["curl"]) {
        return;
    }
    let Some(page) = Opened::new("heartbleed.pcap", &[]) else { return };
    let header = format!("Authorization: Bearer {}", page.token());
    let messages = page.ask("/v1/messages", &["-H", &header]).lines();
    assert_eq!(lines(&page.recorder.ask(&["get", "--messages", "--json"]).stdout), messages);
    let named = |name: &str| messages.iter().find(|message| message["name"] == name).unwrap();
    let certificate = named("tls.certificate");
    assert_eq!(certificate["direction"], "responder");
    assert_eq!(certificate["fields"]["subject"], "C=US, CN=www.lilawelt.de, Email=postmaster@lilawelt.de");
    assert_eq!(certificate["fields"]["self_signed"], 0);
    let text = page.recorder.ask(&["get", "--messages"]).stdout;
    for name in ["ja3", "ja4"] {
        let print = named("tls.client_hello")["fields"][name].as_str().unwrap();
        assert!(text.contains(&format!("{name}=\"{print}\"")), "{text}");
    }
    assert!(text.contains("not_before=2013-10-15T08:57:49Z"), "{text}");
    let limited = page.ask("/v1/messages?count=2", &["-H", &header, "-H", "Retrocap-End: line"]).lines();
    assert_eq!(limited.len(), 3);
    assert!(limited[2]["end"]["retrocap-note"].as_str().unwrap().contains("limit"), "{}", limited[2]);
    assert_eq!(page.ask("/v1/messages?count=0", &["-H", &header]).status, 400);
}

#[test]
fn a_rule_of_ones_own_is_tried_before_it_is_run() {
    if !have("a_rule_of_ones_own_is_tried_before_it_is_run", &["curl"]) {
        return;
    }
    let Some(page) = Opened::new("heartbleed.pcap", &[]) else { return };
    let header = format!("Authorization: Bearer {}", page.token());
    let ask = |rule: &str| {
        let body = json!({ "rule": rule }).to_string();
        page.ask("/v1/hunt/rule", &["-H", &header, "-H", "Content-Type: application/json", "-d", &body])
    };
    let rule = include_str!("../../../crates/hunt/attacks/heartbleed.toml");
    let found = ask(rule).lines();
    let named = page.ask("/v1/hunt?attack=heartbleed", &["-H", &header]).lines();
    assert!(!found.is_empty());
    assert_eq!(found, named);
    let failing = ask(&rule.replacen("matches = true", "matches = false", 1));
    assert_eq!(failing.status, 400);
    assert!(failing.text().contains("is found, and should not be"), "{}", failing.text());
    assert_eq!(ask("name = [").status, 400);
    let (_, cases) = rule.split_at(rule.find("[[case]]").unwrap());
    let many = format!("{rule}\n{}", format!("{cases}\n").repeat(20));
    assert!(ask(&many).text().contains("32 at most"), "{}", ask(&many).text());
    let log = std::fs::read_to_string(page.recorder.path("audit.log")).unwrap();
    assert!(log.contains("\"attack\":[\"heartbleed\"]"), "{log}");
}

#[test]
fn sums_by_process_say_that_none_are_named() {
    let Some(page) = Opened::new("http-gzip.pcap", &[]) else { return };
    let reply = page.recorder.ask(&["flows", "--by", "process"]);
    assert_eq!(reply.code, 1);
    assert!(reply.stderr.contains("--processes"), "{}", reply.stderr);
}
