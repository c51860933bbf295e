//! L2: a primary that holds the key and whose proof lasts is not stopped without somebody asking for it, and once the
//! cluster has settled after the last fault its leader stays.

use pgha_core::effect::FenceOrder;
use pgha_core::job::Job;

use crate::world::{SEC, World};

/// More than what a daemon leaves itself for a clean stop before its deadline.
const LEAD: u64 = 3 * SEC;

pub(super) fn check_job(world: &World, i: usize, job: &Job) -> Option<String> {
    let node = &world.nodes[i];
    if !matches!(job, Job::Stop { .. }) || !node.accepts_writes() || world.leader() != Some(i) {
        return None;
    }
    let Some(FenceOrder::Until(deadline)) = node.fence else {
        return None;
    };
    let left = deadline.since(world.boot(i));
    let view = node.agent.as_ref()?.view();
    let memory = &view.memory;
    let wanted = memory.terminating
        || memory.handover.is_some()
        || memory.wishes.restart.is_some()
        || memory.wishes.scheduled_restart.is_some()
        || memory.failures.promote.is_some();
    let knows = view.last_cluster().is_some_and(|c| c.leader_name() == Some(&node.name));
    let behind = world.read_cluster().timeline_by_history().map(|t| t.0) > node.pg.data().map(|d| d.timeline());
    let needless = !wanted && knows && !behind && left.as_nanos() > u128::from(LEAD);
    needless.then(|| {
        format!(
            "L2: {} stops its PostgreSQL although it leads for another {} ms",
            node.name,
            left.as_millis()
        )
    })
}

pub(super) fn check_quiet(world: &mut World) -> Option<String> {
    let (from, _) = world.oracles.watch.quiet?;
    if world.now < from {
        return None;
    }
    let leader = world.leader().filter(|i| world.nodes[*i].accepts_writes());
    let (_, before) = world.oracles.watch.quiet.as_mut()?;
    if before.is_none() {
        *before = leader;
    }
    let name = |i: Option<usize>| i.map_or("nobody", |i| world.nodes[i].name.as_str());
    let before = world.oracles.watch.quiet?.1;
    (before != leader).then(|| {
        let (was, is) = (name(before), name(leader));
        format!("L2: without any fault leadership went from {was} to {is}")
    })
}
