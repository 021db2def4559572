//! Links that open the page, and the sessions of browsers that used one.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::secret::{Digest, Secret};

/// Time without a use after which a link or a session ends, unless another one is set.
pub const IDLE_DEFAULT: Duration = Duration::from_secs(3600);
/// Links that nobody has used yet, and sessions, at most. Beyond it, the one that was unused longest ends.
const MAX: usize = 256;

/// The links and sessions of the page. `O` is the owner: whoever asked for the link.
#[derive(Debug)]
pub struct Sessions<O> {
    links: Mutex<Table<O>>,
    sessions: Mutex<Table<O>>,
    idle_max: Duration,
}

/// Owners by the digests of their secrets.
type Table<O> = HashMap<Digest, Entry<O>>;

#[derive(Debug)]
struct Entry<O> {
    owner: O,
    used: Instant,
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Digest")
    }
}

impl<O> Default for Sessions<O> {
    fn default() -> Self {
        Self::new(IDLE_DEFAULT)
    }
}

impl<O> Sessions<O> {
    /// Links and sessions that end after this time without a use.
    pub fn new(idle_max: Duration) -> Self {
        Self { links: Mutex::default(), sessions: Mutex::default(), idle_max }
    }

    /// Time without a use after which a link or a session ends.
    pub fn idle_max(&self) -> Duration {
        self.idle_max
    }
}

impl<O: Clone> Sessions<O> {
    /// Makes a link for `owner`; `None` if the system has no randomness.
    pub fn link(&self, owner: O, now: Instant) -> Option<Secret> {
        self.add(&self.links, owner, now)
    }

    /// Exchanges a link for a session, if its owner is `admitted`. The link is gone then; one whose owner is not admitted stays.
    pub fn exchange(&self, link: &str, now: Instant, admitted: impl FnOnce(&O) -> bool) -> Option<Secret> {
        let owner = {
            let mut links = lock(&self.links);
            self.end_unused(&mut links, now);
            let digest = Digest::of(link);
            links.get(&digest).filter(|entry| admitted(&entry.owner))?;
            links.remove(&digest)?.owner
        };
        self.add(&self.sessions, owner, now)
    }

    /// The owner of a session, which is used with this call.
    pub fn owner(&self, session: &str, now: Instant) -> Option<O> {
        let mut sessions = lock(&self.sessions);
        self.end_unused(&mut sessions, now);
        let entry = sessions.get_mut(&Digest::of(session))?;
        entry.used = now;
        Some(entry.owner.clone())
    }

    /// Ends a session.
    pub fn end(&self, session: &str) {
        lock(&self.sessions).remove(&Digest::of(session));
    }

    fn add(&self, table: &Mutex<Table<O>>, owner: O, now: Instant) -> Option<Secret> {
        let secret = Secret::new()?;
        let mut table = lock(table);
        self.end_unused(&mut table, now);
        if table.len() >= MAX
            && let Some(longest) = table.iter().min_by_key(|(_, entry)| entry.used).map(|(digest, _)| *digest)
        {
            table.remove(&longest);
        }
        table.insert(Digest::of(secret.reveal()), Entry { owner, used: now });
        Some(secret)
    }

    fn end_unused(&self, table: &mut Table<O>, now: Instant) {
        table.retain(|_, entry| now.saturating_duration_since(entry.used) < self.idle_max);
    }
}

fn lock<O>(table: &Mutex<Table<O>>) -> MutexGuard<'_, Table<O>> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_link_works_once_and_its_session_for_its_owner() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        let link = sessions.link("root", now).unwrap();
        assert!(sessions.exchange("something else", now, |_| true).is_none());
        assert!(sessions.exchange(link.reveal(), now, |_| false).is_none(), "another user");
        let session = sessions.exchange(link.reveal(), now, |owner| *owner == "root").unwrap();
        assert!(sessions.exchange(link.reveal(), now, |_| true).is_none(), "a second use");
        assert_eq!(sessions.owner(session.reveal(), now), Some("root"));
        assert_eq!(sessions.owner(link.reveal(), now), None, "a link is no session");
        sessions.end(session.reveal());
        assert_eq!(sessions.owner(session.reveal(), now), None);
    }

    #[test]
    fn an_hour_without_a_use_ends_links_and_sessions() {
        let (sessions, mut now) = (Sessions::default(), Instant::now());
        let (used, unused) = (sessions.link(1, now).unwrap(), sessions.link(2, now).unwrap());
        now += 59 * MINUTE;
        let session = sessions.exchange(used.reveal(), now, |_| true).unwrap();
        now += MINUTE;
        assert!(sessions.exchange(unused.reveal(), now, |_| true).is_none());
        for _ in 0..3 {
            now += 58 * MINUTE;
            assert_eq!(sessions.owner(session.reveal(), now), Some(1), "each use counts");
        }
        now += 60 * MINUTE;
        assert_eq!(sessions.owner(session.reveal(), now), None);
    }

    #[test]
    fn the_one_unused_longest_makes_room() {
        let (sessions, start) = (Sessions::default(), Instant::now());
        let links: Vec<Secret> =
            (0..=MAX).map(|n| sessions.link(n, start + Duration::from_millis(n as u64)).unwrap()).collect();
        assert!(sessions.exchange(links[0].reveal(), start, |_| true).is_none());
        assert!(links[1..].iter().all(|link| sessions.exchange(link.reveal(), start, |_| true).is_some()));
    }
}
