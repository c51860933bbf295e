//! WAL history: a path of branches. Every promotion makes a branch with an identity of its own, so two nodes that create
//! the same timeline number independently are told apart, as their WAL would be.

use pgha_core::units::{Lsn, Timeline};

/// One stretch of WAL history.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Branch {
    /// Unique over the whole simulation.
    pub id: u64,
    /// Timeline number.
    pub timeline: u32,
    /// Where it began.
    pub start: u64,
}

/// A place in WAL that no other history has.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Point {
    /// The branch.
    pub branch: u64,
    /// The position.
    pub lsn: u64,
}

/// Branches from the first to the current one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct History {
    older: Vec<Branch>,
    current: Branch,
}

impl History {
    /// The history of a new cluster.
    pub fn new(first: Branch) -> History {
        History {
            older: Vec::new(),
            current: first,
        }
    }

    /// The branch that WAL is written to now.
    pub fn current(&self) -> Branch {
        self.current
    }

    /// A promotion: WAL goes on elsewhere.
    pub fn fork(&mut self, branch: Branch) {
        self.older.push(self.current);
        self.current = branch;
    }

    /// All branches, oldest first.
    pub fn branches(&self) -> impl DoubleEndedIterator<Item = Branch> + '_ {
        self.older.iter().copied().chain([self.current])
    }

    /// All branches with the position at which each ends, when this history ends at `end`.
    pub fn stretches(&self, end: u64) -> impl Iterator<Item = (Branch, u64)> + '_ {
        let next = self.branches().skip(1).map(|b| b.start).chain([end]);
        self.branches().zip(next)
    }

    /// Is the point on this history, which ends at `end`?
    pub fn contains(&self, end: u64, point: Point) -> bool {
        self.stretches(end)
            .any(|(branch, end)| branch.id == point.branch && point.lsn <= end)
    }

    /// What a standby holds that has received this history up to `lsn`.
    pub fn up_to(&self, lsn: u64) -> History {
        if self.current.start < lsn {
            return self.clone();
        }
        let mut reached: Vec<Branch> = self.branches().filter(|b| b.start < lsn).collect();
        match reached.pop() {
            Some(current) => History {
                older: reached,
                current,
            },
            None => History::new(self.branches().next().unwrap_or(self.current)),
        }
    }

    /// The timeline that `lsn` lies on.
    pub fn timeline_at(&self, lsn: u64) -> u32 {
        let mut at = self.branches().filter(|b| b.start < lsn);
        at.next_back().map_or(self.current.timeline, |b| b.timeline)
    }

    /// Where this history, which ends at `end`, leaves `other`: the last position they have in common.
    pub fn common(&self, end: u64, other: &History, other_end: u64) -> u64 {
        let theirs: Vec<(Branch, u64)> = other.stretches(other_end).collect();
        self.stretches(end)
            .filter_map(|(mine, end)| {
                let (_, other_end) = theirs.iter().find(|(b, _)| b.id == mine.id)?;
                Some(end.min(*other_end))
            })
            .max()
            .unwrap_or(0)
    }

    /// The timeline history as PostgreSQL writes it: each ended timeline with its switchpoint.
    pub fn ends(&self) -> Vec<(Timeline, Lsn)> {
        let starts = self.branches().skip(1).map(|b| Lsn(b.start));
        self.older.iter().map(|b| Timeline(b.timeline)).zip(starts).collect()
    }

    /// The part of it that the history file of `timeline` has.
    pub fn ends_before(&self, timeline: Timeline) -> Vec<(Timeline, Lsn)> {
        let mut ends = self.ends();
        ends.retain(|(ended, _)| *ended < timeline);
        ends
    }
}

#[cfg(test)]
mod tests {
    use super::{Branch, History, Point};

    fn forked() -> History {
        let mut history = History::new(Branch {
            id: 1,
            timeline: 1,
            start: 0,
        });
        history.fork(Branch {
            id: 2,
            timeline: 2,
            start: 100,
        });
        history
    }

    #[test]
    fn a_point_is_on_a_history_up_to_the_fork_and_on_the_branch_that_made_it() {
        let history = forked();
        assert!(history.contains(150, Point { branch: 1, lsn: 100 }));
        assert!(!history.contains(150, Point { branch: 1, lsn: 101 }));
        assert!(history.contains(150, Point { branch: 2, lsn: 150 }));
        assert!(!history.contains(150, Point { branch: 2, lsn: 151 }));
        assert!(!history.contains(150, Point { branch: 3, lsn: 1 }));
    }

    #[test]
    fn a_standby_that_has_not_passed_the_fork_is_on_the_old_timeline() {
        assert_eq!(forked().up_to(100).current().timeline, 1);
        assert_eq!(forked().up_to(101).current().timeline, 2);
        assert_eq!((forked().timeline_at(100), forked().timeline_at(101)), (1, 2));
    }

    #[test]
    fn two_histories_have_in_common_what_lies_before_their_forks() {
        let mut other = forked().up_to(90);
        other.fork(Branch {
            id: 3,
            timeline: 2,
            start: 90,
        });
        assert_eq!(forked().common(150, &other, 200), 90);
        assert_eq!(forked().common(150, &forked(), 120), 120);
    }
}
