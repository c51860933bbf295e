//! Clocks that jump or run at a wrong rate.

use super::{FaultKind, Span, nothing};
use crate::planted::WorldDefect;

pub(super) const KINDS: &[FaultKind] = &[
    FaultKind {
        name: "wall clock jump",
        form: "jump wall clock of NODE by TIME",
        span: Span::Instant,
        range: (-3_600_000, 3_600_000),
        weight: 1,
        begin: |w, hit| {
            w.nodes[hit.node].clock.jump(hit.number.saturating_mul(1000));
            if w.suffers(WorldDefect::DeadlinesOnWallClock) {
                let now = w.now;
                w.nodes[hit.node].clock.jump_boot(now, hit.number);
                w.clock_changed(hit.node);
            }
        },
        end: nothing,
    },
    FaultKind {
        name: "clock drift",
        form: "drift clock of NODE by NUMBER ppm",
        span: Span::Passing,
        range: (-90_000, 90_000),
        weight: 1,
        begin: |w, hit| {
            let now = w.now;
            w.nodes[hit.node].clock.drift(now, hit.number);
            w.clock_changed(hit.node);
        },
        end: |w, hit| {
            let now = w.now;
            w.nodes[hit.node].clock.drift(now, 0);
            w.clock_changed(hit.node);
        },
    },
];
