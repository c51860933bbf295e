//! What happens to PostgreSQL itself, and to its replication.

use super::{FaultKind, Hit, Span, millis, nothing};
use crate::world::World;

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

/// Kinds that came later; they are drawn behind all others, so that old seeds keep their meaning.
pub(super) const LATER_KINDS: &[FaultKind] = &[
    FaultKind {
        name: "disk full",
        form: "fill disk of NODE",
        span: Span::Passing,
        range: (0, 0),
        weight: 1,
        begin: |w, hit| w.nodes[hit.node].pg.trouble.disk_full += 1,
        end: |w, hit| less(&mut w.nodes[hit.node].pg.trouble.disk_full),
    },
    FaultKind {
        name: "recovery slow",
        form: "slow recovery of NODE by NUMBER times",
        span: Span::Passing,
        range: (5, 80),
        weight: 1,
        begin: |w, hit| w.nodes[hit.node].pg.trouble.recovery_factor = u64::try_from(hit.number).ok(),
        end: |w, hit| w.nodes[hit.node].pg.trouble.recovery_factor = None,
    },
    FaultKind {
        name: "next promotion breaks off early",
        form: "break promotion of NODE early",
        span: Span::Passing,
        range: (0, 0),
        weight: 1,
        begin: |w, hit| w.nodes[hit.node].pg.trouble.promote_breaks = Some(false),
        end: |w, hit| w.nodes[hit.node].pg.trouble.promote_breaks = None,
    },
    FaultKind {
        name: "next promotion breaks off late",
        form: "break promotion of NODE late",
        span: Span::Passing,
        range: (0, 0),
        weight: 1,
        begin: |w, hit| w.nodes[hit.node].pg.trouble.promote_breaks = Some(true),
        end: |w, hit| w.nodes[hit.node].pg.trouble.promote_breaks = None,
    },
    FaultKind {
        name: "next rewind breaks off",
        form: "break rewind of NODE",
        span: Span::Passing,
        range: (0, 0),
        weight: 1,
        begin: |w, hit| w.nodes[hit.node].pg.trouble.rewind_breaks = true,
        end: |w, hit| w.nodes[hit.node].pg.trouble.rewind_breaks = false,
    },
    FaultKind {
        name: "wal senders stopped",
        form: "stop walsenders NODE",
        span: Span::Passing,
        range: (0, 0),
        weight: 1,
        begin: |w, hit| w.nodes[hit.node].pg.trouble.frozen_senders += 1,
        end: |w, hit| {
            less(&mut w.nodes[hit.node].pg.trouble.frozen_senders);
            w.senders_reload(hit.node);
        },
    },
    FaultKind {
        name: "replication cut",
        form: "cut replication of NODE with node OTHER",
        span: Span::Passing,
        range: (0, 0),
        weight: 2,
        begin: |w, hit| {
            w.replication.block(hit.node, hit.other);
            w.replication.block(hit.other, hit.node);
        },
        end: |w, hit| {
            w.replication.unblock(hit.node, hit.other);
            w.replication.unblock(hit.other, hit.node);
        },
    },
    FaultKind {
        name: "replication one-way",
        form: "cut replication from NODE to node OTHER",
        span: Span::Passing,
        range: (0, 0),
        weight: 1,
        begin: |w, hit| w.replication.block(hit.node, hit.other),
        end: |w, hit| w.replication.unblock(hit.node, hit.other),
    },
    FaultKind {
        name: "checkpoints slow",
        form: "slow checkpoints of NODE to TIME",
        span: Span::Passing,
        range: (1_000, 40_000),
        weight: 1,
        begin: slow_checkpoints,
        end: |w, hit| w.nodes[hit.node].pg.trouble.checkpoint_takes = None,
    },
    FaultKind {
        name: "client backends stopped",
        form: "stop backends NODE",
        span: Span::Passing,
        range: (0, 0),
        weight: 1,
        begin: |w, hit| w.nodes[hit.node].pg.trouble.deaf_backends += 1,
        end: |w, hit| less(&mut w.nodes[hit.node].pg.trouble.deaf_backends),
    },
    FaultKind {
        name: "replay paused",
        form: "pause replay of NODE",
        span: Span::Passing,
        range: (0, 0),
        weight: 1,
        begin: |w, hit| w.nodes[hit.node].pg.trouble.replay_paused += 1,
        end: |w, hit| {
            less(&mut w.nodes[hit.node].pg.trouble.replay_paused);
            w.replay_goes_on(hit.node);
        },
    },
];

fn less(faults: &mut u32) {
    *faults = faults.saturating_sub(1);
}

/// Somebody's checkpoint runs, and the next ones that are asked for take as long.
fn slow_checkpoints(w: &mut World, hit: &Hit) {
    w.nodes[hit.node].pg.trouble.checkpoint_takes = Some(millis(hit.number));
    w.begin_checkpoint(hit.node, true);
}
