//! The primary's node dies, and a stopwatch runs.
//!
//! Replication is asynchronous here, so what is promised is stated exactly: every row that was acknowledged before the
//! death has been replayed by the standbys first (the client holds its next row for that moment), and rows acknowledged
//! afterwards come from the new primary. Just before its death the old primary also writes something that no standby gets
//! and nobody was promised, so that it can only come back by pg_rewind.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{CellAlignment, Table};
use pgha_integration::boottime;
use pgha_integration::cluster::Cluster;
use pgha_integration::rejoin::RejoinMark;
use pgha_integration::wait::wait_for;
use pgha_integration::workload::{Target, Workload};

use crate::console::Console;

/// Limit of each phase; Patroni's ordinary lease alone lasts 30 s.
const PHASE_LIMIT: Duration = Duration::from_secs(90);
/// The client's pause between two rows.
const PAUSE: Duration = Duration::from_millis(5);
/// Rows before the death and after the rejoin.
const ROWS: usize = 300;

/// Runs the script. The error says what was not as promised.
pub async fn run(cluster: &mut Cluster, console: &Console) -> Result<()> {
    let old = cluster.wait_whole(PHASE_LIMIT).await?;
    let others = cluster.others(old);
    let proxy = cluster.haproxy.as_ref().context("the demo runs HAProxy")?.read_write;
    let workload = Workload::start(cluster, Target::Proxy(proxy), PAUSE).await?;
    workload.wait_acked(ROWS, PHASE_LIMIT).await?;
    workload.hold().await?;
    cluster.wait_caught_up(old, &others, PHASE_LIMIT).await?;
    let mark = go_astray(cluster, old).await?;
    let name = cluster.node(old)?.name.clone();
    console.line(&format!(
        "{} rows are acknowledged; killing the whole node {name}",
        workload.ledger().acked.len()
    ));

    let mut watch = Stopwatch::start(&format!("{name} killed"));
    let death = watch.start;
    cluster.node_mut(old)?.kill_node()?;
    workload.release();

    let lease_gone = async {
        wait_for("the old leader's key is gone", PHASE_LIMIT, async || {
            let leader = cluster.leader_key().await.ok()?;
            (leader.as_deref() != Some(name.as_str())).then(boottime::now)
        })
        .await
    };
    let lock_taken = async {
        wait_for("another node holds the leader key", PHASE_LIMIT, async || {
            let leader = cluster.leader_key().await.ok()??;
            (leader != name).then(|| (leader, boottime::now()))
        })
        .await
    };
    let promoted = async {
        wait_for("another node is promoted", PHASE_LIMIT, async || {
            for number in &others {
                if cluster.node(*number).ok()?.is_primary().await {
                    return Some((*number, boottime::now()));
                }
            }
            None
        })
        .await
    };
    let first_write = async {
        wait_for("a row is acknowledged", PHASE_LIMIT, async || {
            workload.ledger().first_after(death)
        })
        .await
    };
    let (lease_gone, (leader, taken_at), (new, promoted_at), write_at) =
        tokio::try_join!(lease_gone, lock_taken, promoted, first_write)?;
    watch.lap("lease gone", lease_gone);
    watch.lap(&format!("lock taken by {leader}"), taken_at);
    watch.lap(&format!("{} promoted", cluster.node(new)?.name), promoted_at);
    watch.lap("first write through HAProxy", write_at);

    watch.lap(&format!("{name} started again"), boottime::now());
    cluster.node_mut(old)?.start()?;
    let primary = cluster.wait_whole(PHASE_LIMIT).await?;
    cluster.wait_caught_up(primary, &[old], PHASE_LIMIT).await?;
    let rejoin = mark.compare()?;
    watch.lap(&format!("{name} rejoined {rejoin}"), boottime::now());

    workload.wait_acked(ROWS, PHASE_LIMIT).await?;
    workload.hold().await?;
    let ledger = workload.ledger();
    let missing = workload.missing(cluster.node(primary)?.postgres).await?;
    let (gap, _) = ledger.longest_gap(Duration::ZERO);
    console.block(&watch.table().to_string());
    console.line(&format!(
        "{} rows acknowledged, {} of unknown fate, {} missing; longest time without a write {:.2} s",
        ledger.acked.len(),
        ledger.unknown.len(),
        missing.len(),
        gap.as_secs_f64()
    ));
    ensure!(missing.is_empty(), "acknowledged rows are missing: {missing:?}");
    Ok(())
}

/// Lets the primary write what no standby gets.
async fn go_astray(cluster: &Cluster, primary: usize) -> Result<RejoinMark> {
    let node = cluster.node(primary)?;
    node.freeze_wal_senders()?;
    node.sql()
        .await?
        .run("CREATE TABLE pgha_astray AS SELECT generate_series(1, 1000) AS n")
        .await?;
    RejoinMark::take(&node.data_dir)
}

struct Stopwatch {
    start: Duration,
    last: Duration,
    rows: Vec<[String; 3]>,
}

impl Stopwatch {
    fn start(what: &str) -> Self {
        let start = boottime::now();
        Self {
            start,
            last: start,
            rows: vec![[what.to_owned(), "0.00 s".to_owned(), String::new()]],
        }
    }

    fn lap(&mut self, what: &str, at: Duration) {
        let total = at.saturating_sub(self.start).as_secs_f64();
        // Two phases can end between two looks, and be seen in the other order.
        let phase = at.saturating_sub(self.last).as_secs_f64();
        self.rows
            .push([what.to_owned(), format!("{total:.2} s"), format!("+{phase:.2} s")]);
        self.last = self.last.max(at);
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(UTF8_BORDERS_ONLY).set_header(["Phase", "At", "Took"]);
        for row in &self.rows {
            table.add_row(row);
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }
}
