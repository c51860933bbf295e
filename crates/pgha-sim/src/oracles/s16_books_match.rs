//! S16: what a node believes to have proven was written, whatever happened to the answers.

use crate::world::{BASE, World};

/// A daemon has taken in an event. Its books change at no other time.
pub(super) fn check(world: &World, i: usize) -> Option<String> {
    let node = &world.nodes[i];
    let proof = node.agent.as_ref()?.view().memory.proof?;
    let keys = world.etcd.log.get(&proof.revision.0);
    let written = keys.is_some_and(|keys| keys.iter().any(|k| k.strip_prefix(BASE) == Some("/status")));
    (!written).then(|| {
        format!(
            "S16: {} believes in a proof at revision {} that was never written",
            node.name, proof.revision.0
        )
    })
}
