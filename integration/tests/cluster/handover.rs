//! Planned changes of the primary: nothing may be lost, whatever the mode.

use std::time::Duration;

use anyhow::{Context, Result};
use pgha_integration::cluster::ClusterSpec;
use pgha_integration::rejoin::{Rejoin, RejoinMark};
use pgha_integration::wait::wait_for;
use serde_json::json;

use crate::scene::{FAILOVER_LIMIT, HEAL_LIMIT, Scene};

/// An order such as a switchover answers when it is carried out.
const ORDER_LIMIT: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_hands_over_and_ends_well() -> Result<()> {
    let mut scene = Scene::start(ClusterSpec::new("sigterm")).await?;
    let first = scene.first;
    let status = scene.cluster.node_mut(first)?.terminate(FAILOVER_LIMIT).await?;
    assert_eq!(status.code(), Some(0), "an orderly stop is a success");
    assert!(
        !scene.cluster.node(first)?.has_postgres(),
        "PostgreSQL was stopped with its agent"
    );
    scene.wait_other_primary().await?;
    scene.cluster.node_mut(first)?.start()?;
    scene.finish().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn switchover_there_and_back_again() -> Result<()> {
    let scene = Scene::start(ClusterSpec::new("switchover")).await?;
    let first = scene.first;
    let second = scene.cluster.others(first)[0];
    switch(&scene, first, second).await?;
    switch(&scene, second, first).await?;
    let primary = scene.finish().await?;
    assert_eq!(primary, first);
    Ok(())
}

async fn switch(scene: &Scene, from: usize, to: usize) -> Result<()> {
    let old = scene.cluster.node(from)?;
    let new = scene.cluster.node(to)?;
    let mark = RejoinMark::take(&old.data_dir)?;
    let answer = old
        .post(
            "/switchover",
            &json!({"leader": old.name, "candidate": new.name}),
            ORDER_LIMIT,
        )
        .await?;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.body, format!("Successfully switched over to \"{}\"", new.name));
    let primary = scene.cluster.wait_whole(HEAL_LIMIT).await?;
    assert_eq!(primary, to, "the candidate leads");
    assert_eq!(
        mark.compare()?,
        Rejoin::AsItWas,
        "a planned handover leaves nothing to rewind"
    );
    scene
        .workload
        .wait_acked(100, FAILOVER_LIMIT)
        .await
        .with_context(|| scene.cluster.log_tails())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switchover_to_nobody_is_refused_and_changes_nothing() -> Result<()> {
    let scene = Scene::start(ClusterSpec::new("switchover-refused")).await?;
    let first = scene.first;
    let node = scene.cluster.node(first)?;
    for body in [
        json!({"leader": node.name, "candidate": "nobody"}),
        json!({"leader": "nobody", "candidate": scene.cluster.node(scene.cluster.others(first)[0])?.name}),
        json!({"leader": node.name, "candidate": node.name}),
        json!({}),
        json!(["not", "an", "object"]),
    ] {
        let answer = node.post("/switchover", &body, ORDER_LIMIT).await?;
        assert!(
            answer.status.is_client_error(),
            "{body} is answered {} {}",
            answer.status,
            answer.body
        );
    }
    let primary = scene.finish().await?;
    assert_eq!(primary, first);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_on_order_keeps_the_primary() -> Result<()> {
    let scene = Scene::start(ClusterSpec::new("restart")).await?;
    let first = scene.first;
    let node = scene.cluster.node(first)?;
    let before = node.postmaster_pid().context("PostgreSQL runs")?;
    let answer = node.post("/restart", &json!({}), ORDER_LIMIT).await?;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_ne!(node.postmaster_pid(), Some(before), "there is a new postmaster");
    let primary = scene.finish().await?;
    assert_eq!(primary, first);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_parameter_reaches_every_node() -> Result<()> {
    let scene = Scene::start(ClusterSpec::new("parameters")).await?;
    let first = scene.first;
    scene.cluster.set_parameter("work_mem", "5MB").await?;
    let node = scene.cluster.node(first)?;
    let patch = json!({"postgresql": {"parameters": {"max_connections": 120}}});
    let answer =
        pgha_integration::http::request(node.rest, hyper::Method::PATCH, "/config", Some(&patch), ORDER_LIMIT).await?;
    assert_eq!(answer.status, 200, "{}", answer.body);
    wait_for("max_connections waits for a restart", FAILOVER_LIMIT, async || {
        let status = node.get("/patroni").await.ok()?.json().ok()?;
        status["pending_restart"].as_bool().filter(|pending| *pending)
    })
    .await?;
    let primary = scene.finish().await?;
    assert_eq!(primary, first);
    Ok(())
}
