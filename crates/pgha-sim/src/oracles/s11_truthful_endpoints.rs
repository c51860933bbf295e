//! S11: the health check for the primary answers 200 on one node at most.

use crate::world::World;

pub(super) fn check(world: &World) -> Option<String> {
    let answers = |i: &usize| {
        let node = &world.nodes[*i];
        let agent = node.agent.as_ref().filter(|_| node.agent_runs());
        agent.is_some_and(|a| a.view().answers_as_primary(world.boot(*i)))
    };
    let mut answering = (0..world.nodes.len()).filter(answers);
    let (first, second) = (answering.next()?, answering.next()?);
    let (first, second) = (&world.nodes[first].name, &world.nodes[second].name);
    Some(format!("S11: {first} and {second} answer as primary"))
}
