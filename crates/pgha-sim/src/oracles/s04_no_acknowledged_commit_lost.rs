//! S4: what synchronous replication promised to keep is on the history of every later primary.
//!
//! A commit is promised when it was acknowledged while synchronous mode was on and either strict or with members in
//! `/sync`. Not promised: what was acknowledged after `/sync` was emptied, and everything once an operator has forced a
//! failover to somebody outside `/sync`. Nor is what was acknowledged after a person set synchronous_standby_names and before
//! the agent has put that right: commits wait for what the person wrote.

use crate::postgres::Point;
use crate::world::World;

/// A node begins to accept writes.
pub(super) fn check_primary(world: &World, i: usize) -> Option<String> {
    let data = world.nodes[i].pg.data()?;
    let lost = world.clients.ledger.branches.iter().find(|(branch, known)| {
        let point = Point {
            branch: **branch,
            lsn: known.promised,
        };
        known.promised > 0 && !data.history.contains(data.written, point)
    });
    let (branch, known) = lost?;
    Some(format!(
        "S4: {} becomes primary on timeline {} at {} without the commit acknowledged at {} of branch {branch}",
        world.nodes[i].name,
        data.timeline(),
        data.written,
        known.promised
    ))
}

/// A commit was acknowledged and promised: no later primary may have left its branch before it.
pub(super) fn check_commit(world: &World, i: usize, at: Point) -> Option<String> {
    let newest = world.oracles.newest.as_ref()?;
    let later = newest.current().id > at.branch;
    let left = newest.stretches(u64::MAX).find(|(b, _)| b.id == at.branch);
    let overtaken = later && left.is_none_or(|(_, end)| end < at.lsn);
    overtaken.then(|| {
        format!(
            "S4: {} acknowledges a commit at {} although branch {} was left before it",
            world.nodes[i].name, at.lsn, at.branch
        )
    })
}
