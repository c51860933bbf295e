//! The scenarios, each on a whole cluster, one after the other.

use std::time::Duration;

use anyhow::{Context, Result};
use pgha_integration::agent::Agent;
use pgha_integration::boottime;
use pgha_integration::cluster::{Cluster, ClusterSpec};
use pgha_integration::process::Usage;
use pgha_integration::workload::{Target, Workload};
use serde_json::json;

use crate::Args;
use crate::measure::{Figures, Quantity, Timings};
use crate::{rest_load, synchronous};

/// Limit of every wait; longer than Patroni's slowest recovery.
pub const LIMIT: Duration = Duration::from_secs(180);
/// The client's pause between two rows.
const PAUSE: Duration = Duration::from_millis(5);
/// Rows before and after a fault.
const ROWS: usize = 300;
/// How long the client goes on after another node has taken over from one whose agent was killed.
const AFTER_TAKEOVER: Duration = Duration::from_secs(10);
/// Length of the load on the REST API.
const LOAD: Duration = Duration::from_secs(10);
/// Connections of that load.
pub const CONNECTIONS: usize = 8;
/// Time for the cluster to come to rest before CPU time is counted.
const SETTLE: Duration = Duration::from_secs(10);

/// Measures everything that these timings are for.
pub async fn measure(agent: Agent, timings: Timings, args: &Args) -> Result<Figures> {
    let scope = format!("bench-{}-{}", agent.to_string().to_lowercase(), timings.ttl);
    eprintln!("{agent} with ttl {}, loop_wait {}", timings.ttl, timings.loop_wait);
    let spec = ClusterSpec::new(&scope)
        .agent(agent)
        .timings(timings.ttl, timings.loop_wait, timings.retry_timeout);
    let mut cluster = spec.clone().start().await?;
    let mut figures = Figures::new(agent, timings, version(agent, &cluster).await?);
    if timings == Timings::PATRONI {
        at_rest(&mut cluster, Duration::from_secs(args.rest_seconds), &mut figures).await?;
        rest_api(&cluster, &mut figures).await?;
    }
    for _ in 0..args.rounds {
        if timings == Timings::PATRONI {
            postmaster_killed(&cluster, &mut figures).await?;
            switchover(&cluster, &mut figures).await?;
            sigterm(&mut cluster, &mut figures).await?;
        }
        node_killed(&mut cluster, &mut figures).await?;
    }
    drop(cluster);
    for _ in 0..args.rounds {
        // What an unfenced node has written stays with it, so each round begins with a new cluster.
        let mut cluster = spec.clone().start().await?;
        agent_killed(&mut cluster, &mut figures).await?;
    }
    if timings == Timings::PATRONI {
        synchronous::measure(spec, args.rounds, &mut figures).await?;
    }
    Ok(figures)
}

/// pgha's REST API tells the version of Patroni that it is compatible with; its own is that of this workspace.
async fn version(agent: Agent, cluster: &Cluster) -> Result<String> {
    if agent == Agent::Pgha {
        return Ok(env!("CARGO_PKG_VERSION").to_owned());
    }
    let status = cluster.node(0)?.get("/patroni").await?.json()?;
    let version = status.pointer("/patroni/version").and_then(|version| version.as_str());
    Ok(version.unwrap_or("unknown").to_owned())
}

async fn at_rest(cluster: &mut Cluster, length: Duration, figures: &mut Figures) -> Result<()> {
    let primary = cluster.wait_whole(LIMIT).await?;
    tokio::time::sleep(SETTLE).await;
    let before = total(cluster, primary)?;
    let start = boottime::now();
    tokio::time::sleep(length).await;
    let after = total(cluster, primary)?;
    let minutes = boottime::since(start).as_secs_f64() / 60.0;
    let cpu = after.cpu.saturating_sub(before.cpu);
    figures.add(Quantity::CpuMsPerMinute, cpu.as_secs_f64() * 1000.0 / minutes);
    figures.add(Quantity::ResidentMb, count(after.resident_kb) / 1024.0);
    figures.add(Quantity::Threads, count(after.threads));
    Ok(())
}

fn total(cluster: &mut Cluster, number: usize) -> Result<Usage> {
    let usages = cluster.node_mut(number)?.agent_usage();
    anyhow::ensure!(!usages.is_empty(), "the agent does not run");
    Ok(usages.iter().fold(Usage::default(), |sum, (_, usage)| Usage {
        resident_kb: sum.resident_kb + usage.resident_kb,
        threads: sum.threads + usage.threads,
        cpu: sum.cpu + usage.cpu,
    }))
}

async fn rest_api(cluster: &Cluster, figures: &mut Figures) -> Result<()> {
    let primary = cluster.wait_whole(LIMIT).await?;
    let load = rest_load::run(cluster.node(primary)?.rest, "/primary", CONNECTIONS, LOAD).await?;
    figures.add(Quantity::RestPerSecond, load.per_second);
    figures.add(Quantity::RestP50Ms, load.p50.as_secs_f64() * 1000.0);
    figures.add(Quantity::RestP99Ms, load.p99.as_secs_f64() * 1000.0);
    Ok(())
}

/// A client that has written enough to be in full swing.
pub async fn client(cluster: &Cluster) -> Result<(usize, Workload)> {
    let primary = cluster.wait_whole(LIMIT).await?;
    let workload = Workload::start(cluster, Target::Nodes(cluster.postgres_addrs()), PAUSE).await?;
    workload.wait_acked(ROWS, LIMIT).await?;
    Ok((primary, workload))
}

/// The longest gap after `fault`, once writes have come back and the cluster is whole.
pub async fn gap(cluster: &Cluster, workload: Workload, fault: Duration) -> Result<f64> {
    cluster.wait_whole(LIMIT).await?;
    workload.wait_acked(ROWS, LIMIT).await?;
    // The row before the fault belongs to the gap.
    let from = fault.saturating_sub(Duration::from_secs(1));
    let (gap, _) = workload.ledger().longest_gap(from);
    cluster.primary_sql().await?.run("DROP TABLE pgha_rows").await.ok();
    drop(workload);
    Ok(gap.as_secs_f64())
}

async fn postmaster_killed(cluster: &Cluster, figures: &mut Figures) -> Result<()> {
    let (primary, workload) = client(cluster).await?;
    let fault = boottime::now();
    cluster.node(primary)?.kill_postmaster()?;
    workload.wait_acked(ROWS, LIMIT).await?;
    figures.add(Quantity::PostmasterKilled, gap(cluster, workload, fault).await?);
    Ok(())
}

async fn switchover(cluster: &Cluster, figures: &mut Figures) -> Result<()> {
    let (primary, workload) = client(cluster).await?;
    let node = cluster.node(primary)?;
    let candidate = cluster
        .others(primary)
        .first()
        .copied()
        .context("a cluster has standbys")?;
    let body = json!({"leader": node.name, "candidate": cluster.node(candidate)?.name});
    let fault = boottime::now();
    let answer = node.post("/switchover", &body, LIMIT).await?;
    anyhow::ensure!(
        answer.status.is_success(),
        "switchover: {} {}",
        answer.status,
        answer.body
    );
    figures.add(Quantity::Switchover, gap(cluster, workload, fault).await?);
    Ok(())
}

async fn sigterm(cluster: &mut Cluster, figures: &mut Figures) -> Result<()> {
    let (primary, workload) = client(cluster).await?;
    let fault = boottime::now();
    cluster.node_mut(primary)?.terminate(LIMIT).await?;
    workload.wait_acked(ROWS, LIMIT).await?;
    cluster.node_mut(primary)?.start()?;
    figures.add(Quantity::Sigterm, gap(cluster, workload, fault).await?);
    Ok(())
}

async fn node_killed(cluster: &mut Cluster, figures: &mut Figures) -> Result<()> {
    let (primary, workload) = client(cluster).await?;
    let fault = boottime::now();
    cluster.node_mut(primary)?.kill_node()?;
    workload.wait_acked(ROWS, LIMIT).await?;
    cluster.node_mut(primary)?.start()?;
    figures.add(Quantity::NodeKilled, gap(cluster, workload, fault).await?);
    Ok(())
}

/// The client stays with a PostgreSQL as long as it accepts writes, as real clients do.
async fn agent_killed(cluster: &mut Cluster, figures: &mut Figures) -> Result<()> {
    let (primary, workload) = client(cluster).await?;
    let fault = boottime::now();
    cluster.node_mut(primary)?.kill_agent()?;
    let others = cluster.others(primary);
    let new = cluster.wait_primary_among(&others, LIMIT).await?;
    tokio::time::sleep(AFTER_TAKEOVER).await;
    workload.hold().await?;
    let ledger = workload.ledger();
    let missing = workload.missing(cluster.node(new)?.postgres).await?;
    let (gap, _) = ledger.longest_gap(fault.saturating_sub(Duration::from_secs(1)));
    figures.add(Quantity::AgentKilledGap, gap.as_secs_f64());
    figures.add(Quantity::AgentKilledLost, missing.len() as f64);
    figures.add(Quantity::AgentKilledAcked, ledger.acked.len() as f64);
    Ok(())
}

/// Counts here are far below the 2^53 from which a float is inexact.
fn count(number: u64) -> f64 {
    number as f64
}
