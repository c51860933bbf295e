//! In pause a person is in charge: the agent neither promotes nor starts nor stops PostgreSQL, and the fence is lifted.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hyper::Method;
use pgha_integration::cluster::{Cluster, ClusterSpec};
use pgha_integration::http;
use pgha_integration::wait::{holds_for, wait_for};
use serde_json::json;

use crate::scene::{FAILOVER_LIMIT, Scene, TTL};

#[tokio::test(flavor = "multi_thread")]
async fn in_pause_postgresql_outlives_its_agent() -> Result<()> {
    let mut scene = Scene::start(ClusterSpec::new("pause-agent-killed")).await?;
    let first = scene.first;
    set_pause(&scene.cluster, true).await?;
    let before = scene.cluster.node(first)?.postmaster_pid().context("PostgreSQL runs")?;
    scene.cluster.node_mut(first)?.kill_agent()?;
    let node = scene.cluster.node(first)?;
    holds_for("the primary writes on and nobody else promotes", TTL * 2, async || {
        node.postmaster_pid() == Some(before) && scene.cluster.primaries().await == [first]
    })
    .await?;
    scene.cluster.node_mut(first)?.start()?;
    scene.cluster.wait_primary_among(&[first], FAILOVER_LIMIT).await?;
    set_pause(&scene.cluster, false).await?;
    let node = scene.cluster.node(first)?;
    holds_for("the adopted PostgreSQL runs on after the pause", TTL * 2, async || {
        node.postmaster_pid() == Some(before)
    })
    .await?;
    let primary = scene.finish().await?;
    assert_eq!(primary, first);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn in_pause_a_dead_postgresql_stays_dead() -> Result<()> {
    let scene = Scene::start(ClusterSpec::new("pause-postmaster-killed").quorum_commit()).await?;
    set_pause(&scene.cluster, true).await?;
    scene.cluster.node(scene.first)?.kill_postmaster()?;
    let node = scene.cluster.node(scene.first)?;
    wait_for("PostgreSQL is gone", Duration::from_secs(10), async || {
        (!node.has_postgres()).then_some(())
    })
    .await?;
    holds_for("nobody starts or promotes anything", TTL * 2, async || {
        !node.has_postgres() && scene.cluster.primaries().await.is_empty()
    })
    .await?;
    set_pause(&scene.cluster, false).await?;
    scene.finish().await?;
    Ok(())
}

/// Changes the mode by the REST API of any node and waits until every node with a living agent has seen it.
async fn set_pause(cluster: &Cluster, on: bool) -> Result<()> {
    let patch = json!({"pause": if on { json!(true) } else { json!(null) }});
    let node = cluster.node(0)?;
    let answer = http::request(
        node.rest,
        Method::PATCH,
        "/config",
        Some(&patch),
        Duration::from_secs(10),
    )
    .await?;
    ensure!(
        answer.status.is_success(),
        "PATCH /config answers {}: {}",
        answer.status,
        answer.body
    );
    for node in &cluster.nodes {
        wait_for(
            &format!("{} has seen pause = {on}", node.name),
            FAILOVER_LIMIT,
            async || {
                let status = node.get("/patroni").await.ok()?.json().ok()?;
                (status["pause"].as_bool().unwrap_or(false) == on).then_some(())
            },
        )
        .await?;
    }
    Ok(())
}
