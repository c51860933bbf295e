//! The world: nodes, the store, the network between them, and one heap of events in time.
//!
//! Nothing here decides anything. A node's effects are performed with latencies and faults drawn from the seed, and each
//! completion becomes an event for that node, unless its agent was killed meanwhile.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::hash::Hasher;
use std::rc::Rc;
use std::time::Duration;

use pgha_core::cluster::ClusterView;
use pgha_core::effect::{Effect, FenceOrder};
use pgha_core::event::{Event, OpId, Wake};
use pgha_core::job::Job;
use pgha_core::node::Node;
use pgha_core::rule::Rule;
use pgha_core::units::{MemberName, Mono, Now};

use crate::calendar::Calendar;
use crate::client::{Client, Wish};
use crate::clients::Clients;
use crate::clock::Clock;
use crate::counters::Counters;
use crate::etcd::{SimEtcd, Time};
use crate::faults::{Hit, Operator};
use crate::network::Links;
use crate::oracles::Oracles;
use crate::plan::Plan;
use crate::postgres::{Archive, PgEvent, Server, SimPostgres};
use crate::rest::{Rest, RestEvent};
use crate::rng::{Rng, Stream};
use crate::store::{Answered, Ticket};
use crate::trace::TraceHash;
use crate::watchdog::Watchdog;

/// A millisecond of simulated time.
pub const MS: Time = 1_000_000;
/// A second of simulated time.
pub const SEC: Time = 1_000 * MS;
/// How long a supervisor waits before it starts a daemon again.
pub const SUPERVISOR: Time = 5 * SEC;
/// How often ends of replication connections look at each other.
const TICK: Time = 500 * MS;
/// Prefix of the simulated scope.
pub const BASE: &str = "/service/sim";
/// Prefix of its keys.
pub(crate) const PREFIX: &str = "/service/sim/";
/// Its leader key.
pub(crate) const LEADER_KEY: &str = "/service/sim/leader";
/// The key of its system identifier.
pub(crate) const INITIALIZE_KEY: &str = "/service/sim/initialize";

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
    /// When it was started.
    pub started_at: Time,
    /// What the fence enforces; `None` when there is no fence process.
    pub fence: Option<FenceOrder>,
    /// The fence has fired and was not told anything newer.
    pub fired: bool,
    /// The running job.
    pub job: Option<SimJob>,
    /// Its clocks.
    pub clock: Clock,
    /// Its daemon's end of etcd.
    pub(crate) client: Client,
    /// Faults that keep the daemon from being started.
    pub held_down: u32,
    /// Faults that have stopped the daemon (SIGSTOP).
    pub stopped: u32,
    /// Faults that have frozen the whole machine: nothing on it runs, the clocks go on.
    pub frozen: u32,
    /// What happens once the daemon or the machine runs again.
    pub(crate) held: Vec<Happening>,
    /// How long the daemon needs for each effect.
    pub starved_by: Time,
    /// The daemon performs effects until then.
    pub(crate) busy_until: Time,
    /// The daemon dies after so many more effects.
    pub dies_after: Option<u64>,
    pub(crate) timer_at: Time,
    /// The watchdog device.
    pub watchdog: Watchdog,
    /// When the machine last ran on after it was frozen.
    pub thawed_at: Option<Time>,
}

impl SimNode {
    /// A machine with an empty data directory.
    fn new(i: usize) -> SimNode {
        SimNode {
            name: MemberName::new(format!("n{}", i + 1)),
            pg: SimPostgres::new(),
            agent: None,
            epoch: 0,
            started_at: 0,
            fence: None,
            fired: false,
            job: None,
            clock: Clock::new(1_000 * SEC * (i as u64 + 1)),
            client: Client::new(0, 0),
            held_down: 0,
            stopped: 0,
            frozen: 0,
            held: Vec::new(),
            starved_by: 0,
            busy_until: 0,
            dies_after: None,
            timer_at: 0,
            watchdog: Watchdog::default(),
            thawed_at: None,
        }
    }

    /// Would PostgreSQL acknowledge a commit now?
    pub fn accepts_writes(&self) -> bool {
        self.frozen == 0 && self.pg.is_writable()
    }

    /// Is there a daemon, and does it run?
    pub fn agent_runs(&self) -> bool {
        self.agent.is_some() && self.stopped == 0 && self.frozen == 0
    }
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
    /// Steps that were begun.
    pub reached: u8,
}

/// Something that will happen.
#[derive(Debug)]
pub(crate) enum Happening {
    /// A starved daemon performs an effect.
    Perform {
        node: usize,
        epoch: u64,
        effect: Box<Effect>,
    },
    /// A supervisor starts a daemon that has ended.
    Supervise { node: usize },
    /// An event reaches a daemon.
    Deliver { node: usize, epoch: u64, event: Box<Event> },
    /// A daemon's timer.
    Timer { node: usize, epoch: u64 },
    /// A request reaches a member of etcd.
    Request {
        ticket: Ticket,
        member: usize,
        token: u64,
        wish: Wish,
    },
    /// The reply reaches the node.
    Response { ticket: Ticket, answered: Box<Answered> },
    /// An attempt has had its time, or the pause between two rounds is over.
    Impatient { ticket: Ticket, paused: bool },
    /// A step of a job.
    JobStep { node: usize, op: OpId, step: u8 },
    /// A server does something by itself, in this life of it.
    Postgres { node: usize, life: u64, what: PgEvent },
    /// A client commits.
    Client(usize),
    /// A fence looks at its deadline.
    Fence { node: usize },
    /// A watchdog's time may be over.
    Watchdog { node: usize },
    /// Ends of replication connections look at each other.
    Tick,
    /// Time passes for etcd: leases end, leaders are elected, watches are looked after.
    Leases,
    /// Something between members, over REST.
    Rest(RestEvent),
    /// A fault of the plan begins.
    FaultBegins(usize),
    /// It ends.
    FaultEnds(usize),
}

/// The simulated world of one seed.
pub struct World {
    /// Now.
    pub now: Time,
    calendar: Calendar<Happening>,
    /// The store.
    pub etcd: SimEtcd,
    /// Faults that keep all of etcd away.
    pub etcd_down: u32,
    /// The machines.
    pub nodes: Vec<SimNode>,
    /// Generation of the store that was parsed last, and what came of it.
    pub(crate) parsed: RefCell<(u32, Rc<ClusterView>)>,
    /// What is run.
    pub plan: Plan,
    /// Which packets arrive.
    pub links: Links,
    /// Which packets of replication arrive, beside that.
    pub replication: Links,
    /// Who writes.
    pub clients: Clients,
    /// Faults that have begun and not ended, by their number in the plan.
    pub active: BTreeMap<usize, Hit>,
    /// The WAL archive.
    pub archive: Archive,
    /// Requests between members.
    pub(crate) rest: Rest,
    pub(crate) network: Rng,
    pub(crate) postgres: Rng,
    pub(crate) archive_draws: Rng,
    pub(crate) next_branch: u64,
    pub(crate) next_connection: u64,
    /// What operators have changed and not changed back.
    pub(crate) operator: Operator,
    /// Coverage and non-vacuity counters.
    pub counters: Counters,
    /// What the oracles remember.
    pub oracles: Oracles,
    /// Broken invariants.
    pub violations: Vec<String>,
    /// Hash over everything that happened.
    pub trace_hash: TraceHash,
    /// Lines of the trace, when asked for.
    pub trace: Option<Vec<String>>,
}

impl World {
    /// The world of a plan, before anything happened.
    pub fn new(plan: Plan, with_trace: bool) -> World {
        let mut nodes: Vec<SimNode> = (0..plan.settings.nodes).map(SimNode::new).collect();
        for node in &mut nodes {
            node.pg.archives = plan.settings.archive;
        }
        let seed = plan.seed;
        let mut world = World {
            now: 0,
            calendar: Calendar::new(),
            etcd: SimEtcd::new(),
            etcd_down: 0,
            oracles: Oracles::new(&nodes),
            nodes,
            parsed: RefCell::default(),
            plan,
            links: Links::default(),
            replication: Links::default(),
            clients: Clients::new(seed),
            active: BTreeMap::new(),
            rest: Rest::new(seed),
            network: Rng::new(seed, Stream::Network),
            postgres: Rng::new(seed, Stream::Postgres),
            archive_draws: Rng::new(seed, Stream::Archive),
            archive: Archive::default(),
            next_branch: 1,
            next_connection: 0,
            operator: Operator::default(),
            counters: Counters::default(),
            violations: Vec::new(),
            trace_hash: TraceHash::default(),
            trace: with_trace.then(Vec::new),
        };
        world.etcd.buggy = world.plan.settings.etcd_bugs;
        world.at(0, Happening::Tick);
        world.at(100 * MS, Happening::Leases);
        for i in 0..world.nodes.len() {
            world.start_agent(i);
        }
        world.start_clients();
        world.schedule_plan();
        world
    }

    /// Puts something on the calendar.
    pub(crate) fn at(&mut self, time: Time, what: Happening) {
        self.calendar.add(time, what);
    }

    /// Lets the next thing happen; `None` when nothing is left before `until`.
    pub fn step(&mut self, until: Time) -> Option<()> {
        let (time, sequence, what) = self.calendar.next(until)?;
        self.now = time;
        self.trace_hash.kind(&what, [time, sequence]);
        self.happen(what);
        Some(())
    }

    fn happen(&mut self, what: Happening) {
        if let Some(node) = self.holds_back(&what) {
            return self.nodes[node].held.push(what);
        }
        match what {
            Happening::Perform { node, epoch, effect } => self.perform_next(node, epoch, *effect),
            Happening::Supervise { node } => self.start_agent_if_down(node),
            Happening::Deliver { node, epoch, event } => self.deliver(node, epoch, *event),
            Happening::Timer { node, epoch } => self.deliver(node, epoch, Event::Wake(Wake::Timer)),
            Happening::Request {
                ticket,
                member,
                token,
                wish,
            } => self.request_arrives(ticket, member, token, &wish),
            Happening::Response { ticket, answered } => self.response_arrives(ticket, *answered),
            Happening::Impatient { ticket, paused } => self.impatient(ticket, paused),
            Happening::JobStep { node, op, step } => self.job_step(node, op, step),
            Happening::Postgres { node, life, what } => self.postgres_event(node, life, what),
            Happening::Client(client) => self.client_acts(client),
            Happening::Fence { node } => self.fence_looks(node),
            Happening::Watchdog { node } => self.watchdog_looks(node),
            Happening::Tick => {
                self.tend_connections();
                self.at(self.now + TICK, Happening::Tick);
            }
            Happening::Leases => self.etcd_passes(),
            Happening::Rest(event) => self.rest_happens(event),
            Happening::FaultBegins(number) => self.fault_begins(number),
            Happening::FaultEnds(number) => self.fault_ends(number),
        }
    }

    /// Counts something that was reached.
    pub fn count(&mut self, name: impl Into<Cow<'static, str>>) {
        self.counters.count(name);
    }

    /// Counts a rule that was decided.
    pub(crate) fn reached(&mut self, rule: Rule) {
        self.counters.rule(rule);
        self.trace_hash.kind(&rule, [self.now, 0]);
    }

    /// Adds a line to the trace and to its hash.
    pub fn note(&mut self, line: impl FnOnce() -> String) {
        let text = line();
        self.trace_hash.write(&self.now.to_le_bytes());
        self.trace_hash.write(text.as_bytes());
        let now = self.now;
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>9.3} {text}", now as f64 / SEC as f64));
        }
    }

    /// Boot clock of a node.
    pub fn boot(&self, node: usize) -> Mono {
        self.nodes[node].clock.boot(self.now)
    }

    pub(crate) fn node_now(&self, node: usize) -> Now {
        let clock = &self.nodes[node].clock;
        Now {
            mono: clock.boot(self.now),
            wall: clock.wall(self.now),
        }
    }

    /// How long a packet is under way.
    pub(crate) fn latency(&mut self) -> Time {
        self.network.range(MS / 2, 4 * MS)
    }

    // ---- the fence ----

    /// Wakes the fence at its deadline.
    pub(crate) fn set_fence_alarm(&mut self, i: usize) {
        if let Some(FenceOrder::Until(at)) = self.nodes[i].fence {
            let when = self.nodes[i].clock.when(at).max(self.now);
            self.at(when, Happening::Fence { node: i });
        }
    }

    pub(crate) fn fence_looks(&mut self, i: usize) {
        let boot = self.boot(i);
        let idle = self.fence_is_idle(i);
        let node = &mut self.nodes[i];
        let over = matches!(node.fence, Some(FenceOrder::Until(at)) if boot >= at);
        if !over || node.fired || idle {
            return;
        }
        node.fired = true;
        if node.pg.server != Server::Down {
            self.check_fenced(i);
            let node = &mut self.nodes[i];
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
