//! `POST /switchover`, `POST /failover`, `DELETE /switchover`: ask the candidates, write `/failover`, and watch what
//! comes of it. Who may take over and what is said is decided in wire; that it happens is decided in core.

use std::time::Duration;

use pgha_core::cluster::ClusterView;
use pgha_core::commit::{CommitOutcome, FailoverValue};
use pgha_core::peer::{PeerStatus, PeerView};
use pgha_core::units::{MemberName, Revision};
use pgha_wire::rest::reply::Reply;
use pgha_wire::rest::switchover::{
    Change, ChangeRequest, cancelled, no_good_candidates, outcome, outcome_unknown, parse_cancel, parse_change, written,
};
use serde_json::{Map, Value};
use tokio::time::{sleep, timeout};

use crate::limits::{PEER_TIMEOUT, SWITCHOVER_MIN_WATCH, SWITCHOVER_POLL, SWITCHOVER_SETTLE_LOOKS, WRITE_TIMEOUT};
use crate::router::Api;

/// Changes the leader, or plans it. Answers when the change is over, or has taken too long to wait for.
pub(crate) async fn run(api: &Api, change: Change, body: &Map<String, Value>) -> Result<Reply, Reply> {
    let view = api.fresh_cluster().await.ok_or_else(|| Reply::error_page(503))?;
    let request = parse_change(change, body, &view, api.backend.now().wall)?;
    if !request.ask.is_empty() && !is_anybody_fit(api, &request.ask, &view).await {
        return Err(no_good_candidates(request.change));
    }
    let is_written = match write(api, Some(request.value.clone()), None).await {
        CommitOutcome::Applied { .. } => true,
        CommitOutcome::Conflict | CommitOutcome::LeaseGone | CommitOutcome::Refused => false,
        // The answer was lost, the write perhaps not: what is there now tells, unless it is still under way.
        CommitOutcome::Unknown => match api.fresh_cluster().await {
            Some(now) if is_ours(&now, &request.value) => true,
            Some(_) | None => return Err(outcome_unknown(request.change, WRITE_TIMEOUT.as_secs())),
        },
    };
    api.backend.wake();
    match written(&request, is_written) {
        Some(reply) => Ok(reply),
        None => Ok(watch(api, &request, &view).await),
    }
}

/// `DELETE /switchover`.
pub(crate) async fn cancel(api: &Api) -> Result<Reply, Reply> {
    let view = api.fresh_cluster().await.ok_or_else(|| Reply::error_page(503))?;
    let revision = parse_cancel(&view)?;
    match write(api, None, Some(revision)).await {
        CommitOutcome::Applied { .. } => Ok(cancelled(true)),
        CommitOutcome::Conflict => Ok(cancelled(false)),
        CommitOutcome::LeaseGone | CommitOutcome::Refused => Err(Reply::error_page(503)),
        CommitOutcome::Unknown => match api.fresh_cluster().await {
            Some(now) if now.failover.is_none() => Ok(cancelled(true)),
            Some(_) | None => Err(Reply::error_page(503)),
        },
    }
}

async fn write(api: &Api, value: Option<FailoverValue>, expected: Option<Revision>) -> CommitOutcome {
    timeout(WRITE_TIMEOUT, api.backend.write_failover(value, expected))
        .await
        .unwrap_or(CommitOutcome::Unknown)
}

fn is_ours(view: &ClusterView, value: &FailoverValue) -> bool {
    view.failover.as_ref().is_some_and(|key| {
        key.leader == value.leader && key.candidate == value.candidate && key.scheduled_at == value.scheduled_at
    })
}

/// Does any of these members answer, with a PostgreSQL that does, and may it lead?
async fn is_anybody_fit(api: &Api, names: &[MemberName], view: &ClusterView) -> bool {
    let peers: Vec<(MemberName, String)> = names
        .iter()
        .filter_map(|name| Some((name.clone(), view.members.get(name)?.api_url.clone()?)))
        .collect();
    // The client bounds each question by PEER_TIMEOUT; this only holds should the agent behind it hang.
    let answers = timeout(PEER_TIMEOUT * 2, api.backend.ask_peers(peers))
        .await
        .unwrap_or_default();
    answers.values().any(|view| match view {
        PeerView::Answered { status, .. } => is_fit(status),
        PeerView::NotAsked | PeerView::Unreachable { .. } | PeerView::Impostor { .. } => false,
    })
}

fn is_fit(status: &PeerStatus) -> bool {
    status.in_recovery.is_some() && status.tags.may_lead() && !status.watchdog_failed
}

/// Looks at the cluster until it is clear what came of the request, for twice a heartbeat at most.
async fn watch(api: &Api, request: &ChangeRequest, before: &ClusterView) -> Reply {
    let limit: Duration = SWITCHOVER_MIN_WATCH.max(before.settings().loop_wait).saturating_mul(2);
    let looking = async {
        let mut looks_without_leader = 0;
        loop {
            sleep(SWITCHOVER_POLL).await;
            let Some(view) = api.fresh_cluster().await else {
                continue;
            };
            let Some(reply) = outcome(request, before.leader_name(), &view) else {
                looks_without_leader = 0;
                continue;
            };
            // A cleared request without any leader may be the moment between release and acquisition.
            looks_without_leader += 1;
            if reply.status == 200 || view.leader.is_some() || looks_without_leader >= SWITCHOVER_SETTLE_LOOKS {
                return reply;
            }
        }
    };
    let looked = timeout(limit, looking).await;
    looked.unwrap_or_else(|_| outcome_unknown(request.change, limit.as_secs()))
}
