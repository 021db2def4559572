//! A bounded amount, shared fairly by those who ask: places for answers, and memory for listings.
//!
//! What always holds: no more than the total is taken at any time. Root and the recorder's own user find a part that
//! nobody else can take, and users of the socket one that no other machine and no plain TCP client can take. Of what is
//! left to its kind, each holder takes half at most, so that another one finds something, however many answers the
//! first one leaves unread.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::peer::{QuotaClass, QuotaHolder};

/// One of this many parts of the total is reserved for root, and as much for the socket.
const RESERVE_PARTS: u64 = 8;

/// An amount that is shared.
#[derive(Debug)]
pub(crate) struct Quota {
    total: u64,
    /// What one answer takes at least.
    unit: u64,
    taken: Mutex<HashMap<QuotaHolder, u64>>,
    released: Notify,
}

/// A part of a [`Quota`]; it is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    quota: Arc<Quota>,
    holder: QuotaHolder,
    amount: u64,
}

impl Share {
    /// How much it is.
    pub(crate) fn amount(&self) -> u64 {
        self.amount
    }
}

impl Quota {
    pub(crate) fn new(total: u64, unit: u64) -> Arc<Self> {
        Arc::new(Self { total, unit: unit.max(1), taken: Mutex::default(), released: Notify::new() })
    }

    /// The most that a holder of this standing can have, when nobody else has anything.
    pub(crate) fn most(&self, standing: QuotaClass) -> u64 {
        match standing {
            QuotaClass::Root => self.total,
            QuotaClass::Socket | QuotaClass::Remote => (self.limit(standing) / 2).max(self.unit.min(self.total)),
        }
    }

    /// Takes between `least` and `wanted`, at once or within `patience`.
    pub(crate) async fn take(
        self: &Arc<Self>,
        holder: &QuotaHolder,
        least: u64,
        wanted: u64,
        patience: Duration,
    ) -> Option<Share> {
        let waiting = async {
            loop {
                let released = self.released.notified();
                tokio::pin!(released);
                // Registered before looking, so that no release is missed.
                released.as_mut().enable();
                if let Some(share) = self.try_take(holder, least, wanted) {
                    return share;
                }
                released.await;
            }
        };
        tokio::time::timeout(patience, waiting).await.ok()
    }

    /// Takes between `least` and `wanted` if it is there.
    pub(crate) fn try_take(self: &Arc<Self>, holder: &QuotaHolder, least: u64, wanted: u64) -> Option<Share> {
        let mut taken = self.lock();
        let mine = taken.get(holder).copied().unwrap_or(0);
        let free = self.free(&taken, holder.standing);
        let fair = match holder.standing {
            QuotaClass::Root => free,
            // Half of what the others have left, and one answer in any case.
            QuotaClass::Socket | QuotaClass::Remote => (free + mine).div_ceil(2).saturating_sub(mine),
        };
        let fair = if mine == 0 { fair.max(least) } else { fair };
        let amount = wanted.min(fair).min(free);
        if amount < least {
            return None;
        }
        *taken.entry(holder.clone()).or_default() += amount;
        Some(Share { quota: Arc::clone(self), holder: holder.clone(), amount })
    }

    /// What holders of this standing may have together.
    fn limit(&self, standing: QuotaClass) -> u64 {
        let reserve = |units_min: u64| {
            if self.total >= units_min * self.unit { (self.total / RESERVE_PARTS).max(self.unit) } else { 0 }
        };
        match standing {
            QuotaClass::Root => self.total,
            QuotaClass::Socket => self.total - reserve(2),
            QuotaClass::Remote => self.total - reserve(2) - reserve(8),
        }
    }

    fn free(&self, taken: &HashMap<QuotaHolder, u64>, standing: QuotaClass) -> u64 {
        let of = |standings: &[QuotaClass]| -> u64 {
            taken.iter().filter(|(holder, _)| standings.contains(&holder.standing)).map(|(_, amount)| amount).sum()
        };
        let all = self.total.saturating_sub(of(&[QuotaClass::Root, QuotaClass::Socket, QuotaClass::Remote]));
        let rest = |standing, standings: &[QuotaClass]| self.limit(standing).saturating_sub(of(standings));
        match standing {
            QuotaClass::Root => all,
            QuotaClass::Socket => all.min(rest(QuotaClass::Socket, &[QuotaClass::Socket, QuotaClass::Remote])),
            QuotaClass::Remote => all
                .min(rest(QuotaClass::Socket, &[QuotaClass::Socket, QuotaClass::Remote]))
                .min(rest(QuotaClass::Remote, &[QuotaClass::Remote])),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<QuotaHolder, u64>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = self.quota.lock();
        if let Some(amount) = taken.get_mut(&self.holder) {
            *amount -= self.amount.min(*amount);
            if *amount == 0 {
                taken.remove(&self.holder);
            }
        }
        drop(taken);
        self.quota.released.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::super::peer::HolderId;
    use super::*;

    fn holder(standing: QuotaClass, uid: u32) -> QuotaHolder {
        QuotaHolder { standing, id: HolderId::User(uid) }
    }

    fn exhaust(quota: &Arc<Quota>, holder: &QuotaHolder) -> Vec<Share> {
        std::iter::from_fn(|| quota.try_take(holder, 1, 1)).collect()
    }

    #[test]
    fn a_holder_leaves_something_to_the_next_and_all_leave_the_reserves() {
        let quota = Quota::new(16, 1);
        let [a, b, c] = [1, 2, 3].map(|uid| holder(QuotaClass::Remote, uid));
        let shares: Vec<Vec<Share>> = [&a, &b, &c].map(|holder| exhaust(&quota, holder)).into();
        assert_eq!(shares.iter().map(Vec::len).collect::<Vec<_>>(), [6, 3, 2], "of 12 that other machines may have");
        let rest: usize = (4..20)
            .map(|uid| {
                let held = exhaust(&quota, &holder(QuotaClass::Remote, uid));
                let count = held.len();
                std::mem::forget(held);
                count
            })
            .sum();
        assert_eq!(rest, 1, "and then there is nothing left for other machines");
        assert_eq!(
            exhaust(&quota, &holder(QuotaClass::Socket, 1000)).len(),
            1,
            "half of the reserve of the socket, rounded up"
        );
        assert_eq!(exhaust(&quota, &holder(QuotaClass::Root, 0)).len(), 4, "the reserves");
        drop(shares);
        assert!(quota.try_take(&a, 1, 1).is_some());
    }

    #[test]
    fn an_amount_is_cut_to_what_is_fair_and_never_below_what_is_needed() {
        let quota = Quota::new(3200, 385);
        let (a, b) = (holder(QuotaClass::Remote, 1), holder(QuotaClass::Remote, 2));
        let first = quota.try_take(&a, 385, 5000).unwrap();
        assert_eq!(first.amount(), (3200 - 2 * 400) / 2);
        assert!(quota.try_take(&a, 385, 5000).is_none());
        let second = quota.try_take(&b, 385, 5000).unwrap();
        assert_eq!(second.amount(), first.amount() / 2);
        assert_eq!(
            quota.try_take(&holder(QuotaClass::Root, 0), 385, 5000).unwrap().amount(),
            3200 - first.amount() - second.amount()
        );
        // In the smallest memory two answers fit: one of them is root's.
        let small = Quota::new(768, 384);
        let held = small.try_take(&a, 384, 384).unwrap();
        assert!(small.try_take(&b, 384, 384).is_none());
        assert!(small.try_take(&holder(QuotaClass::Root, 0), 384, 384).is_some());
        drop(held);
    }

    #[tokio::test]
    async fn whoever_waits_is_served_when_something_is_released() {
        let quota = Quota::new(2, 1);
        let root = holder(QuotaClass::Root, 0);
        let held = exhaust(&quota, &root);
        assert_eq!(held.len(), 2);
        assert!(quota.take(&root, 1, 1, Duration::from_millis(10)).await.is_none());
        let waiting = tokio::spawn({
            let (quota, root) = (Arc::clone(&quota), root.clone());
            async move { quota.take(&root, 1, 1, Duration::from_secs(60)).await.is_some() }
        });
        tokio::task::yield_now().await;
        drop(held);
        assert!(waiting.await.unwrap());
    }
}
