//! The oracles: one file per invariant, with the invariant's name in `docs/ARCHITECTURE.md`. None of them asks a rule;
//! they look at the world as it is.
//!
//! Safety is looked at after every event, progress after the calm that follows the faults.

mod l1_leader;
mod s01_one_valid_writer;
mod s02_self_fencing;
mod s03_promotion_proof;
mod s11_truthful_endpoints;
mod s16_books_match;

use crate::world::World;

/// An invariant that needs no memory: what is broken now, in words that begin with its name.
type Check = fn(&World) -> Option<String>;

/// Looked at after every event.
const SAFETY: &[Check] = &[
    s01_one_valid_writer::check,
    s02_self_fencing::check,
    s11_truthful_endpoints::check,
    s16_books_match::check,
];

/// Looked at when the calm phase has ended.
const PROGRESS: &[Check] = &[l1_leader::check];

/// What oracles remember from one event to the next, one field per oracle that needs it.
#[derive(Clone, Debug, Default)]
pub struct Oracles {}

impl World {
    /// Looks at all safety oracles.
    pub fn check(&mut self) {
        for check in SAFETY {
            if let Some(text) = check(self) {
                self.violation(text);
            }
        }
    }

    /// Demands progress.
    pub fn check_progress(&mut self) {
        for check in PROGRESS {
            if let Some(text) = check(self) {
                self.violation(text);
            }
        }
    }

    /// Looks at a promotion that begins.
    pub(crate) fn check_promotion(&mut self, i: usize) {
        if let Some(text) = s03_promotion_proof::check(self, i) {
            self.violation(text);
        }
    }

    /// Records a violation, once per text.
    pub(crate) fn violation(&mut self, text: String) {
        if !self.violations.contains(&text) {
            self.note(|| format!("VIOLATION {text}"));
            self.violations.push(text);
        }
    }
}
