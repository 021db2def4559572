//! The paths of the API, for the routes of the service and for its clients.

/// The status.
pub const STATUS: &str = "/v1/status";
/// What is on disk.
pub const SPOOL: &str = "/v1/spool";
/// Packets.
pub const PACKETS: &str = "/v1/packets";
/// Sessions.
pub const FLOWS: &str = "/v1/flows";
/// Searches of what sessions carried.
pub const HUNT: &str = "/v1/hunt";
/// Searches with a rule of the client's own.
pub const HUNT_RULE: &str = "/v1/hunt/rule";
/// Objects: files, bodies and mails.
pub const FILES: &str = "/v1/files";
/// The bytes of one object.
pub const FILE: &str = "/v1/files/{id}";
/// Pins.
pub const PINS: &str = "/v1/pins";
/// Whether the recorder works.
pub const HEALTH: &str = "/v1/health";
/// The OpenAPI document.
pub const OPENAPI: &str = "/v1/openapi.json";
/// Metrics in the format of Prometheus.
pub const METRICS: &str = "/metrics";
/// Sessions as binary columns.
pub const COLUMNS: &str = "/v1/columns";
/// Traffic over time.
pub const TIMELINE: &str = "/v1/timeline";
/// Packets as lines of text.
pub const LINES: &str = "/v1/lines";
/// What the two sides of sessions said.
pub const STREAMS: &str = "/v1/streams";
/// What sessions said in application protocols.
pub const MESSAGES: &str = "/v1/messages";
/// Who asks, and links that open the page.
pub const PAGE: &str = "/v1/page";
/// The exchange of a link for a session of the page.
pub const PAGE_SESSION: &str = "/v1/page/session";
/// The page.
pub const PAGE_INDEX: &str = "/";
/// A file of the page.
pub const PAGE_FILE: &str = "/page/{name}";
/// A file of the dissector that an administrator installed.
pub const PAGE_DISSECTOR: &str = "/page/dissector/{name}";
