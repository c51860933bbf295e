//! PostgreSQL dies under a live agent; a whole node dies.

use anyhow::Result;
use pgha_integration::cluster::ClusterSpec;

use crate::scene::Scene;

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_postmaster_is_started_again_and_nothing_is_lost() -> Result<()> {
    let scene = Scene::start(ClusterSpec::new("postmaster-killed")).await?;
    let node = scene.cluster.node(scene.first)?;
    let before = node.postmaster_pid();
    node.kill_postmaster()?;
    scene.workload.wait_acked(100, crate::scene::FAILOVER_LIMIT).await?;
    assert_ne!(
        scene.cluster.node(scene.first)?.postmaster_pid(),
        before,
        "the old postmaster is gone"
    );
    scene.finish().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_standby_postmaster_is_started_again() -> Result<()> {
    let scene = Scene::start(ClusterSpec::new("standby-postmaster-killed")).await?;
    let first = scene.first;
    let standby = scene.cluster.others(first)[0];
    scene.cluster.node(standby)?.kill_postmaster()?;
    let primary = scene.finish().await?;
    assert_eq!(primary, first, "a standby's trouble is no reason to move the primary");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_node_is_replaced_and_comes_back() -> Result<()> {
    let mut scene = Scene::start(ClusterSpec::new("node-killed").quorum_commit()).await?;
    let first = scene.first;
    scene.cluster.node_mut(first)?.kill_node()?;
    let new = scene.wait_other_primary().await?;
    scene.cluster.node_mut(first)?.start()?;
    let primary = scene.finish().await?;
    assert_eq!(primary, new, "the node that comes back joins as a standby");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_killed_nodes_in_a_row_lose_nothing() -> Result<()> {
    let mut scene = Scene::start(ClusterSpec::new("two-nodes-killed").quorum_commit()).await?;
    let first = scene.first;
    scene.cluster.node_mut(first)?.kill_node()?;
    let second = scene.wait_other_primary().await?;
    scene.cluster.node_mut(first)?.start()?;
    scene.cluster.wait_whole(crate::scene::HEAL_LIMIT).await?;
    scene.cluster.node_mut(second)?.kill_node()?;
    scene.first = second;
    scene.wait_other_primary().await?;
    scene.cluster.node_mut(second)?.start()?;
    scene.finish().await?;
    Ok(())
}
