//! `synchronous_standby_names` as the processes of one server have it.
//!
//! A reload reaches each process at its own time. Whether a commit waits at all stands in a flag in shared memory that
//! belongs to the checkpointer; whom it waits for is decided by each wal sender from the names that it has loaded itself.

use std::sync::Arc;

use pgha_core::sync::names::{Method, Names, parse};

use super::server::Sender;

/// One value of `synchronous_standby_names`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SyncRules {
    /// As written.
    pub text: String,
    /// As PostgreSQL reads it.
    pub names: Names,
}

impl SyncRules {
    /// Nobody is waited for.
    pub fn off() -> SyncRules {
        SyncRules {
            text: String::new(),
            names: Names {
                method: Method::Priority,
                num: 0,
                list: Vec::new(),
                has_star: false,
            },
        }
    }

    /// `None` when PostgreSQL would refuse the text: a reload then changes nothing.
    pub fn parse(text: &str) -> Option<SyncRules> {
        let names = parse(text)?;
        Some(SyncRules {
            text: text.to_owned(),
            names,
        })
    }

    /// Is anybody waited for?
    pub fn is_defined(&self) -> bool {
        self.names.num > 0
    }

    /// The priority of a standby; 0 when it is not meant. Names are compared as PostgreSQL does, without case.
    pub fn priority(&self, standby: &str) -> u32 {
        u32::try_from(self.names.priority_of(standby)).unwrap_or(0)
    }

    /// Who counts among these wal senders, by index: all meant ones with `ANY`, the first few with `FIRST`. One that still
    /// catches up, or that has told no position, does not.
    pub fn chosen(&self, senders: &[Sender]) -> Vec<usize> {
        let counts = |s: &Sender| s.priority > 0 && s.streaming && s.flush > 0;
        let mut meant: Vec<usize> = (0..senders.len()).filter(|s| counts(&senders[*s])).collect();
        if self.names.method == Method::Priority {
            meant.sort_by_key(|s| senders[*s].priority);
            meant.truncate(self.wanted());
        }
        meant
    }

    fn wanted(&self) -> usize {
        self.names.num
    }

    /// Up to where commits are released, as the wal sender `by` sees it; `None` when it has no say or too few are there.
    pub fn released(&self, senders: &[Sender], by: usize) -> Option<u64> {
        let chosen = self.chosen(senders);
        if !self.is_defined() || chosen.len() < self.wanted() || !chosen.contains(&by) {
            return None;
        }
        let mut flushed: Vec<u64> = chosen.iter().map(|s| senders[*s].flush).collect();
        flushed.sort_unstable_by(|a, b| b.cmp(a));
        // All of the first few have it; or so many of any.
        flushed.get(self.wanted().checked_sub(1)?).copied()
    }
}

/// What the processes of a server have loaded. Wal senders keep theirs in [`Sender`].
#[derive(Clone, Debug)]
pub struct SyncConfig {
    /// In the file that the agent writes.
    pub on_disk: Arc<SyncRules>,
    /// In postgresql.auto.conf, where a person put it: it wins.
    pub altered: Option<Arc<SyncRules>>,
    /// In the postmaster, and so in every new process and session.
    pub loaded: Arc<SyncRules>,
    /// The checkpointer's flag: commits wait.
    pub defined: bool,
    /// Up to where commits were released.
    pub released: u64,
}

impl SyncConfig {
    /// No names.
    pub fn off() -> SyncConfig {
        let off = Arc::new(SyncRules::off());
        SyncConfig {
            on_disk: Arc::clone(&off),
            altered: None,
            loaded: off,
            defined: false,
            released: 0,
        }
    }

    /// What whoever reads the files now will find.
    pub fn in_files(&self) -> &Arc<SyncRules> {
        self.altered.as_ref().unwrap_or(&self.on_disk)
    }

    /// What is left when all processes are gone.
    pub fn files_only(&self) -> SyncConfig {
        SyncConfig {
            on_disk: Arc::clone(&self.on_disk),
            altered: self.altered.clone(),
            ..SyncConfig::off()
        }
    }

    /// A new postmaster reads the files before any of its processes exists.
    pub fn start(&mut self) {
        self.loaded = Arc::clone(self.in_files());
        self.defined = self.loaded.is_defined();
        self.released = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::{Sender, SyncRules};
    use std::sync::Arc;

    fn senders(rules: &Arc<SyncRules>, positions: &[(&str, u64)]) -> Vec<Sender> {
        let sender = |(number, (name, flush)): (usize, &(&str, u64))| Sender {
            flush: *flush,
            streaming: true,
            ..Sender::new(number as u64, number, (*name).into(), None, Arc::clone(rules), 0, 0)
        };
        positions.iter().enumerate().map(sender).collect()
    }

    fn released(text: &str, by: usize) -> Option<u64> {
        let rules = Arc::new(SyncRules::parse(text).unwrap());
        let senders = senders(&rules, &[("a", 30), ("b", 20), ("c", 10)]);
        rules.released(&senders, by)
    }

    #[test]
    fn with_priorities_the_first_listed_decide_and_with_a_quorum_the_fastest() {
        assert_eq!(released("a", 0), Some(30));
        assert_eq!(released("FIRST 2 (c, a, b)", 0), Some(10));
        assert_eq!(released("ANY 1 (a, b, c)", 1), Some(30));
        assert_eq!(released("ANY 2 (a, b, c)", 1), Some(20));
        assert_eq!(released("2 (b, c)", 1), Some(10));
    }

    #[test]
    fn nobody_is_released_by_a_standby_that_does_not_count_or_while_too_few_are_there() {
        assert_eq!(released("a", 1), None);
        assert_eq!(released("FIRST 1 (a, b)", 1), None);
        assert_eq!(released("ANY 4 (a, b, c, d)", 0), None);
        assert_eq!(released("__patroni_strict_sync_replica_placeholder__", 0), None);
        assert_eq!(released("", 0), None);
    }

    #[test]
    fn names_are_compared_without_case_and_a_star_means_everybody() {
        assert_eq!(SyncRules::parse("FIRST 1 (\"A\")").unwrap().priority("a"), 1);
        assert_eq!(SyncRules::parse("*").unwrap().priority("whoever"), 1);
        assert_eq!(SyncRules::parse("x").unwrap().priority("whoever"), 0);
    }
}
