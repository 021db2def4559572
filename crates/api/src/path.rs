//! The paths of the API, for the routes of the service and for its clients.

/// The status.
pub const STATUS: &str = "/v1/status";
/// Packets.
pub const PACKETS: &str = "/v1/packets";
/// Sessions.
pub const FLOWS: &str = "/v1/flows";
/// Searches of what sessions carried.
pub const HUNT: &str = "/v1/hunt";
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
