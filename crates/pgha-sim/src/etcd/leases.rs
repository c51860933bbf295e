//! The lease table, in the time of etcd's leader.

use std::collections::BTreeMap;

use pgha_core::units::LeaseId;

use super::Time;

/// No lease is shorter: one and a half election time-outs, in whole seconds.
pub const SHORTEST: Time = 2_000_000_000;

#[derive(Clone, Copy, Debug)]
struct Lease {
    ttl: Time,
    expires: Time,
    granted: Time,
    ended: Option<Time>,
}

impl Lease {
    fn lived_at(&self, time: Time) -> bool {
        self.granted <= time && self.ended.is_none_or(|ended| ended > time)
    }
}

/// All leases that were ever granted; those that have ended are kept for restored snapshots.
#[derive(Debug, Default)]
pub struct Leases {
    all: BTreeMap<i64, Lease>,
    last: i64,
}

impl Leases {
    /// Grants one.
    pub fn grant(&mut self, now: Time, ttl: Time) -> LeaseId {
        self.last += 1;
        let ttl = ttl.max(SHORTEST).div_ceil(1_000_000_000) * 1_000_000_000;
        let lease = Lease {
            ttl,
            expires: now + ttl,
            granted: now,
            ended: None,
        };
        self.all.insert(self.last, lease);
        LeaseId(self.last)
    }

    /// The time to live of a lease that lives.
    pub fn ttl(&self, lease: LeaseId) -> Option<Time> {
        self.all.get(&lease.0).filter(|l| l.ended.is_none()).map(|l| l.ttl)
    }

    /// Was it ever granted?
    pub fn known(&self, lease: LeaseId) -> bool {
        self.all.contains_key(&lease.0)
    }

    /// Renews a lease; its time to live, or `None` when it has ended.
    pub fn keep(&mut self, now: Time, lease: LeaseId) -> Option<Time> {
        let lease = self.all.get_mut(&lease.0).filter(|l| l.ended.is_none())?;
        lease.expires = now + lease.ttl;
        Some(lease.ttl)
    }

    /// Ends a lease.
    pub fn end(&mut self, now: Time, lease: LeaseId) {
        if let Some(lease) = self.all.get_mut(&lease.0).filter(|l| l.ended.is_none()) {
            lease.ended = Some(now);
        }
    }

    /// Leases whose time is over and that have not ended yet.
    pub fn over(&self, now: Time) -> Vec<LeaseId> {
        let over = self.all.iter().filter(|(_, l)| l.ended.is_none() && l.expires <= now);
        over.map(|(id, _)| LeaseId(*id)).collect()
    }

    /// A new leader of etcd gives every lease its whole time to live again.
    pub fn restart(&mut self, now: Time) {
        for lease in self.all.values_mut() {
            lease.expires = now + lease.ttl;
        }
    }

    /// A snapshot from an earlier time was restored: its leases live again, later ones never were.
    pub fn rewind(&mut self, now: Time, then: Time) {
        self.all.retain(|_, lease| lease.lived_at(then));
        for lease in self.all.values_mut() {
            lease.ended = None;
            lease.granted = lease.granted.min(now);
        }
        self.restart(now);
    }

    /// All are lost.
    pub fn clear(&mut self) {
        self.all.clear();
    }
}
