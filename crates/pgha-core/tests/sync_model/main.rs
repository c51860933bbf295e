//! Every behaviour of a primary whose processes read their configuration each in its own time: M2, the way of a name into
//! `/sync`, and M3, the same by quorum with standbys that come and go. The agent's step is production code.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod primary;

use pgha_core::settings::SynchronousMode::{On, Quorum};
use primary::{Action, Bounds, Plant, State};
use stateright::{Checker, HasDiscoveries, Model, Property};

struct Primary(Bounds);

impl Model for Primary {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::new(&self.0)]
    }
    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        actions.extend(state.actions(&self.0));
    }
    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        Some(last.after(action, &self.0))
    }
    fn properties(&self) -> Vec<Property<Primary>> {
        vec![
            Property::always("S5: /sync never over-claims", |_, s: &State| s.claim_is_true()),
            Property::sometimes(
                "everybody is in /sync and has every commit",
                |m: &Primary, s: &State| {
                    let all = s.key.as_ref().is_some_and(|k| k.names.len() == m.0.most());
                    all && s.acknowledged == m.0.commits
                        && s.standbys.iter().filter(|b| b.connected).count() >= m.0.most()
                },
            ),
            Property::sometimes("somebody leaves /sync", |m: &Primary, s: &State| {
                let few = s.key.as_ref().is_some_and(|k| k.names.len() + 1 == m.0.standbys);
                few && s.moves > 0 && s.proof.waits.is_some()
            }),
        ]
    }
}

/// The shortest way to a broken property, if there is one.
fn search(bounds: Bounds) -> Option<String> {
    let finish = match bounds.planted {
        Some(_) => HasDiscoveries::AnyFailures,
        None => HasDiscoveries::All,
    };
    let planted = bounds.planted;
    let checker = Primary(bounds)
        .checker()
        .threads(2)
        .finish_when(finish)
        .spawn_bfs()
        .join();
    println!("{planted:?}: {} states", checker.unique_state_count());
    if planted.is_none() {
        for reached in ["everybody is in /sync and has every commit", "somebody leaves /sync"] {
            assert!(checker.discovery(reached).is_some(), "never reached: {reached}");
        }
    }
    let path = checker.discovery("S5: /sync never over-claims")?;
    Some(path.into_actions().iter().map(|a| format!("{a:?}\n")).collect())
}

fn m2() -> Bounds {
    Bounds {
        standbys: 2,
        absent: 0,
        commits: 2,
        moves: 2,
        crashes: 1,
        modes: vec![(On, false, 2)],
        planted: None,
    }
}

#[test]
fn m2_by_priority_no_order_of_reloads_makes_sync_untrue() {
    assert_eq!(search(m2()), None);
}

#[test]
fn m2_when_one_of_two_is_exchanged_for_a_third_the_one_that_stays_is_waited_for() {
    let bounds = Bounds {
        standbys: 3,
        absent: 1,
        commits: 1,
        moves: 3,
        crashes: 0,
        ..m2()
    };
    assert_eq!(search(bounds), None);
}

#[test]
fn m2_in_strict_mode_neither() {
    assert_eq!(
        search(Bounds {
            modes: vec![(On, true, 2)],
            crashes: 0,
            ..m2()
        }),
        None
    );
}

#[test]
fn m3_by_quorum_and_across_a_change_of_mode_neither() {
    let modes = vec![(Quorum, false, 1), (On, false, 2)];
    assert_eq!(
        search(Bounds {
            modes,
            crashes: 0,
            moves: 1,
            ..m2()
        }),
        None
    );
}

#[test]
fn m3_three_standbys_by_quorum_come_and_go() {
    let bounds = Bounds {
        standbys: 3,
        absent: 0,
        commits: 2,
        moves: 1,
        crashes: 0,
        modes: vec![(Quorum, false, 1)],
        planted: None,
    };
    assert_eq!(search(bounds), None);
}

#[test]
fn a_flag_that_nobody_looked_at_is_found() {
    assert!(
        search(Bounds {
            planted: Some(Plant::NoProbe),
            ..m2()
        })
        .is_some()
    );
}

#[test]
fn a_priority_that_was_not_read_is_found() {
    assert!(
        search(Bounds {
            planted: Some(Plant::PriorityFromFile),
            ..m2()
        })
        .is_some()
    );
}

#[test]
fn a_standby_that_was_not_waited_for_is_found() {
    assert!(
        search(Bounds {
            planted: Some(Plant::NoMark),
            ..m2()
        })
        .is_some()
    );
}
