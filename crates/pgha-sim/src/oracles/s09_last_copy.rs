//! S9: data is rewritten or removed only where no postmaster runs and not by the holder of the leader key, and removed only
//! while somebody else has just been seen to be a primary. pg_rewind begins by asking that one itself.

use pgha_core::job::Job;
use pgha_core::pg::UnfinishedWork;

use crate::postgres::{Dir, Server};
use crate::world::{SEC, World};

/// How old the last sign of another primary may be: asking it and beginning to remove take a moment.
const FRESH: u64 = 2 * SEC;

pub(super) fn check_job(world: &World, i: usize, job: &Job) -> Option<String> {
    let what = match job {
        Job::Rewind { .. } => "rewinds",
        Job::DiscardDataDir { .. } => "removes",
        Job::Clone { .. } => "copies over",
        _ => return None,
    };
    let node = &world.nodes[i];
    let broken = |why: &str| Some(format!("S9: {} {what} its data directory {why}", node.name));
    if node.pg.server != Server::Down {
        return broken("under a running postmaster");
    }
    let was_part = match &node.pg.dir {
        Dir::Data(_) | Dir::Unfinished(UnfinishedWork::Rewind) => true,
        Dir::Empty | Dir::Unfinished(_) => false,
    };
    if !was_part {
        return None;
    }
    if matches!(job, Job::Clone { .. }) {
        return broken("although it holds data");
    }
    if world.leader() == Some(i) {
        return broken("while it holds the leader key");
    }
    if matches!(job, Job::Rewind { .. }) {
        return None;
    }
    // A starved daemon performs late what it decided in time.
    let fresh = FRESH + 4 * node.starved_by;
    let wrote = |(n, at): (&usize, &u64)| *n != i && world.now <= at + fresh && world.nodes[*n].pg.data().is_some();
    if world.oracles.watch.wrote_at.iter().any(wrote) {
        None
    } else {
        broken("and no other primary is alive")
    }
}
