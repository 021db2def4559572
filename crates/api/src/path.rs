//! The paths of the API, for the routes of the service and for its clients.

/// The status.
pub const STATUS: &str = "/v1/status";
/// Packets.
pub const PACKETS: &str = "/v1/packets";
/// Sessions.
pub const FLOWS: &str = "/v1/flows";
/// Pins.
pub const PINS: &str = "/v1/pins";
/// Whether the recorder works.
pub const HEALTH: &str = "/v1/health";
/// The OpenAPI document.
pub const OPENAPI: &str = "/v1/openapi.json";
/// Metrics in the format of Prometheus.
pub const METRICS: &str = "/metrics";
