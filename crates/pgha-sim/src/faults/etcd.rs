//! What etcd does to its clients.

use pgha_core::units::LeaseId;

use super::{FaultKind, Hit, Span, nothing};
use crate::world::World;

pub(super) const KINDS: &[FaultKind] = &[
    FaultKind {
        name: "etcd down",
        form: "stop etcd",
        span: Span::Passing,
        range: (0, 0),
        weight: 1,
        begin: |w, _| w.etcd_down += 1,
        end: |w, _| w.etcd_down = w.etcd_down.saturating_sub(1),
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
        begin: |w, _| {
            w.etcd_down += 1;
            w.etcd.empty();
        },
        end: |w, _| w.etcd_down = w.etcd_down.saturating_sub(1),
    },
];

/// etcd issue 15247: a deposed leader of etcd revokes a live lease.
fn revoke_early(w: &mut World, hit: &Hit) {
    let lease: Option<LeaseId> = w.nodes[hit.node]
        .agent
        .as_ref()
        .and_then(|a| a.view().memory.lease)
        .map(|l| l.id);
    if let Some(lease) = lease {
        let deleted = w.etcd.expire(w.now, Some(lease));
        w.hint_all(&deleted);
    }
}
