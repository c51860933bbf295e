//! What the oracles remember of etcd from one event to the next, so that an acquisition of the leader key can be judged by
//! what stood there before it. Keys are parsed again only when they changed.

use std::rc::Rc;

use pgha_core::cluster::ClusterView;
use pgha_core::commit::Key;
use pgha_core::units::{Revision, Timeline};
use pgha_wire::keys;

use super::s07_bounded_loss::could_ask;
use crate::world::{BASE, SimNode, World};

/// Keys that oracles look into.
const KEYS: [Key; 4] = [Key::Leader, Key::Sync, Key::Failover, Key::Config];

/// The memory.
#[derive(Clone, Debug)]
pub struct Seen {
    names: [String; KEYS.len()],
    /// Member keys by node.
    pub members: Vec<String>,
    store: i64,
    generation: u32,
    revisions: [Revision; KEYS.len()],
    /// The cluster when one of them changed last.
    pub cluster: Rc<ClusterView>,
    /// The revision of `/sync` that the last restored etcd brought with it; zero when it brought none.
    pub sync_from_backup: Option<Revision>,
    /// By node: what it could have learnt when it asked its peers last.
    pub asked: Vec<Option<Asked>>,
}

/// What a node could have learnt from its peers.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Peers that answer.
    pub answering: Vec<usize>,
    /// One of them that it could ask, on the same timeline, and ahead.
    pub ahead: Option<usize>,
}

/// The leader key changed hands.
pub struct Acquisition {
    /// Who holds it now.
    pub node: usize,
    /// What stood in etcd before.
    pub before: Rc<ClusterView>,
    /// What the node could have learnt from its peers before.
    pub asked: Option<Asked>,
}

impl Default for Seen {
    fn default() -> Seen {
        Seen {
            names: KEYS.map(|key| keys::full_key(BASE, &key)),
            members: Vec::new(),
            store: 0,
            generation: 0,
            revisions: [Revision(0); KEYS.len()],
            cluster: Rc::default(),
            sync_from_backup: None,
            asked: Vec::new(),
        }
    }
}

impl Seen {
    /// For a world of these nodes.
    pub fn new(nodes: &[SimNode]) -> Seen {
        let key = |n: &SimNode| keys::full_key(BASE, &Key::Member(n.name.clone()));
        Seen {
            members: nodes.iter().map(key).collect(),
            asked: vec![None; nodes.len()],
            ..Seen::default()
        }
    }
}

impl World {
    /// Looks at etcd again if anything was written. Tells of a new leader key.
    pub(super) fn see_store(&mut self) -> Option<Acquisition> {
        let seen = &mut self.oracles.seen;
        let last = std::mem::replace(&mut seen.store, self.etcd.revision());
        let kept = |name: &String| self.etcd.get(name).map_or(Revision(0), |kv| kv.mod_revision);
        let revisions = std::array::from_fn(|k| kept(&seen.names[k]));
        if std::mem::replace(&mut seen.revisions, revisions) == revisions {
            return None;
        }
        // What a restored etcd says is no news: nobody took anything.
        let restored = std::mem::replace(&mut seen.generation, self.etcd.generation()) != self.etcd.generation();
        let cluster = self.read_cluster();
        let seen = &mut self.oracles.seen;
        let before = std::mem::replace(&mut seen.cluster, Rc::clone(&cluster));
        if restored {
            seen.sync_from_backup = Some(cluster.sync_revision());
        }
        self.note_sync_key(&before);
        let token = |c: &ClusterView| c.leader.as_ref().map(|l| l.create_revision);
        if token(&before) == token(&cluster) || restored {
            return None;
        }
        let holder = cluster.leader_name()?;
        let node = self.nodes.iter().position(|n| n.name == *holder)?;
        let asked = self.oracles.seen.asked.get_mut(node).and_then(Option::take);
        let before = self.cluster_at(last).unwrap_or(before);
        Some(Acquisition { node, before, asked })
    }

    fn note_sync_key(&mut self, before: &ClusterView) {
        let now = &self.oracles.seen.cluster;
        if now.sync == before.sync {
            return;
        }
        if let Some(key) = now.sync.as_ref().filter(|s| s.standbys.is_empty()) {
            // It has seen what a person did, and begins anew.
            let (leader, nodes) = (key.leader.clone(), &self.nodes);
            self.oracles
                .by_hand
                .retain(|i| Some(&nodes[*i].name) != leader.as_ref());
        }
        let now = &self.oracles.seen.cluster;
        let text = match &now.sync {
            Some(key) => format!("/sync: {:?} {:?} quorum {}", key.leader, key.standbys, key.quorum),
            None => "/sync: gone".into(),
        };
        self.note(|| text);
    }

    /// Is `/sync`, or that there is none, what a restored etcd brought with it?
    pub(super) fn has_sync_from_backup(&self, cluster: &ClusterView) -> bool {
        self.oracles.seen.sync_from_backup == Some(cluster.sync_revision())
    }

    /// Is `j` a member that would answer `i`?
    pub(super) fn is_askable(&self, i: usize, j: usize) -> bool {
        let peer = &self.nodes[j];
        peer.agent_runs() && self.talk(i, j) && self.etcd.get(&self.oracles.seen.members[j]).is_some()
    }

    /// A node asks its peers: notes who could tell it something.
    pub(crate) fn note_asked(&mut self, i: usize) {
        let answers = |j: &usize| self.nodes[*j].agent_runs() && self.talk(i, *j);
        let answering: Vec<usize> = self.others(i).filter(answers).collect();
        let mut members = answering.iter().copied().filter(|j| could_ask(self, i, *j));
        let ahead = members.find(|j| self.is_ahead(*j, i));
        self.oracles.seen.asked[i] = Some(Asked { answering, ahead });
    }

    /// Is the standby `j`, which may lead, on the same timeline as `i`, and ahead?
    pub(super) fn is_ahead(&self, j: usize, i: usize) -> bool {
        let (theirs, mine) = (&self.nodes[j].pg, &self.nodes[i].pg);
        let shown = |d: &crate::postgres::Data| (Timeline(d.timeline()), d.replayed);
        let (Some(a), Some(b)) = (
            theirs.data().map(shown),
            mine.data().map(|d| (Timeline(d.timeline()), d.position())),
        ) else {
            return false;
        };
        let may_lead = self.plan.settings.tags.of(j).may_lead();
        may_lead && theirs.receiver().is_some() && !theirs.mute && a.0 == b.0 && a.1 > b.1
    }
}
