//! Simulated etcd: one linearizable store with revisions, leases, transactions and three members in front of it.
//!
//! What is written goes through the majority and is seen by every member that belongs to it. A member that hears nobody
//! knows only what it last heard. What gets lost on the way is no business of the store: the adversary stands between
//! it and the nodes, in `store.rs`. Values are what pgha-wire writes, and errors are etcd's own words, so formats and
//! the reading of errors are exercised with every seed.
//!
//! | file | job |
//! |---|---|
//! | `data` | keys, revisions, transactions, the past |
//! | `leases` | the lease table |
//! | `members` | who is up, who leads, which term |
//!
//! The same statements hold for it and for a real etcd: `tests/etcd_conformance.rs`.

mod data;
mod leases;
mod members;

use std::collections::BTreeMap;

use pgha_core::commit::CommitOutcome;
use pgha_core::horizon::Header;
use pgha_core::units::LeaseId;
use pgha_wire::kv::{KeyValue, Op, Snapshot, Txn};
use pgha_wire::meaning::{Meaning, Reading, read_text};

use crate::clock::Clock;

pub use self::data::{Change, Data, OutOfRange, Stored};
pub use self::leases::Leases;
pub use self::members::{LeftAt, MEMBERS, Members, Standing};

/// Time in the simulated world, in nanoseconds.
pub type Time = u64;

/// An election takes at least so long.
const ELECTION: Time = 1_000_000_000;

/// The store.
#[derive(Debug)]
pub struct SimEtcd {
    /// Who serves.
    pub members: Members,
    /// Every applied transaction that wrote a key: revision to keys, for the oracles. A restored store uses revisions
    /// again; then the keys of both stand here.
    pub log: BTreeMap<i64, Vec<String>>,
    /// Faults that keep the database full.
    pub full: u32,
    /// Faults that make every authentication fail.
    pub denied: u32,
    /// Reads may be stale and keepalives may lie: etcd issues 20418 and 20590.
    pub buggy: bool,
    data: Data,
    leases: Leases,
    clock: Clock,
    cluster_id: u64,
    auth_revision: u64,
    generation: u32,
    last_leader: usize,
    vacant_since: Option<Time>,
}

/// What a client asks for.
#[derive(Clone, Copy, Debug)]
pub enum Asked<'a> {
    /// Everything; `stale` is a revision from which a buggy store answers.
    Read {
        /// Answer as of this revision.
        stale: Option<i64>,
    },
    /// A lease of this length.
    Grant(Time),
    /// To renew a lease.
    Keep(LeaseId),
    /// A transaction.
    Commit(&'a Txn),
}

/// What it is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Said {
    /// The state at this revision.
    State(i64),
    /// The new lease.
    Granted(LeaseId),
    /// Does the lease live?
    Kept(bool),
    /// The revision of the transaction, or `None` when a compare did not hold.
    Committed(Option<i64>),
}

/// How a request to one member ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reply {
    /// An answer and its origin.
    Answer(Header, Said),
    /// An error in etcd's words.
    Error(&'static str),
    /// There is nobody at that address: the request was never sent.
    NobodyThere,
    /// No reply ever comes.
    Silence,
}

impl SimEtcd {
    /// An empty store.
    pub fn new() -> SimEtcd {
        SimEtcd {
            members: Members::new(),
            log: BTreeMap::new(),
            full: 0,
            denied: 0,
            buggy: false,
            data: Data::new(),
            leases: Leases::default(),
            clock: Clock::new(0),
            cluster_id: 1,
            auth_revision: 1,
            generation: 0,
            last_leader: 0,
            vacant_since: None,
        }
    }

    /// A request that has reached a member. `token` is the auth revision of the client's token.
    pub fn serve(&mut self, now: Time, member: usize, token: u64, asked: Asked<'_>) -> Reply {
        let standing = self.members.standing(member);
        if standing != Standing::Down && token != self.auth_revision {
            return Reply::Error(match asked {
                Asked::Read { .. } | Asked::Commit(_) => "etcdserver: revision of auth store is old",
                Asked::Grant(_) | Asked::Keep(_) => "etcdserver: invalid auth token",
            });
        }
        match standing {
            Standing::Down => Reply::NobodyThere,
            Standing::Isolated(left_at) => self.serve_isolated(member, left_at, asked),
            Standing::Leaderless => Reply::Error(match asked {
                Asked::Read { .. } => "etcdserver: leader changed",
                Asked::Grant(_) => "etcdserver: no leader",
                Asked::Keep(_) => "lessor: not a primary lessor",
                Asked::Commit(_) => "etcdserver: request timed out, possibly due to previous leader failure",
            }),
            Standing::Serving => match self.perform(now, asked) {
                Ok(said) => {
                    let revision = match said {
                        Said::State(revision) => revision,
                        Said::Granted(_) | Said::Kept(_) | Said::Committed(_) => self.data.revision(),
                    };
                    Reply::Answer(self.header(member, self.members.term(), revision), said)
                }
                Err(text) => Reply::Error(text),
            },
        }
    }

    /// A member that hears nobody can neither write nor confirm a read. With its bugs it answers from what it knows.
    fn serve_isolated(&self, member: usize, left_at: LeftAt, asked: Asked<'_>) -> Reply {
        let said = match asked {
            Asked::Read { .. } if self.buggy => Said::State(left_at.revision),
            Asked::Keep(lease) if self.buggy && left_at.led && self.leases.known(lease) => Said::Kept(true),
            Asked::Read { .. } | Asked::Keep(_) | Asked::Grant(_) | Asked::Commit(_) => return Reply::Silence,
        };
        Reply::Answer(self.header(member, left_at.term, left_at.revision), said)
    }

    fn perform(&mut self, now: Time, asked: Asked<'_>) -> Result<Said, &'static str> {
        match asked {
            Asked::Read { stale } => Ok(Said::State(stale.unwrap_or(self.data.revision()))),
            Asked::Grant(ttl) => self.grant(now, ttl).map(Said::Granted),
            Asked::Keep(lease) => Ok(Said::Kept(self.keep(now, lease).is_some())),
            Asked::Commit(txn) => self.txn(now, txn).map(Said::Committed),
        }
    }

    fn header(&self, member: usize, raft_term: u64, revision: i64) -> Header {
        Header {
            cluster_id: self.cluster_id,
            member_id: member as u64 + 1,
            raft_term,
            revision,
        }
    }

    /// Performs a transaction: its revision, or `None` when a compare did not hold.
    ///
    /// # Errors
    /// etcd's words; then nothing is written.
    pub fn txn(&mut self, now: Time, txn: &Txn) -> Result<Option<i64>, &'static str> {
        if names_a_key_twice(&txn.ops) {
            return Err("etcdserver: duplicate key given in txn request");
        }
        let puts = || {
            txn.ops.iter().filter_map(|op| match op {
                Op::Put { key, lease, .. } => Some((key, lease)),
                Op::Delete(_) | Op::DeletePrefix(_) => None,
            })
        };
        if self.full > 0 && puts().next().is_some() {
            return Err("etcdserver: mvcc: database space exceeded");
        }
        if !self.data.holds(&txn.compares) {
            return Ok(None);
        }
        if puts().any(|(_, lease)| lease.is_some_and(|lease| self.leases.ttl(lease).is_none())) {
            return Err("etcdserver: requested lease not found");
        }
        let revision = self.data.write(now, txn);
        let written = txn.ops.iter().filter_map(|op| match op {
            Op::Put { key, .. } | Op::Delete(key) => Some(key.clone()),
            Op::DeletePrefix(_) => None,
        });
        self.log.entry(revision).or_default().extend(written);
        Ok(Some(revision))
    }

    /// Performs a transaction and understands the answer as pgha-dcs does.
    pub fn commit(&mut self, now: Time, txn: &Txn) -> CommitOutcome {
        match self.txn(now, txn) {
            Ok(Some(revision)) => CommitOutcome::Applied {
                revision: pgha_core::units::Revision(revision),
            },
            Ok(None) => CommitOutcome::Conflict,
            Err(text) => understood(text).ends_commit().unwrap_or(CommitOutcome::Refused),
        }
    }

    /// All keys below a prefix, now.
    pub fn read(&self, prefix: &str) -> Snapshot {
        self.data.range(prefix)
    }

    /// All keys below a prefix, as they are kept.
    pub fn keys_below<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a KeyValue> {
        self.data.keys_below(prefix)
    }

    /// All keys below a prefix as they were at a revision.
    ///
    /// # Errors
    /// The revision is not there.
    pub fn read_at(&self, prefix: &str, revision: i64) -> Result<Snapshot, OutOfRange> {
        self.data.range_at(prefix, revision)
    }

    /// One key.
    pub fn get(&self, key: &str) -> Option<&KeyValue> {
        self.data.get(key).map(|stored| &stored.kv)
    }

    /// How often a key was put since it was created; 0 when it is absent.
    pub fn version(&self, key: &str) -> i64 {
        self.data.get(key).map_or(0, |stored| stored.version)
    }

    /// Store revision.
    pub fn revision(&self) -> i64 {
        self.data.revision()
    }

    /// How often the store was replaced: revisions of different generations have nothing to do with each other.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// The last revision that was written at a time.
    pub fn revision_at(&self, time: Time) -> i64 {
        self.data.revision_at(time)
    }

    /// What a watch from the revision after this one tells.
    ///
    /// # Errors
    /// Some of it was compacted away: the watch is cancelled.
    pub fn changes_after(&self, revision: i64) -> Result<&[Change], OutOfRange> {
        self.data.changes_after(revision)
    }

    /// The past before the current revision can be asked for no more.
    pub fn compact(&mut self) {
        self.data.compact(self.data.revision());
    }

    /// Grants a lease.
    ///
    /// # Errors
    /// etcd's words.
    pub fn grant(&mut self, now: Time, ttl: Time) -> Result<LeaseId, &'static str> {
        if self.full > 0 {
            return Err("etcdserver: mvcc: database space exceeded");
        }
        let now = self.lease_time(now);
        Ok(self.leases.grant(now, ttl))
    }

    /// Renews a lease; its time to live, or `None` when it has ended.
    pub fn keep(&mut self, now: Time, lease: LeaseId) -> Option<Time> {
        let now = self.lease_time(now);
        self.leases.keep(now, lease)
    }

    /// Ends a lease: asked to, or early by a deposed leader (etcd issue 15247). Its keys go with it.
    pub fn revoke(&mut self, now: Time, lease: LeaseId) {
        if self.leases.ttl(lease).is_some() {
            self.leases.end(self.clock.boot(now).0, lease);
            self.data.delete_on_lease(now, lease);
        }
    }

    /// Time passes: leases end and leaders are elected.
    pub fn pass(&mut self, now: Time) {
        if self.members.leader().is_some() {
            self.vacant_since = None;
            for lease in self.leases.over(self.lease_time(now)) {
                self.revoke(now, lease);
            }
            return;
        }
        let since = *self.vacant_since.get_or_insert(now);
        if now >= since + ELECTION && self.members.elect(self.last_leader) {
            self.last_leader = self.members.leader().unwrap_or_default();
            self.leases.restart(self.lease_time(now));
        }
    }

    /// The token a successful authentication gives, as the auth revision it is good for.
    ///
    /// # Errors
    /// etcd's words.
    pub fn authenticate(&self) -> Result<u64, &'static str> {
        if self.denied > 0 {
            return Err("etcdserver: authentication failed, invalid user ID or password");
        }
        Ok(self.auth_revision)
    }

    /// Users or roles were changed, or all tokens have expired: nobody's token is good any more.
    pub fn expire_tokens(&mut self) {
        self.auth_revision += 1;
    }

    /// The clock of etcd's leader runs `ppm` millionths fast.
    pub fn drift(&mut self, now: Time, ppm: i64) {
        self.clock.drift(now, ppm);
    }

    /// A new, empty store is put in the place of the old one.
    pub fn wipe(&mut self) {
        self.generation += 1;
        self.data = Data::new();
        self.leases.clear();
        self.cluster_id += 1;
        self.members.refound(self.data.revision());
    }

    /// The state of an earlier time is restored: the revision and the raft term go back.
    pub fn restore(&mut self, now: Time, then: Time, same_cluster: bool) {
        self.generation += 1;
        self.data.rewind_to(self.data.revision_at(then));
        self.leases.rewind(self.lease_time(now), self.lease_time(then));
        self.members.refound(self.data.revision());
        if !same_cluster {
            self.cluster_id += 1;
        }
    }

    /// Leases live by the clock of etcd's leader.
    fn lease_time(&self, now: Time) -> Time {
        self.clock.boot(now).0
    }
}

impl Default for SimEtcd {
    fn default() -> SimEtcd {
        SimEtcd::new()
    }
}

/// An error of etcd as pgha-dcs reads it.
pub fn understood(text: &str) -> Reading {
    let meaning = read_text(text);
    Reading {
        meaning: meaning.unwrap_or(Meaning::Unavailable),
        spoken: meaning.is_some(),
        never_sent: false,
    }
}

/// A key may be put once in a transaction, and not be deleted by it too.
fn names_a_key_twice(ops: &[Op]) -> bool {
    let clashes = |key: &String, (number, other): (usize, &Op), mine: usize| match other {
        Op::Put { key: k, .. } => number != mine && k == key,
        Op::Delete(k) => k == key,
        Op::DeletePrefix(prefix) => key.starts_with(prefix.as_str()),
    };
    ops.iter().enumerate().any(|(mine, op)| match op {
        Op::Put { key, .. } => ops.iter().enumerate().any(|other| clashes(key, other, mine)),
        Op::Delete(_) | Op::DeletePrefix(_) => false,
    })
}
