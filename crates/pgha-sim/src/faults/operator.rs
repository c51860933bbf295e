//! What operators ask for. No faults, but they come at the worst of times.

use pgha_core::cluster::Initialize;
use pgha_core::commit::Key;
use pgha_core::effect::FenceOrder;
use pgha_core::event::{Event, Wake};
use pgha_core::history_time::render;
use pgha_core::node::Node;
use pgha_core::request::{Request, RequestId, RestartRequest};
use pgha_core::units::Wall;
use pgha_wire::keys;
use pgha_wire::kv::{Op, Txn};

use super::{FaultKind, Hit, Span, nothing};
use crate::etcd::{MEMBERS, Time};
use crate::postgres::Server;
use crate::world::{BASE, MS, SEC, SimNode, World};

/// How long it may take until a primary has heard that maintenance mode is over.
const HEARD_WITHIN: Time = 5 * SEC;

/// What operators have changed and not changed back.
#[derive(Clone, Copy, Debug, Default)]
pub struct Operator {
    /// How many want maintenance mode.
    pauses: u32,
    /// It is on. It may stay on for longer than anybody wants it: see [`World::lift_pause`].
    paused: bool,
    /// `ttl`, `loop_wait` and `retry_timeout` in per cent of what they were.
    percent: Option<u64>,
    /// Number of the last request.
    requests: u64,
}

pub(super) const KINDS: &[FaultKind] = &[
    FaultKind {
        name: "switchover asked for",
        form: "switchover to NODE",
        span: Span::Instant,
        range: (0, 0),
        weight: 2,
        begin: |w, hit| hand_over(w, Some(hit.node), None),
        end: nothing,
    },
    FaultKind {
        name: "switchover to anybody asked for",
        form: "switchover to anybody",
        span: Span::Instant,
        range: (0, 0),
        weight: 1,
        begin: |w, _| hand_over(w, None, None),
        end: nothing,
    },
    FaultKind {
        name: "switchover scheduled",
        form: "schedule switchover to NODE in TIME",
        span: Span::Instant,
        range: (1_000, 60_000),
        weight: 1,
        begin: |w, hit| hand_over(w, Some(hit.node), Some(hit.number)),
        end: nothing,
    },
    FaultKind {
        name: "failover asked for",
        form: "failover to NODE",
        span: Span::Instant,
        range: (0, 0),
        weight: 1,
        begin: |w, hit| {
            let name = w.nodes[hit.node].name.clone();
            w.note_named(hit.node);
            w.put_key(&Key::Failover, format!(r#"{{"member":"{name}"}}"#));
        },
        end: nothing,
    },
    FaultKind {
        name: "maintenance mode",
        form: "pause cluster",
        span: Span::Passing,
        range: (0, 0),
        weight: 2,
        begin: |w, _| {
            w.operator.pauses += 1;
            w.operator.paused = true;
            w.put_configuration();
        },
        end: |w, _| {
            w.operator.pauses = w.operator.pauses.saturating_sub(1);
            w.lift_pause();
        },
    },
    FaultKind {
        name: "ttl changed",
        form: "set ttl to NUMBER percent",
        span: Span::Passing,
        range: (30, 300),
        weight: 1,
        begin: |w, hit| {
            w.operator.percent = u64::try_from(hit.number).ok();
            w.put_configuration();
        },
        end: |w, _| {
            w.operator.percent = None;
            w.put_configuration();
        },
    },
    FaultKind {
        name: "restart asked for",
        form: "restart postgres NODE",
        span: Span::Instant,
        range: (0, 0),
        weight: 1,
        begin: |w, hit| w.request(hit.node, Request::Restart(RestartRequest::default())),
        end: nothing,
    },
    FaultKind {
        name: "restart scheduled",
        form: "schedule restart of NODE in TIME",
        span: Span::Instant,
        range: (1_000, 60_000),
        weight: 1,
        begin: |w, hit| {
            let at = w.wall_in(hit.node, hit.number);
            let text = format!(r#"{{"schedule":"{}"}}"#, render(at));
            let request = RestartRequest::default();
            w.request(hit.node, Request::ScheduleRestart { at, request, text });
        },
        end: nothing,
    },
    FaultKind {
        name: "reinitialisation asked for",
        form: "reinitialize NODE",
        span: Span::Instant,
        range: (0, 0),
        weight: 1,
        begin: |w, hit| reinitialize(w, hit, false),
        end: nothing,
    },
    FaultKind {
        name: "reinitialisation forced",
        form: "reinitialize NODE by force",
        span: Span::Instant,
        range: (0, 0),
        weight: 1,
        begin: |w, hit| reinitialize(w, hit, true),
        end: nothing,
    },
];

/// A switchover as the REST API writes it: only away from a leader, and only to a server that runs.
fn hand_over(w: &mut World, candidate: Option<usize>, in_ms: Option<i64>) {
    let Some(leader) = w.leader().filter(|l| Some(*l) != candidate) else {
        return;
    };
    if candidate.is_some_and(|c| w.nodes[c].pg.server == Server::Down) {
        return;
    }
    let mut value = format!(r#"{{"leader":"{}""#, w.nodes[leader].name);
    if let Some(candidate) = candidate {
        w.note_named(candidate);
        value += &format!(r#","member":"{}""#, w.nodes[candidate].name);
    }
    if let Some(ms) = in_ms {
        value += &format!(r#","scheduled_at":"{}""#, render(w.wall_in(leader, ms)));
    }
    w.put_key(&Key::Failover, value + "}");
}

/// Does a running daemon go by maintenance mode, whatever etcd says?
fn believes_in_pause(node: &SimNode) -> bool {
    let goes_by_it = |agent: &Node| agent.view().settings().pause;
    node.agent_runs() && node.agent.as_ref().is_some_and(goes_by_it)
}

fn reinitialize(w: &mut World, hit: &Hit, force: bool) {
    let from_leader = false;
    w.request(hit.node, Request::Reinitialize { force, from_leader });
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
        if let Some(i) = self.nodes.iter().position(|n| n.name == name) {
            self.note_named(i);
        }
        self.expect_no_quiet();
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

    /// `/config` as operators want it now.
    pub(super) fn put_configuration(&mut self) {
        let mut settings = self.plan.settings.clone();
        if let Some(percent) = self.operator.percent {
            let scaled = |seconds: u64, least: u64| (seconds * percent / 100).max(least);
            settings.ttl = scaled(settings.ttl, 3);
            settings.loop_wait = scaled(settings.loop_wait, 1);
            settings.retry_timeout = scaled(settings.retry_timeout, 1);
        }
        let text = settings.dynamic_json();
        let text = if self.operator.paused {
            text.replacen('{', r#"{"pause":true,"#, 1)
        } else {
            text
        };
        self.put_key(&Key::Config, text);
    }

    /// Lifts maintenance mode when nobody wants it any more and every primary is attended: its daemon runs and is answered by
    /// etcd. In maintenance mode a primary has no deadline by the operator's will; who lifts it behind the back of one that
    /// cannot hear of it has two primaries, here as with Patroni. What is left is lifted when the faults are over.
    pub(crate) fn lift_pause(&mut self) {
        let unattended = (0..self.nodes.len()).any(|i| self.is_unattended(i));
        // The same when something happens to it in the seconds until it has heard.
        let soon = self.now..self.now + HEARD_WITHIN;
        let in_peace = !self.plan.faults.iter().any(|fault| soon.contains(&fault.at));
        if in_peace && self.operator.pauses == 0 && self.operator.paused && !unattended {
            self.operator.paused = false;
            self.put_configuration();
            // Until a primary has heard it has no deadline, so an operator asks again until it has; one read may be stale.
            for i in 0..self.nodes.len() {
                let epoch = self.nodes[i].epoch;
                if self.nodes[i].pg.is_writable() {
                    (0..4).for_each(|n| self.later(i, epoch, n * 500 * MS, Event::Wake(Wake::Now)));
                }
            }
        }
    }

    /// Looks whether maintenance mode is on after all: an etcd that was restored may say so again, and one that was full has
    /// refused to be told otherwise. One that was emptied says nothing, and then the daemons go by what they read last and the
    /// next leader writes that back: who wants the mode lifted has to write `/config` anew.
    fn look_at_configuration(&mut self) {
        self.operator.paused = match &self.read_cluster().config {
            Some(config) => config.text.contains(r#""pause":true"#),
            None => self.nodes.iter().any(believes_in_pause),
        };
    }

    /// Is maintenance mode still on? Also where etcd says that it is off, but did so before a primary could hear of it: a
    /// restored etcd does not ask who is attended.
    pub(crate) fn is_paused(&self) -> bool {
        let goes_on = |i: usize| self.nodes[i].fence == Some(FenceOrder::Paused) && self.is_unattended(i);
        self.operator.paused || (0..self.nodes.len()).any(goes_on)
    }

    /// Is this a primary whose daemon does not run or is not answered by etcd?
    fn is_unattended(&self, i: usize) -> bool {
        let answered = (0..MEMBERS).all(|m| self.reaches_member(i, m) && self.hears_member(i, m));
        self.nodes[i].pg.is_writable() && !(self.nodes[i].agent_runs() && answered)
    }

    /// Asks a daemon over its REST API.
    fn request(&mut self, i: usize, request: Request) {
        if self.nodes[i].agent_runs() {
            self.operator.requests += 1;
            let id = RequestId(self.operator.requests);
            self.note_asked_for(i, id);
            self.send(i, Event::Requested { id, request });
        }
    }

    /// The work of operators ends: what was scheduled and has not happened is called off, and so is maintenance mode.
    pub(crate) fn operators_leave(&mut self) {
        self.look_at_configuration();
        self.lift_pause();
        for i in 0..self.nodes.len() {
            self.request(i, Request::CancelScheduledRestart);
        }
        let cluster = self.read_cluster();
        if cluster.failover.as_ref().is_some_and(|w| w.scheduled_at.is_some()) {
            self.put_key(&Key::Failover, "{}".into());
        }
    }

    /// What a node's wall clock will show in so many milliseconds.
    fn wall_in(&self, i: usize, ms: i64) -> Wall {
        Wall(self.node_now(i).wall.0.saturating_add(ms.saturating_mul(1000)))
    }
}
