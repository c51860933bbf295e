//! A switchover or failover without help of the REST API: `/failover` written here, and its effect watched in etcd.

use std::time::Duration;

use pgha_core::cluster::ClusterView;
use pgha_core::commit::{Change as KeyChange, Commit, CommitOutcome, FailoverValue, Key, Purpose};
use pgha_core::tags::Tags;
use pgha_core::units::{MemberName, Wall};
use pgha_wire::commit::{MemberIdentity, render_txn};
use pgha_wire::isotime::parse_iso;
use pgha_wire::rest::switchover::{ChangeRequest, outcome, outcome_unknown};

use super::switchover::Plan;
use crate::app::App;
use crate::cluster::Cluster;
use crate::error::CtlError;
use crate::limits::{DCS_BUDGET, POLL};
use crate::outcome::Outcome;

/// What was asked for, and whether the key was certainly written.
pub(super) struct Request {
    change: ChangeRequest,
    key_was_seen: bool,
}

/// A request whose fate is not known.
pub(super) fn requested(plan: &Plan) -> Request {
    let value = FailoverValue {
        leader: plan.leader.clone(),
        candidate: plan.candidate.clone(),
        scheduled_at: plan.when.as_ref().and_then(|moment| parse_iso(&moment.iso()).ok()),
    };
    Request {
        change: ChangeRequest {
            change: plan.change,
            value,
            ask: Vec::new(),
        },
        key_was_seen: false,
    }
}

/// Writes `/failover`, provided that neither it nor the leader has changed since the user looked.
pub(super) async fn write(app: &App, cluster: &Cluster, plan: &Plan) -> Result<Request, CtlError> {
    let mut request = requested(plan);
    let commit = Commit {
        purpose: Purpose::UpdateFailover,
        guards: Vec::new(),
        changes: vec![KeyChange::PutFailover(Some(request.change.value.clone()))],
    };
    // Only a member key tells of its writer, and none is written.
    let nobody = MemberName::new("");
    let identity = MemberIdentity {
        name: &nobody,
        conn_url: "",
        api_url: "",
        proxy_url: None,
        version: "",
        tags: &Tags::default(),
    };
    let mut txn = render_txn(&cluster.base, &identity, &commit);
    txn.compares = vec![cluster.unchanged(&Key::Failover), cluster.unchanged(&Key::Leader)];
    match app.store.commit(&txn).await {
        CommitOutcome::Applied { .. } => request.key_was_seen = true,
        CommitOutcome::Unknown => {}
        CommitOutcome::Conflict => {
            return Err(CtlError::refused(
                "the leader or the failover key has changed meanwhile; look at the cluster again",
            ));
        }
        CommitOutcome::LeaseGone | CommitOutcome::Refused => {
            return Err(CtlError::refused("failed to write failover key into DCS"));
        }
    }
    Ok(request)
}

/// Looks at the cluster until the leader has changed or the key was taken back, for about `limit`. A store that does
/// not answer meanwhile is asked again: the request is on its way, so there is no failure to tell of.
pub(super) async fn watch(app: &App, before: &Cluster, request: &Request, limit: Duration) -> (String, Outcome) {
    let former = before.view.leader_name();
    let mut key_was_seen = request.key_was_seen;
    let mut waited = Duration::ZERO;
    let wanted = &request.change.value;
    loop {
        match app.store.read(&before.scope).await {
            Ok(now) => {
                let view = now.view;
                let is_there = view
                    .failover
                    .as_ref()
                    .is_some_and(|key| is_planned(key.scheduled_at, wanted.scheduled_at));
                key_was_seen |= is_there;
                if let Some(end) = judge(request, former, &view, is_there, key_was_seen) {
                    return end;
                }
            }
            Err(trouble) => {
                app.console.warn(&trouble.to_string());
                waited += DCS_BUDGET;
            }
        }
        if waited >= limit {
            return (
                outcome_unknown(request.change.change, waited.as_secs()).body,
                Outcome::Unknown,
            );
        }
        tokio::time::sleep(POLL).await;
        waited += POLL;
    }
}

/// How it ended, if it did. Without the key a leader of old means failure only if the key was there before.
fn judge(
    request: &Request,
    former: Option<&MemberName>,
    view: &ClusterView,
    is_there: bool,
    key_was_seen: bool,
) -> Option<(String, Outcome)> {
    if request.change.value.scheduled_at.is_some() {
        return is_there.then(|| (format!("{} scheduled", title(request)), Outcome::Done));
    }
    let reply = outcome(&request.change, former, view)?;
    match reply.status {
        200 => Some((reply.body, Outcome::Done)),
        _ => key_was_seen.then_some((reply.body, Outcome::Failed)),
    }
}

fn is_planned(found: Option<Wall>, wanted: Option<Wall>) -> bool {
    wanted.is_none() || found == wanted
}

fn title(request: &Request) -> &'static str {
    match request.change.change {
        pgha_wire::rest::switchover::Change::Switchover => "Switchover",
        pgha_wire::rest::switchover::Change::Failover => "Failover",
    }
}
