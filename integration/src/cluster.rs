//! A cluster: etcd, nodes, and HAProxy if asked for.

use std::collections::BTreeSet;
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use hyper::Method;
use serde_json::{Value, json};

use crate::agent::Agent;
use crate::config::{NodeConfig, merge};
use crate::etcd::Etcd;
use crate::haproxy::Haproxy;
use crate::http;
use crate::net::{AddressBlock, Addresses};
use crate::netns::Lan;
use crate::node::Node;
use crate::programs;
use crate::rig::disk::SmallDisk;
use crate::scratch::Scratch;
use crate::secrets::Secrets;
use crate::sql::Sql;
use crate::user::RunAs;
use crate::wait::wait_for;

/// Last byte of the first node's address.
const FIRST_HOST: u8 = 11;
/// Limit of a bootstrap of all nodes, on a slow machine.
pub const BOOT_LIMIT: Duration = Duration::from_secs(120);

/// What a cluster shall be.
#[derive(Clone, Debug)]
pub struct ClusterSpec {
    /// Scope of the cluster.
    pub scope: String,
    /// Number of nodes.
    pub nodes: usize,
    /// Members of etcd.
    pub etcd_members: usize,
    /// The agent.
    pub agent: Agent,
    /// Initial dynamic configuration.
    pub dcs: Value,
    /// Merged into each node's file.
    pub local: Value,
    /// Whether HAProxy runs, and whether it listens on 127.0.0.1.
    pub haproxy: Option<HaproxyAt>,
    /// Whether a commit waits for a standby.
    pub quorum_commit: bool,
    /// Whether every node and every member of etcd is a host of its own. The thread that starts it must have a private
    /// network ([`crate::netns::enter_private`]); HAProxy is not to be had then.
    pub own_hosts: bool,
    /// Whether the logs go to `target/integration-logs/SCOPE` at the end.
    pub keep_logs: bool,
}

/// Where HAProxy listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HaproxyAt {
    /// On an address of the cluster's own block, out of the way of everything else.
    OwnAddress,
    /// On 127.0.0.1, where people expect it.
    Localhost,
}

impl ClusterSpec {
    /// Three nodes of pgha with short timings.
    pub fn new(scope: &str) -> Self {
        Self {
            scope: scope.to_owned(),
            nodes: 3,
            etcd_members: 1,
            agent: Agent::from_env(),
            dcs: json!({
                "ttl": 5,
                "loop_wait": 1,
                "retry_timeout": 2,
                "maximum_lag_on_failover": 1_048_576,
                "postgresql": {
                    "use_pg_rewind": true,
                    "use_slots": true,
                    "parameters": {"max_connections": 100, "wal_keep_size": "128MB"},
                },
            }),
            local: json!({}),
            haproxy: None,
            quorum_commit: false,
            own_hosts: false,
            keep_logs: true,
        }
    }

    /// That many nodes.
    pub fn nodes(mut self, nodes: usize) -> Self {
        self.nodes = nodes;
        self
    }

    /// etcd with that many members.
    pub fn etcd_members(mut self, members: usize) -> Self {
        self.etcd_members = members;
        self
    }

    /// Another agent.
    pub fn agent(mut self, agent: Agent) -> Self {
        self.agent = agent;
        self
    }

    /// Other timings, in seconds.
    pub fn timings(self, ttl: u32, loop_wait: u32, retry_timeout: u32) -> Self {
        self.dcs(json!({"ttl": ttl, "loop_wait": loop_wait, "retry_timeout": retry_timeout}))
    }

    /// Merges into the initial dynamic configuration.
    pub fn dcs(mut self, patch: Value) -> Self {
        merge(&mut self.dcs, &patch);
        self
    }

    /// Merges into each node's file.
    pub fn local(mut self, patch: Value) -> Self {
        merge(&mut self.local, &patch);
        self
    }

    /// Puts HAProxy in front.
    pub fn haproxy(mut self, at: HaproxyAt) -> Self {
        self.haproxy = Some(at);
        self
    }

    /// A commit is acknowledged when a standby has it too. PostgreSQL does that by itself, whatever the agent, so that the
    /// loss of one node never excuses a missing row. It is set once the cluster is whole: the first primary is alone.
    pub fn quorum_commit(mut self) -> Self {
        self.quorum_commit = true;
        self
    }

    /// Every node and every member of etcd becomes a host of its own.
    pub fn own_hosts(mut self) -> Self {
        self.own_hosts = true;
        self
    }

    /// Starts etcd and prepares every node, without starting any.
    pub async fn prepare(self) -> Result<Cluster> {
        let scratch = Arc::new(Scratch::new(
            self.keep_logs.then(|| self.scope.clone()),
            RunAs::detect()?,
        )?);
        ensure!(
            self.haproxy.is_none() || !self.own_hosts,
            "HAProxy has no place on the hosts' network"
        );
        let addresses = if self.own_hosts {
            Addresses::Lan(Lan::new()?)
        } else {
            Addresses::Block(AddressBlock::claim()?)
        };
        let secrets = Secrets::draw()?;
        let etcd = Etcd::start(&scratch, &addresses, self.etcd_members).await?;
        let mut nodes = Vec::new();
        for (host, number) in (FIRST_HOST..).zip(1..=self.nodes) {
            let place = Place {
                host,
                name: format!("pg{number}"),
            };
            nodes.push(place.node(&self, &scratch, &addresses, &secrets, &etcd.endpoints())?);
        }
        let haproxy = match self.haproxy {
            None => None,
            Some(at) => {
                let servers: Vec<_> = nodes
                    .iter()
                    .map(|node| (node.name.clone(), node.postgres, node.rest.port()))
                    .collect();
                Some(Haproxy::start(
                    &scratch,
                    &addresses,
                    &servers,
                    at == HaproxyAt::Localhost,
                )?)
            }
        };
        Ok(Cluster {
            nodes,
            haproxy,
            etcd,
            secrets,
            spec: self,
            addresses,
            disks: Vec::new(),
            scratch,
        })
    }

    /// As [`ClusterSpec::start`], with a file system of this size for every node. It takes own hosts.
    pub(crate) async fn start_on_small_disks(self, size: &str) -> Result<Cluster> {
        let mut cluster = self.prepare().await?;
        for node in &mut cluster.nodes {
            cluster.disks.push(SmallDisk::mount(&node.dir, size)?);
            cluster.scratch.user().own(&node.dir)?;
            node.configure(&json!({}))?;
        }
        cluster.boot().await
    }

    /// Starts everything and waits until the cluster is whole.
    pub async fn start(self) -> Result<Cluster> {
        self.prepare().await?.boot().await
    }
}

/// Where a node shall live.
struct Place {
    host: u8,
    name: String,
}

impl Place {
    fn node(
        self,
        spec: &ClusterSpec,
        scratch: &Arc<Scratch>,
        addresses: &Addresses,
        secrets: &Secrets,
        etcd: &[SocketAddrV4],
    ) -> Result<Node> {
        let site = addresses.site(self.host)?;
        let dir = scratch.dir(&self.name)?;
        let [postgres, rest] = site.ports([5432, 8008])?;
        let bin_dir = programs::postgres_bin()?;
        let config = NodeConfig {
            scope: &spec.scope,
            name: &self.name,
            postgres,
            rest,
            network: &addresses.cidr(),
            dir: &dir,
            bin_dir: &bin_dir,
            etcd,
            secrets,
        };
        let settings = config.value(&spec.dcs);
        let mut node = Node {
            data_dir: dir.join("data"),
            log: dir.join("agent.log"),
            config: dir.join("pgha.yml"),
            settings,
            postgres,
            rest,
            host: site.host,
            agent: spec.agent,
            scratch: Arc::clone(scratch),
            password: secrets.superuser.clone(),
            process: None,
            name: self.name,
            dir,
        };
        node.configure(&spec.local)?;
        Ok(node)
    }
}

/// A running cluster. Dropping it kills everything and removes its directory.
pub struct Cluster {
    /// The nodes, by number.
    pub nodes: Vec<Node>,
    /// HAProxy, if asked for.
    pub haproxy: Option<Haproxy>,
    /// The store.
    pub etcd: Etcd,
    /// Passwords.
    pub secrets: Secrets,
    spec: ClusterSpec,
    addresses: Addresses,
    disks: Vec<SmallDisk>,
    // Last, so that its own kill finds what the others left.
    scratch: Arc<Scratch>,
}

impl Cluster {
    async fn boot(mut self) -> Result<Cluster> {
        for node in &mut self.nodes {
            node.start()?;
        }
        self.wait_whole(BOOT_LIMIT).await?;
        if self.spec.quorum_commit {
            self.set_parameter("synchronous_standby_names", "ANY 1 (*)").await?;
        }
        Ok(self)
    }

    /// The scratch directory.
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// The key of that name in etcd.
    pub fn key(&self, name: &str) -> String {
        format!("/service/{}/{name}", self.spec.scope)
    }

    /// The name in the leader key.
    pub async fn leader_key(&self) -> Result<Option<String>> {
        self.etcd.get(&self.key("leader")).await
    }

    /// Adds a node of that name, without starting it.
    pub fn add_node(&mut self, name: &str) -> Result<usize> {
        let host = FIRST_HOST + u8::try_from(self.nodes.len()).context("too many nodes")?;
        let place = Place {
            host,
            name: name.to_owned(),
        };
        let node = place.node(
            &self.spec,
            &self.scratch,
            &self.addresses,
            &self.secrets,
            &self.etcd.endpoints(),
        )?;
        self.nodes.push(node);
        Ok(self.nodes.len() - 1)
    }

    /// The primaries, by what each PostgreSQL says.
    pub async fn primaries(&self) -> Vec<usize> {
        let mut found = Vec::new();
        for (number, node) in self.nodes.iter().enumerate() {
            if node.is_primary().await {
                found.push(number);
            }
        }
        found
    }

    /// Waits for the one primary among these nodes that PostgreSQL, the REST API and etcd agree on.
    pub async fn wait_primary_among(&self, numbers: &[usize], limit: Duration) -> Result<usize> {
        let names: Vec<&str> = numbers
            .iter()
            .filter_map(|n| self.nodes.get(*n))
            .map(|n| n.name.as_str())
            .collect();
        let what = format!("one of {} is primary and says so", names.join(", "));
        wait_for(&what, limit, async || {
            for number in numbers {
                let node = self.nodes.get(*number)?;
                if node.is_primary().await
                    && node.says("/primary").await
                    && self.leader_key().await.ok()?.as_deref() == Some(node.name.as_str())
                {
                    return Some(*number);
                }
            }
            None
        })
        .await
        .with_context(|| self.log_tails())
    }

    /// Waits for the primary among all nodes.
    pub async fn wait_primary(&self, limit: Duration) -> Result<usize> {
        let all: Vec<usize> = (0..self.nodes.len()).collect();
        self.wait_primary_among(&all, limit).await
    }

    /// Waits until every node but the primary streams on the primary's timeline, and the REST API of each says so.
    /// Returns the primary.
    pub async fn wait_whole(&self, limit: Duration) -> Result<usize> {
        let all: BTreeSet<usize> = (0..self.nodes.len()).collect();
        self.wait_whole_of(&all, limit).await
    }

    /// As [`Cluster::wait_whole`], for some nodes only.
    pub async fn wait_whole_of(&self, numbers: &BTreeSet<usize>, limit: Duration) -> Result<usize> {
        let list: Vec<usize> = numbers.iter().copied().collect();
        let primary = self.wait_primary_among(&list, limit).await?;
        wait_for("every standby streams on the primary's timeline", limit, async || {
            let timeline = self
                .nodes
                .get(primary)?
                .facts()
                .await
                .filter(|facts| !facts.in_recovery)?
                .timeline;
            for number in numbers.iter().filter(|number| **number != primary) {
                let node = self.nodes.get(*number)?;
                if !(node.streams_on(timeline).await && node.says("/replica").await) {
                    return None;
                }
            }
            Some(primary)
        })
        .await
        .with_context(|| self.log_tails())
    }

    /// Waits until these standbys have replayed what the primary had written when this was called.
    pub async fn wait_caught_up(&self, primary: usize, standbys: &[usize], limit: Duration) -> Result<()> {
        let lsn: String = self
            .node(primary)?
            .sql()
            .await?
            .row("SELECT pg_current_wal_lsn()::text")
            .await?
            .get(0);
        let ask = format!("SELECT coalesce(pg_last_wal_replay_lsn() >= '{lsn}', false)");
        for number in standbys {
            let node = self.node(*number)?;
            wait_for(&format!("{} has replayed {lsn}", node.name), limit, async || {
                node.sql()
                    .await
                    .ok()?
                    .row(&ask)
                    .await
                    .ok()?
                    .get::<_, bool>(0)
                    .then_some(())
            })
            .await?;
        }
        Ok(())
    }

    /// Changes a PostgreSQL parameter in the dynamic configuration and waits until every node has it.
    pub async fn set_parameter(&self, name: &str, value: &str) -> Result<()> {
        const LIMIT: Duration = Duration::from_secs(30);
        let patch = json!({"postgresql": {"parameters": {name: value}}});
        let first = self.node(0)?;
        let answer = http::request(first.rest, Method::PATCH, "/config", Some(&patch), LIMIT).await?;
        ensure!(
            answer.status.is_success(),
            "PATCH /config answers {}: {}",
            answer.status,
            answer.body
        );
        for node in &self.nodes {
            wait_for(&format!("{} has {name} = {value}", node.name), LIMIT, async || {
                let shown: String = node.sql().await.ok()?.row(&format!("SHOW {name}")).await.ok()?.get(0);
                (shown == value).then_some(())
            })
            .await
            .with_context(|| self.log_tails())?;
        }
        Ok(())
    }

    /// A node by number.
    pub fn node(&self, number: usize) -> Result<&Node> {
        self.nodes
            .get(number)
            .with_context(|| format!("there is no node {number}"))
    }

    /// A node by number, to do something to it.
    pub fn node_mut(&mut self, number: usize) -> Result<&mut Node> {
        self.nodes
            .get_mut(number)
            .with_context(|| format!("there is no node {number}"))
    }

    /// The numbers of all nodes but one.
    pub fn others(&self, number: usize) -> Vec<usize> {
        (0..self.nodes.len()).filter(|other| *other != number).collect()
    }

    /// A connection to the primary.
    pub async fn primary_sql(&self) -> Result<Sql> {
        match self.primaries().await.as_slice() {
            [one] => self.node(*one)?.sql().await,
            several => bail!("there are {} primaries", several.len()),
        }
    }

    /// PostgreSQL's address on each node.
    pub fn postgres_addrs(&self) -> Vec<SocketAddrV4> {
        self.nodes.iter().map(|node| node.postgres).collect()
    }

    /// The end of each agent's log, for an error's context.
    pub fn log_tails(&self) -> String {
        const LINES: usize = 15;
        let mut text = String::from("the cluster is not as it should be");
        for node in &self.nodes {
            text.push_str(&format!("\n--- {} ---", node.name));
            let log = node.log_text();
            let lines: Vec<&str> = log.lines().collect();
            for line in lines.iter().skip(lines.len().saturating_sub(LINES)) {
                text.push('\n');
                text.push_str(line);
            }
        }
        text
    }
}
