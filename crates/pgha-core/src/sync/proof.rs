//! What was seen of PostgreSQL's processes: that commits wait, that each wal sender has read the new text, and up to where
//! the primary had flushed afterwards.

use alloc::string::String;
use alloc::vec::Vec;

use super::names::{self, Names};
use super::plan::Change;
use super::{SyncOutcome, SyncTask};
use crate::pg::{PgView, SqlFacts, SqlRole, WalSender};
use crate::units::{Lsn, Mono};

/// Everything that was proven. All of it may be lost: it is proven anew.
#[derive(Clone, PartialEq, Eq, Debug, Default, Hash)]
pub struct Proof {
    /// The server, by its start time, whose commits were seen to wait and that has had names ever since.
    pub waits: Option<String>,
    /// The last probe was acknowledged at once: commits do not wait, whatever the text says.
    pub acknowledged: bool,
    /// A text that was set when it was sure to change each priority.
    pub text: Option<Told>,
    /// When the last task ended: an observation that began earlier tells nothing about it.
    pub since: Mono,
    /// Looks since then.
    pub polls: u32,
}

/// A text on its way through the wal senders.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub struct Told {
    /// It.
    pub text: String,
    /// The wal senders that were seen with other priorities.
    pub pids: Vec<i32>,
    /// How far it has come.
    pub stage: Stage,
}

/// How far a text has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Stage {
    /// It was set.
    Set,
    /// Every wal sender showed the priority it implies.
    Read,
    /// The primary's flush position in a look after that: who has it holds all commits acknowledged before.
    Marked(Lsn),
}

impl Told {
    /// A text that is about to be set.
    pub fn new(text: String, senders: &[WalSender]) -> Told {
        Told {
            text,
            pids: pids(senders),
            stage: Stage::Set,
        }
    }
}

/// Those that may release a waiting commit now or in a moment. Base backups never do.
fn counts(sender: &WalSender) -> bool {
    sender.flush.is_some() && sender.state != "backup"
}

fn pids(senders: &[WalSender]) -> Vec<i32> {
    senders.iter().filter(|s| counts(s)).map(|s| s.pid).collect()
}

/// Does every wal sender show the priority that the text implies?
pub fn all_read(text: &Names, senders: &[WalSender]) -> bool {
    let mut counted = senders.iter().filter(|s| counts(s));
    counted.all(|s| s.sync_priority == text.priority_of(&s.application_name))
}

/// Would reading this text change the priority of each wal sender that it lists? Otherwise nobody could tell whether it
/// was read. Those that it does not list release nothing once they show no priority.
pub fn is_visible(text: &Names, senders: &[WalSender]) -> bool {
    let mut counted = senders.iter().filter(|s| counts(s));
    counted.all(|s| match text.priority_of(&s.application_name) {
        0 => true,
        priority => priority != s.sync_priority,
    })
}

impl Proof {
    /// Notes a look at PostgreSQL.
    pub fn note(&mut self, view: &PgView) {
        let Some(pg) = view.facts().filter(|_| view.observed_at >= self.since) else {
            return;
        };
        let SqlRole::Primary { flush, .. } = pg.role else {
            *self = Proof::default();
            return;
        };
        self.polls = self.polls.saturating_add(1);
        if pg.synchronous_standby_names.trim().is_empty() || self.waits.as_ref() != Some(&pg.postmaster_start_time) {
            // Without names the checkpointer lowers its flag, and another server has a checkpointer of its own.
            self.waits = None;
        }
        if let Some(told) = self.text.take() {
            self.text = note_text(told, pg, flush);
        }
    }
    /// A task has ended.
    pub fn ended(&mut self, change: Change, outcome: SyncOutcome, view: &PgView, now: Mono) {
        self.since = now;
        self.polls = 0;
        match (change.task, outcome) {
            (SyncTask::SetNames(_), SyncOutcome::Done) => self.text = change.proof,
            (SyncTask::SetNames(_), SyncOutcome::Acknowledged | SyncOutcome::Failed) => self.text = None,
            (SyncTask::Probe, SyncOutcome::Done) => {
                self.acknowledged = false;
                self.waits = view.facts().map(|f| f.postmaster_start_time.clone());
            }
            (SyncTask::Probe, SyncOutcome::Acknowledged) => self.acknowledged = true,
            (SyncTask::Probe, SyncOutcome::Failed) => {}
        }
    }
    /// Up to where a standby must have flushed, once this text has been read by everybody.
    pub fn mark(&self, text: &str) -> Option<Lsn> {
        match self.text.as_ref().filter(|t| t.text == text)?.stage {
            Stage::Marked(at) => Some(at),
            Stage::Set | Stage::Read => None,
        }
    }
    /// Is a text on its way?
    pub fn is_told(&self, text: &str) -> bool {
        self.text.as_ref().is_some_and(|t| t.text == text)
    }
}

fn note_text(mut told: Told, pg: &SqlFacts, flush: Lsn) -> Option<Told> {
    if told.text != pg.synchronous_standby_names {
        return None;
    }
    let parsed = names::parse(&told.text)?;
    told.stage = match told.stage {
        // A wal sender that was not there before may have begun with the old text, and its priority proves nothing.
        Stage::Set if pids(&pg.wal_senders).iter().any(|pid| !told.pids.contains(pid)) => return None,
        Stage::Set if all_read(&parsed, &pg.wal_senders) => Stage::Read,
        Stage::Set => Stage::Set,
        Stage::Read => Stage::Marked(flush),
        Stage::Marked(at) => Stage::Marked(at),
    };
    Some(told)
}
