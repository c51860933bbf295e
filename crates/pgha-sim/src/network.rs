//! Which packets arrive. Every direction of every pair can be blocked by itself, and blocks of overlapping faults add up.

use crate::world::World;

/// Most nodes of a simulated cluster.
pub const MAX_NODES: usize = 7;
/// etcd's place beside the nodes.
pub const ETCD: usize = MAX_NODES;

/// How many faults block each direction: `[from][to]`.
#[derive(Clone, Debug, Default)]
pub struct Links {
    blocks: [[u8; MAX_NODES + 1]; MAX_NODES + 1],
}

impl Links {
    /// No packet goes from `from` to `to` any more.
    pub fn block(&mut self, from: usize, to: usize) {
        self.blocks[from][to] += 1;
    }
    /// One reason less.
    pub fn unblock(&mut self, from: usize, to: usize) {
        self.blocks[from][to] = self.blocks[from][to].saturating_sub(1);
    }
    /// Do packets go from `from` to `to`?
    pub fn passes(&self, from: usize, to: usize) -> bool {
        self.blocks[from][to] == 0
    }
}

impl World {
    /// Does a request of this node reach etcd?
    pub fn reaches_etcd(&self, i: usize) -> bool {
        !self.etcd_is_down() && self.links.passes(i, ETCD)
    }
    /// Do etcd's packets reach this node?
    pub fn hears_etcd(&self, i: usize) -> bool {
        self.links.passes(ETCD, i)
    }
    /// Is a request of this node answered?
    pub fn answered_by_etcd(&self, i: usize) -> bool {
        self.reaches_etcd(i) && self.hears_etcd(i)
    }
    /// Is all of etcd away?
    pub fn etcd_is_down(&self) -> bool {
        self.etcd_down > 0
    }
    /// Can `a` and `b` hold a conversation: packets both ways, and neither machine is frozen?
    pub fn talk(&self, a: usize, b: usize) -> bool {
        let awake = self.nodes[a].frozen == 0 && self.nodes[b].frozen == 0;
        awake && self.links.passes(a, b) && self.links.passes(b, a)
    }
}
