//! etcd came back empty and PostgreSQL runs here as a standby: who may found the scope again?
//!
//! A primary that runs restores its keys itself, and a former primary that is down is the business of `pg_down`. This
//! file is for what is left after an outage of etcd that outlasted the primary's deadline: everybody is a standby,
//! the old leader included, and `/history`, `/status` and `/sync` are lost.
//!
//! **Covered.** A node that has read the scope before etcd lost it, and whose data bears the system identifier it read,
//! enters the race when all of this holds:
//! - one ttl has passed since the scope was first seen empty: no proof made before can still be good, and a primary
//!   that lives would have written its keys (S1);
//! - every member remembered from the time when somebody led answers as a standby of the same cluster, with its
//!   position. Whoever was promoted while this node was cut off from etcd is among them or has left its timeline with
//!   them. Only the node that led last itself, in asynchronous replication, does without some of them, as long as a
//!   majority answers: its WAL is that of its timeline's only writer, so a silent member could only be ahead if it
//!   was promoted, alone with etcd, out of sight of this node and of all that answer;
//! - nobody is on a newer timeline or ahead, and this node has not less than what etcd last told of the old leader.
//!
//! In synchronous mode a former primary that is down founds the scope by the same evidence, not by having been a primary
//! once: an agent that was restarted does not know who was promoted after it, and nobody may answer just now.
//!
//! The race then goes on as always; its transaction writes `/initialize` and `/config` only if both are still missing.
//!
//! **Not covered, and left to a person:** an agent that was restarted since (it remembers nothing, and who answers now
//! may not be everybody), a silent member, a scope whose `/initialize` is unreadable or claimed by somebody. The reason
//! names the command: a failover to a named candidate is the word of a person and needs none of these proofs,
//! except that no primary may be alive and that one ttl has passed.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::{Decision, ask_once, rest_until, soon};
use crate::cluster::{ClusterView, Initialize};
use crate::peer::PeerStatus;
use crate::pg::ControlData;
use crate::race;
use crate::rule::Rule;
use crate::units::MemberName;
use crate::view::View;

/// May this standby stay in the game although there is neither `/initialize` nor a leader?
pub(super) fn is_known(v: &View, c: &ClusterView, control: &ControlData) -> bool {
    matches!(c.initialize, Initialize::Absent)
        && (v.memory.known.system_id == Some(control.system_id) || race::is_manual_failover_to_me(v, c))
}

/// What a person can do when no node may go on by itself.
pub(super) fn remedy(v: &View) -> String {
    format!(
        "If no primary is left, name the member with the most WAL: `pgha-ctl failover {} --candidate {}`",
        v.me.scope, v.me.name
    )
}

/// `None`: nothing stands against the race.
pub(super) fn decide(v: &View, c: &ClusterView) -> Option<Decision> {
    if !matches!(c.initialize, Initialize::Absent) {
        return None;
    }
    if let Some(wait) = wait_for_primary(v) {
        return Some(wait);
    }
    if let Some(ask) = ask_once(
        v,
        Rule::ScopeLostAskMembers,
        race::askable_or_known(v, c),
        "etcd has lost the scope: asking everybody who is remembered",
    ) {
        return Some(ask);
    }
    if race::is_manual_failover_to_me(v, c) {
        return None;
    }
    match evidence(v) {
        Ok(()) => None,
        Err(reason) => Some(soon(
            v,
            Rule::ScopeLostUnproven,
            format!("{}. {}", unproven(&reason), remedy(v)),
        )),
    }
}

/// A primary that runs somewhere writes its keys again within a ttl: it goes first.
pub(super) fn wait_for_primary(v: &View) -> Option<Decision> {
    let until = v.memory.scope_empty_since.unwrap_or(v.now.mono).plus(v.longest_ttl());
    (v.now.mono < until).then(|| {
        rest_until(
            Rule::RaceWaitOldDeadline,
            "there is no initialize key: waiting for a running primary to restore it",
            until,
        )
    })
}

/// A former primary that is down gives the others a second ttl to come up and tell where they are: once it is started as a
/// standby, nothing on disk says any more that it wrote its timeline. `None`: they had it.
pub(super) fn wait_for_answers(v: &View, reason: &str) -> Option<Decision> {
    let since = v.memory.scope_empty_since.unwrap_or(v.now.mono);
    let until = since.plus(v.longest_ttl()).plus(v.longest_ttl());
    (v.now.mono < until).then(|| soon(v, Rule::ScopeLostUnproven, unproven(reason)))
}

fn unproven(reason: &str) -> String {
    format!("etcd has lost the scope and it is not certain that nobody is ahead: {reason}")
}

/// Has everybody been heard who could be ahead, and does this node have what etcd last told of?
pub(super) fn evidence(v: &View) -> Result<(), String> {
    everybody_answered(v)?;
    let known = &v.memory.known;
    if race::my_timeline(v) < known.timeline {
        return Err("the cluster was on a newer timeline than this node".into());
    }
    let mine = v.pg.facts().and_then(|f| f.lsn()).unwrap_or_default();
    if mine < known.optime {
        return Err(format!(
            "the last leader was at {}, this node is at {mine}",
            known.optime
        ));
    }
    let kept_from_race = |peer: &PeerStatus| !peer.tags.may_lead() || peer.watchdog_failed;
    let more = |peer: &PeerStatus| (peer.timeline, peer.lsn) > (race::my_timeline(v), Some(mine));
    match race::answers(v).find(|(_, peer)| v.settings().is_synchronous() && kept_from_race(peer) && more(peer)) {
        // The race looks at those that may lead; a synchronous standby that must not has acknowledged commits all the same.
        Some((name, _)) => Err(format!(
            "member {name}, which must not lead, has more WAL than this node"
        )),
        None => Ok(()),
    }
}

/// Is there an answer, with a position, from every member that could have led since etcd was last read?
pub(super) fn everybody_answered(v: &View) -> Result<(), String> {
    let known = &v.memory.known;
    if known.system_id.is_none() && v.settings().is_synchronous() {
        return Err(
            "this agent has not seen the scope since it was started: others may hold what was acknowledged".into(),
        );
    }
    if known.is_incomplete() {
        return Err("there are more members than are remembered".into());
    }
    let silent: Vec<&MemberName> = known
        .members
        .keys()
        .filter(|name| !race::answer(v, name).is_some_and(|p| tells_position(v, p)))
        .collect();
    let all = known.members.len() + 1;
    let led_last = known.leader.as_ref() == Some(&v.me.name);
    let majority = 2 * (all - silent.len()) > all;
    match silent.first() {
        None => Ok(()),
        Some(_) if led_last && majority && !v.settings().is_synchronous() => Ok(()),
        Some(name) => Err(format!("member {name} does not tell its position")),
    }
}

fn tells_position(v: &View, peer: &PeerStatus) -> bool {
    let same = peer.system_id.is_some() && peer.system_id == v.pg.control().map(|c| c.system_id);
    same && peer.in_recovery.is_some() && peer.timeline.is_some() && peer.lsn.is_some()
}
