//! Partitions, whole and one-way.

use super::{FaultKind, Hit, Span};
use crate::etcd::MEMBERS;
use crate::network::{ETCD, place};
use crate::world::World;

pub(super) const KINDS: &[FaultKind] = &[
    FaultKind {
        name: "cut from etcd",
        form: "cut NODE from etcd",
        span: Span::Lasting,
        range: (0, 0),
        weight: 2,
        begin: |w, hit| {
            w.links.block(hit.node, ETCD);
            w.links.block(ETCD, hit.node);
        },
        end: |w, hit| {
            w.links.unblock(hit.node, ETCD);
            w.links.unblock(ETCD, hit.node);
        },
    },
    FaultKind {
        name: "deaf to etcd",
        form: "deafen NODE to etcd",
        span: Span::Lasting,
        range: (0, 0),
        weight: 2,
        begin: |w, hit| w.links.block(ETCD, hit.node),
        end: |w, hit| w.links.unblock(ETCD, hit.node),
    },
    FaultKind {
        name: "mute to etcd",
        form: "mute NODE to etcd",
        span: Span::Lasting,
        range: (0, 0),
        weight: 1,
        begin: |w, hit| w.links.block(hit.node, ETCD),
        end: |w, hit| w.links.unblock(hit.node, ETCD),
    },
    FaultKind {
        name: "cut from a member of etcd",
        form: "cut NODE from etcd member NUMBER",
        span: Span::Passing,
        range: (1, MEMBERS as i64),
        weight: 2,
        begin: |w, hit| {
            w.links.block(hit.node, place(member(hit)));
            w.links.block(place(member(hit)), hit.node);
        },
        end: |w, hit| {
            w.links.unblock(hit.node, place(member(hit)));
            w.links.unblock(place(member(hit)), hit.node);
        },
    },
    FaultKind {
        name: "deaf to a member of etcd",
        form: "deafen NODE to etcd member NUMBER",
        span: Span::Passing,
        range: (1, MEMBERS as i64),
        weight: 1,
        begin: |w, hit| w.links.block(place(member(hit)), hit.node),
        end: |w, hit| w.links.unblock(place(member(hit)), hit.node),
    },
    FaultKind {
        name: "cut from peers",
        form: "cut NODE from peers",
        span: Span::Lasting,
        range: (0, 0),
        weight: 1,
        begin: |w, hit| towards_peers(w, hit, true),
        end: |w, hit| towards_peers(w, hit, false),
    },
    FaultKind {
        name: "cut from a peer",
        form: "cut NODE from node OTHER",
        span: Span::Passing,
        range: (0, 0),
        weight: 1,
        begin: |w, hit| {
            w.links.block(hit.node, hit.other);
            w.links.block(hit.other, hit.node);
        },
        end: |w, hit| {
            w.links.unblock(hit.node, hit.other);
            w.links.unblock(hit.other, hit.node);
        },
    },
    FaultKind {
        name: "deaf to a peer",
        form: "deafen NODE to node OTHER",
        span: Span::Passing,
        range: (0, 0),
        weight: 1,
        begin: |w, hit| w.links.block(hit.other, hit.node),
        end: |w, hit| w.links.unblock(hit.other, hit.node),
    },
];

/// The member of etcd that `NUMBER` names, counted from 1.
pub(super) fn member(hit: &Hit) -> usize {
    usize::try_from(hit.number).unwrap_or(1).clamp(1, MEMBERS) - 1
}

fn towards_peers(w: &mut World, hit: &Hit, block: bool) {
    for other in w.others(hit.node) {
        for (from, to) in [(hit.node, other), (other, hit.node)] {
            if block {
                w.links.block(from, to);
            } else {
                w.links.unblock(from, to);
            }
        }
    }
}
