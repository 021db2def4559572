//! `retrocap get --name HOST`: reads the recorder's listing of the sessions that name a host.

use std::io::BufReader;

use anyhow::{Context as _, anyhow};

use crate::alert::{Alert, Alerts, Kind};
use crate::client::{self, Answer};
use crate::terminal::human;
use base::foreign::Foreign;
use base::time::Timestamp;
use query::flows::Flow;
use query::search::SearchTarget;

/// Maximum number of sessions in one request, the limit of recorders for a name.
const SESSIONS_MAX: usize = 4096;

/// The sessions of a listing, each with its time span limited to the window.
pub(super) fn sessions(
    answer: Answer,
    (since, until): (Option<Timestamp>, Option<Timestamp>),
) -> anyhow::Result<Alerts> {
    let trailers = answer.trailers();
    let mut lines = BufReader::with_capacity(64 << 10, answer);
    let (mut alerts, mut line, mut number) = (Alerts::default(), String::new(), 0);
    while client::next_line(&mut lines, &mut line, client::ROW_BYTES_MAX)? {
        let flow: Flow = serde_json::from_str(&line).context("the recorder has another version")?;
        number += 1;
        if alerts.alerts.len() == SESSIONS_MAX {
            return Err(anyhow!("the recorder lists more than {SESSIONS_MAX} sessions: narrow it down with --since"));
        }
        let time = |text: &Foreign| human::printed_time(text).context("the recorder has another version");
        let (first, last) = (time(&flow.first)?, time(&flow.last)?);
        alerts.alerts.push(Alert {
            line: number,
            kind: Kind::Session,
            name: [flow.names.server_name, flow.names.http_host, flow.names.dns_question]
                .into_iter()
                .flatten()
                .next()
                .map(|name| name.untrusted().to_owned())
                .unwrap_or_default(),
            id: None,
            start: since.map_or(first, |since| since.max(first)),
            end: until.map_or(last, |until| until.min(last)),
            names: target(&flow.originator, &flow.responder, flow.proto.untrusted())?,
        });
    }
    crate::verbs::trailers::complete(&trailers)?;
    Ok(alerts)
}

fn target(
    a: &query::flows::FlowEndpoint,
    b: &query::flows::FlowEndpoint,
    protocol: &str,
) -> anyhow::Result<SearchTarget> {
    let ip = |ip: &Option<Foreign>| {
        ip.as_ref().and_then(|ip| ip.untrusted().parse().ok()).context("a session without addresses")
    };
    let protocol = match protocol {
        "tcp" => Some(6),
        "udp" => Some(17),
        "sctp" => Some(132),
        _ => None,
    };
    Ok(SearchTarget::Flow(query::selectors::Flow { a: (ip(&a.ip)?, a.port), b: (ip(&b.ip)?, b.port), protocol }))
}
