//! Injects the faults of scenario files into a real cluster, and takes them back.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use hyper::Method;
use nix::sys::signal::{Signal, kill};
use nix::sys::statvfs::statvfs;
use nix::unistd::Pid;
use pgha_sim::plan::{PlannedFault, Target};
use serde_json::{Value, json};

use super::cgroup::Group;
use crate::cluster::{BOOT_LIMIT, Cluster};
use crate::http;
use crate::netns::{Drop, Way};
use crate::node::Node;
use crate::programs;
use crate::sql::Sql;
use crate::wait::wait_for;

/// Limit of an order to the REST API.
const ORDER_LIMIT: Duration = Duration::from_secs(30);
/// While this file is there, archive_command hangs; seen from the data directory.
pub const ARCHIVE_HANGS: &str = "../archive.hangs";

/// A fault under way, and what ends it.
pub enum Active {
    /// Nothing does: it happened.
    Over,
    /// Packets flow again.
    Dropped(Dropped),
    /// The same, and this member of etcd sees the others again.
    Isolated(Dropped, usize),
    /// The agent is started again.
    Down(usize),
    /// These processes go on.
    Stopped(Vec<Pid>),
    /// The agent goes on.
    AgentStopped(usize),
    /// The node thaws or has its processor back.
    Grouped(Group),
    /// This member of etcd goes on.
    EtcdStopped(usize),
    /// What is down of etcd is started.
    EtcdDown,
    /// The alarm of etcd is taken back.
    EtcdFull,
    /// The file that takes the space, or makes others wait, is removed.
    File(PathBuf),
    /// The tracer lets go.
    Traced(Child),
    /// The connection closes.
    Locked(Sql),
    /// Maintenance mode ends.
    Paused,
}

/// Who leads, or led last: in the middle of a hand-over the key is nobody's for a moment.
#[derive(Debug, Default)]
pub struct Led(Option<usize>);

/// Which node a target means now.
async fn resolve(cluster: &Cluster, target: Option<Target>, led: &mut Led) -> Result<usize> {
    if let Some(Target::Node(number)) = target {
        return Ok(number);
    }
    if let Some(name) = cluster.leader_key().await? {
        let found = cluster.nodes.iter().position(|node| node.name == name);
        led.0 = Some(found.with_context(|| format!("the leader {name} is no node"))?);
    }
    let leader = led.0.context("nobody leads")?;
    match target {
        Some(Target::Standby) => cluster
            .others(leader)
            .first()
            .copied()
            .context("there is one node only"),
        Some(Target::Synchronous) => {
            let text = cluster
                .etcd
                .get(&cluster.key("sync"))
                .await?
                .context("there is no /sync")?;
            let key: Value = serde_json::from_str(&text).context("/sync")?;
            let names = key["sync_standby"].as_str().unwrap_or_default();
            let first = names.split(',').next().unwrap_or_default();
            let found = cluster.nodes.iter().position(|node| node.name == first);
            found.context("/sync names nobody")
        }
        Some(Target::Leader | Target::Node(_)) | None => Ok(leader),
    }
}

/// Begins a fault.
pub async fn begin(cluster: &mut Cluster, fault: &PlannedFault, led: &mut Led) -> Result<Active> {
    let node = match fault.node {
        None => 0,
        target => resolve(cluster, target, led).await?,
    };
    let number = usize::try_from(fault.number.unwrap_or(0)).unwrap_or(0);
    // Members of etcd are counted from 1 in files.
    let member = number.saturating_sub(1);
    let both: &[Way] = &[Way::In, Way::Out];
    match fault.kind.form {
        "cut NODE from etcd" => drop_packets(cluster, node, &cluster.etcd.ips(), both, None),
        "deafen NODE to etcd" => drop_packets(cluster, node, &cluster.etcd.ips(), &[Way::In], None),
        "cut NODE from peers" => drop_packets(cluster, node, &peers(cluster, node), both, None),
        "cut rest of NODE" => {
            let port = Some(cluster.node(node)?.rest.port());
            drop_packets(cluster, node, &peers(cluster, node), both, port)
        }
        form @ ("cut NODE from node OTHER" | "deafen NODE to node OTHER") => {
            let other = resolve(cluster, fault.other, led).await?;
            let ways = if form.starts_with("cut") { both } else { &[Way::In] };
            drop_packets(cluster, node, &[*cluster.node(other)?.postgres.ip()], ways, None)
        }
        "cut NODE from etcd member NUMBER" => {
            let ip = *cluster.etcd.ips().get(member).context("etcd has no such member")?;
            drop_packets(cluster, node, &[ip], both, None)
        }
        "isolate etcd member NUMBER with NODE" => isolate(cluster, node, member),
        "stop agent NODE" => {
            cluster.node_mut(node)?.freeze_agent()?;
            Ok(Active::AgentStopped(node))
        }
        "kill agent NODE" => {
            cluster.node_mut(node)?.kill_agent()?;
            Ok(Active::Down(node))
        }
        "terminate agent NODE" => {
            cluster.node_mut(node)?.terminate(ORDER_LIMIT).await?;
            Ok(Active::Down(node))
        }
        "kill node NODE" => {
            cluster.node_mut(node)?.kill_node()?;
            Ok(Active::Down(node))
        }
        "kill fence NODE" => signal(cluster.node(node)?, Signal::SIGKILL, |_, program| {
            program == "pgha-fence"
        }),
        "kill postgres NODE" => {
            cluster.node(node)?.kill_postmaster()?;
            Ok(Active::Over)
        }
        "kill backend NODE" => signal(cluster.node(node)?, Signal::SIGKILL, is_client),
        "mute postgres NODE" => stop(cluster.node(node)?, |title, program| {
            program == "postgres" && (is_client(title, program) || !title.starts_with("postgres:"))
        }),
        "stop backends NODE" => stop(cluster.node(node)?, is_client),
        "stop checkpointer NODE" => stop(cluster.node(node)?, |title, _| title.contains(": checkpointer")),
        "stop walsenders NODE" => stop(cluster.node(node)?, |title, _| title.contains(": walsender")),
        "freeze node NODE" => Ok(Active::Grouped(Group::frozen(cluster.node(node)?)?)),
        "throttle node NODE to NUMBER percent" => {
            let percent = u64::try_from(number)?;
            Ok(Active::Grouped(Group::throttled(cluster.node(node)?, percent)?))
        }
        "stop etcd" => {
            cluster.etcd.kill_all();
            Ok(Active::EtcdDown)
        }
        "empty etcd" => {
            cluster.etcd.wipe()?;
            Ok(Active::EtcdDown)
        }
        "stop etcd member NUMBER" => {
            cluster.etcd.signal(member, Signal::SIGSTOP)?;
            Ok(Active::EtcdStopped(member))
        }
        "kill etcd member NUMBER" => {
            cluster.etcd.kill(member)?;
            Ok(Active::EtcdDown)
        }
        "move etcd leader" => cluster.etcd.move_leader().await.map(|()| Active::Over),
        "compact etcd" => cluster.etcd.compact().await.map(|()| Active::Over),
        "fill etcd" => {
            cluster.etcd.no_space(true).await?;
            Ok(Active::EtcdFull)
        }
        "revoke lease of NODE" => {
            let key = cluster.key(&format!("members/{}", cluster.node(node)?.name));
            let lease = cluster
                .etcd
                .lease_of(&key)
                .await?
                .context("the member key has no lease")?;
            cluster.etcd.revoke(&lease).await.map(|()| Active::Over)
        }
        "fill disk of NODE" => fill_disk(cluster.node(node)?),
        "delay fsync of NODE by TIME" => delay_fsync(cluster.node(node)?, number),
        "hang archive of NODE" => {
            let file = cluster.node(node)?.dir.join("archive.hangs");
            std::fs::write(&file, "")?;
            Ok(Active::File(file))
        }
        "lock catalog of NODE" => {
            let sql = cluster.node(node)?.sql().await?;
            sql.run("BEGIN; LOCK TABLE pg_catalog.pg_class IN ACCESS EXCLUSIVE MODE")
                .await?;
            Ok(Active::Locked(sql))
        }
        "switchover to NODE" => switchover(cluster, node, led).await,
        "restart postgres NODE" => order(cluster, node, "/restart").await,
        "reinitialize NODE" => order(cluster, node, "/reinitialize").await,
        "pause cluster" => {
            set_pause(cluster, json!(true)).await?;
            Ok(Active::Paused)
        }
        "restart agents" => restart_agents(cluster).await,
        "restart everything" => restart_everything(cluster, led).await,
        other => bail!("nobody has taught the rig to `{other}`"),
    }
}

/// Ends a fault.
pub async fn end(cluster: &mut Cluster, active: Active) -> Result<()> {
    match active {
        Active::Over => {}
        Active::Dropped(all) => remove_drops(cluster, all)?,
        Active::Isolated(all, member) => {
            remove_drops(cluster, all)?;
            cluster.etcd.set_alone(member, false)?;
        }
        Active::Down(number) => cluster.node_mut(number)?.start()?,
        Active::AgentStopped(number) => cluster.node_mut(number)?.thaw_agent()?,
        Active::Stopped(pids) => pids.into_iter().for_each(|pid| {
            // It may have been killed meanwhile, which is what some faults are for.
            kill(pid, Signal::SIGCONT).ok();
        }),
        Active::EtcdStopped(member) => cluster.etcd.signal(member, Signal::SIGCONT)?,
        Active::EtcdDown => cluster.etcd.start_all()?,
        Active::EtcdFull => cluster.etcd.no_space(false).await?,
        Active::File(path) => std::fs::remove_file(path)?,
        Active::Traced(mut tracer) => {
            kill(Pid::from_raw(i32::try_from(tracer.id())?), Signal::SIGINT)?;
            tracer.wait()?;
        }
        Active::Grouped(group) => drop(group),
        Active::Locked(sql) => drop(sql),
        Active::Paused => set_pause(cluster, Value::Null).await?,
    }
    Ok(())
}

// ---- network ----

fn peers(cluster: &Cluster, node: usize) -> Vec<Ipv4Addr> {
    let others = cluster.others(node);
    others
        .iter()
        .filter_map(|n| cluster.nodes.get(*n))
        .map(|n| *n.postgres.ip())
        .collect()
}

fn host(cluster: &Cluster, number: usize) -> Result<&crate::netns::NetHost> {
    match &cluster.node(number)?.host {
        Some(host) => Ok(host),
        None => bail!("the nodes of this cluster share one network"),
    }
}

fn drop_packets(cluster: &Cluster, node: usize, from: &[Ipv4Addr], ways: &[Way], port: Option<u16>) -> Result<Active> {
    add_drops(cluster, node, from, ways, port).map(Active::Dropped)
}

type Dropped = Vec<(usize, Vec<Drop>)>;

fn add_drops(cluster: &Cluster, node: usize, from: &[Ipv4Addr], ways: &[Way], port: Option<u16>) -> Result<Dropped> {
    let drops: Vec<Drop> = from
        .iter()
        .flat_map(|peer| {
            ways.iter().map(|way| Drop {
                way: *way,
                peer: *peer,
                port,
            })
        })
        .collect();
    host(cluster, node)?.filter(|rules: &mut BTreeSet<Drop>| rules.extend(&drops))?;
    Ok(vec![(node, drops)])
}

fn remove_drops(cluster: &Cluster, all: Dropped) -> Result<()> {
    for (number, drops) in all {
        host(cluster, number)?.filter(|rules| rules.retain(|rule| !drops.contains(rule)))?;
    }
    Ok(())
}

/// The node sees one member of etcd, which sees no other: reads there are old, and nothing can be written.
fn isolate(cluster: &Cluster, node: usize, member: usize) -> Result<Active> {
    let ips = cluster.etcd.ips();
    let alone = *ips.get(member).context("etcd has no such member")?;
    let others: Vec<Ipv4Addr> = ips.into_iter().filter(|ip| *ip != alone).collect();
    let both = [Way::In, Way::Out];
    let mut all = add_drops(cluster, node, &others, &both, None)?;
    for number in cluster.others(node) {
        all.extend(add_drops(cluster, number, &[alone], &both, None)?);
    }
    cluster.etcd.set_alone(member, true)?;
    Ok(Active::Isolated(all, member))
}

// ---- processes ----

/// A backend that serves a client, as PostgreSQL titles it: `postgres: cluster_name: user database address activity`.
fn is_client(title: &str, program: &str) -> bool {
    program == "postgres" && title.contains(": postgres postgres ")
}

fn chosen(node: &Node, which: impl Fn(&str, &str) -> bool) -> Result<Vec<Pid>> {
    let found = node.processes().into_iter().filter(|p| which(&p.title, &p.program));
    let pids: Vec<Pid> = found.map(|p| p.pid).collect();
    ensure!(!pids.is_empty(), "{} has no such process", node.name);
    Ok(pids)
}

fn signal(node: &Node, signal: Signal, which: impl Fn(&str, &str) -> bool) -> Result<Active> {
    for pid in chosen(node, which)? {
        // A backend may end by itself between the look and the signal.
        kill(pid, signal).ok();
    }
    Ok(Active::Over)
}

fn stop(node: &Node, which: impl Fn(&str, &str) -> bool) -> Result<Active> {
    let pids = chosen(node, &which)?;
    signal(node, Signal::SIGSTOP, which)?;
    Ok(Active::Stopped(pids))
}

// ---- disks ----

/// Takes all the space that is left; the node's directory must be a small file system of its own.
fn fill_disk(node: &Node) -> Result<Active> {
    let size = statvfs(&node.dir).context("statvfs")?;
    let all = size.blocks() * size.fragment_size();
    ensure!(all < 1 << 31, "{} is no small file system", node.dir.display());
    let path = node.dir.join("filler");
    let mut file = File::create(&path)?;
    let chunk = vec![0; 1 << 16];
    for _ in 0..=all / (1 << 16) {
        match file.write_all(&chunk) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(Active::File(path)),
            Err(error) => return Err(error).context("cannot fill the disk"),
        }
    }
    bail!("{} took more than its size", node.dir.display())
}

fn delay_fsync(node: &Node, ms: usize) -> Result<Active> {
    let mut command = Command::new(programs::find("strace")?);
    command
        .args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync", "-e"])
        .arg(format!("inject=fsync,fdatasync:delay_enter={ms}000"));
    for pid in chosen(node, |_, program| program == "postgres")? {
        command.arg("-p").arg(pid.to_string());
    }
    let tracer = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    Ok(Active::Traced(tracer.context("cannot run strace")?))
}

// ---- what an operator does ----

async fn switchover(cluster: &Cluster, candidate: usize, led: &mut Led) -> Result<Active> {
    let leader = resolve(cluster, None, led).await?;
    if leader == candidate {
        return Ok(Active::Over);
    }
    let (from, to) = (cluster.node(leader)?, cluster.node(candidate)?);
    let body = json!({"leader": from.name, "candidate": to.name});
    // Whether it was carried out is seen later; the plan may kill who would answer.
    let rest = from.rest;
    tokio::spawn(async move { http::post(rest, "/switchover", &body, ORDER_LIMIT).await });
    Ok(Active::Over)
}

async fn order(cluster: &Cluster, node: usize, path: &str) -> Result<Active> {
    let answer = cluster.node(node)?.post(path, &json!({}), ORDER_LIMIT).await?;
    ensure!(
        answer.status.is_success(),
        "{path} answers {}: {}",
        answer.status,
        answer.body
    );
    Ok(Active::Over)
}

async fn set_pause(cluster: &Cluster, value: Value) -> Result<()> {
    let patch = json!({"pause": value});
    let node = cluster.node(resolve(cluster, None, &mut Led::default()).await.unwrap_or(0))?;
    let answer = http::request(node.rest, Method::PATCH, "/config", Some(&patch), ORDER_LIMIT).await?;
    ensure!(
        answer.status.is_success(),
        "/config answers {}: {}",
        answer.status,
        answer.body
    );
    Ok(())
}

/// A rolling upgrade: every agent is replaced while its PostgreSQL runs on.
async fn restart_agents(cluster: &mut Cluster) -> Result<Active> {
    for number in 0..cluster.nodes.len() {
        cluster.node_mut(number)?.kill_agent()?;
        cluster.node_mut(number)?.start()?;
        let node = cluster.node(number)?;
        wait_for(&format!("{} is healthy again", node.name), BOOT_LIMIT, async || {
            node.says("/health").await.then_some(())
        })
        .await?;
    }
    Ok(Active::Over)
}

/// Everything is stopped, the leader first, and started in the same order.
async fn restart_everything(cluster: &mut Cluster, led: &mut Led) -> Result<Active> {
    // etcd may be away too; then it does not matter who led.
    let leader = resolve(cluster, None, led).await.unwrap_or(0);
    let order: Vec<usize> = std::iter::once(leader).chain(cluster.others(leader)).collect();
    for number in order.iter().rev() {
        cluster.node_mut(*number)?.kill_node()?;
    }
    for number in order.iter().rev() {
        cluster.node_mut(*number)?.start()?;
    }
    Ok(Active::Over)
}
