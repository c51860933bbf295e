//! Somebody else holds the leader key and PostgreSQL runs here: follow, or stop being a primary.

use alloc::format;
use core::time::Duration;

use super::{Action, Decision, act, backoff, lead, no_data_dir, rest, rest_until, soon, wanted_upstream};
use crate::cluster::ClusterView;
use crate::conninfo::follows;
use crate::job::{Job, StartRole, StopMode, Upstream};
use crate::pg::{SqlFacts, SqlRole, StandbyFacts};
use crate::request::RestartRole;
use crate::rewind::{Verdict, judge};
use crate::rule::Rule;
use crate::units::MemberName;
use crate::view::{Divergence, View};

/// How long a standby may be without a stream and stand still before that is looked into: three times the pause after which
/// PostgreSQL starts a wal receiver again (`wal_retrieve_retry_interval`).
const STALLED: Duration = Duration::from_secs(15);
/// Longest pause between two looks at a standby that stands still.
const STALLED_LOOK: Duration = Duration::from_secs(60);

pub(super) fn decide(v: &View, c: &ClusterView) -> Decision {
    let Some(leader) = c.leader_name().cloned() else {
        return soon(v, Rule::FollowUnanswered, "there is no leader");
    };
    match v.pg.facts() {
        None => soon(
            v,
            Rule::FollowUnanswered,
            "PostgreSQL does not answer its monitoring query",
        ),
        Some(SqlFacts {
            role: SqlRole::Primary { .. },
            ..
        }) => decide_primary_without_lock(v),
        Some(SqlFacts {
            role: SqlRole::Standby(standby),
            ..
        }) => decide_standby(v, c, &leader, standby),
    }
}

fn decide_primary_without_lock(v: &View) -> Decision {
    if v.settings().pause {
        return rest(
            Rule::FollowPausedPrimary,
            "PAUSE: continue to run as primary without lock",
        );
    }
    act(
        Rule::FollowDemote,
        Action::Begin(Job::Stop {
            mode: StopMode::Immediate,
            checkpoint_first: false,
        }),
        "demoting self because I do not have the lock and I was a leader",
    )
}

fn decide_standby(v: &View, c: &ClusterView, leader: &MemberName, standby: &StandbyFacts) -> Decision {
    let target = if v.me.tags.nostream {
        None
    } else {
        wanted_upstream(v, c, leader)
    };
    if v.memory.wishes.reinitialize.is_some() {
        if let Some(wait) = no_data_dir::leave_sync(v, c) {
            return wait;
        }
        return match no_data_dir::confirm_leader(v, c, Rule::ReinitializeAskLeader) {
            Ok(()) => act(
                Rule::ReinitializeStop,
                Action::Begin(Job::Stop {
                    mode: StopMode::Immediate,
                    checkpoint_first: false,
                }),
                "reinitialize: stopping PostgreSQL",
            ),
            Err(decision) => decision,
        };
    }
    if let Some(decision) = lead::restart(
        v,
        StartRole::Standby {
            upstream: target.clone(),
        },
        RestartRole::Standby,
    ) {
        return decision;
    }
    if v.settings().pause {
        return rest(Rule::FollowPaused, format!("PAUSE: no action. I am ({})", v.me.name));
    }
    if target.is_none() && !v.me.tags.nostream {
        return soon(
            v,
            Rule::FollowWaitAddress,
            format!("leader {leader} has published no address yet"),
        );
    }
    if let Some(decision) = diverged(v, c, leader, standby) {
        return decision;
    }
    if !follows(standby, target.as_ref()) && backoff(v, v.memory.failures.start.as_ref()).is_none() {
        return act(
            Rule::FollowChangeUpstream,
            Action::Begin(Job::Follow { upstream: target }),
            format!("following leader {leader}: changing primary_conninfo"),
        );
    }
    if let Some(decision) = stalled(v, c, leader, standby) {
        return decision;
    }
    rest(
        Rule::FollowNoAction,
        format!(
            "no action. I am ({}), a secondary, and following a leader ({leader})",
            v.me.name
        ),
    )
}

/// May a directory that cannot follow the leader be removed and copied anew?
fn may_copy_anew(v: &View) -> bool {
    v.me.remove_on_diverged_timelines
        .unwrap_or(v.settings().remove_on_diverged_timelines)
}

/// May it be copied anew because the leader has removed the WAL that it needs next? Not while an archive may bring that, or a
/// standby that it follows by its tag may have it.
pub(super) fn may_copy_for_wal(v: &View, c: &ClusterView, leader: &MemberName, archive: bool) -> bool {
    let follows_leader = wanted_upstream(v, c, leader).is_some_and(|u| u.name == *leader);
    !archive && follows_leader && may_copy_anew(v)
}

/// A standby that does not stream may hold WAL that the leader never had.
fn diverged(v: &View, c: &ClusterView, leader: &MemberName, standby: &StandbyFacts) -> Option<Decision> {
    match &v.memory.divergence {
        Divergence::Found { leader: of, facts } if of == leader => {
            return match judge(facts) {
                // Nothing can be done about it here: better stale reads than none.
                Verdict::Diverged if !v.can_rewind() && !may_copy_anew(v) => Some(soon(
                    v,
                    Rule::FollowDiverged,
                    format!(
                        "local WAL left the history of leader {leader}, and neither pg_rewind nor removal is allowed: \
                         run `pgha-ctl reinit`"
                    ),
                )),
                Verdict::Diverged => Some(act(
                    Rule::FollowStopForRewind,
                    Action::Begin(Job::Stop {
                        mode: StopMode::Fast,
                        checkpoint_first: false,
                    }),
                    format!("local WAL left the history of leader {leader}: stopping for pg_rewind"),
                )),
                Verdict::OnHistory | Verdict::WalGone { .. } | Verdict::CannotTell => None,
            };
        }
        Divergence::None { leader: of } | Divergence::WalGone { leader: of, .. } if of == leader => return None,
        Divergence::Unknown | Divergence::None { .. } | Divergence::WalGone { .. } | Divergence::Found { .. } => {}
    }
    if standby.is_streaming() {
        return None;
    }
    check_divergence(v, c, leader)
}

fn check_divergence(v: &View, c: &ClusterView, leader: &MemberName) -> Option<Decision> {
    // The same number is checked, too: it may have been created twice (Patroni #2787).
    let leader_timeline = c.members.get(leader).and_then(|m| m.timeline)?;
    let mine = crate::race::my_timeline(v)?;
    if backoff(v, v.memory.failures.divergence_check.as_ref()).is_some() {
        return None;
    }
    let source: Upstream = super::upstream(v, c, leader)?;
    Some(act(
        Rule::FollowCheckDivergence,
        Action::Begin(Job::CheckDivergence { source }),
        format!("on timeline {mine}, the leader on {leader_timeline}: checking local WAL against its history"),
    ))
}

/// It does not stream and has not got any further for a while, although it follows whom it should: why?
fn stalled(v: &View, c: &ClusterView, leader: &MemberName, standby: &StandbyFacts) -> Option<Decision> {
    let stall = v.memory.stall?;
    let stands_for = v.now.mono.since(stall.since);
    if v.me.tags.nostream || standby.is_streaming() || stands_for < STALLED {
        return None;
    }
    if let Divergence::WalGone {
        leader: of, archive, ..
    } = &v.memory.divergence
        && of == leader
    {
        return Some(wal_gone(v, c, leader, *archive));
    }
    let pause = (stands_for / 2).min(STALLED_LOOK);
    let checked = v.memory.divergence_checked_at;
    if checked.is_none_or(|at| v.now.mono.since(at) >= pause)
        && let Some(check) = check_divergence(v, c, leader)
    {
        return Some(check);
    }
    let why = match &v.memory.failures.divergence_check {
        Some(failure) => format!("the leader could not be asked about it: {}", failure.reason),
        None => "nothing in its WAL or the leader's speaks against it: PostgreSQL's log must say why".into(),
    };
    Some(rest_until(
        Rule::FollowStalled,
        format!(
            "no replication for {} s, standing still at {}: {why}",
            stands_for.as_secs(),
            stall.at
        ),
        v.now.mono.plus(STALLED),
    ))
}

/// What it needs next is gone at the leader. A copy that is only behind is worth more than none, so it goes on answering
/// reads unless the settings allow a new one; and what may come from an archive is waited for.
fn wal_gone(v: &View, c: &ClusterView, leader: &MemberName, archive: bool) -> Decision {
    if !may_copy_for_wal(v, c, leader, archive) {
        let help = if archive {
            "restore_command has not brought it either: put it into the archive, or run `pgha-ctl reinit`"
        } else {
            "run `pgha-ctl reinit`"
        };
        return rest(
            Rule::FollowWalGone,
            format!("the WAL that this standby needs next has been removed at leader {leader}: {help}"),
        );
    }
    let stop = Job::Stop {
        mode: StopMode::Fast,
        checkpoint_first: false,
    };
    match no_data_dir::confirm_leader(v, c, Rule::FollowStopForCopy) {
        Ok(()) => act(
            Rule::FollowStopForCopy,
            Action::Begin(stop),
            format!(
                "the WAL that this standby needs next has been removed at leader {leader}: stopping for a new copy"
            ),
        ),
        Err(decision) => decision,
    }
}
