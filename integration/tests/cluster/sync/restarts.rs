//! Everything stops at once and comes back in some order: whoever may lack what was acknowledged does not lead (F38).

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pgha_integration::boottime;
use pgha_integration::cluster::ClusterSpec;
use pgha_integration::sync_key::SyncKey;
use pgha_integration::wait::{holds_for, wait_for};
use serde_json::json;

use super::{number_of, settle, start, wait_standbys};
use crate::scene::{FAILOVER_LIMIT, HEAL_LIMIT, Scene, TTL};

/// Rows that a standby lacks before everything stops.
const ROWS: usize = 100;
/// How the log tells that a node is not in `/sync`.
const NOT_IN_SYNC: &str = "rule=875";
/// How the log tells that a node has not seen enough of the others.
const QUORUM_MISSING: &str = "rule=877";

/// Power is lost everywhere. The primary goes first, so that `/sync` stays as it is.
fn kill_everything(scene: &mut Scene) -> Result<()> {
    let others = scene.cluster.others(scene.first);
    for number in std::iter::once(scene.first).chain(others) {
        scene.cluster.node_mut(number)?.kill_node()?;
    }
    Ok(())
}

/// Every agent is asked to stop at the same moment. Returns what `/sync` says in the end.
async fn stop_everything(scene: &mut Scene) -> Result<SyncKey> {
    for node in &mut scene.cluster.nodes {
        node.signal_agent(Signal::SIGTERM)?;
    }
    for node in &mut scene.cluster.nodes {
        wait_for(&format!("the agent of {} ends", node.name), HEAL_LIMIT, async || {
            node.agent_exit()
        })
        .await?;
        ensure!(!node.has_postgres(), "{} is stopped", node.name);
    }
    SyncKey::read(&scene.cluster).await?.context("/sync is there")
}

/// Starts a node that must not lead, and waits until it has said why and a lease could have run out.
async fn start_one_that_does_not_lead(scene: &mut Scene, number: usize, why: &str) -> Result<()> {
    let node = scene.cluster.node_mut(number)?;
    let told = node.log_text().len();
    node.start()?;
    let node = scene.cluster.node(number)?;
    wait_for(&format!("{} says {why}", node.name), FAILOVER_LIMIT, async || {
        node.log_text().get(told..)?.contains(why).then_some(())
    })
    .await
    .with_context(|| scene.cluster.log_tails())?;
    holds_for(&format!("{} does not lead", node.name), TTL, async || {
        let leads = scene
            .cluster
            .leader_key()
            .await
            .is_ok_and(|key| key.as_ref() == Some(&node.name));
        !leads && !node.is_primary().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_stop_of_everything_only_members_of_sync_lead() -> Result<()> {
    let spec = ClusterSpec::new("sync-restarts").dcs(json!({"synchronous_mode": true}));
    let mut scene = start(spec, 1).await?;

    let key = wait_standbys(&scene.cluster, 1).await?;
    let (first, synchronous) = (scene.first, number_of(&scene.cluster, &key.standbys[0])?);
    let others = scene.cluster.others(first);
    let lagging = *others.iter().find(|n| **n != synchronous).context("three nodes")?;
    scene.cluster.node_mut(lagging)?.kill_node()?;
    scene.workload.wait_acked(ROWS, FAILOVER_LIMIT).await?;
    let begun = boottime::now();
    kill_everything(&mut scene)?;
    start_one_that_does_not_lead(&mut scene, lagging, NOT_IN_SYNC).await?;
    scene.cluster.node_mut(synchronous)?.start()?;
    scene.cluster.wait_primary_among(&[synchronous], FAILOVER_LIMIT).await?;
    scene.cluster.node_mut(first)?.start()?;
    settle(
        &mut scene,
        "on: power is lost everywhere, whoever lags comes back first",
        begun,
        1,
    )
    .await?;
    ensure!(scene.first == synchronous, "the synchronous standby leads on");

    let begun = boottime::now();
    let key = stop_everything(&mut scene).await?;
    let (members, strangers): (Vec<usize>, Vec<usize>) =
        (0..scene.cluster.nodes.len()).partition(|n| scene.cluster.nodes.get(*n).is_some_and(|n| key.has(&n.name)));
    ensure!(!strangers.is_empty(), "one node is asynchronous: {key:?}");
    for stranger in strangers {
        start_one_that_does_not_lead(&mut scene, stranger, NOT_IN_SYNC).await?;
    }
    for member in members {
        scene.cluster.node_mut(member)?.start()?;
    }
    settle(
        &mut scene,
        "on: everything is stopped, whoever is not in /sync comes back first",
        begun,
        1,
    )
    .await?;
    scene.finish().await?;
    Ok(())
}

/// Stops the wal sender of one standby: the others receive what is written from now on, and it does not.
async fn starve(scene: &Scene, standby: usize) -> Result<()> {
    let name = &scene.cluster.node(standby)?.name;
    let sql = scene.cluster.node(scene.first)?.sql().await?;
    let ask = "SELECT pid FROM pg_stat_replication WHERE application_name = $1";
    let rows = sql.query(ask, &[name]).await?;
    let pid: i32 = rows.first().with_context(|| format!("{name} streams"))?.get(0);
    Ok(kill(Pid::from_raw(pid), Signal::SIGSTOP)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_stop_of_everything_a_quorum_has_to_be_seen() -> Result<()> {
    let spec = ClusterSpec::new("sync-restarts-quorum").dcs(json!({"synchronous_mode": "quorum"}));
    let mut scene = start(spec, 2).await?;

    let first = scene.first;
    let (lagging, other) = match scene.cluster.others(first).as_slice() {
        [a, b] => (*a, *b),
        others => anyhow::bail!("two standbys, not {others:?}"),
    };
    starve(&scene, lagging).await?;
    scene.workload.wait_acked(ROWS, FAILOVER_LIMIT).await?;
    let key = wait_standbys(&scene.cluster, 2).await?;
    assert_eq!(key.quorum, 1, "both are in /sync, also the one that lags");
    let begun = boottime::now();
    kill_everything(&mut scene)?;
    start_one_that_does_not_lead(&mut scene, lagging, QUORUM_MISSING).await?;
    scene.cluster.node_mut(other)?.start()?;
    scene.cluster.wait_primary_among(&[other], FAILOVER_LIMIT).await?;
    scene.cluster.node_mut(first)?.start()?;
    settle(
        &mut scene,
        "quorum: power is lost everywhere, whoever lags comes back first",
        begun,
        2,
    )
    .await?;
    ensure!(scene.first == other, "whoever had every row leads on");

    let standbys = scene.cluster.others(scene.first);
    let begun = boottime::now();
    kill_everything(&mut scene)?;
    start_one_that_does_not_lead(&mut scene, standbys[0], QUORUM_MISSING).await?;
    let last = scene.first;
    scene.cluster.node_mut(last)?.start()?;
    // Together they know enough; both hold every row, and either may be faster.
    scene
        .cluster
        .wait_primary_among(&[standbys[0], last], FAILOVER_LIMIT)
        .await?;
    scene.cluster.node_mut(standbys[1])?.start()?;
    settle(
        &mut scene,
        "quorum: power is lost everywhere, the last leader comes back second",
        begun,
        2,
    )
    .await?;

    let begun = boottime::now();
    stop_everything(&mut scene).await?;
    let order = scene.cluster.others(scene.first);
    for number in order.into_iter().chain(std::iter::once(scene.first)) {
        scene.cluster.node_mut(number)?.start()?;
    }
    settle(
        &mut scene,
        "quorum: everything is stopped and comes back, the standbys first",
        begun,
        2,
    )
    .await?;
    scene.finish().await?;
    Ok(())
}
