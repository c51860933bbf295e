//! The oracles: one file per invariant, with the invariant's name in `docs/ARCHITECTURE.md`. None of them asks a rule;
//! they look at the world as it is.
//!
//! Safety is looked at after every event, progress after the calm that follows the faults.

mod hooks;
mod l01_leader;
mod l02_no_needless_failover;
mod l03_named_end;
mod l04_sync_restored;
mod l05_commits_unblock;
mod l06_commands_end;
mod l07_views_agree;
#[cfg(test)]
mod planted_violations;
mod s01_one_valid_writer;
mod s02_self_fencing;
mod s03_promotion_proof;
mod s04_no_acknowledged_commit_lost;
mod s05_sync_key;
mod s06_eligibility;
mod s07_bounded_loss;
mod s08_timelines;
mod s09_last_copy;
mod s10_no_bootstrap_over_data;
mod s11_truthful_endpoints;
mod s12_watchdog;
mod s13_slots;
mod s14_pause;
mod s15_clean_hand_over;
mod s16_books_match;
mod s17_repairable;
mod s18_sync_names;
mod seen;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::BTreeSet;

use crate::etcd::Time;
use crate::postgres::History;
use crate::shrink::invariant;
use crate::world::{SimNode, World};

/// An invariant that needs no memory: what is broken now, in words that begin with its name.
type Check = fn(&World) -> Option<String>;

/// Looked at after every event.
const SAFETY: &[Check] = &[
    s01_one_valid_writer::check,
    s02_self_fencing::check,
    s11_truthful_endpoints::check,
    s12_watchdog::check,
];

/// Looked at when the calm phase has ended.
const PROGRESS: &[Check] = &[l01_leader::check];

/// What oracles remember from one event to the next, one field per oracle that needs it.
#[derive(Clone, Debug, Default)]
pub struct Oracles {
    /// etcd as it was.
    seen: seen::Seen,
    /// Store revision that was looked at last.
    store_checked: i64,
    /// The history of the primary with the newest branch (S4).
    newest: Option<History>,
    /// The leader key, present and gone (S7).
    leader_key: s07_bounded_loss::LeaderKeySeen,
    /// By node: when its member key was there last (S7, S13).
    member_seen: Vec<Option<Time>>,
    /// When a slot was lost or dropped last, anywhere (S13).
    slots_changed: Time,
    /// Who released its key last, if that was for a switchover (S15).
    released_by: Option<usize>,
    /// Nodes whose processes go by a person's synchronous_standby_names, and whose agent has not answered that yet (S4, S5).
    by_hand: BTreeSet<usize>,
    /// A hand-over under way (S15).
    handing_over: Option<s15_clean_hand_over::HandingOver>,
    /// Leadership, jobs and operators.
    watch: watch::Watch,
}

impl Oracles {
    /// For a world of these nodes.
    pub fn new(nodes: &[SimNode]) -> Oracles {
        Oracles {
            seen: seen::Seen::new(nodes),
            ..Oracles::default()
        }
    }
}

impl World {
    /// Looks at all safety oracles.
    pub fn check(&mut self) {
        for check in SAFETY {
            if let Some(text) = check(self) {
                self.violation(text);
            }
        }
        self.check_store();
        self.watch();
    }

    /// Demands progress.
    pub fn check_progress(&mut self) {
        for check in PROGRESS {
            if let Some(text) = check(self) {
                self.violation(text);
            }
        }
        self.check_data_progress();
        self.check_course();
    }

    /// Looks at what a daemon believes after an event.
    pub(crate) fn check_books(&mut self, i: usize) {
        if let Some(text) = s16_books_match::check(self, i) {
            self.violation(text);
        }
    }

    /// Looks at a promotion that begins.
    pub(crate) fn check_promotion(&mut self, i: usize) {
        if let Some(text) = s03_promotion_proof::check(self, i) {
            self.violation(text);
        }
    }

    /// Records a violation, once per invariant.
    pub(crate) fn violation(&mut self, text: String) {
        // One event can break one invariant in a thousand ways.
        let broken = invariant(&text);
        if !self.violations.iter().any(|v| invariant(v) == broken) {
            self.note(|| format!("VIOLATION {text}"));
            self.violations.push(text);
        }
    }
}
