//! The world: nodes, the store, the network between them, and one heap of events in time.
//!
//! Nothing here decides anything. A node's effects are performed with latencies and faults drawn from the seed, and each
//! completion becomes an event for that node, unless its agent was killed meanwhile.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::Duration;

use pgha_core::cluster::ClusterView;
use pgha_core::effect::FenceOrder;
use pgha_core::event::{Event, OpId, Wake};
use pgha_core::job::Job;
use pgha_core::node::Node;
use pgha_core::units::{MemberName, Mono, Now, Wall};
use pgha_wire::cluster::parse_cluster;
use pgha_wire::keys;
use pgha_wire::kv::Txn;

use crate::etcd::{SimEtcd, Time};
use crate::postgres::{Server, SimPostgres};
use crate::rng::{Rng, Stream};
use crate::settings::SimSettings;

/// A millisecond of simulated time.
pub const MS: Time = 1_000_000;
/// A second of simulated time.
pub const SEC: Time = 1_000 * MS;
/// Prefix of the simulated scope.
pub const BASE: &str = "/service/sim";

/// One machine.
pub struct SimNode {
    /// Member name.
    pub name: MemberName,
    /// PostgreSQL.
    pub pg: SimPostgres,
    /// The daemon, when it runs.
    pub agent: Option<Node>,
    /// Which daemon this is: completions for an earlier one are dropped.
    pub epoch: u64,
    /// The daemon is stopped (SIGSTOP): what arrives waits here.
    pub stopped: Option<VecDeque<Event>>,
    /// What the fence enforces; `None` when there is no fence process.
    pub fence: Option<FenceOrder>,
    /// The fence has fired and was not told anything newer.
    pub fired: bool,
    /// The running job.
    pub job: Option<SimJob>,
    /// No packets between this node and etcd.
    pub cut_from_etcd: bool,
    /// Requests reach etcd, answers do not come back.
    pub deaf_to_etcd: bool,
    /// No packets between this node and the others.
    pub cut_from_peers: bool,
    /// Boot clock of this machine at time zero.
    pub boot_offset: u64,
    timer_at: Time,
}

/// A job that runs on a node.
#[derive(Clone, Debug)]
pub struct SimJob {
    /// Its operation.
    pub op: OpId,
    /// What.
    pub job: Job,
    /// The daemon asked to stop it.
    pub cancelled: bool,
}

/// Something that will happen.
#[derive(Debug)]
pub(crate) enum Happening {
    /// An event reaches a daemon.
    Deliver { node: usize, epoch: u64, event: Box<Event> },
    /// A daemon's timer.
    Timer { node: usize, epoch: u64 },
    /// A transaction reaches etcd; the answer, if any, arrives after `reply`.
    Apply {
        node: usize,
        epoch: u64,
        op: OpId,
        txn: Txn,
        sent_at: Mono,
        reply: Option<Time>,
    },
    /// A step of a job.
    JobStep { node: usize, op: OpId, step: u8 },
    /// A fence looks at its deadline.
    Fence { node: usize },
    /// Standbys receive WAL, clients write.
    Tick,
    /// Leases end.
    Leases,
    /// The plan of faults goes on.
    Fault(usize),
}

/// The simulated world of one seed.
pub struct World {
    /// Now.
    pub now: Time,
    heap: BinaryHeap<Reverse<(Time, u64)>>,
    happenings: BTreeMap<u64, Happening>,
    sequence: u64,
    /// The store.
    pub etcd: SimEtcd,
    /// All of etcd is away.
    pub etcd_down: bool,
    /// The machines.
    pub nodes: Vec<SimNode>,
    /// What was drawn for this seed.
    pub settings: SimSettings,
    pub(crate) network: Rng,
    pub(crate) postgres: Rng,
    pub(crate) faults: Rng,
    pub(crate) recoveries: Vec<(Time, usize)>,
    pub(crate) next_branch: u64,
    /// Coverage and non-vacuity counters by name.
    pub counters: BTreeMap<String, u64>,
    /// Broken invariants.
    pub violations: Vec<String>,
    /// Hash over everything that happened.
    pub trace_hash: u64,
    /// Lines of the trace, when asked for.
    pub trace: Option<Vec<String>>,
}

impl World {
    /// The world of a seed, before anything happened.
    pub fn new(seed: u64, with_trace: bool) -> World {
        let settings = SimSettings::draw(seed);
        let nodes = (0..settings.nodes).map(|i| SimNode {
            name: MemberName::new(format!("n{}", i + 1)),
            pg: SimPostgres::new(),
            agent: None,
            epoch: 0,
            stopped: None,
            fence: None,
            fired: false,
            job: None,
            cut_from_etcd: false,
            deaf_to_etcd: false,
            cut_from_peers: false,
            boot_offset: 1_000 * SEC * (i as u64 + 1),
            timer_at: 0,
        });
        let mut world = World {
            now: 0,
            heap: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            sequence: 0,
            etcd: SimEtcd::new(),
            etcd_down: false,
            nodes: nodes.collect(),
            settings,
            network: Rng::new(seed, Stream::Network),
            postgres: Rng::new(seed, Stream::Postgres),
            faults: Rng::new(seed, Stream::Faults),
            recoveries: Vec::new(),
            next_branch: 1,
            counters: BTreeMap::new(),
            violations: Vec::new(),
            trace_hash: 0xcbf2_9ce4_8422_2325,
            trace: with_trace.then(Vec::new),
        };
        world.at(0, Happening::Tick);
        world.at(100 * MS, Happening::Leases);
        for i in 0..world.nodes.len() {
            world.start_agent(i);
        }
        world
    }

    /// Puts something on the calendar.
    pub(crate) fn at(&mut self, time: Time, what: Happening) {
        self.sequence += 1;
        self.heap.push(Reverse((time, self.sequence)));
        self.happenings.insert(self.sequence, what);
    }

    /// Lets the next thing happen; `None` when nothing is left before `until`.
    pub fn step(&mut self, until: Time) -> Option<()> {
        let Reverse((time, _)) = self.heap.peek()?;
        if *time > until {
            return None;
        }
        let Reverse((time, sequence)) = self.heap.pop()?;
        self.now = time;
        let what = self.happenings.remove(&sequence)?;
        self.happen(what);
        Some(())
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Deliver { node, epoch, event } => self.deliver(node, epoch, *event),
            Happening::Timer { node, epoch } => self.deliver(node, epoch, Event::Wake(Wake::Timer)),
            Happening::Apply {
                node,
                epoch,
                op,
                txn,
                sent_at,
                reply,
            } => self.apply(node, epoch, op, &txn, sent_at, reply),
            Happening::JobStep { node, op, step } => self.job_step(node, op, step),
            Happening::Fence { node } => self.fence_looks(node),
            Happening::Tick => {
                self.replicate();
                self.at(self.now + 100 * MS, Happening::Tick);
            }
            Happening::Leases => {
                if !self.etcd_down {
                    let deleted = self.etcd.expire(self.now, None);
                    self.hint_all(&deleted);
                }
                self.at(self.now + 250 * MS, Happening::Leases);
            }
            Happening::Fault(usize::MAX) => self.recover_due(),
            Happening::Fault(i) => self.fault(i),
        }
    }

    /// Counts something that was reached.
    pub fn count(&mut self, name: impl Into<String>) {
        *self.counters.entry(name.into()).or_insert(0) += 1;
    }

    /// Adds a line to the trace and to its hash.
    pub fn note(&mut self, line: impl FnOnce() -> String) {
        let text = line();
        for byte in self.now.to_le_bytes().iter().chain(text.as_bytes()) {
            self.trace_hash = (self.trace_hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        let now = self.now;
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>9.3} {text}", now as f64 / SEC as f64));
        }
    }

    /// Boot clock of a node.
    pub fn boot(&self, node: usize) -> Mono {
        Mono(self.now + self.nodes.get(node).map_or(0, |n| n.boot_offset))
    }

    fn node_now(&self, node: usize) -> Now {
        Now {
            mono: self.boot(node),
            wall: Wall(i64::try_from(self.now / 1000).unwrap_or(0)),
        }
    }

    // ---- daemons ----

    /// Starts the daemon of a node, attaching to a fence that is there.
    pub fn start_agent(&mut self, i: usize) {
        let now = self.node_now(i);
        let spec = self.settings.node_spec(&self.nodes[i].name);
        let node = &mut self.nodes[i];
        node.epoch += 1;
        node.stopped = None;
        node.agent = Some(Node::new(now, spec));
        let epoch = node.epoch;
        match node.fence {
            Some(order) => self.deliver(i, epoch, Event::FenceAttached(order)),
            None => self.nodes[i].fence = Some(FenceOrder::StandbyOnly),
        }
        self.deliver(i, epoch, Event::Wake(Wake::Now));
    }

    /// kill -9 of the daemon alone.
    pub fn kill_agent(&mut self, i: usize) {
        let node = &mut self.nodes[i];
        node.agent = None;
        node.epoch += 1;
        node.stopped = None;
        self.orphan_job(i);
    }

    fn deliver(&mut self, i: usize, epoch: u64, event: Event) {
        let now = self.node_now(i);
        let node = &mut self.nodes[i];
        if node.epoch != epoch {
            return;
        }
        if let Some(waiting) = &mut node.stopped {
            waiting.push_back(event);
            return;
        }
        let Some(agent) = &mut node.agent else { return };
        let before = agent.last_decision().map(|(d, _)| d.rule);
        let effects = agent.handle(now, event);
        let violations = agent.take_violations();
        let next_wake = agent.next_wake();
        let after = agent.last_decision().map(|(d, _)| (d.rule, d.because.clone()));
        let (offset, due) = (node.boot_offset, node.timer_at);
        let wake = next_wake.0.saturating_sub(offset).max(self.now + MS);
        if due <= self.now || wake < due {
            node.timer_at = wake;
            self.at(wake, Happening::Timer { node: i, epoch });
        }
        if let Some((rule, because)) = after {
            self.count(format!("rule {} {}", rule.number(), rule.name()));
            if before != Some(rule) {
                let name = self.nodes[i].name.clone();
                self.note(|| format!("{name} {} {}: {because}", rule.number(), rule.name()));
            }
        }
        for v in violations {
            let name = self.nodes[i].name.clone();
            self.violations
                .push(format!("{} refused on {name}: {}", v.invariant, v.what));
        }
        for effect in effects {
            self.perform(i, epoch, effect);
        }
    }

    // ---- etcd's reach ----

    pub(crate) fn latency(&mut self) -> Time {
        self.network.range(MS / 2, 4 * MS)
    }
    pub(crate) fn reaches_etcd(&self, i: usize) -> bool {
        !self.etcd_down && !self.nodes[i].cut_from_etcd
    }
    pub(crate) fn hears_etcd(&self, i: usize) -> bool {
        !self.nodes[i].deaf_to_etcd
    }
    pub(crate) fn answered_by_etcd(&self, i: usize) -> bool {
        self.reaches_etcd(i) && self.hears_etcd(i)
    }

    /// The cluster as etcd has it.
    pub fn read_cluster(&self) -> ClusterView {
        parse_cluster(BASE, &self.etcd.read(&keys::prefix(BASE)))
    }

    /// Watch events for every daemon that hears etcd. Some get lost: they are hints.
    pub(crate) fn hint_all(&mut self, changed: &[String]) {
        let revision = pgha_core::units::Revision(self.etcd.revision());
        for key in changed.iter().filter_map(|full| keys::parse_key(BASE, full)) {
            for i in 0..self.nodes.len() {
                if !self.answered_by_etcd(i) || self.network.chance(20) {
                    continue;
                }
                let event = Event::Wake(Wake::Hint {
                    key: key.clone(),
                    mod_revision: revision,
                });
                let (epoch, after) = (self.nodes[i].epoch, self.latency());
                self.later(i, epoch, after, event);
            }
        }
    }

    // ---- the fence ----

    fn fence_looks(&mut self, i: usize) {
        let boot = self.boot(i);
        let node = &mut self.nodes[i];
        let over = matches!(node.fence, Some(FenceOrder::Until(at)) if boot >= at);
        if !over || node.fired {
            return;
        }
        node.fired = true;
        if node.pg.server != Server::Down {
            node.pg.crash();
            self.count("fence fired on a running server");
            self.fail_job_of_dead_server(i);
            let epoch = self.nodes[i].epoch;
            self.later(i, epoch, MS, Event::FenceFired);
        }
    }

    /// kill -9 of the postmaster and its backends, by whomever.
    pub fn crash_postgres(&mut self, i: usize) {
        self.nodes[i].pg.crash();
        self.fail_job_of_dead_server(i);
        let epoch = self.nodes[i].epoch;
        self.later(i, epoch, 5 * MS, Event::Wake(Wake::PostmasterExited));
    }
}

/// A duration in simulated time.
pub(crate) fn nanos(d: Duration) -> Time {
    Time::try_from(d.as_nanos()).unwrap_or(Time::MAX)
}
