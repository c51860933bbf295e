//! L1: after calm there is a leader whose PostgreSQL accepts writes, and nobody else's does.
//!
//! Nobody is demanded where nobody may lead: when the newest timeline of `/history` is on no node that runs and talks with
//! etcd, a person has to decide about what was committed on it. So it is when the cluster was founded and none of them has any
//! data, when the only ones that have it must not be promoted by their tags, and in synchronous mode when nobody of `/sync`
//! can, or sees too few of the others. A `/sync` that a restored etcd brought does not tell who has what was acknowledged
//! since, so then it is enough that one node is silent or has no data.

use pgha_core::cluster::{Initialize, SyncKey};

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
    let cluster = world.read_cluster();
    let talks = |i: usize| (0..MEMBERS).any(|m| world.reaches_member(i, m) && world.hears_member(i, m));
    let runs = |i: usize| world.nodes[i].agent_runs() && talks(i);
    let newest = cluster.timeline_by_history();
    let founded = matches!(cluster.initialize, Initialize::Done(_));
    let is_behind = |i: usize| match world.nodes[i].pg.data() {
        Some(data) => newest.is_some_and(|t| data.timeline() < t.0),
        None => founded,
    };
    let may_lead = |i: usize| runs(i) && !is_behind(i) && world.plan.settings.tags.of(i).may_lead();
    let sync = cluster
        .sync
        .as_ref()
        .filter(|s| cluster.settings().is_synchronous() && s.leader.is_some());
    let in_sync = |i: usize, s: &SyncKey| {
        let name = &world.nodes[i].name;
        s.leader.as_ref() == Some(name) || s.standbys.contains(name)
    };
    let nodes = 0..world.nodes.len();
    let tells = |i: usize| runs(i) && world.nodes[i].pg.data().is_some();
    if cluster.settings().is_synchronous() && world.has_sync_from_backup(&cluster) && !nodes.clone().all(tells) {
        return true;
    }
    !nodes.clone().any(|i| match sync {
        None => may_lead(i),
        Some(s) => {
            let others = nodes.clone().filter(|j| *j != i && runs(*j) && in_sync(*j, s)).count();
            let last = s.leader.as_ref() == Some(&world.nodes[i].name);
            let enough = last || u32::try_from(others).is_ok_and(|seen| seen >= s.quorum);
            may_lead(i) && in_sync(i, s) && enough
        }
    })
}
