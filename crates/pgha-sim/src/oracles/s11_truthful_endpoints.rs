//! S11: the health check for the primary answers 200 on one node at most.
//!
//! In maintenance mode no deadline ends what a primary does. One that reaches neither etcd nor whoever was promoted after the mode
//! had ended cannot know of either, and goes on: the one case in which two nodes answer.

use pgha_core::effect::FenceOrder;

use crate::world::World;

pub(super) fn check(world: &World) -> Option<String> {
    let answers = |i: &usize| {
        let node = &world.nodes[*i];
        let agent = node.agent.as_ref().filter(|_| node.agent_runs());
        agent.is_some_and(|a| a.view().answers_as_primary(world.boot(*i)))
    };
    let mut answering = (0..world.nodes.len()).filter(answers);
    let (first, second) = (answering.next()?, answering.next()?);
    if cannot_know(world, first, second) || cannot_know(world, second, first) {
        return None;
    }
    let (first, second) = (&world.nodes[first].name, &world.nodes[second].name);
    Some(format!("S11: {first} and {second} answer as primary"))
}

fn cannot_know(world: &World, i: usize, other: usize) -> bool {
    let node = &world.nodes[i];
    let silent = node.agent.as_ref().is_some_and(|a| a.view().cluster().is_none());
    node.fence == Some(FenceOrder::Paused) && silent && !world.talk(i, other)
}
