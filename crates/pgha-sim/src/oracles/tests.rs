//! Every oracle of data safety sees a violation that is planted in a small, calm world, and sees none before.

use pgha_core::commit::Key;
use pgha_core::effect::Tend;
use pgha_core::event::OpId;
use pgha_core::settings::SynchronousMode;
use pgha_wire::keys;
use pgha_wire::kv::{Op, Txn};

use crate::plan::Plan;
use crate::postgres::Server;
use crate::settings::SimSettings;
use crate::world::{BASE, SEC, World};

/// Three nodes after half a minute in which nothing went wrong.
fn calm_world(sync: SynchronousMode) -> World {
    let settings = SimSettings {
        sync,
        commit_every_ms: 200,
        ..SimSettings::default()
    };
    let plan = Plan {
        seed: 1,
        settings,
        faults: Vec::new(),
        leader: None,
    };
    let mut world = World::new(plan, false);
    go_on(&mut world, 30);
    assert_eq!(world.violations, Vec::<String>::new());
    world
}

fn go_on(world: &mut World, seconds: u64) {
    let until = world.now + seconds * SEC;
    while world.step(until).is_some() {
        world.check();
    }
}

/// The leader, and a standby that streams from it.
fn pair(world: &World) -> (usize, usize) {
    let leader = world.leader().unwrap();
    (leader, world.nodes[leader].pg.senders[0].standby)
}

/// Writes a key as if somebody had, and lets the oracles look.
fn put(world: &mut World, key: &Key, value: &str) {
    let now = world.now;
    world.etcd.commit(
        now,
        &Txn {
            compares: Vec::new(),
            ops: vec![Op::Put {
                key: keys::full_key(BASE, key),
                value: value.into(),
                lease: None,
            }],
        },
    );
    world.check();
}

fn delete(world: &mut World, key: &Key) {
    let now = world.now;
    world.etcd.commit(
        now,
        &Txn {
            compares: Vec::new(),
            ops: vec![Op::Delete(keys::full_key(BASE, key))],
        },
    );
    world.check();
}

/// The leader key goes to `to` as if it had won a race.
fn hand_key_to(world: &mut World, to: usize) {
    let name = world.nodes[to].name.clone();
    delete(world, &Key::Leader);
    put(world, &Key::Leader, name.as_str());
}

fn put_sync(world: &mut World, leader: usize, standbys: &[usize], quorum: usize) {
    let names: Vec<&str> = standbys.iter().map(|i| world.nodes[*i].name.as_str()).collect();
    let value = format!(
        r#"{{"leader":"{}","sync_standby":"{}","quorum":{quorum}}}"#,
        world.nodes[leader].name,
        names.join(",")
    );
    put(world, &Key::Sync, &value);
}

fn broken(world: &World, oracle: &str) -> bool {
    world.violations.iter().any(|v| v.starts_with(oracle))
}

#[test]
fn s04_sees_a_primary_without_a_promised_commit() {
    let mut world = calm_world(SynchronousMode::Off);
    let (leader, standby) = pair(&world);
    let branch = world.nodes[leader].pg.data().unwrap().history.current().id;
    world.became_primary(standby);
    assert!(!broken(&world, "S4"));
    let ahead = world.nodes[standby].pg.data().unwrap().written + 1;
    world.clients.ledger.branches.get_mut(&branch).unwrap().promised = ahead;
    world.became_primary(standby);
    assert!(broken(&world, "S4"));
}

#[test]
fn s04_sees_a_commit_that_is_promised_on_a_branch_that_was_left() {
    let mut world = calm_world(SynchronousMode::On);
    let (leader, standby) = pair(&world);
    world.begin_promotion(standby);
    go_on(&mut world, 2);
    assert_eq!(world.nodes[standby].pg.server, Server::Primary);
    put_sync(&mut world, leader, &[standby], 0);
    go_on(&mut world, 2);
    assert!(broken(&world, "S4"), "{:?}", world.violations);
}

#[test]
fn s05_sees_a_member_of_sync_that_lacks_an_acknowledged_commit() {
    let mut world = calm_world(SynchronousMode::On);
    let (leader, _) = pair(&world);
    let named = world.read_cluster().sync.clone().unwrap().standbys;
    let standby = world.others(leader).find(|i| !named.contains(&world.nodes[*i].name));
    let standby = standby.expect("one of two is synchronous");
    world.replication.block(leader, standby);
    go_on(&mut world, 2);
    assert!(!broken(&world, "S5"));
    put_sync(&mut world, leader, &[standby], 1);
    assert!(!broken(&world, "S5"), "one may lack it where a quorum of one is asked");
    put_sync(&mut world, leader, &[standby], 0);
    assert!(broken(&world, "S5"));
}

#[test]
fn s06_sees_a_leader_from_outside_sync_and_one_without_a_quorum() {
    let mut world = calm_world(SynchronousMode::On);
    let (leader, standby) = pair(&world);
    let other = world.others(leader).find(|i| *i != standby).unwrap();
    put_sync(&mut world, leader, &[standby], 0);
    hand_key_to(&mut world, standby);
    assert!(!broken(&world, "S6"));
    hand_key_to(&mut world, other);
    assert!(broken(&world, "S6"));

    let mut world = calm_world(SynchronousMode::Quorum);
    put_sync(&mut world, leader, &[standby, other], 1);
    world.note_asked(standby);
    hand_key_to(&mut world, standby);
    assert!(!broken(&world, "S6"));
    hand_key_to(&mut world, other);
    assert!(broken(&world, "S6"), "it asked nobody");
}

#[test]
fn s07_sees_a_winner_that_lags_too_far_or_leaves_somebody_behind() {
    let mut world = calm_world(SynchronousMode::Off);
    let (_, standby) = pair(&world);
    world.note_asked(standby);
    hand_key_to(&mut world, standby);
    assert!(!broken(&world, "S7"));

    let mut world = calm_world(SynchronousMode::Off);
    let (_, standby) = pair(&world);
    put(&mut world, &Key::Status, r#"{"optime":999999999}"#);
    hand_key_to(&mut world, standby);
    assert!(broken(&world, "S7"));

    let mut world = calm_world(SynchronousMode::Off);
    let (leader, standby) = pair(&world);
    world.replication.block(leader, standby);
    go_on(&mut world, 3);
    world.nodes[leader].pg.crash();
    world.note_asked(standby);
    hand_key_to(&mut world, standby);
    assert!(broken(&world, "S7"));
}

#[test]
fn s13_sees_a_slot_that_is_dropped_too_early_and_one_that_is_missing() {
    let mut world = calm_world(SynchronousMode::Off);
    let (leader, standby) = pair(&world);
    world.check_progress();
    assert!(!broken(&world, "S13"), "{:?}", world.violations);
    let name = pgha_core::slots::slot_name(&world.nodes[standby].name);
    world.nodes[standby].pg.crash();
    world.tend_connections();
    world.tend(leader, 0, OpId(0), &[Tend::DropSlot(name)]);
    assert!(broken(&world, "S13"));
    world.violations.clear();
    world.now += 60 * SEC;
    world.check_progress();
    assert!(broken(&world, "S13"));
}

#[test]
fn s15_sees_a_switchover_that_left_the_last_record_behind() {
    for lost in [false, true] {
        let mut world = calm_world(SynchronousMode::Off);
        let (leader, standby) = pair(&world);
        let (from, to) = (world.nodes[leader].name.clone(), world.nodes[standby].name.clone());
        put(
            &mut world,
            &Key::Failover,
            &format!(r#"{{"leader":"{from}","member":"{to}"}}"#),
        );
        put(
            &mut world,
            &Key::Status,
            &format!(r#"{{"optime":1,"writer":"{from}","released":true}}"#),
        );
        world.oracles.released_by = Some(leader);
        let end = world.nodes[leader].pg.data().unwrap().clone();
        let data = world.nodes[standby].pg.data_mut().unwrap();
        data.written = if lost { end.written - 1 } else { end.written };
        hand_key_to(&mut world, standby);
        world.became_primary(standby);
        assert_eq!(broken(&world, "S15"), lost, "{:?}", world.violations);
        assert!(world.counters.get("switchover done") > 0);
    }
}

#[test]
fn s18_sees_names_that_are_refused_foreign_or_impossible() {
    for (text, wrong) in [
        ("n2", false),
        ("ANY 1 (n2,n3)", false),
        ("__patroni_strict_sync_replica_placeholder__", false),
        ("n2,", true),
        ("FIRST 1 (n2,stranger)", true),
        ("FIRST 3 (n2,n3)", true),
        ("N1", true),
    ] {
        let mut world = calm_world(SynchronousMode::Off);
        assert_eq!(world.set_sync_names(0, text).is_none(), text == "n2,", "{text}");
        assert_eq!(broken(&world, "S18"), wrong, "{text}: {:?}", world.violations);
    }
}

#[test]
fn l4_sees_that_nobody_is_synchronous_after_calm() {
    let mut world = calm_world(SynchronousMode::On);
    let (leader, standby) = pair(&world);
    world.replication.block(leader, standby);
    put_sync(&mut world, leader, &[], 0);
    world.check_progress();
    assert!(broken(&world, "L4"));
}

#[test]
fn l5_sees_a_commit_that_waits_for_ever() {
    let mut world = calm_world(SynchronousMode::Off);
    world.check_progress();
    assert!(!broken(&world, "L5"), "{:?}", world.violations);
    let (leader, _) = pair(&world);
    world.nodes[leader].pg.sessions.waiting.push_back((1, 0));
    world.check_progress();
    assert!(broken(&world, "L5"));

    let mut world = calm_world(SynchronousMode::Off);
    world.clients.ledger.last_at = 0;
    world.check_progress();
    assert!(broken(&world, "L5"));
}
