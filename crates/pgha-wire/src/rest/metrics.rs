//! `GET /metrics`: Patroni's series in Patroni's order, pgha's own behind them.

use std::fmt::Display;
use std::fmt::Write;

use pgha_core::cluster::{MemberRole, MemberState};
use pgha_core::pg::SqlRole;
use pgha_core::units::Mono;

use super::status::{LeaderUntil, NodeStatus, SyncStanding, replication_state, standby_positions};
use crate::isotime::epoch_seconds;
use crate::texts::{state_legend, state_number};

/// The body of `GET /metrics`.
pub fn render_metrics(status: &NodeStatus, now: Mono) -> String {
    let name = escape_label(status.name.as_str());
    let mut page = Page {
        labels: format!("scope=\"{}\",name=\"{name}\"", escape_label(&status.scope)),
        out: String::new(),
    };
    put_postgres(&mut page, status);
    put_agent(&mut page, status);
    put_own(&mut page, status, now);
    page.out
}

struct Page {
    labels: String,
    out: String,
}

impl Page {
    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.series("gauge", name, help, value);
    }

    fn flag(&mut self, name: &str, help: &str, value: bool) {
        self.gauge(name, help, u8::from(value));
    }

    fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.series("counter", name, help, value);
    }

    fn series(&mut self, kind: &str, name: &str, help: &str, value: impl Display) {
        self.head(kind, name, help, "");
        self.sample(name, "", value);
    }

    fn head(&mut self, kind: &str, name: &str, help: &str, between: &str) {
        self.line(format_args!("# HELP {name} {help}\n{between}# TYPE {name} {kind}"));
    }

    fn sample(&mut self, name: &str, more_labels: &str, value: impl Display) {
        let labels = self.labels.clone();
        self.line(format_args!("{name}{{{labels}{more_labels}}} {value}"));
    }

    fn line(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing into a String does not fail.
        writeln!(self.out, "{text}").unwrap_or_default();
    }
}

fn put_postgres(page: &mut Page, status: &NodeStatus) {
    let facts = status.answer();
    let role = status.shown_role();
    let standby = facts.and_then(|f| match &f.role {
        SqlRole::Standby(s) => Some(s),
        SqlRole::Primary { .. } => None,
    });
    let location = facts.map_or(0, |f| match &f.role {
        SqlRole::Primary { flush, .. } => flush.0,
        SqlRole::Standby(_) => 0,
    });
    let (received, replayed) = facts.and_then(standby_positions).unwrap_or_default();
    let started = facts
        .and_then(|f| epoch_seconds(&f.postmaster_start_time))
        .unwrap_or_default();
    let replayed_at = standby
        .and_then(|s| epoch_seconds(s.replayed_timestamp.as_deref()?))
        .unwrap_or_default();

    page.gauge(
        "patroni_version",
        "Patroni semver without periods.",
        padded_version(&status.version),
    );
    page.flag(
        "patroni_postgres_running",
        "Value is 1 if Postgres is running, 0 otherwise.",
        status.shown_state() == MemberState::Running,
    );
    page.gauge(
        "patroni_postmaster_start_time",
        "Epoch seconds since Postgres started.",
        started,
    );
    page.flag(
        "patroni_primary",
        "Value is 1 if this node is the leader, 0 otherwise.",
        role == MemberRole::Primary,
    );
    page.counter(
        "patroni_xlog_location",
        "Current location of the Postgres transaction log, 0 if this node is not the leader.",
        location,
    );
    page.flag(
        "patroni_standby_leader",
        "Value is 1 if this node is the standby_leader, 0 otherwise.",
        role == MemberRole::StandbyLeader,
    );
    page.flag(
        "patroni_replica",
        "Value is 1 if this node is a replica, 0 otherwise.",
        role == MemberRole::Replica,
    );
    page.flag(
        "patroni_sync_standby",
        "Value is 1 if this node is a sync standby, 0 otherwise.",
        status.shown_sync() == SyncStanding::Sync,
    );
    page.flag(
        "patroni_quorum_standby",
        "Value is 1 if this node is a quorum standby, 0 otherwise.",
        status.shown_sync() == SyncStanding::Quorum,
    );
    page.counter(
        "patroni_xlog_received_location",
        "Current location of the received Postgres transaction log, 0 if this node is not a replica.",
        received.0,
    );
    page.counter(
        "patroni_xlog_replayed_location",
        "Current location of the replayed Postgres transaction log, 0 if this node is not a replica.",
        replayed.0,
    );
    page.gauge(
        "patroni_xlog_replayed_timestamp",
        "Current timestamp of the replayed Postgres transaction log, 0 if null.",
        replayed_at,
    );
    page.flag(
        "patroni_xlog_paused",
        "Value is 1 if the Postgres xlog is paused, 0 otherwise.",
        standby.is_some_and(|s| s.replay_paused),
    );
    if let Some(facts) = facts {
        let replication = replication_state(facts);
        page.flag(
            "patroni_postgres_streaming",
            "Value is 1 if Postgres is streaming, 0 otherwise.",
            replication == Some("streaming"),
        );
        page.flag(
            "patroni_postgres_in_archive_recovery",
            "Value is 1 if Postgres is replicating from archive, 0 otherwise.",
            replication == Some("in archive recovery"),
        );
    }
    page.gauge(
        "patroni_postgres_server_version",
        "Version of Postgres (if running), 0 otherwise.",
        facts.map_or(0, |f| f.server_version),
    );
}

fn put_agent(page: &mut Page, status: &NodeStatus) {
    page.flag(
        "patroni_cluster_unlocked",
        "Value is 1 if the cluster is unlocked, 0 if locked.",
        status.cluster_unlocked,
    );
    page.flag(
        "patroni_failsafe_mode_is_active",
        "Value is 1 if failsafe mode is active, 0 if inactive.",
        status.failsafe_active,
    );
    page.flag(
        "patroni_failsafe_mode_enabled",
        "Value is 1 if failsafe mode is enabled, 0 otherwise.",
        status.failsafe_enabled,
    );
    page.flag(
        "patroni_failsafe_member",
        "Value is 1 if this node is listed in the failsafe key, 0 otherwise.",
        status.failsafe_member,
    );
    page.gauge(
        "patroni_postgres_timeline",
        "Postgres timeline of this node (if running), 0 otherwise.",
        status.answer().and_then(|f| f.timeline()).map_or(0, |t| t.0),
    );
    page.gauge(
        "patroni_dcs_last_seen",
        "Epoch timestamp when DCS was last contacted successfully by Patroni.",
        status.dcs_last_seen_s,
    );
    page.flag(
        "patroni_pending_restart",
        "Value is 1 if the node needs a restart, 0 otherwise.",
        !status.pending_restart.is_empty(),
    );
    page.flag(
        "patroni_is_paused",
        "Value is 1 if auto failover is disabled, 0 otherwise.",
        status.pause,
    );
    let legend = format!("# Values: {}\n", state_legend());
    page.head(
        "gauge",
        "patroni_postgres_state",
        "Numeric representation of Postgres state.",
        &legend,
    );
    page.sample("patroni_postgres_state", "", state_number(status.shown_state()));
    page.gauge(
        "patroni_failover_priority",
        "Failover priority of this node, 0 if it must not be promoted.",
        status.tags.effective_failover_priority(),
    );
}

/// A series whose value is not known is left out rather than shown as zero.
fn put_own(page: &mut Page, status: &NodeStatus, now: Mono) {
    if let Some(duration) = status.loop_duration {
        page.gauge(
            "pgha_loop_duration_seconds",
            "Duration of the last cycle.",
            duration.as_secs_f64(),
        );
    }
    if let Some(facts) = status.answer() {
        page.gauge(
            "pgha_postgres_response_time_seconds",
            "Response time of the last SELECT 1 on the local Postgres.",
            facts.response_time.as_secs_f64(),
        );
    }
    if let LeaderUntil::Proven(deadline) = status.leader_until {
        page.gauge(
            "pgha_fence_margin_seconds",
            "Time left until the fence stops Postgres unless leadership is proven again.",
            deadline.since(now).as_secs_f64(),
        );
    }
    if let Some(decision) = &status.decision {
        page.gauge(
            "pgha_last_decision_rule",
            "Number of the rule of the last decision.",
            decision.rule,
        );
    }
    if !status.counters.decisions.is_empty() {
        page.head(
            "counter",
            "pgha_decisions_total",
            "Decisions by number of their rule.",
            "",
        );
        for (rule, count) in &status.counters.decisions {
            page.sample("pgha_decisions_total", &format!(",rule=\"{rule}\""), count);
        }
    }
    page.counter(
        "pgha_promotions_total",
        "Promotions of the local Postgres.",
        status.counters.promotions,
    );
    page.counter(
        "pgha_demotions_total",
        "Demotions of the local Postgres.",
        status.counters.demotions,
    );
    page.gauge(
        "pgha_diverged_wal_bytes",
        "Bytes of local WAL that are not in the history of the leader and will be discarded.",
        status.diverged_wal.map_or(0, |wal| wal.bytes()),
    );
    page.counter(
        "pgha_discarded_wal_bytes_total",
        "Bytes of WAL outside of the history of the leader that were discarded by pg_rewind or a new clone.",
        status.counters.discarded_wal_bytes,
    );
}

/// `4.1.5` is `040105`. What is no number in it counts as 0, so that the line stays valid.
fn padded_version(version: &str) -> String {
    version
        .split('.')
        .map(|part| format!("{:02}", part.parse::<u32>().unwrap_or_default()))
        .collect()
}

fn escape_label(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
