//! `POST /switchover`, `POST /failover`, `DELETE /switchover`: what is checked before `/failover` is written, and what
//! is said while the cluster changes over.

use pgha_core::cluster::ClusterView;
use pgha_core::commit::FailoverValue;
use pgha_core::settings::SynchronousMode;
use pgha_core::units::{MemberName, Revision, Wall};
use serde_json::{Map, Value};

use super::actions::parse_schedule;
use super::cluster::is_sync_member;
use super::reply::Reply;
use crate::limits::MAX_NAME_BYTES;
use crate::values::is_truthy;

/// Which of the two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// Away from a leader that is there.
    Switchover,
    /// To a candidate, whether there is a leader or not.
    Failover,
}

impl Change {
    fn word(self) -> &'static str {
        match self {
            Change::Switchover => "switchover",
            Change::Failover => "failover",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Change::Switchover => "Switchover",
            Change::Failover => "Failover",
        }
    }

    /// `switched` or `failed`.
    fn done(self) -> &'static str {
        match self {
            Change::Switchover => "switched",
            Change::Failover => "failed",
        }
    }
}

/// A request that passed all checks but the questions to the candidates.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChangeRequest {
    /// Which of the two; a failover that names a leader has become a switchover.
    pub change: Change,
    /// What to write into `/failover`.
    pub value: FailoverValue,
    /// Whom to ask over REST first: at least one of them has to be fit. Empty for a planned one, which asks nobody.
    pub ask: Vec<MemberName>,
}

/// Reads and checks the body of `POST /switchover` or `POST /failover`.
///
/// # Errors
/// The answer that refuses it, by the first check that fails.
pub fn parse_change(
    change: Change,
    body: &Map<String, Value>,
    view: &ClusterView,
    now: Wall,
) -> Result<ChangeRequest, Reply> {
    let leader = name(body, "leader")?;
    let candidate = match name(body, "candidate")? {
        Some(candidate) => Some(candidate),
        None => name(body, "member")?,
    };
    let paused = view.settings().pause;
    let refuse = |text: &str| Err(Reply::text(400, text));
    match change {
        Change::Failover if candidate.is_none() => {
            return refuse("Failover could be performed only to a specific candidate");
        }
        Change::Switchover if leader.is_none() => {
            return refuse("Switchover could be performed only from a specific leader");
        }
        Change::Failover | Change::Switchover => {}
    }
    let scheduled_at = match (body.get("scheduled_at").filter(|v| is_truthy(v)), change) {
        (None, _) => None,
        (Some(_), Change::Failover) => return refuse("Failover can't be scheduled"),
        (Some(_), Change::Switchover) if paused => return refuse("Can't schedule switchover in the paused state"),
        (Some(value), Change::Switchover) => Some(parse_schedule(value, "switchover", now)?),
    };
    if paused && candidate.is_none() {
        return refuse("Switchover is possible only to a specific candidate in a paused state");
    }
    let change = if leader.is_some() { Change::Switchover } else { change };
    if leader == candidate {
        return refuse("Switchover target and source are the same");
    }
    let ask = match scheduled_at {
        Some(_) => Vec::new(),
        None => candidates(change, leader.as_ref(), candidate.as_ref(), view).map_err(|t| Reply::text(412, t))?,
    };
    Ok(ChangeRequest {
        change,
        value: FailoverValue {
            leader,
            candidate,
            scheduled_at,
        },
        ask,
    })
}

/// The members one of which could take over, before they are asked.
fn candidates(
    change: Change,
    leader: Option<&MemberName>,
    candidate: Option<&MemberName>,
    view: &ClusterView,
) -> Result<Vec<MemberName>, String> {
    let settings = view.settings();
    let only_sync = settings.is_synchronous() && settings.synchronous_mode == SynchronousMode::On;
    if leader.is_some() && leader != view.leader_name() {
        return Err("leader name does not match".to_owned());
    }
    if let Some(candidate) = candidate {
        if change == Change::Switchover && only_sync && !is_sync_member(view, candidate) {
            return Err("candidate name does not match with sync_standby".to_owned());
        }
        if !view.members.contains_key(candidate) {
            return Err("candidate does not exists".to_owned());
        }
        return Ok(vec![candidate.clone()]);
    }
    let word = change.word();
    let (fit, nobody): (Vec<MemberName>, &str) = if only_sync {
        (
            view.members
                .keys()
                .filter(|n| is_sync_member(view, n))
                .cloned()
                .collect(),
            "can not find sync_standby",
        )
    } else {
        let others = view
            .members
            .iter()
            .filter(|(n, m)| Some(*n) != view.leader_name() && m.api_url.is_some());
        (
            others.map(|(n, _)| n.clone()).collect(),
            "cluster does not have members except leader",
        )
    };
    if fit.is_empty() {
        Err(format!("{word} is not possible: {nobody}"))
    } else {
        Ok(fit)
    }
}

/// The answer when none of those asked is fit.
pub fn no_good_candidates(change: Change) -> Reply {
    Reply::text(
        412,
        format!("{} is not possible: no good candidates have been found", change.word()),
    )
}

/// The answer once `/failover` is written, or was not; `None` means: wait, and look with [`outcome`].
pub fn written(request: &ChangeRequest, is_written: bool) -> Option<Reply> {
    if !is_written {
        return Some(Reply::text(503, "failed to write failover key into DCS"));
    }
    request
        .value
        .scheduled_at
        .map(|_| Reply::text(202, format!("{} scheduled", request.change.title())))
}

/// The answer that a fresh look at the cluster gives; `None` while it changes over. `former` led before.
pub fn outcome(request: &ChangeRequest, former: Option<&MemberName>, view: &ClusterView) -> Option<Reply> {
    let done = request.change.done();
    match view.leader_name() {
        Some(new) if Some(new) != former => {
            let text = match &request.value.candidate {
                Some(candidate) if candidate != new => {
                    let done = if request.change == Change::Switchover {
                        "Switched"
                    } else {
                        "Failed"
                    };
                    format!("{done} over to \"{new}\" instead of \"{candidate}\"")
                }
                Some(_) | None => format!("Successfully {done} over to \"{new}\""),
            };
            Some(Reply::text(200, text))
        }
        Some(_) | None if view.failover.is_none() => {
            Some(Reply::text(503, format!("{} failed", request.change.title())))
        }
        Some(_) | None => None,
    }
}

/// The answer when the waiting ended first.
pub fn outcome_unknown(change: Change, waited_s: u64) -> Reply {
    let title = change.title();
    Reply::text(
        503,
        format!("{title} status unknown after {waited_s} seconds; operation may still be in progress"),
    )
}

/// `DELETE /switchover`: the revision of `/failover` to compare with when `{}` is written over it.
///
/// # Errors
/// 404 when nothing is planned.
pub fn parse_cancel(view: &ClusterView) -> Result<Revision, Reply> {
    let planned = view
        .failover
        .as_ref()
        .filter(|f| f.scheduled_at.is_some() || f.schedule_unreadable);
    planned
        .map(|f| f.mod_revision)
        .ok_or_else(|| Reply::text(404, "no switchover is scheduled"))
}

/// The answer to `DELETE /switchover` once `{}` is written, or was not because somebody else wrote.
pub fn cancelled(is_written: bool) -> Reply {
    if is_written {
        Reply::text(200, "scheduled switchover deleted")
    } else {
        Reply::error_page(409)
    }
}

/// A name in the body: missing, null and empty are none.
fn name(body: &Map<String, Value>, key: &str) -> Result<Option<MemberName>, Reply> {
    match body.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(s)) if s.is_empty() => Ok(None),
        Some(Value::String(s)) if s.len() <= MAX_NAME_BYTES => Ok(Some(MemberName::new(s.as_str()))),
        Some(_) => Err(Reply::text(400, format!("{key} has to be the name of a member"))),
    }
}
