//! S8: a node whose timeline is behind `/history` takes the key under no circumstances, nobody is promoted while a member that
//! would answer is on a newer timeline, and nobody is started as a standby on the word that it never left the history of a
//! leader that it has left. An operator may name a candidate that is behind.

use pgha_core::cluster::ClusterView;
use pgha_core::effect::FenceOrder;
use pgha_core::job::{Job, StartRole};
use pgha_core::view::Divergence;

use crate::postgres::{Data, Server};
use crate::world::{SEC, World};

/// Who was asked so long ago may answer otherwise now.
const FRESH: u64 = 10 * SEC;

/// The leader key was taken.
pub(super) fn check_key_taken(world: &World, cluster: &ClusterView) -> Option<String> {
    let name = cluster.leader_name()?;
    let newest = cluster.timeline_by_history()?.0;
    let node = world.nodes.iter().find(|n| n.name == *name)?;
    let mine = node.pg.data()?.timeline();
    (mine < newest).then(|| format!("S8: {name} takes the leader key on timeline {mine}, /history is at {newest}"))
}

/// A node is promoted, or started as a standby.
pub(super) fn check_job(world: &World, i: usize, job: &Job) -> Option<String> {
    let role = match job {
        Job::Start { role, .. } | Job::Restart { role, .. } => role,
        Job::Promote => return check_promotion(world, i),
        _ => return None,
    };
    let StartRole::Standby { upstream: Some(_) } = role else {
        return None;
    };
    let Divergence::None { leader } = &world.nodes[i].agent.as_ref()?.view().memory.divergence else {
        return None;
    };
    let primary = world.nodes.iter().position(|n| n.name == *leader)?;
    check_standby(world, i, primary)
}

fn check_promotion(world: &World, i: usize) -> Option<String> {
    let node = &world.nodes[i];
    let mine = node.pg.data()?.timeline();
    if matches!(node.fence, Some(FenceOrder::Until(at)) if world.boot(i) >= at) {
        // A machine that was frozen between the order to the fence and the promotion: the fence stops the server first.
        return None;
    }
    let watch = &world.oracles.watch;
    let asked = watch.peers_asked.get(&i).filter(|(at, _)| world.now < at + FRESH);
    let newer = |j: &usize| match asked {
        // What it was told is what it can go by: who could not tell then may have come up, or streamed on, since.
        Some((_, told)) => told.get(j).is_some_and(|theirs| theirs.0 > mine),
        None => would_tell(world, i, *j).is_some_and(|theirs| theirs > mine),
    };
    let ahead = world.others(i).find(newer).filter(|_| !watch.named.contains(&i))?;
    Some(format!(
        "S8: {} is promoted on timeline {mine} although {} is on a newer one and answers",
        node.name, world.nodes[ahead].name
    ))
}

/// The timeline that a member would tell if it was asked now.
fn would_tell(world: &World, i: usize, j: usize) -> Option<u32> {
    let peer = &world.nodes[j];
    let tells = matches!(peer.pg.server, Server::Primary | Server::Standby(_)) && !peer.pg.mute;
    let data = peer.pg.data().filter(|_| tells && world.is_askable(i, j));
    data.map(Data::timeline)
}

/// `i` is started as a standby, believing that it never left the history of `leader`.
pub(super) fn check_standby(world: &World, i: usize, leader: usize) -> Option<String> {
    let (node, primary) = (&world.nodes[i], &world.nodes[leader]);
    let (mine, theirs) = (node.pg.data()?, primary.pg.data()?);
    let older = mine.timeline() < theirs.timeline() && !theirs.contains(mine);
    let left = primary.pg.is_writable() && (older || has_twin(mine, theirs));
    left.then(|| {
        format!(
            "S8: {} on timeline {} is taken for a standby of {} on {}, whose history it has left",
            node.name,
            mine.timeline(),
            primary.name,
            theirs.timeline()
        )
    })
}

/// Did both create a timeline of this number, from different positions? From the same one no history tells them apart.
fn has_twin(mine: &Data, theirs: &Data) -> bool {
    let last = mine.history.current();
    theirs
        .history
        .branches()
        .any(|b| b.timeline == last.timeline && b.id != last.id && b.start != last.start)
}
