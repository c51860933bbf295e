//! S7: who takes the leader key as a standby lags behind the last published position by `maximum_lag_on_failover` at
//! most, and no peer that it could have asked is ahead of it on the same timeline. Operators may wish otherwise.

use super::seen::Acquisition;
use crate::world::World;

pub(super) fn check(world: &World, got: &Acquisition) -> Option<String> {
    let winner = &world.nodes[got.node];
    let position = winner.pg.data().filter(|_| winner.pg.receiver().is_some())?.position();
    if got
        .before
        .failover
        .as_ref()
        .is_some_and(|wish| wish.scheduled_at.is_none())
    {
        return None;
    }
    let settings = got.before.settings();
    let published = got.before.status.as_ref().map_or(0, |s| s.optime.0);
    let lag = published.saturating_sub(position);
    if lag > settings.maximum_lag_on_failover {
        return Some(format!(
            "S7: {} takes the leader key {lag} bytes behind the published position {published}",
            winner.name
        ));
    }
    let Some(asked) = &got.asked else {
        let alone = world
            .others(got.node)
            .all(|j| !world.is_ahead(j, got.node) || !world.talk(j, got.node));
        return (!alone).then(|| format!("S7: {} takes the leader key and asked nobody", winner.name));
    };
    let counts = |j: &usize| match got.before.sync.as_ref().filter(|_| settings.is_synchronous()) {
        Some(sync) if sync.leader.is_some() => {
            let name = world.nodes[*j].name.as_str();
            let all = sync.standbys.iter().chain(&sync.leader);
            all.into_iter().any(|s| s.as_str().eq_ignore_ascii_case(name))
        }
        Some(_) | None => true,
    };
    let ahead = asked.ahead.filter(|j| world.is_ahead(*j, got.node)).filter(counts)?;
    Some(format!(
        "S7: {} takes the leader key although {} is ahead and answers",
        winner.name, world.nodes[ahead].name
    ))
}
