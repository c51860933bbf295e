//! Somebody else holds the leader key and PostgreSQL runs here: follow, or stop being a primary.

use alloc::format;

use super::{Action, Decision, act, backoff, lead, no_data_dir, rest, soon, wanted_upstream};
use crate::cluster::ClusterView;
use crate::conninfo::follows;
use crate::job::{Job, StartRole, StopMode, Upstream};
use crate::pg::{SqlFacts, SqlRole, StandbyFacts};
use crate::request::RestartRole;
use crate::rewind::{Verdict, judge};
use crate::rule::Rule;
use crate::units::MemberName;
use crate::view::{Divergence, View};

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
    rest(
        Rule::FollowNoAction,
        format!(
            "no action. I am ({}), a secondary, and following a leader ({leader})",
            v.me.name
        ),
    )
}

/// May a diverged directory be rewound, or removed and copied anew?
fn may_repair(v: &View) -> bool {
    v.can_rewind()
        || v.me
            .remove_on_diverged_timelines
            .unwrap_or(v.settings().remove_on_diverged_timelines)
}

/// A standby that does not stream may hold WAL that the leader never had.
fn diverged(v: &View, c: &ClusterView, leader: &MemberName, standby: &StandbyFacts) -> Option<Decision> {
    match &v.memory.divergence {
        Divergence::Found { leader: of, facts } if of == leader => {
            return match judge(facts) {
                // Nothing can be done about it here: better stale reads than none.
                Verdict::Diverged if !may_repair(v) => Some(soon(
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
                Verdict::OnHistory | Verdict::CannotTell => None,
            };
        }
        Divergence::None { leader: of } if of == leader => return None,
        Divergence::Unknown | Divergence::None { .. } | Divergence::Found { .. } => {}
    }
    if standby.wal_receiver.as_ref().is_some_and(|r| r.status == "streaming") {
        return None;
    }
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
