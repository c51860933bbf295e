//! S3: a promotion begins only with a proof, of the very key that etcd has, made before the facts were read.
//!
//! A starved daemon may begin late; the fence then holds the deadline of that proof, and ends what comes after it.

use pgha_core::effect::FenceOrder;

use crate::world::World;

pub(super) fn check(world: &World, i: usize) -> Option<String> {
    let node = &world.nodes[i];
    let view = node.agent.as_ref()?.view();
    let (Some(proof), Some(cluster)) = (view.memory.proof, view.cluster()) else {
        return Some(format!("S3: {} promotes without proof or facts", node.name));
    };
    let written = world
        .etcd
        .log
        .get(&proof.revision.0)
        .is_some_and(|keys| keys.iter().any(|k| k.ends_with("/status")));
    let guarded = matches!(node.fence, Some(FenceOrder::Until(at)) if at <= proof.deadline);
    let ordered = cluster.revision >= proof.revision && (guarded || proof.deadline > world.boot(i));
    (!written || !ordered).then(|| format!("S3: {} promotes without a good proof", node.name))
}
