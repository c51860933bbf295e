//! Does the data belong to this cluster?

use alloc::format;

use super::{Action, Decision, act, rest, scope_lost, soon};
use crate::cluster::{ClusterView, Initialize};
use crate::pg::ControlData;
use crate::rule::Rule;
use crate::view::View;

/// `None` when the data belongs here, or may found the cluster.
pub(super) fn decide(v: &View, c: &ClusterView, control: &ControlData) -> Option<Decision> {
    match c.initialize {
        Initialize::Done(id) if id == control.system_id => None,
        Initialize::Done(id) => Some(mismatch(v, c, control, &format!("{id}"))),
        Initialize::Absent | Initialize::InProgress { .. } | Initialize::Unreadable => {
            // A standby that knows nothing of the scope must not restore /initialize: after etcd was wiped only the primary
            // may (S10), or whom `scope_lost` lets. One that is down is started all the same when nobody founds another
            // cluster, so that it can tell the former primary its position.
            let down = !v.pg.is_running() && control.recovery_signal && !matches!(c.initialize, Initialize::Absent);
            let alone = c.leader.is_none() && v.memory.bootstrap_claim.is_none();
            if (v.pg.says_standby() || down) && alone && !scope_lost::is_known(v, c, control) {
                return Some(soon(
                    v,
                    Rule::SystemIdUnknownStandby,
                    format!(
                        "No initialize key in DCS and PostgreSQL is a standby: waiting for the primary to restore it. {}",
                        scope_lost::remedy(v)
                    ),
                ));
            }
            None
        }
    }
}

fn mismatch(v: &View, c: &ClusterView, control: &ControlData, theirs: &str) -> Decision {
    let name = &v.me.name;
    let mine = control.system_id;
    if v.settings().pause {
        if v.holds_leader_key() && c.leader.is_some() && !v.memory.cycle.refuted {
            return act(
                Rule::SystemIdMismatchPaused,
                Action::ReleaseLeaderKey { optime: None },
                "released leader key voluntarily due to the system ID mismatch",
            );
        }
        return rest(
            Rule::SystemIdMismatchPaused,
            format!("PAUSE: system ID mismatch, node {name} belongs to a different cluster: {theirs} != {mine}"),
        );
    }
    act(
        Rule::SystemIdMismatch,
        Action::Exit {
            code: 1,
            leave_running: true,
        },
        format!(
            "system ID mismatch, node {name} belongs to a different cluster: {theirs} != {mine}. \
             Check scope and data_dir; to join this cluster, move the data directory away"
        ),
    )
}
