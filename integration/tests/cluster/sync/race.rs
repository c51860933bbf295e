//! PostgreSQL says `sync` before it waits (reliability 6.4), with the agent and without.

use std::time::Duration;

use anyhow::{Context, Result};
use hyper::Method;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pgha_integration::cluster::ClusterSpec;
use pgha_integration::http;
use pgha_integration::node::Node;
use pgha_integration::sync_key::SyncKey;
use pgha_integration::wait::{holds_for, wait_for};
use serde_json::json;

use super::wait_standbys;
use crate::scene::FAILOVER_LIMIT;

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
        SyncKey::read(&cluster)
            .await
            .is_ok_and(|key| key.is_some_and(|k| k.standbys.is_empty()))
    })
    .await?;
    node.sql().await?.run("CREATE TABLE race (id int)").await?;
    kill(stopped, Signal::SIGCONT)?;
    wait_standbys(&cluster, 1).await?;
    Ok(())
}
