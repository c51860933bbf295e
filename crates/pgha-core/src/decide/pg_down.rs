//! There is a cluster on disk and no postmaster: in which role may it be started?

use alloc::format;
use core::time::Duration;

use super::{
    Action, Decision, act, ask_once, backoff, follow, handover, hold_leader_key_if_due, no_data_dir, no_leader, rest,
    rest_until, scope_lost, soon, upstream, wanted_upstream,
};
use crate::cluster::{ClusterView, Initialize, MemberRole};
use crate::job::{Job, JobFailure, StartRole};
use crate::pg::{ControlData, ControlState};
use crate::planted::{Planted, planted};
use crate::race;
use crate::rewind::{Verdict, judge};
use crate::rule::Rule;
use crate::units::MemberName;
use crate::view::{Divergence, View, WatchdogView};

/// Tries of pg_rewind before it is called hopeless.
const REWIND_TRIES: u32 = 3;
/// How long a node that handed over leaves the others alone before it starts PostgreSQL without a leader.
const STEP_DOWN_GRACE: Duration = Duration::from_secs(2);

pub(super) fn decide(v: &View, c: &ClusterView, control: &ControlData) -> Decision {
    // A reinitialisation needs a leader; a wish for one is no permission to start PostgreSQL.
    let reinitializes = v.memory.wishes.reinitialize.is_some() && c.leader_name().is_some_and(|l| *l != v.me.name);
    if v.settings().pause && !reinitializes && !planted(v, Planted::RestartInPause) {
        return decide_paused(v);
    }
    if v.holds_leader_key() {
        return decide_leading(v, c, control);
    }
    match c.leader_name() {
        Some(leader) if *leader != v.me.name => decide_following(v, c, control, leader),
        Some(_) | None => decide_leaderless(v, c, control),
    }
}

fn decide_paused(v: &View) -> Decision {
    let lost = v.memory.cycle.refuted || v.memory.cycle.dcs_silent;
    if v.holds_leader_key() && !lost {
        return act(
            Rule::DownPausedRelease,
            Action::ReleaseLeaderKey { optime: None },
            "PAUSE: removed leader lock because postgres is not running",
        );
    }
    rest(Rule::DownPaused, "PAUSE: postgres is not running")
}

// ---- the key is ours ----

fn decide_leading(v: &View, c: &ClusterView, control: &ControlData) -> Decision {
    if v.memory.cycle.refuted {
        return act(
            Rule::LeadRefuted,
            Action::LookAgain,
            "failed to update leader lock: looking again who leads",
        );
    }
    if let Some(hold) = hold_leader_key_if_due(v, Rule::DownHoldLeaderKey) {
        return hold;
    }
    if v.live_proof_of_key().is_none() {
        return soon(
            v,
            Rule::DownHoldLeaderKey,
            "PostgreSQL is down and my leadership is not proven",
        );
    }
    if let Some(wait) = no_leader::wait_for_word(v, Rule::LeadFailsafeWord) {
        return wait;
    }
    if let Some(plan) = &v.memory.handover
        && plan.checkpoint.is_some()
    {
        return handover::decide_after_checkpoint(v, c, plan);
    }
    let timeline = Some(control.checkpoint_timeline).max(v.memory.timeline_floor);
    if let (Some(mine), Some(cluster)) = (timeline, c.timeline_by_history())
        && mine < cluster
    {
        return act(
            Rule::LeadTimelineBehind,
            Action::ReleaseLeaderKey { optime: None },
            format!("My timeline {mine} is behind last known cluster timeline {cluster}"),
        );
    }
    if let Some(failure) = v.memory.failures.promote.as_ref()
        && v.now.mono < failure.at.plus(v.settings().ttl)
    {
        return act(
            Rule::LeadPromotionFailed,
            Action::ReleaseLeaderKey { optime: None },
            format!("Promotion cancelled: {}", failure.reason),
        );
    }
    if control.recovery_signal {
        return match backoff(v, v.memory.failures.start.as_ref()) {
            Some(until) => rest_until(Rule::DownStartBackoff, "failed to start postgres", until),
            None => start_standby(
                v,
                Rule::DownStartStandbyWithLock,
                None,
                "starting as readonly because i had the session lock",
            ),
        };
    }
    restart_primary(v, c)
}

/// A crash under a live agent: start again at once; give leadership away when that does not work and somebody can lead.
fn restart_primary(v: &View, c: &ClusterView) -> Decision {
    if v.me.watchdog_required && v.memory.watchdog == WatchdogView::Failed {
        let because = "Not starting as primary because watchdog could not be activated";
        return act(Rule::LeadWatchdog, Action::ReleaseLeaderKey { optime: None }, because);
    }
    let limit = v.settings().primary_start_timeout;
    let failed = v.memory.failures.start.is_some();
    let down_for = v
        .memory
        .primary_down_since
        .map_or(Duration::ZERO, |since| v.now.mono.since(since));
    // A start that fails outright, rather than taking long, is not waited for until the time-out (failures.md, pain 3).
    let give_up =
        limit.is_zero() || down_for >= limit || v.memory.failures.start.as_ref().is_some_and(|f| f.times >= 2);
    if give_up {
        let who = race::askable(v, c);
        if let Some(ask) = ask_once(
            v,
            Rule::DownAskPeers,
            who,
            "PostgreSQL does not start; can somebody else lead?",
        ) {
            return ask;
        }
        let (fit, why_not) = race::candidates(v, c, None, None, v.settings().is_synchronous());
        if let Some(name) = fit.first() {
            return act(
                Rule::DownFailover,
                Action::ReleaseLeaderKey { optime: None },
                format!("Primary crashed. Failing over: {name} can lead"),
            );
        }
        if let Some(until) = backoff(v, v.memory.failures.start.as_ref()) {
            let why = why_not.join("; ");
            return rest_until(
                Rule::DownKeepTrying,
                format!("primary start has timed out, but continuing to wait because failover is not possible: {why}"),
                until,
            );
        }
    } else if failed && let Some(until) = backoff(v, v.memory.failures.start.as_ref()) {
        return rest_until(
            Rule::DownStartBackoff,
            "failed to start postgres; trying again in a moment",
            until,
        );
    }
    let timeout = if limit.is_zero() {
        Duration::from_secs(300)
    } else {
        limit
    };
    let because = if v.memory.primary_down_since.is_some() || failed {
        "starting primary after failure"
    } else {
        "starting as primary because i had the session lock"
    };
    let role = StartRole::Primary;
    act(
        Rule::DownRestartPrimary,
        Action::Begin(Job::Start { role, timeout }),
        because,
    )
}

// ---- somebody else leads ----

fn decide_following(v: &View, c: &ClusterView, control: &ControlData, leader: &MemberName) -> Decision {
    if let Some(wish) = v.memory.wishes.reinitialize {
        if let Some(wait) = no_data_dir::leave_sync(v, c) {
            return wait;
        }
        let reason = if wish.from_leader {
            "reinitialize from the leader was asked for"
        } else {
            "reinitialize was asked for"
        };
        return match no_data_dir::confirm_leader(v, c, Rule::ReinitializeAskLeader) {
            Ok(()) => no_data_dir::discard(Rule::DownReinitialize, false, reason),
            Err(decision) => decision,
        };
    }
    if was_primary(control) && planted(v, Planted::OldPrimaryStartsAgain) {
        let timeout = v.settings().primary_start_timeout;
        let role = StartRole::Primary;
        let start = Action::Begin(Job::Start { role, timeout });
        return act(Rule::DownRestartPrimary, start, "I was the primary");
    }
    let Some(source) = upstream(v, c, leader) else {
        return soon(
            v,
            Rule::FollowWaitAddress,
            format!("leader {leader} has published no address yet"),
        );
    };
    match &v.memory.divergence {
        Divergence::Found { leader: of, facts } if of == leader => match judge(facts) {
            Verdict::Diverged => return decide_diverged(v, c, leader, source),
            Verdict::OnHistory | Verdict::WalGone { .. } | Verdict::CannotTell => {}
        },
        Divergence::WalGone {
            leader: of, archive, ..
        } if of == leader => {
            if follow::may_copy_for_wal(v, c, leader, *archive) {
                return copy_anew(v, c, leader);
            }
        }
        Divergence::None { leader: of } if of == leader => {}
        Divergence::Unknown | Divergence::None { .. } | Divergence::WalGone { .. } | Divergence::Found { .. } => {
            if was_primary(control) {
                return check_former_primary(v, c, control, leader, source);
            }
        }
    }
    if let Some(until) = backoff(v, v.memory.failures.start.as_ref()) {
        return rest_until(
            Rule::DownStartBackoff,
            "failed to start postgres; trying again in a moment",
            until,
        );
    }
    start_standby(
        v,
        Rule::DownStartStandby,
        wanted_upstream(v, c, leader),
        "starting as a secondary",
    )
}

/// It was on the leader's history and what comes next is gone there: nothing in this directory is missing elsewhere.
fn copy_anew(v: &View, c: &ClusterView, leader: &MemberName) -> Decision {
    match no_data_dir::confirm_leader(v, c, Rule::DownDiscardWalGone) {
        Ok(()) => no_data_dir::discard(
            Rule::DownDiscardWalGone,
            false,
            &format!("the WAL that this standby needs next has been removed at leader {leader}"),
        ),
        Err(decision) => decision,
    }
}

fn check_former_primary(
    v: &View,
    c: &ClusterView,
    control: &ControlData,
    leader: &MemberName,
    source: crate::job::Upstream,
) -> Decision {
    let crashed = match control.state {
        ControlState::InProduction
        | ControlState::ShuttingDown
        | ControlState::InCrashRecovery
        | ControlState::StartingUp => true,
        ControlState::ShutDown | ControlState::ShutDownInRecovery | ControlState::InArchiveRecovery => false,
    };
    let tried = v.memory.failures.divergence_check.as_ref();
    if let Some(until) = backoff(v, tried.filter(|f| f.kind != JobFailure::SourceNotReady)) {
        return rest_until(
            Rule::DownCheckDivergence,
            "the check against the leader's history failed; trying again in a moment",
            until,
        );
    }
    if crashed && v.can_rewind() {
        return act(
            Rule::DownCrashRecovery,
            Action::Begin(Job::CrashRecovery),
            "doing crash recovery in a single user mode",
        );
    }
    if !leader_runs_as_primary(c, leader) || tried.is_some_and(|f| v.now.mono.since(f.at) < super::RACE_POLL) {
        return soon(
            v,
            Rule::DownWaitLeader,
            format!("waiting for leader {leader} to run as primary"),
        );
    }
    act(
        Rule::DownCheckDivergence,
        Action::Begin(Job::CheckDivergence { source }),
        format!("checking local WAL against the history of leader {leader}"),
    )
}

fn decide_diverged(v: &View, c: &ClusterView, leader: &MemberName, source: crate::job::Upstream) -> Decision {
    if planted(v, Planted::DivergedWaitsForEver) {
        return rest(Rule::DownWaitLeader, "waiting");
    }
    let told = v.memory.member_written.as_ref().map(|(_, value)| value.diverged_wal);
    if told.is_some_and(|wal| wal != v.diverged_wal()) {
        return soon(
            v,
            Rule::DownTellDiverged,
            "telling which local WAL is not in the leader's history",
        );
    }
    if !v.can_rewind() {
        return discard_or_stop(
            v,
            c,
            leader,
            "diverged, and pg_rewind cannot be used (use_pg_rewind, and checksums or wal_log_hints)",
            false,
        );
    }
    if !leader_runs_as_primary(c, leader) {
        return soon(
            v,
            Rule::DownWaitLeader,
            format!("waiting for leader {leader} to run as primary"),
        );
    }
    if c.members.get(leader).is_some_and(|m| m.checkpoint_outstanding) {
        return soon(
            v,
            Rule::DownWaitLeaderCheckpoint,
            format!("Waiting for checkpoint on {leader} before rewind"),
        );
    }
    let failure = v.memory.failures.rewind.as_ref();
    if failure.is_some_and(|f| f.times >= REWIND_TRIES && f.kind != JobFailure::SourceNotReady) {
        let reason = failure.map(|f| f.reason.clone()).unwrap_or_default();
        return discard_or_stop(
            v,
            c,
            leader,
            &format!("pg_rewind failed {REWIND_TRIES} times: {reason}"),
            true,
        );
    }
    if let Some(until) = backoff(v, failure) {
        return rest_until(Rule::DownRewind, "pg_rewind failed; trying again in a moment", until);
    }
    let discards = v.diverged_wal();
    let what = discards
        .map(|wal| format!(", which discards {wal}"))
        .unwrap_or_default();
    act(
        Rule::DownRewind,
        Action::Begin(Job::Rewind {
            source,
            discards,
            keep_aside: v.keeps_diverged_wal(),
        }),
        format!("running pg_rewind from {leader}{what}"),
    )
}

fn discard_or_stop(v: &View, c: &ClusterView, leader: &MemberName, reason: &str, rewind_failed: bool) -> Decision {
    let s = v.settings();
    let allowed = if rewind_failed {
        v.me.remove_on_rewind_failure.unwrap_or(s.remove_on_rewind_failure)
    } else {
        v.me.remove_on_diverged_timelines
            .unwrap_or(s.remove_on_diverged_timelines)
    };
    if !allowed {
        return rest(
            Rule::DownDivergedStop,
            format!(
                "this node's WAL left the history of leader {leader} and stays down: {reason}. Run `pgha-ctl reinit` to make a new copy"
            ),
        );
    }
    match no_data_dir::confirm_leader(v, c, Rule::DownAskLeaderBeforeDiscard) {
        Ok(()) => {
            let what = v
                .diverged_wal()
                .map(|wal| format!("; discards {wal}"))
                .unwrap_or_default();
            no_data_dir::discard(
                Rule::DownDiscardDiverged,
                v.keeps_diverged_wal(),
                &format!("{reason}{what}"),
            )
        }
        Err(decision) => decision,
    }
}

// ---- nobody leads ----

fn decide_leaderless(v: &View, c: &ClusterView, control: &ControlData) -> Decision {
    if let Some(released) = v.memory.handover.as_ref().and_then(|h| h.released_at)
        && v.now.mono < released.plus(STEP_DOWN_GRACE)
    {
        return rest_until(
            Rule::RaceSteppedDown,
            "handed leadership over; waiting for the new leader",
            released.plus(STEP_DOWN_GRACE),
        );
    }
    // What this node itself has just created is started under the lock: nobody else has any data yet.
    if v.memory.bootstrap_claim.is_some() && !control.recovery_signal {
        if v.memory.cycle.lost_race {
            return soon(v, Rule::RaceLost, "could not take the leader key after bootstrap");
        }
        return act(
            Rule::RaceAcquire,
            Action::AcquireLeaderKey,
            "bootstrapped: taking the leader key",
        );
    }
    if was_primary(control) && !v.memory.cycle.lost_race && planted(v, Planted::StalePrimaryRetakes) {
        return act(Rule::RaceReacquire, Action::AcquireLeaderKey, "there is no leader key");
    }
    if let Some(until) = backoff(v, v.memory.failures.start.as_ref()) {
        return rest_until(
            Rule::DownStartBackoff,
            "failed to start postgres; trying again in a moment",
            until,
        );
    }
    if matches!(c.initialize, Initialize::Absent)
        && was_primary(control)
        && !v.memory.cycle.lost_race
        && let Some(decision) = found_scope(v, c, control)
    {
        return decision;
    }
    start_standby(v, Rule::DownStartLeaderless, None, "starting as a secondary")
}

/// etcd was wiped, or this is the first start over existing data: the former primary founds the scope. `None`: somebody
/// was promoted after it, or may have been; it starts as a standby and `scope_lost` has the word. Nor does it found anything
/// while there is a leader key, even one that cannot be understood: as a standby it says that a person must remove it.
fn found_scope(v: &View, c: &ClusterView, control: &ControlData) -> Option<Decision> {
    if c.is_unreadable("leader") {
        return None;
    }
    if !v.me.tags.may_lead() {
        let because = "there is no initialize key and this node must not lead";
        return Some(soon(v, Rule::RaceNotAllowed, because));
    }
    if let Some(wait) = scope_lost::wait_for_primary(v) {
        return Some(wait);
    }
    if let Some(ask) = ask_once(
        v,
        Rule::RaceAskPeers,
        race::askable_or_known(v, c),
        "there is no initialize key; does a primary live?",
    ) {
        return Some(ask);
    }
    if let Some(name) = race::living_primary(v) {
        let because = format!("Primary ({name}) is still alive");
        return Some(soon(v, Rule::RacePrimaryAlive, because));
    }
    // This node wrote its timeline, so nobody on the same one can be ahead of it.
    let mine = Some(control.checkpoint_timeline).max(v.memory.timeline_floor);
    let overtaken = race::answers(v).any(|(_, peer)| peer.timeline > mine) || v.memory.known.timeline > mine;
    if overtaken {
        return None;
    }
    if let Some(wait) = no_leader::wait_for_word(v, Rule::LeadFailsafeWord) {
        return Some(wait);
    }
    if let Err(reason) = scope_lost::everybody_answered(v) {
        return scope_lost::wait_for_answers(v, &reason);
    }
    Some(act(
        Rule::RaceAcquire,
        Action::AcquireLeaderKey,
        "existing data and no initialize key: taking the leader key",
    ))
}

fn start_standby(v: &View, rule: Rule, upstream: Option<crate::job::Upstream>, because: &str) -> Decision {
    let upstream = if v.me.tags.nostream { None } else { upstream };
    let limit = v.settings().primary_start_timeout;
    let timeout = if limit.is_zero() {
        Duration::from_secs(300)
    } else {
        limit
    };
    act(
        rule,
        Action::Begin(Job::Start {
            role: StartRole::Standby { upstream },
            timeout,
        }),
        because,
    )
}

/// The data directory was last run as a primary.
fn was_primary(control: &ControlData) -> bool {
    !control.recovery_signal
        && match control.state {
            ControlState::StartingUp
            | ControlState::ShutDown
            | ControlState::ShuttingDown
            | ControlState::InCrashRecovery
            | ControlState::InProduction => true,
            ControlState::ShutDownInRecovery | ControlState::InArchiveRecovery => false,
        }
}

fn leader_runs_as_primary(c: &ClusterView, leader: &MemberName) -> bool {
    c.members
        .get(leader)
        .is_some_and(|m| m.role == MemberRole::Primary && m.state == crate::cluster::MemberState::Running)
}
