//! Reads Suricata's EVE format: one JSON object per line.
//!
//! Source: the chapter "Eve JSON Format" of Suricata's manual. The reader accepts all events that name endpoints, not
//! only alerts. Statistics and similar events name none.

use serde_json::Value;

use super::event::{Alert, Kind};
use super::fields::{address, port, protocol, time};
use super::json;
use engine::session::community_id::CommunityId;
use query::search::SearchTarget;
use query::selectors::Flow;

pub(super) fn is(value: &Value) -> bool {
    value.get("event_type").is_some() || (value.get("src_ip").is_some() && value.get("timestamp").is_some())
}

pub(super) fn alert(value: &Value) -> Result<Option<Alert>, String> {
    let field = |name: &str| json::field(value, name);
    let names = match (field("src_ip"), field("dest_ip")) {
        (Some(source), Some(destination)) => {
            let protocol = field("proto").and_then(|name| protocol(&name));
            let a = (address("src_ip", &source)?, port("src_port", field("src_port").as_deref())?);
            let b = (address("dest_ip", &destination)?, port("dest_port", field("dest_port").as_deref())?);
            if a.0.is_ipv4() != b.0.is_ipv4() {
                return Err("src_ip and dest_ip are of different IP versions".to_owned());
            }
            SearchTarget::Flow(Flow { a, b, protocol })
        }
        (Some(host), None) => SearchTarget::Host(address("src_ip", &host)?),
        (None, Some(host)) => SearchTarget::Host(address("dest_ip", &host)?),
        (None, None) => match field("community_id") {
            Some(id) => SearchTarget::CommunityId(
                CommunityId::parse(&id)
                    .ok_or_else(|| format!("community_id is {}, not a Community ID", json::shown(&id)))?,
            ),
            None => return Ok(None),
        },
    };
    let at = time("timestamp", &field("timestamp").ok_or("timestamp is missing")?)?;
    let event = field("event_type").unwrap_or_else(|| "event".into());
    let (mut start, mut end) = (at, at);
    // Suricata logs a flow when it times out, long after its packets.
    if matches!(&*event, "flow" | "netflow") {
        if let Some(text) = json::field(value, &format!("{event}.start")) {
            start = time("flow.start", &text)?.min(at);
        }
        if let Some(text) = json::field(value, &format!("{event}.end")) {
            end = time("flow.end", &text)?.min(at).max(start);
        }
    }
    let name = json::field(value, "alert.signature").unwrap_or(event).into_owned();
    let id = json::field(value, "alert.signature_id").or_else(|| field("flow_id")).map(|id| id.into_owned());
    Ok(Some(Alert { line: 0, kind: Kind::Suricata, name, id, start, end, names }))
}
