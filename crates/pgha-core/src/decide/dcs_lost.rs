//! etcd does not answer. What was decided by proof stays until the deadline; then PostgreSQL is stopped. In failsafe mode the
//! deadline moves on as long as all listed members agree.

use alloc::format;

use super::{Action, Decision, act, ask_once, backoff, rest, rest_until, soon};
use crate::cluster::DcsView;
use crate::effect::FenceOrder;
use crate::failsafe;
use crate::job::{Job, StartRole, StopMode, Upstream};
use crate::pg::DataDir;
use crate::planted::{Planted, planted};
use crate::race;
use crate::rule::Rule;
use crate::units::Mono;
use crate::view::View;

pub(super) fn decide(v: &View) -> Decision {
    if v.settings().pause && !planted(v, Planted::DemoteInPause) {
        return decide_paused(v);
    }
    if v.pg.is_running() {
        if v.pg.says_standby() || !v.memory.maybe_writable {
            return rest(Rule::DcsLostStandby, "DCS is not accessible");
        }
        return keep_until_deadline(v);
    }
    // Before the first read nothing is started: this data may belong to a node that was replaced long ago.
    let read_before = !matches!(v.dcs, DcsView::NotRead);
    match (&v.pg.data_dir, backoff(v, v.memory.failures.start.as_ref())) {
        (DataDir::Present(_), None) if read_before => act(
            Rule::DcsLostStartReadOnly,
            Action::Begin(Job::Start {
                role: StartRole::Standby {
                    upstream: leader_that_goes_on(v),
                },
                timeout: v.settings().primary_start_timeout,
            }),
            "DCS is not accessible: starting read-only",
        ),
        (
            DataDir::Present(_)
            | DataDir::NotObserved
            | DataDir::Empty
            | DataDir::Inaccessible { .. }
            | DataDir::Foreign { .. }
            | DataDir::Unfinished { .. },
            until,
        ) => Decision {
            wake_at: until,
            ..rest(Rule::DcsLostWait, "DCS is not accessible")
        },
    }
}

/// Nothing is touched. But the mode may be over, and another member promoted, without this node having heard of it: a primary
/// asks before it answers health checks as one for longer.
fn decide_paused(v: &View) -> Decision {
    let members = v.memory.known.members.keys();
    let who = members
        .filter(|name| race::address(v, name).is_some())
        .cloned()
        .collect();
    let because = "PAUSE: DCS is not accessible: asking all members whether there is another primary";
    if v.memory.maybe_writable
        && let Some(ask) = ask_once(v, Rule::DcsLostPausedAsk, who, because)
    {
        return ask;
    }
    match race::newer_primary(v) {
        Some(name) => rest(
            Rule::DcsLostPausedOvertaken,
            format!("PAUSE: DCS is not accessible, and {name} is a primary on a newer timeline"),
        ),
        None => rest(Rule::DcsLostPaused, "PAUSE: DCS is not accessible"),
    }
}

/// A running primary (or one that does not answer) without news from etcd: goes on until shortly before its deadline.
pub(super) fn keep_until_deadline(v: &View) -> Decision {
    let Some(deadline) = deadline(v) else {
        // The fence gives a primary found running a deadline in the same step; until then nothing is known.
        let because = "DCS is not accessible and my leadership is not proven; the fence sets a deadline";
        return soon(v, Rule::DcsLostKeepUntilDeadline, because);
    };
    let demote_at = deadline.minus(v.settings().demote_lead());
    let is_in_time = v.now.mono < demote_at && !planted(v, Planted::DemoteOnFirstSilence);
    // Judged right after etcd was tried once more, not when slow members have answered.
    let successor = failsafe::successor(v).filter(|_| is_in_time && !v.memory.cycle.failsafe_asked);
    if is_in_time && successor.is_none() {
        if let Some(who) = failsafe::due(v) {
            let because = "DCS is not accessible: asking all members of /failsafe whether I may go on";
            return act(Rule::FailsafeAsk, Action::AskFailsafe(who), because);
        }
        // Asked again at once: one lost answer must not cost the leadership.
        return keep(v, deadline, demote_at.min(v.now.mono.plus(super::POLL)));
    }
    if let Some(until) = backoff(v, v.memory.failures.stop.as_ref()) {
        return rest_until(Rule::DcsLostDemote, "waiting for PostgreSQL to stop", until);
    }
    if let Some(name) = successor {
        return act(
            Rule::FailsafeAlone,
            stop(),
            format!("DCS is accessible to all members but me: demoting self, {name} can lead"),
        );
    }
    act(
        Rule::DcsLostDemote,
        stop(),
        "demoting self because DCS is not accessible and I was a leader",
    )
}

fn keep(v: &View, deadline: Mono, wake_at: Mono) -> Decision {
    let left_ms = deadline.since(v.now.mono).as_millis();
    if v.memory.failsafe.grant == Some(deadline) {
        let alone = if v.memory.failsafe.alone_since.is_some() {
            "; all others reach DCS"
        } else {
            ""
        };
        let because = format!(
            "continue to run as a leader because failsafe mode is enabled and all members are accessible, for another {left_ms} ms{alone}"
        );
        return rest_until(Rule::FailsafeKeep, because, wake_at);
    }
    let because = format!("DCS is not accessible; my leadership is proven for another {left_ms} ms");
    rest_until(Rule::DcsLostKeepUntilDeadline, because, wake_at)
}

/// The leader that this node gave its word to, at the address that etcd told of. What a request says is not connected to.
fn leader_that_goes_on(v: &View) -> Option<Upstream> {
    let leader = &failsafe::word(v)?.leader;
    super::wanted_upstream(v, v.last_cluster()?, leader).filter(|_| !v.me.tags.nostream)
}

fn stop() -> Action {
    Action::Begin(Job::Stop {
        mode: StopMode::Fast,
        checkpoint_first: false,
    })
}

/// Until when PostgreSQL may accept writes: by proof or in failsafe mode, or as a fence found running at start says.
fn deadline(v: &View) -> Option<Mono> {
    match (v.deadline(), v.memory.fence) {
        (Some(at), _) => Some(at),
        (None, Some(FenceOrder::Until(at))) => Some(at),
        (None, Some(FenceOrder::StandbyOnly | FenceOrder::Paused) | None) => None,
    }
}
