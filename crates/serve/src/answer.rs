//! Answers: what is sent for a question, free of HTTP and of connections.
//!
//! An [`Answer`] is a stream of chunks that a query makes on a thread of its own, and an end that says what it had and what
//! it lacks. HTTP sends that end as trailers; PCAP-over-IP sends the chunks alone.

pub(crate) mod candidates;
pub(crate) mod columns;
pub(crate) mod content;
pub(crate) mod dissector;
pub(crate) mod flows;
pub(crate) mod follow;
pub(crate) mod lines;
pub(crate) mod narrow;
pub(crate) mod on_disk;
pub(crate) mod packet_lines;
pub(crate) mod packets;
pub(crate) mod pins;
pub(crate) mod selection_query;
pub(crate) mod selections;
pub(crate) mod statement;
pub(crate) mod stream;

use formats::writer::Format;

/// An answer that has begun.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) media: AnswerKind,
    pub(crate) body: stream::Body,
}

/// What an answer consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AnswerKind {
    /// A capture file.
    Capture(Format),
    /// A pcapng file of sessions in which something may be found.
    Candidates,
    /// Lines of JSON that each stand for a session or a sum.
    Flows,
    /// Lines of JSON that contain files.
    Files,
    /// Sessions as binary columns.
    Columns,
    /// A file of the dissector.
    Dissector,
    /// Lines of JSON that each stand for a packet or a part of a stream.
    Lines,
    /// Lines of JSON that each stand for a match.
    Matches,
    /// Lines of JSON that each stand for an object.
    Objects,
    /// The content of one object, which comes from the network.
    Object {
        /// A name for a file, of letters, digits and a dot.
        file_name: String,
    },
}
