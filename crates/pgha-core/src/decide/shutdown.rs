//! SIGTERM: hand over if we lead, stop PostgreSQL, end.

use super::{Action, Decision, act, backoff, handover, hold_leader_key_if_due, rest_until};
use crate::job::{Job, StopMode};
use crate::rule::Rule;
use crate::view::{HandoverReason, View};

pub(super) fn decide(v: &View) -> Decision {
    if v.settings().pause {
        return act(
            Rule::ShutdownPaused,
            Action::Exit {
                code: 0,
                leave_running: true,
            },
            "Leader key is not deleted and Postgresql is not stopped due paused state",
        );
    }
    if v.pg.is_running() {
        if let Some(until) = backoff(v, v.memory.failures.stop.as_ref()) {
            return rest_until(
                Rule::ShutdownStop,
                "PostgreSQL shutdown failed, leader key not removed",
                until,
            );
        }
        if v.holds_leader_key() && v.pg.says_primary() && v.live_proof().is_some() {
            return act(
                Rule::ShutdownStop,
                Action::HandOver {
                    reason: HandoverReason::Shutdown,
                    candidate: None,
                },
                "stopping PostgreSQL before handing over",
            );
        }
        return act(
            Rule::ShutdownStop,
            Action::Begin(Job::Stop {
                mode: StopMode::Fast,
                checkpoint_first: false,
            }),
            "stopping PostgreSQL",
        );
    }
    let Some(cluster) = v.cluster().filter(|_| v.holds_leader_key()) else {
        return act(
            Rule::ShutdownExit,
            Action::Exit {
                code: 0,
                leave_running: false,
            },
            "PostgreSQL is stopped",
        );
    };
    if v.memory.cycle.dcs_silent || v.memory.cycle.refuted {
        return act(
            Rule::ShutdownExit,
            Action::Exit {
                code: 0,
                leave_running: false,
            },
            "PostgreSQL is stopped; etcd does not answer",
        );
    }
    if let Some(hold) = hold_leader_key_if_due(v, Rule::DownHoldLeaderKey) {
        return hold;
    }
    match &v.memory.handover {
        Some(plan) if plan.checkpoint.is_some() => handover::decide_after_checkpoint(v, cluster, plan),
        Some(_) | None => act(
            Rule::ShutdownRelease,
            Action::ReleaseLeaderKey { optime: None },
            "PostgreSQL is not running",
        ),
    }
}
