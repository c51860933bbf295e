//! S6: in synchronous mode the leader key goes to the last leader or to a member of `/sync` that sees enough of the
//! others, unless an operator forces it. The last leader is one of those others: it holds what it acknowledged. A member
//! whose key is gone still answers, and so can vote.
//!
//! What a restored etcd says of `/sync` is of the time of the snapshot: neither who led last nor whom commits waited for since. Until
//! somebody has written it again nobody is judged by it, as a running primary must take its key back, and who else may lead is
//! a question of what was acknowledged (S4).

use super::seen::Acquisition;
use crate::world::World;

pub(super) fn check(world: &World, got: &Acquisition) -> Option<String> {
    if world.has_sync_from_backup(&got.before) {
        return None;
    }
    let sync = got.before.sync.as_ref()?;
    let leader = sync.leader.as_ref()?;
    let name = &world.nodes[got.node].name;
    let forced = got.before.failover.as_ref().is_some_and(|wish| !wish.is_switchover());
    if !got.before.settings().is_synchronous() || forced || leader == name {
        return None;
    }
    let same = |a: &pgha_core::units::MemberName, b: &str| a.as_str().eq_ignore_ascii_case(b);
    if !sync.standbys.iter().any(|s| same(s, name.as_str())) {
        return Some(format!("S6: {name} takes the leader key and is not in /sync"));
    }
    let answering = got.asked.as_ref().map(|a| a.answering.as_slice()).unwrap_or_default();
    let is_voter = |j: &&usize| {
        let all = sync.standbys.iter().chain(&sync.leader);
        all.into_iter().any(|s| same(s, world.nodes[**j].name.as_str()))
    };
    let (seen, quorum) = (
        answering.iter().filter(is_voter).count(),
        usize::try_from(sync.quorum).unwrap_or(usize::MAX),
    );
    (seen < quorum).then(|| format!("S6: {name} takes the leader key and saw {seen} of {quorum} other voters"))
}
