//! Where the agent publishes what is true now, and where every answer is read from.
//!
//! Publishing and reading never wait for each other. The body of the node status is rendered at most once per
//! publication, however many health checks ask for it.

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use axum::body::Bytes;
use pgha_core::cluster::ClusterView;
use pgha_core::units::Now;
use pgha_wire::rest::status::{NodeStatus, render_patroni};

/// The status of the node and the last view of the cluster, replaced as a whole.
pub struct StatusBoard {
    current: ArcSwap<Published>,
}

/// One publication.
pub struct Published {
    /// The node.
    pub status: NodeStatus,
    /// The cluster as last read; `None` when it was never read.
    pub cluster: Option<Arc<ClusterView>>,
    /// Since when the decision in `status` is what it is.
    pub decided_at: Now,
    body: OnceLock<Bytes>,
}

impl StatusBoard {
    /// A board with its first publication.
    pub fn new(status: NodeStatus, cluster: Option<Arc<ClusterView>>, now: Now) -> StatusBoard {
        StatusBoard {
            current: ArcSwap::from_pointee(Published::new(status, cluster, now)),
        }
    }

    /// Replaces what is published. `now` is when it became true. There is one publisher.
    pub fn publish(&self, status: NodeStatus, cluster: Option<Arc<ClusterView>>, now: Now) {
        let before = self.current.load();
        let same = before.status.decision == status.decision;
        let decided_at = if same { before.decided_at } else { now };
        self.current
            .store(Arc::new(Published::new(status, cluster, decided_at)));
    }

    /// What is published now.
    pub fn load(&self) -> Arc<Published> {
        self.current.load_full()
    }
}

impl Published {
    fn new(status: NodeStatus, cluster: Option<Arc<ClusterView>>, decided_at: Now) -> Published {
        Published {
            status,
            cluster,
            decided_at,
            body: OnceLock::new(),
        }
    }

    /// The body of `GET /patroni`.
    pub(crate) fn body(&self) -> Bytes {
        self.body
            .get_or_init(|| Bytes::from(render_patroni(&self.status)))
            .clone()
    }
}
