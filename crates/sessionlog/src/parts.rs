//! The values of a row while it is read, and the session that they describe.

use std::net::IpAddr;

use crate::row::MILLI_NS;
use base::packet::InterfaceId;
use base::time::Timestamp;
use decode::{Decoded, Network};
use engine::session::{LoggedSummary, PerSide, Session, SessionKey, SessionState};
use processes::process::{Certainty, Process, Source as ProcessSource};
use query::attribution::{Attribution, FlowProcess, SessionEnd};
use query::flows::FlowApp;
use query::logged::LoggedSession;
use query::session_names::Names;

/// The values of a row.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    pub(crate) start_ms: Option<i64>,
    pub(crate) end_ms: Option<i64>,
    pub(crate) network: Option<String>,
    pub(crate) protocol: Option<i64>,
    pub(crate) ethertype: Option<i64>,
    pub(crate) vlan: Option<i64>,
    pub(crate) inner_vlan: Option<i64>,
    pub(crate) tunnel: Option<i64>,
    pub(crate) one_way: Option<i64>,
    pub(crate) ip: [Option<String>; 2],
    pub(crate) mac: [Option<String>; 2],
    pub(crate) port: [Option<i64>; 2],
    pub(crate) here: [Option<i64>; 4],
    pub(crate) earlier: [Option<i64>; 4],
    pub(crate) app: Option<String>,
    pub(crate) names: Names,
    pub(crate) pid: Option<i64>,
    pub(crate) process_name: Option<String>,
    pub(crate) process_path: Option<String>,
    pub(crate) uid: Option<String>,
    pub(crate) container: Option<String>,
    pub(crate) process_end: Option<String>,
    pub(crate) pod: Option<String>,
    pub(crate) unit: Option<String>,
    pub(crate) process_source: Option<String>,
    pub(crate) certainty: Option<String>,
    pub(crate) other_pid: Option<i64>,
    pub(crate) other_name: Option<String>,
    pub(crate) other_uid: Option<String>,
    pub(crate) other_container: Option<String>,
    pub(crate) interface: Option<String>,
    pub(crate) state: Option<String>,
    pub(crate) is_open: Option<i64>,
}

fn time(ms: Option<i64>) -> Option<Timestamp> {
    Some(Timestamp(u64::try_from(ms?).ok()?.checked_mul(MILLI_NS)?))
}

fn small(number: Option<i64>) -> Option<u16> {
    number.and_then(|number| u16::try_from(number).ok())
}

impl Parts {
    /// Start and end.
    pub fn times(&self) -> Option<(Timestamp, Timestamp)> {
        Some((time(self.start_ms)?, time(self.end_ms)?))
    }

    /// The session with its totals; `None` if the row makes no sense. `interface` knows the numbers of interfaces.
    pub fn session(self, interface: &dyn Fn(&str) -> InterfaceId) -> Option<LoggedSession> {
        let (first, last) = self.times()?;
        let network = match self.network.as_deref() {
            Some("ipv4") => Network::Ipv4,
            Some("ipv6") => Network::Ipv6,
            _ => Network::Link,
        };
        let address = |side: usize| match network {
            Network::Link => mac(self.mac[side].as_deref()?),
            _ => match self.ip[side].as_deref()?.parse().ok()? {
                IpAddr::V4(ip) => Some(u128::from(ip.to_bits())),
                IpAddr::V6(ip) => Some(ip.to_bits()),
            },
        };
        let name = self.interface.clone().unwrap_or_default();
        let protocol = u8::try_from(self.protocol.unwrap_or(0)).ok()?;
        let ports = [small(self.port[0]).unwrap_or(0), small(self.port[1]).unwrap_or(0)];
        let decoded = Decoded {
            network,
            source: address(0)?,
            destination: address(1)?,
            source_port: ports[0],
            destination_port: ports[1],
            protocol,
            ethertype: small(self.ethertype).unwrap_or(0),
            vlan: small(self.vlan),
            inner_vlan: small(self.inner_vlan),
            tunnel: self.tunnel.and_then(|tunnel| u32::try_from(tunnel).ok()).unwrap_or(0),
            one_way: self.one_way.is_some(),
            ..Decoded::default()
        };
        let (key, originator) = SessionKey::new(&decoded, interface(&name));
        let count = |at: usize| {
            let whole = |number: Option<i64>| u64::try_from(number.unwrap_or(0)).unwrap_or(0);
            whole(self.here[at]).saturating_add(whole(self.earlier[at]))
        };
        let state = self.state.as_deref();
        let state = SessionState::ALL.into_iter().find(|one| Some(one.as_str()) == state)?;
        let packets = PerSide { originator: count(0), responder: count(2) };
        let bytes = PerSide { originator: count(1), responder: count(3) };
        let session = Session::from(LoggedSummary { key, originator, first, last, packets, bytes, state });
        let attribution = self.attribution();
        let app = self.app.map(|name| FlowApp { name: name.into(), words: Vec::new() });
        let before = |at: usize| u64::try_from(self.earlier[at].unwrap_or(0)).unwrap_or(0);
        let earlier = [
            PerSide { originator: before(0), responder: before(2) },
            PerSide { originator: before(1), responder: before(3) },
        ];
        let is_open = self.is_open == Some(1);
        Some(LoggedSession { session, interface: name, names: self.names, attribution, app, earlier, is_open })
    }

    fn attribution(&self) -> Attribution {
        let number = |uid: Option<&str>| uid.and_then(|uid| uid.parse().ok());
        let pid = |pid: Option<i64>| pid.and_then(|pid| u32::try_from(pid).ok());
        let Some(uid) = number(self.uid.as_deref()) else { return Attribution::default() };
        let (end, other_end) = match self.process_end.as_deref() {
            Some("responder") => (SessionEnd::Responder, SessionEnd::Originator),
            _ => (SessionEnd::Originator, SessionEnd::Responder),
        };
        // Files of earlier versions do not say how a process was found.
        let sure = |pid: Option<u32>| if pid.is_some() { Certainty::Socket } else { Certainty::UserOnly };
        let process = Process {
            pid: pid(self.pid),
            name: self.process_name.clone(),
            path: self.process_path.clone(),
            container: self.container.clone(),
            pod: self.pod.clone(),
            unit: self.unit.clone(),
            source: self.process_source.as_deref().and_then(ProcessSource::of_word).unwrap_or(ProcessSource::SockDiag),
            certainty: self.certainty.as_deref().and_then(Certainty::of_word).unwrap_or(sure(pid(self.pid))),
            place_unknown: false,
            ..Process::only_user(uid)
        };
        let other_process = number(self.other_uid.as_deref()).map(|uid| {
            let process = Process {
                pid: pid(self.other_pid),
                name: self.other_name.clone(),
                container: self.other_container.clone(),
                certainty: sure(pid(self.other_pid)),
                place_unknown: false,
                ..Process::only_user(uid)
            };
            FlowProcess { process, end: other_end }
        });
        Attribution { process: Some(FlowProcess { process, end }), other_process, ..Attribution::default() }
    }
}

fn mac(text: &str) -> Option<u128> {
    text.split('-').try_fold(0, |address, byte| Some(address << 8 | u128::from(u8::from_str_radix(byte, 16).ok()?)))
}
