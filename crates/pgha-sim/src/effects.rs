//! Performs the effects of a node with the latencies and faults of the seed; each completion is an event for later.

use std::collections::BTreeMap;
use std::time::Duration;

use pgha_core::cluster::MemberState;
use pgha_core::commit::CommitOutcome;
use pgha_core::effect::{Effect, Tend};
use pgha_core::event::{Event, KeepAnswer, OpId};
use pgha_core::peer::{PeerStatus, PeerView};
use pgha_core::pg::SqlRole;
use pgha_core::plan;
use pgha_core::units::{LeaseId, MemberName, Mono};
use pgha_core::view::TimelineEnd;
use pgha_wire::commit::{MemberIdentity, render_txn};
use pgha_wire::kv::Txn;

use crate::etcd::Time;
use crate::postgres::Server;
use crate::world::{BASE, Happening, MS, SEC, SUPERVISOR, World, nanos};

impl World {
    pub(crate) fn later(&mut self, i: usize, epoch: u64, after: Time, event: Event) {
        self.at(
            self.now + after,
            Happening::Deliver {
                node: i,
                epoch,
                event: Box::new(event),
            },
        );
    }

    pub(crate) fn perform(&mut self, i: usize, epoch: u64, effect: Effect) {
        let sent_at = self.boot(i);
        match effect {
            Effect::ReadDcs { op, budget } => {
                let view = self.answered_by_etcd(i).then(|| Box::new(self.read_cluster()));
                let after = if view.is_some() { self.latency() } else { nanos(budget) };
                self.later(i, epoch, after, Event::DcsRead { op, sent_at, view });
            }
            Effect::Observe { op, .. } => {
                let view = Box::new(self.nodes[i].pg.observe(sent_at));
                let timeline_history = self.timeline_history(i);
                let after = self.latency();
                self.later(
                    i,
                    epoch,
                    after,
                    Event::Observed {
                        op,
                        view,
                        timeline_history,
                    },
                );
            }
            Effect::AskPeers { op, peers, budget } => self.ask_peers(i, epoch, op, &peers, budget),
            Effect::GrantLease { op, ttl, budget } => {
                let reached = self.reaches_etcd(i);
                let lease = reached
                    .then(|| self.etcd.grant(self.now, nanos(ttl)))
                    .filter(|_| self.hears_etcd(i));
                let after = if lease.is_some() { self.latency() } else { nanos(budget) };
                self.later(i, epoch, after, Event::LeaseGranted { op, sent_at, lease });
            }
            Effect::KeepLease { op, lease, budget } => self.keep_lease(i, epoch, op, lease, budget, sent_at),
            Effect::Commit { op, commit, budget } => self.send_commit(i, epoch, op, &commit, budget, sent_at),
            Effect::SetFence(order) => {
                let node = &mut self.nodes[i];
                node.fence = Some(order);
                node.fired = false;
                self.set_fence_alarm(i);
            }
            Effect::StartJob { op, job } => self.start_job(i, op, job),
            Effect::CancelJob { op } => {
                if let Some(job) = self.nodes[i].job.as_mut().filter(|j| j.op == op) {
                    job.cancelled = true;
                }
            }
            Effect::Tend { op, items } => {
                if items.contains(&Tend::Checkpoint)
                    && let Some(data) = self.nodes[i].pg.data_mut()
                {
                    data.checkpoint_timeline = data.timeline();
                }
                self.later(i, epoch, 20 * MS, Event::Tended { op });
            }
            Effect::Callback { .. } | Effect::Answer { .. } => {}
            Effect::Exit {
                code, leave_running, ..
            } => {
                self.count(format!("exit {code}"));
                self.end_agent(i);
                if !leave_running {
                    self.nodes[i].fence = None;
                }
                self.at(self.now + SUPERVISOR, Happening::Supervise { node: i });
            }
        }
    }

    fn send_commit(
        &mut self,
        i: usize,
        epoch: u64,
        op: OpId,
        commit: &pgha_core::commit::Commit,
        budget: Duration,
        sent_at: Mono,
    ) {
        let name = self.nodes[i].name.clone();
        let spec = self.plan.settings.node_spec(&name);
        let me = MemberIdentity {
            name: &name,
            conn_url: &spec.conn_url,
            api_url: &spec.api_url,
            proxy_url: None,
            version: "4.1.5",
            tags: &spec.tags,
        };
        let txn = render_txn(BASE, &me, commit);
        let unknown = Event::Committed {
            op,
            sent_at,
            outcome: CommitOutcome::Unknown,
        };
        if !self.reaches_etcd(i) {
            return self.later(i, epoch, nanos(budget), unknown);
        }
        let there = self.latency();
        let fate = self.network.range(0, 999);
        let hears = self.hears_etcd(i);
        if hears && fate >= self.plan.settings.lost_reply_per_mille + self.plan.settings.delayed_per_mille {
            let reply = Some(self.latency());
            return self.at(
                self.now + there,
                Happening::Apply {
                    node: i,
                    epoch,
                    op,
                    txn,
                    sent_at,
                    reply,
                },
            );
        }
        // The answer is lost, or the request itself is applied only after the node has given up.
        let delayed = fate < self.plan.settings.delayed_per_mille;
        self.count(if delayed {
            "write applied after its time-out"
        } else {
            "write applied, answer lost"
        });
        let when = if delayed {
            nanos(budget) + self.network.range(0, 3 * SEC)
        } else {
            there
        };
        self.at(
            self.now + when,
            Happening::Apply {
                node: i,
                epoch,
                op,
                txn,
                sent_at,
                reply: None,
            },
        );
        self.later(i, epoch, nanos(budget), unknown);
    }

    pub(crate) fn apply(&mut self, i: usize, epoch: u64, op: OpId, txn: &Txn, sent_at: Mono, reply: Option<Time>) {
        if self.etcd_is_down() {
            if reply.is_some() {
                self.later(
                    i,
                    epoch,
                    2 * SEC,
                    Event::Committed {
                        op,
                        sent_at,
                        outcome: CommitOutcome::Unknown,
                    },
                );
            }
            return;
        }
        let outcome = self.etcd.commit(txn);
        if let CommitOutcome::Applied { revision } = outcome {
            let keys: Vec<String> = self.etcd.log.get(&revision.0).cloned().unwrap_or_default();
            self.hint_all(&keys);
        }
        if let Some(after) = reply {
            self.later(i, epoch, after, Event::Committed { op, sent_at, outcome });
        }
    }

    fn keep_lease(&mut self, i: usize, epoch: u64, op: OpId, lease: LeaseId, budget: Duration, sent_at: Mono) {
        let reached = self.reaches_etcd(i);
        let alive = reached && self.etcd.keep(self.now, lease);
        let heard = reached && self.hears_etcd(i) && !self.network.chance(self.plan.settings.lost_reply_per_mille);
        let answer = match (heard, alive) {
            (false, _) => KeepAnswer::Unknown,
            (true, true) => KeepAnswer::Alive,
            // etcd issue 20590: success for a lease that was revoked.
            (true, false) if self.network.chance(self.plan.settings.false_keepalive_per_mille) => {
                self.count("keepalive success on a revoked lease");
                KeepAnswer::Alive
            }
            (true, false) => KeepAnswer::Gone,
        };
        let after = if heard { self.latency() } else { nanos(budget) };
        self.later(i, epoch, after, Event::LeaseKept { op, sent_at, answer });
    }

    fn ask_peers(&mut self, i: usize, epoch: u64, op: OpId, peers: &[(MemberName, String)], budget: Duration) {
        let mut answers = BTreeMap::new();
        let mut after = self.latency();
        let at = self.boot(i);
        for (name, _) in peers {
            let status = self.peer_status(i, name);
            if status.is_none() {
                after = nanos(budget);
            }
            let view = status.map_or(PeerView::Unreachable { at }, |status| PeerView::Answered { at, status });
            answers.insert(name.clone(), view);
        }
        self.later(i, epoch, after, Event::PeersAnswered { op, answers });
    }

    fn peer_status(&self, from: usize, name: &MemberName) -> Option<PeerStatus> {
        let at = self.nodes.iter().position(|n| n.name == *name)?;
        let peer = &self.nodes[at];
        if !peer.agent_runs() || !self.talk(from, at) {
            return None;
        }
        let agent = peer.agent.as_ref()?;
        let view = agent.view();
        let pg = peer.pg.observe(Mono(0));
        let facts = pg.facts();
        Some(PeerStatus {
            name: Some(peer.name.clone()),
            scope: Some("sim".into()),
            system_id: pg.control().map(|c| c.system_id),
            state: if peer.pg.server == Server::Down {
                MemberState::Stopped
            } else {
                plan::member_state(view)
            },
            role: plan::member_role(view),
            timeline: facts.and_then(|f| f.timeline()),
            in_recovery: facts.map(|f| matches!(f.role, SqlRole::Standby(_))),
            lsn: facts.and_then(|f| f.lsn()),
            may_write: view.may_write(),
            watchdog_failed: false,
            tags: view.me.tags.clone(),
        })
    }

    fn timeline_history(&self, i: usize) -> Vec<TimelineEnd> {
        let node = &self.nodes[i];
        let Some(data) = node.pg.data().filter(|_| node.pg.is_writable()) else {
            return Vec::new();
        };
        let end = |(timeline, switchpoint)| TimelineEnd {
            timeline,
            switchpoint,
            reason: "no recovery target specified".into(),
        };
        data.history().into_iter().map(end).collect()
    }
}
