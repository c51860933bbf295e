//! No data here and no leader anywhere: may this node found the cluster?

use alloc::format;

use super::{Action, Decision, act, ask_once, backoff, rest, rest_until, soon};
use crate::cluster::{ClusterView, Initialize, Member, MemberRole};
use crate::job::Job;
use crate::pg::DataDir;
use crate::race;
use crate::rule::Rule;
use crate::view::{View, WatchdogView};

pub(super) fn decide(v: &View, c: &ClusterView) -> Decision {
    match c.initialize {
        Initialize::Done(_) => rest(Rule::BootstrapWait, "waiting for leader to bootstrap"),
        Initialize::Unreadable => rest(
            Rule::BootstrapWait,
            "the initialize key holds neither a system identifier nor nothing; a person must look at it",
        ),
        Initialize::InProgress { .. } if v.memory.bootstrap_claim.is_some() => decide_claimed(v),
        Initialize::InProgress { .. } => soon(v, Rule::BootstrapWait, "waiting for leader to bootstrap"),
        Initialize::Absent => decide_unclaimed(v, c),
    }
}

fn decide_claimed(v: &View) -> Decision {
    match &v.memory.failures.bootstrap {
        Some(failure) => act(
            Rule::BootstrapCancel,
            Action::CancelInitialize,
            format!(
                "removing initialize key after failed attempt to bootstrap the cluster: {}",
                failure.reason
            ),
        ),
        None => act(
            Rule::BootstrapRun,
            Action::Begin(Job::Bootstrap),
            "trying to bootstrap a new cluster",
        ),
    }
}

fn decide_unclaimed(v: &View, c: &ClusterView) -> Decision {
    if !matches!(v.pg.data_dir, DataDir::Empty) {
        return soon(v, Rule::BootstrapWait, "waiting for leader to bootstrap");
    }
    if !v.me.may_bootstrap || !v.me.tags.may_lead() {
        return soon(v, Rule::BootstrapNotAllowed, "waiting for leader to bootstrap");
    }
    if v.me.watchdog_required && v.memory.watchdog == WatchdogView::Failed {
        // The cluster would be founded where nobody may lead it, and keep everybody else from founding one.
        return soon(
            v,
            Rule::BootstrapNotAllowed,
            "waiting for leader to bootstrap: Watchdog device is not usable",
        );
    }
    if let Some(id) = v.memory.known.system_id {
        return soon(
            v,
            Rule::BootstrapClusterExists,
            format!("the scope was that of cluster {id} before etcd lost it; waiting for a member that has its data"),
        );
    }
    if v.memory.cycle.lost_claim {
        return soon(v, Rule::BootstrapWait, "failed to acquire initialize lock");
    }
    if let Some(until) = backoff(v, v.memory.failures.bootstrap.as_ref()) {
        return rest_until(
            Rule::BootstrapWait,
            "the last bootstrap failed; trying again in a moment",
            until,
        );
    }
    let peers = race::askable(v, c);
    if let Some(ask) = ask_once(
        v,
        Rule::BootstrapAskPeers,
        peers.clone(),
        "does a peer have data already?",
    ) {
        return ask;
    }
    let owner = c.members.iter().find(|(name, member)| {
        **name != v.me.name
            && match race::answer(v, name) {
                Some(peer) => peer.system_id.is_some(),
                // Who does not answer is believed what it last wrote of itself.
                None => has_data(member),
            }
    });
    match owner {
        Some((name, _)) => soon(
            v,
            Rule::BootstrapClusterExists,
            format!("member {name} has a system identifier: the cluster exists although the initialize key is missing"),
        ),
        None => act(
            Rule::BootstrapClaim,
            Action::ClaimInitialize,
            "no cluster exists: claiming the initialize key",
        ),
    }
}

/// Does its member key speak of a cluster on disk?
fn has_data(member: &Member) -> bool {
    let role = match member.role {
        MemberRole::Primary | MemberRole::StandbyLeader | MemberRole::Replica | MemberRole::Promoted => true,
        MemberRole::Demoted | MemberRole::Uninitialized => false,
    };
    role || member.timeline.is_some() || member.lsn.is_some()
}
