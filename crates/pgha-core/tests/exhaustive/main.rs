//! All small views through `decide`: it is total and deterministic, and what it decides implies what is promised.
//!
//! Every combination of the facts that the rules of a situation read, for two and for three members. A situation is one
//! file below `decide/`; facts of other situations are left at rest there and vary in the situation `everything`.
#![allow(clippy::unwrap_used, clippy::panic)]

mod enumerate;
mod facts;
mod implications;
mod other;
mod running;
mod situations;
#[allow(dead_code, reason = "the scenarios use the rest of it")]
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::thread;

use enumerate::{Tally, production, run};
use pgha_core::cluster::{ClusterView, DcsView};
use pgha_core::decide::{Decision, decide};
use pgha_core::rule::Rule;
use pgha_core::settings::SynchronousMode;
use pgha_core::view::View;

/// No fewer views than this, so that the enumeration cannot shrink unnoticed.
const FLOOR: u64 = 3_000_000;

/// Rules that no combination of the enumerated facts reaches, each for a reason.
const UNREACHED: &[Rule] = &[];

/// All situations, on as many threads as there are processors.
fn everything(think: fn(&View) -> Decision) -> Tally {
    let mut waiting = situations::all();
    waiting.reverse();
    let waiting = Mutex::new(waiting);
    let total = Mutex::new(Tally::default());
    let work = || {
        loop {
            let Some(situation) = waiting.lock().unwrap().pop() else {
                break;
            };
            let tally = run(&situation, think);
            let (views, rules) = (tally.views, tally.rules.len());
            println!("{:<28} {views:>9} views, {rules:>3} rules", situation.name);
            total.lock().unwrap().add(tally);
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        (0..threads).for_each(|_| {
            scope.spawn(work);
        })
    });
    total.into_inner().unwrap()
}

#[test]
fn every_small_view_gives_one_decision_that_keeps_what_is_promised() {
    let tally = everything(production);
    println!(
        "{} views, {} rules of {}",
        tally.views,
        tally.rules.len(),
        Rule::ALL.len()
    );
    for (name, times) in &tally.premises {
        println!("{times:>9}  {name}");
    }
    assert!(tally.faults.is_empty(), "{}", tally.faults.join("\n"));
    let all: BTreeSet<Rule> = Rule::ALL.iter().copied().collect();
    let unreached: Vec<Rule> = all.difference(&tally.rules).copied().collect();
    assert_eq!(unreached, UNREACHED, "rules that no view reached");
    let idle: Vec<&str> = tally
        .premises
        .iter()
        .filter(|(_, times)| **times == 0)
        .map(|(n, _)| *n)
        .collect();
    assert!(idle.is_empty(), "implications whose premise never held: {idle:?}");
    assert!(tally.views >= FLOOR, "{} views are fewer than {FLOOR}", tally.views);
}

/// What `mistake` does to the view before it is judged must be seen by the implication of this name.
#[track_caller]
fn must_be_seen(name: &str, situation: &str, mistake: fn(&View) -> Decision) {
    let situations = situations::all();
    let chosen = situations.iter().find(|s| s.name == situation).unwrap();
    let tally = run(chosen, mistake);
    assert!(
        tally.faults.iter().any(|f| f.contains(name)),
        "`{name}` does not see it; these do: {:?}",
        tally.faults
    );
}

#[test]
fn a_node_that_does_not_wait_for_the_old_deadline_is_seen() {
    must_be_seen("R10: a standby takes the key", "race, standby", |v| {
        let mut v = v.clone();
        v.memory.sight = None;
        decide(&v)
    });
}

#[test]
fn a_node_that_does_not_listen_to_its_peers_is_seen() {
    must_be_seen("S7: a standby that takes the key", "race, standby", |v| {
        let mut v = v.clone();
        v.peers.clear();
        v.memory.cycle.peers_asked = true;
        decide(&v)
    });
}

#[test]
fn a_candidate_that_counts_no_votes_is_seen() {
    must_be_seen("S6: with a quorum in /sync", "race, quorum", |v| {
        let mut v = v.clone();
        if let DcsView::Fresh(ClusterView { sync: Some(sync), .. }) = &mut v.dcs {
            sync.quorum = 0;
        }
        decide(&v)
    });
}

#[test]
fn a_promotion_without_the_name_that_nobody_has_is_seen() {
    must_be_seen("S4: in synchronous mode nobody", "lead, synchronous", |v| {
        let mut v = v.clone();
        v.memory.settings.synchronous_mode = SynchronousMode::Off;
        decide(&v)
    });
}

#[test]
fn a_promotion_on_a_proof_that_has_ended_is_seen() {
    must_be_seen("S3: a promotion follows", "lead", |v| {
        let mut v = v.clone();
        if let Some(proof) = &mut v.memory.proof {
            proof.deadline = proof.deadline.plus(v.memory.settings.margin());
        }
        decide(&v)
    });
}

#[test]
fn a_key_released_before_somebody_holds_the_checkpoint_is_seen() {
    must_be_seen("S15: a hand-over releases", "hand-over", |v| {
        let mut v = v.clone();
        if let Some(checkpoint) = v.memory.handover.as_mut().and_then(|h| h.checkpoint.as_mut()) {
            checkpoint.0 -= 0x10;
        }
        let mut decision = decide(&v);
        if let pgha_core::decide::Action::ReleaseLeaderKey { optime: Some(at) } = &mut decision.action {
            at.0 += 0x10;
        }
        decision
    });
}

#[test]
fn a_node_that_forgets_its_word_is_seen() {
    must_be_seen("S1: who gave its word", "failsafe", |v| {
        let mut v = v.clone();
        v.memory.failsafe.word = None;
        decide(&v)
    });
}

#[test]
fn a_node_that_does_not_care_who_is_listed_is_seen() {
    must_be_seen("S1: a standby that /failsafe does not list", "failsafe", |v| {
        let mut v = v.clone();
        if let DcsView::Fresh(c) = &mut v.dcs {
            c.failsafe = None;
        }
        decide(&v)
    });
}
