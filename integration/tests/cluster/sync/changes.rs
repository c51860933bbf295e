//! The mode changes under load.

use anyhow::{Context, Result, ensure};
use hyper::Method;
use pgha_integration::boottime;
use pgha_integration::cluster::{Cluster, ClusterSpec};
use pgha_integration::http;
use pgha_integration::sync_key::SyncKey;
use pgha_integration::wait::wait_for;
use serde_json::{Value, json};

use super::{SYNC_LIMIT, names, settle, start, tell};
use crate::scene::{FAILOVER_LIMIT, Scene};

/// A mode, and what it looks like on three nodes once it is reached.
struct Mode {
    what: &'static str,
    patch: Value,
    /// Standbys in `/sync` and its quorum; `None` when there is no `/sync`.
    sync: Option<(usize, u64)>,
    /// `synchronous_standby_names`, for these standbys.
    names: fn(&[String]) -> String,
}

impl Mode {
    /// Whether `/sync` and PostgreSQL are where they shall be.
    async fn is_reached(&self, cluster: &Cluster, primary: usize) -> Result<bool> {
        let key = SyncKey::read(cluster).await?;
        let in_force = names(cluster.node(primary)?).await?;
        let leader = cluster.leader_key().await?;
        Ok(match (self.sync, &key) {
            (None, None) => in_force.is_empty(),
            (Some(wanted), Some(key)) => {
                (key.standbys.len(), key.quorum) == wanted
                    && key.leader == leader
                    && in_force == (self.names)(&key.standbys)
            }
            (None, Some(_)) | (Some(_), None) => false,
        })
    }

    async fn order(&self, cluster: &Cluster) -> Result<()> {
        let node = cluster.node(0)?;
        let answer = http::request(node.rest, Method::PATCH, "/config", Some(&self.patch), FAILOVER_LIMIT).await?;
        ensure!(answer.status == 200, "{} {}", answer.status, answer.body);
        Ok(())
    }

    async fn wait_reached(&self, cluster: &Cluster, primary: usize) -> Result<()> {
        wait_for(&format!("{} is reached", self.what), SYNC_LIMIT, async || {
            self.is_reached(cluster, primary).await.ok()?.then_some(())
        })
        .await
        .with_context(|| cluster.log_tails())
    }
}

/// Commits go on through the change.
async fn change(scene: &mut Scene, mode: &Mode) -> Result<()> {
    let begun = boottime::now();
    mode.order(&scene.cluster).await?;
    mode.wait_reached(&scene.cluster, scene.first).await?;
    scene.workload.wait_acked(100, FAILOVER_LIMIT).await?;
    tell(scene, mode.what, begun);
    Ok(())
}

/// The primary loses power as soon as the change is ordered.
async fn change_and_kill(scene: &mut Scene, mode: &Mode, standbys: usize) -> Result<()> {
    let (first, begun) = (scene.first, boottime::now());
    mode.order(&scene.cluster).await?;
    scene.cluster.node_mut(first)?.kill_node()?;
    scene.wait_other_primary().await?;
    scene.cluster.node_mut(first)?.start()?;
    settle(
        scene,
        &format!("{}, and the primary is killed", mode.what),
        begun,
        standbys,
    )
    .await?;
    mode.wait_reached(&scene.cluster, scene.first).await
}

fn any_of(num: usize, names: &[String]) -> String {
    format!("ANY {num} ({})", names.join(","))
}

const ON: fn() -> Mode = || Mode {
    what: "on",
    patch: json!({"synchronous_mode": true, "synchronous_node_count": 1}),
    sync: Some((1, 0)),
    names: |names| names.join(","),
};

const TWO: fn() -> Mode = || Mode {
    what: "on with two",
    patch: json!({"synchronous_mode": true, "synchronous_node_count": 2}),
    sync: Some((2, 0)),
    names: |names| format!("2 ({})", names.join(",")),
};

const QUORUM: fn() -> Mode = || Mode {
    what: "quorum",
    patch: json!({"synchronous_mode": "quorum", "synchronous_node_count": 1}),
    sync: Some((2, 1)),
    names: |names| any_of(1, names),
};

#[tokio::test(flavor = "multi_thread")]
async fn the_mode_changes_under_load() -> Result<()> {
    let mut scene = Scene::start(ClusterSpec::new("sync-changes")).await?;
    let quorum_of_two = Mode {
        what: "quorum with two",
        patch: json!({"synchronous_node_count": 2}),
        sync: Some((2, 0)),
        names: |names| any_of(2, names),
    };
    let strict = Mode {
        what: "on, strict",
        patch: json!({"synchronous_mode": true, "synchronous_mode_strict": true, "synchronous_node_count": 1}),
        sync: Some((1, 0)),
        names: |names| names.join(","),
    };
    let off = Mode {
        what: "off",
        patch: json!({"synchronous_mode": false, "synchronous_mode_strict": null}),
        sync: None,
        names: |_| String::new(),
    };
    for mode in [ON(), TWO(), ON(), QUORUM(), quorum_of_two, QUORUM(), strict, off] {
        change(&mut scene, &mode).await?;
    }
    scene.finish().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_primary_is_killed_while_the_mode_changes() -> Result<()> {
    let spec = ClusterSpec::new("sync-changes-killed").dcs(json!({"synchronous_mode": true}));
    let mut scene = start(spec, 1).await?;
    change_and_kill(&mut scene, &QUORUM(), 2).await?;
    change_and_kill(&mut scene, &TWO(), 2).await?;
    change_and_kill(&mut scene, &ON(), 1).await?;
    scene.finish().await?;
    Ok(())
}
