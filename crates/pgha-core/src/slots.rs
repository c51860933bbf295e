//! Member slots: names, and which ones a node keeps.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use crate::cluster::ClusterView;
use crate::effect::Tend;
use crate::pg::{Slot, SqlFacts};
use crate::planted::{Planted, planted};
use crate::units::{Lsn, MemberName, Mono};
use crate::view::View;

/// PostgreSQL's limit for a slot name, in bytes.
const SLOT_NAME_MAX: usize = 63;
/// Most slots of absent members that are taken over from `/status`.
const MAX_REMEMBERED_SLOTS: usize = 256;

/// Patroni's translation of a member name into a slot name.
pub fn slot_name(member: &MemberName) -> String {
    let mut out = String::new();
    for c in member.as_str().chars() {
        for l in c.to_lowercase() {
            match l {
                'a'..='z' | '0'..='9' | '_' => out.push(l),
                '-' | '.' => out.push('_'),
                other => out.push_str(&format!("u{:04}", u32::from(other))),
            }
        }
    }
    out.truncate(SLOT_NAME_MAX);
    out
}

/// What to do about member slots on this node. At most one step per slot and cycle; planned anew from each observation.
///
/// Every node keeps a slot for every other member, so that WAL is still there for it after a failover. A slot is
/// dropped only `member_slots_ttl` after its member was last seen, and never while it is in use.
pub fn plan_slots(v: &View, cluster: &ClusterView, facts: &SqlFacts) -> Vec<Tend> {
    let mut plan = Vec::new();
    let settings = v.settings();
    if !settings.use_slots {
        return plan;
    }
    let is_primary = v.pg.says_primary();
    let wanted = wanted_slots(&v.me.name, cluster);
    let published = cluster.status.as_ref().map(|s| &s.slots);
    for name in &wanted {
        match facts.slots.get(name) {
            None => plan.push(Tend::CreateSlot(name.clone())),
            Some(slot) if slot.logical || slot.active => {}
            // A lost slot, or one nobody reserved WAL for, is made anew: streaming from it can never succeed.
            Some(slot) if slot.lost && planted(v, Planted::LostSlotKept) => {}
            Some(slot) if slot.lost || slot.restart.is_none() => plan.push(Tend::DropSlot(name.clone())),
            Some(slot) if !is_primary => {
                let target = published.and_then(|p| p.get(name)).copied();
                plan.extend(advance(name, slot, target, facts));
            }
            Some(_) => {}
        }
    }
    if settings.pause {
        return plan;
    }
    for (name, slot) in &facts.slots {
        let ours = !slot.logical && !slot.temporary && !slot.active && !wanted.contains(name);
        let expired = match v.memory.slot_last_wanted.get(name) {
            Some(_) if planted(v, Planted::SlotGoesWithMember) => true,
            Some(at) => v.now.mono.since(*at) >= settings.member_slots_ttl,
            None => planted(v, Planted::UnknownSlotDropped),
        };
        if ours && expired {
            plan.push(Tend::DropSlot(name.clone()));
        }
    }
    plan
}

/// A slot is moved to where the leader has it, once everything up to there is here.
fn advance(name: &str, slot: &Slot, target: Option<Lsn>, facts: &SqlFacts) -> Option<Tend> {
    let target = target?;
    let is_behind = slot.restart.is_some_and(|at| at < target) && facts.lsn().is_some_and(|l| l >= target);
    is_behind.then(|| Tend::AdvanceSlot(name.into(), target))
}

/// What to do about the slots that are here while etcd is away: a leader in failsafe mode told where it has its own.
pub fn plan_advances(me: &MemberName, told: &BTreeMap<String, Lsn>, facts: &SqlFacts) -> Vec<Tend> {
    let own = slot_name(me);
    let usable = |slot: &Slot| !slot.logical && !slot.active && !slot.lost && !slot.temporary;
    let here = facts.slots.iter().filter(|(name, slot)| **name != own && usable(slot));
    here.filter_map(|(name, slot)| advance(name, slot, told.get(name).copied(), facts))
        .collect()
}

/// Notes which slots are wanted now, and forgets those that are neither wanted, nor retained, nor here. What `/status` keeps for absent members counts as wanted from the moment it is first
/// read: neither a restarted agent nor a new leader knows how long they have been away.
pub fn note_wanted(
    last_wanted: &mut BTreeMap<String, Mono>,
    me: &MemberName,
    cluster: &ClusterView,
    facts: Option<&SqlFacts>,
    now: Mono,
) {
    let own = slot_name(me);
    let retained: Vec<String> = match &cluster.status {
        Some(status) => status.retain_slots.iter().filter(|n| **n != own).cloned().collect(),
        None => Vec::new(),
    };
    let wanted = wanted_slots(me, cluster);
    if let Some(facts) = facts {
        last_wanted
            .retain(|name, _| facts.slots.contains_key(name) || wanted.contains(name) || retained.contains(name));
    }
    for name in retained {
        if last_wanted.len() < MAX_REMEMBERED_SLOTS {
            last_wanted.entry(name).or_insert(now);
        }
    }
    last_wanted.extend(wanted.into_iter().map(|name| (name, now)));
}

/// The slots that the leader keeps for absent members: it has them, they were wanted once, and their time is not up.
/// Physical slots that no member ever had are somebody else's and not listed, or they would be dropped one day.
pub fn retained(
    last_wanted: &BTreeMap<String, Mono>,
    wanted: &[String],
    facts: &SqlFacts,
    ttl: Duration,
    now: Mono,
) -> Vec<String> {
    last_wanted
        .iter()
        .filter(|(name, at)| now.since(**at) < ttl && !wanted.contains(name))
        .filter(|(name, _)| facts.slots.get(*name).is_some_and(|s| !s.logical && !s.temporary))
        .map(|(name, _)| name.clone())
        .collect()
}

/// Names of the slots of all other members that can stream.
pub fn wanted_slots(me: &MemberName, cluster: &ClusterView) -> Vec<String> {
    let own = slot_name(me);
    let mut names: Vec<String> = cluster
        .members
        .iter()
        .filter(|(name, member)| *name != me && !member.tags.nostream)
        .map(|(name, _)| slot_name(name))
        .filter(|name| *name != own)
        .collect();
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::slot_name;
    use alloc::string::String;

    #[test]
    fn member_names_become_slot_names_as_patroni_makes_them() {
        assert_eq!(slot_name(&"pg-node.1".into()), "pg_node_1");
        assert_eq!(slot_name(&"Node A".into()), "nodeu0032a");
        assert_eq!(slot_name(&String::from("x").repeat(80).as_str().into()).len(), 63);
    }
}
