//! S15: after a switchover that ended as it was wished, the old leader needs no rewind and nothing acknowledged is lost,
//! whatever the replication mode.
//!
//! With a WAL archive the old leader switches to a new segment before its shutdown checkpoint, and a candidate that lives on
//! the archive never gets the checkpoint: it needs all up to the switch (`pgha_postgres::ShutdownCheckpoint::needed`), and the
//! old leader may have to be rewound by that one record.

use pgha_core::commit::{Commit, Purpose};
use pgha_core::pg::ControlState;
use pgha_core::view::HandoverReason;

use super::seen::Acquisition;
use crate::postgres::Point;
use crate::world::World;

/// A hand-over whose candidate has the key and is not promoted yet.
#[derive(Clone, Copy, Debug)]
pub struct HandingOver {
    from: usize,
    to: usize,
    end: Point,
}

/// A daemon writes to etcd: does it release its key for a switchover? A daemon that is stopped releases it, too, whether or not
/// anybody holds its last record, and a wish that it never looked at is not granted by that.
pub(super) fn note_commit(world: &mut World, i: usize, commit: &Commit) {
    if commit.purpose != Purpose::ReleaseLeaderKey {
        return;
    }
    let handover = world.nodes[i]
        .agent
        .as_ref()
        .and_then(|a| a.view().memory.handover.as_ref());
    let switches = handover.is_some_and(|h| h.reason == HandoverReason::Switchover);
    world.oracles.released_by = switches.then_some(i);
}

/// The leader key changed hands: was it handed over?
pub(super) fn note(world: &mut World, got: &Acquisition) {
    world.oracles.handing_over = handed_over(world, got);
}

fn handed_over(world: &World, got: &Acquisition) -> Option<HandingOver> {
    let status = got.before.status.as_ref().filter(|s| s.released)?;
    let wish = got.before.failover.as_ref().filter(|w| w.is_switchover())?;
    let from = world
        .nodes
        .iter()
        .position(|n| Some(&n.name) == status.writer.as_ref())?;
    let meant = wish.leader.as_ref() == Some(&world.nodes[from].name)
        && wish.candidate.as_ref().is_none_or(|c| *c == world.nodes[got.node].name);
    let pg = &world.nodes[from].pg;
    let data = pg.data()?;
    let switched = pg.archives && data.state == ControlState::ShutDown;
    let end = Point {
        lsn: if switched { data.checkpoint } else { data.written },
        ..data.end()
    };
    let granted = world.oracles.released_by == Some(from);
    (meant && granted && from != got.node).then_some(HandingOver {
        from,
        to: got.node,
        end,
    })
}

/// A node begins to accept writes: if it was handed over to, that is the successful end.
pub(super) fn check_primary(world: &mut World, i: usize) -> Option<String> {
    let over = world.oracles.handing_over.take().filter(|h| h.to == i)?;
    world.count("switchover done");
    let data = world.nodes[i].pg.data()?;
    let acknowledged = world.clients.ledger.of(over.end.branch).last;
    let (from, to) = (&world.nodes[over.from].name, &world.nodes[i].name);
    if !data.history.contains(data.written, over.end) {
        return Some(format!(
            "S15: {to} took over from {from} without its last record at {}",
            over.end.lsn
        ));
    }
    (acknowledged > over.end.lsn).then(|| {
        format!(
            "S15: {from} acknowledged a commit at {acknowledged} after its end at {}",
            over.end.lsn
        )
    })
}
