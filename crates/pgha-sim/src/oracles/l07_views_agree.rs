//! L7: after calm everybody who hears etcd sees the same leader and the same settings, and is seen by its member key.

use crate::world::World;

use super::l03_named_end::is_victim;

pub(super) fn check(world: &World) -> Option<String> {
    let cluster = world.read_cluster();
    (0..world.nodes.len()).find_map(|i| {
        let node = &world.nodes[i];
        if is_victim(world, i) || !node.agent_runs() {
            return None;
        }
        let view = node.agent.as_ref()?.view();
        let seen = view.last_cluster().and_then(|c| c.leader_name());
        let name = &node.name;
        if seen != cluster.leader_name() {
            return Some(format!(
                "L7: {name} sees {seen:?} as the leader, etcd has {:?}",
                cluster.leader_name()
            ));
        }
        if *view.settings() != cluster.settings() {
            return Some(format!("L7: {name} goes by other settings than /config has"));
        }
        (!cluster.members.contains_key(name)).then(|| format!("L7: {name} has no member key"))
    })
}
