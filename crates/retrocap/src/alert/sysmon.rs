//! Reads Sysmon's event 3, a network connection, as JSON: bare, under `Event.EventData`, or under `winlog.event_data`.
//!
//! Sysmon reports a connection up to 15 seconds late.

use serde_json::Value;

use super::event::{Alert, Kind};
use super::fields::{address, port, protocol, time};
use super::json;
use query::search::SearchTarget;
use query::selectors::Flow;

/// JSON pointers to the event's fields in the formats of different log forwarders, in the order they are tried.
const PLACES: [&str; 6] =
    ["", "/Event/EventData", "/EventData", "/winlog/event_data", "/event_data", "/Event/EventData/Data"];

/// The fields of the event if `value` is a Sysmon event, of any number.
pub(super) fn event(value: &Value) -> Option<&Value> {
    PLACES.iter().filter_map(|place| value.pointer(place)).find(|event| {
        field(event, "UtcTime").is_some()
            && (field(event, "SourceIp").is_some() || field(event, "ProcessGuid").is_some())
    })
}

/// A field of an object, or of a list of name-value pairs.
fn field<'v>(event: &'v Value, name: &str) -> Option<std::borrow::Cow<'v, str>> {
    match event {
        Value::Array(items) => {
            let is =
                |item: &&Value| ["@Name", "Name"].iter().any(|key| item.get(key).and_then(Value::as_str) == Some(name));
            let item = items.iter().find(is)?;
            ["#text", "Value"].iter().find_map(|key| json::text(item.get(key)))
        }
        event => json::text(event.get(name)),
    }
}

pub(super) fn alert(value: &Value, event: &Value) -> Result<Option<Alert>, String> {
    let number = ["/Event/System/EventID", "/winlog/event_id", "/EventID", "/event_id", "/System/EventID"]
        .iter()
        .find_map(|place| json::text(value.pointer(place)));
    let (Some(source), Some(destination)) = (field(event, "SourceIp"), field(event, "DestinationIp")) else {
        return match number.as_deref() {
            Some("3") => Err("event 3 without SourceIp and DestinationIp".to_owned()),
            _ => Ok(None),
        };
    };
    let at = time("UtcTime", &field(event, "UtcTime").ok_or("UtcTime is missing")?)?;
    let a = (address("SourceIp", &source)?, port("SourcePort", field(event, "SourcePort").as_deref())?);
    let b =
        (address("DestinationIp", &destination)?, port("DestinationPort", field(event, "DestinationPort").as_deref())?);
    if a.0.is_ipv4() != b.0.is_ipv4() {
        return Err("SourceIp and DestinationIp are of different IP versions".to_owned());
    }
    let protocol = field(event, "Protocol").and_then(|name| protocol(&name));
    let image = field(event, "Image").unwrap_or_else(|| "connection".into());
    let name = image.rsplit(['\\', '/']).next().unwrap_or_default().to_owned();
    let id = field(event, "ProcessId").map(|id| id.into_owned());
    let names = SearchTarget::Flow(Flow { a, b, protocol });
    Ok(Some(Alert { line: 0, kind: Kind::Sysmon, name, id, start: at, end: at, names }))
}
