//! Hand-broken values in every key of a running cluster: a clear line in the log for each, and PostgreSQL goes on.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::unistd::Pid;
use pgha_integration::cluster::{Cluster, ClusterSpec};
use pgha_integration::node::{Facts, Node};
use pgha_integration::wait::{holds_for, wait_for};
use serde_json::{Value, json};

use crate::scene::{FAILOVER_LIMIT, Scene, TTL};

/// How soon something shows.
const SEEN_LIMIT: Duration = Duration::from_secs(10);
/// How long PostgreSQL is watched after every agent has told of a broken value and decided something with it.
const STAY: Duration = Duration::from_millis(800);

/// Keys with broken values. The first of each is tried alone, the others together with those of the other keys.
const BROKEN: &[(&str, &[&str])] = &[
    ("config", &["{\"ttl\": 5", "[]", ""]),
    ("initialize", &["not a system identifier", "{}", "-1"]),
    ("status", &["{]", "\"x\"", "{\"optime\": \"far\"}"]),
    ("history", &["{}", "[[1]]", "nothing"]),
    ("sync", &["[", "{\"leader\": 5}", "\u{1}"]),
    ("failover", &["{\"leader\": {}}", "[1, 2]", "{\"member\": \"pg"]),
    ("failsafe", &["{{", "[\"pg1\"]", "5"]),
    ("members/pg1", &["", "{", "[]"]),
    ("members/pg2", &["postgres://", "{\"conn_url\": 5}", "null"]),
    ("members/stranger", &["{\"role\": 7", "7", "\u{0}"]),
];
/// Values of each key.
const ROUNDS: usize = 3;

/// What must not change.
#[derive(Debug, PartialEq)]
struct Postgres {
    postmaster: Option<Pid>,
    facts: Option<Facts>,
}

async fn look(cluster: &Cluster) -> Vec<Postgres> {
    let mut found = Vec::new();
    for node in &cluster.nodes {
        found.push(Postgres {
            postmaster: node.postmaster_pid(),
            facts: node.facts().await,
        });
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_keys_are_told_and_change_nothing() -> Result<()> {
    let mut scene = Scene::start(ClusterSpec::new("broken-keys").nodes(2)).await?;
    // The second timeline gives /history something to say.
    let (old, new) = (scene.first, scene.cluster.others(scene.first)[0]);
    let order = json!({"leader": scene.cluster.node(old)?.name});
    let answer = scene
        .cluster
        .node(old)?
        .post("/switchover", &order, FAILOVER_LIMIT)
        .await?;
    ensure!(answer.status == 200, "{}", answer.body);
    assert_eq!(scene.cluster.wait_whole(FAILOVER_LIMIT).await?, new);
    scene.first = new;
    scene.workload.wait_acked(100, FAILOVER_LIMIT).await?;
    wait_key(&scene.cluster, "history", |value| value.is_some()).await?;

    let before = look(&scene.cluster).await;
    let mut failed = Vec::new();
    let alone = BROKEN.iter().map(|(key, values)| vec![(*key, values[0])]);
    let together = (1..ROUNDS).map(|round| BROKEN.iter().map(|(key, values)| (*key, values[round])).collect());
    for broken in alone.chain(together) {
        if let Err(error) = break_and_delete(&scene.cluster, &broken, &before).await {
            failed.push(format!("{broken:?}: {error:#}"));
        }
    }
    ensure!(
        failed.is_empty(),
        "{}\n{}",
        failed.join("\n"),
        scene.cluster.log_tails()
    );
    wrong_types_in_config_are_told(&scene.cluster, &before).await?;
    no_panic(&scene.cluster)?;

    the_leader_key_is_overwritten(&scene).await?;
    no_panic(&scene.cluster)?;
    scene.finish().await?;
    Ok(())
}

/// Writes broken values, waits until every agent has told of them, deletes the keys and waits until they are restored.
async fn break_and_delete(cluster: &Cluster, broken: &[(&str, &str)], before: &[Postgres]) -> Result<()> {
    let told = |log: &str, key: &str| {
        let told = format!("{} cannot be understood", cluster.key(key));
        log.matches(&told).count()
    };
    let counts: Vec<Vec<usize>> = cluster
        .nodes
        .iter()
        .map(|node| broken.iter().map(|(key, _)| told(&node.log_text(), key)).collect())
        .collect();
    for (key, value) in broken {
        cluster.etcd.put(&cluster.key(key), value).await?;
    }
    for (node, counts) in cluster.nodes.iter().zip(counts) {
        for ((key, _), count) in broken.iter().zip(counts) {
            // The owner of a member key and the writer of /status mend it, perhaps before the others looked.
            if key.starts_with("members/pg") || *key == "status" {
                continue;
            }
            let what = format!("{} says that it cannot read {key}", node.name);
            wait_for(&what, SEEN_LIMIT, async || {
                (told(&node.log_text(), key) > count).then_some(())
            })
            .await?;
        }
    }
    undisturbed(cluster, before).await?;
    for (key, _) in broken {
        cluster.etcd.delete(&cluster.key(key)).await?;
    }
    for (key, _) in broken {
        wait_restored(cluster, key).await?;
    }
    ensure!(look(cluster).await == before, "PostgreSQL is not as before");
    Ok(())
}

async fn wait_restored(cluster: &Cluster, key: &str) -> Result<()> {
    match key {
        "config" => wait_key(cluster, key, |v| is_json(v, |v| v["ttl"] == json!(5))).await,
        "initialize" => wait_key(cluster, key, |v| is_json(v, Value::is_u64)).await,
        "status" => wait_key(cluster, key, |v| is_json(v, |v| v["optime"].is_u64())).await,
        "history" => wait_key(cluster, key, |v| is_json(v, |v| v[0][0] == json!(1))).await,
        key if key.starts_with("members/pg") => {
            wait_key(cluster, key, |v| is_json(v, |v| v["state"] == json!("running"))).await
        }
        // What nobody needs stays away.
        _ => Ok(()),
    }
}

async fn undisturbed(cluster: &Cluster, before: &[Postgres]) -> Result<()> {
    let result = holds_for("PostgreSQL goes on as before", STAY, async || {
        look(cluster).await == before
    })
    .await;
    if result.is_err() {
        let now = look(cluster).await;
        return result.with_context(|| format!("it is {now:?} now and was {before:?}"));
    }
    Ok(())
}

/// JSON of the right form with a setting of the wrong type: the others count, and the wrong one is named.
async fn wrong_types_in_config_are_told(cluster: &Cluster, before: &[Postgres]) -> Result<()> {
    let path = cluster.key("config");
    let good = cluster.etcd.get(&path).await?.context("the key was restored")?;
    let mut broken: Value = serde_json::from_str(&good)?;
    broken["retry_timeout"] = json!("soon");
    cluster.etcd.put(&path, &broken.to_string()).await?;
    for node in &cluster.nodes {
        wait_for(&format!("{} names the setting", node.name), SEEN_LIMIT, async || {
            node.log_text().contains("retry_timeout").then_some(())
        })
        .await?;
    }
    undisturbed(cluster, before).await?;
    cluster.etcd.put(&path, &good).await
}

/// Whoever writes over the leader key takes leadership away. The primary stops by its deadline, and nobody promotes
/// while the key stands.
async fn the_leader_key_is_overwritten(scene: &Scene) -> Result<()> {
    for value in ["", "!! not a member !!"] {
        let tries = |node: &Node| node.log_text().matches("purpose=AcquireLeaderKey").count();
        let before: usize = scene.cluster.nodes.iter().map(tries).sum();
        scene.cluster.etcd.put(&scene.cluster.key("leader"), value).await?;
        wait_for("no node accepts writes", TTL + Duration::from_secs(2), async || {
            scene.cluster.primaries().await.is_empty().then_some(())
        })
        .await?;
        holds_for("nobody promotes", Duration::from_secs(2), async || {
            scene.cluster.primaries().await.is_empty()
        })
        .await?;
        let after: usize = scene.cluster.nodes.iter().map(tries).sum();
        ensure!(
            after <= before + 2,
            "a key that is there was tried to be taken {} times",
            after - before
        );
        scene.cluster.etcd.delete(&scene.cluster.key("leader")).await?;
        scene.cluster.wait_whole(FAILOVER_LIMIT).await?;
        scene.workload.wait_acked(100, FAILOVER_LIMIT).await?;
    }
    Ok(())
}

async fn wait_key(cluster: &Cluster, key: &str, good: impl Fn(Option<&str>) -> bool) -> Result<()> {
    let path = cluster.key(key);
    wait_for(&format!("{path} is right again"), SEEN_LIMIT, async || {
        let value = cluster.etcd.get(&path).await.ok()?;
        good(value.as_deref()).then_some(())
    })
    .await
}

fn is_json(text: Option<&str>, good: impl Fn(&Value) -> bool) -> bool {
    text.and_then(|text| serde_json::from_str(text).ok())
        .is_some_and(|value| good(&value))
}

fn no_panic(cluster: &Cluster) -> Result<()> {
    for node in &cluster.nodes {
        ensure!(!node.log_text().contains("panicked"), "{} panicked", node.name);
    }
    Ok(())
}
