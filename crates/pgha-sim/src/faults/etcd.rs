//! What etcd does to its clients: members that die, lose each other or lead no more, leases that end too soon, watches
//! that go wrong, tokens, a full disk, and stores that were put in the place of the old one.

use pgha_core::units::LeaseId;

use super::network::member;
use super::{FaultKind, Hit, Span, millis, nothing};
use crate::etcd::MEMBERS;
use crate::network::place;
use crate::world::World;

/// Members by their numbers in texts.
const ANY_MEMBER: (i64, i64) = (1, MEMBERS as i64);

pub(super) const KINDS: &[FaultKind] = &[
    FaultKind {
        name: "etcd down",
        form: "stop etcd",
        span: Span::Passing,
        range: (0, 0),
        weight: 1,
        begin: store_leaves,
        end: store_returns,
    },
    FaultKind {
        name: "lease revoked early",
        form: "revoke lease of NODE",
        span: Span::Instant,
        range: (0, 0),
        weight: 1,
        begin: revoke_early,
        end: nothing,
    },
    FaultKind {
        name: "etcd emptied",
        form: "empty etcd",
        span: Span::Passing,
        range: (0, 0),
        weight: 1,
        begin: |w, hit| {
            store_leaves(w, hit);
            w.etcd.wipe();
        },
        end: store_returns,
    },
    FaultKind {
        name: "etcd restored under its cluster id",
        form: "restore etcd from TIME ago",
        span: Span::Passing,
        range: (1_000, 120_000),
        weight: 1,
        begin: |w, hit| restore(w, hit, true),
        end: store_returns,
    },
    FaultKind {
        name: "etcd restored under a new cluster id",
        form: "restore new etcd from TIME ago",
        span: Span::Passing,
        range: (1_000, 120_000),
        weight: 1,
        begin: |w, hit| restore(w, hit, false),
        end: store_returns,
    },
    FaultKind {
        name: "etcd member killed",
        form: "kill etcd member NUMBER",
        span: Span::Passing,
        range: ANY_MEMBER,
        weight: 1,
        begin: |w, hit| w.etcd.members.stop(member(hit)),
        end: |w, hit| w.etcd.members.start(member(hit)),
    },
    FaultKind {
        name: "etcd member stopped",
        form: "stop etcd member NUMBER",
        span: Span::Passing,
        range: ANY_MEMBER,
        weight: 1,
        begin: |w, hit| {
            isolate(w, hit);
            (0..w.nodes.len()).for_each(|i| w.links.block(place(member(hit)), i));
        },
        end: |w, hit| {
            w.etcd.members.rejoin(member(hit));
            (0..w.nodes.len()).for_each(|i| w.links.unblock(place(member(hit)), i));
        },
    },
    FaultKind {
        name: "etcd member isolated with a node",
        form: "isolate etcd member NUMBER with NODE",
        span: Span::Passing,
        range: ANY_MEMBER,
        weight: 1,
        begin: |w, hit| {
            isolate(w, hit);
            for other in (0..MEMBERS).filter(|m| *m != member(hit)) {
                w.links.block(hit.node, place(other));
                w.links.block(place(other), hit.node);
            }
        },
        end: |w, hit| {
            w.etcd.members.rejoin(member(hit));
            for other in (0..MEMBERS).filter(|m| *m != member(hit)) {
                w.links.unblock(hit.node, place(other));
                w.links.unblock(place(other), hit.node);
            }
        },
    },
    FaultKind {
        name: "etcd leader moved",
        form: "move etcd leader",
        span: Span::Instant,
        range: (0, 0),
        weight: 1,
        begin: |w, _| {
            w.etcd.members.depose();
            w.etcd.members.let_elect();
        },
        end: nothing,
    },
    FaultKind {
        name: "etcd member isolated",
        form: "isolate etcd member NUMBER",
        span: Span::Passing,
        range: ANY_MEMBER,
        weight: 2,
        begin: isolate,
        end: |w, hit| w.etcd.members.rejoin(member(hit)),
    },
    FaultKind {
        name: "etcd quorum lost",
        form: "isolate etcd members",
        span: Span::Passing,
        range: (0, 0),
        weight: 1,
        begin: |w, _| {
            let revision = w.etcd.revision();
            (0..MEMBERS).for_each(|m| w.etcd.members.isolate(m, revision));
        },
        end: |w, _| (0..MEMBERS).for_each(|m| w.etcd.members.rejoin(m)),
    },
    FaultKind {
        name: "etcd leader change",
        form: "depose etcd leader",
        span: Span::Passing,
        range: (0, 0),
        weight: 2,
        begin: |w, _| w.etcd.members.depose(),
        end: |w, _| w.etcd.members.let_elect(),
    },
    FaultKind {
        name: "etcd has no space",
        form: "fill etcd",
        span: Span::Passing,
        range: (0, 0),
        weight: 1,
        begin: |w, _| w.etcd.full += 1,
        end: |w, _| w.etcd.full = w.etcd.full.saturating_sub(1),
    },
    FaultKind {
        name: "etcd tokens expired",
        form: "expire etcd tokens",
        span: Span::Instant,
        range: (0, 0),
        weight: 1,
        begin: |w, _| w.etcd.expire_tokens(),
        end: nothing,
    },
    FaultKind {
        name: "etcd password changed",
        form: "deny etcd access",
        span: Span::Passing,
        range: (0, 0),
        weight: 1,
        begin: |w, _| {
            w.etcd.denied += 1;
            w.etcd.expire_tokens();
        },
        end: |w, _| w.etcd.denied = w.etcd.denied.saturating_sub(1),
    },
    FaultKind {
        name: "etcd clock drift",
        form: "drift clock of etcd by NUMBER ppm",
        span: Span::Passing,
        range: (-100_000, 100_000),
        weight: 1,
        begin: |w, hit| w.etcd.drift(w.now, hit.number),
        end: |w, _| w.etcd.drift(w.now, 0),
    },
    FaultKind {
        name: "etcd compacted",
        form: "compact etcd",
        span: Span::Instant,
        range: (0, 0),
        weight: 1,
        begin: |w, _| w.etcd.compact(),
        end: nothing,
    },
    FaultKind {
        name: "watch silenced",
        form: "silence watch of NODE",
        span: Span::Instant,
        range: (0, 0),
        weight: 1,
        begin: |w, hit| w.nodes[hit.node].client.watch.forgotten = true,
        end: nothing,
    },
    FaultKind {
        name: "watch cut",
        form: "cancel watch of NODE",
        span: Span::Instant,
        range: (0, 0),
        weight: 1,
        begin: |w, hit| w.cancel_watch(hit.node),
        end: nothing,
    },
    FaultKind {
        name: "watch replayed",
        form: "replay watch of NODE",
        span: Span::Instant,
        range: (0, 0),
        weight: 1,
        begin: |w, hit| w.replay_to_watch(hit.node),
        end: nothing,
    },
];

/// A member hears nobody of the others any more.
fn isolate(w: &mut World, hit: &Hit) {
    let revision = w.etcd.revision();
    w.etcd.members.isolate(member(hit), revision);
}

fn store_leaves(w: &mut World, _: &Hit) {
    w.etcd_down += 1;
}

fn store_returns(w: &mut World, _: &Hit) {
    w.etcd_down = w.etcd_down.saturating_sub(1);
}

/// etcd issue 15247: a deposed leader of etcd revokes a live lease.
fn revoke_early(w: &mut World, hit: &Hit) {
    let lease: Option<LeaseId> = w.nodes[hit.node]
        .agent
        .as_ref()
        .and_then(|a| a.view().memory.lease)
        .map(|l| l.id);
    if let Some(lease) = lease {
        w.etcd.revoke(w.now, lease);
        w.tell_watches();
    }
}

/// Somebody stops etcd and starts it again with the state of an earlier time.
fn restore(w: &mut World, hit: &Hit, same_cluster: bool) {
    store_leaves(w, hit);
    let then = w.now.saturating_sub(millis(hit.number));
    w.etcd.restore(w.now, then, same_cluster);
}
