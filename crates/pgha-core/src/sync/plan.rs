//! The next step towards the wanted standbys, from facts only: one at a time, each safe by itself.
//!
//! Order of a change: what `/sync` claims too much is taken back first; then PostgreSQL is told; when all of it is seen to
//! have heard, and enough of the standbys hold what was acknowledged before, the claim follows. A text that would make the
//! claim untrue while some have read it and others have not is reached over the name that nobody has.
//!
//! A write of `/sync` that was not answered may arrive at any later time, and what it says was planned from the text of then.
//! So it is made void first, by writing the present claim once more: its guard is the revision that this changes.

use alloc::string::String;
use alloc::vec::Vec;

use super::candidates::{Target, streams_to, target};
use super::claim::{self, Claim, fold};
use super::names::{self, Method, NOBODY, Names};
use super::proof::{Proof, Told, all_read, is_visible};
use super::{Facts, SyncTask, Trust};
use crate::units::MemberName;

/// Looks, four seconds of them, after which a wal sender is taken to be stuck that has not read the name that nobody has.
const STUCK: u32 = 23;
/// A next text waits until the present one was read by everybody.
const NOT_SETTLED: Step = Step::Wait("the wal senders have not settled on one configuration yet");

/// One step.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub enum Step {
    /// Everything is as it should be.
    Rest,
    /// Something that was begun has not been seen to happen yet.
    Wait(&'static str),
    /// `/sync` becomes this.
    Write(Claim),
    /// `/sync` goes.
    Delete,
    /// Something is done in PostgreSQL.
    Task(Change),
}

/// A task, and what its success will prove.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub struct Change {
    /// What.
    pub task: SyncTask,
    /// The text whose way through the wal senders can be watched.
    pub proof: Option<Told>,
}

/// The next step of a primary that leads.
pub fn next(f: &Facts<'_>, proof: &Proof) -> Step {
    if !f.settings.is_synchronous() {
        return if f.key.is_some() { Step::Delete } else { Step::Rest };
    }
    let Some(key) = f.key else {
        return Step::Write(Claim::alone(f.me));
    };
    let now = Claim::of(key);
    let text = f.pg.synchronous_standby_names.trim();
    let loaded = names::parse(text);
    if f.trust == Trust::OfPast || !claim::holds(&now, f.me, loaded.as_ref()) {
        // Somebody changed the text, or commits were acknowledged that some name in /sync may lack.
        return Step::Write(Claim::alone(f.me));
    }
    if f.trust == Trust::InDoubt {
        return Step::Write(in_my_name(f.me, &now, loaded.as_ref()));
    }
    if !now.names.is_empty() && super::blocks(text) && !waits(f, proof) {
        // Just started or promoted: the claim is true as long as nothing is acknowledged, so that is looked at first.
        return match proof.acknowledged {
            true => Step::Write(Claim::alone(f.me)),
            false => probe(),
        };
    }
    let wanted = target(f);
    if wanted.names.is_empty() && f.settings.synchronous_mode_strict {
        return strict_without_standby(f, &now, text, loaded.as_ref());
    }
    let end = wanted.claim(f.me);
    if now == end {
        return tidy(f, &now, &wanted, text);
    }
    let parsed = wanted.parsed();
    if claim::is_weaker(&now, &end) && claim::holds(&end, f.me, loaded.as_ref()) {
        return Step::Write(end);
    }
    if let (true, Some(mark)) = (claim::holds(&end, f.me, loaded.as_ref()), proof.mark(text)) {
        let caught_up = |name: &&MemberName| {
            let at = |s: &&crate::pg::WalSender| streams_to(s, name) && s.flush >= Some(mark);
            f.pg.wal_senders.iter().any(|s| at(&s))
        };
        let holding = end.names.iter().filter(caught_up).count();
        return if waits(f, proof) && holding >= claim::needed(&end) {
            Step::Write(end)
        } else {
            Step::Wait("a standby has not received all acknowledged commits yet")
        };
    }
    if !claim::holds(&now, f.me, Some(&parsed)) {
        return Step::Write(lessened(f.me, &now, &wanted, loaded.as_ref()));
    }
    tell(f, proof, &now, &wanted, text)
}

fn waits(f: &Facts<'_>, proof: &Proof) -> bool {
    proof.waits.as_ref() == Some(&f.pg.postmaster_start_time)
}

/// `/sync` is as wanted: the text takes the form that people expect.
fn tidy(f: &Facts<'_>, now: &Claim, wanted: &Target, text: &str) -> Step {
    let plain = names::render(wanted.method, wanted.num, &wanted.names, false);
    if text == plain {
        return Step::Rest;
    }
    match names::parse(text) {
        Some(present) if !all_read(&present, &f.pg.wal_senders) => NOT_SETTLED,
        present if leads_safely(now, f.me, present.as_ref(), &plain) => set(plain, None),
        Some(_) | None => set(NOBODY.into(), None),
    }
}

/// Does the claim stay true while wal senders go from one text to the other?
fn leads_safely(now: &Claim, me: &MemberName, from: Option<&Names>, to: &str) -> bool {
    claim::holds_between(now, me, from, names::parse(to).as_ref())
}

/// Strict mode never acknowledges alone: the last names stay, or nobody's.
fn strict_without_standby(f: &Facts<'_>, now: &Claim, text: &str, loaded: Option<&Names>) -> Step {
    if now.leader.as_ref() != Some(f.me) {
        return Step::Write(in_my_name(f.me, now, loaded));
    }
    let leaves = |n: &MemberName| f.members.get(n).is_some_and(|m| !m.tags.may_sync());
    if now.names.iter().any(leaves) {
        // It asked for it: what it has may be gone in a moment.
        return Step::Write(Claim::alone(f.me));
    }
    let kept = loaded.is_some_and(|n| {
        let mut real: Vec<&MemberName> = n.real().collect();
        real.sort();
        n.certain() > 0 && real.into_iter().eq(&now.names)
    });
    if kept || super::blocks(text) {
        Step::Rest
    } else {
        set(NOBODY.into(), None)
    }
}

/// The present claim as one of this leader's, if it is true as such.
fn in_my_name(me: &MemberName, now: &Claim, loaded: Option<&Names>) -> Claim {
    let others = now.names.iter().filter(|n| fold(n) != fold(me));
    let kept = Claim {
        leader: Some(me.clone()),
        quorum: now.quorum,
        names: others.cloned().collect(),
    };
    let is_true = claim::is_weaker(now, &kept) && claim::holds(&kept, me, loaded);
    if is_true { kept } else { Claim::alone(me) }
}

/// The strongest claim that is no more than the present one and stays true when the wanted text is read.
fn lessened(me: &MemberName, now: &Claim, wanted: &Target, loaded: Option<&Names>) -> Claim {
    let members = now.members();
    let parsed = wanted.parsed();
    let names: Vec<MemberName> = wanted
        .names
        .iter()
        .filter(|n| members.contains(&fold(n)))
        .cloned()
        .collect();
    let most = u32::try_from(names.len()).unwrap_or(u32::MAX).max(now.quorum);
    (now.quorum..=most)
        .map(|quorum| Claim {
            leader: Some(me.clone()),
            quorum,
            names: names.clone(),
        })
        .find(|c| {
            let weaker = claim::is_weaker(now, c) && c != now;
            weaker && claim::holds(c, me, loaded) && claim::holds(c, me, Some(&parsed))
        })
        .unwrap_or_else(|| Claim::alone(me))
}

/// Tells PostgreSQL, in a way that can be seen to have been heard.
fn tell(f: &Facts<'_>, proof: &Proof, now: &Claim, wanted: &Target, text: &str) -> Step {
    if proof.is_told(text) && names::parse(text).is_some_and(|n| means(&n, wanted)) {
        return Step::Wait("a wal sender has not read its configuration yet");
    }
    if !waits(f, proof) {
        return if super::blocks(text) {
            probe()
        } else {
            set(NOBODY.into(), None)
        };
    }
    // With the impossible name in front a list is one by priority whatever the mode: it asks for more, never for less.
    let plain = names::render(wanted.method, wanted.num, &wanted.names, false);
    let led = names::render(Method::Priority, wanted.num, &wanted.names, true);
    let present = names::parse(text);
    match &present {
        // A wal sender that is yet to read the present text may do so after this look, and show what the next one implies.
        Some(read) if !all_read(read, &f.pg.wal_senders) => {
            // One that does not listen must not hold up commits for ever.
            return match super::blocks(text) && proof.polls > STUCK {
                true if now.names.is_empty() => set(plain, None),
                true => Step::Write(Claim::alone(f.me)),
                false => NOT_SETTLED,
            };
        }
        Some(_) | None => {}
    }
    let visible = |text: &String| names::parse(text).is_some_and(|n| is_visible(&n, &f.pg.wal_senders));
    let safe = |text: &String| leads_safely(now, f.me, present.as_ref(), text);
    let seen = [plain, led]
        .into_iter()
        .find(|form| present.is_some() && visible(form) && safe(form));
    match seen {
        Some(form) => set(form.clone(), Some(Told::new(form, &f.pg.wal_senders))),
        // From there every text is visible and safe.
        None => set(NOBODY.into(), None),
    }
}

/// Does a text ask for what is wanted, in one form or the other?
fn means(text: &Names, wanted: &Target) -> bool {
    let mut real: Vec<&MemberName> = text.real().collect();
    real.sort();
    text.num == wanted.num && real.into_iter().eq(&wanted.names)
}

fn probe() -> Step {
    Step::Task(Change {
        task: SyncTask::Probe,
        proof: None,
    })
}

fn set(text: String, proof: Option<Told>) -> Step {
    Step::Task(Change {
        task: SyncTask::SetNames(text),
        proof,
    })
}
