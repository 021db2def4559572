//! The operations that search what sessions carried.

use super::{BAD_QUERY, Content, NOTHING_MATCHED, Operation, Success, schema};
use crate::candidates::CandidateList;
use crate::content::{MatchLine, ObjectLine};
use crate::page_answers::OwnRule;
use crate::question::{FilesQuestion, HuntQuestion, OwnRuleQuestion, SelectionQuestion};

const CONTENT_TRAILERS: &[(&str, &str, &str)] = &[
    ("retrocap-matches", "integer", "Lines of the answer."),
    ("retrocap-packets", "integer", "Packets that were read."),
    ("retrocap-overtaken", "integer", "Packets of the selection that were evicted before they were read."),
    ("retrocap-note", "string", "Why the answer is incomplete; absent when it is complete."),
    ("retrocap-missing", "string", "What was searched, and what could not be."),
];

const CANDIDATE_TRAILERS: &[(&str, &str, &str)] = &[
    ("retrocap-packets", "integer", "Packets in the file."),
    ("retrocap-bytes", "integer", "Captured bytes of these packets."),
    ("retrocap-overtaken", "integer", "Packets of the selection that were evicted before they were read."),
    ("retrocap-searched-sessions", "integer", "Sessions that were looked at; absent if all were sent."),
    ("retrocap-searched-bytes", "integer", "Payload bytes of these sessions."),
    ("retrocap-encrypted-sessions", "integer", "Sessions among them that are encrypted."),
    ("retrocap-encrypted-bytes", "integer", "Payload bytes of these."),
    ("retrocap-undecoded", "integer", "Packets whose headers could not be decoded down to a payload."),
    ("retrocap-without-start", "integer", "Directions whose start was not captured."),
    ("retrocap-truncated", "integer", "Packets that were truncated at capture."),
    ("retrocap-truncated-bytes", "integer", "Bytes that these lack."),
    ("retrocap-cut-sessions", "integer", "Sessions that were looked at and have lost packets."),
    ("retrocap-note", "string", "Why the file is incomplete; absent when it is complete."),
    (
        "retrocap-missing",
        "string",
        "Packets of the selection that are gone; absent when nothing is known to be missing.",
    ),
];

/// `GET /v1/hunt`
pub const HUNT: Operation = Operation {
    id: "hunt",
    summary: "What sessions carried: text, bytes, regular expressions, indicators, named attacks",
    description: Some(
        "One JSON object a line, as matches are found. A match is looked for in the bytes that a side sent, across packets, \
         and never across bytes that are missing. One client searches at a time; others wait, or get 503.",
    ),
    parameters: HuntQuestion::parameters,
    body: None,
    success: Success {
        status: 200,
        description: "The matches. Trailers are sent to clients that send TE: trailers.",
        contents: &[("application/x-ndjson", Content::Lines(&[schema::<MatchLine>]))],
        trailers: CONTENT_TRAILERS,
    },
    problems: &[(400, BAD_QUERY), (404, NOTHING_MATCHED)],
};

/// `POST /v1/hunt/rule`
pub const HUNT_RULE: Operation = Operation {
    id: "hunt-rule",
    summary: "What sessions carried: a rule of your own",
    description: Some(
        "The test conversations of the rule have to pass, as with retrocap hunt --check; then it is searched for as with \
         retrocap hunt --attack FILE. The answer is that of GET /v1/hunt.",
    ),
    parameters: OwnRuleQuestion::parameters,
    body: Some((schema::<OwnRule>, None)),
    ..HUNT
};

/// `POST /v1/hunt`
pub const CANDIDATES: Operation = Operation {
    id: "candidates",
    summary: "Packets of the sessions that may contain some bytes or addresses",
    description: Some(
        "For clients that search themselves. A session is sent with the packets of the selection if it may contain a literal, \
         within a packet or across packets, or has an address. A session that is not sent contains none. What is on disk is \
         sent without a look at it. One client searches at a time; others wait, or get 503. If nothing may match, the file \
         has no packets.",
    ),
    parameters: SelectionQuestion::parameters,
    body: Some((schema::<CandidateList>, Some(r#"{"literals":["70617373776f7264"],"addresses":["192.0.2.0/24"]}"#))),
    success: Success {
        status: 200,
        description: "A capture file, as of GET /v1/packets.",
        contents: &[("application/x-pcapng", Content::Binary)],
        trailers: CANDIDATE_TRAILERS,
    },
    problems: &[(400, BAD_QUERY)],
};

/// `GET /v1/files`
pub const FILES: Operation = Operation {
    id: "files",
    summary: "Objects that sessions carried: files, bodies, mails and their parts",
    description: Some(
        "One JSON object a line; path is the target of the request that gets its bytes. Objects of more than 16 MiB are \
         listed in part, which their notes say. One client reads objects at a time; others wait, or get 503.",
    ),
    parameters: FilesQuestion::parameters,
    body: None,
    success: Success {
        status: 200,
        description: "The objects. Trailers are sent to clients that send TE: trailers.",
        contents: &[("application/x-ndjson", Content::Lines(&[schema::<ObjectLine>]))],
        trailers: CONTENT_TRAILERS,
    },
    problems: &[(400, BAD_QUERY), (404, NOTHING_MATCHED)],
};

/// `GET /v1/files/{id}`
pub const FILE: Operation = Operation {
    id: "file",
    summary: "The bytes of one object",
    description: Some(
        "The id is the SHA-256 of its content, followed by .partial if not all of it is there, as in the path that \
         GET /v1/files lists. The selection says in which packets it is looked for. The content comes from the network: it \
         is sent as application/octet-stream and as an attachment, with X-Content-Type-Options: nosniff.",
    ),
    parameters: SelectionQuestion::parameters,
    body: None,
    success: Success {
        status: 200,
        description: "The content. A connection that ends without its last chunk means that it is cut short.",
        contents: &[("application/octet-stream", Content::Binary)],
        trailers: &[],
    },
    problems: &[(400, BAD_QUERY), (404, NOTHING_MATCHED)],
};
