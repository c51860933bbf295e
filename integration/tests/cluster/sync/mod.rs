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

use std::time::Duration;

use anyhow::{Context, Result};
use pgha_integration::cluster::{Cluster, ClusterSpec};
use pgha_integration::node::Node;
use pgha_integration::wait::wait_for;
use serde_json::Value;

use crate::scene::{HEAL_LIMIT, Scene};

/// Limit until `/sync` names who is there.
const SYNC_LIMIT: Duration = Duration::from_secs(30);
/// Rows acknowledged shortly before a fault belong to its account.
const LEAD: Duration = Duration::from_secs(1);

/// What `/sync` says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct SyncKey {
    leader: Option<String>,
    quorum: u64,
    standbys: Vec<String>,
}

impl SyncKey {
    /// `None` when there is no such key.
    async fn read(cluster: &Cluster) -> Result<Option<Self>> {
        let Some(text) = cluster.etcd.get(&cluster.key("sync")).await? else {
            return Ok(None);
        };
        let key: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
        let names = key["sync_standby"].as_str().unwrap_or_default();
        Ok(Some(Self {
            leader: key["leader"].as_str().map(str::to_owned),
            quorum: key["quorum"].as_u64().with_context(|| text.clone())?,
            standbys: names.split(',').filter(|n| !n.is_empty()).map(str::to_owned).collect(),
        }))
    }

    /// Leader and standbys: one of them leads next.
    fn has(&self, name: &str) -> bool {
        self.leader.as_deref() == Some(name) || self.standbys.iter().any(|n| n == name)
    }
}

/// A scene in which `/sync` names so many standbys before anything happens: until then commits may wait.
async fn start(spec: ClusterSpec, standbys: usize) -> Result<Scene> {
    let cluster = spec.start().await?;
    wait_standbys(&cluster, standbys).await?;
    Scene::watch(cluster).await
}

/// Waits until `/sync` is the leader's own and names so many standbys.
async fn wait_standbys(cluster: &Cluster, count: usize) -> Result<SyncKey> {
    let what = format!("/sync names {count} standbys");
    wait_for(&what, SYNC_LIMIT, async || {
        let key = SyncKey::read(cluster).await.ok()??;
        let leads = key.leader.is_some() && key.leader == cluster.leader_key().await.ok()?;
        (leads && key.standbys.len() == count).then_some(key)
    })
    .await
    .with_context(|| cluster.log_tails())
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
