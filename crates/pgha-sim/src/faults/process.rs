//! Processes and machines that die, stop or starve.

use pgha_core::effect::FenceOrder;
use pgha_core::event::Event;

use super::{FaultKind, Hit, Span, millis, nothing};
use crate::world::World;

pub(super) const KINDS: &[FaultKind] = &[
    FaultKind {
        name: "agent killed",
        form: "kill agent NODE",
        span: Span::Lasting,
        range: (0, 0),
        weight: 2,
        begin: |w, hit| {
            w.nodes[hit.node].held_down += 1;
            w.kill_agent(hit.node);
        },
        end: start_again,
    },
    FaultKind {
        name: "agent killed between effects",
        form: "kill agent NODE after NUMBER effects",
        span: Span::Instant,
        range: (1, 40),
        weight: 2,
        begin: |w, hit| w.nodes[hit.node].dies_after = u64::try_from(hit.number).ok(),
        end: nothing,
    },
    FaultKind {
        name: "agent stopped",
        form: "stop agent NODE",
        span: Span::Lasting,
        range: (0, 0),
        weight: 2,
        begin: |w, hit| w.nodes[hit.node].stopped += 1,
        end: |w, hit| {
            let node = &mut w.nodes[hit.node];
            node.stopped = node.stopped.saturating_sub(1);
            w.release_held(hit.node);
        },
    },
    FaultKind {
        name: "agent starved",
        form: "starve agent NODE by TIME per effect",
        span: Span::Passing,
        range: (10, 3_000),
        weight: 1,
        begin: |w, hit| w.nodes[hit.node].starved_by = millis(hit.number),
        end: |w, hit| w.nodes[hit.node].starved_by = 0,
    },
    FaultKind {
        name: "SIGTERM",
        form: "terminate agent NODE",
        span: Span::Passing,
        range: (0, 0),
        weight: 1,
        begin: |w, hit| {
            w.nodes[hit.node].held_down += 1;
            w.send(hit.node, Event::Terminate);
        },
        end: start_again,
    },
    FaultKind {
        name: "node killed",
        form: "kill node NODE",
        span: Span::Lasting,
        range: (0, 0),
        weight: 1,
        begin: |w, hit| {
            w.nodes[hit.node].held_down += 1;
            w.kill_node(hit.node);
        },
        end: start_again,
    },
    FaultKind {
        name: "node frozen",
        form: "freeze node NODE",
        span: Span::Lasting,
        range: (0, 0),
        weight: 1,
        begin: |w, hit| w.nodes[hit.node].frozen += 1,
        end: |w, hit| {
            let node = &mut w.nodes[hit.node];
            node.frozen = node.frozen.saturating_sub(1);
            w.release_held(hit.node);
        },
    },
    FaultKind {
        name: "watchdog broken",
        form: "break watchdog NODE",
        span: Span::Passing,
        range: (0, 0),
        weight: 1,
        begin: |w, hit| {
            w.nodes[hit.node].watchdog.broken += 1;
            w.tell_watchdog(hit.node);
        },
        end: |w, hit| {
            let device = &mut w.nodes[hit.node].watchdog;
            device.broken = device.broken.saturating_sub(1);
            w.tell_watchdog(hit.node);
        },
    },
    FaultKind {
        name: "fence killed",
        form: "kill fence NODE",
        span: Span::Instant,
        range: (0, 0),
        weight: 1,
        begin: |w, hit| {
            if w.nodes[hit.node].fence.is_none() {
                return;
            }
            // The parent-death signal stops PostgreSQL. The daemon starts a new fence, which knows nothing.
            let node = &mut w.nodes[hit.node];
            node.fence = node.agent.is_some().then_some(FenceOrder::StandbyOnly);
            node.fired = false;
            w.crash_postgres(hit.node);
            w.send(hit.node, Event::FenceLost);
        },
        end: nothing,
    },
];

fn start_again(w: &mut World, hit: &Hit) {
    let node = &mut w.nodes[hit.node];
    node.held_down = node.held_down.saturating_sub(1);
    w.start_agent_if_down(hit.node);
}
