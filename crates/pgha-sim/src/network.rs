//! Which packets arrive. Every direction of every pair can be blocked by itself, and blocks of overlapping faults add up.

use crate::etcd::MEMBERS;
use crate::world::World;

/// Most nodes of a simulated cluster.
pub const MAX_NODES: usize = 7;
/// etcd's place beside the nodes: what is blocked here is blocked for all of its members.
pub const ETCD: usize = MAX_NODES;
/// Nodes, etcd, and each of its members.
const PLACES: usize = MAX_NODES + 1 + MEMBERS;

/// The place of a member of etcd.
pub fn place(member: usize) -> usize {
    ETCD + 1 + member
}

/// How many faults block each direction: `[from][to]`.
#[derive(Clone, Debug, Default)]
pub struct Links {
    blocks: [[u8; PLACES]; PLACES],
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
    /// Does a request of this node reach a member of etcd?
    pub fn reaches_member(&self, i: usize, member: usize) -> bool {
        !self.etcd_is_down() && self.links.passes(i, ETCD) && self.links.passes(i, place(member))
    }
    /// Do packets of a member of etcd reach this node?
    pub fn hears_member(&self, i: usize, member: usize) -> bool {
        !self.etcd_is_down() && self.links.passes(ETCD, i) && self.links.passes(place(member), i)
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
