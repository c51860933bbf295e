//! L3: after calm every node is the primary, streams, or says with a rule of its own that a person must look.
//!
//! Not demanded yet, and open: a standby whose next WAL the leader has removed does not say so, since no rule looks for that;
//! nor does one that created the leader's timeline number itself at the very same position, which no history tells apart.

use pgha_core::rule::Rule;

use crate::plan::Lasts;
use crate::postgres::{Branch, Data};
use crate::world::World;

/// The ends that need a person, each with its reason in words.
const ENDS: &[Rule] = &[
    Rule::DownDivergedStop,
    Rule::UnfinishedRewindStop,
    Rule::FollowDiverged,
    Rule::DataDirForeign,
    Rule::SystemIdMismatch,
];

pub(super) fn check(world: &World) -> Option<String> {
    let leader = world.leader()?;
    (0..world.nodes.len()).find_map(|i| {
        let node = &world.nodes[i];
        if i == leader || is_victim(world, i) || is_victim(world, leader) || !node.agent_runs() {
            return None;
        }
        let streams = node.pg.is_streaming();
        if cannot_be_told(node.pg.data(), world.nodes[leader].pg.data()) {
            return None;
        }
        let (decision, _) = node.agent.as_ref()?.last_decision()?;
        let named = ENDS.contains(&decision.rule);
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
    leader.oldest > standby.flushed || leader.history.branches().any(twin)
}

/// Is there a fault on this node that is never healed?
pub(super) fn is_victim(world: &World, i: usize) -> bool {
    world
        .active
        .iter()
        .any(|(number, hit)| hit.node == i && world.plan.faults[*number].lasts == Lasts::Ever)
}
