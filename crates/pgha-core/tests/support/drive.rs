//! Drives a node through events. Effects that need an answer stay open until the scenario answers them, one by one or
//! all together by `run`; the answers are true to the facts of the scenario unless it says that they get lost.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use pgha_core::cluster::ClusterView;
use pgha_core::commit::{CommitOutcome, Key};
use pgha_core::effect::Effect;
use pgha_core::event::{Event, KeepAnswer, OpId, Wake};
use pgha_core::failsafe::{Ack, Question, Reply};
use pgha_core::job::{Job, JobOutcome, JobProgress};
use pgha_core::node::Node;
use pgha_core::peer::PeerView;
use pgha_core::pg::PgView;
use pgha_core::request::{Request, RequestId};
use pgha_core::rule::Rule;
use pgha_core::sync::{SyncOutcome, SyncTask};
use pgha_core::units::{LeaseId, MemberName, Mono, Revision};

use super::etcd::MiniEtcd;
use super::line::{Line, lsn};
use super::world::{FailsafeReply, Reach, World, api_url, conn_url, lease_of};
use super::{jobs, memory, postgres, render};

/// More answers than any cycle needs; reaching it means that the node goes round and round.
const MAX_ANSWERS: usize = 200;

/// Time between two events, so that each has its own point in time.
const TICK: Duration = Duration::from_nanos(1);

/// An effect that waits for its answer.
#[derive(Clone)]
pub struct Open {
    pub op: OpId,
    pub effect: Effect,
    pub sent_at: Mono,
}

/// A node under test.
pub struct Drive {
    pub node: Node,
    pub etcd: MiniEtcd,
    /// In the order in which they were asked for; the running job is not among them.
    pub open: VecDeque<Open>,
    pub job: Option<Open>,
    /// Rules that decided something.
    pub rules: BTreeSet<Rule>,
    /// All effects, for properties that look at what was done.
    pub effects: Vec<Effect>,
    /// Effects that the node's own last check refused, and second jobs.
    pub refused: Vec<String>,
}

impl Drive {
    pub fn new(w: &World) -> Drive {
        Drive {
            node: Node::new(w.now, w.me.clone()),
            etcd: MiniEtcd::new(),
            open: VecDeque::new(),
            job: None,
            rules: BTreeSet::new(),
            effects: Vec::new(),
            refused: Vec::new(),
        }
    }

    /// Sends one event and tells what came of it.
    pub fn send(&mut self, w: &mut World, event: Event) -> Vec<String> {
        w.pass(TICK);
        let effects = self.node.handle(w.now, event);
        let mut lines = Vec::new();
        if let Some((decision, at)) = self.node.last_decision()
            && at == w.now.mono
        {
            self.rules.insert(decision.rule);
            lines.push(render::decision(decision, w.now.mono));
        }
        for effect in effects {
            self.note(w.now.mono, &effect);
            let text = render::effect(&effect);
            match (lines.last_mut(), &effect) {
                // The two halves of one look belong together.
                (Some(last), Effect::Observe { .. }) if last == "read etcd" => last.push_str(", observe"),
                // Nothing waits for it, and it changes with every member that comes: a scenario asks for it.
                (_, Effect::Remember(_)) => {}
                _ => lines.push(text),
            }
            self.effects.push(effect);
        }
        for v in self.node.take_violations() {
            let text = format!("REFUSED {}: {}", v.invariant, v.what);
            lines.push(text.clone());
            self.refused.push(text);
        }
        lines
    }

    fn note(&mut self, sent_at: Mono, effect: &Effect) {
        let effect = effect.clone();
        match effect {
            Effect::ReadDcs { op, .. }
            | Effect::Observe { op, .. }
            | Effect::AskPeers { op, .. }
            | Effect::AskFailsafe { op, .. }
            | Effect::GrantLease { op, .. }
            | Effect::KeepLease { op, .. }
            | Effect::Commit { op, .. }
            | Effect::Tend { op, .. }
            | Effect::TendSync { op, .. } => self.open.push_back(Open { op, effect, sent_at }),
            Effect::StartJob { op, .. } => {
                if let Some(running) = &self.job {
                    self.refused
                        .push(format!("a job was begun while {} ran", render::effect(&running.effect)));
                }
                self.job = Some(Open { op, effect, sent_at });
            }
            Effect::SetFence(_)
            | Effect::Remember(_)
            | Effect::CancelJob { .. }
            | Effect::Callback { .. }
            | Effect::Answer { .. }
            | Effect::Exit { .. } => {}
        }
    }

    /// Answers everything truthfully, in order, until nothing but a job is open, or until an effect of this kind is.
    pub fn run(&mut self, w: &mut World, until: Option<&str>) -> Result<Vec<String>, String> {
        let mut lines = Vec::new();
        for _ in 0..MAX_ANSWERS {
            let Some(open) = self.open.front().cloned() else {
                return match until {
                    Some(kind) => Err(format!(
                        "nothing is open, and `{kind}` never came:\n{}",
                        lines.join("\n")
                    )),
                    None => Ok(lines),
                };
            };
            if until == Some(kind(&open.effect)) {
                return Ok(lines);
            }
            self.open.pop_front();
            let answer = self.truth(w, &open);
            lines.extend(self.send(w, answer));
        }
        Err(format!("the node goes round and round:\n{}", lines.join("\n")))
    }

    /// The true answer to an open effect.
    pub fn truth(&mut self, w: &mut World, open: &Open) -> Event {
        let (op, sent_at) = (open.op, open.sent_at);
        let reachable = w.reach == Reach::Fresh;
        match &open.effect {
            Effect::ReadDcs { .. } => dcs_read(op, sent_at, reachable.then(|| w.cluster_as_read())),
            Effect::Observe { .. } => observed(w, op, sent_at),
            Effect::AskPeers { peers, .. } => {
                let answer = |name: &MemberName| w.peers.get(name).cloned();
                let nobody = PeerView::Unreachable { at: w.now.mono };
                let answers = peers
                    .iter()
                    .map(|(name, _)| (name.clone(), answer(name).unwrap_or(nobody.clone())))
                    .collect();
                Event::PeersAnswered { op, answers }
            }
            Effect::AskFailsafe { peers, .. } => {
                let answer = |name: &MemberName| match w.failsafe_replies.get(name) {
                    Some(FailsafeReply::Accepted(lsn, read)) => Reply::Accepted(Ack {
                        sent_at,
                        lsn: *lsn,
                        dcs_read_at: read.map(|ago| w.now.mono.minus(ago)),
                    }),
                    Some(FailsafeReply::Refused(why)) => Reply::Refused(why.clone()),
                    None => Reply::Silent,
                };
                let replies = peers.iter().map(|(name, _)| (name.clone(), answer(name))).collect();
                Event::FailsafeAnswered { op, replies }
            }
            Effect::GrantLease { ttl, .. } => Event::LeaseGranted {
                op,
                sent_at,
                lease: reachable.then(|| self.etcd.grant(w.now.mono, *ttl)),
            },
            Effect::KeepLease { lease, .. } => Event::LeaseKept {
                op,
                sent_at,
                answer: match reachable.then(|| self.keep(w, *lease)) {
                    None => KeepAnswer::Unknown,
                    Some(true) => KeepAnswer::Alive,
                    Some(false) => KeepAnswer::Gone,
                },
            },
            Effect::Commit { commit, .. } => Event::Committed {
                op,
                sent_at,
                outcome: if reachable {
                    self.etcd.commit(w, commit)
                } else {
                    CommitOutcome::Unknown
                },
            },
            Effect::TendSync { task, .. } => {
                if let SyncTask::SetNames(text) = task {
                    postgres::read_names(w, text);
                }
                let outcome = SyncOutcome::Done;
                Event::SyncTended { op, outcome }
            }
            Effect::Tend { .. }
            | Effect::SetFence(_)
            | Effect::Remember(_)
            | Effect::StartJob { .. }
            | Effect::CancelJob { .. }
            | Effect::Callback { .. }
            | Effect::Answer { .. }
            | Effect::Exit { .. } => Event::Tended { op },
        }
    }

    /// A lease keeps the ttl that it was granted with.
    fn keep(&mut self, w: &World, lease: LeaseId) -> bool {
        let ttl = match self.node.view().memory.lease {
            Some(mine) if mine.id == lease => mine.ttl,
            Some(_) | None => w.settings.ttl,
        };
        self.etcd.keep(lease, w.now.mono, ttl)
    }

    /// One line that begins with `on`: an event.
    pub fn on(&mut self, w: &mut World, line: &mut Line) -> Result<Vec<String>, String> {
        let what = line.needs("an event")?;
        let event = match what.as_str() {
            "wake" => Event::Wake(wake(line)?),
            "hint" => Event::Wake(hint(w, line)?),
            "look" => {
                let read = self.take("read")?;
                let observe = self.take("observe")?;
                let mut lines = Vec::new();
                for open in [read, observe] {
                    let event = self.truth(w, &open);
                    lines.extend(self.send(w, event));
                }
                return Ok(lines);
            }
            "read" | "observe" | "peers" | "failsafe" | "keep" | "grant" | "commit" | "tend" | "sync" => {
                self.answer(w, &what, line)?
            }
            "stale" => stale(w, line)?,
            "job" => self.job(line)?,
            "request" => request(w, line)?,
            "fence" => match line.needs("fired, lost or attached")?.as_str() {
                "fired" => Event::FenceFired,
                "lost" => Event::FenceLost,
                "attached" => Event::FenceAttached(memory::fence_order(w, line)?.ok_or("which order?")?),
                other => return Err(format!("on fence {other} is not known")),
            },
            "watchdog" => Event::Watchdog(memory::watchdog(line)?),
            "reconfigured" => Event::Reconfigured(Box::new(w.me.clone())),
            "terminate" => Event::Terminate,
            "expire" => {
                let name = line.needs("whose lease")?;
                let lease = match name.parse() {
                    Ok(id) => LeaseId(id),
                    Err(_) => lease_of(&name.as_str().into()),
                };
                self.etcd.expire(w, lease);
                return Ok(Vec::new());
            }
            other => return Err(format!("there is no event `{other}`")),
        };
        Ok(self.send(w, event))
    }

    fn take(&mut self, wanted: &str) -> Result<Open, String> {
        let at = self
            .open
            .iter()
            .position(|o| kind(&o.effect) == wanted || general(&o.effect) == wanted)
            .ok_or_else(|| format!("no `{wanted}` is open"))?;
        self.open.remove(at).ok_or_else(|| "it was just there".into())
    }

    /// An answer to an open effect, true or with the fault that the line names.
    fn answer(&mut self, w: &mut World, what: &str, line: &mut Line) -> Result<Event, String> {
        let open = self.take(what)?;
        let (op, sent_at) = (open.op, open.sent_at);
        let committed = |outcome| Event::Committed { op, sent_at, outcome };
        let Some(fault) = line.word() else {
            return Ok(self.truth(w, &open));
        };
        Ok(match (what, fault.as_str()) {
            ("read", "lost") => dcs_read(op, sent_at, None),
            ("grant", "lost") => Event::LeaseGranted {
                op,
                sent_at,
                lease: None,
            },
            ("keep", "lost") => Event::LeaseKept {
                op,
                sent_at,
                answer: KeepAnswer::Unknown,
            },
            // etcd may answer so for a lease that is gone already (etcd issue 20590).
            ("keep", "alive") => {
                self.truth(w, &open);
                Event::LeaseKept {
                    op,
                    sent_at,
                    answer: KeepAnswer::Alive,
                }
            }
            // It was applied, and only the answer was lost.
            ("commit", "lost") => {
                self.truth(w, &open);
                committed(CommitOutcome::Unknown)
            }
            ("commit", "dropped") => committed(CommitOutcome::Unknown),
            ("commit", "refused") => committed(CommitOutcome::Refused),
            ("sync", "acknowledged" | "failed") => Event::SyncTended {
                op,
                outcome: if fault == "failed" {
                    SyncOutcome::Failed
                } else {
                    SyncOutcome::Acknowledged
                },
            },
            // The new text is in force for new sessions, and the wal senders have not read it yet.
            ("sync", "unread") => {
                if let Effect::TendSync {
                    task: SyncTask::SetNames(text),
                    ..
                } = &open.effect
                {
                    w.set(&format!("names \"{}\"", text.replace('"', "")))?;
                }
                let outcome = SyncOutcome::Done;
                Event::SyncTended { op, outcome }
            }
            _ => return Err(format!("`{fault}` is no fault of `{what}`")),
        })
    }

    fn job(&mut self, line: &mut Line) -> Result<Event, String> {
        let op = self.job.as_ref().ok_or("no job is running")?.op;
        let what = line.needs("done, failed, cancelled, found, shutdown, copied or step")?;
        let stops = matches!(
            &self.job.as_ref().map(|j| &j.effect),
            Some(Effect::StartJob {
                job: Job::Stop { .. } | Job::Restart { .. },
                ..
            })
        );
        if what == "shutdown" && !stops {
            return Err("this job stops nothing".into());
        }
        if matches!(what.as_str(), "done" | "failed" | "cancelled" | "found") {
            self.job = None;
        }
        let ended = |outcome| Event::JobEnded { op, outcome };
        Ok(match what.as_str() {
            "done" => ended(JobOutcome::Done),
            "cancelled" => ended(JobOutcome::Cancelled),
            "failed" => ended(JobOutcome::Failed {
                failure: memory::failure_kind(&line.needs("a kind of failure")?)?,
                reason: line.word().unwrap_or_else(|| "it broke".into()),
            }),
            "found" => ended(JobOutcome::Divergence(jobs::divergence(line)?)),
            "shutdown" => Event::JobProgress {
                op,
                progress: JobProgress::ShutDown {
                    checkpoint: lsn(&line.needs("a position")?)?,
                },
            },
            "copied" => Event::JobProgress {
                op,
                progress: JobProgress::Copied { done: 5, total: 10 },
            },
            "step" => Event::JobProgress {
                op,
                progress: JobProgress::Step("half of it".into()),
            },
            other => return Err(format!("on job {other} is not known")),
        })
    }

    /// What outsiders see of the node.
    pub fn show(&self, w: &World) -> String {
        let v = self.node.view();
        let m = &v.memory;
        let yes = |b: bool| if b { "yes" } else { "no" };
        let proof = m
            .proof
            .map_or("none".into(), |p| format!("until {} ms", render::clock(p.deadline)));
        let lease = match m.lease.map(|l| (l.id, self.etcd.lease_ends(l.id))) {
            Some((id, Some(ends))) => format!("lease {} until {} ms", id.0, render::clock(ends)),
            Some((id, None)) => format!("lease {}", id.0),
            None => "no lease".into(),
        };
        format!(
            "/primary {}; writable {}; {lease}; proof {proof}; {}; next wake at {} ms",
            yes(v.answers_as_primary(w.now.mono)),
            yes(m.maybe_writable),
            m.fence.map_or("no fence".into(), render::fence),
            render::clock(self.node.next_wake()),
        )
    }

    /// Time allowed for each open effect.
    /// What was last put on disk.
    pub fn kept(&self) -> Vec<String> {
        let kept = self.effects.iter().rev().find(|e| matches!(e, Effect::Remember(_)));
        kept.map(render::effect).into_iter().collect()
    }

    pub fn budgets(&self) -> Vec<String> {
        let budget = |e: &Effect| match e {
            Effect::ReadDcs { budget, .. }
            | Effect::Observe { budget, .. }
            | Effect::AskPeers { budget, .. }
            | Effect::AskFailsafe { budget, .. }
            | Effect::GrantLease { budget, .. }
            | Effect::KeepLease { budget, .. }
            | Effect::Commit { budget, .. } => budget.as_millis().to_string(),
            Effect::Tend { .. }
            | Effect::TendSync { .. }
            | Effect::SetFence(_)
            | Effect::Remember(_)
            | Effect::StartJob { .. }
            | Effect::CancelJob { .. }
            | Effect::Callback { .. }
            | Effect::Answer { .. }
            | Effect::Exit { .. } => "no".into(),
        };
        self.open
            .iter()
            .map(|o| format!("{}: {} ms", kind(&o.effect), budget(&o.effect)))
            .collect()
    }
}

/// The word for an effect that waits for an answer; commits go by their purpose.
pub fn kind(effect: &Effect) -> &'static str {
    match effect {
        Effect::Commit { commit, .. } => render::purpose(commit.purpose),
        other => general(other),
    }
}

fn general(effect: &Effect) -> &'static str {
    match effect {
        Effect::ReadDcs { .. } => "read",
        Effect::Observe { .. } => "observe",
        Effect::AskPeers { .. } => "peers",
        Effect::AskFailsafe { .. } => "failsafe",
        Effect::GrantLease { .. } => "grant",
        Effect::KeepLease { .. } => "keep",
        Effect::Commit { .. } => "commit",
        Effect::Tend { .. } => "tend",
        Effect::TendSync { .. } => "sync",
        Effect::SetFence(_)
        | Effect::Remember(_)
        | Effect::StartJob { .. }
        | Effect::CancelJob { .. }
        | Effect::Callback { .. }
        | Effect::Answer { .. }
        | Effect::Exit { .. } => "nothing that is answered",
    }
}

fn dcs_read(op: OpId, sent_at: Mono, view: Option<ClusterView>) -> Event {
    Event::DcsRead {
        op,
        sent_at,
        view: view.map(Box::new),
    }
}

fn observed(w: &World, op: OpId, observed_at: Mono) -> Event {
    Event::Observed {
        op,
        view: Box::new(PgView {
            observed_at,
            ..w.pg.clone()
        }),
        timeline_history: w.timeline_history.clone(),
    }
}

fn wake(line: &mut Line) -> Result<Wake, String> {
    Ok(match line.word().as_deref() {
        None | Some("now") => Wake::Now,
        Some("timer") => Wake::Timer,
        Some("resync") => Wake::Resync,
        Some("exited") => Wake::PostmasterExited,
        Some(other) => return Err(format!("on wake {other} is not known")),
    })
}

/// `hint leader`, `hint member b`, at the present revision or `rev=`.
fn hint(w: &World, line: &mut Line) -> Result<Wake, String> {
    let key = match line.needs("a key")?.as_str() {
        "leader" => Key::Leader,
        "failover" => Key::Failover,
        "config" => Key::Config,
        "status" => Key::Status,
        "member" => Key::Member(MemberName::new(line.needs("a name")?)),
        other => return Err(format!("on hint {other} is not known")),
    };
    let mod_revision = line.number("rev")?.map_or(w.cluster.revision, Revision);
    Ok(Wake::Hint { key, mod_revision })
}

/// An answer to an operation that nobody waits for.
fn stale(w: &World, line: &mut Line) -> Result<Event, String> {
    let op = OpId(999_999);
    let sent_at = w.now.mono;
    Ok(match line.needs("which")?.as_str() {
        "read" => dcs_read(op, sent_at, Some(w.cluster_as_read())),
        "observe" => observed(w, op, sent_at),
        "peers" => Event::PeersAnswered {
            op,
            answers: w.peers.clone(),
        },
        "keep" => Event::LeaseKept {
            op,
            sent_at,
            answer: KeepAnswer::Gone,
        },
        "grant" => Event::LeaseGranted {
            op,
            sent_at,
            lease: Some(LeaseId(999)),
        },
        "commit" => Event::Committed {
            op,
            sent_at,
            outcome: CommitOutcome::Applied {
                revision: Revision(999),
            },
        },
        "tend" => Event::Tended { op },
        "sync" => Event::SyncTended {
            op,
            outcome: SyncOutcome::Done,
        },
        "job" => Event::JobEnded {
            op,
            outcome: JobOutcome::Done,
        },
        other => return Err(format!("on stale {other} is not known")),
    })
}

fn request(w: &World, line: &mut Line) -> Result<Event, String> {
    let what = line.needs("restart, schedule, unschedule, reinitialize or failsafe")?;
    let id = RequestId(line.number("id")?.unwrap_or(1));
    let request = match what.as_str() {
        "restart" => Request::Restart(memory::restart_request(line)?),
        "schedule" => Request::ScheduleRestart {
            at: w.wall_at(&line.value("at").ok_or("at= is missing")?)?,
            request: memory::restart_request(line)?,
            text: "{}".into(),
        },
        "unschedule" => Request::CancelScheduledRestart,
        "reinitialize" => Request::Reinitialize {
            force: line.flag("force"),
            from_leader: line.flag("from_leader"),
        },
        "failsafe" => Request::Failsafe(question(line)?),
        other => return Err(format!("on request {other} is not known")),
    };
    Ok(Event::Requested { id, request })
}

/// `failsafe b ttl=30s to=a scope=demo`: a leader without etcd asks. Patroni tells neither its ttl nor whom it means.
fn question(line: &mut Line) -> Result<Question, String> {
    let name = line.needs("who asks")?;
    let addressee = line.value("to").map(MemberName::new);
    let scope = line.value("scope").unwrap_or_else(|| "demo".into());
    Ok(Question {
        conn_url: conn_url(&name),
        api_url: api_url(&name),
        name: MemberName::new(name),
        slots: memory::slots(line)?,
        ttl: line.duration("ttl")?,
        addressee: addressee.map(|to| (scope, to)),
    })
}
