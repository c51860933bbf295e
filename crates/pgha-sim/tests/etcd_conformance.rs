//! The simulated etcd passes the suite that real etcd passes in `pgha-dcs/tests/conformance.rs`: one list of statements
//! for both.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use pgha_core::commit::CommitOutcome;
use pgha_core::units::{LeaseId, Revision};
use pgha_dcs::conformance::{Check, Subject, failures};
use pgha_dcs::{DcsFuture, Hint, KeepAlive};
use pgha_sim::etcd::{Asked, MEMBERS, Reply, Said, SimEtcd, Standing, Time};
use pgha_wire::kv::{Compare, Op, Snapshot, Txn};

/// How often the simulated world lets time pass for the store.
const STEP: Duration = Duration::from_millis(250);

/// The store with a clock of its own.
struct Model {
    etcd: SimEtcd,
    now: Time,
    watch: Option<Watch>,
}

struct Watch {
    prefix: String,
    sent: i64,
    hints: VecDeque<Hint>,
}

fn nanos(time: Duration) -> Time {
    time.as_nanos().try_into().unwrap()
}

fn ready<'a, T: Send + 'a>(value: T) -> DcsFuture<'a, T> {
    Box::pin(std::future::ready(value))
}

impl Model {
    fn new() -> Model {
        Model {
            etcd: SimEtcd::new(),
            now: 0,
            watch: None,
        }
    }

    /// One request through a member, as clients send them.
    fn ask(&mut self, member: usize, asked: Asked<'_>) -> Reply {
        let token = self.etcd.authenticate().unwrap();
        self.etcd.serve(self.now, member, token, asked)
    }

    fn said(&mut self, asked: Asked<'_>) -> Result<Said, String> {
        match self.ask(0, asked) {
            Reply::Answer(_, said) => Ok(said),
            other => Err(format!("{other:?}")),
        }
    }

    fn let_pass(&mut self, time: Duration) {
        let end = self.now + nanos(time);
        while self.now < end {
            self.now = end.min(self.now + nanos(STEP));
            self.etcd.pass(self.now);
        }
    }
}

impl Subject for Model {
    fn read<'a>(&'a mut self, prefix: &'a str) -> DcsFuture<'a, Result<Snapshot, String>> {
        let state = self.said(Asked::Read { stale: None });
        ready(state.and_then(|said| match said {
            Said::State(revision) => self.etcd.read_at(prefix, revision).map_err(|e| format!("{e:?}")),
            other => Err(format!("{other:?}")),
        }))
    }

    fn commit<'a>(&'a mut self, txn: &'a Txn) -> DcsFuture<'a, CommitOutcome> {
        ready(self.etcd.commit(self.now, txn))
    }

    fn grant_lease(&mut self, ttl: Duration) -> DcsFuture<'_, Result<LeaseId, String>> {
        ready(self.said(Asked::Grant(nanos(ttl))).and_then(|said| match said {
            Said::Granted(lease) => Ok(lease),
            other => Err(format!("{other:?}")),
        }))
    }

    fn keep_lease(&mut self, lease: LeaseId) -> DcsFuture<'_, Result<KeepAlive, String>> {
        let ttl = self.etcd.keep(self.now, lease);
        ready(self.said(Asked::Keep(lease)).and_then(|said| match (said, ttl) {
            (Said::Kept(true), Some(ttl)) => Ok(KeepAlive::Alive {
                ttl: Duration::from_nanos(ttl),
            }),
            (Said::Kept(false), None) => Ok(KeepAlive::Gone),
            other => Err(format!("{other:?}")),
        }))
    }

    fn revoke_lease(&mut self, lease: LeaseId) -> DcsFuture<'_, Result<(), String>> {
        self.etcd.revoke(self.now, lease);
        ready(Ok(()))
    }

    fn watch(&mut self, prefix: &str, after: Revision) {
        self.watch = Some(Watch {
            prefix: prefix.to_owned(),
            sent: after.0,
            hints: VecDeque::new(),
        });
    }

    fn next_hint(&mut self, within: Duration) -> DcsFuture<'_, Option<Hint>> {
        if self.watch.as_ref().is_some_and(|w| w.hints.is_empty()) {
            self.let_pass(within.min(STEP));
        }
        let newest = self.etcd.revision();
        ready(self.watch.as_mut().and_then(|watch| {
            match self.etcd.changes_after(watch.sent) {
                Ok(changes) => {
                    let told = changes.iter().filter(|c| c.key.starts_with(&watch.prefix));
                    watch.hints.extend(told.map(|c| Hint::Changed {
                        key: c.key.to_string(),
                        mod_revision: Revision(c.revision),
                        deleted: c.after.is_none(),
                    }));
                }
                Err(_) => watch.hints.push_back(Hint::Resync),
            }
            watch.sent = newest;
            watch.hints.pop_front()
        }))
    }

    fn pass(&mut self, time: Duration) -> DcsFuture<'_, ()> {
        self.let_pass(time);
        ready(())
    }

    fn read_elsewhere<'a>(&'a mut self, prefix: &'a str) -> DcsFuture<'a, Result<Snapshot, String>> {
        let reply = self.ask(MEMBERS - 1, Asked::Read { stale: None });
        ready(match reply {
            Reply::Answer(_, Said::State(revision)) => {
                self.etcd.read_at(prefix, revision).map_err(|e| format!("{e:?}"))
            }
            other => Err(format!("{other:?}")),
        })
    }

    fn compact(&mut self, _: Revision) -> DcsFuture<'_, Result<(), String>> {
        self.etcd.compact();
        ready(Ok(()))
    }

    fn set_full(&mut self, full: bool) -> DcsFuture<'_, Result<(), String>> {
        self.etcd.full = u32::from(full);
        ready(Ok(()))
    }
}

/// Everything the model returns is ready at once.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("the model waits for something"),
    }
}

#[test]
fn the_simulated_etcd_conforms() {
    let failed = now(failures(&mut Model::new(), "/t"));
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn the_suite_notices_a_store_that_refuses_writes() {
    let mut model = Model::new();
    model.etcd.full = 1;
    let failed = now(failures(&mut model, "/t"));
    assert!(failed.len() > Check::ALL.len() / 2, "{failed:#?}");
}

#[test]
fn the_suite_notices_a_store_whose_leases_never_end() {
    let mut model = Model::new();
    // A leader whose clock all but stands still.
    model.etcd.drift(0, -999_999);
    let failed = now(failures(&mut model, "/t"));
    let named: Vec<&str> = failed.iter().filter_map(|f| f.split(':').next()).collect();
    assert_eq!(
        named,
        ["ALeaseExpiresWithItsKeys", "AnExpiredKeyIsHinted"],
        "{failed:#?}"
    );
}

fn put(key: &str, value: &str, lease: Option<LeaseId>) -> Txn {
    let op = Op::Put {
        key: key.to_owned(),
        value: value.as_bytes().to_vec(),
        lease,
    };
    Txn {
        compares: Vec::new(),
        ops: vec![op],
    }
}

#[test]
fn a_new_leader_gives_every_lease_its_whole_time_again() {
    let mut model = Model::new();
    let ttl = Duration::from_secs(10);
    let lease = now(model.grant_lease(ttl)).unwrap();
    model.etcd.commit(model.now, &put("/t/leader", "a", Some(lease)));
    model.let_pass(ttl - Duration::from_secs(1));
    model.etcd.members.depose();
    // Without a leader no lease ends, and none is kept.
    model.let_pass(ttl);
    assert!(model.etcd.get("/t/leader").is_some());
    assert_eq!(
        model.ask(0, Asked::Keep(lease)),
        Reply::Error("lessor: not a primary lessor")
    );
    model.etcd.members.let_elect();
    model.let_pass(ttl - Duration::from_secs(1));
    assert!(model.etcd.get("/t/leader").is_some());
    model.let_pass(Duration::from_secs(3));
    assert!(model.etcd.get("/t/leader").is_none());
}

#[test]
fn an_isolated_member_writes_nothing_and_with_its_bugs_reads_the_past() {
    let mut model = Model::new();
    model.etcd.commit(0, &put("/t/a", "1", None));
    let then = model.etcd.revision();
    model.etcd.members.isolate(0, then);
    model.let_pass(Duration::from_secs(3));
    assert_eq!(model.etcd.members.standing(1), Standing::Serving);
    model.etcd.commit(0, &put("/t/a", "2", None));
    assert_eq!(model.ask(0, Asked::Read { stale: None }), Reply::Silence);
    assert_eq!(model.ask(0, Asked::Commit(&put("/t/a", "3", None))), Reply::Silence);
    model.etcd.buggy = true;
    let Reply::Answer(old, Said::State(revision)) = model.ask(0, Asked::Read { stale: None }) else {
        panic!("no answer");
    };
    let Reply::Answer(new, _) = model.ask(1, Asked::Read { stale: None }) else {
        panic!("no answer");
    };
    assert_eq!((revision, old.revision), (then, then));
    assert!(old.raft_term < new.raft_term && old.revision < new.revision);
    assert_eq!(model.etcd.read_at("/t/", revision).unwrap().keys[0].value, b"1");
}

#[test]
fn without_a_majority_nobody_serves() {
    let mut model = Model::new();
    model.etcd.members.stop(1);
    model.etcd.members.stop(2);
    model.let_pass(Duration::from_secs(10));
    assert_eq!(
        model.ask(0, Asked::Read { stale: None }),
        Reply::Error("etcdserver: leader changed")
    );
    assert_eq!(model.ask(1, Asked::Read { stale: None }), Reply::NobodyThere);
    model.etcd.members.start(1);
    model.let_pass(Duration::from_secs(2));
    assert!(matches!(model.ask(1, Asked::Read { stale: None }), Reply::Answer(..)));
}

#[test]
fn a_restored_snapshot_has_the_keys_leases_and_revision_of_its_time() {
    let mut model = Model::new();
    let old = now(model.grant_lease(Duration::from_secs(30))).unwrap();
    model.etcd.commit(0, &put("/t/leader", "a", Some(old)));
    let then = model.etcd.revision();
    model.let_pass(Duration::from_secs(60));
    let new = now(model.grant_lease(Duration::from_secs(30))).unwrap();
    model.etcd.commit(model.now, &put("/t/leader", "b", Some(new)));
    model.etcd.restore(model.now, nanos(Duration::from_secs(1)), true);
    model.let_pass(Duration::from_secs(2));
    assert_eq!(model.etcd.revision(), then);
    assert_eq!(model.etcd.get("/t/leader").unwrap().value, b"a");
    assert_eq!(now(model.keep_lease(new)), Ok(KeepAlive::Gone));
    assert!(matches!(now(model.keep_lease(old)), Ok(KeepAlive::Alive { .. })));
    // The revision is given out a second time.
    model.etcd.commit(model.now, &put("/t/status", "c", None));
    assert_eq!(model.etcd.revision(), then + 1);
}

#[test]
fn an_old_token_is_refused_until_a_new_one_is_asked_for() {
    let mut model = Model::new();
    let token = model.etcd.authenticate().unwrap();
    model.etcd.expire_tokens();
    let refused = model.etcd.serve(0, 0, token, Asked::Read { stale: None });
    assert_eq!(refused, Reply::Error("etcdserver: revision of auth store is old"));
    assert!(matches!(model.ask(0, Asked::Read { stale: None }), Reply::Answer(..)));
    model.etcd.denied = 1;
    assert!(model.etcd.authenticate().is_err());
}

#[test]
fn a_fast_clock_of_the_leader_ends_leases_sooner() {
    let mut model = Model::new();
    model.etcd.drift(0, 100_000);
    let lease = now(model.grant_lease(Duration::from_secs(30))).unwrap();
    model.etcd.commit(0, &put("/t/leader", "a", Some(lease)));
    model.let_pass(Duration::from_secs(27));
    assert!(model.etcd.get("/t/leader").is_some());
    model.let_pass(Duration::from_secs(1));
    assert!(model.etcd.get("/t/leader").is_none());
}

#[test]
fn a_key_counts_its_versions_from_its_creation() {
    let mut etcd = SimEtcd::new();
    etcd.commit(0, &put("/t/a", "1", None));
    etcd.commit(0, &put("/t/a", "2", None));
    assert_eq!(etcd.version("/t/a"), 2);
    let delete = Txn {
        compares: vec![Compare::Value("/t/a".to_owned(), b"2".to_vec())],
        ops: vec![Op::Delete("/t/a".to_owned())],
    };
    etcd.commit(0, &delete);
    assert_eq!(etcd.version("/t/a"), 0);
    etcd.commit(0, &put("/t/a", "3", None));
    assert_eq!(etcd.version("/t/a"), 1);
}
