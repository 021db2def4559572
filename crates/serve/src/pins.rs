//! `/v1/pins`: sessions that are kept whole for a time.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Extension, RawQuery, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Service;
use super::audit::Action;
use super::http::blocking;
use super::peer::Peer;
use super::problem::Problem;
use base::time::Timestamp;
use engine::budget::ByteSize;
use engine::judge::pins::{PinError, SHARE};
use engine::judge::{Pin, Pins, SessionFilter};
use filter::Endpoints;
use query::History;

/// Longest time that a pin can be asked for: 31 days.
const FOR_S_MAX: f64 = 31.0 * 86_400.0;
/// How often pins whose time has come are looked for.
const EXPIRY_EVERY: Duration = Duration::from_millis(500);

/// What somebody asks for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewPin {
    filter: String,
    for_s: f64,
}

impl NewPin {
    /// Reads a body.
    fn read(body: &[u8]) -> Result<Self, Problem> {
        let new_pin: Self = serde_json::from_slice(body).map_err(|error| {
            Problem::bad_query(format!(
                "cannot read what to pin: {error}; send {{\"filter\": \"host 10.0.0.5\", \"for_s\": 7200}}"
            ))
        })?;
        if new_pin.filter.trim().is_empty() {
            return Err(Problem::bad_query("an empty filter would pin everything; name what to keep: host 10.0.0.5"));
        }
        if !(new_pin.for_s > 0.0 && new_pin.for_s <= FOR_S_MAX) {
            let sentence =
                format!("cannot pin for {} s: a pin holds above 0 and at most 31 days; try 2h", new_pin.for_s);
            return Err(Problem::bad_query(sentence));
        }
        Ok(new_pin)
    }
}

/// Reads the body of a request for a pin: its filter and how long it holds.
///
/// # Errors
///
/// What is wrong, in a sentence.
pub fn understand(body: &[u8]) -> Result<(String, Duration), String> {
    let new_pin = NewPin::read(body).map_err(|problem| problem.detail)?;
    Ok((new_pin.filter, Duration::from_secs_f64(new_pin.for_s)))
}

/// A pin as it is shown.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the keys are described in the interface's OpenAPI document")]
pub struct PinStatus {
    pub id: u64,
    pub filter: String,
    pub since: String,
    pub until: String,
    /// Sessions that it protects and that have packets, live and past.
    pub sessions: u64,
    /// Packets of these that are there, and their bytes.
    pub kept_packets: u64,
    pub kept_bytes: u64,
    /// Memory that it has taken so far; what it protects moves there when it would go otherwise.
    pub pinned_bytes: u64,
    /// Packets that found no room there, and age like others.
    pub refused_packets: u64,
}

/// All pins, and what they may take.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct PinList {
    pub pins: Vec<PinStatus>,
    pub used_bytes: u64,
    pub limit_bytes: u64,
}

/// `GET`: all pins.
pub(super) async fn list(State(service): State<Arc<Service>>) -> Result<Json<PinList>, Problem> {
    let history = Arc::clone(&service.recorder.history);
    blocking(&service, move || {
        pins(&history).expire(now());
        list_of(&history)
    })
    .await
    .map(Json)
}

/// `POST`: a new one.
pub(super) async fn add(
    State(service): State<Arc<Service>>,
    Extension(peer): Extension<Peer>,
    body: Bytes,
) -> Result<(StatusCode, Json<PinStatus>), Problem> {
    let new_pin = NewPin::read(&body)?;
    let asked = Arc::clone(&service);
    let pin = blocking(&asked, move || {
        let asked_for = json!({ "add": { "filter": new_pin.filter, "for_s": new_pin.for_s } });
        let entry = service.audit().begin(&peer, Action::Pin, asked_for)?;
        let made = make(&service.recorder.history, &new_pin);
        service.pinned.notify_one();
        match &made {
            Ok(pin) => entry.end(&format!("complete: pin {}", pin.id)),
            Err(problem) => entry.end(&problem.detail),
        }
        made
    })
    .await??;
    Ok((StatusCode::CREATED, Json(pin)))
}

/// `DELETE`: ends the one with this number.
pub(super) async fn remove(
    State(service): State<Arc<Service>>,
    Extension(peer): Extension<Peer>,
    RawQuery(query): RawQuery,
) -> Result<StatusCode, Problem> {
    let query = query.unwrap_or_default();
    let id = form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == "id").map(|(_, value)| value.into_owned());
    let Some(id) = id.as_deref().and_then(|id| id.parse().ok()) else {
        return Err(Problem::bad_query("which pin? name it: ?id=3; GET /v1/pins lists them"));
    };
    let asked = Arc::clone(&service);
    blocking(&asked, move || {
        let entry = service.audit().begin(&peer, Action::Pin, json!({ "remove": id }))?;
        let removed = pins(&service.recorder.history).remove(id);
        entry.end(if removed { "complete" } else { "there is no such pin" });
        if !removed {
            return Err(Problem::no_such_pin(id));
        }
        tracing::info!("pin {id} was removed");
        Ok(StatusCode::NO_CONTENT)
    })
    .await?
}

/// Ends pins when their time has come, as long as the service lives. While there are none it sleeps.
pub(super) async fn expire_in_time(service: Arc<Service>) {
    loop {
        match pins(&service.recorder.history).list().is_empty() {
            true => service.pinned.notified().await,
            false => tokio::time::sleep(EXPIRY_EVERY).await,
        }
        let ended = pins(&service.recorder.history).expire(now());
        if ended > 0 {
            tracing::info!("the time of {ended} {} has come", if ended == 1 { "pin" } else { "pins" });
        }
    }
}

fn make(history: &History, new_pin: &NewPin) -> Result<PinStatus, Problem> {
    let filter = SessionFilter::new(&new_pin.filter).map_err(|error| Problem::bad_query(error.to_string()))?;
    let pins = pins(history);
    pins.expire(now());
    let wanted = unprotected_bytes(history, filter);
    let used = used_bytes(history);
    let limit = pins.limit_bytes();
    if used.saturating_add(wanted) > limit {
        return Err(Problem::pins_full(format!(
            "the sessions that match hold {}, and pins have {} of their {} left; narrow the filter, remove a pin, export the \
             sessions with `retrocap get -w FILE`, or record with a budget of at least {} (-m)",
            ByteSize(wanted),
            ByteSize(limit.saturating_sub(used)),
            ByteSize(limit),
            ByteSize(used.saturating_add(wanted).div_ceil(1 << 20).saturating_mul(SHARE << 20)),
        )));
    }
    let since = now();
    let until = Timestamp(
        since.0.saturating_add(Duration::from_secs_f64(new_pin.for_s).as_nanos().try_into().unwrap_or(u64::MAX)),
    );
    let pin = pins.add(&new_pin.filter, since, until).map_err(|error| match error {
        PinError::Filter(error) => Problem::bad_query(error.to_string()),
        PinError::Full { .. } => Problem::pins_full(error.to_string()),
    })?;
    tracing::info!("pin {}: {} until {}", pin.id, pin.expression(), pin.until);
    Ok(status_of(history, pin))
}

fn list_of(history: &History) -> PinList {
    let pins = pins(history);
    PinList {
        pins: pins.list().into_iter().map(|pin| status_of(history, pin)).collect(),
        used_bytes: used_bytes(history),
        limit_bytes: pins.limit_bytes(),
    }
}

/// A pin, its sessions told by what workers have noted, and by its filter where they have not looked yet.
fn status_of(history: &History, mut pin: Pin) -> PinStatus {
    let (mut sessions, mut kept_packets, mut kept_bytes) = (0, 0, 0);
    for session in history.workers.iter().flat_map(|worker| worker.sessions.sessions()) {
        let noted = session.marks().pins >> pin.place & 1 == 1;
        let protected = noted || pin.matches(&Endpoints::from(&session.key));
        if protected && session.kept_packets > 0 {
            sessions += 1;
            kept_packets += session.kept_packets;
            kept_bytes += session.kept_bytes;
        }
    }
    let of_all = |of: &dyn Fn(&engine::pipeline::Worker) -> u64| history.workers.iter().map(of).sum();
    PinStatus {
        id: pin.id,
        filter: pin.expression().to_owned(),
        since: pin.since.to_rfc3339(),
        until: pin.until.to_rfc3339(),
        sessions,
        kept_packets,
        kept_bytes,
        pinned_bytes: of_all(&|worker| worker.tally.pinned_bytes(pin.place)),
        refused_packets: of_all(&|worker| worker.tally.refused_packets(pin.place)),
    }
}

/// Bytes of the packets that a new pin would protect and no other one does.
fn unprotected_bytes(history: &History, mut filter: SessionFilter) -> u64 {
    let sessions = history.workers.iter().flat_map(|worker| worker.sessions.sessions());
    sessions
        .filter(|session| session.marks().pins == 0 && session.kept_packets > 0)
        .filter(|session| filter.matches(&Endpoints::from(&session.key)))
        .map(|session| session.kept_bytes)
        .sum()
}

/// Memory that pins have, or will have when everything they protect has moved: the larger of the two.
fn used_bytes(history: &History) -> u64 {
    let taken: u64 = (0..engine::session::SessionMarks::PINS)
        .map(|place| history.workers.iter().map(|worker| worker.tally.pinned_bytes(place)).sum::<u64>())
        .sum();
    let sessions = history.workers.iter().flat_map(|worker| worker.sessions.sessions());
    let promised: u64 = sessions.filter(|session| session.marks().pins != 0).map(|session| session.kept_bytes).sum();
    taken.max(promised)
}

fn pins(history: &History) -> &Pins {
    // Every recorder has a worker, and all workers share their pins.
    &history.workers[0].pins
}

fn now() -> Timestamp {
    SystemTime::now().into()
}
