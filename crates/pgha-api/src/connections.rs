//! Who is connected, and who has to go when there is no room.
//!
//! A connection either waits for its client (to send a head, a body, or the next request) or it is being served.
//! Waiting costs nothing to the client, so it is never allowed to keep others out: when the table is full, the
//! connection that has waited longest is closed, among those of the address with the most connections. Serving is
//! bounded elsewhere (all waits of handlers are), so there is always somebody to close.
//!
//! Invariant: the table never holds more than its capacity. Absent on purpose: a cap per address. A proxy in front is
//! one address too, and taking from the largest holder first is enough to stop one host from crowding out the rest.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pgha_core::units::Mono;
use tokio::task::AbortHandle;

use crate::backend::Clock;
use crate::limits::HEAD_TIMEOUT;

/// What a connection is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum Phase {
    /// Waiting for a request head: nothing has come yet since accept, or only a part.
    Head = 0,
    /// Between two requests.
    Idle = 1,
    /// A head has come, but its body has not, or it is not yet known whether the sender is let in.
    Doubtful = 2,
    /// We owe an answer.
    Serving = 3,
}

/// Shared between the connection's task and the table.
pub(crate) struct Activity {
    clock: Clock,
    phase: AtomicU8,
    /// A [`Mono`].
    since: AtomicU64,
}

impl Activity {
    fn new(clock: Clock) -> Activity {
        let since = AtomicU64::new(clock().0);
        Activity {
            clock,
            phase: AtomicU8::new(Phase::Head as u8),
            since,
        }
    }
    // Both fields are hints for one thread that reads them seldom: no ordering between them is needed.
    fn enter(&self, phase: Phase) {
        self.since.store((self.clock)().0, Ordering::Relaxed);
        self.phase.store(phase as u8, Ordering::Relaxed);
    }
    fn since(&self) -> Mono {
        Mono(self.since.load(Ordering::Relaxed))
    }
    fn is(&self, phase: Phase) -> bool {
        self.phase.load(Ordering::Relaxed) == phase as u8
    }
    /// Bytes came from the client.
    pub(crate) fn bytes_came(&self) {
        if self.is(Phase::Idle) {
            self.enter(Phase::Head);
        }
    }
    /// A request head is complete.
    pub(crate) fn serving(&self) {
        self.enter(Phase::Serving);
    }
    /// The handler has yet to check who asks, and to read the body.
    pub(crate) fn awaiting_client(&self) {
        self.enter(Phase::Doubtful);
    }
    /// The answer is on its way.
    pub(crate) fn answered(&self) {
        self.enter(Phase::Idle);
    }
}

struct Entry {
    address: IpAddr,
    activity: Arc<Activity>,
    task: Option<AbortHandle>,
}

/// All connections of one server.
pub(crate) struct Connections {
    capacity: usize,
    clock: Clock,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    next_id: u64,
    entries: HashMap<u64, Entry>,
}

/// A place in the table, given back when dropped.
pub(crate) struct Place {
    id: u64,
    owner: Arc<Connections>,
    /// To be kept up to date by whoever serves the connection.
    pub(crate) activity: Arc<Activity>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.owner.lock().entries.remove(&self.id);
    }
}

impl Connections {
    pub(crate) fn new(capacity: usize, clock: Clock) -> Arc<Connections> {
        Arc::new(Connections {
            capacity,
            clock,
            table: Mutex::default(),
        })
    }

    // A poisoned lock only means that a thread panicked between two plain map operations; the map is still good.
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes room if needed and takes a place. `None` when every connection is being served.
    pub(crate) fn admit(self: &Arc<Connections>, address: IpAddr) -> Option<Place> {
        let address = holder(address);
        let mut table = self.lock();
        if table.entries.len() >= self.capacity {
            let victim = table.whom_to_close()?;
            if let Some(Entry { task: Some(task), .. }) = table.entries.remove(&victim) {
                task.abort();
            }
        }
        let id = table.next_id;
        table.next_id += 1;
        let activity = Arc::new(Activity::new(Arc::clone(&self.clock)));
        table.entries.insert(
            id,
            Entry {
                address,
                activity: Arc::clone(&activity),
                task: None,
            },
        );
        Some(Place {
            id,
            owner: Arc::clone(self),
            activity,
        })
    }

    /// Tells the table which task to abort for the place. Called right after spawning it.
    pub(crate) fn set_task(&self, id: u64, task: AbortHandle) {
        if let Some(entry) = self.lock().entries.get_mut(&id) {
            entry.task = Some(task);
        }
    }

    /// Closes connections whose head is overdue.
    pub(crate) fn sweep(&self) {
        let now = (self.clock)();
        for entry in self.lock().entries.values() {
            let is_overdue = entry.activity.is(Phase::Head) && now.since(entry.activity.since()) > HEAD_TIMEOUT;
            if let Some(task) = entry.task.as_ref().filter(|_| is_overdue) {
                task.abort();
            }
        }
    }

    /// Connections open now.
    pub(crate) fn count(&self) -> usize {
        self.lock().entries.len()
    }
}

impl Place {
    pub(crate) fn id(&self) -> u64 {
        self.id
    }
}

impl Table {
    /// The one that has waited longest, of the address that holds most connections.
    fn whom_to_close(&self) -> Option<u64> {
        let mut held: HashMap<IpAddr, (usize, Option<(Mono, u64)>)> = HashMap::new();
        for (&id, entry) in &self.entries {
            let (count, oldest) = held.entry(entry.address).or_default();
            *count += 1;
            if !entry.activity.is(Phase::Serving) {
                let waiting = (entry.activity.since(), id);
                *oldest = Some(oldest.map_or(waiting, |o| o.min(waiting)));
            }
        }
        held.into_values()
            .filter_map(|(count, oldest)| oldest.map(|(since, id)| (std::cmp::Reverse(count), since, id)))
            .min()
            .map(|(_, _, id)| id)
    }
}

/// What counts as one holder: an IPv4 address, or the /64 that one IPv6 host can pick addresses from.
fn holder(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let s = v6.segments();
            IpAddr::from([s[0], s[1], s[2], s[3], 0, 0, 0, 0])
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A clock that goes on by one at each look.
    fn counter() -> Clock {
        let ticks = AtomicU64::new(0);
        Arc::new(move || Mono(ticks.fetch_add(1, Ordering::Relaxed)))
    }

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn the_longest_waiting_connection_of_the_largest_holder_makes_room() {
        let connections = Connections::new(3, counter());
        let lone = connections.admit(ip(1)).expect("room");
        let first = connections.admit(ip(2)).expect("room");
        let second = connections.admit(ip(2)).expect("room");
        let _newcomer = connections.admit(ip(3)).expect("room is made");
        let table = connections.lock();
        assert!(table.entries.contains_key(&lone.id()), "one connection is not a crowd");
        assert!(!table.entries.contains_key(&first.id()));
        assert!(table.entries.contains_key(&second.id()));
    }

    #[test]
    fn a_connection_being_served_is_never_closed_for_a_newcomer() {
        let connections = Connections::new(2, counter());
        let a = connections.admit(ip(1)).expect("room");
        let b = connections.admit(ip(1)).expect("room");
        a.activity.serving();
        b.activity.serving();
        assert!(connections.admit(ip(2)).is_none());
        b.activity.answered();
        let _newcomer = connections.admit(ip(2)).expect("room is made");
        assert_eq!(connections.count(), 2);
    }

    #[test]
    fn addresses_of_one_ipv6_host_are_one_holder() {
        let a: IpAddr = "2001:db8:1:2:3:4:5:6".parse().expect("address");
        let b: IpAddr = "2001:db8:1:2::1".parse().expect("address");
        assert_eq!(holder(a), holder(b));
        let mapped: IpAddr = "::ffff:10.0.0.1".parse().expect("address");
        assert_eq!(holder(mapped), ip(1));
    }
}
