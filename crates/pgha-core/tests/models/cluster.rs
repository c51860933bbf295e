//! A small cluster in discrete time: the production step machine of each node, the store, PostgreSQL and the fence.
//!
//! A node's turn runs to its end at one instant, unless the adversary breaks it: it may stop a node in front of any of
//! its effects or of any answer for as long as it likes, lose requests and answers, apply a write after its sender has
//! given up, deliver an answer twice, answer a dead lease's keepalive with success, let a job take its time, freeze a
//! node, restart its agent, end a lease early and let clocks drift. Each of that costs one of a bounded number of faults,
//! so what is explored is every behaviour with that many faults within the horizon.
//!
//! Absent on purpose: a fence that is late. That the fence is a process of its own with a timer on the boot clock is
//! what `pgha-fence` promises and its tests show.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use pgha_core::effect::{Effect, FenceOrder};
use pgha_core::event::{Event, OpId, Wake};
use pgha_core::job::Job;
use pgha_core::node::Node;
use pgha_core::settings::Settings;
use pgha_core::units::{LeaseId, MemberName, Mono, Now, Wall};

use super::fingerprint;
use super::postgres::Postgres;
use super::store::Store;
use super::support::world::node_spec;

/// Boot time at tick zero, in ticks of one second.
const BOOT: u64 = 1_000;
/// More answers than any turn needs; reaching it means that a node goes round and round.
const MAX_STEPS: usize = 200;

/// What is explored.
#[derive(Clone, Debug)]
pub struct Bounds {
    pub nodes: usize,
    /// In ticks of one second, as all times here.
    pub ttl: u64,
    /// Ticks after the cluster is up.
    pub horizon: u64,
    /// Breaks of any kind in [`Bounds::kinds`], freezes, restarts, stalls and early revocations together.
    pub faults: u8,
    pub kinds: &'static [Kind],
    /// Ticks by which clocks may drift apart in all.
    pub drift: u8,
    pub freezes: bool,
    pub restarts: bool,
    pub revocations: bool,
    /// Records that clients may write.
    pub writes: u8,
    /// Replication may stop.
    pub stalls: bool,
    pub operator: Option<Operator>,
    /// The defect that the checker must find.
    pub planted: Option<Plant>,
}

/// What an operator has asked for when the search begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operator {
    Switchover,
    Terminate,
}

/// Defects on purpose: each is put where production has its defence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Plant {
    /// The fence keeps PostgreSQL for the whole ttl instead of ttl less margin.
    NoMargin,
    /// The fence is never told anything.
    NoFence,
    /// Nobody waits for the deadline of a leader whose key vanished (R10).
    NoOldDeadline,
    /// A write without an answer counts as written.
    UnknownIsApplied,
    /// The transaction that takes the key has no guards.
    UnguardedAcquire,
    /// A candidate is believed to hold the shutdown checkpoint as soon as it answers.
    ReleaseBeforeCheckpoint,
    /// The key is released by its create revision and lease alone, however often it was proven since.
    LateRelease,
}

/// How an effect is broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The node stops before it.
    Pause,
    /// The node stops before its answer.
    PauseReply,
    /// It never arrives.
    Drop,
    /// It is done and the answer is lost.
    LoseReply,
    /// The answer is lost, and it is done later.
    Late,
    /// Its answer comes twice.
    Twice,
    /// A lease that is gone is said to be alive (etcd issue 20590).
    LieAlive,
    /// The job takes its time; the node goes on meanwhile.
    Stall,
}

/// One step of the world.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// A node thinks; its `nth` effect that can be broken is.
    Turn {
        node: usize,
        fault: Option<(u8, Kind)>,
    },
    /// One tick passes; for one node none, or two.
    Tick(Drift),
    Freeze(usize),
    Restart(usize),
    /// etcd ends the leader's lease early (etcd issue 15247).
    Revoke,
    /// The first transaction that is still on its way arrives.
    ApplyLate,
    /// A stalled job goes on.
    FinishJob(usize),
    /// A client's commit on the writable node.
    Write,
    /// Replication stops, or goes on.
    Stall(bool),
}

/// What the clocks do in a tick.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Drift {
    None,
    Slow(usize),
    Fast(usize),
}

/// One machine.
#[derive(Clone, Debug)]
pub struct Machine {
    pub name: MemberName,
    pub node: Arc<Node>,
    /// Effects not performed yet.
    pub todo: VecDeque<Effect>,
    /// Events that wait for a stopped node.
    pub inbox: VecDeque<Event>,
    /// It stands in the middle of a turn.
    pub suspended: bool,
    pub frozen: bool,
    /// It had its turn in this tick.
    pub acted: bool,
    pub gone: bool,
    /// Its clock against that of etcd, in ticks.
    pub skew: i64,
    pub pg: Postgres,
    pub fence: Option<FenceOrder>,
    /// A job that takes its time.
    pub stalled: Option<(OpId, Job)>,
}

/// The world at an instant.
#[derive(Clone)]
pub struct State {
    pub bounds: Arc<Bounds>,
    pub time: u64,
    pub store: Store,
    pub machines: Vec<Machine>,
    pub faults: u8,
    pub drift: u8,
    pub writes: u8,
    pub replication: bool,
    pub promotions: u8,
    /// Things that were reached, for the checks that the search is not vacuous.
    pub reached: Reached,
    /// Invariants that a step broke.
    pub broken: Vec<(&'static str, String)>,
    key: u64,
}

/// What a path has come by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Reached {
    pub fenced: bool,
    pub late_applied: bool,
    pub handed_over: bool,
    pub aborted: bool,
    /// Promoted after a hand-over.
    pub switched: bool,
}

impl Hash for State {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key.hash(state);
    }
}

impl PartialEq for State {
    fn eq(&self, other: &State) -> bool {
        self.key == other.key
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "tick {}, broken {:?}", self.time, self.broken)
    }
}

impl Bounds {
    fn settings(&self) -> Settings {
        Settings {
            ttl: Duration::from_secs(self.ttl),
            loop_wait: Duration::from_secs(1),
            retry_timeout: Duration::from_secs(2),
            use_pg_rewind: true,
            ..Settings::default()
        }
    }
}

impl State {
    /// The first node leads and the others follow it.
    pub fn new(bounds: &Arc<Bounds>) -> State {
        let settings = bounds.settings();
        let machine = |i: usize| {
            let name = ["a", "b", "c"][i];
            let mut me = node_spec(name);
            me.cached_settings = Some(settings.clone());
            Machine {
                name: name.into(),
                node: Arc::new(Node::new(at(BOOT), me)),
                todo: VecDeque::new(),
                inbox: VecDeque::new(),
                suspended: false,
                frozen: false,
                acted: false,
                gone: false,
                skew: 0,
                pg: Postgres::standby(),
                fence: None,
                stalled: None,
            }
        };
        let mut state = State {
            time: 0,
            store: Store::new(&settings),
            machines: (0..bounds.nodes).map(machine).collect(),
            faults: bounds.faults,
            drift: bounds.drift,
            writes: bounds.writes,
            replication: true,
            promotions: 0,
            reached: Reached::default(),
            broken: Vec::new(),
            key: 0,
            bounds: bounds.clone(),
        };
        // The cluster comes up without faults.
        for _ in 0..4 {
            for node in 0..bounds.nodes {
                state.turn(node, None, &mut Vec::new());
            }
            state.tick(Drift::None);
        }
        assert!(
            state.machines[0].pg.is_writable(),
            "the first node leads before the search begins"
        );
        assert_eq!(state.broken, [], "no invariant breaks before the search begins");
        state.time = 0;
        for machine in &mut state.machines {
            machine.skew += 4;
        }
        state.store.shift(4);
        state.operate();
        state.seal()
    }

    /// Puts the fingerprint on a state that is complete.
    pub fn seal(mut self) -> State {
        self.key = fingerprint::of(&self);
        self
    }

    /// The boot clock of a machine, in ticks.
    pub fn ticks(&self, node: usize) -> u64 {
        (BOOT + self.time).saturating_add_signed(self.machines[node].skew)
    }

    pub fn now(&self, node: usize) -> Now {
        at(self.ticks(node))
    }

    /// Until when the fence lets PostgreSQL live; `None` without a deadline.
    pub fn fenced_at(&self, node: usize) -> Option<Mono> {
        match self.machines[node].fence {
            Some(FenceOrder::Until(at)) if self.bounds.planted == Some(Plant::NoMargin) => {
                Some(at.plus(self.bounds.settings().margin()))
            }
            Some(FenceOrder::Until(at)) => Some(at),
            Some(FenceOrder::StandbyOnly | FenceOrder::Paused) | None => None,
        }
    }

    /// The nodes that accept writes.
    pub fn writable(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.machines.len()).filter(|i| self.machines[*i].pg.is_writable())
    }

    /// Every step that is possible. Within a tick the nodes take their turns in order, and what comes from outside comes
    /// before them: a node that stops in the middle is what lets another overtake it.
    pub fn steps(&self, steps: &mut Vec<Step>) {
        for (node, m) in self.machines.iter().enumerate() {
            if m.suspended || (m.acted && !m.inbox.is_empty() && !m.gone) {
                steps.push(Step::Turn { node, fault: None });
            }
            if m.stalled.is_some() {
                steps.push(Step::FinishJob(node));
            }
        }
        if !self.store.late.is_empty() {
            steps.push(Step::ApplyLate);
        }
        match self.machines.iter().position(|m| !m.acted && !m.suspended && !m.gone) {
            Some(node) => self.turns(node, steps),
            None => {
                steps.push(Step::Tick(Drift::None));
                if self.drift > 0 {
                    let drifts = |node| [Step::Tick(Drift::Slow(node)), Step::Tick(Drift::Fast(node))];
                    steps.extend((0..self.machines.len()).flat_map(drifts));
                }
            }
        }
        if self.machines.iter().any(|m| m.acted) {
            return;
        }
        let b = &self.bounds;
        if b.revocations && self.faults > 0 && self.leader_lease().is_some() {
            steps.push(Step::Revoke);
        }
        if self.writes > 0 && self.writable().next().is_some() {
            steps.push(Step::Write);
        }
        if b.stalls && (self.faults > 0 || !self.replication) {
            steps.push(Step::Stall(self.replication));
        }
    }

    /// What the node whose turn it is may do, or suffer.
    fn turns(&self, node: usize, steps: &mut Vec<Step>) {
        let m = &self.machines[node];
        steps.push(Step::Turn { node, fault: None });
        if m.frozen {
            // It stays frozen for as long as the adversary likes.
            steps.push(Step::Freeze(node));
        }
        if self.faults == 0 {
            return;
        }
        let broken = |fault| Step::Turn {
            node,
            fault: Some(fault),
        };
        steps.extend(self.breakable(node).into_iter().map(broken));
        if self.bounds.freezes && !m.frozen {
            steps.push(Step::Freeze(node));
        }
        if self.bounds.restarts {
            steps.push(Step::Restart(node));
        }
    }

    /// What can be broken in the turn that a node would have now.
    fn breakable(&self, node: usize) -> Vec<(u8, Kind)> {
        let mut breakable = Vec::new();
        self.clone().turn(node, None, &mut breakable);
        breakable
    }

    /// The world after a step; `None` when it changes nothing.
    pub fn after(&self, step: Step) -> Option<State> {
        let mut s = self.clone();
        match step {
            Step::Turn { node, fault } => {
                s.faults -= u8::from(fault.is_some());
                s.turn(node, fault, &mut Vec::new());
            }
            Step::Tick(drift) => {
                s.drift -= u8::from(drift != Drift::None);
                s.tick(drift);
            }
            Step::Freeze(node) => {
                let m = &mut s.machines[node];
                s.faults -= u8::from(!m.frozen);
                m.frozen = true;
                m.acted = true;
            }
            Step::Restart(node) => {
                s.faults -= 1;
                s.restart(node);
            }
            Step::Revoke => {
                s.faults -= 1;
                let lease = s.leader_lease()?;
                s.store.revoke(lease);
            }
            Step::ApplyLate => s.apply_late(),
            Step::FinishJob(node) => s.finish_job(node),
            Step::Write => {
                s.writes -= 1;
                let node = s.writable().next()?;
                let end = &mut s.machines[node].pg.end;
                end.0 += super::postgres::RECORD;
            }
            Step::Stall(stop) => {
                s.faults -= u8::from(stop);
                s.replication = !stop;
            }
        }
        Some(s.seal())
    }

    fn leader_lease(&self) -> Option<LeaseId> {
        self.store.keys.leader.as_ref()?.lease
    }

    fn tick(&mut self, drift: Drift) {
        self.time += 1;
        match drift {
            Drift::None => {}
            Drift::Slow(node) => self.machines[node].skew -= 1,
            Drift::Fast(node) => self.machines[node].skew += 1,
        }
        self.store.expire(self.time);
        for node in 0..self.machines.len() {
            self.machines[node].acted = false;
            self.fence_looks(node);
        }
        if self.replication {
            self.replicate();
        }
    }

    /// Standbys receive what their upstream has.
    pub fn replicate(&mut self) {
        for node in 0..self.machines.len() {
            if let Some(from) = self.upstream_of(node) {
                let source = self.machines[from].pg.clone();
                self.machines[node].pg.receive(&source);
            }
        }
    }

    /// The machine that a standby streams from, if that sends.
    pub fn upstream_of(&self, node: usize) -> Option<usize> {
        let pg = &self.machines[node].pg;
        let name = &pg.upstream.as_ref().filter(|_| pg.running && !pg.primary)?.name;
        let from = self.machines.iter().position(|m| m.name == *name)?;
        let source = &self.machines[from].pg;
        // A primary that shuts down sends all it has before it ends.
        (source.is_writable() || (source.clean && source.checkpoint.is_some())).then_some(from)
    }

    /// The fence kills PostgreSQL when its deadline has passed.
    pub fn fence_looks(&mut self, node: usize) {
        let passed = self.fenced_at(node).is_some_and(|at| at <= self.now(node).mono);
        let m = &mut self.machines[node];
        if passed && m.pg.running {
            m.pg.kill();
            m.inbox.push_back(Event::FenceFired);
            self.reached.fenced = true;
        }
    }

    /// The agent is killed and started again; the fence and PostgreSQL live on.
    fn restart(&mut self, node: usize) {
        let now = self.now(node);
        let m = &mut self.machines[node];
        m.node = Arc::new(Node::new(now, m.node.view().me.clone()));
        m.todo.clear();
        m.inbox.clear();
        m.inbox.extend(m.fence.map(Event::FenceAttached));
        m.stalled = None;
        m.suspended = false;
        m.frozen = false;
    }

    fn apply_late(&mut self) {
        let (by, commit) = self.store.late.remove(0);
        self.commit(by, &commit);
        self.reached.late_applied = true;
    }

    fn finish_job(&mut self, node: usize) {
        let Some((op, job)) = self.machines[node].stalled.take() else {
            return;
        };
        let outcome = self.run_job(node, &job);
        self.machines[node].inbox.push_back(Event::JobEnded { op, outcome });
    }

    fn operate(&mut self) {
        match self.bounds.operator {
            Some(Operator::Switchover) => self.store.change(|keys, mod_revision| {
                keys.failover = Some(pgha_core::cluster::FailoverKey {
                    mod_revision,
                    leader: keys.leader.as_ref().map(|l| l.name.clone()),
                    candidate: None,
                    scheduled_at: None,
                    schedule_unreadable: false,
                });
            }),
            Some(Operator::Terminate) => self.machines[0].inbox.push_back(Event::Terminate),
            None => {}
        }
    }

    // ---- a turn ----

    /// A node thinks until it rests, or until the adversary stops it. `seen` gains what could have been broken.
    fn turn(&mut self, node: usize, fault: Option<(u8, Kind)>, seen: &mut Vec<(u8, Kind)>) {
        let m = &mut self.machines[node];
        let resumed = std::mem::take(&mut m.suspended);
        m.frozen = false;
        m.acted = true;
        if !resumed && m.todo.is_empty() {
            m.inbox.push_back(Event::Wake(Wake::Now));
        }
        let mut nth = 0;
        for _ in 0..MAX_STEPS {
            while let Some(event) = self.machines[node].inbox.pop_front() {
                self.feed(node, event);
            }
            let Some(effect) = self.machines[node].todo.pop_front() else {
                return;
            };
            let mut broken = None;
            if super::agent::is_breakable(&effect) {
                nth += 1;
                let kinds = self.bounds.kinds.iter().filter(|k| self.can_break(node, &effect, **k));
                seen.extend(kinds.map(|kind| (nth, *kind)));
                broken = fault.filter(|(at, _)| *at == nth).map(|(_, kind)| kind);
            }
            let m = &mut self.machines[node];
            if broken == Some(Kind::Pause) {
                m.todo.push_front(effect);
                m.suspended = true;
                return;
            }
            let answer = self.perform(node, effect, broken);
            let m = &mut self.machines[node];
            m.inbox.extend(answer.clone().filter(|_| broken == Some(Kind::Twice)));
            m.inbox.extend(answer);
            if broken == Some(Kind::PauseReply) {
                m.suspended = true;
                return;
            }
            if m.gone {
                return;
            }
        }
        self.broken.push(("L2", "a node goes round and round".into()));
    }

    /// Sends one event to a node; what it wants is queued, and the fence is told at once.
    fn feed(&mut self, node: usize, event: Event) {
        let now = self.now(node);
        let m = &mut self.machines[node];
        let effects = Arc::make_mut(&mut m.node).handle(now, event);
        for violation in Arc::make_mut(&mut m.node).take_violations() {
            self.broken.push((violation.invariant, violation.what));
        }
        for effect in effects {
            match effect {
                Effect::SetFence(_) if self.bounds.planted == Some(Plant::NoFence) => {}
                Effect::SetFence(order) => {
                    self.machines[node].fence = Some(order);
                    self.fence_looks(node);
                }
                other => self.machines[node].todo.push_back(other),
            }
        }
    }
}

fn at(ticks: u64) -> Now {
    Now {
        mono: Mono(ticks * 1_000_000_000),
        wall: Wall(i64::try_from(ticks).unwrap_or(0) * 1_000_000),
    }
}
