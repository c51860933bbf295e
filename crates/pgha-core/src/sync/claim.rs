//! What `/sync` claims, and when it is true.
//!
//! The members of a claim are its leader and its names. Whoever leads next is one of them and has seen `quorum` others of
//! them that are not ahead. So the claim is true when each acknowledged commit is on so many members that any
//! `quorum + 1` of them include one that has it.

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;

use super::names::{Method, Names};
use crate::cluster::SyncKey;
use crate::units::MemberName;

/// The value of `/sync`.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub struct Claim {
    /// The last leader.
    pub leader: Option<MemberName>,
    /// How many others a candidate has to see; 0 in priority mode.
    pub quorum: u32,
    /// Names, sorted.
    pub names: Vec<MemberName>,
}

impl Claim {
    /// What the key says.
    pub fn of(key: &SyncKey) -> Claim {
        let mut names = key.standbys.clone();
        names.sort();
        Claim {
            leader: key.leader.clone(),
            quorum: key.quorum,
            names,
        }
    }
    /// Nobody but this one: true whatever happened, as it holds what it acknowledged.
    pub fn alone(me: &MemberName) -> Claim {
        Claim {
            leader: Some(me.clone()),
            quorum: 0,
            names: Vec::new(),
        }
    }
    /// Leader and names, without regard to case.
    pub fn members(&self) -> BTreeSet<String> {
        self.names.iter().chain(&self.leader).map(fold).collect()
    }
}

/// Names compare as PostgreSQL compares them.
pub fn fold(name: &MemberName) -> String {
    name.as_str().to_ascii_lowercase()
}

/// Is the claim true for what `me` acknowledges under this text? `None` is a text that was not understood.
pub fn holds(claim: &Claim, me: &MemberName, text: Option<&Names>) -> bool {
    let members = claim.members();
    if members.is_empty() || text.is_some_and(Names::acknowledges_nothing) {
        return true;
    }
    let certain = text.map_or(0, Names::certain);
    let listed: BTreeSet<String> = text.map(|t| t.real().map(fold).collect()).unwrap_or_default();
    let outside = listed.difference(&members).count();
    let holders = certain.saturating_sub(outside) + usize::from(members.contains(&fold(me)));
    holders + seen(claim) + 1 > members.len()
}

/// Is the claim true for what `me` acknowledges while some wal senders have read `old` and the others `new`?
///
/// A wal sender goes by the number of its own text and by the priorities that the others show, each from the text that it
/// has read. So a standby that the new text drops still counts for a wal sender that has read the new one: from `2 (b,c)` to
/// `2 (c,d)` a commit can be released by b and d, without c, whom both texts wait for. By priority a wal sender only
/// releases what its own standby has.
pub fn holds_between(claim: &Claim, me: &MemberName, old: Option<&Names>, new: Option<&Names>) -> bool {
    let (Some(from), Some(to)) = (old, new) else {
        return holds(claim, me, None);
    };
    let real = |text: &Names| text.real().map(fold).collect::<BTreeSet<String>>();
    let members = claim.members();
    let outside = real(from).union(&real(to)).filter(|n| !members.contains(*n)).count();
    let star = from.has_star || to.has_star;
    let releases_safely = |text: &Names| {
        let own = real(text);
        if own.is_empty() && !text.has_star {
            // Whoever has read this text shows no priority, and releases nothing.
            return true;
        }
        let itself = usize::from(text.method == Method::Priority && own.is_subset(&members));
        let certain = if star {
            0
        } else {
            text.num.saturating_sub(outside).max(itself)
        };
        certain + usize::from(members.contains(&fold(me))) + seen(claim) + 1 > members.len()
    };
    holds(claim, me, old) && holds(claim, me, new) && releases_safely(from) && releases_safely(to)
}

/// Is whatever `new` promises promised by `old` already? Then no commit of the past can make it untrue.
pub fn is_weaker(old: &Claim, new: &Claim) -> bool {
    new.names.is_empty() || (old.members().is_superset(&new.members()) && new.quorum >= old.quorum)
}

/// How many of its names have to hold every commit of the past for a claim to be true.
pub fn needed(claim: &Claim) -> usize {
    claim.names.len().saturating_sub(seen(claim))
}

fn seen(claim: &Claim) -> usize {
    usize::try_from(claim.quorum).unwrap_or(usize::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::names::parse;

    fn claim(leader: &str, quorum: u32, names: &[&str]) -> Claim {
        Claim {
            leader: Some(leader.into()),
            quorum,
            names: names.iter().map(|n| (*n).into()).collect(),
        }
    }

    fn true_under(c: &Claim, text: &str) -> bool {
        holds(c, &"a".into(), parse(text).as_ref())
    }

    #[test]
    fn in_priority_mode_each_name_is_waited_for() {
        let c = claim("a", 0, &["b", "c"]);
        for (text, expected) in [
            ("2 (b,c)", true),
            ("2 (B,C)", true),
            ("3 (b,c,d)", true),
            ("ANY 2 (b,c)", true),
            ("b", false),
            ("1 (b,c)", false),
            ("ANY 1 (b,c)", false),
            ("2 (b,d)", false),
            ("ANY 2 (b,c,d)", false),
            ("*", false),
            ("", false),
            ("not understood,", false),
            ("__patroni_strict_sync_replica_placeholder__", true),
        ] {
            assert_eq!(true_under(&c, text), expected, "{text}");
        }
    }

    #[test]
    fn in_quorum_mode_whoever_acknowledges_meets_whoever_wins() {
        for (quorum, names, text, expected) in [
            (1, &["b", "c"][..], "ANY 1 (b,c)", true),
            (0, &["b", "c"], "ANY 1 (b,c)", false),
            (0, &["b", "c"], "ANY 2 (b,c)", true),
            (2, &["b", "c", "d"], "ANY 1 (b,c,d)", true),
            (1, &["b", "c", "d"], "ANY 1 (b,c,d)", false),
            (1, &["b", "c"], "ANY 1 (b,c,d)", false),
            (2, &["b", "c"], "ANY 1 (b,c,d)", true),
        ] {
            assert_eq!(
                true_under(&claim("a", quorum, names), text),
                expected,
                "{quorum} {names:?} {text}"
            );
        }
    }

    #[test]
    fn on_the_way_from_one_text_to_another_who_is_dropped_still_counts() {
        for (quorum, names, old, new, expected) in [
            (0, &["c"][..], "2 (b,c)", "2 (c,d)", false),
            (0, &["c"], "2 (b,c)", "c", true),
            (0, &["c"], "c", "2 (c,d)", true),
            (
                0,
                &["c"],
                "2 (b,c)",
                "__patroni_strict_sync_replica_placeholder__",
                true,
            ),
            (
                0,
                &["c"],
                "__patroni_strict_sync_replica_placeholder__",
                "2 (c,d)",
                true,
            ),
            (0, &["b", "c"], "3 (b,c,d)", "2 (b,c)", false),
            (
                0,
                &["b", "c"],
                "2 (b,c)",
                "2 (__patroni_strict_sync_replica_placeholder__,b,c)",
                true,
            ),
            (0, &["b", "c"], "", "2 (b,c)", false),
            (0, &["b", "c"], "2 (b,c)", "*", false),
            (
                1,
                &["b", "c"],
                "ANY 1 (b,c)",
                "1 (__patroni_strict_sync_replica_placeholder__,b,c)",
                true,
            ),
            (1, &["c", "d"], "ANY 2 (b,c)", "ANY 2 (c,d)", true),
            (0, &["c"], "ANY 2 (b,c)", "ANY 2 (c,d)", false),
        ] {
            let (from, to) = (parse(old), parse(new));
            let held = holds_between(&claim("a", quorum, names), &"a".into(), from.as_ref(), to.as_ref());
            assert_eq!(held, expected, "{quorum} {names:?} {old} -> {new}");
        }
    }

    #[test]
    fn a_claim_of_nobody_or_of_the_leader_alone_is_always_true() {
        let nobody = Claim {
            leader: None,
            quorum: 0,
            names: Vec::new(),
        };
        for text in ["", "b", "*", "ANY 1 (x)"] {
            assert!(true_under(&nobody, text) && true_under(&Claim::alone(&"a".into()), text));
        }
    }

    #[test]
    fn after_a_promotion_the_old_claim_binds_the_new_primary() {
        let left_by_b = claim("b", 0, &["a", "c"]);
        assert!(!true_under(&left_by_b, "") && !true_under(&left_by_b, "c"));
        assert!(true_under(&left_by_b, "2 (b,c)"));
    }
}
