//! The columns of the log, one row of a table each: name, type, value of a row, and use when a row is read.
//!
//! Names are those of the Elastic Common Schema where it has one. The rest begins with `retrocap.`. All columns are
//! optional. Counts are those of the hour, so that sums over rows are right.

use std::borrow::Cow;
use std::sync::Arc;

use parquet::basic::{ConvertedType, Repetition, Type as Physical};
use parquet::errors::ParquetError;
use parquet::schema::types::{Type, TypePtr};

use crate::parts::Parts;
use crate::row::{MILLI_NS, Observer, Row};
use crate::value::Value;
use base::foreign::Foreign;
use decode::Network;
use engine::session::community_id::CommunityId;
use processes::process::Process;
use query::attribution::{FlowProcess, SessionEnd};
use query::session_names::Names;

/// The type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// UTF-8.
    Text,
    /// Milliseconds since the epoch, UTC.
    Time,
    /// A signed number of 64 bits.
    Whole,
    /// An unsigned number of 16 bits, as a port.
    Small,
}

fn text<'a>(text: impl Into<Cow<'a, str>>) -> Value<'a> {
    Value::Text(text.into())
}

fn maybe<'a>(text: Option<impl Into<Cow<'a, str>>>) -> Value<'a> {
    text.map_or(Value::None, |text| Value::Text(text.into()))
}

fn name(row: &Row, field: fn(&Names) -> &Option<Foreign>) -> Value<'_> {
    maybe(row.names.as_deref().and_then(|names| field(names).as_ref()).map(Foreign::untrusted))
}

/// A column.
pub struct Column {
    /// Name.
    pub name: &'static str,
    /// Type.
    pub kind: Kind,
    /// The value of a row.
    pub get: for<'a> fn(&'a Row, &'a Observer) -> Value<'a>,
    /// What a reader of rows does with the value; `None` if it does not need the column.
    pub set: Option<fn(&mut Parts, Value<'_>)>,
}

impl std::fmt::Debug for Column {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

type Get = for<'a> fn(&'a Row, &'a Observer) -> Value<'a>;

const fn column(name: &'static str, kind: Kind, get: Get, set: fn(&mut Parts, Value<'_>)) -> Column {
    Column { name, kind, get, set: Some(set) }
}

/// A column that follows from others, or that only databases need.
const fn derived(name: &'static str, kind: Kind, get: Get) -> Column {
    Column { name, kind, get, set: None }
}

use Kind::{Small, Text, Time, Whole};

/// All columns. New ones are added last, so that older files have a prefix of them.
pub static COLUMNS: [Column; 57] = [
    column("event.start", Time, |row, _| Value::Whole(row.times_ms().0), |parts, value| parts.start_ms = value.into()),
    column("event.end", Time, |row, _| Value::Whole(row.times_ms().1), |parts, value| parts.end_ms = value.into()),
    derived("event.duration", Whole, |row, _| {
        let (start, end) = row.times_ms();
        Value::whole(i128::from(end - start) * i128::from(MILLI_NS))
    }),
    column("network.type", Text, network_type, |parts, value| parts.network = value.into()),
    column("network.transport", Text, |row, _| text(query::flows::protocol(&row.session)), |_, _| {}),
    column("network.iana_number", Small, iana_number, |parts, value| parts.protocol = value.into()),
    column("network.vlan.id", Small, |row, _| small(row.session.key.vlan()), |parts, value| parts.vlan = value.into()),
    column(
        "network.inner.vlan.id",
        Small,
        |row, _| small(row.session.key.inner_vlan()),
        |parts, value| parts.inner_vlan = value.into(),
    ),
    column("network.protocol", Text, |row, _| maybe(row.app), |parts, value| parts.app = value.into()),
    derived("network.community_id", Text, community_id),
    derived("network.packets", Whole, |row, _| Value::whole(row.here()[0] + row.here()[2])),
    derived("network.bytes", Whole, |row, _| Value::whole(row.here()[1] + row.here()[3])),
    column("source.ip", Text, |row, _| ip(row, 0), |parts, value| parts.ip[0] = value.into()),
    column("source.mac", Text, |row, _| mac(row, 0), |parts, value| parts.mac[0] = value.into()),
    column("source.port", Small, |row, _| port(row, 0), |parts, value| parts.port[0] = value.into()),
    column("source.packets", Whole, |row, _| Value::whole(row.here()[0]), |parts, value| parts.here[0] = value.into()),
    column("source.bytes", Whole, |row, _| Value::whole(row.here()[1]), |parts, value| parts.here[1] = value.into()),
    column("destination.ip", Text, |row, _| ip(row, 1), |parts, value| parts.ip[1] = value.into()),
    column("destination.mac", Text, |row, _| mac(row, 1), |parts, value| parts.mac[1] = value.into()),
    column("destination.port", Small, |row, _| port(row, 1), |parts, value| parts.port[1] = value.into()),
    column(
        "destination.packets",
        Whole,
        |row, _| Value::whole(row.here()[2]),
        |parts, value| parts.here[2] = value.into(),
    ),
    column(
        "destination.bytes",
        Whole,
        |row, _| Value::whole(row.here()[3]),
        |parts, value| parts.here[3] = value.into(),
    ),
    column(
        "dns.question.name",
        Text,
        |row, _| name(row, |names| &names.dns_question),
        |parts, value| parts.names.dns_question = value.into(),
    ),
    column(
        "dns.question.type",
        Text,
        |row, _| name(row, |names| &names.dns_type),
        |parts, value| parts.names.dns_type = value.into(),
    ),
    column(
        "tls.client.server_name",
        Text,
        |row, _| name(row, |names| &names.server_name),
        |parts, value| parts.names.server_name = value.into(),
    ),
    column(
        "url.domain",
        Text,
        |row, _| name(row, |names| &names.http_host),
        |parts, value| parts.names.http_host = value.into(),
    ),
    column("process.pid", Whole, process_pid, |parts, value| parts.pid = value.into()),
    column(
        "process.name",
        Text,
        |row, _| process(row, |p| p.name.as_deref()),
        |parts, value| {
            parts.process_name = value.into();
        },
    ),
    column(
        "process.executable",
        Text,
        |row, _| process(row, |p| p.path.as_deref()),
        |parts, value| {
            parts.process_path = value.into();
        },
    ),
    column("user.id", Text, user_id, |parts, value| parts.uid = value.into()),
    column(
        "container.id",
        Text,
        |row, _| process(row, |p| p.container.as_deref()),
        |parts, value| {
            parts.container = value.into();
        },
    ),
    column("retrocap.process.end", Text, process_end, |parts, value| parts.process_end = value.into()),
    derived("host.name", Text, |_, observer| text(&*observer.hostname)),
    derived("observer.hostname", Text, |_, observer| text(&*observer.hostname)),
    derived("observer.product", Text, |_, _| text("retrocap")),
    derived("observer.version", Text, |_, observer| text(&*observer.version)),
    column(
        "observer.ingress.interface.name",
        Text,
        |row, _| text(&*row.interface),
        |parts, value| {
            parts.interface = value.into();
        },
    ),
    column(
        "retrocap.state",
        Text,
        |row, _| text(row.session.state().as_str()),
        |parts, value| {
            parts.state = value.into();
        },
    ),
    column(
        "retrocap.open",
        Small,
        |row, _| Value::Whole(row.is_open.into()),
        |parts, value| {
            parts.is_open = value.into();
        },
    ),
    column(
        "retrocap.earlier.source.packets",
        Whole,
        |row, _| Value::whole(row.earlier[0]),
        |parts, value| {
            parts.earlier[0] = value.into();
        },
    ),
    column(
        "retrocap.earlier.source.bytes",
        Whole,
        |row, _| Value::whole(row.earlier[1]),
        |parts, value| {
            parts.earlier[1] = value.into();
        },
    ),
    column(
        "retrocap.earlier.destination.packets",
        Whole,
        |row, _| Value::whole(row.earlier[2]),
        |parts, value| {
            parts.earlier[2] = value.into();
        },
    ),
    column(
        "retrocap.earlier.destination.bytes",
        Whole,
        |row, _| Value::whole(row.earlier[3]),
        |parts, value| {
            parts.earlier[3] = value.into();
        },
    ),
    derived("retrocap.kept.bytes", Whole, |row, _| Value::whole(row.session.kept_bytes)),
    column("retrocap.ethertype", Small, ethertype, |parts, value| parts.ethertype = value.into()),
    column("retrocap.one_way", Small, one_way, |parts, value| parts.one_way = value.into()),
    column("retrocap.tunnel", Whole, tunnel, |parts, value| parts.tunnel = value.into()),
    derived("retrocap.spool.file", Text, |row, _| maybe(row.place.as_ref().map(|place| &*place.file))),
    derived("retrocap.spool.offset", Whole, |row, _| {
        row.place.as_ref().map_or(Value::None, |place| Value::whole(place.offset))
    }),
    column(
        "retrocap.process.pod",
        Text,
        |row, _| process(row, |p| p.pod.as_deref()),
        |parts, value| parts.pod = value.into(),
    ),
    column(
        "retrocap.process.unit",
        Text,
        |row, _| process(row, |p| p.unit.as_deref()),
        |parts, value| parts.unit = value.into(),
    ),
    column(
        "retrocap.process.source",
        Text,
        |row, _| process(row, |p| Some(p.source.word())),
        |parts, value| parts.process_source = value.into(),
    ),
    column(
        "retrocap.process.certainty",
        Text,
        |row, _| process(row, |p| Some(p.certainty.word())),
        |parts, value| parts.certainty = value.into(),
    ),
    column(
        "retrocap.process.other.pid",
        Whole,
        |row, _| other(row).and_then(|p| p.pid).map_or(Value::None, |pid| Value::Whole(pid.into())),
        |parts, value| parts.other_pid = value.into(),
    ),
    column(
        "retrocap.process.other.name",
        Text,
        |row, _| maybe(other(row).and_then(|p| p.name.as_deref())),
        |parts, value| parts.other_name = value.into(),
    ),
    column(
        "retrocap.process.other.uid",
        Text,
        |row, _| maybe(other(row).map(|p| p.uid.to_string())),
        |parts, value| parts.other_uid = value.into(),
    ),
    column(
        "retrocap.process.other.container",
        Text,
        |row, _| maybe(other(row).and_then(|p| p.container.as_deref())),
        |parts, value| parts.other_container = value.into(),
    ),
];

fn small(number: Option<u16>) -> Value<'static> {
    number.map_or(Value::None, |number| Value::Whole(number.into()))
}

fn network_type<'a>(row: &'a Row, _: &'a Observer) -> Value<'a> {
    match row.session.key.network() {
        Network::Ipv4 => text("ipv4"),
        Network::Ipv6 => text("ipv6"),
        Network::Link => Value::None,
    }
}

fn iana_number<'a>(row: &'a Row, _: &'a Observer) -> Value<'a> {
    match row.session.key.network() {
        Network::Link => Value::None,
        _ => Value::Whole(row.session.key.protocol().into()),
    }
}

fn ethertype<'a>(row: &'a Row, _: &'a Observer) -> Value<'a> {
    match row.session.key.network() {
        Network::Link => Value::Whole(row.session.key.ethertype().into()),
        _ => Value::None,
    }
}

fn tunnel<'a>(row: &'a Row, _: &'a Observer) -> Value<'a> {
    match row.session.key.tunnel() {
        0 => Value::None,
        tunnel => Value::Whole(tunnel.into()),
    }
}

fn one_way<'a>(row: &'a Row, _: &'a Observer) -> Value<'a> {
    if row.session.key.one_way() { Value::Whole(1) } else { Value::None }
}

fn community_id<'a>(row: &'a Row, observer: &'a Observer) -> Value<'a> {
    if !observer.with_community_id {
        return Value::None;
    }
    maybe(CommunityId::new(&row.session.key, observer.community_id_seed).map(|id| id.to_string()))
}

fn end(row: &Row, side: usize) -> engine::session::Endpoint {
    if side == 0 { row.session.originator() } else { row.session.responder() }
}

fn ip(row: &Row, side: usize) -> Value<'_> {
    maybe(end(row, side).ip.map(|ip| ip.to_string()))
}

fn mac(row: &Row, side: usize) -> Value<'_> {
    // As the Elastic Common Schema writes it: capital letters, with dashes (RFC 7042).
    let hex = |mac: [u8; 6]| mac.map(|byte| format!("{byte:02X}")).join("-");
    maybe(end(row, side).mac.map(hex))
}

fn port(row: &Row, side: usize) -> Value<'_> {
    match row.session.key.network() {
        Network::Link => Value::None,
        _ => Value::Whole(end(row, side).port.into()),
    }
}

fn attribution(row: &Row) -> Option<&FlowProcess> {
    row.attribution.as_deref()?.process.as_ref()
}

/// The process at the other end, where both are on this host.
fn other(row: &Row) -> Option<&Process> {
    row.attribution.as_deref()?.other_process.as_ref().map(|of| &of.process)
}

fn process(row: &Row, field: fn(&Process) -> Option<&str>) -> Value<'_> {
    maybe(attribution(row).and_then(|of| field(&of.process)))
}

fn process_pid<'a>(row: &'a Row, _: &'a Observer) -> Value<'a> {
    let pid = attribution(row).and_then(|of| of.process.pid);
    pid.map_or(Value::None, |pid| Value::Whole(pid.into()))
}

fn user_id<'a>(row: &'a Row, _: &'a Observer) -> Value<'a> {
    maybe(attribution(row).map(|of| of.process.uid.to_string()))
}

fn process_end<'a>(row: &'a Row, _: &'a Observer) -> Value<'a> {
    maybe(attribution(row).map(|of| match of.end {
        SessionEnd::Originator => "originator",
        SessionEnd::Responder => "responder",
    }))
}

/// The schema of a file.
///
/// # Errors
///
/// If the library refuses it, which is not expected.
pub fn schema() -> Result<TypePtr, ParquetError> {
    let fields: Result<Vec<TypePtr>, ParquetError> = COLUMNS.iter().map(field).collect();
    Ok(Arc::new(Type::group_type_builder("session").with_fields(fields?).build()?))
}

fn field(column: &Column) -> Result<TypePtr, ParquetError> {
    let (physical, converted) = match column.kind {
        Text => (Physical::BYTE_ARRAY, ConvertedType::UTF8),
        Time => (Physical::INT64, ConvertedType::TIMESTAMP_MILLIS),
        Whole => (Physical::INT64, ConvertedType::NONE),
        Small => (Physical::INT32, ConvertedType::UINT_16),
    };
    let field = Type::primitive_type_builder(column.name, physical)
        .with_repetition(Repetition::OPTIONAL)
        .with_converted_type(converted);
    Ok(Arc::new(field.build()?))
}
