//! What synchronous replication costs: each commit, and the death of the standby that commits wait for.

use anyhow::{Context, Result};
use pgha_integration::boottime;
use pgha_integration::cluster::{Cluster, ClusterSpec};
use pgha_integration::sync_key::SyncKey;
use serde_json::json;

use crate::measure::{Figures, Quantity};
use crate::scenarios::{LIMIT, client, gap};

/// Commits whose latency is measured, one after the other.
const COMMITS: usize = 2_000;

/// Measures on a cluster of its own, in `synchronous_mode: on`.
pub async fn measure(spec: ClusterSpec, rounds: u8, figures: &mut Figures) -> Result<()> {
    let mut cluster = spec.dcs(json!({"synchronous_mode": true})).start().await?;
    for _ in 0..rounds {
        commit_latency(&cluster, figures).await?;
        standby_killed(&mut cluster, figures).await?;
    }
    Ok(())
}

async fn commit_latency(cluster: &Cluster, figures: &mut Figures) -> Result<()> {
    cluster.wait_whole(LIMIT).await?;
    SyncKey::wait(cluster, 1, LIMIT).await?;
    let sql = cluster.primary_sql().await?;
    sql.run("CREATE TABLE IF NOT EXISTS pgha_commits (id bigint)").await?;
    let mut times = Vec::with_capacity(COMMITS);
    for id in 0..i64::try_from(COMMITS)? {
        let begun = boottime::now();
        sql.execute("INSERT INTO pgha_commits VALUES ($1)", &[&id]).await?;
        times.push(boottime::since(begun));
    }
    times.sort_unstable();
    let at = |share: usize| times.get(COMMITS * share / 100).copied().unwrap_or_default();
    figures.add(Quantity::CommitP50Ms, at(50).as_secs_f64() * 1000.0);
    figures.add(Quantity::CommitP99Ms, at(99).as_secs_f64() * 1000.0);
    Ok(())
}

/// `SIGKILL` of everything on the standby that `/sync` names; the other one has to take its place.
async fn standby_killed(cluster: &mut Cluster, figures: &mut Figures) -> Result<()> {
    let (_, workload) = client(cluster).await?;
    let listed = SyncKey::wait(cluster, 1, LIMIT).await?;
    let name = listed.standbys.first().context("/sync names a standby")?;
    let number = cluster.nodes.iter().position(|node| node.name == *name);
    let number = number.with_context(|| format!("there is no node {name}"))?;
    let fault = boottime::now();
    cluster.node_mut(number)?.kill_node()?;
    let after = boottime::now();
    // The client writes again before the standby is back.
    while workload.ledger().first_after(after).is_none() {
        workload.wait_acked(1, LIMIT).await?;
    }
    cluster.node_mut(number)?.start()?;
    figures.add(Quantity::SyncStandbyKilled, gap(cluster, workload, fault).await?);
    Ok(())
}
