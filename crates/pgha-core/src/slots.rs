//! Member slots: names, and which ones a node keeps.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::cluster::ClusterView;
use crate::effect::Tend;
use crate::pg::SqlFacts;
use crate::settings::Settings;
use crate::units::{Lsn, MemberName, Mono};

/// PostgreSQL's limit for a slot name, in bytes.
const SLOT_NAME_MAX: usize = 63;

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
pub fn plan_slots(
    me: &MemberName,
    cluster: &ClusterView,
    settings: &Settings,
    facts: &SqlFacts,
    is_primary: bool,
    last_wanted: &BTreeMap<String, Mono>,
    now: Mono,
) -> Vec<Tend> {
    let mut plan = Vec::new();
    if !settings.use_slots {
        return plan;
    }
    let wanted = wanted_slots(me, cluster);
    let published = cluster.status.as_ref().map(|s| &s.slots);
    for name in &wanted {
        match facts.slots.get(name) {
            None => plan.push(Tend::CreateSlot(name.clone())),
            Some(slot) if slot.logical || slot.active => {}
            // A lost slot, or one nobody reserved WAL for, is made anew: streaming from it can never succeed.
            Some(slot) if slot.lost || slot.restart.is_none() => plan.push(Tend::DropSlot(name.clone())),
            Some(slot) if !is_primary => {
                let target = published.and_then(|p| p.get(name)).copied().unwrap_or(Lsn(0));
                if slot.restart.is_some_and(|at| at < target) && facts.lsn().is_some_and(|l| l >= target) {
                    plan.push(Tend::AdvanceSlot(name.clone(), target));
                }
            }
            Some(_) => {}
        }
    }
    if settings.pause {
        return plan;
    }
    for (name, slot) in &facts.slots {
        let ours = !slot.logical && !slot.temporary && !slot.active && !wanted.contains(name);
        let expired = last_wanted
            .get(name)
            .is_some_and(|at| now.since(*at) >= settings.member_slots_ttl);
        if ours && expired {
            plan.push(Tend::DropSlot(name.clone()));
        }
    }
    plan
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
