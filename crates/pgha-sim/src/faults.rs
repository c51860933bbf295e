//! The adversary: what goes wrong, drawn from the seed.

use pgha_core::commit::Key;
use pgha_core::event::{Event, Wake};
use pgha_core::units::LeaseId;
use pgha_wire::keys;
use pgha_wire::kv::{Op, Txn};

use crate::postgres::Server;
use crate::world::{BASE, Happening, MS, SEC, World};

/// Kinds of fault. New ones are appended.
const KINDS: u64 = 14;

impl World {
    /// Draws the plan of faults for the run: each begins somewhere between start and end of the fault phase.
    pub fn plan_faults(&mut self) {
        let last = self.settings.fault_seconds * SEC;
        for i in 0..self.settings.faults {
            let when = self.faults.range(20 * SEC, last);
            self.at(when, Happening::Fault(i));
        }
    }

    pub(crate) fn fault(&mut self, _number: usize) {
        if self.now > self.settings.fault_seconds * SEC {
            return self.heal();
        }
        // Most faults hit the leader: that is where it hurts.
        let leader = self.read_cluster().leader_name().cloned();
        let at_leader = self.nodes.iter().position(|n| Some(&n.name) == leader.as_ref());
        let any = self.faults.index(self.nodes.len());
        let i = if self.faults.chance(650) {
            at_leader.unwrap_or(any)
        } else {
            any
        };
        let lasts = self.faults.range(SEC / 2, 3 * self.settings.ttl * SEC);
        let kind = self.faults.range(0, KINDS - 1);
        let name = self.nodes[i].name.clone();
        self.note(|| format!("fault {kind} at {name} for {} ms", lasts / MS));
        match kind {
            0 => self.crash_postgres(i),
            1 => {
                self.count("agent killed alone");
                self.kill_agent(i);
            }
            2 => {
                self.count("node killed");
                self.kill_agent(i);
                self.nodes[i].job = None;
                self.nodes[i].pg.crash();
                self.nodes[i].fence = None;
            }
            3 | 4 => {
                self.count("agent stopped");
                self.nodes[i].stopped.get_or_insert_default();
            }
            5 => {
                self.count("cut from etcd");
                self.nodes[i].cut_from_etcd = true;
            }
            6 => {
                self.count("deaf to etcd");
                self.nodes[i].deaf_to_etcd = true;
            }
            7 => {
                self.count("cut from peers");
                self.nodes[i].cut_from_peers = true;
            }
            8 => {
                self.count("etcd down");
                self.etcd_down = true;
            }
            9 => {
                self.count("PostgreSQL mute");
                self.nodes[i].pg.mute = true;
            }
            10 => self.revoke_early(i),
            11 => self.switchover(i),
            12 => {
                self.count("SIGTERM");
                self.send(i, Event::Terminate);
            }
            _ => {
                self.count("fence killed");
                // The parent-death signal stops PostgreSQL; a new fence knows nothing.
                self.nodes[i].fence = Some(pgha_core::effect::FenceOrder::StandbyOnly);
                self.crash_postgres(i);
                self.send(i, Event::FenceLost);
            }
        }
        let end = self.now + lasts;
        self.plan_recovery(i, end);
    }

    /// What was cut, stopped or killed comes back at `end`; the next fault may begin earlier.
    pub(crate) fn plan_recovery(&mut self, i: usize, end: u64) {
        self.recoveries.push((end, i));
        self.at(end, Happening::Fault(usize::MAX));
    }

    /// Ends what is over.
    pub(crate) fn recover_due(&mut self) {
        let now = self.now;
        let (over, still): (Vec<_>, Vec<_>) = std::mem::take(&mut self.recoveries)
            .into_iter()
            .partition(|(end, _)| *end <= now);
        self.recoveries = still;
        for (_, i) in over {
            self.etcd_down = false;
            self.recover(i);
        }
    }

    fn recover(&mut self, i: usize) {
        let node = &mut self.nodes[i];
        node.cut_from_etcd = false;
        node.deaf_to_etcd = false;
        node.cut_from_peers = false;
        node.pg.mute = false;
        if let Some(waiting) = node.stopped.take() {
            let epoch = node.epoch;
            for event in waiting {
                self.at(
                    self.now,
                    Happening::Deliver {
                        node: i,
                        epoch,
                        event: Box::new(event),
                    },
                );
            }
        }
        if self.nodes[i].agent.is_none() {
            self.start_agent(i);
        }
    }

    /// Ends all faults for good.
    pub fn heal(&mut self) {
        self.etcd_down = false;
        self.recoveries.clear();
        self.settings.lost_reply_per_mille = 0;
        self.settings.delayed_per_mille = 0;
        self.settings.false_keepalive_per_mille = 0;
        for i in 0..self.nodes.len() {
            self.recover(i);
        }
    }

    fn send(&mut self, i: usize, event: Event) {
        let epoch = self.nodes[i].epoch;
        self.at(
            self.now,
            Happening::Deliver {
                node: i,
                epoch,
                event: Box::new(event),
            },
        );
    }

    /// etcd issue 15247: a deposed leader of etcd revokes a live lease.
    fn revoke_early(&mut self, i: usize) {
        let lease: Option<LeaseId> = self.nodes[i]
            .agent
            .as_ref()
            .and_then(|a| a.view().memory.lease)
            .map(|l| l.id);
        if let Some(lease) = lease {
            self.count("lease revoked early");
            let deleted = self.etcd.expire(self.now, Some(lease));
            self.hint_all(&deleted);
        }
    }

    fn switchover(&mut self, i: usize) {
        let Some(leader) = self.read_cluster().leader_name().cloned() else {
            return;
        };
        if leader == self.nodes[i].name || self.nodes[i].pg.server == Server::Down {
            return;
        }
        self.count("switchover asked for");
        let value = format!(r#"{{"leader":"{leader}","member":"{}"}}"#, self.nodes[i].name).into_bytes();
        let key = keys::full_key(BASE, &Key::Failover);
        self.etcd.commit(&Txn {
            compares: Vec::new(),
            ops: vec![Op::Put {
                key: key.clone(),
                value,
                lease: None,
            }],
        });
        self.hint_all(&[key]);
        for n in 0..self.nodes.len() {
            self.send(n, Event::Wake(Wake::Now));
        }
    }
}
