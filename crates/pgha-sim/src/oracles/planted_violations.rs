//! Each oracle of the cluster's course is shown a world that breaks its invariant, and one that does not.

use std::collections::BTreeMap;

use pgha_core::commit::Key;
use pgha_core::effect::FenceOrder;
use pgha_core::job::{Job, StartRole, StopMode};
use pgha_core::peer::PeerView;
use pgha_core::pg::UnfinishedWork;
use pgha_core::request::RequestId;
use pgha_core::units::Mono;

use super::{
    l02_no_needless_failover as l02, l03_named_end as l03, l06_commands_end as l06, l07_views_agree as l07,
    s08_timelines as s08, s09_last_copy as s09, s10_no_bootstrap_over_data as s10, s12_watchdog as s12,
    s14_pause as s14, s17_repairable as s17,
};
use crate::plan::Plan;
use crate::postgres::{Branch, Dir};
use crate::world::{SEC, World};

/// Three nodes that have run for a minute without any fault: the world, its leader and one of the standbys.
fn settled() -> (World, usize, usize) {
    let plan = Plan::parse("seed 1").expect("three nodes as usual, and no faults");
    let mut world = World::new(plan, false);
    run(&mut world, 60);
    let leader = world.leader().expect("a minute is enough for three nodes");
    let standby = (leader + 1) % 3;
    (world, leader, standby)
}

fn run(world: &mut World, seconds: u64) {
    let until = world.now + seconds * SEC;
    while world.step(until).is_some() {
        world.check();
    }
    world.now = until;
    assert_eq!(world.violations, Vec::<String>::new());
}

fn broken(found: Option<String>, name: &str) {
    let text = found.expect("the oracle must see this");
    assert!(text.starts_with(name), "{text}");
}

fn start() -> Job {
    Job::Start {
        role: StartRole::Standby { upstream: None },
        timeout: std::time::Duration::from_secs(60),
    }
}

fn stop() -> Job {
    Job::Stop {
        mode: StopMode::Fast,
        checkpoint_first: false,
    }
}

fn remove() -> Job {
    Job::DiscardDataDir {
        keep_aside: false,
        reason: "test".into(),
    }
}

#[test]
fn s8_sees_a_leader_behind_the_history() {
    let (mut world, ..) = settled();
    assert_eq!(s08::check_key_taken(&world, &world.read_cluster()), None);
    world.put_key(
        &Key::History,
        r#"[[8,1000,"no reason","2026-01-01T00:00:00+00:00","n1"]]"#.into(),
    );
    broken(s08::check_key_taken(&world, &world.read_cluster()), "S8");
}

#[test]
fn s8_sees_a_promotion_while_a_peer_on_a_newer_timeline_answers() {
    let (mut world, leader, standby) = settled();
    assert_eq!(s08::check_job(&world, standby, &Job::Promote), None);
    let fork = Branch {
        id: 99,
        timeline: 2,
        start: 0,
    };
    world.nodes[leader]
        .pg
        .data_mut()
        .expect("it has data")
        .history
        .fork(fork);
    broken(s08::check_job(&world, standby, &Job::Promote), "S8");
    // Whom it asked and did not reach may have been out of reach then.
    world.note_peers_asked(standby, &BTreeMap::new());
    assert_eq!(s08::check_job(&world, standby, &Job::Promote), None);
    // What it was told it must go by.
    let name = world.nodes[leader].name.clone();
    let status = world.peer_status(standby, &name).expect("it answers");
    let answer = PeerView::Answered { at: Mono(0), status };
    world.note_peers_asked(standby, &BTreeMap::from([(name, answer)]));
    broken(s08::check_job(&world, standby, &Job::Promote), "S8");
    // The fence stops it first.
    world.nodes[standby].fence = Some(FenceOrder::Until(Mono(0)));
    assert_eq!(s08::check_job(&world, standby, &Job::Promote), None);
}

#[test]
fn s8_sees_a_standby_of_a_leader_that_created_the_same_timeline_elsewhere() {
    let (mut world, leader, standby) = settled();
    for (node, id, start) in [(leader, 98, 10), (standby, 99, 20)] {
        let timeline = 2;
        let fork = Branch { id, timeline, start };
        world.nodes[node].pg.data_mut().expect("it has data").history.fork(fork);
    }
    broken(s08::check_standby(&world, standby, leader), "S8");
}

#[test]
fn s9_sees_the_last_copy_removed_and_a_postmaster_on_removed_data() {
    let (mut world, leader, standby) = settled();
    broken(s09::check_job(&world, leader, &remove()), "S9");
    world.nodes[standby].pg.crash();
    assert_eq!(s09::check_job(&world, standby, &remove()), None);
    world.nodes[leader].pg.crash();
    world.now += 10 * SEC;
    broken(s09::check_job(&world, standby, &remove()), "S9");
}

#[test]
fn s10_sees_a_second_cluster() {
    let (mut world, _, standby) = settled();
    broken(s10::check_job(&world, standby, &Job::Bootstrap), "S10");
    assert_eq!(s10::check_initialize(&world, &world.read_cluster()), None);
    world.put_key(&Key::Initialize, "7123456789012345678".into());
    broken(s10::check_initialize(&world, &world.read_cluster()), "S10");
    let fresh = World::new(world.plan.clone(), false);
    assert_eq!(s10::check_job(&fresh, standby, &Job::Bootstrap), None);
}

#[test]
fn s12_sees_a_primary_without_its_watchdog() {
    let (mut world, leader, _) = settled();
    assert_eq!(s12::check(&world), None);
    world.plan.settings.watchdog_required = true;
    broken(s12::check(&world), "S12");
    world.nodes[leader].watchdog.fires_at = Some(world.now + SEC);
    assert_eq!(s12::check(&world), None);
}

#[test]
fn s14_sees_work_that_nobody_asked_for_in_maintenance_mode() {
    let (mut world, leader, standby) = settled();
    assert_eq!(s14::check_job(&world, standby, &start()), None);
    let paused = world.plan.settings.dynamic_json().replacen('{', r#"{"pause":true,"#, 1);
    world.put_key(&Key::Config, paused);
    run(&mut world, 15);
    broken(s14::check_job(&world, standby, &start()), "S14");
    broken(s14::check_job(&world, leader, &stop()), "S14");
    broken(s14::check_job(&world, standby, &Job::Promote), "S14");
}

#[test]
fn s17_sees_a_start_on_what_a_rewind_left() {
    let (mut world, _, standby) = settled();
    assert_eq!(s17::check_job(&world, standby, &start()), None);
    world.nodes[standby].pg.dir = Dir::Unfinished(UnfinishedWork::Rewind);
    broken(s17::check_job(&world, standby, &start()), "S17");
}

#[test]
fn l2_sees_a_leader_stopped_without_need_and_a_quiet_cluster_without_leader() {
    let (mut world, leader, standby) = settled();
    assert_eq!(l02::check_job(&world, standby, &stop()), None);
    broken(l02::check_job(&world, leader, &stop()), "L2");
    world.expect_quiet_from(world.now);
    assert_eq!(l02::check_quiet(&mut world), None);
    world.nodes[leader].pg.crash();
    broken(l02::check_quiet(&mut world), "L2");
}

#[test]
fn l2_sees_a_leader_that_misses_its_deadline_although_most_of_etcd_is_in_reach() {
    let (mut world, leader, _) = settled();
    // It led etcd: until there is a new leader nobody reaches anything.
    world.etcd.members.stop(0);
    run(&mut world, 60);
    assert_eq!(l02::check_whole_path(&world, leader, "it stops itself"), None);
    run(&mut world, 60);
    broken(l02::check_whole_path(&world, leader, "it stops itself"), "L2");
    world.etcd.members.stop(1);
    run(&mut world, 1);
    assert_eq!(l02::check_whole_path(&world, leader, "it stops itself"), None);
}

#[test]
fn l3_sees_a_standby_that_neither_streams_nor_says_why() {
    let (mut world, _, standby) = settled();
    assert_eq!(l03::check(&world), None);
    world.nodes[standby].pg.crash();
    broken(l03::check(&world), "L3");
}

#[test]
fn l6_sees_a_wish_that_stays_and_a_request_without_an_answer() {
    let (mut world, _, standby) = settled();
    assert_eq!(l06::check(&world), None);
    world.note_asked_for(standby, RequestId(1));
    assert_eq!(l06::check(&world), None);
    world.now += 100 * SEC;
    broken(l06::check(&world), "L6");
    world.note_answered(RequestId(1));
    assert_eq!(l06::check(&world), None);
    world.put_key(&Key::Failover, r#"{"member":"n2"}"#.into());
    broken(l06::check(&world), "L6");
}

#[test]
fn l7_sees_a_node_that_goes_by_old_settings() {
    let (mut world, ..) = settled();
    assert_eq!(l07::check(&world), None);
    let other = world.plan.settings.dynamic_json().replace(r#""ttl":30"#, r#""ttl":20"#);
    world.put_key(&Key::Config, other);
    broken(l07::check(&world), "L7");
}
