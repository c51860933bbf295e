//! L3: after calm every node is the primary, streams, or says with a rule of its own that a person must look.
//!
//! One end is named and no more than that: a standby on a timeline that it created itself with the leader's number at the
//! very same position, when one of the two does not keep the first record of that timeline any more. Nothing that is left
//! tells the two apart, so it says that it stands still and that PostgreSQL's log must say why.

use pgha_core::job::Job;
use pgha_core::rule::Rule;
use pgha_core::view::RunningJob;

use crate::plan::Lasts;
use crate::postgres::{Branch, Data};
use crate::world::World;

pub(super) fn check(world: &World) -> Option<String> {
    let leader = world.leader()?;
    (0..world.nodes.len()).find_map(|i| {
        let node = &world.nodes[i];
        if i == leader || is_victim(world, i) || is_victim(world, leader) || !node.agent_runs() {
            return None;
        }
        let streams = node.pg.is_streaming();
        let agent = node.agent.as_ref()?;
        let (decision, _) = agent.last_decision()?;
        let checks = |running: &RunningJob| matches!(running.job, Job::CheckDivergence { .. });
        let looks_again = agent.view().memory.job.as_ref().is_some_and(checks);
        let twin = cannot_be_told(node.pg.data(), world.nodes[leader].pg.data());
        let named = decision.rule.needs_a_person() || twin && (looks_again || decision.rule == Rule::FollowStalled);
        (!streams && !named).then(|| {
            format!(
                "L3: {} neither streams nor says why not: {} {}: {}",
                node.name,
                decision.rule.number(),
                decision.rule.name(),
                decision.because
            )
        })
    })
}

fn cannot_be_told(standby: Option<&Data>, leader: Option<&Data>) -> bool {
    let (Some(standby), Some(leader)) = (standby, leader) else {
        return false;
    };
    let mine = standby.history.current();
    let twin = |b: Branch| b.id != mine.id && b.timeline == mine.timeline && b.start == mine.start;
    leader.oldest.max(standby.oldest) > mine.start && leader.history.branches().any(twin)
}

/// Is there a fault on this node that is never healed?
pub(super) fn is_victim(world: &World, i: usize) -> bool {
    world
        .active
        .iter()
        .any(|(number, hit)| hit.node == i && world.plan.faults[*number].lasts == Lasts::Ever)
}
