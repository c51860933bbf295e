//! L1: after calm there is a leader whose PostgreSQL accepts writes, and nobody else's does.

use crate::world::World;

pub(super) fn check(world: &World) -> Option<String> {
    let leader = world.leader();
    let writable: Vec<usize> = (0..world.nodes.len())
        .filter(|i| world.nodes[*i].accepts_writes())
        .collect();
    if leader.is_some() && writable.iter().copied().eq(leader) {
        return None;
    }
    let name = |i: &usize| world.nodes[*i].name.as_str();
    Some(format!(
        "L1: after calm the leader key names {:?} and these accept writes: {:?}",
        leader.as_ref().map(name),
        writable.iter().map(name).collect::<Vec<_>>()
    ))
}
