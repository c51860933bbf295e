//! What becomes of a node's effects: the driver, the network and PostgreSQL's jobs.

use std::collections::BTreeMap;

use pgha_core::commit::{Change, Commit, CommitOutcome, Key, Purpose};
use pgha_core::effect::{Effect, FenceOrder};
use pgha_core::event::{Event, KeepAnswer};
use pgha_core::job::{Job, JobFailure, JobOutcome, JobProgress, StartRole, StopMode};
use pgha_core::peer::PeerView;
use pgha_core::rule::Rule;
use pgha_core::sync::SyncOutcome;
use pgha_core::units::{Lsn, MemberName, Revision};

use super::cluster::{Kind, Plant, State};

/// May the adversary break this effect? What only tells others about a node is left alone: it decides nothing.
pub fn is_breakable(effect: &Effect) -> bool {
    match effect {
        Effect::ReadDcs { .. } | Effect::KeepLease { .. } | Effect::AskPeers { .. } | Effect::StartJob { .. } => true,
        Effect::Commit { commit, .. } => decides(commit),
        Effect::Observe { .. }
        | Effect::AskFailsafe { .. }
        | Effect::GrantLease { .. }
        | Effect::SetFence(_)
        | Effect::Remember(_)
        | Effect::CancelJob { .. }
        | Effect::Tend { .. }
        | Effect::TendSync { .. }
        | Effect::Callback { .. }
        | Effect::Answer { .. }
        | Effect::Exit { .. } => false,
    }
}

fn decides(commit: &Commit) -> bool {
    match commit.purpose {
        Purpose::ProveLeadership | Purpose::AcquireLeaderKey | Purpose::ReleaseLeaderKey | Purpose::UpdateFailover => {
            true
        }
        Purpose::TouchMember
        | Purpose::ClaimInitialize
        | Purpose::StoreSystemId
        | Purpose::CancelInitialize
        | Purpose::StoreConfig
        | Purpose::UpdateHistory
        | Purpose::UpdateSync
        | Purpose::UpdateFailsafe
        | Purpose::RemoveMember => false,
    }
}

impl State {
    /// Does this kind of fault mean anything for this effect?
    pub fn can_break(&self, node: usize, effect: &Effect, kind: Kind) -> bool {
        match effect {
            Effect::ReadDcs { .. } => matches!(kind, Kind::Pause | Kind::PauseReply | Kind::Drop | Kind::Twice),
            Effect::KeepLease { lease, .. } => match kind {
                Kind::LieAlive => !self.store.is_alive(*lease),
                Kind::Late | Kind::Stall => false,
                Kind::Pause | Kind::PauseReply | Kind::Drop | Kind::LoseReply | Kind::Twice => true,
            },
            Effect::Commit { .. } => !matches!(kind, Kind::LieAlive | Kind::Stall),
            Effect::AskPeers { .. } => matches!(kind, Kind::Pause | Kind::PauseReply | Kind::Drop),
            Effect::StartJob { .. } => match kind {
                Kind::Pause | Kind::Stall => self.machines[node].stalled.is_none(),
                Kind::PauseReply | Kind::Drop | Kind::LoseReply | Kind::Late | Kind::Twice | Kind::LieAlive => false,
            },
            _ => false,
        }
    }

    /// Performs one effect and gives the event that completes it.
    pub fn perform(&mut self, node: usize, effect: Effect, broken: Option<Kind>) -> Option<Event> {
        let now = self.now(node).mono;
        let lost = matches!(broken, Some(Kind::Drop | Kind::LoseReply | Kind::Late));
        let arrives = !matches!(broken, Some(Kind::Drop | Kind::Late));
        match effect {
            Effect::ReadDcs { op, .. } => {
                let view = (!lost).then(|| Box::new(self.read()));
                Some(Event::DcsRead { op, sent_at: now, view })
            }
            Effect::Observe { op, .. } => {
                let streams = self.replication && self.upstream_of(node).is_some();
                let m = &self.machines[node];
                Some(Event::Observed {
                    op,
                    view: Box::new(m.pg.view(now, &m.name, streams)),
                    timeline_history: m.pg.timeline_history(),
                })
            }
            Effect::AskPeers { op, peers, .. } => {
                let answers = peers
                    .into_iter()
                    .map(|(name, _)| (name.clone(), self.ask(node, &name, lost)));
                let answers: BTreeMap<MemberName, PeerView> = answers.collect();
                Some(Event::PeersAnswered { op, answers })
            }
            // The mode is off in these models.
            Effect::AskFailsafe { op, .. } => Some(Event::FailsafeAnswered {
                op,
                replies: BTreeMap::new(),
            }),
            Effect::GrantLease { op, ttl, .. } => {
                let lease = Some(self.store.grant(self.time + ttl.as_secs()));
                Some(Event::LeaseGranted {
                    op,
                    sent_at: now,
                    lease,
                })
            }
            Effect::KeepLease { op, lease, .. } => {
                let alive = arrives && self.store.keep(lease, self.time + self.bounds.ttl);
                let answer = match (lost, alive || broken == Some(Kind::LieAlive)) {
                    (true, _) => KeepAnswer::Unknown,
                    (false, true) => KeepAnswer::Alive,
                    (false, false) => KeepAnswer::Gone,
                };
                Some(Event::LeaseKept {
                    op,
                    sent_at: now,
                    answer,
                })
            }
            Effect::Commit { op, commit, .. } => {
                let mut outcome = CommitOutcome::Unknown;
                if arrives {
                    outcome = self.commit(node, &commit);
                } else if broken == Some(Kind::Late) {
                    self.store.late.push((node, commit));
                }
                if lost {
                    outcome = match self.bounds.planted {
                        Some(Plant::UnknownIsApplied) => CommitOutcome::Applied {
                            revision: Revision(self.store.keys.revision.0 + 1),
                        },
                        Some(_) | None => CommitOutcome::Unknown,
                    };
                }
                Some(Event::Committed {
                    op,
                    sent_at: now,
                    outcome,
                })
            }
            Effect::StartJob { op, job } => {
                self.start_job(node, op, job, broken);
                None
            }
            Effect::CancelJob { op } => {
                let stalled = self.machines[node].stalled.take_if(|(running, _)| *running == op)?;
                // A stop goes on; everything else that waits here has done nothing yet.
                let outcome = match stalled.1 {
                    Job::Stop { .. } => self.run_job(node, &stalled.1),
                    _ => JobOutcome::Cancelled,
                };
                Some(Event::JobEnded { op, outcome })
            }
            Effect::Tend { op, .. } => Some(Event::Tended { op }),
            // The clusters of these models replicate asynchronously.
            Effect::TendSync { op, .. } => Some(Event::SyncTended {
                op,
                outcome: SyncOutcome::Failed,
            }),
            Effect::Exit { .. } => {
                self.machines[node].gone = true;
                None
            }
            Effect::SetFence(_) | Effect::Remember(_) | Effect::Callback { .. } | Effect::Answer { .. } => None,
        }
    }

    /// All keys, as a defect would show them.
    fn read(&self) -> pgha_core::cluster::ClusterView {
        let mut keys = (*self.store.keys).clone();
        if self.bounds.planted == Some(Plant::NoOldDeadline)
            && let Some(status) = &mut keys.status
        {
            status.released = true;
        }
        keys
    }

    /// What a peer answers: nothing when its agent stands still.
    fn ask(&self, node: usize, name: &MemberName, lost: bool) -> PeerView {
        let at = self.now(node).mono;
        let peer = self.machines.iter().find(|m| m.name == *name);
        match peer.filter(|m| !lost && !m.gone && !m.frozen && !m.suspended) {
            Some(m) => {
                let mut status = m.pg.peer_status(name, m.node.view().may_write());
                if self.bounds.planted == Some(Plant::ReleaseBeforeCheckpoint) {
                    status.lsn = status.lsn.map(|l| Lsn(l.0 + super::postgres::RECORD));
                }
                PeerView::Answered { at, status }
            }
            None => PeerView::Unreachable { at },
        }
    }

    /// A transaction arrives at the store.
    pub fn commit(&mut self, by: usize, commit: &Commit) -> CommitOutcome {
        let mut commit = commit.clone();
        match self.bounds.planted {
            Some(Plant::UnguardedAcquire) if commit.purpose == Purpose::AcquireLeaderKey => commit.guards.clear(),
            Some(Plant::LateRelease) if commit.purpose == Purpose::ReleaseLeaderKey => commit.guards.truncate(1),
            Some(_) | None => {}
        }
        let outcome = self.store.commit(by, &commit);
        let released = commit.changes.contains(&Change::Delete(Key::Leader));
        if released && matches!(outcome, CommitOutcome::Applied { .. }) {
            self.check_release(by);
        }
        outcome
    }

    // ---- jobs ----

    fn start_job(&mut self, node: usize, op: pgha_core::event::OpId, job: Job, broken: Option<Kind>) {
        if job == Job::Promote && self.machines[node].pg.running {
            self.check_read_under_proof(node);
        }
        if let Job::Stop {
            mode: StopMode::Fast, ..
        } = job
        {
            self.machines[node].pg.shut_down();
            if self.replication {
                self.replicate();
            }
            if let Some(checkpoint) = self.machines[node].pg.checkpoint {
                let progress = JobProgress::ShutDown { checkpoint };
                self.machines[node].inbox.push_back(Event::JobProgress { op, progress });
            }
        }
        if broken == Some(Kind::Stall) {
            self.machines[node].stalled = Some((op, job));
            return;
        }
        let outcome = self.run_job(node, &job);
        self.machines[node].inbox.push_back(Event::JobEnded { op, outcome });
    }

    /// Does the job, as far as its end is concerned.
    pub fn run_job(&mut self, node: usize, job: &Job) -> JobOutcome {
        let failed = |failure| JobOutcome::Failed {
            failure,
            reason: "in the model".into(),
        };
        let open = self.fenced_at(node).is_some_and(|at| at > self.now(node).mono);
        let standby_only = self.machines[node].fence == Some(FenceOrder::StandbyOnly);
        match job {
            Job::Promote => {
                if !self.machines[node].pg.running {
                    return failed(JobFailure::Exited);
                }
                self.check_promotion(node);
                self.machines[node].pg.promote();
                self.promotions += 1;
            }
            Job::Start { role, .. } | Job::Restart { role, .. } => {
                if !open && !standby_only && self.bounds.planted != Some(Plant::NoFence) {
                    return failed(JobFailure::Fenced);
                }
                let pg = &mut self.machines[node].pg;
                match role {
                    StartRole::Primary => pg.start(true, None),
                    StartRole::Standby { upstream } => pg.start(false, upstream.clone()),
                }
            }
            Job::Stop {
                mode: StopMode::Fast, ..
            } => self.machines[node].pg.shut_down(),
            Job::Stop {
                mode: StopMode::Immediate,
                ..
            } => self.machines[node].pg.kill(),
            Job::Follow { upstream } => self.machines[node].pg.upstream.clone_from(upstream),
            Job::CrashRecovery => self.machines[node].pg.clean = true,
            Job::CheckDivergence { source } => match self.machine(&source.name) {
                Some(from) if from.pg.is_writable() => {
                    return JobOutcome::Divergence(self.machines[node].pg.divergence(&from.pg));
                }
                Some(_) | None => return failed(JobFailure::SourceNotReady),
            },
            Job::Rewind { source, .. } | Job::Clone { source } => match self.machine(&source.name) {
                Some(from) if from.pg.is_writable() => {
                    let from = from.pg.clone();
                    let pg = &mut self.machines[node].pg;
                    (pg.timeline, pg.end, pg.history) = (from.timeline, from.end, from.history);
                    (pg.primary, pg.clean, pg.checkpoint) = (false, true, None);
                }
                Some(_) | None => return failed(JobFailure::SourceNotReady),
            },
            Job::Bootstrap | Job::DiscardDataDir { .. } => return failed(JobFailure::Nothing),
        }
        JobOutcome::Done
    }

    fn machine(&self, name: &MemberName) -> Option<&super::cluster::Machine> {
        self.machines.iter().find(|m| m.name == *name)
    }

    // ---- what a step must not do ----

    /// S3: a promotion is begun on keys that were read after the proof.
    fn check_read_under_proof(&mut self, node: usize) {
        let view = self.machines[node].node.view();
        let proof = view.memory.proof.map(|p| p.revision);
        let read = view.cluster().map(|c| c.revision);
        if proof.is_none() || read.is_none() || proof > read {
            self.broken
                .push(("S3", "a promotion is begun on keys read before the proof".into()));
        }
    }

    /// S3 and S16: the proof was written, it still holds, and nobody took the key since.
    fn check_promotion(&mut self, node: usize) {
        let broken = match self.machines[node].node.view().memory.proof {
            Some(proof) => {
                let written = self.store.proofs.contains(&(proof.revision, node));
                let (taken, by) = self.store.taken;
                let alone = by == node || taken < proof.create_revision;
                let in_time = self.now(node).mono < proof.deadline;
                let all = written && alone && in_time;
                (!all).then(|| {
                    format!("promoted with a proof that was written: {written}, alone: {alone}, in time: {in_time}")
                })
            }
            None => Some("promoted without a proof".into()),
        };
        if let Some(text) = broken {
            self.broken.push(("S3", text));
        }
        if self.reached.handed_over {
            self.check_switchover(node);
        }
    }

    /// S15: whoever is promoted after a hand-over holds everything that the old leader wrote.
    fn check_switchover(&mut self, node: usize) {
        let ends = self.machines.iter().map(|m| m.pg.end).max();
        self.reached.switched = true;
        // What is lost when the new leader dies later is not the hand-over's.
        self.reached.handed_over = false;
        if ends > Some(self.machines[node].pg.end) {
            self.broken
                .push(("S15", "promoted without the end of the old leader's WAL".into()));
        }
    }

    /// S15: the key goes only when somebody holds the shutdown checkpoint, or when a daemon that must end found nobody.
    fn check_release(&mut self, by: usize) {
        let m = &self.machines[by];
        if m.pg.running && m.pg.primary {
            self.broken
                .push(("S1", "the leader key is released under a running primary".into()));
        }
        let given_up = m
            .node
            .last_decision()
            .is_some_and(|(d, _)| d.rule == Rule::ShutdownRelease);
        let Some(checkpoint) = m.pg.checkpoint.filter(|_| !given_up) else {
            return;
        };
        let received = |(i, m): (usize, &super::cluster::Machine)| i != by && m.pg.running && m.pg.end > checkpoint;
        if self.machines.iter().enumerate().any(received) {
            self.reached.handed_over = true;
        } else {
            self.broken.push((
                "S15",
                "the leader key is released and nobody holds the shutdown checkpoint".into(),
            ));
        }
    }
}
