//! The fault rig: scenario files, the same that the simulator replays, on real machines.
//!
//! Every node and every member of etcd is a host of its own ([`crate::netns`]). While the plan runs, a client writes and
//! remembers what was acknowledged, one probe tries to write on every node, another one asks every health check. In the
//! end the faults are over and the cluster must be whole, nothing that was acknowledged may be missing, and no two nodes
//! may ever have been primary at once, by what they accepted or by what they said.
//!
//! In a synchronous mode the agent alone decides what a commit waits for; in the asynchronous one PostgreSQL does, by a list
//! that the rig gives it, so that the loss of one node never excuses a missing row.
//!
//! *Absent on purpose:* bounds in seconds. How long writes were blocked is printed, not judged: machines are noisy.

mod cgroup;
pub(crate) mod disk;
mod inject;
pub mod means;
mod rest_probe;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pgha_sim::faults::Span;
use pgha_sim::plan::{Lasts, LeaderFate, Plan};
use pgha_sim::settings::SynchronousMode;
use serde_json::json;

use crate::boottime;
use crate::cluster::{BOOT_LIMIT, Cluster, ClusterSpec};
use crate::netns;
use crate::probe::WritabilityProbe;
use crate::programs::repository;
use crate::sync_key::SyncKey;
use crate::workload::{Target, Workload};
use inject::{Active, Led};
use rest_probe::RestProbe;

/// Members of etcd.
const ETCD_MEMBERS: usize = 3;
/// Limit until the cluster is whole after the last fault.
const HEAL_LIMIT: Duration = Duration::from_secs(120);
/// The client's pause between two rows.
const PAUSE: Duration = Duration::from_millis(2);
/// Rows before the first fault and after the last, so that there is something to lose and something to gain.
const ROWS: usize = 100;
/// Size of a node's file system where a scenario fills it.
const SMALL_DISK: &str = "600m";

/// A scenario file.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Its name: `F01`.
    pub name: String,
    /// Its first comment: what happens.
    pub title: String,
    /// What to do.
    pub plan: Plan,
}

/// Where the scenario files are.
pub fn directory() -> PathBuf {
    repository().join("integration/faults")
}

/// All scenarios, by name.
pub fn scenarios() -> Result<Vec<Scenario>> {
    let dir = directory();
    let entries = std::fs::read_dir(&dir).with_context(|| dir.display().to_string())?;
    let mut paths = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<PathBuf>>>()?;
    paths.sort();
    paths.iter().map(|path| Scenario::read(path)).collect()
}

impl Scenario {
    /// Reads one file.
    pub fn read(path: &Path) -> Result<Self> {
        let at = || path.display().to_string();
        let text = std::fs::read_to_string(path).with_context(at)?;
        let plan = Plan::parse(&text).with_context(at)?;
        let comment = text.lines().next().and_then(|line| line.strip_prefix("# "));
        Ok(Self {
            name: path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
            title: comment
                .with_context(at)
                .context("the first line is no comment")?
                .to_owned(),
            plan,
        })
    }

    /// Why it cannot run here.
    pub fn lacking(&self) -> Option<String> {
        means::lacking().or_else(|| self.plan.faults.iter().find_map(|fault| means::lacking_for(fault.kind)))
    }

    /// Runs it. Call it on a thread that does nothing else: it gets a network of its own.
    pub fn run(&self) -> Result<Report> {
        netns::enter_private()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let report = runtime.block_on(self.run_here()).with_context(|| self.name.clone());
        runtime.shutdown_background();
        report
    }

    async fn run_here(&self) -> Result<Report> {
        let mut cluster = self.cluster().await?;
        let first = cluster.wait_whole(BOOT_LIMIT).await?;
        self.wait_synchronous(&cluster).await?;
        let probe = WritabilityProbe::start(&cluster).await?;
        let rest = RestProbe::start(&cluster);
        let workload = Workload::start(&cluster, Target::Nodes(cluster.postgres_addrs()), PAUSE).await?;
        workload.wait_acked(ROWS, BOOT_LIMIT).await?;

        let from = boottime::now();
        let gone = self.inject(&mut cluster).await?;
        let left: BTreeSet<usize> = (0..cluster.nodes.len()).filter(|n| !gone.contains(n)).collect();
        let last = cluster.wait_whole_of(&left, HEAL_LIMIT).await?;
        self.wait_synchronous(&cluster).await?;
        workload
            .wait_acked(ROWS, HEAL_LIMIT)
            .await
            .with_context(|| cluster.log_tails())?;
        workload.hold().await?;

        workload.check_nothing_lost(cluster.node(last)?.postgres).await?;
        probe.check()?;
        rest.check()?;
        match self.plan.leader {
            None => {}
            Some(LeaderFate::Stays) => ensure!(first == last, "the leader moved{}", cluster.log_tails()),
            Some(LeaderFate::Moves) => ensure!(first != last, "the leader stayed{}", cluster.log_tails()),
        }
        let ledger = workload.ledger();
        Ok(Report {
            name: self.name.clone(),
            title: self.title.clone(),
            moved: first != last,
            acked: ledger.acked.len(),
            unknown: ledger.unknown.len(),
            gap: ledger.longest_gap(from).0,
        })
    }

    async fn cluster(&self) -> Result<Cluster> {
        let settings = &self.plan.settings;
        let seconds = |value: u64| u32::try_from(value).context("so long a time");
        let fault = |form: &str| self.plan.faults.iter().any(|fault| fault.kind.form == form);
        let mut spec = ClusterSpec::new(&format!("fault-{}", self.name.to_lowercase()))
            .nodes(settings.nodes)
            .etcd_members(ETCD_MEMBERS)
            .timings(
                seconds(settings.ttl)?,
                seconds(settings.loop_wait)?,
                seconds(settings.retry_timeout)?,
            )
            // A rewind whose source dies leaves a directory that only a person may give up, unless that is allowed.
            .local(json!({"postgresql": {"remove_data_directory_on_rewind_failure": true}}))
            .dcs(json!({"failsafe_mode": settings.failsafe}))
            .own_hosts();
        spec = match settings.sync {
            SynchronousMode::Off => spec.quorum_commit(),
            SynchronousMode::On => spec.dcs(json!({"synchronous_mode": true})),
            SynchronousMode::Quorum => spec.dcs(json!({"synchronous_mode": "quorum"})),
        };
        if settings.sync_strict {
            spec = spec.dcs(json!({"synchronous_mode_strict": true}));
        }
        if fault("hang archive of NODE") {
            let command = format!("while test -e {}; do sleep 0.2; done", inject::ARCHIVE_HANGS);
            spec = spec.dcs(json!({"postgresql": {"parameters": {"archive_mode": "on", "archive_command": command}}}));
        }
        if fault("fill disk of NODE") {
            return spec.start_on_small_disks(SMALL_DISK).await;
        }
        spec.start().await
    }

    /// In a synchronous mode, waits until `/sync` names whom it shall name: until then commits may wait.
    async fn wait_synchronous(&self, cluster: &Cluster) -> Result<()> {
        let standbys = match self.plan.settings.sync {
            SynchronousMode::Off => return Ok(()),
            SynchronousMode::On => 1,
            SynchronousMode::Quorum => cluster.nodes.len() - 1,
        };
        SyncKey::wait(cluster, standbys, HEAL_LIMIT).await.map(drop)
    }

    /// Does what the plan says at its times, then ends every fault but those that last for ever. Returns the nodes that
    /// are lost for good.
    async fn inject(&self, cluster: &mut Cluster) -> Result<BTreeSet<usize>> {
        let start = boottime::now();
        let first = self.plan.faults.iter().map(|fault| fault.at).min().unwrap_or(0);
        let mut calendar: BTreeMap<(u64, usize), Step> = BTreeMap::new();
        for (number, fault) in self.plan.faults.iter().enumerate() {
            calendar.insert((fault.at - first, number), Step::Begin);
        }
        let mut active: BTreeMap<usize, Active> = BTreeMap::new();
        let mut led = Led::default();
        while let Some(((at, number), step)) = calendar.pop_first() {
            let due = start + Duration::from_nanos(at);
            tokio::time::sleep(due.saturating_sub(boottime::now())).await;
            let fault = self.plan.faults.get(number).context("the calendar knows the plan")?;
            match step {
                Step::Begin => {
                    let begun = inject::begin(cluster, fault, &mut led)
                        .await
                        .with_context(|| fault.to_string())?;
                    active.insert(number, begun);
                    if let (Lasts::For(time), true) = (fault.lasts, fault.kind.span != Span::Instant) {
                        calendar.insert((at + time, number), Step::End);
                    }
                }
                Step::End => {
                    if let Some(over) = active.remove(&number) {
                        inject::end(cluster, over)
                            .await
                            .with_context(|| format!("end of {fault}"))?;
                    }
                }
            }
        }
        let mut gone = BTreeSet::new();
        for (number, over) in active {
            let for_ever = self
                .plan
                .faults
                .get(number)
                .is_some_and(|fault| fault.lasts == Lasts::Ever);
            match over {
                Active::Down(node) if for_ever => {
                    gone.insert(node);
                }
                over => inject::end(cluster, over).await?,
            }
        }
        Ok(gone)
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Begin,
    End,
}

/// What a run has shown.
#[derive(Clone, Debug)]
pub struct Report {
    name: String,
    title: String,
    moved: bool,
    acked: usize,
    unknown: usize,
    gap: Duration,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let leader = if self.moved { "leader moved" } else { "leader stayed" };
        write!(
            f,
            "{}  {}: {leader}, no commit for {:.2} s, {} rows acknowledged, 0 missing, {} of unknown fate",
            self.name,
            self.title,
            self.gap.as_secs_f64(),
            self.acked,
            self.unknown
        )
    }
}
