//! Starting the cluster, with progress.

use std::time::Duration;

use anyhow::Result;
use pgha_integration::cluster::{BOOT_LIMIT, Cluster, ClusterSpec};
use pgha_integration::node::Node;
use pgha_integration::{boottime, programs};

use crate::console::Console;

/// How often the nodes are asked what they do.
const LOOK: Duration = Duration::from_millis(200);

/// Starts everything and waits until the cluster is whole.
pub async fn boot(spec: ClusterSpec, console: &Console) -> Result<Cluster> {
    let start = boottime::now();
    let agent = spec.agent;
    let etcd = console.step("etcd");
    etcd.show("starting");
    let mut cluster = spec.prepare().await?;
    let endpoints: Vec<String> = cluster.etcd.endpoints().iter().map(ToString::to_string).collect();
    etcd.done(&format!("answers at {}", endpoints.join(", ")));
    let scratch = cluster.scratch();
    console.line(&format!(
        "scratch directory {} (user {}), PostgreSQL from {}",
        scratch.path().display(),
        scratch.user().name(),
        programs::postgres_bin()?.display()
    ));
    if let Some(haproxy) = &cluster.haproxy {
        console.step("HAProxy").done(&format!(
            "read-write {}, read-only {}, statistics http://{}/",
            haproxy.read_write, haproxy.read_only, haproxy.statistics
        ));
    }
    for node in &mut cluster.nodes {
        node.start()?;
    }
    let primary = watch_until_whole(&cluster, console).await?;
    let first = cluster.node(primary)?;
    let took = boottime::since(start).as_secs_f64();
    console.line(&format!(
        "{} nodes of {agent} are up after {took:.1} s; {} leads",
        cluster.nodes.len(),
        first.name
    ));
    Ok(cluster)
}

async fn watch_until_whole(cluster: &Cluster, console: &Console) -> Result<usize> {
    let steps: Vec<_> = cluster
        .nodes
        .iter()
        .map(|node| (node, console.step(&node.name)))
        .collect();
    let whole = cluster.wait_whole(BOOT_LIMIT);
    tokio::pin!(whole);
    let mut tick = tokio::time::interval(LOOK);
    let primary = loop {
        tokio::select! {
            whole = &mut whole => break whole?,
            _ = tick.tick() => {
                for (node, step) in &steps {
                    step.show(&doing(node).await);
                }
            }
        }
    };
    for (number, (node, step)) in steps.iter().enumerate() {
        let role = if number == primary {
            "primary"
        } else {
            "standby, streaming"
        };
        step.done(&format!(
            "{role}; PostgreSQL {}, REST http://{}/",
            node.postgres, node.rest
        ));
    }
    Ok(primary)
}

async fn doing(node: &Node) -> String {
    let Ok(status) = node.get("/patroni").await.and_then(|answer| answer.json()) else {
        return "the agent starts".to_owned();
    };
    let text = |key: &str| {
        status
            .get(key)
            .and_then(|value| value.as_str())
            .unwrap_or("unknown")
            .to_owned()
    };
    format!("{}, {}", text("state"), text("role"))
}
