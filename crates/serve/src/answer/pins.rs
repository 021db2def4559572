//! Pins: sessions that are kept whole for a time.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::super::audit::Action;
use super::super::clock::now;
use super::super::peer::Peer;
use super::super::service::Service;
use api::Problem;
use api::answers::{PinList, PinStatus};
use api::bodies::NewPin;
use base::foreign::{Foreign, Log};
use base::time::Timestamp;
use engine::budget::ByteSize;
use engine::judge::pins::{FoundSessions, HUNT_SHARE, PinError, SHARE};
use engine::judge::{Pin, Pins, SessionFilter};
use filter::Endpoints;
use query::{History, Request, Tier};

/// Time between two looks for pins that have ended.
const EXPIRY_EVERY: Duration = Duration::from_millis(500);

/// All pins.
pub(crate) async fn list(service: Arc<Service>) -> Result<PinList, Problem> {
    let history = Arc::clone(&service.recorder.history);
    let list = move || {
        pins(&history).expire(now());
        list_of(&history)
    };
    service.blocking(list).await
}

/// Makes a pin.
pub(crate) async fn add(service: Arc<Service>, peer: Peer, new_pin: NewPin) -> Result<PinStatus, Problem> {
    let asked = Arc::clone(&service);
    // The stored packets are searched for sessions that match.
    let place = service.packet_query(&peer).await?;
    let add = move || {
        let audited = json!({ "add": { "filter": new_pin.filter, "for_s": new_pin.for_s, "hunt": new_pin.hunt } });
        let entry = service.audit().begin(&peer, Action::Pin, audited)?;
        let made = make(&service.recorder.history, &new_pin);
        drop(place);
        service.pinned.notify_one();
        match &made {
            Ok(pin) => entry.end(&format!("complete: pin {}", pin.id)),
            Err(problem) => entry.end(problem.outcome()),
        }
        made
    };
    asked.blocking(add).await?
}

/// Removes the pin with this number.
pub(crate) async fn remove(service: Arc<Service>, peer: Peer, id: u64) -> Result<(), Problem> {
    let asked = Arc::clone(&service);
    let remove = move || {
        let entry = service.audit().begin(&peer, Action::Pin, json!({ "remove": id }))?;
        let removed = pins(&service.recorder.history).remove(id);
        entry.end(if removed { "complete" } else { "there is no such pin" });
        if !removed {
            return Err(Problem::no_such_pin(id));
        }
        tracing::info!("pin {id} was removed");
        Ok(())
    };
    asked.blocking(remove).await?
}

/// Ends pins in time, as long as the service lives. Without pins it sleeps.
pub(crate) async fn expire_in_time(service: Arc<Service>) {
    loop {
        match pins(&service.recorder.history).list().is_empty() {
            true => service.pinned.notified().await,
            false => tokio::time::sleep(EXPIRY_EVERY).await,
        }
        let ended = pins(&service.recorder.history).expire(now());
        if of_hunts(&pins(&service.recorder.history).list()) != 0 {
            let history = Arc::clone(&service.recorder.history);
            // All sessions are looked at.
            let _ = service.blocking(move || limit_hunts(&history)).await;
        }
        if ended > 0 {
            tracing::info!("{ended} {} ended", if ended == 1 { "pin has" } else { "pins have" });
        }
    }
}

/// How much earlier than the newest packet a packet can be that arrives after it.
const ARRIVAL_MAX: Duration = Duration::from_secs(10);

fn make(history: &History, new_pin: &NewPin) -> Result<PinStatus, Problem> {
    let filter = SessionFilter::new(&new_pin.filter).map_err(|error| Problem::bad_query(error.to_string()))?;
    let pins = pins(history);
    pins.expire(now());
    let request = Request { expression: new_pin.filter.clone(), ..Request::default() };
    let begun = history.totals().newest;
    let found = history.found_sessions(&request)?;
    let wanted = unprotected_bytes(history, new_pin.hunt.then_some(filter), &found);
    let (used, limit) = match new_pin.hunt {
        true => (used_bytes(history, of_hunts(&pins.list())), pins.limit_bytes() / HUNT_SHARE),
        false => (used_bytes(history, u16::MAX), pins.limit_bytes()),
    };
    if used.saturating_add(wanted) > limit {
        return Err(Problem::pins_full(format!(
            "the sessions that match hold {}, and pins have {} of their {} left; narrow the filter, remove a pin, export the \
             sessions with `retrocap get -w FILE`, or record with a budget of at least {} (-m)",
            ByteSize(wanted),
            ByteSize(limit.saturating_sub(used)),
            ByteSize(limit),
            ByteSize(used.saturating_add(wanted).div_ceil(1 << 20).saturating_mul(share(new_pin.hunt) << 20)),
        )));
    }
    let since = now();
    let until = Timestamp(since.0.saturating_add(new_pin.duration().as_nanos().try_into().unwrap_or(u64::MAX)));
    let made = match new_pin.hunt {
        true => pins.add_of_hunt(&new_pin.filter, since, until),
        false => pins.add(&new_pin.filter, since, until),
    };
    let pin = made.map_err(|error| match error {
        PinError::Filter(error) => Problem::bad_query(error.to_string()),
        PinError::Full { .. } => Problem::pins_full(error.to_string()),
    })?;
    // Packets can have arrived after the search and before the workers knew the pin.
    let since = begun.map(|begun| begun.saturating_sub(ARRIVAL_MAX));
    let recent = history.found_sessions(&Request { since, ..request })?;
    pins.note_found(pin.id, Arc::new(found.and(recent)));
    let pin = pins.list().into_iter().find(|listed| listed.id == pin.id).unwrap_or(pin);
    tracing::info!("pin {}: {} until {}", pin.id, Log(pin.expression()), pin.until);
    let note = if new_pin.hunt { None } else { hidden(history, &new_pin.filter) };
    Ok(PinStatus { note: note.map(Foreign::from), ..status_of(history, pin) })
}

/// What a pin does not protect although its sessions have the addresses and ports of the filter.
fn hidden(history: &History, filter: &str) -> Option<String> {
    let request = Request { expression: filter.to_owned(), tier: Some(Tier::Memory), ..Request::default() };
    let mut packets = history.packets(&request).ok()?;
    while packets.next().is_some() {}
    history.remainder(&request, packets.notes()).ok()?.not_pinned()
}

fn list_of(history: &History) -> PinList {
    let pins = pins(history);
    PinList {
        pins: pins.list().into_iter().map(|pin| status_of(history, pin)).collect(),
        used_bytes: used_bytes(history, u16::MAX),
        limit_bytes: pins.limit_bytes(),
    }
}

/// A pin. Its sessions are those that workers have marked, and those that were found and are not marked yet.
fn status_of(history: &History, mut pin: Pin) -> PinStatus {
    let (mut sessions, mut kept_packets, mut kept_bytes) = (0, 0, 0);
    let arrays = history.workers.iter().map(|worker| &worker.sessions);
    for (array, session) in arrays.flat_map(|array| array.sessions().map(move |session| (array, session))) {
        let noted = session.marks().pins >> pin.place & 1 == 1;
        let protected = noted
            || pin.protects_endpoints(&Endpoints::from(&session.key))
            || pin.has_found(array, session.slot, session.first_sequence);
        if protected && session.kept_packets > 0 {
            sessions += 1;
            kept_packets += session.kept_packets;
            kept_bytes += session.kept_bytes;
        }
    }
    let of_all = |of: &dyn Fn(&engine::pipeline::Worker) -> u64| history.workers.iter().map(of).sum();
    PinStatus {
        id: pin.id,
        filter: pin.expression().to_owned().into(),
        since: pin.since.to_rfc3339().into(),
        until: pin.until.to_rfc3339().into(),
        sessions,
        kept_packets,
        kept_bytes,
        note: None,
        pinned_bytes: of_all(&|worker| worker.tally.pinned_bytes(pin.place)),
        refused_packets: of_all(&|worker| worker.tally.refused_packets(pin.place)),
    }
}

/// Bytes of the packets that a new pin would protect and no other one does: of the sessions found, and of those that the
/// filter of a hunt names by their endpoints.
fn unprotected_bytes(history: &History, mut filter: Option<SessionFilter>, found: &FoundSessions) -> u64 {
    let arrays = history.workers.iter().map(|worker| &worker.sessions);
    let sessions = arrays.flat_map(|array| array.sessions().map(move |session| (array, session)));
    sessions
        .filter(|(_, session)| session.marks().pins == 0 && session.kept_packets > 0)
        .filter(|(array, session)| {
            filter.as_mut().is_some_and(|filter| filter.matches(&Endpoints::from(&session.key)))
                || found.contains(array, session.slot, session.first_sequence)
        })
        .map(|(_, session)| session.kept_bytes)
        .sum()
}

/// The part of the budget that such pins may take, as a divisor.
fn share(hunt: bool) -> u64 {
    if hunt { SHARE * HUNT_SHARE } else { SHARE }
}

/// The pins of hunts, one bit each.
fn of_hunts(pins: &[Pin]) -> u16 {
    pins.iter().filter(|pin| pin.is_of_hunt()).fold(0, |bits, pin| bits | 1 << pin.place)
}

/// Removes the largest pin of a hunt while sessions of hunts have grown beyond their part.
fn limit_hunts(history: &History) {
    let pins = pins(history);
    let listed = pins.list();
    if used_bytes(history, of_hunts(&listed)) <= pins.limit_bytes() / HUNT_SHARE {
        return;
    }
    let hunts = listed.iter().filter(|pin| pin.is_of_hunt());
    if let Some(largest) = hunts.max_by_key(|pin| used_bytes(history, 1 << pin.place)) {
        pins.remove(largest.id);
        tracing::warn!(
            "pin {} was removed: the sessions that hunts pinned have grown beyond their part of the memory of pins; \
             pin what is needed by hand, or export it",
            largest.id
        );
    }
}

/// Memory that these pins have, or will have when everything they protect has moved: the larger of the two.
fn used_bytes(history: &History, pins: u16) -> u64 {
    let taken: u64 = (0..engine::session::SessionMarks::PINS)
        .filter(|place| pins >> place & 1 == 1)
        .map(|place| history.workers.iter().map(|worker| worker.tally.pinned_bytes(place)).sum::<u64>())
        .sum();
    let sessions = history.workers.iter().flat_map(|worker| worker.sessions.sessions());
    let promised: u64 =
        sessions.filter(|session| session.marks().pins & pins != 0).map(|session| session.kept_bytes).sum();
    taken.max(promised)
}

fn pins(history: &History) -> &Pins {
    // Every recorder has a worker, and all workers share their pins.
    &history.workers[0].pins
}
