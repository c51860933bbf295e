//! Performs the effects of a node with the latencies and faults of the seed; each completion is an event for later. What
//! goes to etcd goes through `store.rs`.

use std::collections::BTreeMap;
use std::hash::Hasher;
use std::time::Duration;

use pgha_core::cluster::MemberState;
use pgha_core::effect::Effect;
use pgha_core::event::{Event, OpId};
use pgha_core::failsafe;
use pgha_core::peer::{PeerStatus, PeerView};
use pgha_core::pg::SqlRole;
use pgha_core::plan;
use pgha_core::request::Answer;
use pgha_core::units::{MemberName, Mono};
use pgha_core::view::TimelineEnd;
use pgha_wire::kept::render_kept;

use crate::client::Wish;
use crate::counters::effect_name;
use crate::etcd::Time;
use crate::postgres::Server;
use crate::world::{Happening, SUPERVISOR, World, nanos};

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
        let name = effect_name(&effect);
        self.counters.count(name);
        self.trace_hash.write(name.as_bytes());
        match effect {
            Effect::ReadDcs { op, budget } => self.ask_etcd(i, op, Wish::Read, budget),
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
            Effect::AskFailsafe {
                op,
                peers,
                question,
                budget,
            } => self.ask_failsafe(i, op, &peers, &question, budget),
            Effect::GrantLease { op, ttl, budget } => self.ask_etcd(i, op, Wish::Grant(nanos(ttl)), budget),
            Effect::KeepLease { op, lease, budget } => self.ask_etcd(i, op, Wish::Keep(lease), budget),
            Effect::Commit { op, commit, budget } => {
                self.note_commit(i, &commit);
                self.send_commit(i, op, &commit, budget);
            }
            Effect::SetFence(order) => {
                let node = &mut self.nodes[i];
                let before = node.fence.replace(order);
                node.fired = false;
                self.set_fence_alarm(i);
                self.tend_watchdog(i, before, order);
                // A deadline that lies in the past is taken too, and is due at once.
                self.fence_looks(i);
            }
            Effect::StartJob { op, job } if self.is_forbidden_by_watchdog(i, &job) => self.refuse_job(i, op),
            Effect::StartJob { op, job } => {
                self.check_job(i, &job);
                self.close_watchdog_early(i, &job);
                self.start_job(i, op, job);
            }
            Effect::CancelJob { op } => self.cancel_job(i, op),
            Effect::Tend { op, items } => self.tend(i, epoch, op, &items),
            Effect::Remember(known) => {
                if let Some(data) = self.nodes[i].pg.data_mut() {
                    data.kept = render_kept(&known);
                }
            }
            Effect::TendSync { op, task } => self.tend_sync(i, epoch, op, &task),
            Effect::Answer {
                id,
                answer: Answer::Failsafe(verdict),
            } => self.answered_failsafe(i, id, &verdict),
            Effect::Answer { id, .. } => self.note_answered(id),
            Effect::Callback { .. } => {}
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

    fn ask_peers(&mut self, i: usize, epoch: u64, op: OpId, peers: &[(MemberName, String)], budget: Duration) {
        self.note_asked(i);
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
        self.note_peers_asked(i, &answers);
        self.later(i, epoch, after, Event::PeersAnswered { op, answers });
    }

    /// What `GET /patroni` of this member answers; `None` when it does not answer.
    pub(crate) fn peer_status(&self, from: usize, name: &MemberName) -> Option<PeerStatus> {
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
            failsafe_leader: failsafe::word(view).map(|word| word.leader.clone()),
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
        data.history.ends().into_iter().map(end).collect()
    }
}
