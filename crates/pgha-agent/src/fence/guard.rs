//! Whether PostgreSQL may run: the guard in force and whether it has fired. Pure.
//!
//! The latch is what makes a late answer harmless: once the deadline has passed nothing starts until the daemon
//! has said something newer than that deadline.

use pgha_core::units::Mono;

use super::wire::{Fired, Guard, RefusalKind};

/// The guard in force.
#[derive(Debug, Default)]
pub(super) struct GuardBook {
    pub(super) guard: Option<Guard>,
    pub(super) seq: u64,
    pub(super) latched: bool,
    pub(super) fired: Option<Fired>,
}

impl GuardBook {
    /// Replaces the guard. One that lies in the past is taken too, and is due at once.
    pub(super) fn set(&mut self, seq: u64, guard: Guard, now: Mono) -> Result<(), RefusalKind> {
        if seq <= self.seq {
            return Err(RefusalKind::StaleGuard);
        }
        self.seq = seq;
        self.guard = Some(guard);
        self.latched = self.latched && matches!(guard, Guard::Deadline(at) if at <= now);
        Ok(())
    }

    /// The deadline that has passed and for which nothing was killed yet.
    pub(super) fn due(&self, now: Mono) -> Option<Mono> {
        match self.guard {
            Some(Guard::Deadline(at)) if at <= now && !self.latched => Some(at),
            _ => None,
        }
    }

    /// When [`GuardBook::due`] will next have something to say, for the timer.
    pub(super) fn next_due(&self) -> Option<Mono> {
        match self.guard {
            Some(Guard::Deadline(at)) if !self.latched => Some(at),
            _ => None,
        }
    }

    /// May a postmaster be started or adopted?
    pub(super) fn may_run(&self, now: Mono) -> Result<(), RefusalKind> {
        match self.guard {
            None => Err(RefusalKind::NoGuard),
            Some(Guard::Deadline(at)) if at <= now => Err(RefusalKind::Fired),
            Some(Guard::Deadline(_) | Guard::Unguarded(_)) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::NoGuard;
    use super::*;

    const EARLY: Mono = Mono(10);
    const NOW: Mono = Mono(20);
    const LATE: Mono = Mono(30);

    fn book(guard: Guard) -> GuardBook {
        let mut book = GuardBook::default();
        book.set(1, guard, NOW).expect("the first guard is taken");
        book
    }

    #[test]
    fn nothing_runs_before_the_first_guard() {
        assert_eq!(GuardBook::default().may_run(NOW), Err(RefusalKind::NoGuard));
    }

    #[test]
    fn a_deadline_in_the_past_is_due_at_once_and_only_once() {
        let mut book = book(Guard::Deadline(EARLY));
        assert_eq!(book.due(NOW), Some(EARLY));
        book.latched = true;
        assert_eq!((book.due(NOW), book.next_due()), (None, None));
    }

    #[test]
    fn a_deadline_is_due_at_its_very_nanosecond() {
        let book = book(Guard::Deadline(LATE));
        assert_eq!(book.due(Mono(LATE.0 - 1)), None);
        assert_eq!(book.due(LATE), Some(LATE));
        assert_eq!(book.may_run(LATE), Err(RefusalKind::Fired));
    }

    #[test]
    fn after_it_fired_only_a_guard_that_still_holds_opens_it_again() {
        for (guard, opens) in [
            (Guard::Deadline(EARLY), false),
            (Guard::Deadline(NOW), false),
            (Guard::Deadline(LATE), true),
            (Guard::Unguarded(NoGuard::Standby), true),
        ] {
            let mut book = book(Guard::Deadline(EARLY));
            book.latched = true;
            book.set(2, guard, NOW).expect("newer");
            assert_eq!(book.may_run(NOW).is_ok(), opens, "{guard:?}");
            assert_eq!(book.latched, !opens, "{guard:?}");
        }
    }

    #[test]
    fn an_older_or_repeated_guard_never_replaces_a_newer_one() {
        let mut book = book(Guard::Deadline(LATE));
        for seq in [0, 1] {
            let answer = book.set(seq, Guard::Unguarded(NoGuard::Pause), NOW);
            assert_eq!(
                (answer, book.guard),
                (Err(RefusalKind::StaleGuard), Some(Guard::Deadline(LATE)))
            );
        }
    }

    #[test]
    fn without_a_deadline_nothing_is_ever_due() {
        let book = book(Guard::Unguarded(NoGuard::Pause));
        assert_eq!((book.due(Mono(u64::MAX)), book.next_due()), (None, None));
    }
}
