//! S5: `/sync` never claims too much. Of its members, at most as many as its quorum lack an acknowledged commit: none with
//! priorities; with a quorum so few that whoever sees a quorum of the others sees one that has it.
//!
//! What was acknowledged while a process of the server went by a person's synchronous_standby_names does not count: nobody can
//! make the key true for it. The agent takes the key back once it has seen that, and all that follows counts.
//!
//! What a restored etcd says of `/sync` is nobody's claim until somebody has written it again, and no leader can keep a backup
//! from telling of old times. What may come of it is looked at by S4, and after calm the key is judged whoever wrote it.

use pgha_core::cluster::SyncKey;

use crate::postgres::Point;
use crate::world::World;

/// A commit was acknowledged by `i`, by the agent's text.
pub(super) fn check_commit(world: &World, i: usize, at: Point) -> Option<String> {
    let cluster = &world.oracles.seen.cluster;
    if !cluster.settings().is_synchronous() {
        return None;
    }
    let sync = cluster.sync.as_ref().filter(|_| !world.has_sync_from_backup(cluster))?;
    if sync.leader.as_ref() != Some(&world.nodes[i].name) {
        return None;
    }
    judge(world, sync, at)
}

/// `/sync` or the leader's claim on it may have changed.
pub(super) fn check(world: &World) -> Option<String> {
    if world.has_sync_from_backup(&world.oracles.seen.cluster) {
        return None;
    }
    check_progress(world)
}

/// After calm.
pub(super) fn check_progress(world: &World) -> Option<String> {
    let cluster = &world.oracles.seen.cluster;
    let sync = cluster.sync.as_ref().filter(|_| cluster.settings().is_synchronous())?;
    let leader = world.nodes.iter().find(|n| Some(&n.name) == sync.leader.as_ref())?;
    let branch = leader.pg.data()?.history.current().id;
    let lsn = world.clients.ledger.of(branch).by_agent;
    judge(world, sync, Point { branch, lsn })
}

fn judge(world: &World, sync: &SyncKey, at: Point) -> Option<String> {
    if at.lsn == 0 {
        return None;
    }
    let has = |name: &str| {
        let node = world.nodes.iter().find(|n| n.name.as_str().eq_ignore_ascii_case(name));
        let data = node.and_then(|n| n.pg.data());
        data.is_some_and(|d| d.history.contains(d.flushed, at))
    };
    let lacking: Vec<&str> = sync.standbys.iter().map(|n| n.as_str()).filter(|n| !has(n)).collect();
    let quorum = usize::try_from(sync.quorum).unwrap_or(usize::MAX);
    (lacking.len() > quorum).then(|| {
        format!(
            "S5: /sync names {lacking:?}, which lack the commit acknowledged at {} of branch {}",
            at.lsn, at.branch
        )
    })
}
