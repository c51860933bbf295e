//! Faults that only real machines have. They stand here so that one file drives both: the simulator, which has no kernel,
//! passes over them and draws none; `pgha-faults` injects them.

use super::{FaultKind, Span, nothing};

pub(super) const KINDS: &[FaultKind] = &[
    instant("backend killed", "kill backend NODE"),
    passing("processes stopped", "stop checkpointer NODE"),
    passing("REST cut", "cut rest of NODE"),
    passing("processor taken away", "throttle node NODE to NUMBER percent"),
    passing("slow fsync", "delay fsync of NODE by TIME"),
    passing("archive_command hangs", "hang archive of NODE"),
    passing("table locked", "lock catalog of NODE"),
    instant("agents restarted", "restart agents"),
    instant("everything restarted", "restart everything"),
];

const fn instant(name: &'static str, form: &'static str) -> FaultKind {
    of_span(name, form, Span::Instant)
}

const fn passing(name: &'static str, form: &'static str) -> FaultKind {
    of_span(name, form, Span::Passing)
}

const fn of_span(name: &'static str, form: &'static str, span: Span) -> FaultKind {
    FaultKind {
        name,
        form,
        span,
        range: (0, 0),
        weight: 0,
        begin: nothing,
        end: nothing,
    }
}
