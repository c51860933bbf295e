//! Has local WAL left the leader's history? The judgement on the facts that `Job::CheckDivergence` measured.

use crate::job::DivergenceFacts;

/// The judgement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Local WAL is a prefix of the leader's: it can follow.
    OnHistory,
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
    if f.leader_in_recovery {
        return Verdict::CannotTell;
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

#[cfg(test)]
mod tests {
    use super::{Verdict, judge};
    use crate::job::DivergenceFacts;
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
            leader_history: vec![(Timeline(1), Lsn(100))],
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
}
