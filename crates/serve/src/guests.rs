//! Who is connected, and who gives way when there is no room for another.
//!
//! A connection that waits for a question costs its client nothing, so anybody can have thousands. When there is no
//! room, the one that has waited longest is closed, among those of whoever has the most connections; one that is being
//! answered never is. So a client that connects and asks is answered, however many others just connect. What always
//! holds: no more connections than the limit, and no source has more than three quarters of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::peer::Source;

#[derive(Debug)]
pub(super) struct Guests {
    /// How long a connection may wait for a question before it has to make room.
    grace: Duration,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    here: HashMap<u64, Guest>,
}

#[derive(Debug)]
struct Guest {
    source: Source,
    /// Since when it waits for a question; `None` while it is being answered.
    waiting: Option<Instant>,
    leave: Arc<Notify>,
}

/// One connection's place; it is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    guests: Arc<Guests>,
    id: u64,
    leave: Arc<Notify>,
}

/// What it took to find room.
#[derive(Debug)]
pub(super) enum Room {
    /// There was some.
    Free(Place),
    /// Another had to go.
    Made(Place),
    /// There will be some after this time: those who wait have just come.
    After(Duration),
    /// Everybody is being answered, or those who wait have fewer connections.
    None,
}

impl Guests {
    pub(super) fn new(grace: Duration) -> Arc<Self> {
        Arc::new(Self { grace, inner: Mutex::default() })
    }

    /// Looks for room among `max`.
    pub(super) fn enter(self: &Arc<Self>, source: Source, max: usize) -> Room {
        let mut inner = self.lock();
        let mut counts: HashMap<Source, usize> = HashMap::new();
        for guest in inner.here.values() {
            *counts.entry(guest.source).or_default() += 1;
        }
        let count = |source: &Source| counts.get(source).copied().unwrap_or(0);
        let (mine, share) = (count(&source), (max - max / 4).max(1));
        let full = inner.here.len() >= max;
        let mut made = false;
        if full || mine >= share {
            let gives_way = |guest: &Guest| {
                if mine >= share { guest.source == source } else { count(&guest.source) >= mine.max(1) }
            };
            let waiting = inner.here.iter().filter_map(|(id, guest)| Some((*id, guest, guest.waiting?)));
            let longest = waiting
                .filter(|(_, guest, _)| gives_way(guest))
                .max_by_key(|(id, guest, since)| (count(&guest.source), std::cmp::Reverse((*since, *id))));
            let Some((id, _, since)) = longest else { return Room::None };
            let grace = self.grace.saturating_sub(since.elapsed());
            if !grace.is_zero() {
                return Room::After(grace);
            }
            if let Some(guest) = inner.here.remove(&id) {
                guest.leave.notify_one();
            }
            made = true;
        }
        let (id, leave) = (inner.next, Arc::new(Notify::new()));
        inner.next += 1;
        inner.here.insert(id, Guest { source, waiting: Some(Instant::now()), leave: Arc::clone(&leave) });
        let place = Place { guests: Arc::clone(self), id, leave };
        if made { Room::Made(place) } else { Room::Free(place) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Waits until it has to make room.
    pub(super) async fn left(&self) {
        self.leave.notified().await;
    }

    /// A question has come.
    pub(super) fn asked(&self) {
        self.set(None);
    }

    /// It was answered.
    pub(super) fn answered(&self) {
        self.set(Some(Instant::now()));
    }

    fn set(&self, waiting: Option<Instant>) {
        if let Some(guest) = self.guests.lock().here.get_mut(&self.id) {
            guest.waiting = waiting;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.guests.lock().here.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_millis(20);

    fn place(room: Room) -> Place {
        match room {
            Room::Free(place) | Room::Made(place) => place,
            Room::After(_) | Room::None => panic!("there is no room"),
        }
    }

    fn is_here(guests: &Guests, place: &Place) -> bool {
        guests.lock().here.contains_key(&place.id)
    }

    #[test]
    fn who_has_the_most_connections_gives_way_and_who_is_answered_stays() {
        let guests = Guests::new(GRACE);
        let (flood, other) = (Source::User(1), Source::User(2));
        let first = place(guests.enter(flood, 8));
        first.asked();
        let rest: Vec<_> = (0..5).map(|_| place(guests.enter(flood, 8))).collect();
        // Six are three quarters: its own oldest that waits goes, once it has had its moment.
        assert!(matches!(guests.enter(flood, 8), Room::After(_)));
        std::thread::sleep(GRACE);
        let seventh = guests.enter(flood, 8);
        assert!(matches!(seventh, Room::Made(_)));
        assert!(is_here(&guests, &first) && !is_here(&guests, &rest[0]) && is_here(&guests, &rest[1]));
        // Others find room, and once it is full the flood makes it.
        let others: Vec<_> = (0..2).map(|_| place(guests.enter(other, 8))).collect();
        assert_eq!(guests.lock().here.len(), 8);
        std::thread::sleep(GRACE);
        let third = guests.enter(other, 8);
        assert!(matches!(third, Room::Made(_)) && !is_here(&guests, &rest[1]));
        assert!(others.iter().all(|place| is_here(&guests, place)));
        drop((seventh, rest, others, third, first));
        assert!(guests.lock().here.is_empty());
    }

    #[test]
    fn nobody_goes_for_one_who_has_more() {
        let guests = Guests::new(GRACE);
        let (busy, quiet) = (Source::User(1), Source::User(2));
        let held: Vec<_> = (0..3).map(|_| place(guests.enter(busy, 4))).collect();
        held.iter().for_each(Place::asked);
        let waits = place(guests.enter(quiet, 4));
        assert!(matches!(guests.enter(busy, 4), Room::None));
        assert!(is_here(&guests, &waits));
        held[1].answered();
        std::thread::sleep(GRACE);
        assert!(matches!(guests.enter(busy, 4), Room::Made(_)));
        assert!(!is_here(&guests, &held[1]));
    }
}
