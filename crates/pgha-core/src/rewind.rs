//! Has local WAL left the leader's history, which of it, and can it go on from there? The judgement on the facts that
//! `Job::CheckDivergence` measured.

use core::fmt;

use crate::job::{DivergenceFacts, NextWal};
use crate::units::{Lsn, Timeline};

/// The judgement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Local WAL is a prefix of the leader's: it can follow.
    OnHistory,
    /// It is such a prefix, but what follows is no longer at the leader.
    WalGone {
        /// An archive may bring it yet.
        archive: bool,
    },
    /// It is not.
    Diverged,
    /// The leader is in recovery itself: ask again later.
    CannotTell,
}

/// Compares local end of WAL with the leader's timeline history.
///
/// Timelines are compared through the history, never as numbers alone: two nodes promoted independently may carry the
/// same number (pg_auto_failover #683, Patroni #2787).
pub fn judge(f: &DivergenceFacts) -> Verdict {
    match (judge_history(f), f.next_wal) {
        (Verdict::OnHistory, NextWal::Gone { archive }) => Verdict::WalGone { archive },
        (verdict, NextWal::NotKnown | NextWal::Kept | NextWal::Gone { .. }) => verdict,
    }
}

fn judge_history(f: &DivergenceFacts) -> Verdict {
    if f.leader_in_recovery {
        return Verdict::CannotTell;
    }
    // Two promotions from the very same position: number and switchpoint are the same, the WAL behind it is not.
    if histories_part(f) || f.same_promotion == Some(false) {
        return Verdict::Diverged;
    }
    if f.local_timeline == f.leader_timeline {
        // A former primary on the timeline of another primary: both created it. A standby on it follows it.
        return if f.was_primary {
            Verdict::Diverged
        } else {
            Verdict::OnHistory
        };
    }
    if f.local_timeline > f.leader_timeline {
        return Verdict::Diverged;
    }
    let Some((_, switchpoint)) = f.leader_history.iter().find(|(t, _)| *t == f.local_timeline) else {
        return Verdict::Diverged;
    };
    if !f.was_primary {
        return if f.local_lsn > *switchpoint {
            Verdict::Diverged
        } else {
            Verdict::OnHistory
        };
    }
    // A former primary wrote its own last record: its shutdown checkpoint must be the very end the leader forked at.
    match f.shutdown_checkpoint_end {
        Some(end) if end == *switchpoint && f.local_lsn < *switchpoint => Verdict::OnHistory,
        Some(_) | None => Verdict::Diverged,
    }
}

/// Local WAL that the leader's history does not have: pg_rewind or a new copy discards it, and whatever was committed in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct DivergedWal {
    /// The timeline on which it ends.
    pub timeline: Timeline,
    /// The last position that both histories have.
    pub from: Lsn,
    /// Its end as far as known.
    pub to: Lsn,
}

impl DivergedWal {
    /// Its length in bytes.
    pub fn bytes(&self) -> u64 {
        self.to.ahead_of(self.from)
    }
}

impl fmt::Display for DivergedWal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DivergedWal { timeline, from, to } = self;
        write!(
            f,
            "WAL from {from} to {to} on timeline {timeline} ({} bytes)",
            self.bytes()
        )
    }
}

/// Which local WAL is not in the leader's history, when [`judge`] says that there is some.
pub fn diverged_wal(f: &DivergenceFacts) -> DivergedWal {
    let end = f.shutdown_checkpoint_end.unwrap_or(f.local_lsn).max(f.local_lsn);
    // Another primary on the timeline of a former one has begun it for itself.
    let begun_twice = f.same_promotion == Some(false) || (f.was_primary && f.local_timeline == f.leader_timeline);
    let shared = |timeline: Timeline| timeline != f.local_timeline || !begun_twice;
    let ours = f.local_history.iter().copied().chain([(f.local_timeline, end)]);
    let mut from = Lsn(0);
    for (timeline, until) in ours {
        let mut theirs = f
            .leader_history
            .iter()
            .copied()
            .chain([(f.leader_timeline, Lsn(u64::MAX))]);
        let Some((_, theirs_until)) = theirs.find(|(t, _)| *t == timeline && shared(*t)) else {
            break;
        };
        from = until.min(theirs_until);
        if until != theirs_until {
            break;
        }
    }
    DivergedWal {
        timeline: f.local_timeline,
        from,
        to: end.max(from),
    }
}

/// Did a timeline that local WAL went through end elsewhere in the leader's history, or never exist there? Then a timeline
/// after it, whose number both have, was created twice, and PostgreSQL itself would stream the one as the other.
fn histories_part(f: &DivergenceFacts) -> bool {
    let past = f.local_history.iter().filter(|(t, _)| *t < f.leader_timeline);
    past.into_iter().any(|end| !f.leader_history.contains(end))
}

#[cfg(test)]
mod tests {
    use super::{Verdict, diverged_wal, judge};
    use crate::job::{DivergenceFacts, NextWal};
    use crate::units::{Lsn, Timeline};
    use alloc::vec;

    fn facts() -> DivergenceFacts {
        DivergenceFacts {
            local_timeline: Timeline(1),
            local_lsn: Lsn(90),
            was_primary: false,
            shutdown_checkpoint_end: None,
            leader_timeline: Timeline(2),
            leader_in_recovery: false,
            local_history: vec![],
            leader_history: vec![(Timeline(1), Lsn(100))],
            same_promotion: None,
            next_wal: NextWal::NotKnown,
        }
    }

    #[test]
    fn a_standby_behind_the_switchpoint_can_follow_and_one_beyond_cannot() {
        assert_eq!(judge(&facts()), Verdict::OnHistory);
        assert_eq!(
            judge(&DivergenceFacts {
                local_lsn: Lsn(100),
                ..facts()
            }),
            Verdict::OnHistory
        );
        assert_eq!(
            judge(&DivergenceFacts {
                local_lsn: Lsn(101),
                ..facts()
            }),
            Verdict::Diverged
        );
    }

    #[test]
    fn a_former_primary_can_follow_only_when_its_shutdown_checkpoint_ends_at_the_switchpoint() {
        let clean = DivergenceFacts {
            was_primary: true,
            shutdown_checkpoint_end: Some(Lsn(100)),
            ..facts()
        };
        assert_eq!(judge(&clean), Verdict::OnHistory);
        assert_eq!(
            judge(&DivergenceFacts {
                shutdown_checkpoint_end: Some(Lsn(104)),
                ..clean.clone()
            }),
            Verdict::Diverged
        );
        assert_eq!(
            judge(&DivergenceFacts {
                shutdown_checkpoint_end: None,
                ..clean
            }),
            Verdict::Diverged
        );
    }

    #[test]
    fn two_primaries_on_the_same_timeline_number_have_diverged() {
        let both = DivergenceFacts {
            was_primary: true,
            local_timeline: Timeline(2),
            ..facts()
        };
        assert_eq!(judge(&both), Verdict::Diverged);
    }

    #[test]
    fn a_timeline_number_that_two_nodes_created_has_diverged_although_the_position_fits() {
        let twice = DivergenceFacts {
            local_timeline: Timeline(3),
            local_lsn: Lsn(210),
            local_history: vec![(Timeline(1), Lsn(100)), (Timeline(2), Lsn(200))],
            leader_timeline: Timeline(4),
            leader_history: vec![
                (Timeline(1), Lsn(100)),
                (Timeline(2), Lsn(190)),
                (Timeline(3), Lsn(300)),
            ],
            ..facts()
        };
        assert_eq!(judge(&twice), Verdict::Diverged);
        let same_number_now = DivergenceFacts {
            leader_timeline: Timeline(3),
            leader_history: twice.leader_history[..2].to_vec(),
            ..twice.clone()
        };
        assert_eq!(judge(&same_number_now), Verdict::Diverged);
        let once = DivergenceFacts {
            local_history: twice.leader_history[..2].to_vec(),
            ..twice
        };
        assert_eq!(judge(&once), Verdict::OnHistory);
    }

    #[test]
    fn one_timeline_number_from_one_position_has_diverged_when_two_promotions_began_it() {
        let twin = DivergenceFacts {
            local_timeline: Timeline(2),
            local_lsn: Lsn(150),
            local_history: vec![(Timeline(1), Lsn(100))],
            same_promotion: Some(false),
            ..facts()
        };
        assert_eq!(judge(&twin), Verdict::Diverged);
        for same_promotion in [Some(true), None] {
            let one = DivergenceFacts {
                same_promotion,
                ..twin.clone()
            };
            assert_eq!(judge(&one), Verdict::OnHistory);
        }
    }

    #[test]
    fn wal_that_is_gone_matters_only_to_a_standby_that_could_follow() {
        let gone = DivergenceFacts {
            next_wal: NextWal::Gone { archive: true },
            ..facts()
        };
        assert_eq!(judge(&gone), Verdict::WalGone { archive: true });
        let diverged = DivergenceFacts {
            local_lsn: Lsn(101),
            ..gone.clone()
        };
        assert_eq!(judge(&diverged), Verdict::Diverged);
        let kept = DivergenceFacts {
            next_wal: NextWal::Kept,
            ..gone
        };
        assert_eq!(judge(&kept), Verdict::OnHistory);
    }

    #[test]
    fn a_timeline_that_the_leader_never_had_has_diverged() {
        let foreign = DivergenceFacts {
            leader_timeline: Timeline(3),
            local_timeline: Timeline(2),
            ..facts()
        };
        assert_eq!(judge(&foreign), Verdict::Diverged);
        let newer = DivergenceFacts {
            local_timeline: Timeline(5),
            ..facts()
        };
        assert_eq!(judge(&newer), Verdict::Diverged);
    }

    #[test]
    fn a_leader_in_recovery_gives_no_verdict() {
        assert_eq!(
            judge(&DivergenceFacts {
                leader_in_recovery: true,
                ..facts()
            }),
            Verdict::CannotTell
        );
    }

    fn range(f: &DivergenceFacts) -> (u32, u64, u64) {
        let wal = diverged_wal(f);
        (wal.timeline.0, wal.from.0, wal.to.0)
    }

    #[test]
    fn what_is_discarded_begins_where_the_leader_left_and_ends_with_the_last_record() {
        let crashed = DivergenceFacts {
            was_primary: true,
            local_lsn: Lsn(120),
            shutdown_checkpoint_end: Some(Lsn(128)),
            ..facts()
        };
        assert_eq!(range(&crashed), (1, 100, 128));
        let standby = DivergenceFacts {
            local_lsn: Lsn(130),
            ..facts()
        };
        assert_eq!(range(&standby), (1, 100, 130));
    }

    #[test]
    fn of_a_timeline_that_was_begun_twice_everything_is_discarded() {
        let twice = DivergenceFacts {
            was_primary: true,
            local_timeline: Timeline(2),
            local_lsn: Lsn(150),
            local_history: vec![(Timeline(1), Lsn(100))],
            ..facts()
        };
        assert_eq!(range(&twice), (2, 100, 150));
        let other_fork = DivergenceFacts {
            local_history: vec![(Timeline(1), Lsn(90))],
            ..twice.clone()
        };
        assert_eq!(range(&other_fork), (2, 90, 150));
        let found_by_its_first_record = DivergenceFacts {
            was_primary: false,
            same_promotion: Some(false),
            local_history: vec![(Timeline(1), Lsn(100))],
            ..other_fork
        };
        assert_eq!(range(&found_by_its_first_record), (2, 100, 150));
    }

    #[test]
    fn without_any_common_timeline_everything_is_discarded() {
        let foreign = DivergenceFacts {
            local_timeline: Timeline(5),
            local_lsn: Lsn(70),
            ..facts()
        };
        assert_eq!(range(&foreign), (5, 0, 70));
    }
}
