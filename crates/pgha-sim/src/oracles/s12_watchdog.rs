//! S12: where a watchdog is required, whoever accepts writes has it armed. Maintenance mode is excepted.

use pgha_core::effect::FenceOrder;

use crate::world::World;

pub(super) fn check(world: &World) -> Option<String> {
    if !world.plan.settings.watchdog_required {
        return None;
    }
    let unguarded = world.nodes.iter().find(|node| {
        node.accepts_writes() && node.watchdog.fires_at.is_none() && node.fence != Some(FenceOrder::Paused)
    })?;
    Some(format!(
        "S12: {} accepts writes and its watchdog is not armed",
        unguarded.name
    ))
}
