//! etcd does not answer. What was decided by proof stays until the deadline; then PostgreSQL is stopped.

use alloc::format;

use super::{Action, Decision, act, backoff, rest, rest_until, soon};
use crate::cluster::DcsView;
use crate::effect::FenceOrder;
use crate::job::{Job, StartRole, StopMode};
use crate::pg::DataDir;
use crate::planted::{Planted, planted};
use crate::rule::Rule;
use crate::units::Mono;
use crate::view::View;

pub(super) fn decide(v: &View) -> Decision {
    if v.settings().pause && !planted(v, Planted::DemoteInPause) {
        return rest(Rule::DcsLostPaused, "PAUSE: DCS is not accessible");
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
                role: StartRole::Standby { upstream: None },
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

/// A running primary (or one that does not answer) without news from etcd: goes on until shortly before its deadline.
pub(super) fn keep_until_deadline(v: &View) -> Decision {
    let Some(deadline) = deadline(v) else {
        // The fence gives a primary found running a deadline in the same step; until then nothing is known.
        let because = "DCS is not accessible and my leadership is not proven; the fence sets a deadline";
        return soon(v, Rule::DcsLostKeepUntilDeadline, because);
    };
    let demote_at = deadline.minus(v.settings().demote_lead());
    if v.now.mono < demote_at && !planted(v, Planted::DemoteOnFirstSilence) {
        return rest_until(
            Rule::DcsLostKeepUntilDeadline,
            format!(
                "DCS is not accessible; my leadership is proven for another {} ms",
                deadline.since(v.now.mono).as_millis()
            ),
            // Asked again at once: one lost answer must not cost the leadership.
            demote_at.min(v.now.mono.plus(super::POLL)),
        );
    }
    if let Some(until) = backoff(v, v.memory.failures.stop.as_ref()) {
        return rest_until(Rule::DcsLostDemote, "waiting for PostgreSQL to stop", until);
    }
    act(
        Rule::DcsLostDemote,
        stop(),
        "demoting self because DCS is not accessible and I was a leader",
    )
}

fn stop() -> Action {
    Action::Begin(Job::Stop {
        mode: StopMode::Fast,
        checkpoint_first: false,
    })
}

/// Until when PostgreSQL may accept writes: the proof's deadline, or that of a fence found running at start.
fn deadline(v: &View) -> Option<Mono> {
    match (v.memory.proof, v.memory.fence) {
        (Some(proof), _) => Some(proof.deadline),
        (None, Some(FenceOrder::Until(at))) => Some(at),
        (None, Some(FenceOrder::StandbyOnly | FenceOrder::Paused) | None) => None,
    }
}
