//! A client that inserts numbered rows and remembers what it was told about each.

use std::collections::BTreeSet;
use std::net::SocketAddrV4;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::task::{JoinHandle, JoinSet};

use crate::boottime;
use crate::cluster::Cluster;
use crate::sql::Sql;

/// A row whose answer takes longer is of unknown fate, and the client connects anew.
const WRITE_LIMIT: Duration = Duration::from_secs(3);
/// Pause after a refused or failed connection.
const RECONNECT_PAUSE: Duration = Duration::from_millis(20);
/// Pause while the client is held.
const HOLD_LOOK: Duration = Duration::from_millis(2);

/// Where the client connects.
#[derive(Clone, Debug)]
pub enum Target {
    /// To one address, HAProxy's.
    Proxy(SocketAddrV4),
    /// To whichever of the nodes accepts writes; it stays there as long as its writes are accepted.
    Nodes(Vec<SocketAddrV4>),
}

/// What became of the rows, by the client's knowledge. Times since boot.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Acknowledged, with the time.
    pub acked: Vec<(i64, Duration)>,
    /// Sent, and no answer that settles it.
    pub unknown: Vec<i64>,
    /// Refused by the server.
    pub refused: Vec<i64>,
}

impl Ledger {
    /// The longest time between two acknowledged rows, and when it began. Only what lies after `from` counts.
    pub fn longest_gap(&self, from: Duration) -> (Duration, Duration) {
        let times: Vec<Duration> = self.acked.iter().map(|(_, at)| *at).filter(|at| *at >= from).collect();
        times
            .windows(2)
            .filter_map(|pair| match pair {
                [a, b] => Some((b.saturating_sub(*a), *a)),
                _ => None,
            })
            .max()
            .unwrap_or_default()
    }

    /// When the first row after `time` was acknowledged.
    pub fn first_after(&self, time: Duration) -> Option<Duration> {
        self.acked.iter().map(|(_, at)| *at).find(|at| *at > time)
    }
}

#[derive(Default)]
struct Shared {
    ledger: Mutex<Ledger>,
    held: AtomicBool,
    idle: AtomicBool,
}

impl Shared {
    fn note(&self, change: impl FnOnce(&mut Ledger)) {
        change(&mut self.ledger.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// The running client. Dropping it stops it.
pub struct Workload {
    shared: Arc<Shared>,
    password: String,
    task: JoinHandle<()>,
}

impl Drop for Workload {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Workload {
    /// Makes the table on the primary and begins to insert, `pause` after each answer.
    pub async fn start(cluster: &Cluster, target: Target, pause: Duration) -> Result<Self> {
        cluster
            .primary_sql()
            .await?
            .run("CREATE TABLE IF NOT EXISTS pgha_rows (id bigint PRIMARY KEY)")
            .await?;
        let shared = Arc::new(Shared::default());
        let password = cluster.secrets.superuser.clone();
        let client = Inserter {
            shared: Arc::clone(&shared),
            target,
            password: password.clone(),
            pause,
        };
        Ok(Self {
            shared,
            password,
            task: tokio::spawn(client.run()),
        })
    }

    /// What is known so far.
    pub fn ledger(&self) -> Ledger {
        self.shared
            .ledger
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Waits until another `count` rows are acknowledged.
    pub async fn wait_acked(&self, count: usize, limit: Duration) -> Result<()> {
        let goal = self.ledger().acked.len() + count;
        crate::wait::wait_for(&format!("{count} more rows are acknowledged"), limit, async || {
            (self.ledger().acked.len() >= goal).then_some(())
        })
        .await
    }

    /// Holds the client before its next row and waits until none is under way.
    pub async fn hold(&self) -> Result<()> {
        self.shared.held.store(true, Ordering::SeqCst);
        let limit = WRITE_LIMIT + WRITE_LIMIT;
        crate::wait::wait_for("the client is idle", limit, async || {
            self.shared.idle.load(Ordering::SeqCst).then_some(())
        })
        .await
    }

    /// Lets a held client go on.
    pub fn release(&self) {
        self.shared.held.store(false, Ordering::SeqCst);
    }

    /// Acknowledged rows that this node does not have.
    pub async fn missing(&self, node: SocketAddrV4) -> Result<Vec<i64>> {
        let sql = Sql::connect(node, &self.password).await?;
        let rows = sql.query("SELECT id FROM pgha_rows", &[]).await?;
        let there: BTreeSet<i64> = rows.iter().map(|row| row.get(0)).collect();
        Ok(self
            .ledger()
            .acked
            .iter()
            .map(|(id, _)| *id)
            .filter(|id| !there.contains(id))
            .collect())
    }

    /// Fails if an acknowledged row is missing on this node, or if no row was acknowledged.
    pub async fn check_nothing_lost(&self, node: SocketAddrV4) -> Result<()> {
        let acked = self.ledger().acked.len();
        anyhow::ensure!(acked > 0, "no row was acknowledged, so this proves nothing");
        let missing = self.missing(node).await?;
        let some = missing.get(..missing.len().min(10)).unwrap_or_default();
        anyhow::ensure!(
            missing.is_empty(),
            "{} of {acked} acknowledged rows are missing: {some:?}..",
            missing.len()
        );
        Ok(())
    }
}

struct Inserter {
    shared: Arc<Shared>,
    target: Target,
    password: String,
    pause: Duration,
}

impl Inserter {
    async fn run(self) {
        let mut connection: Option<Sql> = None;
        for id in 1_i64.. {
            self.shared.idle.store(true, Ordering::SeqCst);
            while self.shared.held.load(Ordering::SeqCst) {
                tokio::time::sleep(HOLD_LOOK).await;
            }
            self.shared.idle.store(false, Ordering::SeqCst);
            let sql = match connection.take() {
                Some(sql) => sql,
                None => match self.connect().await {
                    Ok(sql) => sql,
                    // Nothing was sent, so the number is simply not used.
                    Err(_) => {
                        tokio::time::sleep(RECONNECT_PAUSE).await;
                        continue;
                    }
                },
            };
            if self.insert(&sql, id).await {
                connection = Some(sql);
                tokio::time::sleep(self.pause).await;
            } else {
                tokio::time::sleep(RECONNECT_PAUSE).await;
            }
        }
    }

    /// Inserts one row. False when the connection is of no more use.
    async fn insert(&self, sql: &Sql, id: i64) -> bool {
        let params: [&(dyn tokio_postgres::types::ToSql + Sync); 1] = [&id];
        let sent = sql.execute("INSERT INTO pgha_rows VALUES ($1)", &params);
        match tokio::time::timeout(WRITE_LIMIT, sent).await {
            Ok(Ok(_)) if sql.sync_wait_was_cancelled() => {
                self.shared.note(|ledger| ledger.unknown.push(id));
                false
            }
            Ok(Ok(_)) => {
                let now = boottime::now();
                self.shared.note(|ledger| ledger.acked.push((id, now)));
                true
            }
            Ok(Err(error)) => {
                let refused = error.as_db_error().is_some_and(|db| settles(db.code().code()));
                self.shared.note(|ledger| {
                    if refused {
                        ledger.refused.push(id)
                    } else {
                        ledger.unknown.push(id)
                    }
                });
                false
            }
            Err(_) => {
                self.shared.note(|ledger| ledger.unknown.push(id));
                false
            }
        }
    }

    async fn connect(&self) -> Result<Sql> {
        match &self.target {
            Target::Proxy(addr) => writable(*addr, self.password.clone()).await,
            Target::Nodes(addrs) => {
                let mut tries = JoinSet::new();
                for addr in addrs {
                    tries.spawn(writable(*addr, self.password.clone()));
                }
                while let Some(tried) = tries.join_next().await {
                    if let Ok(Ok(sql)) = tried {
                        return Ok(sql);
                    }
                }
                anyhow::bail!("no node accepts writes")
            }
        }
    }
}

/// Whether an error with this SQLSTATE means that the row was certainly not committed. A shutdown (class 57) may come
/// between the commit and its answer.
fn settles(sqlstate: &str) -> bool {
    !sqlstate.starts_with("57") && !sqlstate.starts_with("08") && !sqlstate.starts_with("XX")
}

async fn writable(addr: SocketAddrV4, password: String) -> Result<Sql> {
    let sql = Sql::connect(addr, &password).await?;
    let read_only: String = sql
        .row("SHOW transaction_read_only")
        .await
        .context("cannot ask")?
        .get(0);
    anyhow::ensure!(read_only == "off", "{addr} accepts no writes");
    Ok(sql)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_gap_is_found_with_its_begin() {
        let at = |ms| Duration::from_millis(ms);
        let ledger = Ledger {
            acked: vec![(1, at(10)), (2, at(20)), (3, at(520)), (4, at(530))],
            ..Ledger::default()
        };
        assert_eq!(ledger.longest_gap(Duration::ZERO), (at(500), at(20)));
        assert_eq!(ledger.longest_gap(at(500)), (at(10), at(520)));
    }

    #[test]
    fn a_refusal_settles_a_row_and_a_shutdown_does_not() {
        assert!(settles("25006"));
        assert!(!settles("57P01"));
    }
}
