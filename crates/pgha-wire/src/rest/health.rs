//! Health checks: the status code a load balancer acts upon.
//!
//! Invariant: a path that sends writes here (`/`, `/primary`, `/leader`, ...) is 200 only while the published proof of
//! leadership is good at `now` and PostgreSQL is not in recovery. Patroni answers 200 as soon as the leader key is
//! taken; here the promotion has to be over too. A status that nobody renews turns into 503 by itself.

use pgha_core::cluster::{MemberRole, MemberState};
use pgha_core::units::Mono;
use serde_json::Value;

use super::query::Target;
use super::status::{NodeStatus, SyncStanding, replication_state, standby_positions};
use crate::values::{Unit, parse_int_text, python_str};

const OK: u16 = 200;
const UNAVAILABLE: u16 = 503;

/// The status code of a health check by GET, HEAD or OPTIONS; a path that is no health check is 503.
pub fn health(path_and_query: &str, status: &NodeStatus, now: Mono) -> u16 {
    let target = Target::parse(path_and_query);
    let path = if target.path == "/" { "/primary" } else { target.path };
    let writes = Writes::of(status, now);
    let standby = || is_good_standby(&target, status, now);
    let has = |part: &str| path.contains(part);

    // Paths are matched by what they contain, in this order; only the last group is exact.
    let (ok, filters_tags) = if has("standby_leader") || has("standby-leader") {
        (writes.standby_leader, false)
    } else if has("leader") {
        (writes.leader, false)
    } else if has("master") || has("primary") || has("read-write") {
        (writes.primary, false)
    } else if has("replica") {
        (standby(), true)
    } else if has("read-only") && !has("sync") && !has("quorum") {
        (writes.any() || standby(), true)
    } else if has("health") {
        (status.shown_state() == MemberState::Running, true)
    } else if status.dcs_reachable {
        let sync = status.shown_sync();
        let ok = match path {
            "/sync" | "/synchronous" => sync == SyncStanding::Sync && standby(),
            "/quorum" => sync == SyncStanding::Quorum && standby(),
            "/async" | "/asynchronous" => sync == SyncStanding::None && standby(),
            "/read-only-quorum" => writes.any() || (sync == SyncStanding::Quorum && standby()),
            "/read-only-sync" | "/read-only-synchronous" => writes.any() || (sync == SyncStanding::Sync && standby()),
            _ => false,
        };
        (ok, true)
    } else {
        (false, true)
    };
    code(ok && (!filters_tags || has_tags(&target, status)))
}

/// `GET /liveness`: is the heartbeat alive? A standby may be late for longer, since it holds no lease.
pub fn liveness(status: &NodeStatus, now: Mono) -> u16 {
    let leads = status.role == MemberRole::Primary && status.postmaster_running;
    let tolerance = if leads {
        status.ttl
    } else {
        status.ttl.saturating_mul(2)
    };
    code(status.pause || status.next_run.plus(tolerance) > now)
}

/// `GET /readiness`: does this node lead, or stream without too much lag?
pub fn readiness(path_and_query: &str, status: &NodeStatus, now: Mono) -> u16 {
    if status.leader_until.holds(now) {
        return OK;
    }
    let Some(facts) = status.answer().filter(|_| status.state == MemberState::Running) else {
        return UNAVAILABLE;
    };
    if replication_state(facts) != Some("streaming") {
        return UNAVAILABLE;
    }
    if !status.dcs_reachable && status.latest_end().is_none() {
        return code(status.failsafe_active);
    }
    let target = Target::parse(path_and_query);
    let (received, replayed) = standby_positions(facts).unwrap_or_default();
    let position = if target.get("mode") == Some("write") {
        received
    } else {
        replayed
    };
    let allowed = allowed_lag(&target).unwrap_or(i128::from(status.maximum_lag_on_failover));
    code(i128::from(status.leader_position().0) - i128::from(position.0) <= allowed)
}

/// Which of the paths that send writes here are good.
struct Writes {
    leader: bool,
    primary: bool,
    standby_leader: bool,
}

impl Writes {
    fn of(status: &NodeStatus, now: Mono) -> Writes {
        let holds = status.leader_until.holds(now);
        // Where PostgreSQL was not heard, the agent's own word counts only for one that it knows to be running.
        let heard = status.answer().is_some() || status.state == MemberState::Running;
        let role = status.shown_role();
        let is_primary = holds && heard && role == MemberRole::Primary;
        let is_standby_leader =
            holds && heard && status.standby_cluster && matches!(role, MemberRole::Replica | MemberRole::StandbyLeader);
        Writes {
            leader: is_primary || is_standby_leader,
            // In maintenance mode with etcd out of reach the role alone says what may be written to.
            primary: is_primary && (!status.standby_cluster || (status.pause && !status.dcs_reachable)),
            standby_leader: is_standby_leader,
        }
    }

    fn any(&self) -> bool {
        self.primary || self.standby_leader
    }
}

/// A running standby that takes part in load balancing, is not too far behind and gets its WAL as asked for.
fn is_good_standby(target: &Target<'_>, status: &NodeStatus, now: Mono) -> bool {
    let Some(facts) = status.answer() else { return false };
    let leads_standbys = status.standby_cluster && status.leader_until.holds(now);
    let (_, replayed) = standby_positions(facts).unwrap_or_default();
    let lag = i128::from(status.leader_position().0) - i128::from(replayed.0);
    let wanted = target.get("replication_state");
    status.shown_role() == MemberRole::Replica
        && status.shown_state() == MemberState::Running
        && !status.tags.noloadbalance
        && !leads_standbys
        && (status.leader_position().0 == 0 || allowed_lag(target).is_none_or(|allowed| lag <= allowed))
        && wanted.is_none_or(|wanted| replication_state(facts) == Some(wanted))
}

/// Bytes of lag in the query; an invalid number is no limit.
fn allowed_lag(target: &Target<'_>) -> Option<i128> {
    parse_int_text(target.get("lag")?, Some(Unit::B)).map(i128::from)
}

/// Does each `tag_<name>=<value>` of the query match a configured tag?
fn has_tags(target: &Target<'_>, status: &NodeStatus) -> bool {
    target.with_prefix("tag_").all(|(name, wanted)| {
        let tag = status.tags.published.get(name).map(|text| serde_json::from_str(text));
        match tag {
            None | Some(Ok(Value::Null) | Err(_)) => false,
            Some(Ok(Value::String(tag))) => tag == wanted,
            Some(Ok(other)) => python_str(&other).to_lowercase() == wanted,
        }
    })
}

fn code(ok: bool) -> u16 {
    if ok { OK } else { UNAVAILABLE }
}
