//! What holds for any facts and any order of events, however odd. Facts and events are lines of the scenario language,
//! so a failure prints a scenario that can be put into a file as it is.
#![allow(clippy::unwrap_used, clippy::panic)]

#[allow(dead_code, reason = "the scenarios use the rest of it")]
mod support;

use pgha_core::check::check;
use pgha_core::cluster::DcsView;
use pgha_core::decide::{Action, Decision, decide};
use pgha_core::effect::{Effect, FenceOrder};
use pgha_core::event::OpId;
use pgha_core::job::{Job, StartRole};
use pgha_core::view::View;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::RngSeed;
use support::drive::Drive;
use support::line::Line;
use support::world::World;

/// Facts by kind: one of each kind, or none, makes a situation.
const FACTS: &[&[&str]] = &[
    &[
        "settings ttl=20s",
        "settings pause=yes",
        "settings synchronous=yes",
        "settings primary_start_timeout=0",
    ],
    &[
        "settings use_pg_rewind=yes",
        "settings use_pg_rewind=yes remove_on_rewind_failure=yes",
        "settings use_slots=no",
    ],
    &["settings remove_on_diverged_timelines=yes"],
    &[
        "me nofailover",
        "me nostream",
        "me replicatefrom=c",
        "me may_bootstrap=no",
        "me watchdog_required",
    ],
    &["etcd unreachable", "etcd not-read"],
    &[
        "initialize none",
        "initialize 7",
        "initialize unreadable",
        "initialize claimed by=a",
        "initialize claimed by=b",
    ],
    &["config none", "config rewritten"],
    &["leader a", "leader a", "leader b", "leader a lease=77", "leader c"],
    &["member a", "member a primary"],
    &[
        "member b",
        "member b primary",
        "member b primary checkpoint_outstanding",
        "member b no_address",
        "member b tl=2",
    ],
    &["member c", "member c clonefrom", "member c nofailover"],
    &[
        "status lsn=0/500 writer=a",
        "status lsn=0/900 writer=b",
        "status lsn=0/500 writer=b released",
        "status lsn=0/500",
    ],
    &[
        "sync leader=a standbys=b",
        "sync leader=b standbys=a",
        "sync leader=c standbys=b",
    ],
    &[
        "failover leader=a candidate=b",
        "failover candidate=a",
        "failover leader=b",
        "failover candidate=c at=+60s",
    ],
    &["history 1@0/400", "history 1@0/400 2@0/500"],
    &["lease none", "lease id=77", "lease age=20s"],
    &[
        "pg unknown",
        "pg empty",
        "pg inaccessible gone",
        "pg foreign odd",
        "pg unfinished bootstrap",
        "pg unfinished clone",
        "pg unfinished rewind",
        "pg down primary",
        "pg down primary crashed checksums",
        "pg down standby",
        "pg down standby sysid=7",
        "pg starting primary",
        "pg starting standby",
        "pg stopping primary",
        "pg silent primary",
        "pg silent standby",
        "pg primary",
        "pg primary tl=2",
        "pg primary sysid=7",
        "pg standby",
        "pg standby from=b streaming",
        "pg standby from=c tl=2",
    ],
    &[
        "peer b standby",
        "peer b primary",
        "peer b unreachable",
        "peer b impostor",
        "peer b empty",
        "peer b stopped",
    ],
    &[
        "peer c standby",
        "peer c primary",
        "peer c unreachable",
        "peer c standby nofailover",
        "peer c standby lsn=0/900",
    ],
    &["asked"],
    &[
        "proof",
        "proof age=5s",
        "proof age=22s",
        "proof age=30s",
        "proof age=1s create=3",
        "proof age=1s rev=9999",
    ],
    &[
        "sight age=1s of=b",
        "sight age=60s of=b",
        "sight age=1s of=a",
        "sight age=29s",
    ],
    &["fence until=24s", "fence until=1s", "fence standby", "fence paused"],
    &[
        "job promote age=1s",
        "job start primary age=400s",
        "job start standby b age=1s",
        "job stop fast age=1s",
        "job stop fast after_checkpoint",
        "job restart primary",
        "job clone b age=1s",
        "job rewind b",
        "job bootstrap",
        "job check-divergence b",
        "job discard",
        "job follow b",
        "job crash-recovery",
    ],
    &[
        "handover switchover candidate=b age=1s",
        "handover switchover age=20s checkpoint=0/400",
        "handover shutdown age=1s checkpoint=0/900",
        "handover failover checkpoint=0/400 released=1s",
    ],
    &[
        "failure start age=1s",
        "failure start times=5 age=20s",
        "failure clone age=1s",
        "failure promote age=1s",
    ],
    &[
        "failure rewind times=3 age=1s",
        "failure check age=1s kind=source",
        "failure bootstrap age=1s",
        "failure stop",
    ],
    &[
        "wish restart",
        "wish reinitialize",
        "wish reinitialize force from_leader",
        "wish scheduled at=-1s",
    ],
    &["divergence none b", "divergence found b local=1@0/700 forked=1@0/500"],
    &[
        "cycle refuted",
        "cycle silent",
        "cycle acquired",
        "cycle lost_race",
        "cycle lost_claim",
    ],
    &["writable"],
    &["down age=1s", "down age=400s"],
    &["terminating"],
    &["watchdog failed", "watchdog armed"],
    &["claim"],
    &["timeline_floor tl=2", "longer_ttl ttl=60s left=10s"],
];

/// What may happen to a node, in any order. What cannot happen just now (an answer to nothing) is left out.
const EVENTS: &[&str] = &[
    "run",
    "run",
    "run",
    "run",
    "run",
    "run",
    "on wake",
    "on wake",
    "on wake timer",
    "on wake timer",
    "on wake exited",
    "on wake resync",
    "on look",
    "on read",
    "on read lost",
    "on observe",
    "on peers",
    "on keep",
    "on keep lost",
    "on keep alive",
    "on grant",
    "on grant lost",
    "on commit",
    "on commit lost",
    "on commit dropped",
    "on commit refused",
    "on tend",
    "on stale read",
    "on stale keep",
    "on stale commit",
    "on stale job",
    "on hint leader",
    "on hint status",
    "on hint failover",
    "on hint config",
    "on hint member b",
    "on job done",
    "on job done",
    "on job done",
    "on job failed nothing",
    "on job failed timed_out",
    "on job failed damaged",
    "on job failed fenced",
    "on job cancelled",
    "on job shutdown 0/600",
    "on job copied",
    "on job found local=1@0/700 forked=1@0/500",
    "on job found local=1@0/400 forked=1@0/500",
    "on request restart",
    "on request schedule at=+1s",
    "on request unschedule",
    "on request reinitialize",
    "on request reinitialize force",
    "on fence fired",
    "on fence lost",
    "on watchdog failed",
    "on watchdog armed",
    "on reconfigured",
    "on terminate",
    "on expire 70",
    "on expire 71",
    "on expire b",
    "after 100ms",
    "after 1s",
    "after 5s",
    "after 10s",
    "after 20s",
    "after 40s",
    "etcd unreachable",
    "etcd fresh",
    "etcd fresh",
    "settings pause=yes",
    "settings pause=no",
    "settings ttl=20s",
    "settings ttl=40s",
    "settings use_pg_rewind=yes remove_on_rewind_failure=yes",
    "config rewritten",
    "initialize none",
    "initialize 42",
    "leader none",
    "leader b",
    "leader c",
    "leader a lease=99",
    "member b",
    "member b primary tl=2",
    "member c",
    "member b gone",
    "status lsn=0/500 writer=b",
    "status lsn=0/500 writer=b released",
    "failover leader=a candidate=b",
    "failover candidate=a",
    "failover none",
    "history 1@0/400",
    "history none",
    "peer b standby lsn=0/700",
    "peer b standby lsn=0/400",
    "peer b primary",
    "peer b unreachable",
    "pg empty",
    "pg unfinished clone",
    "pg unfinished rewind",
    "pg down primary",
    "pg down primary crashed checksums",
    "pg down standby",
    "pg starting primary",
    "pg stopping primary",
    "pg silent primary",
    "pg primary",
    "pg primary",
    "pg primary tl=2",
    "pg standby",
    "pg standby",
    "pg standby from=b streaming",
    "pg standby from=c tl=2",
    "me nofailover",
    "me watchdog_required",
];

/// The same cases in each run of the tests. `PROPTEST_CASES` and `PROPTEST_RNG_SEED` look further.
fn config(cases: u32) -> ProptestConfig {
    let given = ProptestConfig::default();
    let is_set = |name| std::env::var_os(name).is_some();
    ProptestConfig {
        cases: if is_set("PROPTEST_CASES") { given.cases } else { cases },
        rng_seed: if is_set("PROPTEST_RNG_SEED") {
            given.rng_seed
        } else {
            RngSeed::Fixed(1)
        },
        failure_persistence: None,
        ..given
    }
}

fn situation() -> impl Strategy<Value = Vec<&'static str>> {
    let kinds: Vec<_> = FACTS.iter().map(|kind| proptest::option::of(select(*kind))).collect();
    kinds.prop_map(|facts| facts.into_iter().flatten().collect())
}

fn events() -> impl Strategy<Value = Vec<&'static str>> {
    proptest::collection::vec(select(EVENTS), 1..80)
}

/// Does this job make PostgreSQL writable?
fn makes_writable(job: &Job) -> bool {
    matches!(
        job,
        Job::Promote
            | Job::Start {
                role: StartRole::Primary,
                ..
            }
            | Job::Restart {
                role: StartRole::Primary,
                ..
            }
    )
}

/// A hand-over knows its shutdown checkpoint: what was observed before it counts no more.
fn is_shut_down(v: &View) -> bool {
    v.memory.handover.as_ref().is_some_and(|h| h.checkpoint.is_some())
}

/// What no decision may ever be, whatever the facts.
fn fault_of(v: &View, d: &Decision) -> Option<String> {
    let mut armed = v.clone();
    armed.memory.fence = if v.settings().pause {
        Some(FenceOrder::Paused)
    } else {
        v.memory.proof.map(|p| FenceOrder::Until(p.deadline))
    };
    match &d.action {
        Action::Begin(_) | Action::HandOver { .. } if v.memory.job.is_some() => Some("a second job".into()),
        Action::Begin(job) => {
            let effect = Effect::StartJob {
                op: OpId(1),
                job: job.clone(),
            };
            check(&armed, &effect)
                .err()
                .map(|e| format!("{}: {}", e.invariant, e.what))
        }
        Action::ReleaseLeaderKey { .. } if !v.holds_leader_key() => Some("a key is released that is not ours".into()),
        Action::ReleaseLeaderKey { .. } if v.pg.says_primary() && !is_shut_down(v) && !v.settings().pause => {
            Some("the key is released under a running primary".into())
        }
        Action::Exit {
            leave_running: false, ..
        } if v.pg.is_running() => Some("the daemon ends while PostgreSQL runs".into()),
        Action::AcquireLeaderKey | Action::ClaimInitialize if !matches!(v.dcs, DcsView::Fresh(_)) => {
            Some("written on keys that were not read".into())
        }
        Action::AskPeers(names) if names.is_empty() => Some("nobody is asked".into()),
        Action::Rest if d.wake_at.is_some_and(|at| at <= v.now.mono) => Some("a rest that ends at once".into()),
        Action::Rest
        | Action::LookAgain
        | Action::HoldLeaderKey
        | Action::AcquireLeaderKey
        | Action::TakeOverOwnKey
        | Action::ReleaseLeaderKey { .. }
        | Action::ClaimInitialize
        | Action::CancelInitialize
        | Action::UpdateFailover(_)
        | Action::AskPeers(_)
        | Action::AskFailsafe(_)
        | Action::HandOver { .. }
        | Action::AbortHandOver
        | Action::CancelJob
        | Action::Exit { .. } => None,
    }
}

/// Sends one line to the node. Answers to nothing are left out; a node that goes round and round is an error.
fn happen(w: &mut World, drive: &mut Drive, text: &str) -> Result<(), String> {
    let (command, rest) = text.split_once(' ').unwrap_or((text, ""));
    match command {
        "run" => drive.run(w, None).map(drop),
        "on" => {
            let mut line = Line::parse(rest)?;
            drive.on(w, &mut line).map(drop).or(Ok(()))
        }
        _ => w.set(text),
    }
}

/// What no node may ever do, looked at after each event.
fn fault_after(w: &World, drive: &Drive) -> Option<String> {
    if let Some(refused) = drive.refused.first() {
        return Some(refused.clone());
    }
    let v = drive.node.view();
    let m = &v.memory;
    if let (Some(proof), Some(lease)) = (m.proof, m.lease)
        && let Some(ends) = drive.etcd.lease_ends(lease.id)
        && v.holds_leader_key()
        && proof.deadline > ends
    {
        return Some(format!(
            "the proof outlives lease {} by {:?}",
            lease.id.0,
            proof.deadline.since(ends)
        ));
    }
    let writable_job = m.job.as_ref().is_some_and(|j| makes_writable(&j.job) && !j.cancelled);
    if writable_job && !matches!(m.fence, Some(FenceOrder::Until(_) | FenceOrder::Paused)) {
        return Some("PostgreSQL is being made writable and the fence has no deadline".into());
    }
    if m.maybe_writable && m.fence == Some(FenceOrder::StandbyOnly) {
        return Some("PostgreSQL may be writable and the fence has no deadline".into());
    }
    if v.answers_as_primary(w.now.mono) && !v.settings().pause && m.proof.is_none_or(|p| p.deadline <= w.now.mono) {
        return Some("it calls itself the primary without a live proof".into());
    }
    None
}

proptest! {
    #![proptest_config(config(20_000))]

    #[test]
    fn any_facts_give_one_decision_that_breaks_no_invariant(facts in situation()) {
        let mut w = World::new();
        for fact in &facts {
            w.set(fact).unwrap();
        }
        let view = w.view();
        let decision = decide(&view);
        prop_assert_eq!(&decision, &decide(&view));
        let fault = fault_of(&view, &decision);
        prop_assert!(fault.is_none(), "{} by {:?}\n{}\ndecide\n", fault.unwrap_or_default(), decision, facts.join("\n"));
    }
}

proptest! {
    #![proptest_config(config(3_000))]

    #[test]
    fn no_order_of_events_makes_the_node_do_what_its_last_check_refuses(events in events()) {
        let mut w = World::new();
        for fact in ["member a", "member b", "pg standby"] {
            w.set(fact).unwrap();
        }
        let mut drive = Drive::new(&w);
        let mut done = Vec::new();
        for event in events {
            done.push(event);
            let fault = happen(&mut w, &mut drive, event).err().or_else(|| fault_after(&w, &drive));
            prop_assert!(fault.is_none(), "{}\nmember a\nmember b\npg standby\n{}\n", fault.unwrap_or_default(), done.join("\n"));
        }
    }
}
