//! L4: after calm, with synchronous mode on and a standby that streams from the leader, `/sync` names one. A standby whose
//! tags keep it from being synchronous does not count, nor one that is no member by its key, such as the victim of a fault that
//! cuts it from etcd for ever: the leader knows nobody by that name.

use crate::world::World;

pub(super) fn check(world: &World) -> Option<String> {
    let cluster = &world.oracles.seen.cluster;
    let leader = world.leader().filter(|_| cluster.settings().is_synchronous())?;
    let name = &world.nodes[leader].name;
    let standby = able_standby(world, leader)?;
    let named = cluster
        .sync
        .as_ref()
        .is_some_and(|s| s.leader.as_ref() == Some(name) && !s.standbys.is_empty());
    (!named).then(|| {
        format!(
            "L4: {} streams from {name}, and /sync of {name} names nobody after calm",
            world.nodes[standby].name
        )
    })
}

/// A member that streams from the leader and may be synchronous.
pub(super) fn able_standby(world: &World, leader: usize) -> Option<usize> {
    let is_member = |i: usize| world.etcd.get(&world.oracles.seen.members[i]).is_some();
    let able = |standby: &usize| is_member(*standby) && world.plan.settings.tags.of(*standby).may_sync();
    let streaming = world.nodes[leader].pg.senders.iter().filter(|s| s.streaming);
    streaming.map(|s| s.standby).find(able)
}
