//! An old primary that went its own way comes back; a standby is made anew.

use std::time::Duration;

use anyhow::Result;
use pgha_integration::cluster::ClusterSpec;
use pgha_integration::rejoin::{Rejoin, RejoinMark};
use pgha_integration::wait::wait_for;
use serde_json::json;

use crate::scene::{HEAL_LIMIT, Scene};

#[tokio::test(flavor = "multi_thread")]
async fn a_diverged_node_is_rewound() -> Result<()> {
    let mut scene = Scene::start(ClusterSpec::new("diverged")).await?;
    let first = scene.first;
    // The client stops first: what is written from here on nobody was promised.
    scene.workload.hold().await?;
    let others = scene.cluster.others(first);
    scene
        .cluster
        .wait_caught_up(first, &others, Duration::from_secs(10))
        .await?;
    let node = scene.cluster.node(first)?;
    let senders = node.freeze_wal_senders()?;
    assert_eq!(senders, 2, "each standby has a wal sender");
    let sql = node.sql().await?;
    sql.run("CREATE TABLE pgha_astray AS SELECT generate_series(1, 1000) AS n")
        .await?;
    drop(sql);
    let mark = RejoinMark::take(&node.data_dir)?;
    scene.cluster.node_mut(first)?.kill_node()?;
    scene.workload.release();
    scene.wait_other_primary().await?;
    scene.cluster.node_mut(first)?.start()?;
    scene.cluster.wait_whole(HEAL_LIMIT).await?;
    assert_eq!(mark.compare()?, Rejoin::Rewound);
    // What went is told: in /history for good, by the node that gave it up in its metrics.
    let old = scene.cluster.node(first)?;
    let history = old.get("/history").await?.body;
    assert!(history.contains(&format!("{} had WAL from ", old.name)), "{history}");
    let metrics = old.get("/metrics").await?.body;
    let discarded = metrics
        .lines()
        .find(|l| l.starts_with("pgha_discarded_wal_bytes_total"));
    let bytes = discarded
        .and_then(|l| l.rsplit(' ').next())
        .and_then(|n| n.parse::<u64>().ok());
    assert!(bytes > Some(0), "{discarded:?}");
    for node in &scene.cluster.nodes {
        let astray: bool = node
            .sql()
            .await?
            .row("SELECT to_regclass('pgha_astray') IS NOT NULL")
            .await?
            .get(0);
        assert!(!astray, "{} keeps a table that only the old primary had", node.name);
    }
    scene.finish().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_made_anew_on_order() -> Result<()> {
    let scene = Scene::start(ClusterSpec::new("reinitialize")).await?;
    let first = scene.first;
    let standby = scene.cluster.node(scene.cluster.others(first)[0])?;
    let mark = RejoinMark::take(&standby.data_dir)?;
    let answer = standby
        .post("/reinitialize", &json!({"force": false}), Duration::from_secs(10))
        .await?;
    assert_eq!(
        (answer.status.as_u16(), answer.body.as_str()),
        (200, "reinitialize started")
    );
    wait_for("the data directory is a new copy", HEAL_LIMIT, async || {
        mark.compare().ok().filter(|rejoin| *rejoin == Rejoin::Copied)
    })
    .await?;
    let primary = scene.finish().await?;
    assert_eq!(primary, first);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_refuses_to_be_made_anew() -> Result<()> {
    let scene = Scene::start(ClusterSpec::new("reinitialize-leader")).await?;
    let first = scene.first;
    let node = scene.cluster.node(first)?;
    let before = node.postmaster_pid();
    let answer = node
        .post("/reinitialize", &json!({"force": true}), Duration::from_secs(10))
        .await?;
    assert_eq!(
        (answer.status.as_u16(), answer.body.as_str()),
        (503, "I am the leader, can not reinitialize")
    );
    assert_eq!(node.postmaster_pid(), before);
    let primary = scene.finish().await?;
    assert_eq!(primary, first);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_data_is_gone_gets_a_new_copy() -> Result<()> {
    let mut scene = Scene::start(ClusterSpec::new("data-gone")).await?;
    let first = scene.first;
    let standby = scene.cluster.others(first)[0];
    scene.cluster.node_mut(standby)?.kill_node()?;
    std::fs::remove_dir_all(&scene.cluster.node(standby)?.data_dir)?;
    scene.cluster.node_mut(standby)?.start()?;
    let primary = scene.finish().await?;
    assert_eq!(primary, first);
    Ok(())
}
