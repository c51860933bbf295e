//! S7: who takes the leader key as a standby lags behind the last published position by `maximum_lag_on_failover` at
//! most, and no peer that may lead and that it could have asked is ahead of it on the same timeline. Operators may wish otherwise.
//!
//! Who could be asked: a member by its key, and for a ttl also one whose key vanished while nobody led, if the daemon that takes
//! the leader key ran then. It can have read the address of no other. The former leader without a key is left out: past its
//! deadline nobody waits for the answer of a host that has most likely failed.

use super::seen::Acquisition;
use crate::etcd::Time;
use crate::world::{LEADER_KEY, SEC, World};

/// The leader key in the course of time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LeaderKeySeen {
    /// When it was there last, and whose it was.
    last: Option<(Time, usize)>,
    /// Since when it is gone.
    gone_at: Option<Time>,
}

/// After every write to etcd.
pub(super) fn note(world: &mut World) {
    let now = world.now;
    let kept = world.etcd.get(LEADER_KEY).map(|kv| kv.value.clone());
    let holder = kept.and_then(|name| world.nodes.iter().position(|n| n.name.as_str().as_bytes() == name));
    let seen = &mut world.oracles.leader_key;
    match holder {
        Some(node) => {
            *seen = LeaderKeySeen {
                last: Some((now, node)),
                gone_at: None,
            }
        }
        None => _ = seen.gone_at.get_or_insert(now),
    }
}

/// Could the daemon of `i` ask `j`, if that answers?
pub(super) fn could_ask(world: &World, i: usize, j: usize) -> bool {
    if world.etcd.get(&world.oracles.seen.members[j]).is_some() {
        return true;
    }
    let LeaderKeySeen { last, gone_at } = world.oracles.leader_key;
    let (Some((led_at, leader)), Some(gone_at)) = (last, gone_at) else {
        return false;
    };
    let ttl = world.plan.settings.ttl * SEC;
    let key_seen = world.oracles.member_seen.get(j).copied().flatten();
    let known = key_seen.is_some_and(|at| at >= led_at && world.nodes[i].started_at < at);
    known && leader != j && world.now < gone_at + ttl
}

pub(super) fn check(world: &World, got: &Acquisition) -> Option<String> {
    let winner = &world.nodes[got.node];
    let position = winner.pg.data().filter(|_| winner.pg.receiver().is_some())?.position();
    if got
        .before
        .failover
        .as_ref()
        .is_some_and(|wish| wish.scheduled_at.is_none())
    {
        return None;
    }
    let settings = got.before.settings();
    let published = got.before.status.as_ref().map_or(0, |s| s.optime.0);
    let lag = published.saturating_sub(position);
    if lag > settings.maximum_lag_on_failover {
        return Some(format!(
            "S7: {} takes the leader key {lag} bytes behind the published position {published}",
            winner.name
        ));
    }
    let Some(asked) = &got.asked else {
        let alone = world
            .others(got.node)
            .filter(|j| could_ask(world, got.node, *j) && world.nodes[*j].agent_runs())
            .all(|j| !world.is_ahead(j, got.node) || !world.talk(j, got.node));
        return (!alone).then(|| format!("S7: {} takes the leader key and asked nobody", winner.name));
    };
    let counts = |j: &usize| match got.before.sync.as_ref().filter(|_| settings.is_synchronous()) {
        Some(sync) if sync.leader.is_some() => {
            let name = world.nodes[*j].name.as_str();
            let all = sync.standbys.iter().chain(&sync.leader);
            all.into_iter().any(|s| s.as_str().eq_ignore_ascii_case(name))
        }
        Some(_) | None => true,
    };
    let ahead = asked.ahead.filter(|j| world.is_ahead(*j, got.node)).filter(counts)?;
    Some(format!(
        "S7: {} takes the leader key although {} is ahead and answers",
        winner.name, world.nodes[ahead].name
    ))
}
