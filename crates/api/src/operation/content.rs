//! The operations that search what sessions carried.

use super::{BAD_QUERY, Content, NOTHING_MATCHED, Operation, Success, schema};
use crate::content::{MatchLine, ObjectLine};
use crate::question::{FilesQuestion, HuntQuestion, SelectionQuestion};

const CONTENT_TRAILERS: &[(&str, &str, &str)] = &[
    ("retrocap-matches", "integer", "Lines of the answer."),
    ("retrocap-packets", "integer", "Packets that were read."),
    ("retrocap-overtaken", "integer", "Packets of the selection that were evicted before they were read."),
    ("retrocap-note", "string", "Why the answer is incomplete; absent when it is complete."),
    ("retrocap-missing", "string", "What was searched, and what could not be."),
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
