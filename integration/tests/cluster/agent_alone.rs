//! The agent is lost and PostgreSQL is not: here the fence has to stop PostgreSQL before another node may promote.

use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use pgha_integration::boottime;
use pgha_integration::cluster::ClusterSpec;
use pgha_integration::wait::{holds_for, wait_for};

use crate::scene::{FAILOVER_LIMIT, Scene, TTL};

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_agent_takes_its_postgresql_along_by_the_deadline() -> Result<()> {
    let mut scene = Scene::start(ClusterSpec::new("agent-killed").quorum_commit()).await?;
    let first = scene.first;
    let killed = boottime::now();
    scene.cluster.node_mut(first)?.kill_agent()?;
    let node = scene.cluster.node(first)?;
    wait_for(
        "the fence has stopped PostgreSQL",
        TTL + Duration::from_secs(1),
        async || (!node.has_postgres()).then_some(()),
    )
    .await?;
    assert!(
        boottime::since(killed) < TTL + Duration::from_secs(1),
        "the lease began before the kill and lasts {TTL:?}"
    );
    scene.wait_other_primary().await?;
    scene.cluster.node_mut(first)?.start()?;
    scene.finish().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_agent_is_fenced_and_wakes_up_as_a_standby() -> Result<()> {
    let mut scene = Scene::start(ClusterSpec::new("agent-frozen").quorum_commit()).await?;
    let first = scene.first;
    scene.cluster.node_mut(first)?.freeze_agent()?;
    let new = scene.wait_other_primary().await?;
    assert!(
        !scene.cluster.node(first)?.is_primary().await,
        "the frozen agent's PostgreSQL accepts no writes any more"
    );
    scene.cluster.node_mut(first)?.thaw_agent()?;
    let primary = scene.finish().await?;
    assert_eq!(primary, new, "the agent that slept through the election respects it");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_agent_finds_its_postgresql_running_on() -> Result<()> {
    let mut scene = Scene::start(ClusterSpec::new("agent-restarted").quorum_commit()).await?;
    let first = scene.first;
    let before = scene.cluster.node(first)?.postmaster_pid().context("PostgreSQL runs")?;
    scene.cluster.node_mut(first)?.kill_agent()?;
    scene.cluster.node_mut(first)?.start()?;
    let node = scene.cluster.node(first)?;
    wait_for("the new agent says it is the primary", TTL, async || {
        node.says("/primary").await.then_some(())
    })
    .await?;
    holds_for("PostgreSQL runs on under the new agent", TTL * 2, async || {
        node.postmaster_pid() == Some(before) && node.has_postgres()
    })
    .await?;
    let primary = scene.finish().await?;
    assert_eq!(primary, first, "a restart of the agent is no failover");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_fence_takes_postgresql_along_and_the_cluster_heals() -> Result<()> {
    let scene = Scene::start(ClusterSpec::new("fence-killed").quorum_commit()).await?;
    let node = scene.cluster.node(scene.first)?;
    let before = node.postmaster_pid().context("PostgreSQL runs")?;
    let fences: Vec<_> = node
        .processes()
        .into_iter()
        .filter(|found| found.program == "pgha-fence")
        .collect();
    assert!(!fences.is_empty(), "PostgreSQL runs under a fence");
    for fence in fences {
        kill(fence.pid, Signal::SIGKILL)?;
    }
    wait_for(
        "the postmaster has died with its parent",
        Duration::from_secs(3),
        async || node.processes().iter().all(|found| found.pid != before).then_some(()),
    )
    .await?;
    scene.workload.wait_acked(100, FAILOVER_LIMIT).await?;
    scene.finish().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_without_its_agent_does_not_trouble_the_primary() -> Result<()> {
    let mut scene = Scene::start(ClusterSpec::new("standby-agent-killed")).await?;
    let first = scene.first;
    let standby = scene.cluster.others(first)[0];
    scene.cluster.node_mut(standby)?.kill_agent()?;
    let node = scene.cluster.node(first)?;
    holds_for("the primary stays", TTL * 2, async || node.is_primary().await).await?;
    scene.cluster.node_mut(standby)?.start()?;
    let primary = scene.finish().await?;
    assert_eq!(primary, first);
    Ok(())
}
