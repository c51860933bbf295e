//! Synchronous modes on real PostgreSQL: whoever takes over has every acknowledged row, with no help from the test's own
//! `synchronous_standby_names`.

use std::time::Duration;

use anyhow::{Context, Result};
use hyper::Method;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pgha_integration::boottime;
use pgha_integration::cluster::{Cluster, ClusterSpec};
use pgha_integration::http;
use pgha_integration::node::Node;
use pgha_integration::wait::{holds_for, wait_for};
use serde_json::{Value, json};

use crate::scene::{FAILOVER_LIMIT, Scene};

/// Limit until `/sync` names who is there.
const SYNC_LIMIT: Duration = Duration::from_secs(30);

/// A scene in which `/sync` names so many standbys before anything happens: until then commits may wait.
async fn start(scope: &str, mode: Value, standbys: usize) -> Result<Scene> {
    let cluster = ClusterSpec::new(scope).dcs(mode).start().await?;
    wait_standbys(&cluster, standbys).await?;
    Scene::watch(cluster).await
}

/// The standbys that `/sync` names.
async fn standbys(cluster: &Cluster) -> Option<Vec<String>> {
    let text = cluster.etcd.get(&cluster.key("sync")).await.ok()??;
    let key: Value = serde_json::from_str(&text).ok()?;
    let names = key["sync_standby"].as_str().unwrap_or_default();
    Some(names.split(',').filter(|n| !n.is_empty()).map(str::to_owned).collect())
}

async fn wait_standbys(cluster: &Cluster, count: usize) -> Result<Vec<String>> {
    let what = format!("/sync names {count} standbys");
    wait_for(&what, SYNC_LIMIT, async || {
        standbys(cluster).await.filter(|names| names.len() == count)
    })
    .await
    .with_context(|| cluster.log_tails())
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

/// The primary is lost under load; a member of `/sync` takes over, nothing is lost, the cluster heals.
async fn lose_the_primary(mut scene: Scene, scope: &str) -> Result<()> {
    let first = scene.first;
    let listed = standbys(&scene.cluster).await.unwrap_or_default();
    let killed = boottime::now();
    scene.cluster.node_mut(first)?.kill_node()?;
    let new = scene.wait_other_primary().await?;
    let (gap, _) = scene
        .workload
        .ledger()
        .longest_gap(killed.saturating_sub(Duration::from_secs(1)));
    println!("{scope}: commits were blocked for {gap:?}");
    let name = &scene.cluster.node(new)?.name;
    assert!(listed.contains(name), "{name} was not among {listed:?}");
    scene.cluster.node_mut(first)?.start()?;
    scene.finish().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_synchronous_standby_takes_over_with_every_row() -> Result<()> {
    let scene = start("sync-on", json!({"synchronous_mode": true}), 1).await?;
    lose_the_primary(scene, "one of two, by priority").await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_synchronous_standbys_are_both_waited_for() -> Result<()> {
    let mode = json!({"synchronous_mode": true, "synchronous_node_count": 2});
    let scene = start("sync-two", mode, 2).await?;
    let primary = scene.cluster.node(scene.first)?;
    let expected: Vec<&str> = scene
        .cluster
        .others(scene.first)
        .into_iter()
        .map(|n| scene.cluster.nodes[n].name.as_str())
        .collect();
    let expected = format!("2 ({})", expected.join(","));
    wait_for("the list has the form that people expect", SYNC_LIMIT, async || {
        names(primary).await.ok().filter(|n| *n == expected)
    })
    .await?;
    for other in scene.cluster.others(scene.first) {
        assert!(
            scene.cluster.node(other)?.says("/sync").await,
            "/sync of a synchronous standby"
        );
    }
    lose_the_primary(scene, "two of two").await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_loss_of_the_synchronous_standby_blocks_commits_for_a_moment() -> Result<()> {
    let mut scene = start("sync-standby-lost", json!({"synchronous_mode": true}), 1).await?;
    let listed = wait_standbys(&scene.cluster, 1).await?;
    let number = number_of(&scene.cluster, &listed[0])?;
    let killed = boottime::now();
    scene.cluster.node_mut(number)?.kill_node()?;
    wait_for("the other standby is in /sync", SYNC_LIMIT, async || {
        standbys(&scene.cluster).await.filter(|n| n.len() == 1 && *n != listed)
    })
    .await
    .with_context(|| scene.cluster.log_tails())?;
    scene.workload.wait_acked(100, FAILOVER_LIMIT).await?;
    let (gap, _) = scene
        .workload
        .ledger()
        .longest_gap(killed.saturating_sub(Duration::from_secs(1)));
    println!("the synchronous standby is lost: commits were blocked for {gap:?}");
    scene.cluster.node_mut(number)?.start()?;
    scene.finish().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn strict_mode_acknowledges_nothing_alone() -> Result<()> {
    let mode = json!({"synchronous_mode": true, "synchronous_mode_strict": true});
    let mut scene = start("sync-strict", mode, 1).await?;
    let others = scene.cluster.others(scene.first);
    for other in &others {
        scene.cluster.node_mut(*other)?.kill_node()?;
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let before = scene.workload.ledger().acked.len();
    holds_for("no commit is acknowledged", Duration::from_secs(4), async || {
        scene.workload.ledger().acked.len() == before
    })
    .await?;
    assert_ne!(
        names(scene.cluster.node(scene.first)?).await?,
        "",
        "somebody is waited for"
    );
    for other in &others {
        scene.cluster.node_mut(*other)?.start()?;
    }
    let primary = scene.finish().await?;
    println!("strict: pg{} leads after both standbys came back", primary + 1);
    Ok(())
}

/// The checkpointer of a node, which alone raises the flag by which backends wait.
fn checkpointer(node: &Node) -> Result<Pid> {
    let found = node.processes().into_iter().find(|p| p.title.contains("checkpointer"));
    Ok(found.with_context(|| format!("{} has no checkpointer", node.name))?.pid)
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_says_sync_before_it_waits() -> Result<()> {
    let cluster = ClusterSpec::new("sync-race-bare").nodes(2).start().await?;
    let primary = cluster.wait_primary(FAILOVER_LIMIT).await?;
    let node = cluster.node(primary)?;
    let standby = cluster.node(cluster.others(primary)[0])?.name.clone();
    let sql = node.sql().await?;
    sql.run("CREATE TABLE race (id int)").await?;
    let stopped = checkpointer(node)?;
    kill(stopped, Signal::SIGSTOP)?;
    cluster.set_parameter("synchronous_standby_names", &standby).await?;
    wait_for("pg_stat_replication says sync", FAILOVER_LIMIT, async || {
        let row = sql
            .row("SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'")
            .await
            .ok()?;
        (row.get::<_, i64>(0) == 1).then_some(())
    })
    .await?;
    node.freeze_wal_senders()?;
    let acknowledged = sql.run("INSERT INTO race VALUES (1)").await;
    kill(stopped, Signal::SIGCONT)?;
    acknowledged.context("PostgreSQL waits although its checkpointer has read nothing: the race is gone")
}

#[tokio::test(flavor = "multi_thread")]
async fn sync_is_not_published_while_commits_do_not_wait() -> Result<()> {
    let cluster = ClusterSpec::new("sync-race").nodes(2).start().await?;
    let primary = cluster.wait_primary(FAILOVER_LIMIT).await?;
    let node = cluster.node(primary)?;
    let stopped = checkpointer(node)?;
    kill(stopped, Signal::SIGSTOP)?;
    let patch = json!({"synchronous_mode": true});
    let answer = http::request(node.rest, Method::PATCH, "/config", Some(&patch), FAILOVER_LIMIT).await?;
    assert_eq!(answer.status, 200, "{}", answer.body);
    wait_standbys(&cluster, 0).await?;
    holds_for("nobody is named", Duration::from_secs(5), async || {
        standbys(&cluster).await.is_some_and(|names| names.is_empty())
    })
    .await?;
    node.sql().await?.run("CREATE TABLE race (id int)").await?;
    kill(stopped, Signal::SIGCONT)?;
    wait_standbys(&cluster, 1).await?;
    Ok(())
}
