//! S1: at no instant are two nodes writable while holding, each by its own books, an unexpired deadline.

use pgha_core::effect::FenceOrder;

use crate::world::World;

pub(super) fn check(world: &World) -> Option<String> {
    let valid = |i: &usize| {
        let node = &world.nodes[*i];
        node.accepts_writes() && matches!(node.fence, Some(FenceOrder::Until(at)) if world.boot(*i) < at)
    };
    let mut writers = (0..world.nodes.len()).filter(valid);
    let (first, second) = (writers.next()?, writers.next()?);
    let (first, second) = (&world.nodes[first].name, &world.nodes[second].name);
    Some(format!(
        "S1: {first} and {second} accept writes with unexpired deadlines"
    ))
}
