//! L1: after calm there is a leader whose PostgreSQL accepts writes, and nobody else's does.
//!
//! Nobody is demanded where nobody may lead: when the newest timeline of `/history` is on no node that runs and talks with
//! etcd, a person has to decide about what was committed on it.

use crate::etcd::MEMBERS;
use crate::world::World;

pub(super) fn check(world: &World) -> Option<String> {
    let leader = world.leader();
    let writable: Vec<usize> = (0..world.nodes.len())
        .filter(|i| world.nodes[*i].accepts_writes())
        .collect();
    if leader.is_some() && writable.iter().copied().eq(leader) {
        return None;
    }
    if leader.is_none() && writable.is_empty() && nobody_may_lead(world) {
        return None;
    }
    let name = |i: &usize| world.nodes[*i].name.as_str();
    Some(format!(
        "L1: after calm the leader key names {:?} and these accept writes: {:?}",
        leader.as_ref().map(name),
        writable.iter().map(name).collect::<Vec<_>>()
    ))
}

fn nobody_may_lead(world: &World) -> bool {
    let Some(newest) = world.read_cluster().timeline_by_history() else {
        return false;
    };
    let talks = |i: usize| (0..MEMBERS).any(|m| world.reaches_member(i, m) && world.hears_member(i, m));
    let mut able = world
        .nodes
        .iter()
        .enumerate()
        .filter(|(i, n)| n.agent_runs() && talks(*i));
    able.all(|(_, n)| n.pg.data().is_none_or(|d| d.timeline() < newest.0))
}
