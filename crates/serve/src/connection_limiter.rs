//! The limit of connections, and which connection is closed when there is no room for another.
//!
//! A connection without a request costs its client nothing, so that a client can open thousands. When there is no room, the
//! source with the most connections loses the one that has waited longest for a request; a connection that is being
//! answered is never closed. So a client that connects and asks is answered, however many others only connect. What
//! always holds: no more connections than the limit, and no source has more than three quarters of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::peer::PeerSource;

#[derive(Debug)]
pub(super) struct ConnectionLimiter {
    /// How long a connection may wait for a request before it can be displaced.
    grace: Duration,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    open: HashMap<u64, Connection>,
}

#[derive(Debug)]
struct Connection {
    source: PeerSource,
    /// Since when it waits for a request; `None` while it is being answered.
    waiting: Option<Instant>,
    displace: Arc<Notify>,
}

/// The slot of a connection; it is free again when this is dropped.
#[derive(Debug)]
pub(super) struct ConnectionSlot {
    limiter: Arc<ConnectionLimiter>,
    id: u64,
    displace: Arc<Notify>,
}

/// Whether a connection is admitted.
#[derive(Debug)]
pub(super) enum Admission {
    /// There was a free slot.
    Free(ConnectionSlot),
    /// Another connection was displaced.
    Displaced(ConnectionSlot),
    /// After this time a connection can be displaced.
    Later(Duration),
    /// All others are being answered, or their sources have fewer connections.
    Refused,
}

impl ConnectionLimiter {
    pub(super) fn new(grace: Duration) -> Arc<Self> {
        Arc::new(Self { grace, inner: Mutex::default() })
    }

    /// Looks for a slot among `max`.
    pub(super) fn admit(self: &Arc<Self>, source: PeerSource, max: usize) -> Admission {
        let mut inner = self.lock();
        let mut counts: HashMap<PeerSource, usize> = HashMap::new();
        for connection in inner.open.values() {
            *counts.entry(connection.source).or_default() += 1;
        }
        let count = |source: &PeerSource| counts.get(source).copied().unwrap_or(0);
        let (mine, share) = (count(&source), (max - max / 4).max(1));
        let full = inner.open.len() >= max;
        let mut made = false;
        if full || mine >= share {
            let gives_way = |connection: &Connection| {
                if mine >= share { connection.source == source } else { count(&connection.source) >= mine.max(1) }
            };
            let waiting = inner.open.iter().filter_map(|(id, connection)| Some((*id, connection, connection.waiting?)));
            let longest = waiting
                .filter(|(_, connection, _)| gives_way(connection))
                .max_by_key(|(id, connection, since)| (count(&connection.source), std::cmp::Reverse((*since, *id))));
            let Some((id, _, since)) = longest else { return Admission::Refused };
            let grace = self.grace.saturating_sub(since.elapsed());
            if !grace.is_zero() {
                return Admission::Later(grace);
            }
            if let Some(connection) = inner.open.remove(&id) {
                connection.displace.notify_one();
            }
            made = true;
        }
        let (id, displace) = (inner.next, Arc::new(Notify::new()));
        inner.next += 1;
        inner.open.insert(id, Connection { source, waiting: Some(Instant::now()), displace: Arc::clone(&displace) });
        let slot = ConnectionSlot { limiter: Arc::clone(self), id, displace };
        if made { Admission::Displaced(slot) } else { Admission::Free(slot) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionSlot {
    /// Waits until the connection is displaced.
    pub(super) async fn displaced(&self) {
        self.displace.notified().await;
    }

    /// A request has arrived.
    pub(super) fn request_began(&self) {
        self.set(None);
    }

    /// The request was answered.
    pub(super) fn request_ended(&self) {
        self.set(Some(Instant::now()));
    }

    fn set(&self, waiting: Option<Instant>) {
        if let Some(connection) = self.limiter.lock().open.get_mut(&self.id) {
            connection.waiting = waiting;
        }
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.limiter.lock().open.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_millis(20);

    fn slot(admission: Admission) -> ConnectionSlot {
        match admission {
            Admission::Free(slot) | Admission::Displaced(slot) => slot,
            Admission::Later(_) | Admission::Refused => panic!("there is no admission"),
        }
    }

    fn is_open(limiter: &ConnectionLimiter, slot: &ConnectionSlot) -> bool {
        limiter.lock().open.contains_key(&slot.id)
    }

    #[test]
    fn who_has_the_most_connections_gives_way_and_who_is_answered_stays() {
        let limiter = ConnectionLimiter::new(GRACE);
        let (flood, other) = (PeerSource::User(1), PeerSource::User(2));
        let first = slot(limiter.admit(flood, 8));
        first.request_began();
        let rest: Vec<_> = (0..5).map(|_| slot(limiter.admit(flood, 8))).collect();
        // Six are three quarters: its own oldest that waits goes, once it has had its moment.
        assert!(matches!(limiter.admit(flood, 8), Admission::Later(_)));
        std::thread::sleep(GRACE);
        let seventh = limiter.admit(flood, 8);
        assert!(matches!(seventh, Admission::Displaced(_)));
        assert!(is_open(&limiter, &first) && !is_open(&limiter, &rest[0]) && is_open(&limiter, &rest[1]));
        // Others find admission, and once it is full the flood makes it.
        let others: Vec<_> = (0..2).map(|_| slot(limiter.admit(other, 8))).collect();
        assert_eq!(limiter.lock().open.len(), 8);
        std::thread::sleep(GRACE);
        let third = limiter.admit(other, 8);
        assert!(matches!(third, Admission::Displaced(_)) && !is_open(&limiter, &rest[1]));
        assert!(others.iter().all(|slot| is_open(&limiter, slot)));
        drop((seventh, rest, others, third, first));
        assert!(limiter.lock().open.is_empty());
    }

    #[test]
    fn nobody_goes_for_one_who_has_more() {
        let limiter = ConnectionLimiter::new(GRACE);
        let (busy, quiet) = (PeerSource::User(1), PeerSource::User(2));
        let held: Vec<_> = (0..3).map(|_| slot(limiter.admit(busy, 4))).collect();
        held.iter().for_each(ConnectionSlot::request_began);
        let waits = slot(limiter.admit(quiet, 4));
        assert!(matches!(limiter.admit(busy, 4), Admission::Refused));
        assert!(is_open(&limiter, &waits));
        held[1].request_ended();
        std::thread::sleep(GRACE);
        assert!(matches!(limiter.admit(busy, 4), Admission::Displaced(_)));
        assert!(!is_open(&limiter, &held[1]));
    }
}
