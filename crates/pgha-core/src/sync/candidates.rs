//! Who is to be synchronous: the members that stream from here and want to, best first.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cmp::Reverse;

use super::Facts;
use super::claim::Claim;
use super::names::{Method, Names};
use crate::cluster::{Member, MemberState};
use crate::pg::WalSender;
use crate::settings::SynchronousMode;
use crate::units::{Lsn, MemberName};

/// What is wanted once everything is done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    /// Method of the mode.
    pub method: Method,
    /// How many standbys a commit waits for.
    pub num: usize,
    /// Of these, sorted.
    pub names: Vec<MemberName>,
}

impl Target {
    /// What `/sync` says then. With everybody waited for nobody has to be seen.
    pub fn claim(&self, me: &MemberName) -> Claim {
        Claim {
            leader: Some(me.clone()),
            quorum: u32::try_from(self.names.len() - self.num).unwrap_or(0),
            names: self.names.clone(),
        }
    }
    /// What its text says.
    pub fn parsed(&self) -> Names {
        Names {
            method: self.method,
            num: self.num,
            list: self.names.clone(),
            has_star: false,
        }
    }
}

/// The standbys that are wanted.
///
/// A tie is decided for who is in `/sync` already, so that equally good standbys do not take turns. Those that may not
/// lead come last, because they cannot take over: in quorum mode only while the others are too few. Behind them all stand
/// those that have not answered for a `ttl`: they are waited for while there is nobody better, so that a slow standby never
/// costs a commit its second copy.
pub fn target(f: &Facts<'_>) -> Target {
    let mut fit = eligible(f);
    let listed = |name: &MemberName| {
        let same = |n: &MemberName| n.as_str().eq_ignore_ascii_case(name.as_str());
        f.key.is_some_and(|k| k.standbys.iter().any(same))
    };
    fit.sort_by_key(|c| {
        let priority = c.member.tags.sync_priority.unwrap_or(1);
        (
            c.silent,
            !c.member.tags.may_lead(),
            Reverse(priority),
            !listed(c.name),
            Reverse(c.lsn),
            c.name,
        )
    });
    let wanted = usize::try_from(f.settings.synchronous_node_count).unwrap_or(usize::MAX);
    let quorum = f.settings.synchronous_mode == SynchronousMode::Quorum;
    let chosen = fit
        .iter()
        .enumerate()
        .filter(|(at, c)| *at < wanted || (quorum && c.member.tags.may_lead()));
    let mut names: Vec<MemberName> = chosen.map(|(_, c)| c.name.clone()).collect();
    names.sort();
    Target {
        method: if quorum { Method::Quorum } else { Method::Priority },
        num: wanted.min(names.len()),
        names,
    }
}

struct Candidate<'a> {
    name: &'a MemberName,
    member: &'a Member,
    lsn: Lsn,
    silent: bool,
}

fn eligible<'a>(f: &Facts<'a>) -> Vec<Candidate<'a>> {
    let candidate = |(name, member): (&'a MemberName, &'a Arc<Member>)| {
        let sender = f.pg.wal_senders.iter().find(|s| streams_to(s, name))?;
        let wants = *name != *f.me && member.state == MemberState::Running && member.tags.may_sync();
        let lsn = position(sender, &f.pg.synchronous_commit)?;
        wants.then_some(Candidate {
            name,
            member,
            lsn,
            silent: f.heard.is_silent(sender, f.now, f.settings.ttl),
        })
    };
    let all: Vec<Candidate<'_>> = f.members.iter().filter_map(candidate).collect();
    let Some(limit) = f.settings.maximum_lag_on_syncnode else {
        return all;
    };
    // A single one is compared with the primary; of several the best shows what can be had.
    let best = match all.as_slice() {
        [_] => f.flush,
        several => several.iter().map(|c| c.lsn).max().unwrap_or(Lsn(0)),
    };
    all.into_iter().filter(|c| best.ahead_of(c.lsn) <= limit).collect()
}

/// A wal sender in the state that synchronous replication counts, of the member of this name.
pub(super) fn streams_to(sender: &WalSender, name: &MemberName) -> bool {
    sender.state == "streaming" && sender.application_name.eq_ignore_ascii_case(name.as_str())
}

/// The position that commits wait for, by `synchronous_commit`.
pub(super) fn position(sender: &WalSender, synchronous_commit: &str) -> Option<Lsn> {
    match synchronous_commit {
        "remote_apply" => sender.replay,
        "remote_write" => sender.write,
        _ => sender.flush,
    }
}
