//! The data directory: its copy is watched, its mode is checked, and an absent mount is not an empty directory.

use std::fs::{Permissions, rename, set_permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pgha_integration::cluster::{BOOT_LIMIT, Cluster, ClusterSpec};
use pgha_integration::node::Node;
use pgha_integration::wait::{holds_for, wait_for};
use serde_json::{Value, json};

use crate::scene::{FAILOVER_LIMIT, HEAL_LIMIT};

/// How soon something shows.
const SEEN_LIMIT: Duration = Duration::from_secs(10);
/// Keys that hold a cluster together.
const KEYS: [&str; 6] = ["leader", "initialize", "config", "status", "history", "failover"];

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_is_copied_in_sight_and_used_only_as_it_should_be() -> Result<()> {
    // A bound of the bandwidth, so that the copy takes long enough to be seen.
    let spec = ClusterSpec::new("data-dir").nodes(2).local(json!({
        "postgresql": {"basebackup": [{"checkpoint": "fast"}, {"max-rate": "6M"}]}}));
    let mut cluster = spec.prepare().await?;
    cluster.node_mut(0)?.start()?;
    cluster.wait_primary_among(&[0], BOOT_LIMIT).await?;
    cluster.node_mut(1)?.start()?;
    progress_is_shown(cluster.node(1)?).await?;
    cluster.wait_whole(BOOT_LIMIT).await?;

    a_wrong_mode_is_told(&mut cluster).await?;
    a_missing_mount_is_not_filled(&mut cluster).await
}

async fn progress_is_shown(node: &Node) -> Result<()> {
    let mut percents = Vec::new();
    wait_for("the copy is more than half done", BOOT_LIMIT, async || {
        let status = status(node).await.ok()?;
        let job = status["pgha"]["job"].as_str()?;
        let percent: u32 = job.strip_suffix(" %")?.rsplit(' ').next()?.parse().ok()?;
        assert_eq!(status["state"], json!("creating replica"), "{status}");
        if percents.last() != Some(&percent) {
            percents.push(percent);
        }
        (percent > 50).then_some(())
    })
    .await?;
    ensure!(
        percents.len() > 1 && percents.is_sorted(),
        "the progress grows in several steps: {percents:?}"
    );
    ensure!(
        node.log_text().contains("pg_basebackup"),
        "the log tells of the copy:\n{}",
        node.log_text()
    );
    Ok(())
}

async fn a_wrong_mode_is_told(cluster: &mut Cluster) -> Result<()> {
    // Under a running server it is a warning, given once.
    let node = cluster.node(0)?;
    mode(node, 0o755)?;
    wait_for("the log warns of the mode", SEEN_LIMIT, async || {
        (node.log_text().contains("has mode 0755")).then_some(())
    })
    .await?;
    holds_for("the primary goes on", Duration::from_secs(3), async || {
        node.is_primary().await
    })
    .await?;
    let warnings = node.log_text().matches("has mode 0755").count();
    ensure!(warnings == 1, "it is said {warnings} times");
    mode(node, 0o700)?;

    // PostgreSQL would not start with it, so it is not tried; a person who mends it needs to do no more.
    cluster.node_mut(1)?.terminate(FAILOVER_LIMIT).await?;
    mode(cluster.node(1)?, 0o755)?;
    cluster.node_mut(1)?.start()?;
    let node = cluster.node(1)?;
    wait_decision(node, "has mode 0755 and PostgreSQL demands 0700 or 0750").await?;
    holds_for("nothing is started or removed", Duration::from_secs(2), async || {
        !node.has_postgres() && node.data_dir.join("PG_VERSION").exists()
    })
    .await?;
    ensure!(
        node.log_text().contains("chmod 0700"),
        "the log tells what to do:\n{}",
        node.log_text()
    );
    mode(node, 0o750)?;
    cluster.wait_whole(HEAL_LIMIT).await.map(drop)
}

/// Even when etcd has forgotten the cluster too. The note of the mount, which the agent wrote while the cluster was
/// there, is changed instead of mounting something, since that takes more rights than a test has.
async fn a_missing_mount_is_not_filled(cluster: &mut Cluster) -> Result<()> {
    for number in [1, 0] {
        cluster.node_mut(number)?.terminate(FAILOVER_LIMIT).await?;
        let node = cluster.node(number)?;
        let note = node.dir.join("data.pgha/pgha.mount");
        ensure!(note.exists(), "{} remembers its mount", node.name);
        cluster
            .scratch()
            .write(&note, &format!("{}\n", node.data_dir.display()))?;
        rename(&node.data_dir, node.dir.join("away"))?;
        let empty = cluster.scratch().dir(&format!("{}/data", node.name))?;
        set_permissions(empty, Permissions::from_mode(0o700))?;
    }
    for key in KEYS {
        cluster.etcd.delete(&cluster.key(key)).await?;
    }
    for number in [0, 1] {
        cluster.node_mut(number)?.start()?;
    }
    for node in &cluster.nodes {
        wait_decision(node, "is missing").await?;
    }
    holds_for("nobody makes a new cluster", Duration::from_secs(4), async || {
        let unclaimed = cluster
            .etcd
            .get(&cluster.key("initialize"))
            .await
            .is_ok_and(|key| key.is_none());
        let empty = |node: &Node| std::fs::read_dir(&node.data_dir).is_ok_and(|mut dir| dir.next().is_none());
        unclaimed && cluster.nodes.iter().all(empty)
    })
    .await?;

    // The mounts come back.
    for node in &cluster.nodes {
        std::fs::remove_dir(&node.data_dir)?;
        rename(node.dir.join("away"), &node.data_dir)?;
    }
    cluster.wait_whole(HEAL_LIMIT).await.map(drop)
}

fn mode(node: &Node, mode: u32) -> Result<()> {
    set_permissions(&node.data_dir, Permissions::from_mode(mode)).context("chmod")
}

async fn status(node: &Node) -> Result<Value> {
    node.get("/patroni").await?.json()
}

/// Waits until log and status say so.
async fn wait_decision(node: &Node, says: &str) -> Result<()> {
    wait_for(
        &format!("the status of {} says {says:?}", node.name),
        SEEN_LIMIT,
        async || {
            let status = status(node).await.ok()?;
            let told = status["pgha"]["decision"].as_str()?.contains(says);
            (told && node.log_text().contains(says)).then_some(())
        },
    )
    .await
    .with_context(|| node.log_text())
}
