use super::fields::{address, time};
use super::*;

fn read(text: &str) -> Alerts {
    Alerts::read(text.as_bytes()).unwrap()
}

/// The first alert of `text` as `kind name id start+duration sessions`.
fn named(text: &str) -> String {
    let read = read(text);
    assert_eq!(read.broken, [], "{text}");
    let Some(alert) = read.alerts.first() else { return "nothing".to_owned() };
    let Alert { kind, name, id, start, end, names, .. } = alert;
    let (id, lasted) = (id.as_deref().unwrap_or("-"), end.since(*start).as_secs_f64());
    format!(
        "{} {name} {id} {}.{:06}+{lasted} {names}",
        kind.as_str(),
        start.unix_seconds(),
        start.subsec_nanos() / 1000
    )
}

const FIELDS: &str = "#separator \\x09\n#set_separator\t,\n#unset_field\t-\n#path\tconn\n\
                      #fields\tts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tproto\tduration\n\
                      #types\ttime\tstring\taddr\tport\taddr\tport\tenum\tinterval\n";
const NOTICE: &str = "#separator \\x09\n#path\tnotice\n#fields\tts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\t\
                      proto\tnote\tmsg\tsrc\tdst\tp\n";

#[test]
fn every_format_names_its_sessions() {
    for (text, expected) in [
        (
            r#"{"timestamp":"2017-04-07T22:24:37.251547+0100","flow_id":5864,"event_type":"alert","src_ip":"192.168.2.14","src_port":50096,"dest_ip":"209.53.113.5","dest_port":80,"proto":"TCP","alert":{"signature_id":2018358,"signature":"ET HUNTING x"},"tx_id":4}"#,
            "suricata ET HUNTING x 2018358 1491600277.251547+0 192.168.2.14:50096 209.53.113.5:80 6",
        ),
        (
            r#"{"timestamp":"2026-11-22T10:05:00.000000+0000","event_type":"flow","flow_id":7,"src_ip":"fe80::1","src_port":1,"dest_ip":"fe80::2","dest_port":2,"proto":"UDP","flow":{"start":"2026-11-22T10:00:00.000000+0000","end":"2026-11-22T10:00:09.500000+0000"}}"#,
            "suricata flow 7 1795341600.000000+9.5 [fe80::1]:1 [fe80::2]:2 17",
        ),
        (
            r#"{"timestamp":"2026-11-22T10:00:00.000000+0000","event_type":"alert","src_ip":"10.0.0.1","dest_ip":"10.0.0.2","proto":"ICMP","icmp_type":8}"#,
            "suricata alert - 1795341600.000000+0 10.0.0.1 10.0.0.2 1",
        ),
        (
            r#"{"timestamp":"2026-11-22T10:00:00.000000+0000","event_type":"alert","community_id":"1:LQU9qZlK+B5F3KDmev6m5PMibrg="}"#,
            "suricata alert - 1795341600.000000+0 1:LQU9qZlK+B5F3KDmev6m5PMibrg=",
        ),
        (
            r#"{"ts":1591367999.305988,"uid":"CMdzit","id.orig_h":"192.168.4.76","id.orig_p":36844,"id.resp_h":"192.168.4.1","id.resp_p":53,"proto":"udp","service":"dns","duration":0.5}"#,
            "zeek dns CMdzit 1591367999.305988+0.5 192.168.4.76:36844 192.168.4.1:53 17",
        ),
        (
            r#"{"ts":"2020-06-05T14:39:59.305988Z","id":{"orig_h":"192.168.4.76","orig_p":8,"resp_h":"192.168.4.1","resp_p":0},"proto":"icmp"}"#,
            "zeek conn - 1591367999.305988+0 192.168.4.76 192.168.4.1 1",
        ),
        (
            r#"{"ts":1591367999305.988,"note":"Scan::Port_Scan","src":"10.0.0.9"}"#,
            "zeek Scan::Port_Scan - 1591367999.305988+0 10.0.0.9",
        ),
        (
            r#"{"UtcTime":"2026-11-22 10:00:00.123","Image":"C:\\Windows\\System32\\cmd.exe","ProcessId":"77","Protocol":"tcp","SourceIp":"::ffff:10.0.0.5","SourcePort":"51234","DestinationIp":"192.0.2.7","DestinationPort":443}"#,
            "sysmon cmd.exe 77 1795341600.123000+0 10.0.0.5:51234 192.0.2.7:443 6",
        ),
        (
            r#"{"winlog":{"event_id":3,"event_data":{"UtcTime":"2026-11-22 10:00:00.123","Protocol":"udp","SourceIp":"fe80:0:0:0:0:0:0:1","SourcePort":"5353","DestinationIp":"ff02::fb","DestinationPort":"5353"}}}"#,
            "sysmon connection - 1795341600.123000+0 [fe80::1]:5353 [ff02::fb]:5353 17",
        ),
        (
            r##"{"Event":{"System":{"EventID":{"#text":3}},"EventData":{"Data":[{"@Name":"UtcTime","#text":"2026-11-22 10:00:00.123"},{"@Name":"SourceIp","#text":"10.0.0.5"},{"@Name":"DestinationIp","#text":"10.0.0.6"}]}}}"##,
            "sysmon connection - 1795341600.123000+0 10.0.0.5 10.0.0.6",
        ),
        (r#"{"EventID":1,"UtcTime":"2026-11-22 10:00:00.123","ProcessGuid":"{x}"}"#, "nothing"),
        (r#"{"timestamp":"2026-11-22T10:00:00.000000+0000","event_type":"stats","stats":{}}"#, "nothing"),
    ] {
        assert_eq!(named(text), expected, "{text}");
    }
    for (header, row, expected) in [
        (
            FIELDS,
            "1331909229.82\tCx\t10.0.0.5\t52356\t10.0.0.6\t80\ttcp\t22.5",
            "zeek conn Cx 1331909229.820000+22.5 10.0.0.5:52356 10.0.0.6:80 6",
        ),
        (
            FIELDS,
            "1331909229.82\tCx\t10.0.0.5\t0\t10.0.0.6\t0\tunknown_transport\t-",
            "zeek conn Cx 1331909229.820000+0 10.0.0.5 10.0.0.6",
        ),
        (
            NOTICE,
            "1331909229.82\t-\t-\t-\t-\t-\t-\tScan::Port_Scan\tmany ports\t10.0.0.9\t10.0.0.6\t-",
            "zeek Scan::Port_Scan - 1331909229.820000+0 10.0.0.9 10.0.0.6",
        ),
        (NOTICE, "1331909229.82\t-\t-\t-\t-\t-\t-\tCaptureLoss::Too_Much_Loss\tx\t-\t-\t-", "nothing"),
    ] {
        assert_eq!(named(&format!("{header}{row}\n#close\t2026-11-22-10-00-00\n")), expected, "{row}");
    }
}

#[test]
fn a_broken_line_is_reported_and_costs_no_other() {
    let good =
        r#"{"timestamp":"2026-11-22T10:00:00+0000","event_type":"alert","src_ip":"10.0.0.1","dest_ip":"10.0.0.2"}"#;
    for (bad, why) in [
        ("{\"timestamp\":\"2026", "not a whole JSON object"),
        ("hello", "neither a JSON object nor a row"),
        ("{}", "neither Suricata's EVE"),
        (r#"{"event_type":"alert","src_ip":"10.0.0.1","dest_ip":"10.0.0.2"}"#, "timestamp is missing"),
        (
            r#"{"event_type":"alert","timestamp":"soon","src_ip":"10.0.0.1","dest_ip":"10.0.0.2"}"#,
            "\"soon\", not a time",
        ),
        (r#"{"event_type":"alert","timestamp":"10m","src_ip":"10.0.0.1","dest_ip":"10.0.0.2"}"#, "\"10m\", not a time"),
        (r#"{"event_type":"alert","timestamp":1e300,"src_ip":"10.0.0.1","dest_ip":"10.0.0.2"}"#, "not a time"),
        (r#"{"event_type":"alert","timestamp":5,"src_ip":"10.0.0.256","dest_ip":"10.0.0.2"}"#, "not an IP address"),
        (r#"{"event_type":"alert","timestamp":5,"src_ip":"10.0.0.1","dest_ip":"::1"}"#, "different IP versions"),
        (
            r#"{"event_type":"alert","timestamp":5,"src_ip":"10.0.0.1","src_port":70000,"dest_ip":"10.0.0.2"}"#,
            "not a port",
        ),
        (r#"{"ts":5,"src":"nobody"}"#, "src is \"nobody\", not an IP address"),
        (r#"{"ts":5,"src":"10.0.0.1","duration":-1}"#, "duration is \"-1\", not a number of seconds"),
        (r#"{"UtcTime":"2026-11-22 10:00:00","ProcessGuid":"x","EventID":3}"#, "event 3 without SourceIp"),
        ("#separator \\x0g", "not like \\x09"),
        ("#fields\tts\tmsg", "names no sessions"),
    ] {
        let read = read(&format!("{good}\n{bad}\n\n{good}\r\n"));
        let lines: Vec<u64> = read.alerts.iter().map(|alert| alert.line).collect();
        assert_eq!((lines, read.broken_count), (vec![1, 4], 1), "{bad}: {:?}", read.broken);
        assert!(read.broken[0].0 == 2 && read.broken[0].1.contains(why), "{bad}: {:?}", read.broken);
    }
    let short = read(&format!("{FIELDS}1.5\tx\n1.5\tCx\t10.0.0.5\t1\t10.0.0.6\t2\ttcp\t1\n"));
    assert_eq!((short.broken[0].0, short.alerts[0].line), (7, 8));
    assert!(short.broken[0].1.contains("2 columns, the #fields line 8"), "{:?}", short.broken);
    let long = read(&format!("{}\n{good}\n", "x".repeat(3 << 20)));
    assert_eq!((long.broken_count, long.alerts[0].line), (1, 2));
}

#[test]
fn a_list_or_a_document_over_lines_is_read_too() {
    let one = "{\n  \"timestamp\": \"2026-11-22T10:00:00+0000\",\n  \"event_type\": \"alert\",\n  \"src_ip\": \"10.0.0.1\",\n  \"dest_ip\": \"10.0.0.2\"\n}";
    assert_eq!(read(one).alerts.len(), 1);
    assert_eq!(read(&format!("{one}\n{one}\n")).alerts.len(), 2);
    assert_eq!(read(&format!("[{one},{one}, 5]")).alerts.len(), 2);
    assert_eq!(read(&format!("\u{feff}[{one}]")).alerts.len(), 1);
    let cut = read(&format!("{one}\n{{\n \"ts\": "));
    assert_eq!((cut.alerts.len(), cut.broken_count), (1, 1));
    for (bytes, says) in [(&b"\xff\xfe{\0"[..], "iconv"), (b"\x1f\x8b\x08", "zcat")] {
        assert!(Alerts::read(bytes).unwrap_err().contains(says));
    }
}

#[test]
fn honest_13_5_only_alerts_are_taken_unless_asked_otherwise() {
    let event = |kind: &str| {
        let ends = "\"timestamp\":\"2026-11-22T10:00:00Z\",\"src_ip\":\"10.0.0.1\",\"dest_ip\":\"10.0.0.2\"";
        format!("{{\"event_type\":\"{kind}\",{ends}}}")
    };
    let lines = ["alert", "flow", "dns", "alert", "http"].map(event).join("\n");
    let list = format!("[{}]", ["flow", "alert", "tls"].map(event).join(","));
    for (text, alerts, others) in [(&lines, 2, 3), (&list, 1, 2)] {
        let read = Alerts::read_events(text.as_bytes(), false).unwrap();
        assert_eq!((read.alerts.len(), read.other_events), (alerts, others), "{text}");
        let read = Alerts::read_events(text.as_bytes(), true).unwrap();
        assert_eq!((read.alerts.len() as u64, read.other_events), (alerts as u64 + others, 0), "{text}");
    }
}

proptest::proptest! {
    #[test]
    fn any_text_is_read(text in "\\PC{0,200}", bytes: Vec<u8>) {
        let _ = (Alerts::read(text.as_bytes()), Alerts::read(&bytes[..]), Alerts::read(format!("{FIELDS}{text}").as_bytes()));
    }

    #[test]
    fn any_value_is_read(time in "[-+0-9:T. Zé]{0,40}", address in "[0-9a-f:.%]{0,20}") {
        let _ = named_or_broken(&time, &address);
    }
}

fn named_or_broken(at: &str, ip: &str) -> Result<(), String> {
    time("ts", at)?;
    address("src", ip).map(drop)
}
