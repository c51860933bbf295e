//! What operators ask for. No faults, but they come at the worst of times.

use pgha_core::cluster::Initialize;
use pgha_core::commit::Key;
use pgha_core::event::{Event, Wake};
use pgha_wire::keys;
use pgha_wire::kv::{Op, Txn};

use super::{FaultKind, Hit, Span, nothing};
use crate::postgres::Server;
use crate::world::{BASE, SimNode, World};

pub(super) const KINDS: &[FaultKind] = &[FaultKind {
    name: "switchover asked for",
    form: "switchover to NODE",
    span: Span::Instant,
    range: (0, 0),
    weight: 2,
    begin: switchover,
    end: nothing,
}];

fn switchover(w: &mut World, hit: &Hit) {
    let candidate = &w.nodes[hit.node];
    let Some(leader) = w.leader().filter(|l| *l != hit.node) else {
        return;
    };
    if candidate.pg.server == Server::Down {
        return;
    }
    let (leader, member) = (&w.nodes[leader].name, &candidate.name);
    let value = format!(r#"{{"leader":"{leader}","member":"{member}"}}"#);
    w.put_key(&Key::Failover, value);
}

impl World {
    /// A person who finds that etcd was emptied and nobody may found the scope again does what the reason text says.
    pub(crate) fn help(&mut self) {
        let cluster = self.read_cluster();
        if cluster.leader.is_some() || !matches!(cluster.initialize, Initialize::Absent) {
            return;
        }
        let position = |n: &SimNode| {
            n.pg.data()
                .filter(|_| n.agent_runs())
                .map(|d| (d.timeline(), d.position()))
        };
        let fit = self.nodes.iter().filter(|n| position(n).is_some());
        let Some(name) = fit.max_by_key(|n| position(n)).map(|n| n.name.clone()) else {
            return;
        };
        self.count("operator named a candidate");
        self.put_key(&Key::Failover, format!(r#"{{"member":"{name}"}}"#));
    }

    /// An operator writes a key and tells the daemons, as the REST API does.
    pub(crate) fn put_key(&mut self, key: &Key, value: String) {
        let put = Txn {
            compares: Vec::new(),
            ops: vec![Op::Put {
                key: keys::full_key(BASE, key),
                value: value.into_bytes(),
                lease: None,
            }],
        };
        self.etcd.commit(self.now, &put);
        self.tell_watches();
        for i in 0..self.nodes.len() {
            self.send(i, Event::Wake(Wake::Now));
        }
    }
}
