//! The service as its clients see it: over a Unix socket, with curl and with hand-written requests.

pub(crate) mod asking;
mod daemon;
mod hostile;
pub(crate) mod metrics;
mod recording;

use serde_json::Value;

use asking::{Answer, curl, get, have};
use recording::{Recording, Server};
use retrocap::api::question::{FlowsQuestion, PacketsQuestion, Parameter};
use retrocap::serve::{self, ROUTES, ServiceLimits};

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn the_status_has_the_keys_that_scripts_rely_on() {
    let server = Server::start(Recording::default().udp(3, 100).tcp_session());
    let answer = curl(&server, "/v1/status", &[]);
    assert_eq!((answer.status, answer.header("content-type").unwrap()), (200, "application/json"));
    let status: Value = serde_json::from_slice(&answer.body).unwrap();
    for (part, expected) in [
        ("", "version uptime_s memory packets bytes dropped retained ranks sessions interfaces"),
        ("/memory", "budget_bytes used_bytes rings_bytes segments_bytes sessions_bytes ledger_bytes resident_bytes"),
        ("/packets", "received stored filtered dropped kernel_dropped retained evicted"),
        ("/bytes", "received stored filtered dropped retained evicted"),
        ("/retained", "oldest newest whole_since"),
        ("/ranks/0", "rank offset_from segments bytes compressed_bytes oldest"),
        ("/sessions", "live ledger capacity"),
        ("/interfaces/0", "name index link_type packets bytes up"),
    ] {
        let there = keys(status.pointer(part).unwrap());
        for key in expected.split(' ') {
            assert!(there.contains(&key), "{part}/{key} is missing: {there:?}");
        }
    }
    assert_eq!(status["packets"]["received"], 8);
    assert_eq!(status["packets"]["retained"], 8);
    assert!(status["memory"]["resident_bytes"].as_u64().unwrap() > 1 << 20);
}

#[test]
fn packets_open_in_every_tool() {
    let server = Server::start(Recording::default().udp(500, 300).tcp_session());
    for (question, content, packets) in [
        ("/v1/packets", "application/x-pcapng", 505),
        ("/v1/packets?format=pcap", "application/vnd.tcpdump.pcap", 505),
        ("/v1/packets?format=pcap&micro", "application/vnd.tcpdump.pcap", 505),
        ("/v1/packets?filter=tcp", "application/x-pcapng", 5),
        ("/v1/packets?expr=udp+and+port+53&c=7", "application/x-pcapng", 7),
        ("/v1/packets?flow=10.0.0.1:40000+10.0.0.2:80+tcp", "application/x-pcapng", 5),
        ("/v1/packets?since=1000000010&until=1000000019", "application/x-pcapng", 10),
    ] {
        let answer = curl(&server, question, &[]);
        assert_eq!((answer.status, answer.header("content-type").unwrap()), (200, content), "{question}");
        assert_eq!(recording::packets_in(&answer.body), packets, "{question}");
        for tool in ["tshark", "tcpdump"] {
            if have(tool) {
                assert_eq!(recording::packets_by(tool, &answer.body), packets, "{tool}: {question}");
            }
        }
    }
}

#[test]
fn an_export_states_its_query_and_what_is_missing() {
    // More than the store keeps, so that sessions are cut.
    let server = Server::start(Recording::default().bulk(40_000));
    let answer = get(&server, "/v1/packets?filter=ip");
    let text = String::from_utf8_lossy(&answer.body);
    for comment in ["asked for: \"ip\"", "only the starts of sessions are kept", "retrocap 0."] {
        assert!(text.contains(comment), "{comment}");
    }
    assert_eq!(answer.trailer("retrocap-packets").unwrap(), recording::packets_in(&answer.body).to_string());
    assert!(answer.trailer("retrocap-bytes").unwrap().parse::<u64>().unwrap() > 1 << 20);
    assert_eq!(answer.trailer("retrocap-overtaken").unwrap(), "0");
    assert_eq!(answer.trailer("retrocap-note"), None, "nothing is missing of what was still there");
}

#[test]
fn flows_are_one_per_line() {
    let server = Server::start(Recording::default().udp(3, 100).tcp_session());
    let answer = curl(&server, "/v1/flows?sort=packets", &[]);
    assert_eq!((answer.status, answer.header("content-type").unwrap()), (200, "application/x-ndjson"));
    let flows: Vec<Value> = answer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(flows.len(), 2);
    assert_eq!(flows[0]["proto"], "tcp");
    assert_eq!(flows[0]["originator"], serde_json::json!({"ip": "10.0.0.1", "port": 40000}));
    assert_eq!(flows[0]["kept_packets"], 5);
    for (question, lines) in [("?filter=udp", 1), ("?limit=1", 1), ("?flow=10.0.0.2+10.0.0.1", 2)] {
        let answer = curl(&server, &format!("/v1/flows{question}"), &[]);
        assert_eq!(answer.text().lines().count(), lines, "{question}");
    }
    assert_eq!(get(&server, "/v1/flows").trailer("retrocap-flows").unwrap(), "2");
}

#[test]
fn an_invalid_query_gets_a_sentence() {
    let server = Server::start(Recording::default().udp(3, 100).other_link_type());
    for (method, question, status, says) in [
        ("GET", "/v1/packets?filter=tcp+prt+80", 400, "syntax error"),
        ("GET", "/v1/packets?fliter=tcp", 400, "did you mean \"filter\"?"),
        ("GET", "/v1/packets?since=yore", 400, "try 10m"),
        ("GET", "/v1/packets?since=2500-01-01", 400, "is in the future"),
        ("GET", "/v1/packets?since=@2&until=@1", 400, "swap them"),
        ("GET", "/v1/packets?interface=eth7", 400, "no interface \"eth7\" was recorded"),
        ("GET", "/v1/packets?format=pcap", 400, "use --format pcapng"),
        ("GET", "/v1/flows?filter=%00", 400, "NUL"),
        ("GET", "/v1/packets?filter=tcp", 404, "no packet that matches was seen"),
        ("GET", "/v1/packets?until=2001-01-01", 404, "before the horizon"),
        ("GET", "/v1/flows?filter=sctp", 404, "no packet that matches was seen"),
        ("GET", "/v1/packets/", 404, "there is nothing at /v1/packets/"),
        ("GET", "/nothing", 404, "/v1/openapi.json"),
        ("GET", "/page/nothing", 404, "/v1/openapi.json"),
        ("POST", "/v1/status", 405, "does not take POST"),
        ("PUT", "/v1/pins", 405, "does not take PUT"),
        ("POST", "/v1/pins", 400, "cannot read what to pin"),
        ("DELETE", "/v1/pins", 400, "which pin?"),
        ("DELETE", "/v1/pins?id=7", 404, "there is no pin 7"),
    ] {
        let answer = curl(&server, question, &["-X", method]);
        assert_eq!(answer.status, status, "{question}: {}", answer.text());
        assert_eq!(answer.header("content-type").unwrap(), "application/problem+json", "{question}");
        let problem: Value = serde_json::from_slice(&answer.body).unwrap();
        assert!(problem["detail"].as_str().unwrap().contains(says), "{question}: {problem}");
        assert_eq!(problem["status"], status);
        assert!(problem["type"].as_str().unwrap().starts_with("urn:retrocap:problem:"));
        assert!(!problem["title"].as_str().unwrap().is_empty());
        assert_eq!(
            problem.get("cause").is_some(),
            status == 404 && question.contains('?') && !question.contains("pins"),
            "{question}: {problem}"
        );
    }
    let one_link_type = curl(&server, "/v1/packets?format=pcap&filter=udp&interface=eth0", &[]);
    assert_eq!(recording::packets_in(&one_link_type.body), 3);
}

#[test]
fn health_and_metrics_are_well_formed() {
    let server = Server::start(Recording::default().udp(3, 100).tcp_session());
    let health: Value = serde_json::from_slice(&curl(&server, "/v1/health", &[]).body).unwrap();
    assert_eq!(keys(&health), ["status", "reasons"]);
    assert_eq!((&health["status"], &health["reasons"][0]["code"]), (&"degraded".into(), &"not_recording".into()));

    assert_eq!(curl(&server, "/v1/packets", &[]).status, 200);
    let metrics = curl(&server, "/metrics", &[]);
    assert!(metrics.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
    let text = metrics.text();
    for line in [
        "retrocap_packets_received_total 8",
        "retrocap_kernel_dropped_packets_total 0",
        "retrocap_packets_dropped_total{reason=\"interfaces_full\"} 0",
        "retrocap_queries_total{of=\"packets\"} 1",
        "retrocap_sent_packets_total 8",
        "retrocap_clients_closed_total{reason=\"stalled\"} 0",
    ] {
        assert!(text.lines().any(|there| there == line), "{line} is not in {text}");
    }
    assert!(text.contains("retrocap_horizon_seconds{rank=\"0\"} "));
    assert!(text.contains("retrocap_interface_packets_total{interface=\"eth0\",index=\"0\",link_type=\"EN10MB\"} 8"));
}

#[test]
fn the_openapi_document_matches_the_service() {
    let server = Server::start(Recording::default().udp(3, 100).tcp_session());
    assert_eq!(curl(&server, "/v1/openapi.json", &[]).text(), serve::openapi());
    let document: Value = serde_json::from_str(serve::openapi()).unwrap();
    let paths = document["paths"].as_object().unwrap();
    for (path, operations) in paths {
        let verbs: Vec<&str> =
            ROUTES.iter().filter(|route| route.path == path).map(|route| route.verb.name()).collect();
        assert_eq!(keys(operations), verbs, "{path}");
        for method in ["get", "post", "put", "delete", "patch"] {
            let status = curl(&server, path, &["-X", &method.to_uppercase()]).status.to_string();
            match operations.get(method) {
                Some(operation) => {
                    let responses = keys(&operation["responses"]);
                    assert!(responses.contains(&&*status), "{method} {path}: {status} is not among {responses:?}");
                }
                None => assert_eq!(status, "405", "{method} {path}"),
            }
        }
    }
    assert!(ROUTES.iter().all(|route| paths.contains_key(route.path)));
    for (path, parameters) in
        [("/v1/packets", PacketsQuestion::parameters()), ("/v1/flows", FlowsQuestion::parameters())]
    {
        let described: Vec<&str> =
            paths[path]["get"]["parameters"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
        let names = |known: &&'static Parameter| [&[known.name], known.aliases].concat();
        let taken: Vec<&str> = parameters.iter().flat_map(names).collect();
        assert_eq!(described, taken, "{path}");
        for key in taken {
            let answer = curl(&server, &format!("{path}?{key}=%00"), &[]);
            assert!(!answer.text().contains("there is no parameter"), "{path} {key}: {}", answer.text());
        }
    }
    let schema = |name: &str| &document["components"]["schemas"][name];
    let status: Value = serde_json::from_slice(&curl(&server, "/v1/status", &[]).body).unwrap();
    described(&document, schema("Status"), &status, "Status");
    for line in curl(&server, "/v1/flows", &[]).text().lines() {
        described(&document, schema("Flow"), &serde_json::from_str(line).unwrap(), "Flow");
    }
    let health: Value = serde_json::from_slice(&curl(&server, "/v1/health", &[]).body).unwrap();
    described(&document, schema("Health"), &health, "Health");
    let problem: Value = serde_json::from_slice(&curl(&server, "/v1/packets?filter=sctp", &[]).body).unwrap();
    described(&document, schema("Problem"), &problem, "Problem");
}

/// Checks that a value has exactly the properties that its schema describes.
fn described(document: &Value, schema: &Value, value: &Value, at: &str) {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = document.pointer(reference.strip_prefix('#').unwrap());
        return described(document, target.unwrap_or_else(|| panic!("{reference}")), value, at);
    }
    if let Some(alternatives) = schema["anyOf"].as_array() {
        // An object or null.
        let fits = alternatives.iter().find(|one| (one["type"] == "null") == value.is_null());
        return described(document, fits.unwrap_or_else(|| panic!("{at} is {value}")), value, at);
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::Array(types) => types.iter().map(|t| t.as_str().unwrap()).collect(),
        one => vec![one.as_str().unwrap_or_else(|| panic!("{at} has no type"))],
    };
    let is = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_u64() && !types.contains(&"number") => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    assert!(types.contains(&is), "{at} is {is}, not {types:?}");
    if let Some(words) = schema["enum"].as_array() {
        assert!(words.contains(value), "{at} is {value}, not among {words:?}");
    }
    match value {
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                described(document, &schema["items"], item, &format!("{at}[{i}]"));
            }
        }
        Value::Object(members) => {
            for required in schema["required"].as_array().into_iter().flatten() {
                assert!(members.contains_key(required.as_str().unwrap()), "{at} has no {required}");
            }
            for (key, member) in members {
                let known = schema["properties"].get(key).or_else(|| schema.get("additionalProperties"));
                described(document, known.unwrap_or_else(|| panic!("{at}.{key} is not described")), member, key);
            }
        }
        _ => {}
    }
}

#[test]
fn every_answer_is_counted_and_ends() {
    let server = Server::with(Recording::default().udp(3, 100), ServiceLimits::default());
    let Answer { status, .. } = get(&server, "/v1/packets");
    assert_eq!(status, 200);
    server.wait_for("retrocap_queries_running 0");
}
