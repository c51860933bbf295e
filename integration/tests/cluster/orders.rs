//! Orders of operators: restarts with conditions, what is scheduled, changed parameters.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hyper::Method;
use pgha_integration::cluster::{Cluster, ClusterSpec};
use pgha_integration::http::{self, Answer};
use pgha_integration::node::Node;
use pgha_integration::wait::{holds_for, wait_for};
use serde_json::{Value, json};

use crate::ctl::says;
use crate::scene::{FAILOVER_LIMIT, HEAL_LIMIT, Scene};

/// An order such as a restart answers when it is carried out.
const ORDER_LIMIT: Duration = Duration::from_secs(60);
/// How soon a change shows.
const SEEN_LIMIT: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_happens_only_under_its_conditions() -> Result<()> {
    let scene = Scene::start(ClusterSpec::new("restarts").nodes(2)).await?;
    let (primary, standby) = (scene.first, scene.cluster.others(scene.first)[0]);
    let cluster = &scene.cluster;
    let node = cluster.node(standby)?;

    let before = started(node).await?;
    for condition in [
        json!({"role": "primary"}),
        json!({"postgres_version": "10.0"}),
        json!({"restart_pending": true}),
        json!({"role": "replica", "postgres_version": "10.0"}),
    ] {
        let answer = node.post("/restart", &condition, ORDER_LIMIT).await?;
        assert_eq!(
            (answer.status.as_u16(), answer.body.as_str()),
            (503, "restart conditions are not satisfied"),
            "{condition}"
        );
    }
    assert_eq!(started(node).await?, before, "a refused restart changes nothing");

    let met = json!({"role": "replica", "postgres_version": "99.1", "timeout": "20"});
    restart(node, &met).await?;
    assert_ne!(started(node).await?, before, "PostgreSQL was restarted");

    scheduled_restarts(cluster, standby, primary).await?;
    assert_eq!(scene.finish().await?, primary, "restarts are no failovers");
    Ok(())
}

async fn scheduled_restarts(cluster: &Cluster, standby: usize, primary: usize) -> Result<()> {
    let node = cluster.node(standby)?;
    let before = started(node).await?;
    let far = json!({"schedule": time(node, 3600).await?});
    expect(
        &node.post("/restart", &far, ORDER_LIMIT).await?,
        202,
        "Restart scheduled",
    )?;
    let again = node.post("/restart", &far, ORDER_LIMIT).await?;
    expect(&again, 409, "Another restart is already scheduled")?;
    assert!(status(node).await?["scheduled_restart"]["schedule"].is_string());
    let leader = cluster.node(primary)?;
    wait_for("the cluster's table shows the schedule", SEEN_LIMIT, async || {
        member(leader, &node.name).await.ok()?["scheduled_restart"]
            .is_object()
            .then_some(())
    })
    .await?;
    let delete = async || http::request(node.rest, Method::DELETE, "/restart", None, ORDER_LIMIT).await;
    expect(&delete().await?, 200, "scheduled restart deleted")?;
    expect(&delete().await?, 404, "no restarts are scheduled")?;
    assert!(status(node).await?["scheduled_restart"].is_null());

    // Both are due at once; only the one whose condition holds happens.
    let other = json!({"schedule": time(leader, 2).await?, "role": "replica"});
    let leader_before = started(leader).await?;
    expect(
        &leader.post("/restart", &other, ORDER_LIMIT).await?,
        202,
        "Restart scheduled",
    )?;
    let soon = json!({"schedule": time(node, 2).await?, "role": "replica"});
    expect(
        &node.post("/restart", &soon, ORDER_LIMIT).await?,
        202,
        "Restart scheduled",
    )?;
    wait_for("the scheduled restart happens", FAILOVER_LIMIT, async || {
        (started(node).await.ok()? != before).then_some(())
    })
    .await?;
    for node in [node, leader] {
        wait_for("what was scheduled is forgotten", FAILOVER_LIMIT, async || {
            status(node).await.ok()?["scheduled_restart"].is_null().then_some(())
        })
        .await?;
    }
    ensure!(
        started(leader).await? == leader_before,
        "the primary was restarted although the schedule asked for a replica"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switchover_can_be_scheduled_and_taken_back() -> Result<()> {
    let scene = Scene::start(ClusterSpec::new("scheduled-switchover").nodes(2)).await?;
    let (first, second) = (scene.first, scene.cluster.others(scene.first)[0]);
    let (leader, candidate) = (scene.cluster.node(first)?, scene.cluster.node(second)?);

    let at = time(leader, 3600).await?;
    let order = json!({"leader": leader.name, "candidate": candidate.name, "scheduled_at": at});
    expect(
        &leader.post("/switchover", &order, ORDER_LIMIT).await?,
        202,
        "Switchover scheduled",
    )?;
    let shown = candidate.get("/cluster").await?.json()?;
    assert_eq!(shown["scheduled_switchover"]["to"], json!(candidate.name), "{shown}");
    let table = says(&scene.cluster, &["list"]).await?;
    assert!(table.contains("Switchover scheduled at: "), "{table}");
    // Any member takes it back.
    let delete = async || http::request(candidate.rest, Method::DELETE, "/switchover", None, ORDER_LIMIT).await;
    expect(&delete().await?, 200, "scheduled switchover deleted")?;
    expect(&delete().await?, 404, "no switchover is scheduled")?;

    let at = time(leader, 3).await?;
    let args = [
        "switchover",
        "--leader",
        &leader.name,
        "--candidate",
        &candidate.name,
        "--scheduled",
        &at,
        "--force",
    ];
    says(&scene.cluster, &args).await?;
    assert!(leader.is_primary().await, "it is not due yet");
    scene.cluster.wait_primary_among(&[second], FAILOVER_LIMIT).await?;
    assert!(
        leader.log_text().contains("Awaiting switchover in "),
        "the leader's log tells what it waits for"
    );
    assert_eq!(scene.finish().await?, second);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_change_by_a_reload_and_what_needs_a_restart_says_so() -> Result<()> {
    let mut scene = Scene::start(ClusterSpec::new("parameters").nodes(2)).await?;
    let (first, second) = (scene.first, scene.cluster.others(scene.first)[0]);

    scene.cluster.set_parameter("work_mem", "6MB").await?;

    // The file of one node: one parameter by a reload, one by a restart.
    scene
        .cluster
        .node_mut(second)?
        .configure(&json!({"postgresql": {"parameters": {
        "log_min_duration_statement": "1234ms", "shared_buffers": "20MB"}}}))?;
    let node = scene.cluster.node(second)?;
    expect(
        &node.post("/reload", &json!({}), ORDER_LIMIT).await?,
        202,
        "reload scheduled",
    )?;
    wait_shown(node, "log_min_duration_statement", "1234ms").await?;
    let reason = wait_pending(node).await?;
    assert_eq!(reason["shared_buffers"]["new_value"], json!("20MB"), "{reason}");
    assert_eq!(reason["shared_buffers"]["old_value"], json!("16MB"), "{reason}");
    let seen = SEEN_LIMIT;
    wait_for("pgha-ctl list shows it", seen, async || {
        pending_in_list(&scene, &node.name).await.then_some(())
    })
    .await?;
    assert_eq!(show(node, "shared_buffers").await?, "16MB");

    // A file with an error changes nothing.
    let good = std::fs::read_to_string(&node.config)?;
    let broken = good.replace("\"1234ms\"", "[1234ms").replace("\"20MB\"", "\"24MB\"");
    scene.cluster.scratch().write(&node.config, &broken)?;
    node.post("/reload", &json!({}), ORDER_LIMIT).await?;
    wait_for("the log says that the file is broken", SEEN_LIMIT, async || {
        node.log_text()
            .contains("the configuration was not reloaded")
            .then_some(())
    })
    .await?;
    assert_eq!(wait_pending(node).await?["shared_buffers"]["new_value"], json!("20MB"));
    scene.cluster.scratch().write(&node.config, &good)?;

    restart(node, &json!({"restart_pending": true})).await?;
    wait_no_pending(node).await?;
    assert_eq!(show(node, "shared_buffers").await?, "20MB");
    wait_for("pgha-ctl list shows it no more", SEEN_LIMIT, async || {
        (!pending_in_list(&scene, &node.name).await).then_some(())
    })
    .await?;

    // The dynamic configuration: a parameter that all nodes must agree on.
    let patch = json!({"postgresql": {"parameters": {"max_connections": 110}}});
    let answer = http::request(node.rest, Method::PATCH, "/config", Some(&patch), ORDER_LIMIT).await?;
    ensure!(answer.status == 200, "{} {}", answer.status, answer.body);
    for node in &scene.cluster.nodes {
        let reason = wait_pending(node).await?;
        assert_eq!(
            reason["max_connections"],
            json!({"old_value": "100", "new_value": "110"}),
            "{reason}"
        );
        let leader = scene.cluster.node(first)?;
        wait_for("the cluster's table shows it", SEEN_LIMIT, async || {
            (member(leader, &node.name).await.ok()?["pending_restart"] == json!(true)).then_some(())
        })
        .await?;
    }
    // A standby never has fewer connections than its primary: it goes first.
    for number in [second, first] {
        let node = scene.cluster.node(number)?;
        restart(node, &json!({"restart_pending": true})).await?;
        wait_no_pending(node).await?;
        assert_eq!(show(node, "max_connections").await?, "110");
    }
    assert_eq!(scene.finish().await?, first);
    Ok(())
}

async fn restart(node: &Node, condition: &Value) -> Result<()> {
    let answer = node.post("/restart", condition, ORDER_LIMIT).await?;
    expect(&answer, 200, "restarted successfully")
}

fn expect(answer: &Answer, status: u16, body: &str) -> Result<()> {
    ensure!(
        answer.status == status && answer.body == body,
        "{status} {body:?} was expected, not {} {:?}",
        answer.status,
        answer.body
    );
    Ok(())
}

async fn status(node: &Node) -> Result<Value> {
    node.get("/patroni").await?.json()
}

/// The start of the postmaster, as PostgreSQL tells it.
async fn started(node: &Node) -> Result<String> {
    Ok(node
        .sql()
        .await?
        .row("SELECT pg_postmaster_start_time()::text")
        .await?
        .get(0))
}

/// That many seconds from now, as ISO 8601.
async fn time(node: &Node, seconds: u32) -> Result<String> {
    let ask = format!(
        "SELECT to_char((now() + interval '{seconds} s') AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US') || '+00:00'"
    );
    Ok(node.sql().await?.row(&ask).await?.get(0))
}

async fn show(node: &Node, parameter: &str) -> Result<String> {
    Ok(node.sql().await?.row(&format!("SHOW {parameter}")).await?.get(0))
}

async fn wait_shown(node: &Node, parameter: &str, value: &str) -> Result<()> {
    wait_for(
        &format!("{} has {parameter} = {value}", node.name),
        SEEN_LIMIT,
        async || (show(node, parameter).await.ok()? == value).then_some(()),
    )
    .await
}

/// The node's row in the cluster's table.
async fn member(asked: &Node, name: &str) -> Result<Value> {
    let table = asked.get("/cluster").await?.json()?;
    let members = table["members"].as_array().context("a list of members")?;
    let found = members.iter().find(|row| row["name"] == json!(name));
    found.cloned().with_context(|| format!("{name} is a member"))
}

/// Waits until a restart is pending and returns the reason.
async fn wait_pending(node: &Node) -> Result<Value> {
    wait_for(
        &format!("{} says that a restart is pending", node.name),
        SEEN_LIMIT,
        async || {
            let status = status(node).await.ok()?;
            (status["pending_restart"] == json!(true)).then(|| status["pending_restart_reason"].clone())
        },
    )
    .await
}

async fn wait_no_pending(node: &Node) -> Result<()> {
    wait_for(
        &format!("no restart of {} is pending any more", node.name),
        HEAL_LIMIT,
        async || {
            let status = status(node).await.ok()?;
            (status["state"] == json!("running") && status["pending_restart"].is_null()).then_some(())
        },
    )
    .await?;
    holds_for("it stays so", Duration::from_secs(1), async || {
        status(node)
            .await
            .is_ok_and(|status| status["pending_restart"].is_null())
    })
    .await
}

/// Whether `pgha-ctl list` marks that node.
async fn pending_in_list(scene: &Scene, name: &str) -> bool {
    let Ok(text) = says(&scene.cluster, &["list", "-f", "json"]).await else {
        return false;
    };
    let rows: Value = serde_json::from_str(&text).unwrap_or_default();
    rows.as_array().into_iter().flatten().any(|row| {
        row["Member"] == json!(name)
            && row["Pending restart"]
                .as_str()
                .is_some_and(|mark| !mark.trim().is_empty())
    })
}
