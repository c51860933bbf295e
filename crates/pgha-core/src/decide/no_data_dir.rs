//! There is no usable data directory: copy one, found a cluster, or say why neither may be done.

use alloc::format;
use alloc::string::ToString;

use super::{Action, Decision, act, ask_once, backoff, bootstrap, rest, rest_until, soon, upstream};
use crate::cluster::{ClusterView, MemberState};
use crate::job::{Job, StartRole, Upstream};
use crate::pg::UnfinishedWork;
use crate::planted::{Planted, planted};
use crate::race;
use crate::rule::Rule;
use crate::units::MemberName;
use crate::view::View;

pub(super) fn decide_empty(v: &View, c: &ClusterView) -> Decision {
    if let Some(release) = release_key(
        v,
        c,
        "released leader key voluntarily as data dir empty and currently leader",
    ) {
        return release;
    }
    if v.settings().pause && v.memory.wishes.reinitialize.is_none() {
        return rest(Rule::NoDataPaused, "PAUSE: running with empty data directory");
    }
    let Some(leader) = c.leader_name() else {
        return bootstrap::decide(v, c);
    };
    if *leader == v.me.name {
        return own_key_stays(v);
    }
    if let Some(until) = backoff(v, v.memory.failures.clone.as_ref()) {
        let reason = v
            .memory
            .failures
            .clone
            .as_ref()
            .map(|f| f.reason.to_string())
            .unwrap_or_default();
        return rest_until(
            Rule::CloneBackoff,
            format!("failed to bootstrap, trying again in a moment: {reason}"),
            until,
        );
    }
    match clone_source(v, c, leader) {
        Some(source) => {
            let kind = if source.name == *leader { "leader" } else { "replica" };
            act(
                Rule::CloneFromMember,
                Action::Begin(Job::Clone { source: source.clone() }),
                format!("trying to bootstrap from {kind} '{}'", source.name),
            )
        }
        None => soon(
            v,
            Rule::CloneWaitForSource,
            format!("waiting for leader {leader} to be ready to be copied from"),
        ),
    }
}

/// Data that `/sync` counts on are not removed: the leader is asked, by the tags of this member, to take it out first.
pub(super) fn leave_sync(v: &View, c: &ClusterView) -> Option<Decision> {
    let same = |name: &MemberName| name.as_str().eq_ignore_ascii_case(v.me.name.as_str());
    let named = c.sync.as_ref().is_some_and(|s| s.standbys.iter().any(same));
    (named && v.settings().is_synchronous()).then(|| {
        soon(
            v,
            Rule::ReinitializeLeaveSync,
            "reinitialize: waiting for the leader to take this member out of /sync",
        )
    })
}

/// A running member with clonefrom that is neither the leader nor we; else the leader, once it runs.
fn clone_source(v: &View, c: &ClusterView, leader: &MemberName) -> Option<Upstream> {
    let only_leader = v.memory.wishes.reinitialize.is_some_and(|r| r.from_leader);
    let preferred = c
        .members
        .iter()
        .filter(|(name, m)| {
            !only_leader
                && **name != *leader
                && **name != v.me.name
                && m.tags.clonefrom
                && m.state == MemberState::Running
        })
        .find_map(|(name, _)| upstream(v, c, name));
    preferred.or_else(|| {
        let running = c.members.get(leader).is_some_and(|m| m.state == MemberState::Running);
        if running { upstream(v, c, leader) } else { None }
    })
}

pub(super) fn decide_inaccessible(v: &View, c: &ClusterView, reason: &str) -> Decision {
    if let Some(release) = release_key(
        v,
        c,
        "released leader key voluntarily as data dir not accessible and currently leader",
    ) {
        return release;
    }
    soon(
        v,
        Rule::DataDirInaccessible,
        format!("data directory is not accessible: {reason}"),
    )
}

pub(super) fn decide_foreign(v: &View, c: &ClusterView, reason: &str) -> Decision {
    if let Some(release) = release_key(
        v,
        c,
        "released leader key voluntarily as data dir is no cluster and currently leader",
    ) {
        return release;
    }
    rest(
        Rule::DataDirForeign,
        format!("the data directory is not empty and holds no PostgreSQL cluster ({reason}); move its content away"),
    )
}

pub(super) fn decide_unfinished(v: &View, c: &ClusterView, what: UnfinishedWork) -> Decision {
    if let Some(release) = release_key(
        v,
        c,
        "released leader key voluntarily as data dir is unusable and currently leader",
    ) {
        return release;
    }
    if c.leader_name() == Some(&v.me.name) {
        return own_key_stays(v);
    }
    if v.settings().pause && v.memory.wishes.reinitialize.is_none() {
        return rest(Rule::NoDataPaused, "PAUSE: the data directory is unfinished");
    }
    let starts = match what {
        UnfinishedWork::Bootstrap | UnfinishedWork::Clone => planted(v, Planted::HalfCopyStarted),
        UnfinishedWork::Rewind => planted(v, Planted::HalfRewoundStarted),
    };
    if let Some(leader) = c.leader_name().filter(|_| starts) {
        let upstream = upstream(v, c, leader);
        let timeout = v.settings().primary_start_timeout;
        let role = StartRole::Standby { upstream };
        let start = Action::Begin(Job::Start { role, timeout });
        return act(Rule::DownStartStandby, start, "starting as a secondary");
    }
    match what {
        // Once somebody leads there is a cluster to be copied, whatever became of our claim.
        UnfinishedWork::Bootstrap if v.memory.bootstrap_claim.is_some() && c.leader.is_none() => {
            bootstrap::decide(v, c)
        }
        UnfinishedWork::Bootstrap | UnfinishedWork::Clone => {
            let keep_aside = what == UnfinishedWork::Bootstrap;
            discard(
                Rule::UnfinishedCopyDiscard,
                keep_aside,
                "a bootstrap or copy broke off; removing what it left",
            )
        }
        UnfinishedWork::Rewind => decide_unfinished_rewind(v, c),
    }
}

/// An interrupted rewind mixed two histories: not startable, and only the leader is known to hold the rest.
fn decide_unfinished_rewind(v: &View, c: &ClusterView) -> Decision {
    let allowed =
        v.me.remove_on_rewind_failure
            .unwrap_or(v.settings().remove_on_rewind_failure)
            || v.memory.wishes.reinitialize.is_some();
    if !allowed {
        return rest(
            Rule::UnfinishedRewindStop,
            "pg_rewind was interrupted and left the data directory unusable; run `pgha-ctl reinit`, \
             or set remove_data_directory_on_rewind_failure",
        );
    }
    match confirm_leader(v, c, Rule::UnfinishedRewindDiscard) {
        Ok(()) => discard(
            Rule::UnfinishedRewindDiscard,
            false,
            "pg_rewind was interrupted; making a new copy",
        ),
        Err(decision) => decision,
    }
}

/// Before data is removed: the leader itself must answer, as a running primary of this cluster (S9).
pub(super) fn confirm_leader(v: &View, c: &ClusterView, rule: Rule) -> Result<(), Decision> {
    if planted(v, Planted::RemovesUnasked) {
        return Ok(());
    }
    let Some(leader) = c.leader_name().filter(|name| **name != v.me.name) else {
        return Err(soon(v, rule, "nothing is removed while there is no other leader"));
    };
    if let Some(ask) = ask_once(
        v,
        rule,
        alloc::vec![leader.clone()],
        "is the leader alive and of this cluster?",
    ) {
        return Err(ask);
    }
    match race::answer(v, leader) {
        Some(peer) if peer.in_recovery == Some(false) => Ok(()),
        Some(_) | None => Err(soon(
            v,
            rule,
            format!("nothing is removed until leader {leader} answers as a running primary"),
        )),
    }
}

/// The key is ours and could not be released in this cycle.
fn own_key_stays(v: &View) -> Decision {
    soon(
        v,
        Rule::NoDataReleaseLeaderKey,
        "no usable data here; the leader key could not be released yet",
    )
}

/// Removes the data directory, or renames it.
pub(super) fn discard(rule: Rule, keep_aside: bool, reason: &str) -> Decision {
    act(
        rule,
        Action::Begin(Job::DiscardDataDir {
            keep_aside,
            reason: reason.to_string(),
        }),
        reason,
    )
}

fn release_key(v: &View, c: &ClusterView, because: &str) -> Option<Decision> {
    let mine = c.leader_name() == Some(&v.me.name);
    if !mine || v.pg.is_running() || v.memory.cycle.refuted || v.memory.cycle.dcs_silent {
        return None;
    }
    if !v.holds_leader_key() {
        return Some(act(
            Rule::RaceTakeOverOwnKey,
            Action::TakeOverOwnKey,
            "the leader key carries my name on another lease",
        ));
    }
    Some(act(
        Rule::NoDataReleaseLeaderKey,
        Action::ReleaseLeaderKey { optime: None },
        because,
    ))
}
