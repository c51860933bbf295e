//! etcd goes away, wholly or in part.

use std::time::Duration;

use anyhow::Result;
use pgha_integration::cluster::ClusterSpec;
use pgha_integration::wait::{holds_for, wait_for};

use crate::scene::{Scene, TTL};

#[tokio::test(flavor = "multi_thread")]
async fn without_etcd_nobody_is_primary_and_with_it_the_cluster_heals() -> Result<()> {
    let mut scene = Scene::start(ClusterSpec::new("etcd-stopped").quorum_commit()).await?;
    scene.cluster.etcd.stop_all().await?;
    wait_for("no node accepts writes", TTL + Duration::from_secs(5), async || {
        scene.cluster.primaries().await.is_empty().then_some(())
    })
    .await?;
    holds_for("no node accepts writes", TTL, async || {
        scene.cluster.primaries().await.is_empty()
    })
    .await?;
    scene.cluster.etcd.start_all()?;
    scene.cluster.etcd.wait_ready().await?;
    scene.finish().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_absence_of_etcd_goes_unnoticed() -> Result<()> {
    let mut scene = Scene::start(ClusterSpec::new("etcd-blink").timings(20, 1, 5)).await?;
    let first = scene.first;
    scene.cluster.etcd.stop_all().await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    scene.cluster.etcd.start_all()?;
    let node = scene.cluster.node(first)?;
    holds_for("the primary stays", TTL * 2, async || node.is_primary().await).await?;
    let primary = scene.finish().await?;
    assert_eq!(primary, first);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn any_one_of_three_etcd_members_may_die() -> Result<()> {
    let mut scene = Scene::start(ClusterSpec::new("etcd-members").etcd_members(3).timings(10, 1, 3)).await?;
    let first = scene.first;
    for member in 0..3 {
        scene.cluster.etcd.kill(member)?;
        let node = scene.cluster.node(first)?;
        // Longer than the lease: it has to be renewed through the members that are left.
        holds_for("the primary stays", Duration::from_secs(11), async || {
            node.is_primary().await
        })
        .await?;
        scene.cluster.etcd.start_all()?;
        scene.cluster.etcd.wait_ready().await?;
    }
    let primary = scene.finish().await?;
    assert_eq!(primary, first);
    Ok(())
}
