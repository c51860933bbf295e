//! What happens to PostgreSQL itself.

use super::{FaultKind, Span, nothing};

pub(super) const KINDS: &[FaultKind] = &[
    FaultKind {
        name: "postgres killed",
        form: "kill postgres NODE",
        span: Span::Instant,
        range: (0, 0),
        weight: 2,
        begin: |w, hit| w.crash_postgres(hit.node),
        end: nothing,
    },
    FaultKind {
        name: "postgres mute",
        form: "mute postgres NODE",
        span: Span::Passing,
        range: (0, 0),
        weight: 1,
        begin: |w, hit| w.nodes[hit.node].pg.mute = true,
        end: |w, hit| w.nodes[hit.node].pg.mute = false,
    },
];
