//! L4: after calm, with synchronous mode on and a standby that streams from the leader, `/sync` names one.

use crate::world::World;

pub(super) fn check(world: &World) -> Option<String> {
    let cluster = &world.oracles.seen.cluster;
    let leader = world.leader().filter(|_| cluster.settings().is_synchronous())?;
    let name = &world.nodes[leader].name;
    let streams = world.nodes[leader].pg.senders.first()?;
    let named = cluster
        .sync
        .as_ref()
        .is_some_and(|s| s.leader.as_ref() == Some(name) && !s.standbys.is_empty());
    (!named).then(|| {
        format!(
            "L4: {} streams from {name}, and /sync of {name} names nobody after calm",
            world.nodes[streams.standby].name
        )
    })
}
