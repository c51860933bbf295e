//! S10: losing etcd is no reason to found a cluster. Once somebody has accepted writes nobody runs initdb any more, and
//! `/initialize` never names another cluster.

use pgha_core::cluster::{ClusterView, Initialize};
use pgha_core::job::Job;

use crate::world::World;

pub(super) fn check_job(world: &World, i: usize, job: &Job) -> Option<String> {
    let founded = world.oracles.watch.founded?;
    let name = &world.nodes[i].name;
    matches!(job, Job::Bootstrap).then(|| format!("S10: {name} founds a cluster although {founded} exists"))
}

pub(super) fn check_initialize(world: &World, cluster: &ClusterView) -> Option<String> {
    let founded = world.oracles.watch.founded?;
    match cluster.initialize {
        Initialize::Done(id) if id.0 != founded => {
            Some(format!("S10: /initialize names {id}, the cluster is {founded}"))
        }
        Initialize::Done(_) | Initialize::Absent | Initialize::InProgress { .. } | Initialize::Unreadable => None,
    }
}
