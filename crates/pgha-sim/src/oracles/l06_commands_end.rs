//! L6: everything that an operator asked for has happened or was refused by the end: no request without an answer, no wish
//! left in `/failover` or in a daemon.

use crate::world::{SEC, World};

use super::l03_named_end::is_victim;

/// Longer than any request may take.
const PATIENCE: u64 = 60 * SEC;

pub(super) fn check(world: &World) -> Option<String> {
    if (0..world.nodes.len()).any(|i| is_victim(world, i)) {
        return None;
    }
    let cluster = world.read_cluster();
    if let Some(wish) = cluster.failover.as_ref().filter(|w| w.scheduled_at.is_none()) {
        return Some(format!("L6: /failover still asks for {:?}", wish.candidate));
    }
    let old = |(_, (_, at)): &(_, &(usize, u64))| world.now > at + PATIENCE;
    if let Some((id, (node, _))) = world.oracles.watch.asked.iter().find(old) {
        return Some(format!(
            "L6: request {} to {} was never answered",
            id.0, world.nodes[*node].name
        ));
    }
    world.nodes.iter().find_map(|node| {
        let wishes = &node.agent.as_ref()?.view().memory.wishes;
        let left = wishes.restart.is_some() || wishes.reinitialize.is_some();
        left.then(|| format!("L6: {} still wants to restart or reinitialise", node.name))
    })
}
