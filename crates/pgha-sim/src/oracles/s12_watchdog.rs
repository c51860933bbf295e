//! S12: where a watchdog is required, whoever accepts writes has it armed. Maintenance mode is excepted.
//!
//! In maintenance mode it is closed, so that one which broke meanwhile is found out when the mode is lifted: the server is
//! writable then, and has to be stopped before the first deadline that it got.

use pgha_core::effect::FenceOrder;

use crate::world::World;

pub(super) fn check(world: &World) -> Option<String> {
    if !world.plan.settings.watchdog_required {
        return None;
    }
    let unguarded = world.nodes.iter().find(|node| {
        let device = node.watchdog;
        let stops = device.missed_until.is_some_and(|at| world.now < at);
        node.accepts_writes() && device.fires_at.is_none() && !stops && node.fence != Some(FenceOrder::Paused)
    })?;
    Some(format!(
        "S12: {} accepts writes and its watchdog is not armed",
        unguarded.name
    ))
}
