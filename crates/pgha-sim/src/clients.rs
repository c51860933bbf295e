//! Clients that commit, and what they were told.
//!
//! A client keeps to the node that answered it last and looks for another one when it does not; now and then it takes any
//! node that accepts writes, as a client with a stale address does. A commit is acknowledged, or it is not known what
//! became of it. The ledger remembers per branch of WAL up to where commits were acknowledged.

use std::collections::BTreeMap;

use crate::etcd::Time;
use crate::postgres::Point;
use crate::rng::{Rng, Stream};
use crate::world::{Happening, MS, SEC, World};

/// Number of clients.
const CLIENTS: usize = 2;
/// Per mille of commits that go to any node that accepts writes.
const ASTRAY: u64 = 50;
/// Per mille of commits that are bulk loads.
const BULK: u64 = 4;

/// All clients of a world.
#[derive(Clone, Debug)]
pub struct Clients {
    rng: Rng,
    /// Whom each talks to.
    at: [Option<usize>; CLIENTS],
    /// Commits begun.
    pub begun: u64,
    /// What was acknowledged.
    pub ledger: Ledger,
}

/// What clients were told.
#[derive(Clone, Default, Debug)]
pub struct Ledger {
    /// By branch.
    pub branches: BTreeMap<u64, Acknowledged>,
    /// Commits acknowledged.
    pub ok: u64,
    /// Commits that waited for a synchronous standby and were acknowledged then.
    pub waited: u64,
    /// When the last one was acknowledged.
    pub last_at: Time,
}

/// The commits of one branch.
#[derive(Clone, Copy, Default, Debug)]
pub struct Acknowledged {
    /// The last one.
    pub last: u64,
    /// The last one that was acknowledged by the agent's synchronous_standby_names, not by a person's.
    pub by_agent: u64,
    /// The last one that synchronous replication promised to keep; zero when there was none.
    pub promised: u64,
}

impl Clients {
    /// Clients that have not begun.
    pub fn new(seed: u64) -> Clients {
        Clients {
            rng: Rng::new(seed, Stream::Workload),
            at: [None; CLIENTS],
            begun: 0,
            ledger: Ledger::default(),
        }
    }
}

impl Ledger {
    /// Up to where commits of a branch were acknowledged.
    pub fn of(&self, branch: u64) -> Acknowledged {
        self.branches.get(&branch).copied().unwrap_or_default()
    }
}

impl World {
    pub(crate) fn start_clients(&mut self) {
        if self.plan.settings.commit_every_ms == 0 {
            return;
        }
        for client in 0..CLIENTS {
            let first = self.clients.rng.range(0, 1000 * MS);
            self.at(first, Happening::Client(client));
        }
    }

    /// A client commits something, and will again.
    pub(crate) fn client_acts(&mut self, client: usize) {
        let pause = self.plan.settings.commit_every_ms * MS;
        let next = self.clients.rng.range(pause / 2, pause * 3 / 2);
        self.at(self.now + next, Happening::Client(client));
        let Some(i) = self.client_finds(client) else { return };
        let rng = &mut self.clients.rng;
        let size = match rng.chance(BULK) {
            true => rng.range(64 << 10, 1 << 20),
            false => rng.range(40, 400),
        };
        self.clients.begun += 1;
        self.commit_begins(i, size);
    }

    fn client_finds(&mut self, client: usize) -> Option<usize> {
        let answers = |i: &usize| self.nodes[*i].accepts_writes() && !self.nodes[*i].pg.mute;
        let at = self.clients.at[client].filter(answers);
        if at.is_some() && !self.clients.rng.chance(ASTRAY) {
            return at;
        }
        let count = self.nodes.len();
        let from = self.clients.rng.index(count);
        let found = (from..from + count).map(|i| i % count).find(answers);
        self.clients.at[client] = found;
        found
    }

    /// A client is told that its commit is done. It began to wait for standbys at `since`.
    pub(crate) fn acknowledge(&mut self, i: usize, lsn: u64, since: Time) {
        let Some(branch) = self.nodes[i].pg.data().map(|d| d.history.current().id) else {
            return;
        };
        let by_hand = self.goes_by_hand(i);
        let promised = !by_hand && self.is_promised(i);
        let now = self.now;
        if since < now {
            self.count("commit waited for a standby and was acknowledged");
            let patience = self.plan.settings.loop_wait * SEC;
            if now - since > patience && self.plan.settings.sync_strict {
                self.count("commit blocked in strict mode and was acknowledged");
            }
        }
        let ledger = &mut self.clients.ledger;
        ledger.ok += 1;
        ledger.waited += u64::from(since < now);
        ledger.last_at = now;
        let known = ledger.branches.entry(branch).or_default();
        known.last = known.last.max(lsn);
        if !by_hand {
            known.by_agent = known.by_agent.max(lsn);
        }
        if promised {
            known.promised = known.promised.max(lsn);
        }
        if !by_hand {
            self.check_acknowledged(i, Point { branch, lsn }, promised);
        }
    }

    /// The server ends: whoever waited is told nothing.
    pub(crate) fn abandon_sessions(&mut self, i: usize) {
        let sessions = &mut self.nodes[i].pg.sessions;
        sessions.flushing.clear();
        sessions.waiting.clear();
    }
}
