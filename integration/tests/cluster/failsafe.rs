//! Failsafe mode: an outage of etcd is none of the database, as long as every listed member agrees.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pgha_integration::boottime;
use pgha_integration::cluster::{Cluster, ClusterSpec};
use pgha_integration::node::Node;
use pgha_integration::wait::{holds_for, wait_for};
use serde_json::{Value, json};

use crate::scene::{FAILOVER_LIMIT, Scene, TTL};

/// A scene in the mode, with every member in `/failsafe` before anything happens.
async fn start(scope: &str) -> Result<Scene> {
    let spec = ClusterSpec::new(scope).dcs(json!({"failsafe_mode": true}));
    let scene = Scene::start(spec.quorum_commit()).await?;
    wait_listed(&scene.cluster).await?;
    Ok(scene)
}

/// `GET /failsafe` of every node names every node.
async fn wait_listed(cluster: &Cluster) -> Result<()> {
    for node in &cluster.nodes {
        let what = format!("{} knows that everybody is in /failsafe", node.name);
        wait_for(&what, FAILOVER_LIMIT, async || {
            let answer = node.get("/failsafe").await.ok()?;
            let members: Value = serde_json::from_str(&answer.body).ok()?;
            (members.as_object()?.len() == cluster.nodes.len()).then_some(())
        })
        .await
        .with_context(|| cluster.log_tails())?;
    }
    Ok(())
}

/// Does a node's status say that failsafe mode keeps the cluster going?
async fn says_active(node: &Node) -> bool {
    let Ok(answer) = node.get("/patroni").await else {
        return false;
    };
    let status: Option<Value> = serde_json::from_str(&answer.body).ok();
    status.is_some_and(|s| s["failsafe_mode_is_active"] == json!(true))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_primary_stays_while_etcd_is_away_and_everybody_agrees() -> Result<()> {
    let mut scene = start("failsafe-outage").await?;
    let first = scene.first;
    let postmaster = scene.cluster.node(first)?.postmaster_pid();
    let stopped = boottime::now();
    scene.cluster.etcd.stop_all().await?;
    for node in &scene.cluster.nodes {
        let what = format!("{} says that failsafe mode is active", node.name);
        wait_for(&what, FAILOVER_LIMIT, async || says_active(node).await.then_some(()))
            .await
            .with_context(|| scene.cluster.log_tails())?;
    }
    let cluster = &scene.cluster;
    holds_for("the primary stays, alone", TTL * 4, async || {
        cluster.primaries().await == [first] && cluster.nodes[first].says("/primary").await
    })
    .await
    .with_context(|| cluster.log_tails())?;
    scene.cluster.etcd.start_all()?;
    scene.cluster.etcd.wait_ready().await?;
    let node = scene.cluster.node(first)?;
    wait_for("the leader key is back", FAILOVER_LIMIT, async || {
        let leader = scene.cluster.leader_key().await.ok().flatten();
        (leader.as_deref() == Some(node.name.as_str()) && !says_active(node).await).then_some(())
    })
    .await
    .with_context(|| scene.cluster.log_tails())?;
    assert_eq!(node.postmaster_pid(), postmaster, "PostgreSQL was never restarted");
    let (gap, _) = scene.workload.ledger().longest_gap(stopped);
    println!("failsafe: the longest pause between two commits was {gap:?}");
    ensure!(gap < TTL, "commits paused for {gap:?}");
    let primary = scene.finish().await?;
    assert_eq!(primary, first);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_silent_member_and_the_primary_stops_in_time() -> Result<()> {
    let mut scene = start("failsafe-silent").await?;
    let first = scene.first;
    scene.cluster.etcd.stop_all().await?;
    let primary = scene.cluster.node(first)?;
    wait_for("failsafe mode is active", FAILOVER_LIMIT, async || {
        says_active(primary).await.then_some(())
    })
    .await
    .with_context(|| scene.cluster.log_tails())?;
    let silent = scene.cluster.others(first)[0];
    scene.cluster.node_mut(silent)?.kill_node()?;
    wait_for("no node accepts writes", TTL + Duration::from_secs(5), async || {
        scene.cluster.primaries().await.is_empty().then_some(())
    })
    .await
    .with_context(|| scene.cluster.log_tails())?;
    holds_for("nobody is promoted", TTL * 2, async || {
        scene.cluster.primaries().await.is_empty()
    })
    .await?;
    scene.cluster.node_mut(silent)?.start()?;
    scene.cluster.etcd.start_all()?;
    scene.cluster.etcd.wait_ready().await?;
    scene.finish().await?;
    Ok(())
}
