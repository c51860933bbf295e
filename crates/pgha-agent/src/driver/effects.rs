//! Effects out: each is performed beside the driver and answers through the event queue; the fence alone is told in line.

use std::sync::Arc;
use std::time::Duration;

use pgha_api::Expect;
use pgha_core::effect::{Effect, FenceOrder, Tend};
use pgha_core::event::{Event, OpId};
use pgha_core::failsafe::Question;
use pgha_core::job::{Job, JobFailure, JobOutcome};
use pgha_core::known::KnownCluster;
use pgha_core::pg::SqlRole;
use pgha_core::plan;
use pgha_core::sync::SyncTask;
use pgha_core::units::MemberName;
use pgha_wire::kept::render_kept;
use tokio_util::sync::CancellationToken;

use super::glue::{callback_action, callback_role};
use super::jobs::{Bench, run_job};
use super::local::{Local, rest_authentication};
use super::look::{look, read_history};
use super::sync::SyncErrand;
use super::{Driver, publish, tend};
use crate::clock;

impl Driver {
    /// Runs something beside the driver whose result is an event.
    pub(super) fn send_later(&self, work: impl Future<Output = Event> + Send + 'static) {
        let events = self.parts.events.clone();
        tokio::spawn(async move {
            let event = work.await;
            if events.send(event).await.is_err() {
                tracing::debug!("an event came after the end");
            }
        });
    }

    pub(super) fn perform(&mut self, effect: Effect) {
        let store = self.parts.store.clone();
        let local = self.parts.local.load_full();
        match effect {
            Effect::ReadDcs { op, budget } => self.send_later(async move { store.perform_read(op, budget).await }),
            Effect::Observe { op, budget } => self.observe(op, budget, local),
            Effect::AskPeers { op, peers, budget } => self.ask_peers(op, peers, budget),
            Effect::AskFailsafe {
                op,
                peers,
                question,
                budget,
            } => self.ask_failsafe(op, peers, question, budget, &local),
            Effect::GrantLease { op, ttl, budget } => {
                self.send_later(async move { store.perform_grant(op, ttl, budget).await });
            }
            Effect::KeepLease { op, lease, budget } => {
                self.send_later(async move { store.perform_keep(op, lease, budget).await });
            }
            Effect::Commit { op, commit, budget } => {
                self.send_later(async move { store.perform_commit(op, &local.identity, &commit, budget).await });
            }
            Effect::StartJob { op, job } => self.start_job(op, job, local),
            Effect::CancelJob { op } => {
                if let Some((_, cancel)) = self.job.as_ref().filter(|(running, _)| *running == op) {
                    cancel.cancel();
                }
            }
            Effect::Tend { op, items } => self.tend(op, items),
            Effect::Remember(known) => keep(&known, local),
            Effect::TendSync { op, task } => self.tend_sync(op, task, local),
            Effect::Callback { action, role } => self.callbacks.call(callback_action(action), callback_role(role)),
            Effect::Answer { id, answer } => {
                let waiting = self.requests.remove(&id);
                if waiting.is_some_and(|w| w.send(answer).is_err()) {
                    tracing::debug!("nobody waits for the answer any more");
                }
            }
            // Handled in line by `feed`.
            Effect::SetFence(_) | Effect::Exit { .. } => {}
        }
    }

    fn observe(&self, op: OpId, budget: Duration, local: Arc<Local>) {
        let (known, history_out) = (self.history.clone(), self.history_in.0.clone());
        self.send_later(async move {
            let view = look(&local, budget).await;
            let timeline_history = match view.facts().map(|f| &f.role) {
                Some(SqlRole::Primary { timeline, .. }) if timeline.0 > 1 => {
                    read_history(&local, *timeline, known, &history_out).await
                }
                Some(SqlRole::Primary { .. } | SqlRole::Standby(_)) | None => Vec::new(),
            };
            Event::Observed {
                op,
                view: Box::new(view),
                timeline_history,
            }
        });
    }

    fn ask_peers(&self, op: OpId, peers: Vec<(MemberName, String)>, budget: Duration) {
        let client = Arc::clone(&self.parts.peers);
        let v = self.parts.node.view();
        let system_id = v.pg.control().map(|c| c.system_id);
        let expect = Expect {
            scope: v.me.scope.clone(),
            system_id,
        };
        self.send_later(async move {
            let answers = client.ask(&peers, &expect, budget).await;
            for (name, answer) in &answers {
                tracing::debug!(peer = name.as_str(), ?answer, "peer");
            }
            Event::PeersAnswered { op, answers }
        });
    }

    fn ask_failsafe(
        &self,
        op: OpId,
        peers: Vec<(MemberName, String)>,
        question: Question,
        budget: Duration,
        local: &Local,
    ) {
        let client = Arc::clone(&self.parts.peers);
        let scope = local.config.scope.clone();
        let authentication = rest_authentication(&local.config);
        self.send_later(async move {
            let replies = client
                .ask_failsafe(&peers, &question, &scope, authentication.as_ref(), budget)
                .await;
            Event::FailsafeAnswered { op, replies }
        });
    }

    fn start_job(&mut self, op: OpId, job: Job, local: Arc<Local>) {
        let cancel = CancellationToken::new();
        self.job = Some((op, cancel.clone()));
        if matches!(job, Job::Promote) {
            self.tally.promotions += 1;
        }
        if matches!(job, Job::Stop { .. }) && self.parts.node.view().pg.says_primary() {
            self.tally.demotions += 1;
        }
        tracing::info!("{} begins", publish::describe(&job));
        let bench = Bench {
            promote_limit: self.parts.node.view().settings().loop_wait.max(Duration::from_secs(10)),
            local,
            fence: self.parts.fence.clone(),
            events: self.parts.events.clone(),
            cancel,
            op,
        };
        self.send_later(async move {
            let outcome = run_job(&bench, &job).await;
            Event::JobEnded { op, outcome }
        });
    }

    fn tend(&self, op: OpId, items: Vec<Tend>) {
        let v = self.parts.node.view();
        let text = v.cluster().and_then(|c| c.config.as_ref()).map(|k| k.text.clone());
        let errand = tend::Errand {
            local: Arc::clone(&self.parts.local),
            state_dir: self.parts.state_dir.clone(),
            fence: self.parts.fence.clone(),
            config_text: text,
            pg: v.pg.clone(),
            reloaded: self.reloaded.0.clone(),
        };
        self.send_later(async move {
            errand.run(items).await;
            Event::Tended { op }
        });
    }

    fn tend_sync(&self, op: OpId, task: SyncTask, local: Arc<Local>) {
        let errand = SyncErrand {
            local,
            fence: self.parts.fence.clone(),
            pg: self.parts.node.view().pg.clone(),
        };
        self.send_later(async move {
            let outcome = errand.run(task).await;
            Event::SyncTended { op, outcome }
        });
    }

    pub(super) async fn set_fence(&mut self, order: FenceOrder) -> bool {
        let holds = self.parts.fence.set(order).await;
        let status = match order {
            FenceOrder::Until(_) if self.watchdog.status().active => self.watchdog.keepalive(),
            FenceOrder::Until(_) => self.watchdog.arm(),
            FenceOrder::StandbyOnly | FenceOrder::Paused => {
                self.watchdog.disarm();
                self.watchdog.status()
            }
        };
        if matches!(order, FenceOrder::Until(_)) && !status.active && status.failed.is_some() {
            self.watchdog_refused = Some(clock::boot());
        }
        self.tell_watchdog(&status);
        if !holds {
            self.send_later(async { Event::FenceLost });
        }
        holds
    }

    /// A required watchdog that could not be armed forbids what makes PostgreSQL writable.
    pub(super) fn forbidden_by_watchdog(&self, job: &Job) -> bool {
        plan::makes_writable(job) && self.watchdog.status().forbids_leading()
    }

    pub(super) fn refuse_job(&self, op: OpId, job: &Job) {
        let reason = "the fence did not confirm its order, or the required watchdog is not armed".to_owned();
        tracing::error!("{} is not begun: {reason}", publish::describe(job));
        let outcome = JobOutcome::Failed {
            failure: JobFailure::Fenced,
            reason,
        };
        self.send_later(async move { Event::JobEnded { op, outcome } });
    }
}

/// Puts on disk what the next life of this daemon is to know of the cluster.
fn keep(known: &KnownCluster, local: Arc<Local>) {
    let Some(text) = render_kept(known) else { return };
    tokio::spawn(async move {
        // Two of them under way at once would be two writers of one file.
        let _files = local.files.lock().await;
        if let Err(error) = local.instance.write_kept_cluster(&text).await {
            tracing::warn!(
                error = error.chain(),
                "what is known of the members was not put on disk"
            );
        }
    });
}
