//! S13: a member's slot is kept until the member has been away for `member_slots_ttl`; a lost one is made anew.

use pgha_core::slots::slot_name;

use crate::postgres::Slot;
use crate::world::{SEC, World, nanos};

/// Notes which members are there.
pub(super) fn note(world: &mut World) {
    let now = world.now;
    world.oracles.member_seen.resize(world.nodes.len(), None);
    for i in 0..world.nodes.len() {
        if is_member(world, i) {
            world.oracles.member_seen[i] = Some(now);
        }
    }
}

fn is_member(world: &World, i: usize) -> bool {
    let key = world.oracles.seen.members.get(i);
    key.is_some_and(|key| world.etcd.get(key).is_some())
}

/// A slot was dropped on `i`.
pub(super) fn check_drop(world: &World, i: usize, name: &str, slot: Slot) -> Option<String> {
    let of = world
        .nodes
        .iter()
        .position(|n| slot_name(&n.name) == name && n.name != world.nodes[i].name)?;
    let last = world.oracles.member_seen.get(of).copied().flatten()?;
    let kept = nanos(world.oracles.seen.cluster.settings().member_slots_ttl);
    let early = is_member(world, of) || world.now.saturating_sub(last) < kept;
    (early && !slot.lost).then(|| {
        format!(
            "S13: {} drops the slot of {}, which may return",
            world.nodes[i].name, world.nodes[of].name
        )
    })
}

/// After calm: the primary has a usable slot for every member, unless one was lost just now.
pub(super) fn check_progress(world: &World) -> Option<String> {
    let time_to_mend = 3 * world.plan.settings.loop_wait * SEC;
    if world.oracles.slots_changed > 0 && world.now.saturating_sub(world.oracles.slots_changed) < time_to_mend {
        return None;
    }
    let leader = world.leader()?;
    let data = world.nodes[leader]
        .pg
        .data()
        .filter(|_| world.nodes[leader].accepts_writes())?;
    let usable = |i: &usize| {
        let slot = data.slots.get(&slot_name(&world.nodes[*i].name));
        slot.is_some_and(|s| !s.lost)
    };
    let lacking = world
        .others(leader)
        .filter(|i| is_member(world, *i))
        .find(|i| !usable(i))?;
    Some(format!(
        "S13: {} has no usable slot for {}",
        world.nodes[leader].name, world.nodes[lacking].name
    ))
}
