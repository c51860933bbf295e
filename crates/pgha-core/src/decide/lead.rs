//! The leader key is ours and PostgreSQL runs: prove it, promote, keep, or hand over.

use alloc::format;
use alloc::string::String;

use super::{
    Action, Decision, act, ask_once, backoff, dcs_lost, hold_leader_key_if_due, no_leader, rest, rest_until, soon,
};
use crate::cluster::{ClusterView, FailoverKey};
use crate::job::{Job, StartRole, StopMode};
use crate::planted::{Planted, planted};
use crate::race;
use crate::request::{RestartRequest, RestartRole};
use crate::rule::Rule;
use crate::sync;
use crate::units::Wall;
use crate::view::{HandoverReason, View, WatchdogView};

pub(super) fn decide(v: &View, c: &ClusterView) -> Decision {
    if v.memory.cycle.refuted {
        return act(
            Rule::LeadRefuted,
            Action::LookAgain,
            "failed to update leader lock: looking again who leads",
        );
    }
    if v.pg.says_standby() && planted(v, Planted::PromoteWithoutProof) {
        return act(
            Rule::LeadPromote,
            Action::Begin(Job::Promote),
            "the leader key carries my name",
        );
    }
    if let Some(hold) = hold_leader_key_if_due(v, Rule::LeadHoldLeaderKey) {
        return hold;
    }
    if v.memory.cycle.dcs_silent && !v.settings().pause {
        return if v.pg.says_standby() {
            soon(
                v,
                Rule::LeadUnproven,
                "not promoting because failed to update leader lock in DCS",
            )
        } else {
            dcs_lost::keep_until_deadline(v)
        };
    }
    if v.pg.says_primary() {
        if v.live_proof_of_key().is_none() && !v.settings().pause {
            // The answers came after the deadline they were meant to move: a suspended machine, for instance.
            return dcs_lost::keep_until_deadline(v);
        }
        return decide_primary(v, c);
    }
    if v.pg.says_standby() {
        return decide_standby(v, c);
    }
    if planted(v, Planted::SilenceMeansDown) {
        let (mode, checkpoint_first) = (StopMode::Immediate, false);
        let stop = Action::Begin(Job::Stop { mode, checkpoint_first });
        return act(Rule::LeadUnanswered, stop, "PostgreSQL is not healthy");
    }
    rest(
        Rule::LeadUnanswered,
        "PostgreSQL does not answer its monitoring query; holding the leader key",
    )
}

// ---- a running primary ----

fn decide_primary(v: &View, c: &ClusterView) -> Decision {
    if let (Some(mine), Some(cluster)) = (race::my_timeline(v), c.timeline_by_history())
        && mine < cluster
        && !v.settings().pause
    {
        return act(
            Rule::LeadTimelineBehind,
            Action::Begin(Job::Stop {
                mode: StopMode::Immediate,
                checkpoint_first: false,
            }),
            format!("My timeline {mine} is behind last known cluster timeline {cluster}: somebody else was promoted"),
        );
    }
    if v.me.watchdog_required && v.memory.watchdog == WatchdogView::Failed && !v.settings().pause {
        return act(
            Rule::LeadWatchdog,
            Action::HandOver {
                reason: HandoverReason::ManualFailover,
                candidate: None,
            },
            "Demoting self because watchdog could not be activated",
        );
    }
    if planted(v, Planted::IsolationIsFatal) {
        if let Some(ask) = ask_once(v, Rule::LeadHandoverAskPeers, race::askable(v, c), "am I isolated?") {
            return ask;
        }
        if !v.peers.is_empty() && race::answers(v).next().is_none() {
            let (mode, checkpoint_first) = (StopMode::Immediate, false);
            let stop = Action::Begin(Job::Stop { mode, checkpoint_first });
            return act(Rule::FollowDemote, stop, "no peer answers");
        }
    }
    if let Some(wish) = &c.failover
        && let Some(decision) = decide_wish(v, c, wish)
    {
        // What is scheduled for later keeps nobody from a restart now.
        let later = decision.rule == Rule::LeadScheduled;
        let restart = restart(v, StartRole::Primary, RestartRole::Primary).filter(|_| later);
        return restart.unwrap_or(decision);
    }
    if let Some(decision) = restart(v, StartRole::Primary, RestartRole::Primary) {
        return decision;
    }
    let paused = if v.settings().pause { "PAUSE: " } else { "" };
    if sync::waits_for_standbys(v) {
        return rest(
            Rule::LeadCommitsWait,
            format!(
                "{paused}no synchronous standby is connected and synchronous_mode_strict is on: commits wait. I am ({}), the leader with the lock",
                v.me.name
            ),
        );
    }
    rest(
        Rule::LeadNoAction,
        format!("{paused}no action. I am ({}), the leader with the lock", v.me.name),
    )
}

/// A standby that took the key is promoted; an unfit one gives it back, and in maintenance mode everybody who was not named:
/// the mode may have come between taking the key and the promotion.
fn decide_standby(v: &View, c: &ClusterView) -> Decision {
    if let Some(wait) = no_leader::wait_for_word(v, Rule::LeadFailsafeWord) {
        return wait;
    }
    let named = c
        .failover
        .as_ref()
        .is_some_and(|f| f.candidate.as_ref() == Some(&v.me.name))
        || v.memory.handover.is_none() && v.memory.cycle.acquired_in_pause;
    if v.settings().pause && !named {
        return act(
            Rule::LeadPausedRelease,
            Action::ReleaseLeaderKey { optime: None },
            "PAUSE: removed leader lock because postgres is not running as primary",
        );
    }
    if let Some(failure) = &v.memory.failures.promote
        && v.now.mono < failure.at.plus(v.settings().ttl)
    {
        return act(
            Rule::LeadPromotionFailed,
            Action::ReleaseLeaderKey { optime: None },
            format!("Promotion cancelled: {}", failure.reason),
        );
    }
    if let (Some(mine), Some(cluster)) = (race::my_timeline(v), c.timeline_by_history())
        && mine < cluster
    {
        return act(
            Rule::LeadTimelineBehind,
            Action::ReleaseLeaderKey { optime: None },
            format!("My timeline {mine} is behind last known cluster timeline {cluster}"),
        );
    }
    if v.settings().standby_cluster.is_some() {
        return act(
            Rule::RaceStandbyCluster,
            Action::ReleaseLeaderKey { optime: None },
            "standby_cluster is set and not supported yet by this version: not promoting",
        );
    }
    if v.me.watchdog_required && v.memory.watchdog == WatchdogView::Failed {
        return act(
            Rule::LeadWatchdog,
            Action::ReleaseLeaderKey { optime: None },
            "Not promoting self because watchdog could not be activated",
        );
    }
    let Some(proof) = v.live_proof_of_key() else {
        return soon(v, Rule::LeadUnproven, "not promoting: leadership is not proven");
    };
    if c.revision < proof.revision && !planted(v, Planted::PromotesOnOldRead) {
        return act(
            Rule::LeadReadUnderProof,
            Action::LookAgain,
            "reading all keys once more under the proof",
        );
    }
    let text = v.pg.facts().map_or("", |f| f.synchronous_standby_names.as_str());
    if v.settings().is_synchronous() && !sync::blocks(text) {
        return soon(
            v,
            Rule::LeadWouldAcknowledge,
            "not promoting yet: PostgreSQL would acknowledge commits before /sync is known",
        );
    }
    act(
        Rule::LeadPromote,
        Action::Begin(Job::Promote),
        "promoted self to leader by acquiring session lock",
    )
}

// ---- what operators want ----

fn decide_wish(v: &View, c: &ClusterView, wish: &FailoverKey) -> Option<Decision> {
    let action = if wish.is_switchover() {
        "switchover"
    } else {
        "manual failover"
    };
    let clear = |because: String| {
        if planted(v, Planted::WishNeverCleared) {
            return Some(rest(Rule::LeadHandoverImpossible, because));
        }
        Some(act(Rule::LeadHandoverImpossible, Action::UpdateFailover(None), because))
    };
    if wish.schedule_unreadable {
        return clear(format!(
            "{action}: incorrect value of scheduled_at, cleaning up failover key"
        ));
    }
    if let Some(at) = wish.scheduled_at {
        if v.settings().pause {
            return None;
        }
        match due(v.now.wall, at, v) {
            Due::Later { wake_in } => {
                return Some(rest_until(
                    Rule::LeadScheduled,
                    format!(
                        "Awaiting {action} in {} seconds; no action. I am ({}), the leader with the lock",
                        wake_in.as_secs(),
                        v.me.name
                    ),
                    v.now.mono.plus(wake_in),
                ));
            }
            Due::Stale => return clear("Found a stale switchover value, cleaning up".into()),
            Due::Now => {}
        }
    }
    if wish.leader.as_ref().is_some_and(|l| *l != v.me.name) {
        return clear(format!(
            "{action}: leader name does not match, cleaning up failover key"
        ));
    }
    if wish.candidate.as_ref() == Some(&v.me.name) {
        return clear(format!("{action}: I am already the leader, no need to {action}"));
    }
    if v.settings().pause && wish.candidate.is_none() {
        return clear(format!(
            "{action} is possible only to a specific candidate in a paused state"
        ));
    }
    if let Some(until) = backoff(v, v.memory.failures.stop.as_ref()) {
        return Some(rest_until(
            Rule::LeadHandoverStop,
            "the last stop failed; trying again in a moment",
            until,
        ));
    }
    if let Some(ask) = ask_once(
        v,
        Rule::LeadHandoverAskPeers,
        race::askable(v, c),
        format!("{action}: asking the candidates"),
    ) {
        return Some(ask);
    }
    let only_sync = v.settings().is_synchronous() && wish.is_switchover();
    let (fit, why_not) = race::candidates(v, c, wish.candidate.as_ref(), None, only_sync);
    if fit.is_empty() {
        return clear(format!(
            "{action}: no healthy members found, {action} is not possible: {}",
            why_not.join("; ")
        ));
    }
    let reason = if wish.is_switchover() {
        HandoverReason::Switchover
    } else {
        HandoverReason::ManualFailover
    };
    Some(act(
        Rule::LeadHandoverStop,
        Action::HandOver {
            reason,
            candidate: wish.candidate.clone(),
        },
        format!("{action}: demoting myself"),
    ))
}

/// Whether a scheduled action is due.
enum Due {
    Later { wake_in: core::time::Duration },
    Now,
    Stale,
}

/// Patroni's window: from the scheduled second until one and a half loop_wait later.
fn due(now: Wall, at: Wall, v: &View) -> Due {
    let left = i128::from(at.0) - i128::from(now.0);
    if left > 0 {
        let micros = u64::try_from(left).unwrap_or(u64::MAX);
        return Due::Later {
            wake_in: core::time::Duration::from_micros(micros),
        };
    }
    let late = u128::try_from(-left).unwrap_or(u128::MAX);
    if late > (v.settings().loop_wait * 3 / 2).as_micros() {
        Due::Stale
    } else {
        Due::Now
    }
}

/// A restart that was asked for, or is due.
pub(super) fn restart(v: &View, role: StartRole, as_role: RestartRole) -> Option<Decision> {
    let begin = |rule, request: &RestartRequest| {
        let timeout = request.timeout.unwrap_or(v.settings().primary_start_timeout);
        act(
            rule,
            Action::Begin(Job::Restart {
                role: role.clone(),
                timeout,
            }),
            "restart initiated",
        )
    };
    if let Some((_, request)) = &v.memory.wishes.restart {
        return Some(begin(Rule::RestartNow, request));
    }
    let scheduled = v.memory.wishes.scheduled_restart.as_ref()?;
    if v.settings().pause {
        return None;
    }
    match due(v.now.wall, scheduled.at, v) {
        Due::Later { .. } | Due::Stale => None,
        Due::Now => restart_refusal(v, &scheduled.request, as_role)
            .is_none()
            .then(|| begin(Rule::RestartScheduled, &scheduled.request)),
    }
}

/// Why the conditions of a restart do not hold; `None` when they do.
pub(crate) fn restart_refusal(v: &View, request: &RestartRequest, as_role: RestartRole) -> Option<&'static str> {
    if request.role.is_some_and(|r| r != as_role) {
        return Some("host role mismatch");
    }
    let facts = v.pg.facts();
    if let (Some(below), Some(f)) = (request.version_below, facts)
        && f.server_version >= below
    {
        return Some("postgres version mismatch");
    }
    if request.if_pending && facts.is_some_and(|f| f.pending_restart.is_empty()) {
        return Some("pending restart flag is not set");
    }
    None
}
