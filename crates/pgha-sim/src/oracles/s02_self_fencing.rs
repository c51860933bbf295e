//! S2: whoever is writable is within its deadline, whatever became of its agent. Maintenance mode is excepted.

use pgha_core::effect::FenceOrder;

use crate::world::World;

pub(super) fn check(world: &World) -> Option<String> {
    (0..world.nodes.len()).find_map(|i| {
        let node = &world.nodes[i];
        if !node.accepts_writes() {
            return None;
        }
        let fenced = match node.fence {
            Some(FenceOrder::Until(at)) => world.boot(i) <= at,
            Some(FenceOrder::Paused) => true,
            Some(FenceOrder::StandbyOnly) | None => false,
        };
        (!fenced).then(|| format!("S2: {} is writable under {:?}", node.name, node.fence))
    })
}
