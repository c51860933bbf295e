//! The primary or a synchronous standby is lost under load.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use pgha_integration::boottime;
use pgha_integration::cluster::ClusterSpec;
use pgha_integration::sync_key::SyncKey;
use pgha_integration::wait::{holds_for, wait_for};
use serde_json::json;

use super::{SYNC_LIMIT, names, number_of, settle, start, tell, wait_standbys};
use crate::scene::{FAILOVER_LIMIT, Scene};

/// How long commits are watched that must not be acknowledged.
const BLOCKED: Duration = Duration::from_secs(4);

/// A waiting commit that moves on only with its standby's next word of its own accord waits for twice as long
/// (`wal_receiver_status_interval`).
const RELEASE_LIMIT: Duration = Duration::from_secs(5);

/// How the primary is lost.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Loss {
    /// The machine loses power.
    Killed,
    /// The agent alone is stopped; PostgreSQL runs on until the fence stops it.
    AgentStopped,
}

/// The primary is lost under load; a member of `/sync` takes over, nothing is lost, the cluster heals.
async fn lose_the_primary(scene: &mut Scene, what: &str, loss: Loss, standbys: usize) -> Result<()> {
    let first = scene.first;
    let listed = wait_standbys(&scene.cluster, standbys).await?;
    let begun = boottime::now();
    let lost = scene.cluster.node_mut(first)?;
    match loss {
        Loss::Killed => lost.kill_node()?,
        Loss::AgentStopped => lost.freeze_agent()?,
    }
    let new = scene.wait_other_primary().await?;
    let name = &scene.cluster.node(new)?.name;
    ensure!(listed.has(name), "{name} was not among {listed:?}");
    let lost = scene.cluster.node_mut(first)?;
    match loss {
        Loss::Killed => lost.start()?,
        Loss::AgentStopped => lost.thaw_agent()?,
    }
    settle(scene, what, begun, standbys).await?;
    ensure!(scene.first == new, "whoever comes back joins as a standby");
    Ok(())
}

/// A standby that `/sync` names loses power under load and stays away until the client writes again.
async fn lose_a_standby(scene: &mut Scene, what: &str, standbys: usize, left: usize) -> Result<()> {
    let before = wait_standbys(&scene.cluster, standbys).await?;
    let lost = before.standbys.first().context("/sync names somebody")?;
    let number = number_of(&scene.cluster, lost)?;
    let begun = boottime::now();
    scene.cluster.node_mut(number)?.kill_node()?;
    wait_for("/sync names the others only", SYNC_LIMIT, async || {
        let key = SyncKey::read(&scene.cluster).await.ok()??;
        (!key.has(lost) && key.standbys.len() == left).then_some(())
    })
    .await
    .with_context(|| scene.cluster.log_tails())?;
    scene.workload.wait_acked(100, FAILOVER_LIMIT).await?;
    tell(scene, what, begun);
    scene.cluster.node_mut(number)?.start()?;
    let leader = scene.first;
    settle(scene, "the standby comes back", begun, standbys).await?;
    ensure!(
        scene.first == leader,
        "the loss of a standby is no reason to move the primary"
    );
    Ok(())
}

/// Nobody else writes while a commit waits for a standby that is lost: it is acknowledged as soon as another is waited for.
async fn a_waiting_commit_goes_on(scene: &mut Scene) -> Result<()> {
    let before = wait_standbys(&scene.cluster, 1).await?;
    let number = number_of(&scene.cluster, &before.standbys[0])?;
    scene.workload.hold().await?;
    let sql = scene.cluster.node(scene.first)?.sql().await?;
    sql.run("CREATE TABLE waiting (id int)").await?;
    scene.cluster.node_mut(number)?.kill_node()?;
    let begun = boottime::now();
    let insert = sql.execute("INSERT INTO waiting VALUES (1)", &[]);
    tokio::time::timeout(RELEASE_LIMIT, insert)
        .await
        .context("the commit waits on although another standby is synchronous")??;
    ensure!(!sql.sync_wait_was_cancelled(), "the commit was released, not given up");
    let after = wait_standbys(&scene.cluster, 1).await?;
    ensure!(
        after.standbys != before.standbys,
        "another standby is synchronous: {after:?}"
    );
    println!("on: a commit that waited went on after {:.2?}", boottime::since(begun));
    scene.workload.release();
    scene.cluster.node_mut(number)?.start()
}

/// The wal receiver of the synchronous standby is stopped: to everybody it streams, as when the network between the two
/// machines is cut, and it answers no more. The other standby takes its place (F04).
async fn a_silent_standby_is_replaced(scene: &mut Scene) -> Result<()> {
    let before = wait_standbys(&scene.cluster, 1).await?;
    let number = number_of(&scene.cluster, &before.standbys[0])?;
    let node = scene.cluster.node(number)?;
    let receiver = node.processes().into_iter().find(|p| p.title.contains("walreceiver"));
    let receiver = receiver
        .with_context(|| format!("{} has no wal receiver", node.name))?
        .pid;
    let begun = boottime::now();
    kill(receiver, Signal::SIGSTOP)?;
    wait_for("the other standby is in /sync", SYNC_LIMIT, async || {
        let key = SyncKey::read(&scene.cluster).await.ok()??;
        (key.standbys.len() == 1 && key.standbys != before.standbys).then_some(())
    })
    .await
    .with_context(|| scene.cluster.log_tails())?;
    scene.workload.wait_acked(100, FAILOVER_LIMIT).await?;
    kill(receiver, Signal::SIGCONT)?;
    settle(scene, "on: the synchronous standby answers no more", begun, 1).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_synchronous_standby_takes_over_with_every_row() -> Result<()> {
    let spec = ClusterSpec::new("sync-on").dcs(json!({"synchronous_mode": true}));
    let mut scene = start(spec, 1).await?;
    lose_the_primary(&mut scene, "on: the primary is killed", Loss::Killed, 1).await?;
    lose_the_primary(&mut scene, "on: the primary's agent is stopped", Loss::AgentStopped, 1).await?;
    lose_a_standby(&mut scene, "on: the synchronous standby is killed", 1, 1).await?;
    a_silent_standby_is_replaced(&mut scene).await?;
    a_waiting_commit_goes_on(&mut scene).await?;
    scene.finish().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_synchronous_standbys_are_both_waited_for() -> Result<()> {
    let mode = json!({"synchronous_mode": true, "synchronous_node_count": 2});
    let mut scene = start(ClusterSpec::new("sync-two").dcs(mode), 2).await?;
    let others = scene.cluster.others(scene.first);
    let expected: Vec<&str> = others.iter().map(|n| scene.cluster.nodes[*n].name.as_str()).collect();
    let expected = format!("2 ({})", expected.join(","));
    let primary = scene.cluster.node(scene.first)?;
    wait_for("the list has the form that people expect", SYNC_LIMIT, async || {
        names(primary).await.ok().filter(|n| *n == expected)
    })
    .await?;
    lose_the_primary(&mut scene, "two of two: the primary is killed", Loss::Killed, 2).await?;
    lose_a_standby(&mut scene, "two of two: a standby is killed", 2, 1).await?;
    scene.finish().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn in_quorum_mode_whoever_saw_enough_of_the_others_takes_over() -> Result<()> {
    let spec = ClusterSpec::new("sync-quorum").dcs(json!({"synchronous_mode": "quorum"}));
    let mut scene = start(spec, 2).await?;
    let key = wait_standbys(&scene.cluster, 2).await?;
    assert_eq!(
        key.quorum, 1,
        "a commit is on one of two: a candidate has to see the other"
    );
    lose_the_primary(&mut scene, "quorum: the primary is killed", Loss::Killed, 2).await?;
    lose_the_primary(
        &mut scene,
        "quorum: the primary's agent is stopped",
        Loss::AgentStopped,
        2,
    )
    .await?;
    lose_a_standby(&mut scene, "quorum: a standby is killed", 2, 1).await?;
    scene.finish().await?;
    Ok(())
}

/// Nothing is acknowledged for a while. What is under way when the fault comes may still be.
async fn nothing_is_acknowledged(scene: &Scene) -> Result<()> {
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = scene.workload.ledger().acked.len();
    holds_for("no commit is acknowledged", BLOCKED, async || {
        scene.workload.ledger().acked.len() == before
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn strict_mode_acknowledges_nothing_alone() -> Result<()> {
    let mode = json!({"synchronous_mode": true, "synchronous_mode_strict": true});
    let mut scene = start(ClusterSpec::new("sync-strict").nodes(2).dcs(mode), 1).await?;
    let (first, second) = (scene.first, scene.cluster.others(scene.first)[0]);

    let begun = boottime::now();
    scene.cluster.node_mut(second)?.kill_node()?;
    nothing_is_acknowledged(&scene).await?;
    assert_ne!(names(scene.cluster.node(first)?).await?, "", "somebody is waited for");
    assert!(
        scene.cluster.node(first)?.says("/primary").await,
        "it leads all the same"
    );
    scene.cluster.node_mut(second)?.start()?;
    settle(&mut scene, "strict: the standby is killed and comes back", begun, 1).await?;
    assert_eq!(scene.first, first);

    let begun = boottime::now();
    scene.cluster.node_mut(first)?.kill_node()?;
    scene.cluster.wait_primary_among(&[second], FAILOVER_LIMIT).await?;
    nothing_is_acknowledged(&scene).await?;
    scene.cluster.node_mut(first)?.start()?;
    settle(&mut scene, "strict: the primary is killed and comes back", begun, 1).await?;
    assert_eq!(scene.first, second);
    scene.finish().await?;
    Ok(())
}
