//! What people, load balancers and monitoring are told about synchronous standbys, and what a switchover does with them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hyper::Method;
use pgha_integration::cluster::{Cluster, ClusterSpec};
use pgha_integration::http;
use pgha_integration::node::Node;
use pgha_integration::sync_key::SyncKey;
use pgha_integration::wait::wait_for;
use serde_json::{Value, json};

use super::{SYNC_LIMIT, number_of, start, wait_standbys};
use crate::ctl::says;
use crate::scene::{FAILOVER_LIMIT, HEAL_LIMIT};

/// Limit of an order that is answered when it is carried out.
const ORDER_LIMIT: Duration = Duration::from_secs(60);

/// What a node is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Standing {
    Leader,
    Sync,
    Quorum,
    Replica,
}

use Standing::{Leader, Quorum, Replica, Sync};

/// The health checks, and whose answer is 200; everybody else's is 503.
const CHECKS: [(&str, &[Standing]); 12] = [
    ("/primary", &[Leader]),
    ("/replica", &[Sync, Quorum, Replica]),
    ("/sync", &[Sync]),
    ("/synchronous", &[Sync]),
    ("/quorum", &[Quorum]),
    ("/async", &[Replica]),
    ("/asynchronous", &[Replica]),
    ("/read-only", &[Leader, Sync, Quorum, Replica]),
    ("/read-only-sync", &[Leader, Sync]),
    ("/read-only-synchronous", &[Leader, Sync]),
    ("/read-only-quorum", &[Leader, Quorum]),
    ("/health", &[Leader, Sync, Quorum, Replica]),
];

impl Standing {
    /// In `GET /cluster`.
    fn role(self) -> &'static str {
        match self {
            Leader => "leader",
            Sync => "sync_standby",
            Quorum => "quorum_standby",
            Replica => "replica",
        }
    }

    /// In `pgha-ctl list`.
    fn title(self) -> &'static str {
        match self {
            Leader => "Leader",
            Sync => "Sync Standby",
            Quorum => "Quorum Standby",
            Replica => "Replica",
        }
    }

    /// In `pg_stat_replication`, as `GET /patroni` of the leader has it.
    fn sync_state(self) -> &'static str {
        match self {
            Leader | Replica => "async",
            Sync => "sync",
            Quorum => "quorum",
        }
    }
}

/// Compares everything that tells about one node.
async fn check_node(node: &Node, standing: Standing) -> Result<()> {
    let what = format!("{} is {standing:?}", node.name);
    for (path, good) in CHECKS {
        let expected = if good.contains(&standing) { 200 } else { 503 };
        for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
            let answer = http::request(node.rest, method.clone(), path, None, FAILOVER_LIMIT).await?;
            ensure!(
                answer.status == expected,
                "{what}: {method} {path} answers {}",
                answer.status
            );
        }
    }
    let status = node.get("/patroni").await?.json()?;
    let flag = |wanted| (standing == wanted).then_some(true);
    ensure!(status["sync_standby"].as_bool() == flag(Sync), "{what}: {status}");
    ensure!(status["quorum_standby"].as_bool() == flag(Quorum), "{what}: {status}");
    let metrics = node.get("/metrics").await?.body;
    for (series, wanted) in [
        ("patroni_primary", Leader),
        ("patroni_sync_standby", Sync),
        ("patroni_quorum_standby", Quorum),
    ] {
        let sample = metrics.lines().find(|line| line.starts_with(&format!("{series}{{")));
        let value = sample
            .and_then(|line| line.rsplit(' ').next())
            .with_context(|| series.to_owned())?;
        ensure!(
            value == if standing == wanted { "1" } else { "0" },
            "{what}: {sample:?}"
        );
    }
    Ok(())
}

/// Compares everything that tells about all nodes at once.
async fn check_tables(cluster: &Cluster, standings: &[Standing]) -> Result<()> {
    let listed: Value = serde_json::from_str(&says(cluster, &["list", "-f", "json"]).await?)?;
    for (asked, node) in cluster.nodes.iter().enumerate() {
        let shown = node.get("/cluster").await?.json()?;
        let senders = node.get("/patroni").await?.json()?["replication"].clone();
        for (node, standing) in cluster.nodes.iter().zip(standings) {
            let row = |table: &Value, key: &str| {
                let rows = table.as_array().into_iter().flatten();
                rows.clone()
                    .find(|row| row[key] == json!(node.name))
                    .cloned()
                    .unwrap_or_default()
            };
            let (there, in_list) = (row(&shown["members"], "name"), row(&listed, "Member"));
            ensure!(there["role"] == json!(standing.role()), "{standing:?}: {there}");
            ensure!(in_list["Role"] == json!(standing.title()), "{standing:?}: {in_list}");
            if standings.get(asked) == Some(&Leader) && *standing != Leader {
                let sender = row(&senders, "application_name");
                ensure!(
                    sender["sync_state"] == json!(standing.sync_state()),
                    "{standing:?}: {sender}"
                );
            }
        }
    }
    Ok(())
}

/// Waits until everything tells the same, and fails with the last difference.
async fn wait_shown(cluster: &Cluster, standings: &[Standing]) -> Result<()> {
    let mut last = Ok(());
    let agreed = wait_for(&format!("everybody says {standings:?}"), SYNC_LIMIT, async || {
        last = check(cluster, standings).await;
        last.is_ok().then_some(())
    })
    .await;
    last.and(agreed)
}

async fn check(cluster: &Cluster, standings: &[Standing]) -> Result<()> {
    for (node, standing) in cluster.nodes.iter().zip(standings) {
        check_node(node, *standing).await?;
    }
    check_tables(cluster, standings).await
}

/// The leader, and what everybody else is by `/sync`.
async fn standings(cluster: &Cluster, listed: Standing) -> Result<Vec<Standing>> {
    let key = SyncKey::read(cluster).await?;
    let leader = cluster.leader_key().await?;
    let standing = |node: &Node| match &key {
        _ if leader.as_ref() == Some(&node.name) => Leader,
        Some(key) if key.standbys.contains(&node.name) => listed,
        Some(_) | None => Replica,
    };
    Ok(cluster.nodes.iter().map(standing).collect())
}

async fn patch(cluster: &Cluster, patch: Value) -> Result<()> {
    let node = cluster.node(0)?;
    let answer = http::request(node.rest, Method::PATCH, "/config", Some(&patch), ORDER_LIMIT).await?;
    ensure!(answer.status == 200, "{} {}", answer.status, answer.body);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn synchronous_standbys_are_told_as_such_and_take_over_on_order() -> Result<()> {
    let spec = ClusterSpec::new("sync-shown").dcs(json!({"synchronous_mode": true}));
    let scene = start(spec, 1).await?;
    let cluster = &scene.cluster;

    let on = standings(cluster, Sync).await?;
    wait_shown(cluster, &on).await?;

    // A switchover goes to the synchronous standby and to nobody else.
    let (leader, asynchronous) = (cluster.node(scene.first)?, on.iter().position(|s| *s == Replica));
    let asynchronous = cluster.node(asynchronous.context("one of two is asynchronous")?)?;
    let order = json!({"leader": leader.name, "candidate": asynchronous.name});
    let refused = leader.post("/switchover", &order, ORDER_LIMIT).await?;
    assert_eq!(
        (refused.status.as_u16(), refused.body.as_str()),
        (412, "candidate name does not match with sync_standby")
    );
    let key = wait_standbys(cluster, 1).await?;
    let order = json!({"leader": leader.name});
    let done = leader.post("/switchover", &order, ORDER_LIMIT).await?;
    assert_eq!(
        done.body,
        format!("Successfully switched over to \"{}\"", key.standbys[0])
    );
    let second = cluster.wait_whole(HEAL_LIMIT).await?;
    assert_eq!(second, number_of(cluster, &key.standbys[0])?);

    // A failover may name an asynchronous node: a person has decided, and here it lacks nothing.
    let key = wait_standbys(cluster, 1).await?;
    let third = cluster
        .others(second)
        .into_iter()
        .find(|n| !key.has(&cluster.nodes[*n].name));
    let third = third.context("one of two is asynchronous")?;
    scene.workload.hold().await?;
    cluster.wait_caught_up(second, &[third], FAILOVER_LIMIT).await?;
    says(
        cluster,
        &["failover", "--candidate", &cluster.node(third)?.name, "--force"],
    )
    .await?;
    assert_eq!(cluster.wait_whole(HEAL_LIMIT).await?, third);
    scene.workload.release();
    wait_standbys(cluster, 1).await?;
    wait_shown(cluster, &standings(cluster, Sync).await?).await?;

    patch(cluster, json!({"synchronous_mode": "quorum"})).await?;
    wait_standbys(cluster, 2).await?;
    let quorum = standings(cluster, Quorum).await?;
    assert_eq!(quorum.iter().filter(|s| **s == Quorum).count(), 2);
    wait_shown(cluster, &quorum).await?;

    patch(cluster, json!({"synchronous_mode": false})).await?;
    wait_for("/sync is gone", SYNC_LIMIT, async || {
        SyncKey::read(cluster).await.ok()?.is_none().then_some(())
    })
    .await?;
    wait_shown(cluster, &standings(cluster, Replica).await?).await?;
    scene.finish().await?;
    Ok(())
}
