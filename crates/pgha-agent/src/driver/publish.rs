//! Turns what the node knows into what the REST API shows.

use std::collections::BTreeMap;
use std::time::Duration;

use pgha_core::failsafe;
use pgha_core::job::{Job, StartRole, StopMode, Upstream};
use pgha_core::node::Node;
use pgha_core::pg::PgView;
use pgha_core::plan;
use pgha_core::rule::Rule;
use pgha_core::units::{Mono, SystemId, Wall};
use pgha_core::view::{LeadsUntil, View, WatchdogView};
use pgha_wire::rest::status::{Counters, DecisionNote, LeaderUntil, NodeStatus, SyncStanding};

/// What the driver counts beside the node.
#[derive(Debug, Default)]
pub struct Tally {
    /// Decisions by rule number.
    pub decisions: BTreeMap<u16, u64>,
    /// Promotions.
    pub promotions: u64,
    /// Demotions.
    pub demotions: u64,
    /// Unix time of etcd's last answer.
    pub dcs_last_seen: Option<Wall>,
    /// Duration of the last cycle.
    pub loop_duration: Option<Duration>,
    /// The rule that was logged last.
    pub last_rule: Option<Rule>,
}

/// The status to publish. `live` is a newer look at PostgreSQL than the node's own, when somebody asked for one.
pub fn node_status(node: &Node, tally: &Tally, live: Option<&PgView>, next_run: Mono) -> NodeStatus {
    let v = node.view();
    let pg = live.unwrap_or(&v.pg);
    let cluster = v.last_cluster();
    let reachable = v.cluster().is_some();
    NodeStatus {
        name: v.me.name.clone(),
        scope: v.me.scope.clone(),
        version: crate::VERSION.to_owned(),
        system_id: system_id(v),
        state: plan::member_state(v),
        role: plan::member_role(v),
        postmaster_running: pg.is_running(),
        sql: pg.facts().cloned(),
        sync_standing: sync_standing(v),
        leader_until: match v.leads_until() {
            Some(LeadsUntil::Proven(deadline)) => LeaderUntil::Proven(deadline),
            Some(LeadsUntil::Lifted(until)) => LeaderUntil::Lifted(until),
            None => LeaderUntil::NotLeader,
        },
        may_write: v.may_write(),
        standby_cluster: v.settings().standby_cluster.is_some(),
        pause: v.settings().pause,
        cluster_unlocked: !reachable || cluster.is_none_or(|c| c.leader.is_none()),
        dcs_reachable: reachable,
        dcs_last_seen_s: tally
            .dcs_last_seen
            .map_or(0, |w| u64::try_from(w.0 / 1_000_000).unwrap_or(0)),
        failsafe_enabled: v.settings().failsafe_mode,
        failsafe_active: failsafe::is_active(v),
        failsafe_leader: failsafe::word(v).map(|word| word.leader.clone()),
        failsafe_member: cluster
            .and_then(|c| c.failsafe.as_ref())
            .is_some_and(|key| key.members.contains_key(&v.me.name)),
        optime: cluster.and_then(|c| c.status.as_ref()).map(|s| s.optime),
        maximum_lag_on_failover: v.settings().maximum_lag_on_failover,
        tags: v.me.tags.clone(),
        release_from_sync: plan::asks_for_release(v),
        pending_restart: pg.facts().map(|f| f.pending_restart.clone()).unwrap_or_default(),
        scheduled_restart: v.memory.wishes.scheduled_restart.as_ref().map(|s| s.text.clone()),
        watchdog_failed: v.me.watchdog_required && v.memory.watchdog == WatchdogView::Failed,
        next_run,
        ttl: v.settings().ttl,
        loop_duration: tally.loop_duration,
        decision: node.last_decision().map(|(d, _)| DecisionNote {
            rule: d.rule.number(),
            text: d.because.clone(),
            waits_for: d.wake_at.map(|at| format!("{} ms", at.since(v.now.mono).as_millis())),
        }),
        job: v
            .memory
            .job
            .as_ref()
            .map(|j| job_text(&j.job, j.copied, j.step.as_deref())),
        diverged_wal: v.diverged_wal(),
        counters: Counters {
            decisions: tally.decisions.clone(),
            promotions: tally.promotions,
            demotions: tally.demotions,
            discarded_wal_bytes: v.memory.discarded_wal_bytes,
        },
    }
}

fn system_id(v: &View) -> Option<SystemId> {
    v.pg.control().map(|c| c.system_id)
}

fn sync_standing(v: &View) -> SyncStanding {
    let Some(sync) = v.last_cluster().and_then(|c| c.sync.as_ref()) else {
        return SyncStanding::None;
    };
    let listed = sync
        .standbys
        .iter()
        .any(|n| n.as_str().eq_ignore_ascii_case(v.me.name.as_str()));
    match (listed && v.settings().is_synchronous(), v.settings().synchronous_mode) {
        (false, _) | (true, pgha_core::settings::SynchronousMode::Off) => SyncStanding::None,
        (true, pgha_core::settings::SynchronousMode::On) => SyncStanding::Sync,
        (true, pgha_core::settings::SynchronousMode::Quorum) => SyncStanding::Quorum,
    }
}

/// A job in a few words, for the log.
pub fn describe(job: &Job) -> String {
    let of = |upstream: &Option<Upstream>| match upstream {
        Some(u) => format!("standby of {}", u.name),
        None => "standby of nobody".to_owned(),
    };
    let role = |role: &StartRole| match role {
        StartRole::Primary => "primary".to_owned(),
        StartRole::Standby { upstream } => of(upstream),
    };
    match job {
        Job::Bootstrap => "bootstrap of a new cluster".to_owned(),
        Job::Clone { source } => format!("base backup from {}", source.name),
        Job::Start { role: r, .. } => format!("start as {}", role(r)),
        Job::Stop {
            mode: StopMode::Fast, ..
        } => "fast shutdown".to_owned(),
        Job::Stop {
            mode: StopMode::Immediate,
            ..
        } => "immediate shutdown".to_owned(),
        Job::Restart { role: r, .. } => format!("restart as {}", role(r)),
        Job::Promote => "promotion".to_owned(),
        Job::Follow { upstream } => format!("change to {}", of(upstream)),
        Job::CheckDivergence { source } => format!("comparison with the history of {}", source.name),
        Job::CrashRecovery => "crash recovery in single-user mode".to_owned(),
        Job::Rewind { source, .. } => format!("pg_rewind from {}", source.name),
        Job::DiscardDataDir { keep_aside: true, .. } => "putting the data directory aside".to_owned(),
        Job::DiscardDataDir { keep_aside: false, .. } => "removal of the data directory".to_owned(),
    }
}

fn job_text(job: &Job, copied: Option<(u64, u64)>, step: Option<&str>) -> String {
    let name = plan::describe_job(job);
    match (copied, step) {
        (Some((done, total)), _) if total > 0 => format!("{name}: {} %", done.saturating_mul(100) / total),
        (Some((done, _)), _) => format!("{name}: {} MB", done / 1_048_576),
        (None, Some(step)) => format!("{name}: {step}"),
        (None, None) => name.to_owned(),
    }
}
