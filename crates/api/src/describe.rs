//! A question in words: one list of what it asks for, as a sentence for files and as JSON for the audit log.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::value::ParameterValue as _;
use base::foreign::Log;
use query::Request;

/// One thing that a question asks for.
struct DescriptionPart {
    /// The key in the audit log.
    key: &'static str,
    /// What stands before the value in a sentence.
    words: &'static str,
    value: Value,
}

fn parts(request: &Request) -> Vec<DescriptionPart> {
    let time = |time: Option<base::time::Timestamp>| json!(time.map(|time| time.to_rfc3339()));
    let part = |key, words, value| DescriptionPart { key, words, value };
    vec![
        part("since", "since", time(request.since)),
        part("until", "until", time(request.until)),
        part("interface", "interface", json!(request.interface)),
        part("community_id", "Community ID", json!(request.community_id.map(|id| id.to_string()))),
        part("flow", "flow", json!(request.flow.as_ref().map(ToString::to_string))),
        part("address", "address", json!(request.address.map(|address| address.to_string()))),
        part("port", "port", json!(request.port.map(|port| port.to_string()))),
        part("from", "from", json!(request.tier.map(|tier| tier.write()))),
        part("limit", "at most", json!(request.limit)),
    ]
}

/// The question as a sentence, safe for a log and for a comment of a file.
pub fn sentence(request: &Request) -> String {
    let mut text = match request.expression.trim() {
        "" => "everything".to_owned(),
        expression => format!("\"{}\"", Log(expression)),
    };
    for DescriptionPart { words, value, .. } in parts(request) {
        // Writing to a string cannot fail.
        let _ = match value {
            Value::Null => Ok(()),
            Value::String(value) => write!(text, ", {words} {}", Log(&value)),
            value => write!(text, ", {words} {value}"),
        };
    }
    text
}

/// The question for the audit log: every key, null where nothing was asked.
pub fn audit(request: &Request) -> Value {
    let mut fields = serde_json::Map::new();
    fields.insert("expression".to_owned(), request.expression.trim().into());
    fields.extend(parts(request).into_iter().map(|part| (part.key.to_owned(), part.value)));
    Value::Object(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentence_and_audit_name_the_same() {
        let request = Request {
            expression: " tcp port 80 ".to_owned(),
            interface: Some("eth0\u{9b}\u{202e}".to_owned()),
            port: Some(80.into()),
            limit: Some(7),
            ..Request::default()
        };
        let sentence = sentence(&request);
        assert_eq!(sentence, "\"tcp port 80\", interface eth0\\u{9b}\\u{202e}, port 80, at most 7");
        let audit = audit(&request);
        assert_eq!(
            (&audit["expression"], &audit["port"], &audit["since"]),
            (&json!("tcp port 80"), &json!("80"), &Value::Null)
        );
        assert_eq!(audit.as_object().unwrap().len(), 1 + parts(&request).len());
    }
}
