//! Steps of other projects that can be planted in place of the right ones ([`crate::planted`]).

use super::candidates::target;
use super::claim::{self, Claim};
use super::names;
use super::plan::{Change, Step, next};
use super::proof::Proof;
use super::{Facts, SyncTask};
use crate::planted::{Planted, planted};
use crate::view::View;

/// The wrong step; `None` when none is planted, or when the defect does nothing here.
pub(super) fn step(v: &View, f: &Facts<'_>) -> Option<Step> {
    let proof = &v.memory.sync;
    if planted(v, Planted::WaitingIsBelieved) {
        let waits = Some(f.pg.postmaster_start_time.clone());
        return Some(next(f, &Proof { waits, ..proof.clone() }));
    }
    let key = Claim::of(f.key.filter(|_| f.settings.is_synchronous())?);
    let wanted = target(f);
    let loaded = names::parse(&f.pg.synchronous_standby_names);
    let text = names::render(wanted.method, wanted.num, &wanted.names, false);
    let end = wanted.claim(f.me);
    if planted(v, Planted::PublishedAtOnce) {
        let asked_for = loaded.is_some_and(|n| n == wanted.parsed());
        return (asked_for && end != key).then_some(Step::Write(end));
    }
    let right = next(f, proof);
    let nobody = matches!(&right, Step::Task(Change { task: SyncTask::SetNames(text), .. }) if text == names::NOBODY);
    if planted(v, Planted::AnybodyInStrictMode) && nobody && f.settings.synchronous_mode_strict {
        let task = SyncTask::SetNames("*".into());
        return Some(Step::Task(Change { task, proof: None }));
    }
    let takes_back = matches!(&right, Step::Write(claim) if claim.names.len() < key.names.len());
    if planted(v, Planted::NamesBeforeKey) && takes_back && text != f.pg.synchronous_standby_names {
        let task = SyncTask::SetNames(text);
        return Some(Step::Task(Change { task, proof: None }));
    }
    let shrinks = claim::is_weaker(&key, &end) && loaded.is_some_and(|n| n.real().count() > wanted.names.len());
    (planted(v, Planted::OldNamesKept) && shrinks).then_some(Step::Rest)
}
