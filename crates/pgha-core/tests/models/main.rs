//! Model checks: every behaviour of a small cluster with a bounded number of faults, through the production step machine.
//!
//! What is production code here: `Node::handle` with all it calls (`decide`, `plan`, `race`, the arithmetic of the
//! settings, the orders to the fence, `check`). What is model: time in ticks of a second, the store, PostgreSQL, the
//! fence, the driver. M1 is the lock with lease and fence, M5 the hand-over. Each is also run with defects planted where
//! production has its defence, and must find every one of them.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod agent;
mod cluster;
mod fingerprint;
mod postgres;
mod store;
#[allow(dead_code, reason = "the scenarios use the rest of it")]
#[path = "../support/mod.rs"]
mod support;

use std::sync::Arc;

use cluster::{Bounds, Kind, Operator, Plant, State, Step};
use stateright::{Checker, Expectation, HasDiscoveries, Model, Property};

struct Cluster {
    bounds: Arc<Bounds>,
    /// What some path must come by, so that the search is not vacuous.
    reach: Reach,
}

type Reach = &'static [(&'static str, fn(&Cluster, &State) -> bool)];

impl Model for Cluster {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State::new(&self.bounds)]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Step>) {
        state.steps(actions);
    }

    fn next_state(&self, last: &State, action: Step) -> Option<State> {
        last.after(action)
    }

    fn within_boundary(&self, state: &State) -> bool {
        state.time <= self.bounds.horizon
    }

    fn properties(&self) -> Vec<Property<Cluster>> {
        let mut all = vec![
            Property::always("S1: never two writable nodes", |_, s: &State| s.writable().count() <= 1),
            Property::always("S2: a writable node is within its deadline", |_, s: &State| {
                s.writable()
                    .all(|i| s.fenced_at(i).is_some_and(|at| s.now(i).mono < at))
            }),
            Property::always("S16: what a node takes for proven was written", |_, s: &State| {
                let books = s
                    .machines
                    .iter()
                    .enumerate()
                    .map(|(i, m)| (m.node.view().memory.proof, i));
                let mut proven = books.filter_map(|(proof, i)| Some((proof?.revision, i)));
                proven.all(|proof| s.store.proofs.contains(&proof))
            }),
            Property::always("no step breaks an invariant", |_, s: &State| s.broken.is_empty()),
        ];
        all.extend(
            self.reach
                .iter()
                .map(|(name, reached)| Property::sometimes(name, *reached)),
        );
        all
    }
}

/// What a search found.
struct Found {
    /// Names of broken properties with the shortest way there.
    broken: Vec<(&'static str, String)>,
}

fn search(bounds: &Bounds, reach: Reach) -> Found {
    let model = Cluster {
        bounds: Arc::new(bounds.clone()),
        reach,
    };
    let finish = match bounds.planted {
        Some(_) => HasDiscoveries::AnyFailures,
        None => HasDiscoveries::All,
    };
    let checker = model.checker().threads(2).finish_when(finish).spawn_bfs().join();
    let mut found = checker.discoveries();
    let mut broken = Vec::new();
    for property in checker.model().properties() {
        match (property.expectation, found.remove(property.name)) {
            (Expectation::Sometimes, None) => broken.push((property.name, "never reached".into())),
            (Expectation::Sometimes, Some(_)) | (Expectation::Always | Expectation::Eventually, None) => {}
            (Expectation::Always | Expectation::Eventually, Some(path)) => {
                let last = path.last_state().broken.clone();
                let steps: Vec<String> = path.into_actions().iter().map(|a| format!("  {a:?}")).collect();
                broken.push((property.name, format!("{last:?}\n{}", steps.join("\n"))));
            }
        }
    }
    let states = checker.unique_state_count();
    println!("{:?}: {states} states, depth {}", bounds.planted, checker.max_depth());
    assert!(states > 100, "{states} states are no search");
    Found { broken }
}

/// Every fault that a request, its answer and a job can meet.
const KINDS: &[Kind] = &[
    Kind::Pause,
    Kind::PauseReply,
    Kind::Drop,
    Kind::LoseReply,
    Kind::Late,
    Kind::Twice,
    Kind::LieAlive,
    Kind::Stall,
];

const M1: Bounds = Bounds {
    nodes: 2,
    ttl: 5,
    horizon: 10,
    faults: 1,
    kinds: KINDS,
    drift: 0,
    freezes: true,
    restarts: true,
    revocations: true,
    writes: 0,
    stalls: false,
    operator: None,
    planted: None,
};

const M5: Bounds = Bounds {
    horizon: 6,
    drift: 0,
    faults: 1,
    freezes: false,
    restarts: false,
    revocations: false,
    writes: 1,
    stalls: true,
    operator: Some(Operator::Switchover),
    ..M1
};

/// The clocks of two nodes drift apart by a tick of a ttl of five: a fifth, which is what the margin pays for.
const M1_DRIFT: Bounds = Bounds {
    drift: 1,
    horizon: 8,
    kinds: &[Kind::PauseReply, Kind::LoseReply],
    ..M1
};

/// Two faults, which is what it takes to end a lease early while its holder stands still.
const M1_TWO: Bounds = Bounds {
    ttl: 3,
    horizon: 5,
    faults: 2,
    kinds: &[Kind::PauseReply, Kind::LoseReply, Kind::Late],
    ..M1
};

/// Three faults, which is what it takes for a release to arrive when its sender has gone on as the leader.
const M5_LATE: Bounds = Bounds {
    horizon: 5,
    faults: 3,
    kinds: &[Kind::Late, Kind::Drop],
    freezes: true,
    writes: 0,
    stalls: false,
    ..M5
};

/// Searches for a planted defect, which must be found.
fn planted(bounds: &Bounds, plant: Plant) {
    let bounds = Bounds {
        planted: Some(plant),
        ..bounds.clone()
    };
    let found = search(&bounds, &[]);
    for (name, path) in &found.broken {
        println!("{plant:?} breaks {name}: {path}");
    }
    assert!(!found.broken.is_empty(), "the checker does not see {plant:?}");
}

#[test]
fn m1_lock_lease_and_fence_never_give_two_writable_nodes() {
    let reach: Reach = &[
        ("reach: two promotions", |_, s| s.promotions >= 2),
        ("reach: the fence kills a primary", |_, s| s.reached.fenced),
        ("reach: a write is applied after its sender gave up", |_, s| {
            s.reached.late_applied
        }),
    ];
    let found = search(&M1, reach);
    assert_eq!(found.broken, []);
}

#[test]
fn m1_holds_while_clocks_drift_apart_by_the_margin() {
    let found = search(&M1_DRIFT, &[("reach: two promotions", |_, s| s.promotions >= 2)]);
    assert_eq!(found.broken, []);
}

#[test]
fn m1_holds_with_three_nodes() {
    let bounds = Bounds {
        nodes: 3,
        ttl: 3,
        horizon: 6,
        kinds: &[Kind::Pause, Kind::LoseReply, Kind::Late],
        ..M1
    };
    let found = search(&bounds, &[("reach: two promotions", |_, s| s.promotions >= 2)]);
    assert_eq!(found.broken, []);
}

#[test]
fn m1_holds_with_two_faults() {
    let found = search(&M1_TWO, &[("reach: two promotions", |_, s| s.promotions >= 2)]);
    assert_eq!(found.broken, []);
}

#[test]
fn m1_sees_a_fence_without_margin() {
    planted(&M1_DRIFT, Plant::NoMargin);
}

#[test]
fn m1_sees_a_node_without_fence() {
    planted(&M1, Plant::NoFence);
}

#[test]
fn m1_sees_candidates_that_do_not_wait_for_the_old_deadline() {
    planted(&M1_TWO, Plant::NoOldDeadline);
}

#[test]
fn m1_sees_a_lost_answer_taken_for_success() {
    planted(&M1, Plant::UnknownIsApplied);
}

#[test]
fn m1_sees_a_leader_key_taken_without_guards() {
    let bounds = Bounds {
        ttl: 3,
        horizon: 8,
        faults: 2,
        kinds: &[Kind::Pause],
        restarts: false,
        revocations: false,
        ..M1
    };
    planted(&bounds, Plant::UnguardedAcquire);
}

#[test]
fn m5_a_switchover_hands_the_key_to_whoever_holds_the_shutdown_checkpoint() {
    let reach: Reach = &[
        ("reach: a candidate is promoted after a hand-over", |_, s| {
            s.reached.switched
        }),
        ("reach: the late release is applied", |_, s| s.reached.late_applied),
    ];
    let found = search(&M5, reach);
    assert_eq!(found.broken, []);
}

#[test]
fn m5_a_daemon_that_is_told_to_stop_hands_over_too() {
    let bounds = Bounds {
        operator: Some(Operator::Terminate),
        ..M5
    };
    let reach: Reach = &[("reach: a candidate is promoted after a hand-over", |_, s| {
        s.reached.switched
    })];
    let found = search(&bounds, reach);
    assert_eq!(found.broken, []);
}

#[test]
fn m5_a_release_that_arrives_late_takes_no_key_that_was_proven_again() {
    let found = search(
        &M5_LATE,
        &[("reach: the late release is applied", |_, s| s.reached.late_applied)],
    );
    assert_eq!(found.broken, []);
}

#[test]
fn m5_sees_a_key_released_before_the_candidate_holds_the_checkpoint() {
    planted(&M5, Plant::ReleaseBeforeCheckpoint);
}

#[test]
fn m5_sees_a_release_that_arrives_after_the_leader_went_on() {
    planted(&M5_LATE, Plant::LateRelease);
}
