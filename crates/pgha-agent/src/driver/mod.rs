//! The driver: the asynchronous shell around the step machine. It performs effects, turns completions into events and
//! publishes the status. It decides nothing.
//!
//! One task owns the node. Effects that wait run as tasks of their own and answer through the event queue; the fence is
//! told in line, because whatever follows in the same batch may rely on it.

pub mod backend;
mod effects;
mod glue;
pub mod guard;
pub mod identity;
pub mod jobs;
pub mod local;
mod look;
pub mod publish;
pub mod recorder;
pub mod store;
mod sync;
pub mod tend;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use pgha_api::{PeerClient, StatusBoard};
use pgha_core::effect::{CallbackRole, Effect, FenceOrder};
use pgha_core::event::{Event, OpId, Wake};
use pgha_core::job::{JobFailure, JobOutcome};
use pgha_core::node::Node;
use pgha_core::pg::{PgView, Postmaster, SqlView};
use pgha_core::request::{Answer, Request, RequestId};
use pgha_core::rule::Rule;
use pgha_core::units::Mono;
use pgha_postgres::ProcessId;
use pgha_wire::config::LocalConfig;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use self::glue::{callback_role, callbacks_of, watchdog_config, watchdog_view};
use self::guard::FenceGuard;
use self::local::Local;
use self::look::{History, look};
use self::publish::{Tally, node_status};
use self::recorder::Recorder;
use self::store::Store;
use crate::callbacks::{Action, CallbackRunner};
use crate::clock::{self, Sleeper};
use crate::error::AgentError;
use crate::watchdog::{Watchdog, WatchdogStatus};

/// Events that may wait for the node; tasks that send more wait themselves.
pub const MAX_EVENTS: usize = 1024;
/// Least wait between two turns of the driver that only time asks for.
const LEAST_WAIT: Duration = Duration::from_millis(1);
/// How long callbacks may go on at the end.
const CALLBACK_DRAIN: Duration = Duration::from_secs(5);

/// What the REST threads and signal handlers ask of the driver.
#[derive(Debug)]
pub enum Command {
    /// An operator's request; the answer goes back.
    Request(Request, oneshot::Sender<Answer>),
    /// Look at PostgreSQL now and publish that; tells when it is published.
    Refresh(oneshot::Sender<()>),
    /// Read the configuration files again.
    Reload,
    /// Run a cycle now.
    Wake,
    /// Stop for good.
    Terminate,
}

/// What the driver is made of.
pub struct Parts {
    /// etcd.
    pub store: Store,
    /// Configuration in force.
    pub local: Arc<ArcSwap<Local>>,
    /// The fence.
    pub fence: FenceGuard,
    /// What a fence found running enforces.
    pub found_fence: Option<FenceOrder>,
    /// Asks other members.
    pub peers: Arc<PeerClient>,
    /// What the REST API shows.
    pub board: Arc<StatusBoard>,
    /// The queue's sending end, for tasks.
    pub events: mpsc::Sender<Event>,
    /// The queue.
    pub inbox: mpsc::Receiver<Event>,
    /// Commands of the REST API and of signals.
    pub commands: mpsc::Receiver<Command>,
    /// Reads the configuration again.
    pub reread: Box<dyn Fn() -> Result<LocalConfig, String> + Send>,
    /// Hands new settings to the REST API.
    pub configure_api: Box<dyn Fn(&LocalConfig) + Send>,
    /// The private state directory.
    pub state_dir: PathBuf,
    /// The dynamic configuration found on disk.
    pub cached_config: Option<String>,
    /// The node.
    pub node: Node,
}

/// The driver.
pub struct Driver {
    parts: Parts,
    tally: Tally,
    recorder: Recorder,
    callbacks: CallbackRunner,
    watchdog: Watchdog,
    /// When the watchdog could not be armed the last time.
    watchdog_refused: Option<Mono>,
    job: Option<(OpId, CancellationToken)>,
    requests: BTreeMap<RequestId, oneshot::Sender<Answer>>,
    next_request: u64,
    watching: Option<ProcessId>,
    refreshing: Vec<oneshot::Sender<()>>,
    live: Option<PgView>,
    refreshed: (mpsc::Sender<PgView>, mpsc::Receiver<PgView>),
    reloaded: (mpsc::Sender<()>, mpsc::Receiver<()>),
    history: Option<History>,
    history_in: (mpsc::Sender<History>, mpsc::Receiver<History>),
}

/// How the daemon ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ending {
    /// Exit code.
    pub code: u8,
    /// PostgreSQL and the fence go on.
    pub leave_running: bool,
}

impl Driver {
    /// Puts the parts together.
    ///
    /// # Errors
    /// A callback command cannot be parsed.
    pub fn new(parts: Parts) -> Result<Driver, AgentError> {
        let local = parts.local.load_full();
        let callbacks = CallbackRunner::new(local.config.scope.clone(), callbacks_of(&local)?);
        let watchdog = Watchdog::new(watchdog_config(&local));
        let recorder = Recorder::new(&parts.state_dir, local.config.pgha.flight_recorder_bytes);
        Ok(Driver {
            recorder,
            parts,
            tally: Tally::default(),
            callbacks,
            watchdog,
            watchdog_refused: None,
            job: None,
            requests: BTreeMap::new(),
            next_request: 1,
            watching: None,
            refreshing: Vec::new(),
            live: None,
            refreshed: mpsc::channel(1),
            reloaded: mpsc::channel(1),
            history: None,
            history_in: mpsc::channel(1),
        })
    }

    /// Runs until the node says that the daemon ends.
    ///
    /// # Errors
    /// No timer on the boot clock can be had.
    pub async fn run(mut self) -> Result<Ending, AgentError> {
        let mut sleeper = Sleeper::new()?;
        let _watch = self.parts.store.watch(self.parts.events.clone());
        if let Some(order) = self.parts.found_fence {
            tracing::info!(?order, "the fence goes on with what it was told before");
            self.feed(Event::FenceAttached(order)).await;
        }
        self.probe_watchdog().await;
        let mut ending = self.feed(Event::Wake(Wake::Now)).await;
        while ending.is_none() {
            // Never in the past: the driver must wait at least once a turn, or nobody else on this runtime would run.
            let wake = self.parts.node.next_wake().max(clock::boot().plus(LEAST_WAIT));
            ending = tokio::select! {
                Some(event) = self.parts.inbox.recv() => self.feed(event).await,
                Some(command) = self.parts.commands.recv() => self.obey(command).await,
                Some(view) = self.refreshed.1.recv() => { self.refreshed(view); None }
                Some(()) = self.reloaded.1.recv() => { self.tell_reload(); None }
                Some(history) = self.history_in.1.recv() => { self.history = Some(history); None }
                slept = sleeper.until(wake) => { slept?; self.feed(Event::Wake(Wake::Timer)).await }
            };
        }
        if !self.callbacks.drain(CALLBACK_DRAIN).await {
            tracing::warn!("a callback still runs; leaving it");
        }
        Ok(ending.unwrap_or(Ending {
            code: 1,
            leave_running: false,
        }))
    }

    // ---- events in ----

    /// Hands one event to the node, performs what it wants, publishes.
    async fn feed(&mut self, event: Event) -> Option<Ending> {
        let now = clock::now();
        match &event {
            Event::DcsRead { view: Some(_), .. } => self.tally.dcs_last_seen = Some(now.wall),
            Event::Observed { view, .. } => {
                self.live = None;
                self.watch_postmaster(view);
                self.look_at_watchdog();
            }
            Event::JobEnded { op, .. } => {
                self.job.take_if(|(running, _)| running == op);
            }
            _ => {}
        }
        if let Event::JobEnded { outcome, .. } = &event {
            self.note_job_end(outcome);
        }
        let record = event.clone();
        let mut queue = self.parts.node.handle(now, event);
        let rule = self.parts.node.last_decision().map(|(d, _)| d.rule);
        self.recorder.note(now, &record, rule);
        for violation in self.parts.node.take_violations() {
            tracing::error!(invariant = violation.invariant, "refused: {}", violation.what);
        }
        self.note_decision();
        let mut fence_holds = true;
        let mut ending = None;
        for effect in queue.drain(..) {
            match effect {
                Effect::SetFence(order) => fence_holds &= self.set_fence(order).await,
                Effect::StartJob { op, job } if !fence_holds || self.forbidden_by_watchdog(&job) => {
                    self.refuse_job(op, &job)
                }
                Effect::Exit {
                    code,
                    reason,
                    leave_running,
                } => {
                    self.note_exit(code, &reason);
                    ending = Some(Ending {
                        code: u8::try_from(code).unwrap_or(1),
                        leave_running,
                    });
                }
                other => self.perform(other),
            }
        }
        self.publish();
        ending
    }

    async fn obey(&mut self, command: Command) -> Option<Ending> {
        match command {
            Command::Request(request, answer) => {
                let id = RequestId(self.next_request);
                self.next_request += 1;
                self.requests.insert(id, answer);
                self.feed(Event::Requested { id, request }).await
            }
            Command::Refresh(done) => {
                self.refresh(done);
                None
            }
            Command::Reload => self.reload().await,
            Command::Wake => self.feed(Event::Wake(Wake::Now)).await,
            Command::Terminate => {
                tracing::info!("told to stop");
                self.feed(Event::Terminate).await
            }
        }
    }

    async fn reload(&mut self) -> Option<Ending> {
        let config = match (self.parts.reread)() {
            Ok(config) => config,
            Err(reason) => {
                tracing::error!("the configuration was not reloaded, the old one stays: {reason}");
                return None;
            }
        };
        let before = self.parts.local.load_full();
        let local = Arc::new(Local::new(
            config,
            &before.dynamic_text,
            &self.parts.state_dir,
            before.major,
            Some(&before),
        ));
        match callbacks_of(&local) {
            Ok(callbacks) => self.callbacks.reconfigure(callbacks),
            Err(error) => tracing::error!(%error, "the callbacks stay as they were"),
        }
        self.watchdog.reconfigure(watchdog_config(&local));
        (self.parts.configure_api)(&local.config);
        let spec = local.node_spec(self.parts.cached_config.clone(), None);
        self.parts.local.store(local);
        tracing::info!("the configuration was reloaded");
        self.feed(Event::Reconfigured(Box::new(spec))).await
    }

    async fn probe_watchdog(&mut self) {
        let status = self.watchdog.probe();
        if let Some(reason) = &status.failed {
            tracing::info!(reason, "the watchdog cannot be used");
        }
        let seen = watchdog_view(&status);
        let _ending = self.feed(Event::Watchdog(seen)).await;
    }

    pub(super) fn tell_watchdog(&self, status: &WatchdogStatus) {
        let seen = watchdog_view(status);
        if self.parts.node.view().memory.watchdog != seen {
            self.send_later(async move { Event::Watchdog(seen) });
        }
    }

    /// A device that came back, or went while nobody used it, is noticed with the next look at PostgreSQL. One that
    /// could not be armed although it is there counts as failed for a ttl, so that somebody else can lead meanwhile.
    fn look_at_watchdog(&mut self) {
        let ttl = self.parts.node.view().settings().ttl;
        if self.watchdog_refused.is_none_or(|at| clock::boot().since(at) >= ttl) {
            let status = self.watchdog.probe();
            self.tell_watchdog(&status);
        }
    }

    fn tell_reload(&mut self) {
        let role = self
            .parts
            .node
            .view()
            .memory
            .told_role
            .unwrap_or(CallbackRole::Uninitialized);
        self.callbacks.call(Action::OnReload, callback_role(role));
    }

    // ---- PostgreSQL's process ----

    /// Waits beside the driver for the end of the postmaster that was seen, and adopts one that the fence does not know.
    fn watch_postmaster(&mut self, view: &PgView) {
        let Postmaster::Running { pid, start_ticks, .. } = view.postmaster else {
            return;
        };
        if self.job.is_some() {
            // What runs during a job may be initdb's or a single-user server; the next look after the job tells.
            return;
        }
        let process = ProcessId { pid, start_ticks };
        if self.watching == Some(process) {
            return;
        }
        self.watching = Some(process);
        let fence = self.parts.fence.clone();
        self.send_later(async move {
            if !fence.guards(process).await {
                fence.adopt(process).await;
            }
            if let Err(error) = pgha_postgres::wait_exit(process).await {
                tracing::warn!(error = error.chain(), "cannot wait for the postmaster's exit");
                // Without the kernel's word the heartbeat notices.
                std::future::pending::<()>().await;
            }
            tracing::info!(pid, "the postmaster has exited");
            Event::Wake(Wake::PostmasterExited)
        });
    }

    /// Looks at PostgreSQL for somebody who asks over REST; several who ask at once share one look.
    fn refresh(&mut self, done: oneshot::Sender<()>) {
        self.refreshing.push(done);
        if self.refreshing.len() > 1 {
            return;
        }
        let (local, out) = (self.parts.local.load_full(), self.refreshed.0.clone());
        tokio::spawn(async move {
            let view = look(&local, Duration::from_millis(500)).await;
            if out.send(view).await.is_err() {
                tracing::debug!("a look came after the end");
            }
        });
    }

    fn refreshed(&mut self, view: PgView) {
        // A look that learned nothing replaces nothing.
        if !matches!(view.sql, SqlView::NotAsked | SqlView::Unanswered { .. }) || !view.is_running() {
            self.live = Some(view);
        }
        self.publish();
        for waiting in self.refreshing.drain(..) {
            if waiting.send(()).is_err() {
                tracing::debug!("whoever asked has gone");
            }
        }
    }

    // ---- what people see ----

    fn publish(&self) {
        let node = &self.parts.node;
        let status = node_status(node, &self.tally, self.live.as_ref(), node.next_wake());
        let cluster = node.view().last_cluster().cloned().map(Arc::new);
        self.parts.board.publish(status, cluster, clock::now());
    }

    /// Logs a decision when its rule changed, and counts it.
    fn note_decision(&mut self) {
        let Some((decision, at)) = self.parts.node.last_decision() else {
            return;
        };
        if at != clock_of(&self.parts.node) {
            return;
        }
        *self.tally.decisions.entry(decision.rule.number()).or_insert(0) += 1;
        self.tally.loop_duration = Some(
            self.parts
                .node
                .last_cycle_ended()
                .since(self.parts.node.cycle_started()),
        )
        .filter(|d| !d.is_zero());
        let (rule, because) = (decision.rule, decision.because.clone());
        if self.tally.last_rule == Some(rule) || is_routine(rule) {
            tracing::debug!(rule = rule.number(), "{because}");
            return;
        }
        self.tally.last_rule = Some(rule);
        if rule.needs_a_person() || rule == Rule::FollowStalled {
            tracing::warn!(rule = rule.number(), "{because}");
        } else {
            tracing::info!(rule = rule.number(), "{because}");
        }
    }

    fn note_job_end(&self, outcome: &JobOutcome) {
        let Some(job) = self.parts.node.view().memory.job.as_ref() else {
            return;
        };
        let (what, ms) = (publish::describe(&job.job), clock::boot().since(job.since).as_millis());
        match outcome {
            JobOutcome::Done => tracing::info!(ms, "{what} is done"),
            JobOutcome::Divergence(facts) => tracing::info!(
                ms,
                local = %format!("{} on timeline {}", facts.local_lsn, facts.local_timeline),
                was_primary = facts.was_primary,
                leader_timeline = facts.leader_timeline.0,
                verdict = ?pgha_core::rewind::judge(facts),
                "{what} is done"
            ),
            JobOutcome::Failed {
                failure: JobFailure::SourceNotReady,
                reason,
            } => tracing::info!(ms, "{what}: not yet: {reason}"),
            JobOutcome::Failed { failure, reason } => tracing::error!(ms, ?failure, "{what} failed: {reason}"),
            JobOutcome::Cancelled => tracing::warn!(ms, "{what} was cancelled"),
        }
    }

    fn note_exit(&self, code: i32, reason: &str) {
        if code == 0 {
            tracing::info!("{reason}");
        } else {
            tracing::error!("{reason}");
        }
    }
}

/// The boot time of the event handled last.
fn clock_of(node: &Node) -> Mono {
    node.view().now.mono
}

/// Steps of the heartbeat: logged only when something asks for detail.
fn is_routine(rule: Rule) -> bool {
    matches!(
        rule,
        Rule::LeadHoldLeaderKey
            | Rule::JobHoldLeaderKey
            | Rule::DownHoldLeaderKey
            | Rule::JobInProgress
            | Rule::FollowCheckDivergence
    )
}
