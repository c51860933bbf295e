//! L2: a primary that holds the key and whose proof lasts is not stopped without somebody asking for it; one whose daemon
//! reaches a majority of etcd all the time does not miss its deadline; and once the cluster has settled after the last fault
//! its leader stays.

use pgha_core::effect::FenceOrder;
use pgha_core::job::Job;

use crate::etcd::{MEMBERS, Standing};
use crate::world::{SEC, World, nanos};

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
        || memory.failures.promote.is_some()
        // All others have had their etcd for a long time, and this node has not.
        || memory.failsafe.alone_since.is_some();
    let knows = view.last_cluster().is_some_and(|c| c.leader_name() == Some(&node.name));
    let behind = world.read_cluster().timeline_by_history().map(|t| t.0) > node.pg.data().map(|d| d.timeline());
    if !wanted
        && !behind
        && let Some(text) = check_whole_path(world, i, "it stops itself")
    {
        return Some(text);
    }
    let needless = !wanted && knows && !behind && left.as_nanos() > u128::from(LEAD);
    needless.then(|| {
        format!(
            "L2: {} stops its PostgreSQL although it leads for another {} ms",
            node.name,
            left.as_millis()
        )
    })
}

/// The deadline of a primary has come, or is so near that its daemon stops it.
pub(super) fn check_whole_path(world: &World, i: usize, how: &str) -> Option<String> {
    let node = &world.nodes[i];
    let since = world.oracles.watch.whole_path.get(&i).copied().unwrap_or(0);
    let long = 3 * nanos(node.agent.as_ref()?.view().longest_ttl());
    let needless = node.accepts_writes() && world.leader() == Some(i) && world.now.saturating_sub(since) > long;
    needless.then(|| {
        format!(
            "L2: {} leads and has reached a majority of etcd for {} s, and {how}",
            node.name,
            (world.now - since) / SEC
        )
    })
}

impl World {
    /// Does nothing keep the daemon of `i` from a majority of etcd? Where chance loses packets it may lose two in a row, which
    /// with a short ttl is time enough to stop.
    pub(super) fn has_whole_path(&self, i: usize) -> bool {
        let (node, chance) = (&self.nodes[i], &self.plan.settings);
        let losses = [
            chance.lost_reply_per_mille,
            chance.lost_request_per_mille,
            chance.delayed_per_mille,
        ];
        let runs = node.agent_runs() && node.starved_by == 0 && node.busy_until <= self.now;
        let serves = self.etcd.full == 0 && self.etcd.denied == 0 && !self.etcd.buggy;
        let good = |m: &usize| {
            let serving = self.etcd.members.standing(*m) == Standing::Serving;
            serving && self.reaches_member(i, *m) && self.hears_member(i, *m)
        };
        let lossless = losses.iter().all(|l| *l == 0);
        runs && serves && lossless && 2 * (0..MEMBERS).filter(good).count() > MEMBERS
    }
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
