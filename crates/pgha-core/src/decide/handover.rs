//! Planned hand-over of leadership: stop first, keep the key, release it only when somebody holds the shutdown checkpoint.
//!
//! Releasing earlier is how others lost acknowledged commits at a switchover (Patroni #2067, D11).

use alloc::format;

use super::{Action, Decision, POLL, act, ask_once, rest_until};
use crate::cluster::ClusterView;
use crate::planted::{Planted, planted};
use crate::race;
use crate::rule::Rule;
use crate::view::{Handover, HandoverReason, View};

/// The stop has reached the shutdown checkpoint (the postmaster may still be archiving).
pub(super) fn decide_after_checkpoint(v: &View, c: &ClusterView, plan: &Handover) -> Decision {
    let Some(checkpoint) = plan.checkpoint else {
        return rest_until(
            Rule::LeadHandoverWait,
            "waiting for the shutdown checkpoint",
            v.now.mono.plus(POLL),
        );
    };
    if planted(v, Planted::ReleasedAtStop) {
        let optime = Some(checkpoint);
        let release = Action::ReleaseLeaderKey { optime };
        return act(Rule::LeadHandoverRelease, release, "PostgreSQL is stopped");
    }
    if let Some(ask) = ask_once(
        v,
        Rule::LeadHandoverWait,
        race::askable(v, c),
        format!("who holds the shutdown checkpoint at {checkpoint}?"),
    ) {
        return ask;
    }
    let only_sync = v.settings().is_synchronous() && plan.reason != HandoverReason::ManualFailover;
    let (fit, why_not) = race::candidates(v, c, plan.candidate.as_ref(), Some(checkpoint), only_sync);
    if let Some(name) = fit.first() {
        return act(
            Rule::LeadHandoverRelease,
            Action::ReleaseLeaderKey {
                optime: Some(checkpoint),
            },
            format!("{name} holds the shutdown checkpoint at {checkpoint}"),
        );
    }
    let patience = v.settings().retry_timeout;
    let nobody = plan.reason == HandoverReason::Shutdown && race::askable(v, c).is_empty();
    if !nobody && (v.now.mono.since(plan.since) < patience || v.memory.job.is_some()) {
        return rest_until(
            Rule::LeadHandoverWait,
            format!(
                "nobody holds the shutdown checkpoint at {checkpoint} yet: {}",
                why_not.join("; ")
            ),
            v.now.mono.plus(POLL),
        );
    }
    match plan.reason {
        HandoverReason::Switchover | HandoverReason::ManualFailover => act(
            Rule::LeadHandoverAbort,
            Action::AbortHandOver,
            format!("no candidate received the shutdown checkpoint: {}", why_not.join("; ")),
        ),
        // The daemon must end. PostgreSQL is down, so the key protects nothing any more; the published position keeps
        // whoever lags too far out of the race.
        HandoverReason::Shutdown => act(
            Rule::ShutdownRelease,
            Action::ReleaseLeaderKey {
                optime: Some(checkpoint),
            },
            "PostgreSQL is stopped; nobody confirmed the shutdown checkpoint in time",
        ),
    }
}
