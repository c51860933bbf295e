//! What was seen before, so that answers from the past are recognised (rule R5).
//!
//! An answer regresses when it comes from another cluster, from an older raft term, or (for linearizable answers) from a
//! lower revision than was known *before its request was sent*; answers that merely overtake one another are fine.
//!
//! **When etcd is restored from a snapshot or replaced** its answers regress for good, and refusing them for ever would
//! keep the cluster down after an operator has done the right thing. So the new state is accepted when all of this
//! holds: [`ROUNDS_BEFORE_RESET`] whole reads in a row were refused; the first of them lies `grace` back; most of the
//! *configured* endpoints gave such an answer; those answers agree on one cluster and do not regress among
//! themselves; and not one admissible answer came in between. Until then the store counts as unreachable, so a
//! leader has stopped writing by its own deadline before the new state is believed. One lagging, isolated or wrongly
//! configured member of several can never bring this about.
//!
//! *Absent on purpose:* any knowledge of how a request is sent. pgha-dcs and the simulator call the same code.

use alloc::collections::BTreeSet;
use alloc::string::String;
use core::fmt;
use core::time::Duration;

use crate::units::Mono;

/// Refused reads in a row before a regressed state may be accepted.
pub const ROUNDS_BEFORE_RESET: u32 = 5;
/// How far back the first refused read must lie, unless the configuration says otherwise.
pub const REGRESSION_GRACE: Duration = Duration::from_secs(30);

/// What each answer of etcd says about its origin.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Header {
    /// The store's cluster.
    pub cluster_id: u64,
    /// Who answered.
    pub member_id: u64,
    /// The raft term as that member knows it.
    pub raft_term: u64,
    /// Store revision that the member has applied.
    pub revision: i64,
}

/// How much of a header can be trusted to be up to date.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Freshness {
    /// The answer went through the leader: its revision covers everything that was acknowledged before.
    Linearizable,
    /// The answer carries whatever revision the member has applied: only cluster and term are checked.
    Local,
}

/// What was known when a request was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Floor {
    epoch: u32,
    cluster_id: Option<u64>,
    raft_term: u64,
    revision: i64,
}

/// Why an answer is dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Regression {
    /// Another cluster answered.
    Cluster {
        /// The cluster we know.
        known: u64,
        /// The one that answered.
        answered: u64,
    },
    /// The member is behind an election.
    Term {
        /// Highest term known when the request was sent.
        known: u64,
        /// The member's.
        answered: u64,
    },
    /// The answer is older than one that was seen before the request was sent.
    Revision {
        /// Highest revision known then.
        known: i64,
        /// The answer's.
        answered: i64,
    },
    /// The known state was replaced while the request was under way.
    Overtaken,
}

impl fmt::Display for Regression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Regression::Cluster { known, answered } => write!(f, "cluster id is {answered:x}, known is {known:x}"),
            Regression::Term { known, answered } => write!(f, "raft term is {answered}, already seen is {known}"),
            Regression::Revision { known, answered } => write!(f, "revision is {answered}, already seen is {known}"),
            Regression::Overtaken => f.write_str("the store was replaced while the request was under way"),
        }
    }
}

/// Refusals since the last admitted answer.
#[derive(Clone, Debug)]
struct Refusals {
    since: Mono,
    rounds: u32,
    newest: Header,
    endpoints: BTreeSet<String>,
}

/// The memory.
#[derive(Clone, Debug, Default)]
pub struct Horizon {
    floor: Floor,
    refusals: Option<Refusals>,
}

impl Horizon {
    /// To be taken before a request is sent.
    pub fn floor(&self) -> Floor {
        self.floor
    }

    /// How often a regressed state was accepted.
    pub fn resets(&self) -> u32 {
        self.floor.epoch
    }

    /// Cluster id, highest raft term, highest revision.
    pub fn known(&self) -> (Option<u64>, u64, i64) {
        (self.floor.cluster_id, self.floor.raft_term, self.floor.revision)
    }

    /// Admits an answer and remembers it, or says why it must be dropped.
    ///
    /// # Errors
    /// What regressed.
    pub fn admit(&mut self, at_send: Floor, header: Header, freshness: Freshness) -> Result<(), Regression> {
        if at_send.epoch != self.floor.epoch {
            return Err(Regression::Overtaken);
        }
        // The cluster is compared with what is known now: of two first answers under way at once, one decides.
        if let Some(known) = self.floor.cluster_id
            && known != header.cluster_id
        {
            return Err(Regression::Cluster {
                known,
                answered: header.cluster_id,
            });
        }
        if header.raft_term < at_send.raft_term {
            return Err(Regression::Term {
                known: at_send.raft_term,
                answered: header.raft_term,
            });
        }
        if freshness == Freshness::Linearizable && header.revision < at_send.revision {
            return Err(Regression::Revision {
                known: at_send.revision,
                answered: header.revision,
            });
        }
        self.floor.cluster_id = Some(header.cluster_id);
        self.floor.raft_term = self.floor.raft_term.max(header.raft_term);
        if freshness == Freshness::Linearizable {
            self.floor.revision = self.floor.revision.max(header.revision);
            self.refusals = None;
        }
        Ok(())
    }

    /// Notes one whole read in which every endpoint that answered (`refused`, url and header) regressed. Returns true
    /// when the regressed state is accepted from now on. `configured` are the urls of the configuration.
    pub fn refused_round(
        &mut self,
        now: Mono,
        grace: Duration,
        refused: &[(String, Header)],
        configured: &[String],
    ) -> bool {
        let Some((_, first)) = refused.first() else {
            return false;
        };
        let start = || Refusals {
            since: now,
            rounds: 0,
            newest: *first,
            endpoints: BTreeSet::new(),
        };
        let mut seen = self.refusals.take().unwrap_or_else(start);
        let mut newest = seen.newest;
        for (url, header) in refused {
            let consistent = header.cluster_id == newest.cluster_id
                && header.raft_term >= newest.raft_term
                && header.revision >= newest.revision;
            if !consistent {
                // They do not agree on a new truth, so counting begins anew.
                self.refusals = Some(Refusals {
                    newest: *header,
                    ..start()
                });
                return false;
            }
            newest = *header;
            seen.endpoints.insert(url.clone());
        }
        seen.newest = newest;
        seen.rounds += 1;
        let voices = configured.iter().filter(|url| seen.endpoints.contains(*url)).count();
        let accepted =
            seen.rounds >= ROUNDS_BEFORE_RESET && now.since(seen.since) >= grace && voices * 2 > configured.len();
        if accepted {
            self.floor = Floor {
                epoch: self.floor.epoch.wrapping_add(1),
                cluster_id: Some(newest.cluster_id),
                raft_term: newest.raft_term,
                revision: newest.revision,
            };
        } else {
            self.refusals = Some(seen);
        }
        accepted
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use alloc::borrow::ToOwned;
    use alloc::vec::Vec;

    use super::*;

    const GRACE: Duration = Duration::from_secs(30);

    fn header(cluster_id: u64, raft_term: u64, revision: i64) -> Header {
        Header {
            cluster_id,
            member_id: 1,
            raft_term,
            revision,
        }
    }

    fn known(cluster_id: u64, raft_term: u64, revision: i64) -> Horizon {
        let mut horizon = Horizon::default();
        horizon
            .admit(
                Floor::default(),
                header(cluster_id, raft_term, revision),
                Freshness::Linearizable,
            )
            .unwrap();
        horizon
    }

    fn second(n: u64) -> Mono {
        Mono(n * 1_000_000_000)
    }

    fn urls(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn r5_answers_that_regress_are_dropped() {
        use Freshness::{Linearizable, Local};
        for (answer, freshness, expected) in [
            (header(7, 3, 100), Linearizable, Ok(())),
            (header(7, 4, 101), Linearizable, Ok(())),
            (
                header(8, 9, 900),
                Linearizable,
                Err(Regression::Cluster { known: 7, answered: 8 }),
            ),
            (
                header(7, 2, 900),
                Linearizable,
                Err(Regression::Term { known: 3, answered: 2 }),
            ),
            (
                header(7, 2, 100),
                Local,
                Err(Regression::Term { known: 3, answered: 2 }),
            ),
            (
                header(7, 3, 99),
                Linearizable,
                Err(Regression::Revision {
                    known: 100,
                    answered: 99,
                }),
            ),
            (header(7, 3, 99), Local, Ok(())),
        ] {
            let mut horizon = known(7, 3, 100);
            let floor = horizon.floor();
            assert_eq!(
                horizon.admit(floor, answer, freshness),
                expected,
                "{answer:?} {freshness:?}"
            );
        }
    }

    #[test]
    fn an_answer_that_was_overtaken_by_a_newer_one_is_not_stale() {
        let mut horizon = known(7, 3, 100);
        let floor = horizon.floor();
        horizon
            .admit(floor, header(7, 3, 120), Freshness::Linearizable)
            .unwrap();
        assert_eq!(horizon.admit(floor, header(7, 3, 110), Freshness::Linearizable), Ok(()));
        assert_eq!(horizon.known(), (Some(7), 3, 120));
    }

    #[test]
    fn a_restored_store_is_accepted_after_enough_rounds_and_time_and_voices() {
        let configured = urls(&["a", "b", "c"]);
        let refused = [("a".to_owned(), header(7, 2, 10)), ("b".to_owned(), header(7, 2, 10))];
        let mut horizon = known(7, 3, 100);
        for round in 0..20 {
            assert!(
                !horizon.refused_round(second(round), GRACE, &refused, &configured),
                "too early"
            );
        }
        assert!(horizon.refused_round(second(30), GRACE, &refused, &configured));
        assert_eq!((horizon.resets(), horizon.known()), (1, (Some(7), 2, 10)));
    }

    #[test]
    fn time_alone_is_not_enough() {
        let configured = urls(&["a"]);
        let refused = [("a".to_owned(), header(9, 2, 10))];
        let mut horizon = known(7, 3, 100);
        for round in 1..u64::from(ROUNDS_BEFORE_RESET) {
            assert!(!horizon.refused_round(second(round * 100), GRACE, &refused, &configured));
        }
        assert!(horizon.refused_round(second(1000), GRACE, &refused, &configured));
    }

    #[test]
    fn one_odd_member_of_three_is_never_believed() {
        let configured = urls(&["a", "b", "c"]);
        let refused = [("a".to_owned(), header(9, 2, 10))];
        let mut horizon = known(7, 3, 100);
        for round in 0..1000 {
            assert!(!horizon.refused_round(second(round), GRACE, &refused, &configured));
        }
    }

    #[test]
    fn a_discovered_address_of_the_odd_member_does_not_add_a_voice() {
        let configured = urls(&["a", "b", "c"]);
        let refused = [
            ("a".to_owned(), header(9, 2, 10)),
            ("a-by-ip".to_owned(), header(9, 2, 10)),
        ];
        let mut horizon = known(7, 3, 100);
        for round in 0..1000 {
            assert!(!horizon.refused_round(second(round), GRACE, &refused, &configured));
        }
    }

    #[test]
    fn one_good_answer_begins_the_count_anew() {
        let configured = urls(&["a"]);
        let refused = [("a".to_owned(), header(7, 3, 99))];
        let mut horizon = known(7, 3, 100);
        for round in 0..4 {
            assert!(!horizon.refused_round(second(round * 20), GRACE, &refused, &configured));
        }
        let floor = horizon.floor();
        horizon
            .admit(floor, header(7, 3, 100), Freshness::Linearizable)
            .unwrap();
        assert!(!horizon.refused_round(second(200), GRACE, &refused, &configured));
    }

    #[test]
    fn endpoints_that_disagree_are_not_believed() {
        let configured = urls(&["a", "b"]);
        let refused = [("a".to_owned(), header(8, 2, 10)), ("b".to_owned(), header(9, 2, 10))];
        let mut horizon = known(7, 3, 100);
        for round in 0..1000 {
            assert!(!horizon.refused_round(second(round), GRACE, &refused, &configured));
        }
    }

    #[test]
    fn an_answer_under_way_during_the_reset_is_dropped() {
        let configured = urls(&["a"]);
        let refused = [("a".to_owned(), header(9, 2, 10))];
        let mut horizon = known(7, 3, 100);
        let floor = horizon.floor();
        for round in 0..6 {
            horizon.refused_round(second(round * 20), GRACE, &refused, &configured);
        }
        assert_eq!(horizon.resets(), 1);
        assert_eq!(
            horizon.admit(floor, header(9, 2, 11), Freshness::Linearizable),
            Err(Regression::Overtaken)
        );
    }
}
