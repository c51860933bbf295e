//! What happens to the WAL archive.

use super::{FaultKind, Span, nothing};

pub(super) const KINDS: &[FaultKind] = &[
    FaultKind {
        name: "archive away",
        form: "break archive",
        span: Span::Passing,
        range: (0, 0),
        weight: 2,
        begin: |w, _| w.archive.away += 1,
        end: |w, _| w.archive.away = w.archive.away.saturating_sub(1),
    },
    FaultKind {
        name: "archive slow",
        form: "slow archive by NUMBER times",
        span: Span::Passing,
        range: (10, 200),
        weight: 1,
        begin: |w, hit| w.archive.slow = u64::try_from(hit.number).ok(),
        end: |w, _| w.archive.slow = None,
    },
    FaultKind {
        name: "archived segments lost",
        form: "lose newest NUMBER archived segments",
        span: Span::Instant,
        range: (1, 20),
        weight: 1,
        begin: |w, hit| {
            let lost = w.archive.lose_newest(usize::try_from(hit.number).unwrap_or(1));
            w.note(|| format!("{lost} archived segments are lost"));
        },
        end: nothing,
    },
];
