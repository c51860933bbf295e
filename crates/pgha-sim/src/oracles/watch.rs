//! Where the oracles of the cluster's course are told what happened: leadership, jobs that begin, operators.

use std::collections::{BTreeMap, BTreeSet};

use pgha_core::job::Job;
use pgha_core::peer::PeerView;
use pgha_core::request::RequestId;
use pgha_core::units::{MemberName, Revision, Timeline};

use super::{
    l02_no_needless_failover as l02, l03_named_end as l03, l06_commands_end as l06, l07_views_agree as l07,
    s08_timelines as s08, s09_last_copy as s09, s10_no_bootstrap_over_data as s10, s14_pause as s14,
    s17_repairable as s17,
};
use crate::etcd::Time;
use crate::world::{INITIALIZE_KEY, LEADER_KEY, World};

/// What these oracles remember.
#[derive(Clone, Debug, Default)]
pub(super) struct Watch {
    /// Store revision that was looked at last.
    looked_at: i64,
    /// When the leader key and `/initialize` were written.
    written: [Option<Revision>; 2],
    /// Create revision of the leader key seen last.
    key: Option<Revision>,
    /// The system identifier of the cluster, once somebody accepted writes.
    pub founded: Option<u64>,
    /// When each node last accepted writes.
    pub wrote_at: BTreeMap<usize, Time>,
    /// From when on nobody has a reason to demote anybody, and who led then.
    pub quiet: Option<(Time, Option<usize>)>,
    /// Requests without an answer: of which node, and since when.
    pub asked: BTreeMap<RequestId, (usize, Time)>,
    /// Whom an operator ever named as a candidate.
    pub named: BTreeSet<usize>,
    /// By node: when it asked its peers last, and the timelines that were told.
    pub peers_asked: BTreeMap<usize, (Time, BTreeMap<usize, Timeline>)>,
    /// By node: since when nothing has kept its daemon from a majority of etcd.
    pub whole_path: BTreeMap<usize, Time>,
}

impl World {
    /// After every event.
    pub(super) fn watch(&mut self) {
        for i in 0..self.nodes.len() {
            if self.nodes[i].accepts_writes() {
                self.oracles.watch.wrote_at.insert(i, self.now);
                if self.oracles.watch.founded.is_none() {
                    self.oracles.watch.founded = self.nodes[i].pg.data().map(|d| d.system_id);
                }
            }
            if !self.has_whole_path(i) {
                self.oracles.watch.whole_path.insert(i, self.now);
            }
        }
        let quiet = l02::check_quiet(self);
        self.tell(quiet);
        let revision = self.etcd.revision();
        if self.oracles.watch.looked_at == revision {
            return;
        }
        self.oracles.watch.looked_at = revision;
        let written = [LEADER_KEY, INITIALIZE_KEY].map(|key| self.etcd.get(key).map(|kv| kv.mod_revision));
        if std::mem::replace(&mut self.oracles.watch.written, written) == written {
            return;
        }
        let cluster = self.read_cluster();
        self.tell(s10::check_initialize(self, &cluster));
        let key = cluster.leader.as_ref().map(|l| l.create_revision);
        if key != self.oracles.watch.key {
            self.oracles.watch.key = key;
            self.tell(s08::check_key_taken(self, &cluster));
        }
    }

    fn tell(&mut self, broken: Option<String>) {
        if let Some(text) = broken {
            self.violation(text);
        }
    }

    /// A fence is about to stop a server that accepts writes.
    pub(crate) fn check_fenced(&mut self, i: usize) {
        let broken = l02::check_whole_path(self, i, "the fence stops it");
        self.tell(broken);
    }

    /// A job begins.
    pub(crate) fn check_job(&mut self, i: usize, job: &Job) {
        for check in [
            s08::check_job,
            s09::check_job,
            s10::check_job,
            s14::check_job,
            s17::check_job,
            l02::check_job,
        ] {
            self.tell(check(self, i, job));
        }
    }

    /// All faults have ended; from `settled` on the cluster has no reason to change anything.
    pub fn expect_quiet_from(&mut self, settled: Time) {
        self.oracles.watch.quiet = Some((settled, None));
    }

    /// A person had to help: what follows is not quiet.
    pub(crate) fn expect_no_quiet(&mut self) {
        self.oracles.watch.quiet = None;
    }

    /// An operator asked a daemon for something.
    pub(crate) fn note_asked_for(&mut self, i: usize, id: RequestId) {
        self.oracles.watch.asked.insert(id, (i, self.now));
    }

    /// It answered.
    pub(crate) fn note_answered(&mut self, id: RequestId) {
        self.oracles.watch.asked.remove(&id);
    }

    /// The daemon ended: whoever waits sees the connection close.
    pub(crate) fn note_hung_up(&mut self, i: usize) {
        self.oracles.watch.asked.retain(|_, (node, _)| *node != i);
    }

    /// A daemon asked its peers, and this is what they tell.
    pub(crate) fn note_peers_asked(&mut self, i: usize, answers: &BTreeMap<MemberName, PeerView>) {
        let told = |j: usize| match answers.get(&self.nodes[j].name) {
            Some(PeerView::Answered { status, .. }) => Some((j, status.timeline?)),
            Some(PeerView::NotAsked | PeerView::Unreachable { .. } | PeerView::Impostor { .. }) | None => None,
        };
        let told = self.others(i).filter_map(told).collect();
        self.oracles.watch.peers_asked.insert(i, (self.now, told));
    }

    /// An operator named a candidate.
    pub(crate) fn note_named(&mut self, i: usize) {
        self.oracles.watch.named.insert(i);
    }

    /// After calm.
    pub(super) fn check_course(&mut self) {
        for check in [l03::check, l06::check, l07::check] {
            self.tell(check(self));
        }
    }
}
