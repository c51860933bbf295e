//! A job is running. Only hold, cancel or fence can be decided until it ends.

use alloc::format;

use super::{Action, Decision, act, ask_once, handover, hold_leader_key_if_due, rest, take_over_own_key};
use crate::cluster::DcsView;
use crate::job::Job;
use crate::plan;
use crate::race;
use crate::rule::Rule;
use crate::view::{RunningJob, View};

pub(super) fn decide(v: &View, running: &RunningJob) -> Decision {
    if !running.cancelled
        && let Some(decision) = cancel(v, running)
    {
        return decision;
    }
    if let Some(take_over) = v.cluster().and_then(|c| take_over_own_key(v, c)) {
        return take_over;
    }
    if v.holds_leader_key() {
        if let Some(hold) = hold_leader_key_if_due(v, Rule::JobHoldLeaderKey) {
            return hold;
        }
        if let (Some(cluster), Some(plan)) = (v.cluster(), &v.memory.handover)
            && plan.checkpoint.is_some()
        {
            return handover::decide_after_checkpoint(v, cluster, plan);
        }
    }
    rest(Rule::JobInProgress, format!("{} in progress", describe(&running.job)))
}

fn cancel(v: &View, running: &RunningJob) -> Option<Decision> {
    if v.memory.terminating && may_be_cut_short(&running.job) {
        return Some(act(
            Rule::JobCancelShutdown,
            Action::CancelJob,
            "the daemon was told to stop",
        ));
    }
    if v.memory.wishes.reinitialize.is_some_and(|r| r.force) && may_be_cut_short(&running.job) {
        return Some(act(
            Rule::JobCancelForced,
            Action::CancelJob,
            "a reinitialisation was forced",
        ));
    }
    if !plan::makes_writable(&running.job) || v.settings().pause {
        return None;
    }
    if lost_leadership(v) {
        let what = describe(&running.job);
        return Some(act(
            Rule::JobCancelLostLeadership,
            Action::CancelJob,
            format!("lost leader lock during {what}"),
        ));
    }
    start_timeout(v, running)
}

/// A start that takes too long is cut short only when somebody else can lead.
fn start_timeout(v: &View, running: &RunningJob) -> Option<Decision> {
    let limit = v.settings().primary_start_timeout;
    let since = v.memory.primary_down_since.unwrap_or(running.since);
    if !matches!(running.job, Job::Start { .. }) || limit.is_zero() || v.now.mono.since(since) < limit {
        return None;
    }
    let cluster = v.cluster()?;
    if let Some(ask) = ask_once(
        v,
        Rule::JobAskPeers,
        race::askable(v, cluster),
        "the primary did not start within primary_start_timeout",
    ) {
        return Some(ask);
    }
    let (fit, _) = race::candidates(v, cluster, None, None, v.settings().is_synchronous());
    if fit.is_empty() {
        return None;
    }
    Some(act(
        Rule::JobCancelStartTimeout,
        Action::CancelJob,
        "stopped PostgreSQL because of startup timeout",
    ))
}

/// Leadership is lost for certain, or its last proof has run out.
fn lost_leadership(v: &View) -> bool {
    let leader = match &v.dcs {
        DcsView::Fresh(c) => Some(c.leader_name()),
        DcsView::NotRead | DcsView::Unreachable { .. } => None,
    };
    let somebody_else = leader.is_some_and(|name| name != Some(&v.me.name));
    somebody_else || v.memory.cycle.refuted || v.live_proof().is_none()
}

/// Jobs that leave nothing behind which the next start could not repair.
fn may_be_cut_short(job: &Job) -> bool {
    match job {
        Job::Bootstrap | Job::Clone { .. } | Job::CheckDivergence { .. } | Job::Start { .. } | Job::Follow { .. } => {
            true
        }
        Job::Stop { .. }
        | Job::Restart { .. }
        | Job::Promote
        | Job::CrashRecovery
        | Job::Rewind { .. }
        | Job::DiscardDataDir { .. } => false,
    }
}

/// Patroni's words for a job, as its REST answers use them.
pub(crate) fn describe(job: &Job) -> &'static str {
    match job {
        Job::Bootstrap => "bootstrap",
        Job::Clone { .. } => "creating replica",
        Job::Start { .. } => "starting",
        Job::Stop { .. } => "stopping",
        Job::Restart { .. } => "restart",
        Job::Promote => "promote",
        Job::Follow { .. } => "changing primary_conninfo",
        Job::CheckDivergence { .. } => "checking timelines",
        Job::CrashRecovery => "doing crash recovery in a single user mode",
        Job::Rewind { .. } => "running pg_rewind",
        Job::DiscardDataDir { .. } => "reinitialize",
    }
}
