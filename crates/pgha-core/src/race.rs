//! Who is fit to lead: the comparison of positions in the leader race and before a hand-over.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use crate::cluster::{ClusterView, MemberState, SyncKey};
use crate::failsafe;
use crate::peer::{PeerStatus, PeerView};
use crate::planted::{Planted, planted};
use crate::units::{Lsn, MemberName, Timeline};
use crate::view::View;

/// Most time for asking all peers together.
pub(crate) const PEER_BUDGET: Duration = Duration::from_secs(2);

/// Why this node must leave the race to others.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NotHealthiest {
    /// A peer says that it accepts writes.
    PrimaryAlive(MemberName),
    /// A peer is ahead, or preferred.
    Behind(String),
    /// This node is not fit at all.
    Unfit(String),
}

/// Members other than this one that have an address to ask.
pub fn askable(view: &View, cluster: &ClusterView) -> Vec<MemberName> {
    cluster
        .members
        .iter()
        .filter(|(name, member)| **name != view.me.name && member.api_url.is_some())
        .map(|(name, _)| name.clone())
        .collect()
}

/// The members that have an address, and everybody who was one when somebody last led.
pub fn askable_or_known(view: &View, cluster: &ClusterView) -> Vec<MemberName> {
    let mut names = askable(view, cluster);
    for (name, url) in &view.memory.known.members {
        if url.is_some() && !names.contains(name) {
            names.push(name.clone());
        }
    }
    names.sort();
    names
}

/// Where a member is asked: by its key, by what is remembered of it, or by what it said of itself when it asked.
pub fn address(view: &View, name: &MemberName) -> Option<String> {
    let member = view.last_cluster().and_then(|c| c.members.get(name));
    member
        .and_then(|m| m.api_url.clone())
        .or_else(|| view.memory.known.members.get(name)?.clone())
        .or_else(|| {
            let word = view.memory.failsafe.word.as_ref().filter(|w| w.leader == *name)?;
            Some(word.api_url.clone())
        })
}

/// Everybody who answered in this cycle.
pub fn answers(view: &View) -> impl Iterator<Item = (&MemberName, &PeerStatus)> {
    view.peers.keys().filter_map(|name| Some((name, answer(view, name)?)))
}

/// Its word that it accepts no writes, and that no promotion or start is under way which could change that.
pub fn no_longer_primary(peer: &PeerStatus) -> bool {
    !peer.may_write && (peer.in_recovery == Some(true) || peer.state == MemberState::Stopped)
}

/// While the leader key carries our own name: a peer that has led since it was taken. A server that may accept writes, or is on a
/// newer timeline than this one, was promoted under a key of its own; an etcd that was restored from a snapshot does not know it.
pub fn led_since(view: &View) -> Option<&MemberName> {
    let own = view.pg.control().map(|control| control.checkpoint_timeline);
    let mine = my_timeline(view).or(own);
    let led = |peer: &PeerStatus| peer.in_recovery == Some(false) || peer.may_write || peer.timeline > mine;
    answers(view).find(|(_, peer)| led(peer)).map(|(name, _)| name)
}

/// A peer that says it accepts writes.
pub fn living_primary(view: &View) -> Option<&MemberName> {
    answers(view)
        .find(|(_, peer)| peer.in_recovery == Some(false))
        .map(|(name, _)| name)
}

/// A peer that says it accepts writes, on a newer timeline than this node's.
pub fn newer_primary(view: &View) -> Option<&MemberName> {
    let mine = my_timeline(view);
    answers(view)
        .find(|(_, peer)| peer.in_recovery == Some(false) && peer.timeline > mine)
        .map(|(name, _)| name)
}

/// An operator asked, by name, that this node take over from whoever led.
pub fn is_manual_failover_to_me(view: &View, cluster: &ClusterView) -> bool {
    cluster
        .failover
        .as_ref()
        .is_some_and(|f| !f.is_switchover() && f.scheduled_at.is_none() && f.candidate.as_ref() == Some(&view.me.name))
}

/// The status of a peer that answered in this cycle.
pub fn answer<'a>(view: &'a View, name: &MemberName) -> Option<&'a PeerStatus> {
    match view.peers.get(name) {
        Some(PeerView::Answered { status, .. }) => Some(status),
        Some(PeerView::NotAsked | PeerView::Unreachable { .. } | PeerView::Impostor { .. }) | None => None,
    }
}

/// Is this node the healthiest? `check_lag` is off when an operator named a candidate.
pub fn healthiest(
    view: &View,
    cluster: &ClusterView,
    ignore: Option<&MemberName>,
    check_lag: bool,
) -> Result<(), NotHealthiest> {
    let Some(facts) = view.pg.facts() else {
        return Err(NotHealthiest::Unfit("PostgreSQL does not tell its position".into()));
    };
    if let Some(reason) = too_old(view, cluster, check_lag) {
        return Err(NotHealthiest::Unfit(reason));
    }
    let my_lsn = facts.lsn().unwrap_or(Lsn(0));
    let my_timeline = my_timeline(view);
    let my_priority = view.me.tags.effective_failover_priority();
    for (name, peer) in answers(view) {
        if peer.in_recovery == Some(false) {
            return Err(NotHealthiest::PrimaryAlive(name.clone()));
        }
        if Some(name) == ignore || peer.in_recovery.is_none() {
            continue;
        }
        // Somebody was promoted there. That is so whoever tells of it, also who may not lead, or is not in a /sync that may come
        // from a snapshot; and it stays so however long it is waited for.
        compare_timelines(my_timeline, name, peer)?;
        if !peer.tags.may_lead() || peer.watchdog_failed || planted(view, Planted::PositionIgnored) {
            continue;
        }
        if !in_sync_set(view, cluster, name) {
            continue;
        }
        if !cluster.members.contains_key(name) && !waits_for_the_keyless(view) {
            continue;
        }
        compare(my_timeline, my_lsn, my_priority, name, peer)?;
    }
    Ok(())
}

/// Who answers and has no member key does not reach etcd, or not yet: an outage took all keys, and some come back later than
/// others. Whoever is ahead gets a ttl for it; after that a cluster without a leader is the greater loss.
fn waits_for_the_keyless(view: &View) -> bool {
    let since = view.memory.leaderless_since;
    since.is_none_or(|since| view.now.mono < since.plus(view.settings().ttl))
}

/// Why this node's WAL is too old to lead, whoever else there is: somebody was promoted whom it has not followed, or, with
/// `check_lag`, the last leader was further than `maximum_lag_on_failover` ahead.
pub fn too_old(view: &View, cluster: &ClusterView, check_lag: bool) -> Option<String> {
    if let (Some(mine), Some(newest)) = (my_timeline(view), cluster.timeline_by_history())
        && mine < newest
        && !planted(view, Planted::HistoryIgnored)
    {
        return Some(format!(
            "My timeline {mine} is behind last known cluster timeline {newest}"
        ));
    }
    let published = cluster.status.as_ref().filter(|_| check_lag)?.optime;
    let mine = view.pg.facts().and_then(|f| f.lsn()).unwrap_or(Lsn(0));
    let lag = published.ahead_of(mine);
    (lag > view.settings().maximum_lag_on_failover).then(|| {
        format!(
            "My wal position exceeds maximum replication lag: {lag} bytes behind the last published position {published}"
        )
    })
}

/// Has a candidate of `/sync` to see others?
pub fn has_voters(view: &View, cluster: &ClusterView) -> bool {
    voting_key(view, cluster).is_some()
}

/// `/sync`, when whoever leads next has to see others of its members.
fn voting_key<'a>(view: &View, cluster: &'a ClusterView) -> Option<&'a SyncKey> {
    let is_believed = !sync_is_of_past(view, cluster) && !planted(view, Planted::VotersIgnored);
    let counts = view.settings().is_synchronous() && is_believed;
    cluster.sync.as_ref().filter(|s| counts && s.quorum > 0)
}

/// Does this peer lack WAL that this node has?
pub fn is_behind_me(view: &View, name: &MemberName) -> bool {
    let mine = (my_timeline(view), view.pg.facts().and_then(|f| f.lsn()));
    answer(view, name).is_some_and(|peer| (peer.timeline, peer.lsn) < mine)
}

fn compare(
    my_timeline: Option<Timeline>,
    my_lsn: Lsn,
    my_priority: i64,
    name: &MemberName,
    peer: &PeerStatus,
) -> Result<(), NotHealthiest> {
    let peer_lsn = peer.lsn.unwrap_or(Lsn(0));
    // A position on an older timeline is not comparable.
    if let (Some(mine), Some(theirs)) = (my_timeline, peer.timeline)
        && theirs < mine
    {
        return Ok(());
    }
    if peer_lsn > my_lsn {
        return Err(NotHealthiest::Behind(format!(
            "{name} is ahead: {peer_lsn}, this node {my_lsn}"
        )));
    }
    let theirs = peer.tags.effective_failover_priority();
    if peer_lsn == my_lsn && theirs > my_priority {
        return Err(NotHealthiest::Behind(format!(
            "{name} has equally tolerable WAL position and priority {theirs}, while this node has priority {my_priority}"
        )));
    }
    Ok(())
}

/// A newer timeline wins whatever the position, and whatever `/sync` says: somebody was promoted of whom it does not tell, for
/// instance since the snapshot that etcd was restored from.
fn compare_timelines(my_timeline: Option<Timeline>, name: &MemberName, peer: &PeerStatus) -> Result<(), NotHealthiest> {
    match (my_timeline, peer.timeline) {
        (Some(mine), Some(theirs)) if theirs > mine => Err(NotHealthiest::Behind(format!(
            "{name} is on timeline {theirs}, this node on {mine}"
        ))),
        (Some(_) | None, _) => Ok(()),
    }
}

/// Synchronous mode, and `/sync` is what a restored etcd brought: it does not know what was acknowledged since the snapshot.
pub fn sync_is_of_past(view: &View, cluster: &ClusterView) -> bool {
    view.settings().is_synchronous() && view.memory.sync_of_past == Some(cluster.sync_revision())
}

/// This node's timeline: what PostgreSQL says, but never less than what it said before.
pub fn my_timeline(view: &View) -> Option<Timeline> {
    view.pg
        .facts()
        .and_then(|f| f.timeline())
        .max(view.memory.timeline_floor)
}

/// In synchronous mode only members of `/sync` count; everybody when the key is of the past, and then everybody is asked for.
pub fn in_sync_set(view: &View, cluster: &ClusterView, name: &MemberName) -> bool {
    let to_anybody = cluster.failover.as_ref().is_some_and(|wish| wish.candidate.is_none());
    if to_anybody && planted(view, Planted::SwitchoverToAnybody) {
        return true;
    }
    match cluster.sync.as_ref().filter(|_| !sync_is_of_past(view, cluster)) {
        Some(sync) if view.settings().is_synchronous() && sync.leader.is_some() => {
            let same = |other: &MemberName| other.as_str().eq_ignore_ascii_case(name.as_str());
            sync.leader.as_ref().is_some_and(same) || sync.standbys.iter().any(same)
        }
        // Who may lead stands in a key that cannot be understood: nobody, until a person mends it.
        Some(_) | None => !(view.settings().is_synchronous() && cluster.is_unreadable("sync")),
    }
}

/// Why this member of `/sync` has not seen enough of the others to know that it lacks no acknowledged commit; `None` when
/// it has. The quorum in the key counts whatever the mode is by now. The last leader holds what it acknowledged.
pub fn votes_missing(view: &View, cluster: &ClusterView) -> Option<String> {
    let sync = voting_key(view, cluster)?;
    let same = |a: &MemberName, b: &MemberName| a.as_str().eq_ignore_ascii_case(b.as_str());
    if sync.leader.as_ref().is_some_and(|l| same(l, &view.me.name)) {
        return None;
    }
    let (timeline, lsn) = (my_timeline(view), view.pg.facts().and_then(|f| f.lsn()));
    let not_ahead = |peer: &PeerStatus| {
        let older = matches!((peer.timeline, timeline), (Some(theirs), Some(mine)) if theirs < mine);
        let known = peer.in_recovery == Some(true) && peer.timeline.is_some() && peer.lsn.is_some();
        known && (older || (peer.timeline == timeline && peer.lsn <= lsn))
    };
    let members = sync
        .standbys
        .iter()
        .chain(&sync.leader)
        .filter(|n| !same(n, &view.me.name));
    let votes = members
        .filter(|n| answers(view).any(|(name, peer)| same(name, n) && not_ahead(peer)))
        .count();
    let needed = usize::try_from(sync.quorum).unwrap_or(usize::MAX);
    (votes < needed).then(|| {
        format!(
            "{votes} of the {needed} other members of /sync that are needed answer and are not ahead: not taking part"
        )
    })
}

/// Peers that answered in this cycle and could lead, with the reason for each that could not.
///
/// `reached`: the position a candidate must hold (the shutdown checkpoint), or `None` to allow for
/// `maximum_lag_on_failover` behind our own position.
pub fn candidates(
    view: &View,
    cluster: &ClusterView,
    wanted: Option<&MemberName>,
    reached: Option<Lsn>,
    only_sync: bool,
) -> (Vec<MemberName>, Vec<String>) {
    let mut fit = Vec::new();
    let mut why_not = Vec::new();
    if let Some(name) = wanted.filter(|name| !cluster.members.contains_key(name)) {
        why_not.push(format!("Member {name} does not exist"));
    }
    for name in askable(view, cluster) {
        if wanted.is_some_and(|w| *w != name) {
            continue;
        }
        match unfit(view, cluster, &name, reached, only_sync) {
            None => fit.push(name),
            Some(reason) => why_not.push(reason),
        }
    }
    (fit, why_not)
}

fn unfit(
    view: &View,
    cluster: &ClusterView,
    name: &MemberName,
    reached: Option<Lsn>,
    only_sync: bool,
) -> Option<String> {
    let Some(peer) = answer(view, name) else {
        return Some(match view.peers.get(name) {
            Some(PeerView::Impostor { reason, .. }) => {
                format!("Member {name} is not who answers at its address: {reason}")
            }
            Some(PeerView::NotAsked | PeerView::Unreachable { .. } | PeerView::Answered { .. }) | None => {
                format!("Member {name} is not reachable")
            }
        });
    };
    if !peer.tags.may_lead() {
        return Some(format!("Member {name} is not allowed to promote"));
    }
    if peer.watchdog_failed {
        return Some(format!("Member {name} is not watchdog capable"));
    }
    if peer.in_recovery != Some(true) {
        return Some(format!("Member {name} is not a running standby"));
    }
    if !failsafe::lists(cluster, name) {
        // It would refuse the key, and whoever waited for it would wait for ever.
        return Some(format!("Member {name} is not listed in /failsafe"));
    }
    if only_sync && !in_sync_set(view, cluster, name) {
        return Some(format!("Member {name} is not a synchronous standby"));
    }
    let lsn = peer.lsn.unwrap_or(Lsn(0));
    let late = match reached {
        // The record itself must be there, not only its beginning.
        Some(checkpoint) if planted(view, Planted::RecordHalfReceived) => lsn < checkpoint,
        Some(checkpoint) => lsn <= checkpoint,
        None => {
            let published = cluster.status.as_ref().map(|s| s.optime);
            let mine = view.pg.facts().and_then(|f| f.lsn()).max(published).unwrap_or(Lsn(0));
            mine.ahead_of(lsn) > view.settings().maximum_lag_on_failover
        }
    };
    if late {
        return Some(format!(
            "Member {name} exceeds maximum replication lag (it is at {lsn})"
        ));
    }
    if reached.is_none()
        && let (Some(theirs), Some(cluster_timeline)) = (peer.timeline, cluster.timeline_by_history())
        && theirs < cluster_timeline
    {
        return Some(format!(
            "Timeline {theirs} of member {name} is behind the cluster timeline {cluster_timeline}"
        ));
    }
    None
}
