//! Errors as `application/problem+json` (RFC 9457): the detail is a sentence that says what to do.

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::answers::NotOpened;
use super::parameters::ParameterError;
use super::role::{Role, Roles};
use base::foreign::{Foreign, Log};
use formats::writer::ExportError;
use query::QueryError;
use query::explain::Cause;

/// The content type of every error.
pub const CONTENT: &str = "application/problem+json";
/// Seconds after which a busy service may be asked again.
pub const RETRY_AFTER_S: u64 = 5;
/// Characters of a request that a message repeats.
const SHOWN_CHARS_MAX: usize = 100;

/// Why nothing was found, as words for scripts.
pub const CAUSES: &[&str] = &[
    "nothing_recorded",
    "before_horizon",
    "after_newest",
    "in_future",
    "cut",
    "filtered",
    "dropped",
    "too_many",
    "not_recorded",
    "not_opened",
    "encrypted",
    "cut_headers",
    "quoted",
    "encapsulated",
    "fragment",
    "undecided",
    "not_watched",
    "link_type",
    "never_seen",
];

/// An error (RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// What kind it is, as a URI that is never resolved: `urn:retrocap:problem:` and a word.
    #[serde(rename = "type")]
    #[schemars(extend("format" = "uri"))]
    pub kind: String,
    /// The kind in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong, and what to do.
    pub detail: Foreign,
    /// Why nothing was found, as a word for scripts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", extend("enum" = CAUSES))]
    pub cause: Option<String>,
    /// Packets that were not opened, and that may therefore match.
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    pub not_opened: Box<[NotOpened]>,
}

impl Problem {
    fn new(status: u16, kind: &str, title: &str, detail: impl Into<Foreign>) -> Self {
        Self {
            kind: format!("urn:retrocap:problem:{kind}"),
            title: title.to_owned(),
            status,
            detail: detail.into(),
            cause: None,
            not_opened: Box::default(),
        }
    }

    /// How a read ended that found this problem, for the audit log.
    pub fn outcome(&self) -> &str {
        if self.kind.ends_with(":nothing-matched") { "nothing matched" } else { self.detail.untrusted() }
    }

    /// A question that is wrong.
    pub fn bad_query(detail: impl Into<Foreign>) -> Self {
        Self::new(400, "bad-query", "The request is not valid", detail)
    }

    /// Nothing matched.
    pub fn nothing_matched(cause: &Cause) -> Self {
        let problem = Self::new(404, "nothing-matched", "No packet matches", &*cause.sentence);
        Self { cause: Some(cause.code.to_owned()), not_opened: NotOpened::list(&cause.unopened).into(), ..problem }
    }

    /// A path that does not exist.
    pub fn no_such_path(path: &str) -> Self {
        let path: String = path.chars().take(SHOWN_CHARS_MAX).collect();
        let detail = format!("there is nothing at {}; /v1/openapi.json lists all paths", Log(&path));
        Self::new(404, "no-such-path", "There is no such path", detail)
    }

    /// A method that the path does not take.
    pub fn wrong_method(method: &str, path: &str) -> Self {
        let method: String = method.chars().take(SHOWN_CHARS_MAX).collect();
        let detail = format!("{path} does not take {}; /v1/openapi.json lists the methods that it takes", Log(&method));
        Self::new(405, "wrong-method", "The path does not take this method", detail)
    }

    /// Too many queries at once.
    pub fn busy(what: &str) -> Self {
        let detail = format!(
            "this client already runs as many {what} as the memory budget allows; try again in {RETRY_AFTER_S} s"
        );
        Self::new(503, "busy", "Too many queries at once", detail)
    }

    /// A search of contents, for which the limit of a cgroup leaves no memory.
    pub fn no_memory_for_contents(limit_bytes: u64, needed_bytes: u64) -> Self {
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        let detail = format!(
            "the memory limit of the recorder's cgroup is {} MiB, and a search of contents needs {} MiB; raise the limit, or use \
             retrocap hunt or retrocap files, which search in the client",
            mib(limit_bytes),
            mib(needed_bytes)
        );
        Self::new(503, "no-memory", "There is no memory for a search of contents", detail)
    }

    /// A question that is reserved for root and the user of the recorder.
    pub fn not_allowed(detail: impl Into<Foreign>) -> Self {
        Self::new(403, "not-allowed", "The client may not do this", detail)
    }

    /// The recorder is stopping.
    pub fn stopping() -> Self {
        let detail = "the recorder is stopping; ask again when it runs again";
        Self::new(503, "stopping", "The recorder is stopping", detail)
    }

    /// The body of the request is too large.
    pub fn body_too_large(bytes_max: u64) -> Self {
        let detail = format!("the body of this request may have at most {bytes_max} bytes; ask for less at once");
        Self::new(413, "body-too-large", "The request is too large", detail)
    }

    /// The body of the request does not arrive.
    pub fn body_too_slow() -> Self {
        let detail = "the body of the request did not arrive in time; send it right after the headers";
        Self::new(408, "body-too-slow", "The request did not arrive in time", detail)
    }

    /// The client has not the role that the question takes.
    pub fn forbidden(who: &str, has: Roles, needed: Role) -> Self {
        let detail = format!(
            "{who} has {has}, and this takes the role {needed}: ask the recorder's administrator to add it, in the \
             certificate \
             (retrocap certs client NAME --role {needed}) or under [[client]] in its configuration"
        );
        Self::new(403, "forbidden", "The client may not do this", detail)
    }

    /// Plain TCP does not serve what changes something.
    pub fn forbidden_in_the_clear(needed: Role) -> Self {
        let detail = format!(
            "{needed} is not served over plain TCP, because any web page could ask for it; use the socket, or --listen"
        );
        Self::new(403, "forbidden", "The client may not do this", detail)
    }

    /// A web page of another origin made a browser ask.
    pub fn foreign_origin(origin: &str) -> Self {
        let detail = format!(
            "a web page of {} asks this recorder, which answers only its own pages; ask without an Origin header",
            quoted(origin)
        );
        Self::new(403, "foreign-origin", "The request comes from a web page of another origin", detail)
    }

    /// A request at the port of the page that has no session, or one that has ended.
    pub fn page_session_ended() -> Self {
        let detail = "this link or session of the page has ended: it was used, belongs to another user, or was not used for an \
                      hour; run `retrocap page` for a new link";
        Self::new(401, "page-session-ended", "The session of the page has ended", detail)
    }

    /// A link is asked for where there is none.
    pub fn no_page(detail: &str) -> Self {
        Self::new(403, "no-page", "The recorder cannot make a link to its page", detail)
    }

    /// The request does not name exactly one host.
    pub fn ambiguous_host(count: usize) -> Self {
        let detail = format!("the request has {count} Host headers; send exactly one, as HTTP/1.1 requires");
        Self::new(400, "ambiguous-host", "The request does not name one host", detail)
    }

    /// A browser asks for a name that is not this host.
    pub fn wrong_host(host: &str) -> Self {
        let detail = format!("this recorder is not called {}; ask for localhost or 127.0.0.1", quoted(host));
        Self::new(421, "wrong-host", "The Host header names another machine", detail)
    }

    /// The read could not be written to the audit log.
    pub fn not_audited(path: &Path, reason: &str) -> Self {
        let directory = path.parent().unwrap_or(path).display();
        // Reasons are messages of the kernel.
        let remedy = match () {
            () if reason.contains("No space") || reason.contains("quota") => "make room for it".to_owned(),
            () if reason.contains("denied") || reason.contains("not permitted") => format!(
                "give {directory} and the files in it to the recorder's user (sandbox.uid in `retrocap status --json`), or \
                 restart the recorder as root, which does so"
            ),
            () if reason.contains("Read-only") => format!("make {directory} writable"),
            () => format!("look at {directory}"),
        };
        let detail = format!(
            "the audit log {} cannot be written ({reason}), and nothing is read or pinned without: {remedy}, or start the \
             recorder with --audit best-effort",
            path.display()
        );
        Self::new(503, "not-audited", "The audit log cannot be written", detail)
    }

    /// More selections than the memory allows.
    pub fn too_many_selections(most: u64) -> Self {
        let detail = format!("there is memory for {most} selections in one request; send fewer at once");
        Self::new(413, "too-many-selections", "Too many selections at once", detail)
    }

    /// Pins have no room for another.
    pub fn pins_full(detail: impl Into<Foreign>) -> Self {
        Self::new(409, "pins-full", "Pins have no room for that", detail)
    }

    /// There is no pin with this number.
    pub fn no_such_pin(id: u64) -> Self {
        let detail = format!("there is no pin {id}, or it has ended; `retrocap pin --list` shows the pins");
        Self::new(404, "no-such-pin", "There is no such pin", detail)
    }

    /// A fault of the recorder.
    pub fn internal() -> Self {
        let detail = "the recorder failed to answer, and its log says why; recording continues; please report this";
        Self::new(500, "internal", "The recorder failed to answer", detail)
    }
}

/// A part of a request, as a message repeats it.
fn quoted(text: &str) -> String {
    let text: String = text.chars().take(SHOWN_CHARS_MAX).collect();
    format!("\"{}\"", Log(&text))
}

impl From<ParameterError> for Problem {
    fn from(error: ParameterError) -> Self {
        Self::bad_query(error.to_string())
    }
}

impl From<QueryError> for Problem {
    fn from(error: QueryError) -> Self {
        Self::bad_query(error.to_string())
    }
}

impl From<ExportError> for Problem {
    fn from(error: ExportError) -> Self {
        Self::bad_query(error.to_string())
    }
}
