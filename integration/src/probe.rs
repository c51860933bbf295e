//! Do two nodes ever accept writes at once?
//!
//! One task for each node tries a write every 50 ms and keeps when it was sent, when it was acknowledged, and on which
//! timeline. Two acknowledged writes prove a split brain when they came from different nodes and
//! - both were on the same timeline, or
//! - the one on the older timeline was sent after the one on the newer timeline had been acknowledged.
//!
//! A handover back and forth proves nothing of the kind, however quick, since each promotion makes a newer timeline.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddrV4;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::task::JoinHandle;

use crate::boottime;
use crate::cluster::Cluster;
use crate::sql::Sql;

/// Time between two tries at one node.
const EVERY: Duration = Duration::from_millis(50);
/// A write that is not acknowledged by then does not count as accepted.
const WRITE_LIMIT: Duration = Duration::from_secs(1);
/// The write, and the timeline it went to.
const WRITE: &str = "UPDATE pgha_probe SET writes = writes + 1 WHERE node = $1
    RETURNING ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int";

/// A write that a node has acknowledged. Times since boot.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// The node.
    pub node: String,
    /// The timeline that node wrote on.
    pub timeline: i32,
    /// When the write was sent.
    pub sent: Duration,
    /// When it was acknowledged.
    pub acked: Duration,
}

impl fmt::Display for Accepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sent, acked) = (self.sent.as_secs_f64(), self.acked.as_secs_f64());
        write!(
            f,
            "{} on timeline {} (sent {sent:.3}, acknowledged {acked:.3})",
            self.node, self.timeline
        )
    }
}

/// The running probe. Dropping it stops it.
pub struct WritabilityProbe {
    accepted: Arc<Mutex<Vec<Accepted>>>,
    tasks: Vec<JoinHandle<()>>,
}

impl WritabilityProbe {
    /// Makes the probe's table on the primary and starts trying every node.
    pub async fn start(cluster: &Cluster) -> Result<Self> {
        let sql = cluster.primary_sql().await?;
        sql.run("CREATE TABLE IF NOT EXISTS pgha_probe (node text PRIMARY KEY, writes bigint NOT NULL)")
            .await?;
        for node in &cluster.nodes {
            let insert = "INSERT INTO pgha_probe VALUES ($1, 0) ON CONFLICT DO NOTHING";
            sql.query(insert, &[&node.name]).await?;
        }
        let accepted = Arc::new(Mutex::new(Vec::new()));
        let tasks = cluster
            .nodes
            .iter()
            .map(|node| {
                let try_node = TryNode {
                    name: node.name.clone(),
                    addr: node.postgres,
                    password: cluster.secrets.superuser.clone(),
                    accepted: Arc::clone(&accepted),
                };
                tokio::spawn(try_node.run())
            })
            .collect();
        Ok(Self { accepted, tasks })
    }

    /// Every accepted write so far.
    pub fn accepted(&self) -> Vec<Accepted> {
        self.accepted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The last accepted write of a node.
    pub fn last_of(&self, node: &str) -> Option<Accepted> {
        self.accepted().into_iter().rev().find(|accepted| accepted.node == node)
    }

    /// The first accepted write of a node that was sent after `time`.
    pub fn first_after(&self, node: &str, time: Duration) -> Option<Accepted> {
        self.accepted()
            .into_iter()
            .find(|accepted| accepted.node == node && accepted.sent > time)
    }

    /// Pairs of writes that prove a split brain.
    pub fn overlaps(&self) -> Vec<(Accepted, Accepted)> {
        overlaps(&self.accepted())
    }

    /// Fails if two nodes accepted writes at once, or if the probe saw no writes at all and so proves nothing.
    pub fn check(&self) -> Result<()> {
        let accepted = self.accepted();
        ensure!(
            !accepted.is_empty(),
            "the probe saw no accepted write, so it proves nothing"
        );
        let overlaps = overlaps(&accepted);
        let (a, b) = match overlaps.first() {
            None => return Ok(()),
            Some(pair) => pair,
        };
        anyhow::bail!(
            "two nodes accepted writes at once, {} times; first {a} and {b}",
            overlaps.len()
        )
    }
}

impl Drop for WritabilityProbe {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Pairs that prove that two nodes were primary at once.
pub(crate) fn overlaps(accepted: &[Accepted]) -> Vec<(Accepted, Accepted)> {
    let mut first_owner: BTreeMap<i32, &Accepted> = BTreeMap::new();
    let mut found = Vec::new();
    for write in accepted {
        let owner = first_owner.entry(write.timeline).or_insert(write);
        if owner.node != write.node {
            found.push(((*owner).clone(), write.clone()));
            continue;
        }
        let newer = accepted
            .iter()
            .find(|other| other.node != write.node && other.timeline > write.timeline && other.acked < write.sent);
        if let Some(newer) = newer {
            found.push((newer.clone(), write.clone()));
        }
    }
    found
}

struct TryNode {
    name: String,
    addr: SocketAddrV4,
    password: String,
    accepted: Arc<Mutex<Vec<Accepted>>>,
}

impl TryNode {
    async fn run(self) {
        let mut connection = None;
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            // A refusal is the ordinary answer of a standby; only a lost connection is replaced.
            if self.try_once(&mut connection).await.is_err() {
                connection = None;
            }
        }
    }

    async fn try_once(&self, connection: &mut Option<Sql>) -> Result<()> {
        if connection.is_none() {
            *connection = Some(Sql::connect(self.addr, &self.password).await?);
        }
        let sql = connection.as_ref().context("connected just now")?;
        let sent = boottime::now();
        let rows = tokio::time::timeout(WRITE_LIMIT, sql.query(WRITE, &[&self.name])).await??;
        let acked = boottime::now();
        ensure!(
            !sql.sync_wait_was_cancelled(),
            "acknowledged without the standby it had to wait for"
        );
        if let Some(row) = rows.first() {
            let accepted = Accepted {
                node: self.name.clone(),
                timeline: row.get(0),
                sent,
                acked,
            };
            self.accepted
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(accepted);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(node: &str, timeline: i32, sent: u64, acked: u64) -> Accepted {
        let (sent, acked) = (Duration::from_millis(sent), Duration::from_millis(acked));
        Accepted {
            node: node.into(),
            timeline,
            sent,
            acked,
        }
    }

    #[test]
    fn a_quick_handover_back_and_forth_is_no_split_brain() {
        let log = [write("a", 1, 0, 1), write("b", 2, 1, 2), write("a", 3, 2, 3)];
        assert!(overlaps(&log).is_empty());
    }

    #[test]
    fn two_nodes_on_one_timeline_are_a_split_brain() {
        assert_eq!(overlaps(&[write("a", 1, 0, 1), write("b", 1, 5, 6)]).len(), 1);
    }

    #[test]
    fn an_old_primary_that_accepts_after_the_new_one_is_a_split_brain() {
        assert_eq!(
            overlaps(&[write("a", 1, 0, 1), write("b", 2, 2, 3), write("a", 1, 4, 5)]).len(),
            1
        );
    }

    #[test]
    fn a_write_under_way_while_the_new_primary_acknowledges_proves_nothing() {
        assert!(overlaps(&[write("a", 1, 0, 4), write("b", 2, 2, 3)]).is_empty());
    }
}
