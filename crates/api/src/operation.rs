//! The operations of the API: what each takes and gives, and the OpenAPI document that follows from it.

mod content;
mod page;

pub use content::{CANDIDATES, FILE, FILES, HUNT, HUNT_RULE};
pub use page::{
    COLUMNS, LINES, MESSAGES, PAGE, PAGE_DISSECTOR, PAGE_END, PAGE_EXCHANGE, PAGE_FILE, PAGE_INDEX, PAGE_LINK, STREAMS,
    TIMELINE,
};

use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

use super::answers::{Health, Outcome, Piece, PinList, PinStatus, Total};
use super::bodies::{NewPin, SelectionList};
use super::problem::{self, Problem};
use super::question::{FlowsQuestion, PacketsQuestion, Parameter, UnpinQuestion};
use super::role::Role;
use super::value::Kind;
use query::flows::Flow;
use query::status::{SpoolStatus, Status};
use query::sums::Sum;

type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// What an operation takes and gives.
#[derive(Clone, Copy)]
pub struct Operation {
    id: &'static str,
    summary: &'static str,
    description: Option<&'static str>,
    parameters: fn() -> Vec<&'static Parameter>,
    body: Option<(SchemaOf, Option<&'static str>)>,
    success: Success,
    /// Statuses of problems beyond those that every operation has, with their descriptions.
    problems: &'static [(u16, &'static str)],
}

impl std::fmt::Debug for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.id)
    }
}

#[derive(Clone, Copy)]
struct Success {
    status: u16,
    description: &'static str,
    contents: &'static [(&'static str, Content)],
    trailers: &'static [(&'static str, &'static str, &'static str)],
}

#[derive(Clone, Copy)]
enum Content {
    Json(SchemaOf),
    /// Lines of JSON, each of one of these types.
    Lines(&'static [SchemaOf]),
    Binary,
    /// Binary data that ends with a document of this type.
    BinaryWithEnd(SchemaOf),
    Text,
    Object,
}

const BAD_QUERY: &str = "The request is not valid; the detail says why, and what would be valid.";
const NOTHING_MATCHED: &str = "Nothing matches; cause and detail say why.";
const BUSY: &str = "This client already runs as many queries as the memory budget allows, or the recorder is \
    stopping, or the audit log cannot be written.";
/// What every operation may answer.
const ALWAYS: &[(u16, &str)] = &[
    (400, "The request does not name exactly one host."),
    (403, "The client lacks the role for this, or the request comes from a web page of another origin over plain TCP."),
    (408, "The body of the request did not arrive in time."),
    (413, "The body of the request is too large."),
    (421, "Over plain TCP: the Host header names another machine."),
    (503, BUSY),
];

const FILE_TRAILERS: &[(&str, &str, &str)] = &[
    ("retrocap-packets", "integer", "Packets in the file."),
    ("retrocap-bytes", "integer", "Captured bytes of these packets."),
    ("retrocap-overtaken", "integer", "Packets of the window that were evicted before they could be sent."),
    ("retrocap-note", "string", "Why the file is incomplete; absent when it is complete."),
    (
        "retrocap-missing",
        "string",
        "Matching packets that are gone, with counts: sessions that were cut, packets that the kernel dropped; \
         absent when nothing is known to be missing.",
    ),
    (
        "retrocap-record",
        "string",
        "With seal: base64 of a JSON object with record (the SHA-256 of the file, when and by which recorder it was sent) and \
         signature (over record, as ssh-keygen -Y makes it); absent when the recorder has no key.",
    ),
];
const FLOW_TRAILERS: &[(&str, &str, &str)] = &[
    ("retrocap-flows", "integer", "Lines of the answer."),
    ("retrocap-sessions", "integer", "All sessions that match, listed or not."),
    ("retrocap-session-packets", "integer", "Their packets."),
    ("retrocap-session-bytes", "integer", "Their bytes on the wire."),
    ("retrocap-kept-bytes", "integer", "Their captured bytes that are still kept."),
    ("retrocap-cut-sessions", "integer", "Sessions among them that have lost packets, but not all."),
    ("retrocap-gone-sessions", "integer", "Sessions among them without packets."),
    (
        "retrocap-unknown-sessions",
        "integer",
        "Sessions among them that lost their entry while packets were kept; whether these still are is not known.",
    ),
    ("retrocap-sums", "integer", "All sums, listed or not; absent without by."),
    ("retrocap-next", "string", "The mark of the next page, for after; absent when everything was listed."),
    ("retrocap-note", "string", "Why the list is incomplete; absent when it is complete."),
];

fn schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// An operation without parameters and body, and with one document as its answer.
const fn document_of(
    id: &'static str,
    summary: &'static str,
    content: &'static [(&'static str, Content)],
) -> Operation {
    Operation {
        id,
        summary,
        description: None,
        parameters: Vec::new,
        body: None,
        success: Success { status: 200, description: summary, contents: content, trailers: &[] },
        problems: &[],
    }
}

/// `GET /v1/status`
pub const STATUS: Operation = Operation {
    description: Some("The document of retrocap status --json."),
    ..document_of(
        "status",
        "What is kept, how far back, what was lost and why",
        &[("application/json", Content::Json(schema::<Status>))],
    )
};

/// `GET /v1/spool`
pub const SPOOL: Operation = Operation {
    description: Some("The member spool of the status: null without a spool."),
    ..document_of(
        "spool",
        "What is on disk by depth, what never reached it, and how fast the disk is",
        &[("application/json", Content::Json(schema::<Option<SpoolStatus>>))],
    )
};

/// `GET /v1/health`
pub const HEALTH: Operation = Operation {
    description: Some(
        "The status is 200 whenever the recorder answers, so that nothing restarts a degraded recorder, which would \
         lose its history.",
    ),
    ..document_of(
        "health",
        "Whether everything is recorded, and if not, why",
        &[("application/json", Content::Json(schema::<Health>))],
    )
};

/// `GET /metrics`
pub const METRICS: Operation = Operation {
    description: Some("Text format 0.0.4."),
    ..document_of("metrics", "The counts for Prometheus", &[("text/plain", Content::Text)])
};

/// `GET /v1/openapi.json`
pub const OPENAPI: Operation = document_of("openapi", "This document", &[("application/json", Content::Object)]);

/// `GET /v1/packets`
pub const PACKETS: Operation = Operation {
    id: "packets",
    summary: "Past packets",
    description: Some(
        "The packets that match, in time order, as a file that is generated while it is sent. The answer begins with \
         the first match. An unknown key is refused. With follow, a request with a chunked body that stays open \
         has an answer that ends, with its trailers, when that body does.",
    ),
    parameters: PacketsQuestion::parameters,
    body: None,
    success: Success {
        status: 200,
        description: "The file. A connection that ends without its last chunk means that the file is cut short. Trailers are \
                      sent to clients that send TE: trailers.",
        contents: &[("application/x-pcapng", Content::Binary), ("application/vnd.tcpdump.pcap", Content::Binary)],
        trailers: FILE_TRAILERS,
    },
    problems: &[(400, BAD_QUERY), (404, NOTHING_MATCHED)],
};

/// `POST /v1/packets`
pub const SELECTIONS: Operation = Operation {
    id: "selections",
    summary: "Packets of many selections, found in one pass",
    description: Some(
        "For alerts: each selection names a flow, a host or a Community ID, and a window in which its sessions had packets. How \
         many fit at once depends on the memory budget; a list that is too long is refused with 413, which names the \
         length that fits.",
    ),
    parameters: Vec::new,
    body: Some((
        schema::<SelectionList>,
        Some(
            r#"{"selections":[{"flow":"10.0.0.5:51234 192.0.2.7:443 tcp","since":"2026-11-22T09:59:55Z","until":"2026-11-22T10:00:05Z"}],"answer":"split"}"#,
        ),
    )),
    success: Success {
        status: 200,
        description: "answer \"file\": as for GET. Otherwise lines of JSON: pieces of files, then an Outcome for each selection, \
                      then the Total; an answer that ends before the Total is incomplete.",
        contents: &[
            ("application/x-pcapng", Content::Binary),
            ("application/vnd.tcpdump.pcap", Content::Binary),
            (
                "application/x-ndjson",
                Content::Lines(&[schema::<Piece<'static>>, schema::<Outcome>, schema::<Total<'static>>]),
            ),
        ],
        trailers: FILE_TRAILERS,
    },
    problems: &[(400, BAD_QUERY), (404, NOTHING_MATCHED)],
};

/// `GET /v1/flows`
pub const FLOWS: Operation = Operation {
    id: "flows",
    summary: "The known sessions, including those whose packets are gone",
    description: Some(
        "One JSON object a line: a Flow, or a Sum where by is given. A session matches a window that it overlaps.",
    ),
    parameters: FlowsQuestion::parameters,
    body: None,
    success: Success {
        status: 200,
        description: "The sessions. Trailers are sent to clients that send TE: trailers.",
        contents: &[("application/x-ndjson", Content::Lines(&[schema::<Flow>, schema::<Sum>]))],
        trailers: FLOW_TRAILERS,
    },
    problems: &[(400, BAD_QUERY), (404, NOTHING_MATCHED)],
};

/// `GET /v1/pins`
pub const PINS: Operation = document_of(
    "pins",
    "Filters whose sessions are kept whole, and the memory that they use",
    &[("application/json", Content::Json(schema::<PinList>))],
);

/// `POST /v1/pins`
pub const PIN: Operation = Operation {
    id: "pin",
    summary: "Keep the sessions that match a filter whole",
    description: Some(
        "Protects what is already kept of these sessions and what arrives later, up to a quarter of the budget for all pins \
         together. Packets move to the memory of the pin when they would be evicted otherwise. A pin that does not fit is \
         refused; packets of a session that grows into the limit age like others, which is counted.",
    ),
    parameters: Vec::new,
    body: Some((schema::<NewPin>, None)),
    success: Success {
        status: 201,
        description: "The new pin.",
        contents: &[("application/json", Content::Json(schema::<PinStatus>))],
        trailers: &[],
    },
    problems: &[
        (400, BAD_QUERY),
        (
            409,
            "Pins have no room: the sessions that match hold more than is left, or there are nine pins already, or three of hunts.",
        ),
    ],
};

/// `DELETE /v1/pins`
pub const UNPIN: Operation = Operation {
    id: "unpin",
    summary: "Remove a pin",
    description: None,
    parameters: UnpinQuestion::parameters,
    body: None,
    success: Success {
        status: 204,
        description: "The pin is removed; its packets age like bulk.",
        contents: &[],
        trailers: &[],
    },
    problems: &[(400, BAD_QUERY), (404, "There is no such pin.")],
};

/// One operation at its path, with its method in lower case.
#[derive(Clone, Copy, Debug)]
pub struct OperationAtPath {
    /// The path.
    pub path: &'static str,
    /// `get`, `post` or `delete`.
    pub method: &'static str,
    /// The role that it takes; `None` if it takes none.
    pub role: Option<Role>,
    /// What it takes and gives.
    pub operation: &'static Operation,
}

/// The OpenAPI document of these operations.
pub fn openapi(operations: impl IntoIterator<Item = OperationAtPath>) -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let mut paths = Map::new();
    for OperationAtPath { path, method, role, operation } in operations {
        let methods = paths.entry(path).or_insert_with(|| json!({}));
        methods[method] = operation.document(path, role, &mut generator);
    }
    generator.subschema_for::<Problem>();
    let mut schemas = Value::Object(generator.take_definitions(true));
    simplify(&mut schemas);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Retrocap",
            "version": "1",
            "description": "Past packets. Served over HTTP/1.1 on a Unix socket: curl --unix-socket \
                            /run/retrocap/retrocap.sock http://localhost/v1/status; with --listen also over TLS to clients \
                            with certificates.",
            "license": { "name": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "http://localhost", "description": "The host does not matter on a Unix socket." }],
        "paths": paths,
        "components": { "schemas": schemas },
    })
}

impl Operation {
    fn document(&self, path: &str, role: Option<Role>, generator: &mut SchemaGenerator) -> Value {
        let mut document = json!({ "operationId": self.id, "summary": self.summary });
        let takes = role.map_or("Takes no role.".to_owned(), |role| format!("Takes the role {role}."));
        document["description"] = self.description.map_or(takes.clone(), |text| format!("{text} {takes}")).into();
        let mut parameters: Vec<Value> = (self.parameters)().into_iter().flat_map(Parameter::documents).collect();
        if let Some((_, name)) = path.strip_suffix('}').and_then(|path| path.rsplit_once('{')) {
            let place = json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } });
            parameters.insert(0, place);
        }
        if !parameters.is_empty() {
            document["parameters"] = parameters.into();
        }
        if let Some((schema, example)) = self.body {
            let mut content = json!({ "schema": schema(generator) });
            if let Some(example) = example.and_then(|text| serde_json::from_str::<Value>(text).ok()) {
                content["example"] = example;
            }
            document["requestBody"] = json!({ "required": true, "content": { "application/json": content } });
        }
        let mut responses = Map::new();
        responses.insert(self.success.status.to_string(), self.success.document(generator));
        for &(status, description) in self.problems.iter().chain(ALWAYS) {
            let known = responses.entry(status.to_string()).or_insert_with(|| problem_document(status));
            let text = known["description"].as_str().unwrap_or_default();
            let and = if text.is_empty() { "" } else { " " };
            known["description"] = format!("{text}{and}{description}").into();
        }
        document["responses"] = Value::Object(responses);
        document
    }
}

impl Success {
    fn document(&self, generator: &mut SchemaGenerator) -> Value {
        let mut document = json!({ "description": self.description });
        for &(media_type, content) in self.contents {
            let schema = match content {
                Content::Json(schema) => json!(schema(generator)),
                Content::Lines(schemas) => {
                    let lines: Vec<Schema> = schemas.iter().map(|schema| schema(generator)).collect();
                    json!({ "type": "string", "description": "Lines of JSON.", "x-lines": { "anyOf": lines } })
                }
                Content::Binary => json!({ "type": "string", "format": "binary" }),
                Content::BinaryWithEnd(end) => {
                    json!({ "type": "string", "format": "binary", "x-end": end(generator) })
                }
                Content::Text => json!({ "type": "string" }),
                Content::Object => json!({ "type": "object" }),
            };
            document["content"][media_type] = json!({ "schema": schema });
        }
        for &(name, kind, description) in self.trailers {
            document["headers"][name] =
                json!({ "description": format!("{description} A trailer."), "schema": { "type": kind } });
        }
        document
    }
}

fn problem_document(status: u16) -> Value {
    let schema = json!({ "$ref": "#/components/schemas/Problem" });
    let mut document = json!({ "description": "", "content": { (problem::CONTENT): { "schema": schema } } });
    if status == 503 {
        document["headers"]["Retry-After"] =
            json!({ "description": "Seconds to wait.", "schema": { "type": "integer" } });
    }
    document
}

impl Parameter {
    /// The parameter, and each other name of it.
    fn documents(&self) -> Vec<Value> {
        let names = std::iter::once((self.name, self.description.to_owned()));
        let aliases = self.aliases.iter().map(|&alias| (alias, format!("Another name of {}.", self.name)));
        let document = |(name, description): (&str, String)| {
            let mut document = json!({
                "name": name, "in": "query", "required": self.required, "description": description, "schema": self.kind.schema(),
            });
            if self.kind == Kind::Flag {
                document["allowEmptyValue"] = true.into();
            }
            if let Some(example) = self.example.filter(|_| name == self.name) {
                let number = example.parse::<u64>().ok().filter(|_| matches!(self.kind, Kind::Number { .. }));
                document["example"] = number.map_or_else(|| example.into(), Value::from);
            }
            document
        };
        names.chain(aliases).map(document).collect()
    }
}

impl Kind {
    fn schema(self) -> Value {
        match self {
            Self::Text => json!({ "type": "string" }),
            Self::Number { min, max: None } => json!({ "type": "integer", "minimum": min }),
            Self::Number { min, max: Some(max) } => json!({ "type": "integer", "minimum": min, "maximum": max }),
            Self::Flag => json!({ "type": "string", "enum": ["", "1", "true", "0", "false"] }),
            Self::Words(words) => json!({ "type": "string", "enum": words }),
            Self::Texts => json!({ "type": "array", "items": { "type": "string" } }),
        }
    }
}

/// Writes enums whose variants have descriptions as `enum`, which all tools read, in place of `oneOf`.
fn simplify(value: &mut Value) {
    if let Some(variants) = value.get("oneOf").and_then(Value::as_array) {
        let words: Option<Vec<Value>> = variants.iter().map(|variant| variant.get("const").cloned()).collect();
        if let (Some(words), Some(object)) = (words, value.as_object_mut()) {
            object.remove("oneOf");
            object.insert("type".to_owned(), "string".into());
            object.insert("enum".to_owned(), words.into());
        }
    }
    match value {
        Value::Array(items) => items.iter_mut().for_each(simplify),
        Value::Object(members) => members.values_mut().for_each(simplify),
        _ => {}
    }
}
