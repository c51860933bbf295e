//! What happens to synchronous replication: operators who change the mode while the cluster runs, and persons who set
//! synchronous_standby_names by hand. Drawn from a stream of its own, so that the rest of a seed keeps its meaning.

use pgha_core::settings::SynchronousMode;

use super::{FaultKind, Hit, Span, nothing};
use crate::postgres::Server;
use crate::world::{MS, World};

pub(crate) const KINDS: &[FaultKind] = &[
    mode("synchronous mode turned on", "set synchronous_mode to on", |w, _| {
        w.plan.settings.sync = SynchronousMode::On;
        w.put_configuration();
    }),
    mode(
        "synchronous mode set to quorum",
        "set synchronous_mode to quorum",
        |w, _| {
            w.plan.settings.sync = SynchronousMode::Quorum;
            w.put_configuration();
        },
    ),
    mode("synchronous mode turned off", "set synchronous_mode to off", |w, _| {
        w.plan.settings.sync = SynchronousMode::Off;
        w.put_configuration();
    }),
    mode("strict mode turned on", "set synchronous_mode_strict to yes", |w, _| {
        w.plan.settings.sync_strict = true;
        w.put_configuration();
    }),
    mode("strict mode turned off", "set synchronous_mode_strict to no", |w, _| {
        w.plan.settings.sync_strict = false;
        w.put_configuration();
    }),
    FaultKind {
        range: (1, 3),
        ..mode(
            "synchronous node count changed",
            "set synchronous_node_count to NUMBER",
            |w, hit| {
                w.plan.settings.sync_nodes = u64::try_from(hit.number).unwrap_or(1);
                w.put_configuration();
            },
        )
    },
    mode(
        "synchronous names emptied by hand",
        "empty synchronous names of NODE",
        |w, hit| {
            w.set_by_hand(hit.node, "");
        },
    ),
    mode(
        "synchronous names set by hand to one",
        "set synchronous names of NODE to node OTHER",
        |w, hit| {
            let name = w.nodes[hit.other].name.clone();
            w.set_by_hand(hit.node, name.as_str());
        },
    ),
    mode(
        "synchronous names set by hand to all",
        "set synchronous names of NODE to all",
        |w, hit| {
            w.set_by_hand(hit.node, "*");
        },
    ),
    FaultKind {
        weight: 2,
        ..mode("all nodes killed", "kill all nodes", |w, _| restart_all(w, 1))
    },
    FaultKind {
        range: (1, 6_000),
        ..mode(
            "all nodes killed, back one by one",
            "kill all nodes and start one every TIME",
            |w, hit| {
                restart_all(w, u64::try_from(hit.number).unwrap_or(1));
            },
        )
    },
];

const fn mode(name: &'static str, form: &'static str, begin: fn(&mut World, &Hit)) -> FaultKind {
    FaultKind {
        name,
        form,
        span: Span::Instant,
        range: (0, 0),
        weight: 1,
        begin,
        end: nothing,
    }
}

/// The power fails everywhere. Nodes come back one after the other, beginning with a different one each time.
fn restart_all(w: &mut World, pause_ms: u64) {
    let count = w.nodes.len();
    let first = w.postgres.index(count);
    for place in 0..count {
        let i = (first + place) % count;
        w.kill_node(i);
        let after = crate::world::SUPERVISOR + place as u64 * pause_ms * MS;
        w.at(w.now + after, crate::world::Happening::Supervise { node: i });
    }
}

impl World {
    /// A person alters the setting in a running server. The agent puts it right; until then commits wait for what the person
    /// wanted, and nobody has promised anything about them.
    fn set_by_hand(&mut self, i: usize, text: &str) {
        if matches!(self.nodes[i].pg.server, Server::Primary | Server::Standby(_)) {
            self.alter_sync_names(i, Some(text));
            self.note_hand(i);
        }
    }
}
