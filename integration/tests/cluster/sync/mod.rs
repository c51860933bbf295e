//! Synchronous modes on real PostgreSQL: whoever takes over has every acknowledged row, with no help from the test's own
//! `synchronous_standby_names`.
//!
//! One cluster goes through several faults, since starting it takes longer than most of them. After each it is whole again,
//! the account of acknowledged rows is settled, and the time during which commits were blocked is printed. Faults that take
//! hosts of their own (isolation, a frozen machine) are scenario files, `integration/faults/*s.txt` and `*q.txt`.

mod changes;
mod failover;
mod race;
mod restarts;
mod shown;

use std::time::Duration;

use anyhow::{Context, Result};
use pgha_integration::cluster::{Cluster, ClusterSpec};
use pgha_integration::node::Node;
use pgha_integration::sync_key::SyncKey;

use crate::scene::{HEAL_LIMIT, Scene};

/// Limit until `/sync` names who is there.
const SYNC_LIMIT: Duration = Duration::from_secs(30);
/// Rows acknowledged shortly before a fault belong to its account.
const LEAD: Duration = Duration::from_secs(1);

/// A scene in which `/sync` names so many standbys before anything happens: until then commits may wait.
async fn start(spec: ClusterSpec, standbys: usize) -> Result<Scene> {
    let cluster = spec.start().await?;
    wait_standbys(&cluster, standbys).await?;
    Scene::watch(cluster).await
}

async fn wait_standbys(cluster: &Cluster, count: usize) -> Result<SyncKey> {
    SyncKey::wait(cluster, count, SYNC_LIMIT).await
}

/// A fault is over: the cluster becomes whole, `/sync` names so many standbys, and nothing acknowledged is missing.
/// Prints for how long commits were blocked since `begun`.
async fn settle(scene: &mut Scene, what: &str, begun: Duration, standbys: usize) -> Result<()> {
    scene.first = scene.cluster.wait_whole(HEAL_LIMIT).await?;
    wait_standbys(&scene.cluster, standbys).await?;
    scene.account(scene.first).await?;
    scene.workload.release();
    tell(scene, what, begun);
    Ok(())
}

fn tell(scene: &Scene, what: &str, begun: Duration) {
    let ledger = scene.workload.ledger();
    let (gap, _) = ledger.longest_gap(begun.saturating_sub(LEAD));
    println!(
        "{what}: commits were blocked for {gap:.2?}, 0 of {} acknowledged rows are missing",
        ledger.acked.len()
    );
}

/// `synchronous_standby_names` of a node.
async fn names(node: &Node) -> Result<String> {
    let sql = node.sql().await?;
    Ok(sql
        .row("SELECT current_setting('synchronous_standby_names')")
        .await?
        .get(0))
}

fn number_of(cluster: &Cluster, name: &str) -> Result<usize> {
    let at = cluster.nodes.iter().position(|n| n.name == name);
    at.with_context(|| format!("there is no node {name}"))
}
