//! L5: after calm commits are acknowledged: none waits for longer than `loop_wait` and a second, and there are new ones.
//! In strict mode they wait for as long as no standby is there that may be synchronous. Where `synchronous_mode` is off,
//! synchronous_standby_names is the person's who set it: pgha leaves it alone, and commits wait for whom that person named.

use super::l04_sync_restored::able_standby;
use crate::etcd::Time;
use crate::world::{SEC, World};

pub(super) fn check(world: &World) -> Option<String> {
    let settings = &world.plan.settings;
    let leader = world.leader().filter(|l| world.nodes[*l].accepts_writes())?;
    let patience: Time = (settings.loop_wait + 1) * SEC;
    let pg = &world.nodes[leader].pg;
    let mode = world.oracles.seen.cluster.settings();
    let by_hand = pg.sync.altered.as_ref().is_some_and(|rules| rules.is_defined());
    if by_hand && !mode.is_synchronous() {
        return None;
    }
    let strict = mode.synchronous_mode_strict;
    if strict && able_standby(world, leader).is_none() {
        return None;
    }
    let name = &world.nodes[leader].name;
    if let Some((at, since)) = pg.sessions.waiting.front()
        && world.now.saturating_sub(*since) > patience
    {
        return Some(format!(
            "L5: the commit at {at} on {name} still waits for a standby after calm"
        ));
    }
    let idle = world.now.saturating_sub(world.clients.ledger.last_at);
    (idle > patience + 10 * settings.commit_every_ms * crate::world::MS)
        .then(|| format!("L5: {name} has acknowledged nothing for {} s after calm", idle / SEC))
}
