//! S8: a node whose timeline is behind `/history` takes the key under no circumstances, and nobody is started as a standby
//! on the word that it never left the history of a leader that it has left.

use pgha_core::cluster::ClusterView;
use pgha_core::job::{Job, StartRole};
use pgha_core::view::Divergence;

use crate::world::World;

/// The leader key was taken.
pub(super) fn check_key_taken(world: &World, cluster: &ClusterView) -> Option<String> {
    let name = cluster.leader_name()?;
    let newest = cluster.timeline_by_history()?.0;
    let node = world.nodes.iter().find(|n| n.name == *name)?;
    let mine = node.pg.data()?.timeline();
    (mine < newest).then(|| format!("S8: {name} takes the leader key on timeline {mine}, /history is at {newest}"))
}

/// A node is started as a standby.
pub(super) fn check_job(world: &World, i: usize, job: &Job) -> Option<String> {
    let role = match job {
        Job::Start { role, .. } | Job::Restart { role, .. } => role,
        _ => return None,
    };
    let StartRole::Standby { upstream: Some(_) } = role else {
        return None;
    };
    let node = &world.nodes[i];
    let Divergence::None { leader } = &node.agent.as_ref()?.view().memory.divergence else {
        return None;
    };
    let primary = world.nodes.iter().find(|n| n.name == *leader)?;
    let (mine, theirs) = (node.pg.data()?, primary.pg.data()?);
    let left = primary.pg.is_writable() && mine.timeline() < theirs.timeline() && !theirs.contains(mine);
    left.then(|| {
        format!(
            "S8: {} on timeline {} is taken for a standby of {leader} on {}, whose history it has left",
            node.name,
            mine.timeline(),
            theirs.timeline()
        )
    })
}
