//! The operations that the web page uses beside those of the command line.

use super::{BAD_QUERY, Content, NOTHING_MATCHED, Operation, Success, document_of, schema};
use crate::page_answers::{
    NewPageLink, PacketLine, PageExchange, PageLink, PageToken, PageVisitor, SessionMessage, StreamPart,
};
use crate::question::{LinesQuestion, MessagesQuestion, SelectionQuestion, StreamsQuestion, TimelineQuestion};
use query::columns::ColumnsEnd;
use query::timeline::Timeline;

const NO_SUCH_FILE: &str = "There is no such file.";
const ENDED: &str = "The session or the link has ended, was used, or belongs to another user.";
const READ_TRAILERS: &[(&str, &str, &str)] = &[
    ("retrocap-packets", "integer", "Packets that were read."),
    ("retrocap-overtaken", "integer", "Packets of the selection that were evicted before they were read."),
    ("retrocap-note", "string", "Why the answer is incomplete; absent when it is complete."),
    ("retrocap-missing", "string", "What matches and is gone; absent when nothing is known to be."),
];

/// `GET /v1/columns`
pub const COLUMNS: Operation = Operation {
    id: "columns",
    summary: "The known sessions as binary columns, for programs that show very many",
    description: Some(
        "Blocks of little-endian columns, then an end. A block: RCB1, rows (u32), addresses (u32), 0 (u32); each address: 4, 6, or 1 for \
         a link layer (u8), and 4, 16 or 6 bytes; 0 up to a multiple of 8 bytes; then 19 columns: base (u64), width 0, 1, 2, 4 or 8 (u8), 0 (7 bytes), rows numbers of that width, 0 \
         up to a multiple of 8. A value is the base plus the number. The columns: id, first_ns, duration_ns, originator and \
         responder (numbers of addresses of the block), their ports, protocol (with 65536 added, an ethertype), state, flags (1 first \
         packet kept, 2 first kB kept, 4 kept packets unknown), interface, vlan (0 for none, else the ID plus 1), packets of \
         originator and responder, their bytes, kept packets, kept bytes, holes. The end: RCBE, bytes (u32), 0 (u64), so many \
         bytes of JSON, which has the names of columns, states and interfaces, and as_of: sessions that had packets later come in \
         an answer since then. An answer without an end is incomplete.",
    ),
    parameters: SelectionQuestion::parameters,
    body: None,
    success: Success {
        status: 200,
        description: "The sessions, in no particular order; x-end describes the JSON of the end.",
        contents: &[("application/vnd.retrocap.columns", Content::BinaryWithEnd(schema::<ColumnsEnd>))],
        trailers: &[],
    },
    problems: &[(400, BAD_QUERY)],
};

/// `GET /v1/timeline`
pub const TIMELINE: Operation = Operation {
    id: "timeline",
    summary: "Sessions, bytes and coverage in equal spans of time",
    description: Some(
        "By default, over everything that is known. Times of lost packets and of gaps are of the whole recorder.",
    ),
    parameters: TimelineQuestion::parameters,
    body: None,
    success: Success {
        status: 200,
        description: "The sums of the sessions that match.",
        contents: &[("application/json", Content::Json(schema::<Timeline>))],
        trailers: &[],
    },
    problems: &[(400, BAD_QUERY)],
};

/// `GET /v1/lines`
pub const LINES: Operation = Operation {
    id: "lines",
    summary: "Packets as lines of text, with their bytes",
    description: Some(
        "One JSON object a line, in time order: what retrocap get prints for a packet, and its first bytes.",
    ),
    parameters: LinesQuestion::parameters,
    body: None,
    success: Success {
        status: 200,
        description: "The packets. Trailers are sent to clients that send TE: trailers.",
        contents: &[("application/x-ndjson", Content::Lines(&[schema::<PacketLine>]))],
        trailers: READ_TRAILERS,
    },
    problems: &[(400, BAD_QUERY), (404, NOTHING_MATCHED)],
};

/// `GET /v1/streams`
pub const STREAMS: Operation = Operation {
    id: "streams",
    summary: "What the two sides of sessions sent, with the gaps",
    description: Some(
        "One JSON object a line: bytes or a gap, in the order in which they were received. One client reads contents at a time; \
         others wait, or get 503.",
    ),
    parameters: StreamsQuestion::parameters,
    body: None,
    success: Success {
        status: 200,
        description: "The parts. Trailers are sent to clients that send TE: trailers.",
        contents: &[("application/x-ndjson", Content::Lines(&[schema::<StreamPart>]))],
        trailers: READ_TRAILERS,
    },
    problems: &[(400, BAD_QUERY), (404, NOTHING_MATCHED)],
};

/// `GET /v1/messages`
pub const MESSAGES: Operation = Operation {
    id: "messages",
    summary: "What sessions said in application protocols, with certificates and fingerprints",
    description: Some(
        "One JSON object a line: a message of a protocol that was recognised by content, in the order in which it was complete. One client          reads contents at a time; others wait, or get 503.",
    ),
    parameters: MessagesQuestion::parameters,
    body: None,
    success: Success {
        status: 200,
        description: "The messages. Trailers are sent to clients that send TE: trailers.",
        contents: &[("application/x-ndjson", Content::Lines(&[schema::<SessionMessage>]))],
        trailers: READ_TRAILERS,
    },
    problems: &[(400, BAD_QUERY), (404, NOTHING_MATCHED)],
};

/// `GET /v1/page`
pub const PAGE: Operation = Operation {
    problems: &[(401, ENDED)],
    ..document_of(
        "visitor",
        "Who asks, and what the recorder offers",
        &[("application/json", Content::Json(schema::<PageVisitor>))],
    )
};

/// `POST /v1/page`
pub const PAGE_LINK: Operation = Operation {
    id: "page-link",
    summary: "Make a link that opens the page in a browser of this host",
    description: Some(
        "Over the Unix socket alone. From then on, the recorder listens on a loopback port for the page. The link works once, for \
         the user who asked; its session has the roles of who asked.",
    ),
    parameters: Vec::new,
    body: Some((schema::<NewPageLink>, None)),
    success: Success {
        status: 201,
        description: "The link.",
        contents: &[("application/json", Content::Json(schema::<PageLink>))],
        trailers: &[],
    },
    problems: &[(400, BAD_QUERY), (401, ENDED)],
};

/// `POST /v1/page/session`
pub const PAGE_EXCHANGE: Operation = Operation {
    id: "page-exchange",
    summary: "Exchange a link for a session of the page",
    description: Some("At the port of the page alone."),
    parameters: Vec::new,
    body: Some((schema::<PageExchange>, None)),
    success: Success {
        status: 201,
        description: "The session.",
        contents: &[("application/json", Content::Json(schema::<PageToken>))],
        trailers: &[],
    },
    problems: &[(400, BAD_QUERY), (401, ENDED)],
};

/// `DELETE /v1/page/session`
pub const PAGE_END: Operation = Operation {
    id: "page-end",
    summary: "End the session of the page that asks",
    description: None,
    parameters: Vec::new,
    body: None,
    success: Success { status: 204, description: "It has ended.", contents: &[], trailers: &[] },
    problems: &[(401, ENDED)],
};

/// `GET /`
pub const PAGE_INDEX: Operation = document_of("page", "The page", &[("text/html", Content::Text)]);

/// `GET /page/{name}`
pub const PAGE_FILE: Operation = Operation {
    problems: &[(404, NO_SUCH_FILE)],
    ..document_of(
        "page-file",
        "A file of the page",
        &[
            ("text/javascript", Content::Text),
            ("text/css", Content::Text),
            ("text/html", Content::Text),
            ("image/svg+xml", Content::Text),
        ],
    )
};

/// `GET /page/dissector/{name}`
pub const PAGE_DISSECTOR: Operation = Operation {
    problems: &[(404, NO_SUCH_FILE)],
    ..document_of(
        "page-dissector",
        "A file of the dissector that the administrator installed (page-dissector)",
        &[("application/octet-stream", Content::Binary)],
    )
};
