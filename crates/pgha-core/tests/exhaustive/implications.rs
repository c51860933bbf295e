//! What a decision implies, whatever the facts. Each is written from the promise, not from the rules that keep it.

use pgha_core::check::check;
use pgha_core::cluster::{ClusterView, DcsView, Initialize, MemberState};
use pgha_core::decide::{Action, Decision};
use pgha_core::effect::{Effect, FenceOrder};
use pgha_core::event::OpId;
use pgha_core::job::{Job, StartRole};
use pgha_core::peer::{PeerStatus, PeerView};
use pgha_core::pg::{DataDir, UnfinishedWork};
use pgha_core::plan;
use pgha_core::units::{Lsn, MemberName, Timeline};
use pgha_core::view::{Divergence, HandoverReason, View, WatchdogView};

/// One implication.
pub struct Implication {
    pub name: &'static str,
    /// `None`: the premise does not hold. Else whether the conclusion does.
    pub holds: fn(&View, &Decision) -> Option<bool>,
}

macro_rules! implications {
    ($($name:literal => $holds:expr,)+) => {
        /// All of them.
        pub const ALL: &[Implication] = &[$(Implication { name: $name, holds: $holds },)+];
    };
}

implications! {
    "S3: a promotion follows a live proof of the very key that was read, read under it, on a standby" => |v, d| {
        let Action::Begin(Job::Promote) = d.action else { return None };
        Some(proven_key(v) && read_under_proof(v) && v.pg.says_standby() && !v.memory.cycle.refuted)
    },
    "S1: a start as primary follows a live proof of the very key that was read" => |v, d| {
        let Action::Begin(Job::Start { role: StartRole::Primary, .. }) = d.action else { return None };
        Some(proven_key(v) && !v.pg.is_running() && v.pg.control().is_some_and(|c| !c.recovery_signal))
    },
    "S1: a primary is restarted as one under a live proof, or in maintenance mode" => |v, d| {
        let Action::Begin(Job::Restart { role: StartRole::Primary, .. }) = d.action else { return None };
        Some(v.pg.says_primary() && (proven_key(v) || v.settings().pause))
    },
    "S7: a standby that takes the key asked everybody and knows of nobody ahead" => |v, d| {
        let (Action::AcquireLeaderKey, true) = (&d.action, v.pg.says_standby()) else { return None };
        let c = v.cluster()?;
        let asked = v.memory.cycle.peers_asked || others(v, c).next().is_none();
        let named = c.failover.as_ref().is_some_and(|f| f.candidate.as_ref() == Some(&v.me.name));
        let departing = c.failover.as_ref().and_then(|f| f.leader.as_ref());
        let ahead = answers(v, c).any(|(name, p)| {
            p.tags.may_lead() && p.in_recovery == Some(true) && in_sync(v, c, name) && Some(name) != departing && is_ahead(v, p)
        });
        Some(asked && (named || !ahead))
    },
    "S1: nobody takes the key while a peer says that it is the primary" => |v, d| {
        let (Action::AcquireLeaderKey, Some(c)) = (&d.action, v.cluster()) else { return None };
        // What this node has just created is nobody else's.
        if v.memory.bootstrap_claim.is_some() || (v.settings().pause && v.pg.says_primary()) {
            return None;
        }
        Some(!answers(v, c).any(|(_, p)| p.in_recovery == Some(false)))
    },
    "R10: a standby takes the key only after the last deadline of whoever led" => |v, d| {
        let (Action::AcquireLeaderKey, true) = (&d.action, v.pg.says_standby()) else { return None };
        Some(old_leader_is_over(v))
    },
    "R10: a primary without a proof takes the key only after the last deadline of whoever led" => |v, d| {
        let (Action::AcquireLeaderKey, true) = (&d.action, v.pg.says_primary() && v.memory.proof.is_none()) else {
            return None;
        };
        Some(v.settings().pause || old_leader_is_over(v))
    },
    "S8: a primary takes its key again only when nobody else wrote as leader since its proof" => |v, d| {
        let (Action::AcquireLeaderKey, true) = (&d.action, v.pg.says_primary() && !v.settings().pause) else { return None };
        let proof = v.memory.proof?;
        let status = v.cluster()?.status.as_ref()?;
        Some(status.writer.as_ref() == Some(&v.me.name) || status.mod_revision <= proof.revision)
    },
    "S8: a key that was neither taken in this cycle nor proven is not proven while a peer tells of a newer timeline" => |v, d| {
        let primary = v.memory.maybe_writable || v.pg.says_primary();
        let certain = primary || v.memory.cycle.acquired || v.live_proof_of_key().is_some();
        let mine = timeline(v)?;
        let newer = v.peers.values().any(|p| matches!(p, PeerView::Answered { status, .. } if status.timeline > Some(mine)));
        // In maintenance mode the key stays with whoever a person left it to, and makes nobody a primary.
        if certain || !newer || !v.holds_leader_key() || v.settings().pause {
            return None;
        }
        Some(d.action != Action::HoldLeaderKey)
    },
    "S8: a node whose timeline is behind /history neither takes nor uses the key" => |v, d| {
        let (Some(mine), Some(cluster)) = (timeline(v), v.cluster()?.timeline_by_history()) else { return None };
        if mine >= cluster || v.settings().pause || v.memory.job.is_some() {
            return None;
        }
        let leads = match &d.action {
            Action::AcquireLeaderKey => v.memory.bootstrap_claim.is_none() && v.pg.is_running(),
            Action::Begin(job) => plan::makes_writable(job) && !matches!(job, Job::Restart { .. }),
            _ => false,
        };
        Some(!leads)
    },
    "S10: a standby founds a scope that etcd lost only as somebody who knew it, or whom an operator named" => |v, d| {
        let (Action::AcquireLeaderKey, true) = (&d.action, v.pg.says_standby()) else { return None };
        let c = v.cluster()?;
        if c.initialize != Initialize::Absent {
            return None;
        }
        let knew = v.memory.known.system_id.is_some() && v.memory.known.system_id == v.pg.control().map(|c| c.system_id);
        let waited = v.memory.scope_empty_since.is_some_and(|at| v.now.mono >= at.plus(v.settings().ttl));
        Some(waited && (knew || named_by_operator(v)))
    },
    "a leader key that cannot be understood is not taken" => |v, d| {
        v.cluster()?.is_unreadable("leader").then(|| d.action != Action::AcquireLeaderKey)
    },
    "S6: in synchronous mode only a member of /sync takes the key, or whom an operator named" => |v, d| {
        let (Action::AcquireLeaderKey, true) = (&d.action, v.pg.says_standby()) else { return None };
        let c = v.cluster()?;
        let forced = c.failover.as_ref().is_some_and(|f| f.leader.is_none() && f.candidate.as_ref() == Some(&v.me.name));
        Some(in_sync(v, c, &v.me.name) || forced)
    },
    "S4: when a restored etcd brought /sync, the key is taken when all who are remembered answer and nobody is ahead" => |v, d| {
        let (Action::AcquireLeaderKey, true) = (&d.action, v.pg.says_standby()) else { return None };
        let c = v.cluster().filter(|c| v.settings().is_synchronous() && v.memory.sync_of_past == Some(c.sync_revision()))?;
        let forced = c.failover.as_ref().is_some_and(|f| f.leader.is_none() && f.candidate.as_ref() == Some(&v.me.name));
        let heard = |name: &MemberName| {
            matches!(v.peers.get(name), Some(PeerView::Answered { status, .. }) if status.lsn.is_some() && !is_ahead(v, status))
        };
        let known = &v.memory.known;
        Some(forced || (known.system_id.is_some() && known.members.keys().all(heard)))
    },
    "S6: with a quorum in /sync the key is taken by the last leader, or by a member that sees so many who are not ahead" => |v, d| {
        let (Action::AcquireLeaderKey, true) = (&d.action, v.pg.says_standby()) else { return None };
        let sync = v.cluster()?.sync.as_ref().filter(|s| s.quorum > 0 && v.settings().is_synchronous())?;
        if v.memory.sync_of_past == Some(sync.mod_revision) {
            return None;
        }
        if sync.leader.as_ref() == Some(&v.me.name) || named_by_operator(v) {
            return None;
        }
        let others = sync.standbys.iter().chain(&sync.leader).filter(|n| **n != v.me.name);
        let votes = others.filter(|n| {
            matches!(v.peers.get(n), Some(PeerView::Answered { status, .. }) if status.in_recovery == Some(true) && !is_ahead(v, status))
        });
        Some(votes.count() >= usize::try_from(sync.quorum).unwrap())
    },
    "S4: in synchronous mode nobody is promoted who would acknowledge commits alone" => |v, d| {
        let Action::Begin(Job::Promote) = d.action else { return None };
        let text = &v.pg.facts()?.synchronous_standby_names;
        v.settings().is_synchronous().then_some(text == "__patroni_strict_sync_replica_placeholder__")
    },
    "S4: a copy that /sync counts on is not stopped to be made anew" => |v, d| {
        let Action::Begin(Job::Stop { .. }) = d.action else { return None };
        v.memory.wishes.reinitialize.filter(|_| v.pg.says_standby() && !v.memory.terminating)?;
        let sync = v.cluster()?.sync.as_ref().filter(|_| v.settings().is_synchronous())?;
        Some(!sync.standbys.contains(&v.me.name))
    },
    "a node that must not lead takes no key as a standby" => |v, d| {
        (v.pg.says_standby() && !v.me.tags.may_lead()).then_some(d.action != Action::AcquireLeaderKey)
    },
    "S12: a node whose watchdog is required and failed becomes no primary" => |v, d| {
        if !v.me.watchdog_required || v.memory.watchdog != WatchdogView::Failed || v.settings().pause {
            return None;
        }
        let raced = d.action == Action::AcquireLeaderKey && v.pg.says_standby();
        let started = matches!(&d.action, Action::Begin(Job::Promote | Job::Start { role: StartRole::Primary, .. }));
        Some(!raced && !started)
    },
    "S10: initdb only over nothing, under the own claim, without a leader" => |v, d| {
        let Action::Begin(Job::Bootstrap) = d.action else { return None };
        let c = v.cluster()?;
        let nothing = matches!(v.pg.data_dir, DataDir::Empty | DataDir::Unfinished { what: UnfinishedWork::Bootstrap });
        let claimed = v.memory.bootstrap_claim.is_some() && matches!(c.initialize, Initialize::InProgress { .. });
        Some(nothing && claimed && c.leader.is_none())
    },
    "S10: the right to bootstrap is claimed only where nobody has data" => |v, d| {
        let Action::ClaimInitialize = d.action else { return None };
        let c = v.cluster()?;
        let free = c.initialize == Initialize::Absent && c.leader.is_none() && matches!(v.pg.data_dir, DataDir::Empty);
        let asked = v.memory.cycle.peers_asked || others(v, c).next().is_none();
        Some(free && asked && v.me.may_bootstrap && !answers(v, c).any(|(_, p)| p.system_id.is_some()))
    },
    "S9: data is removed only while another leader answers as primary, or what never was part of the cluster" => |v, d| {
        let Action::Begin(Job::DiscardDataDir { .. }) = d.action else { return None };
        let never = matches!(v.pg.data_dir, DataDir::Unfinished { what: UnfinishedWork::Bootstrap | UnfinishedWork::Clone });
        Some(!v.pg.is_running() && !v.holds_leader_key() && (never || other_primary_answers(v)))
    },
    "S9: pg_rewind runs only on a stopped, diverged directory while another leader runs as primary" => |v, d| {
        let Action::Begin(Job::Rewind { source, .. }) = &d.action else { return None };
        let c = v.cluster()?;
        let leader = c.leader_name().filter(|l| **l != v.me.name)?;
        let diverged = matches!(&v.memory.divergence, Divergence::Found { leader: of, .. } if of == leader);
        Some(source.name == *leader && diverged && !v.pg.is_running() && v.can_rewind())
    },
    "S9: a copy fills an empty directory, from another member, while somebody else leads" => |v, d| {
        let Action::Begin(Job::Clone { source }) = &d.action else { return None };
        let other = v.cluster()?.leader_name().is_some_and(|l| *l != v.me.name);
        Some(other && source.name != v.me.name && matches!(v.pg.data_dir, DataDir::Empty) && !v.pg.is_running())
    },
    "L2: a primary under a live proof is stopped only for a reason" => |v, d| {
        let stops = matches!(d.action, Action::Begin(Job::Stop { .. }) | Action::HandOver { .. });
        if !v.pg.says_primary() || !proven_key(v) || v.memory.job.is_some() {
            return None;
        }
        let c = v.cluster()?;
        let behind = timeline(v).zip(c.timeline_by_history()).is_some_and(|(mine, theirs)| mine < theirs);
        let watchdog = v.me.watchdog_required && v.memory.watchdog == WatchdogView::Failed;
        let silent = v.memory.cycle.dcs_silent && near_deadline(v);
        let wished = c.failover.is_some() || v.memory.terminating;
        Some(!stops || behind || watchdog || silent || wished)
    },
    "L2: without etcd a primary goes on until its deadline is near" => |v, d| {
        let away = v.cluster().is_none() && v.pg.is_running() && v.live_proof().is_some() && v.memory.job.is_none();
        if !away || v.memory.terminating || v.memory.failsafe.alone_since.is_some() {
            return None;
        }
        Some(near_deadline(v) || !matches!(d.action, Action::Begin(Job::Stop { .. }) | Action::HandOver { .. }))
    },
    "S2: without etcd a primary is stopped when its deadline is near" => |v, d| {
        let alone = v.cluster().is_none() && v.pg.says_primary() && v.memory.maybe_writable && v.memory.job.is_none();
        if !alone || v.settings().pause || !near_deadline(v) || v.memory.failures.stop.is_some() {
            return None;
        }
        Some(matches!(d.action, Action::Begin(Job::Stop { .. })))
    },
    "S1: who gave its word to a leader without etcd neither takes the key nor becomes a primary" => |v, d| {
        let word = v.memory.failsafe.word.as_ref().filter(|w| v.now.mono < w.until && !v.pg.says_primary())?;
        let released = v.cluster().and_then(|c| c.status.as_ref()).is_some_and(|s| s.released && s.writer.as_ref() == Some(&word.leader));
        let over = matches!(v.peers.get(&word.leader), Some(PeerView::Answered { status, .. })
            if !status.may_write && (status.in_recovery == Some(true) || status.state == MemberState::Stopped));
        if released || over {
            return None;
        }
        Some(match &d.action {
            Action::AcquireLeaderKey => false,
            Action::Begin(job) => !plan::makes_writable(job),
            _ => true,
        })
    },
    "S1: a standby that /failsafe does not list takes no key" => |v, d| {
        let key = v.cluster()?.failsafe.as_ref().filter(|_| v.pg.says_standby())?;
        (!key.members.contains_key(&v.me.name)).then_some(d.action != Action::AcquireLeaderKey)
    },
    "S2: a leader asks for leave to go on before its deadline, and everybody whose word it lacks" => |v, d| {
        let Action::AskFailsafe(who) = &d.action else { return None };
        let key = v.last_cluster()?.failsafe.as_ref()?;
        let lacks = |n: &&MemberName| **n != v.me.name && !v.memory.failsafe.acks.contains_key(*n);
        let all = key.members.keys().filter(lacks).all(|n| who.contains(n));
        Some(all && v.settings().failsafe_mode && v.memory.maybe_writable && !near_deadline(v) && key.members.contains_key(&v.me.name))
    },
    "S2: a leader whose proof has ended goes on only by the word of everybody" => |v, d| {
        let goes_on = matches!(d.action, Action::Rest) && v.pg.says_primary() && v.memory.maybe_writable && v.cluster().is_none();
        let ended = v.memory.proof.is_some_and(|p| v.now.mono >= p.deadline);
        if !goes_on || !ended || v.settings().pause || v.memory.job.is_some() || v.memory.terminating || v.memory.failures.stop.is_some() {
            return None;
        }
        Some(v.memory.failsafe.grant.is_some_and(|until| v.now.mono < until))
    },
    "S1: a primary that sees another leader is stopped at once" => |v, d| {
        let other = v.cluster()?.leader_name().is_some_and(|l| *l != v.me.name);
        let runs = v.pg.says_primary() && v.memory.job.is_none() && !v.settings().pause && !v.memory.terminating;
        if !other || !runs || of_another_cluster(v) || v.memory.failures.stop.is_some() {
            return None;
        }
        Some(matches!(d.action, Action::Begin(Job::Stop { .. })))
    },
    "S14: in maintenance mode PostgreSQL is touched only for an operator" => |v, d| {
        if !v.settings().pause {
            return None;
        }
        let wished = match &d.action {
            Action::HandOver { .. } => v.cluster().is_some_and(|c| c.failover.is_some()),
            Action::Begin(Job::Promote) => named_by_operator(v) || v.memory.cycle.acquired_in_pause,
            Action::Begin(Job::Restart { .. }) => v.memory.wishes.restart.is_some(),
            Action::Begin(Job::DiscardDataDir { .. } | Job::Clone { .. }) => v.memory.wishes.reinitialize.is_some(),
            Action::Begin(job) => {
                // The steps of a reinitialisation, and of a hand-over that was asked for.
                let timed_out = v.memory.failures.promote.is_some() && matches!(job, Job::Stop { .. });
                timed_out || v.memory.wishes.reinitialize.is_some() || v.memory.handover.is_some()
            }
            Action::Exit { leave_running, .. } => *leave_running,
            _ => true,
        };
        Some(wished)
    },
    "S1: the key is not released under a running primary" => |v, d| {
        let Action::ReleaseLeaderKey { .. } = d.action else { return None };
        let shut_down = v.memory.handover.as_ref().is_some_and(|h| h.checkpoint.is_some());
        Some(v.holds_leader_key() && (!v.pg.says_primary() || shut_down || v.settings().pause))
    },
    "S15: a hand-over releases the key only to somebody who holds the shutdown checkpoint" => |v, d| {
        let Action::ReleaseLeaderKey { optime: Some(optime) } = d.action else { return None };
        let (c, plan) = (v.cluster()?, v.memory.handover.as_ref()?);
        let checkpoint = plan.checkpoint?;
        let holds = answers(v, c).any(|(name, p)| {
            let wanted = plan.candidate.as_ref().is_none_or(|w| w == name);
            wanted && p.tags.may_lead() && p.in_recovery == Some(true) && p.lsn > Some(checkpoint)
        });
        let patience_over = v.now.mono.since(plan.since) >= v.settings().retry_timeout || others(v, c).next().is_none();
        let ending = plan.reason == HandoverReason::Shutdown && patience_over && v.memory.job.is_none();
        Some(optime == checkpoint && (holds || ending))
    },
    "only one job at a time" => |v, d| {
        v.memory.job.as_ref()?;
        Some(!matches!(d.action, Action::Begin(_) | Action::HandOver { .. }))
    },
    "S10: a node with the data of another cluster does nothing but go" => |v, d| {
        if !of_another_cluster(v) || v.memory.job.is_some() || v.memory.terminating || v.cluster().is_none() {
            return None;
        }
        Some(match &d.action {
            Action::Rest | Action::ReleaseLeaderKey { .. } => v.settings().pause,
            Action::Exit { leave_running, .. } => *leave_running,
            _ => false,
        })
    },
    "nothing is written on keys that were not read" => |v, d| {
        let writes = matches!(
            d.action,
            Action::AcquireLeaderKey
                | Action::TakeOverOwnKey
                | Action::ReleaseLeaderKey { .. }
                | Action::ClaimInitialize
                | Action::CancelInitialize
                | Action::UpdateFailover(_)
                | Action::HoldLeaderKey
        );
        (!matches!(v.dcs, DcsView::Fresh(_))).then_some(!writes)
    },
    "only a holder proves or releases the key, and only on its lease" => |v, d| {
        let own = matches!(d.action, Action::HoldLeaderKey | Action::ReleaseLeaderKey { .. });
        own.then(|| v.holds_leader_key())
    },
    "the key is taken only when nobody holds it" => |v, d| {
        (d.action == Action::AcquireLeaderKey).then(|| v.cluster().is_some_and(|c| c.leader.is_none()))
    },
    "the daemon does not end over a running PostgreSQL that it should stop" => |v, d| {
        let Action::Exit { leave_running: false, .. } = d.action else { return None };
        Some(!v.pg.is_running())
    },
    "a rest lasts" => |v, d| {
        (d.action == Action::Rest).then(|| d.wake_at.is_none_or(|at| at > v.now.mono))
    },
    "peers are asked once per cycle, and somebody is asked" => |v, d| {
        let Action::AskPeers(who) = &d.action else { return None };
        Some(!who.is_empty() && !v.memory.cycle.peers_asked && !who.contains(&v.me.name))
    },
    "the last check would allow every job that is begun" => |v, d| {
        let Action::Begin(job) = &d.action else { return None };
        let mut armed = v.clone();
        armed.memory.fence = match v.memory.proof {
            _ if v.settings().pause => Some(FenceOrder::Paused),
            Some(proof) => Some(FenceOrder::Until(proof.deadline)),
            None => None,
        };
        Some(check(&armed, &Effect::StartJob { op: OpId(1), job: job.clone() }).is_ok())
    },
    "R6: every transaction that a decision leads to passes the last check" => |v, d| {
        let commit = match &d.action {
            Action::AcquireLeaderKey => plan::acquire(v),
            Action::TakeOverOwnKey => plan::take_over(v),
            Action::ReleaseLeaderKey { optime } => plan::release(v, *optime),
            Action::HoldLeaderKey => plan::prove(v),
            Action::ClaimInitialize => plan::claim_initialize(v),
            Action::CancelInitialize => plan::cancel_initialize(v),
            _ => None,
        }?;
        let mut stopped = v.clone();
        // By the time a hand-over releases the key the node has noted that nothing is writable any more.
        stopped.memory.maybe_writable &= v.pg.says_primary() && v.memory.handover.is_none();
        let effect = Effect::Commit { op: OpId(1), commit, budget: v.settings().retry_timeout };
        Some(check(&stopped, &effect).is_ok())
    },
}

// ---- words for what is promised ----

/// A live proof of the leader key that was read, which is ours on our lease.
fn proven_key(v: &View) -> bool {
    let (Some(proof), Some(leader)) = (v.memory.proof, v.cluster().and_then(|c| c.leader.as_ref())) else {
        return false;
    };
    let mine = leader.name == v.me.name && v.memory.lease.is_some_and(|l| leader.lease == Some(l.id));
    mine && v.now.mono < proof.deadline && proof.create_revision == leader.create_revision
}

fn read_under_proof(v: &View) -> bool {
    v.cluster()
        .zip(v.memory.proof)
        .is_some_and(|(c, proof)| proof.revision <= c.revision)
}

fn others<'a>(v: &'a View, c: &'a ClusterView) -> impl Iterator<Item = &'a MemberName> {
    let known = c
        .members
        .iter()
        .filter(|(name, m)| **name != v.me.name && m.api_url.is_some());
    known.map(|(name, _)| name)
}

fn answers<'a>(v: &'a View, c: &'a ClusterView) -> impl Iterator<Item = (&'a MemberName, &'a PeerStatus)> {
    others(v, c).filter_map(|name| match v.peers.get(name) {
        Some(PeerView::Answered { status, .. }) => Some((name, status)),
        Some(PeerView::NotAsked | PeerView::Unreachable { .. } | PeerView::Impostor { .. }) | None => None,
    })
}

fn timeline(v: &View) -> Option<Timeline> {
    v.pg.facts().and_then(|f| f.timeline()).max(v.memory.timeline_floor)
}

/// On a newer timeline, or further on the same.
fn is_ahead(v: &View, peer: &PeerStatus) -> bool {
    let mine = v.pg.facts().and_then(|f| f.lsn()).unwrap_or(Lsn(0));
    match (timeline(v), peer.timeline) {
        (Some(mine), Some(theirs)) if mine != theirs => theirs > mine,
        _ => peer.lsn > Some(mine),
    }
}

fn in_sync(v: &View, c: &ClusterView, name: &MemberName) -> bool {
    match &c.sync {
        Some(sync) if v.memory.sync_of_past == Some(sync.mod_revision) => true,
        Some(sync) if v.settings().is_synchronous() && sync.leader.is_some() => {
            sync.leader.as_ref() == Some(name) || sync.standbys.contains(name)
        }
        Some(_) | None => true,
    }
}

fn named_by_operator(v: &View) -> bool {
    let wish = v.last_cluster().and_then(|c| c.failover.as_ref());
    wish.is_some_and(|f| f.candidate.as_ref() == Some(&v.me.name))
}

/// Nobody who led before may still count on its lease.
fn old_leader_is_over(v: &View) -> bool {
    let Some(c) = v.cluster() else { return false };
    let longer = v.memory.longer_ttl.filter(|(_, until)| v.now.mono < *until);
    let ttl = longer.map_or(v.settings().ttl, |(ttl, _)| ttl.max(v.settings().ttl));
    if v.memory.store_replaced_at.is_some_and(|at| v.now.mono < at.plus(ttl)) {
        return false;
    }
    let Some(sight) = &v.memory.sight else { return true };
    let status = c.status.as_ref();
    let holder = status.and_then(|s| s.writer.as_ref()).or(sight.holder.as_ref());
    let stopped = |p: &PeerStatus| !p.may_write && (p.in_recovery == Some(true) || p.state == MemberState::Stopped);
    status.is_some_and(|s| s.released)
        || v.now.mono >= sight.at.plus(ttl)
        || holder.is_some_and(|h| matches!(v.peers.get(h), Some(PeerView::Answered { status, .. }) if stopped(status)))
        || (holder == Some(&v.me.name) && v.memory.proof.is_none())
}

fn other_primary_answers(v: &View) -> bool {
    let leader = v.cluster().and_then(|c| c.leader_name()).filter(|l| **l != v.me.name);
    leader.is_some_and(
        |l| matches!(v.peers.get(l), Some(PeerView::Answered { status, .. }) if status.in_recovery == Some(false)),
    )
}

fn of_another_cluster(v: &View) -> bool {
    let cluster = v.cluster().map(|c| c.initialize);
    matches!((cluster, v.pg.control()), (Some(Initialize::Done(id)), Some(control)) if id != control.system_id)
}

fn near_deadline(v: &View) -> bool {
    let deadline = match (v.memory.proof, v.memory.fence) {
        (Some(proof), _) => v
            .memory
            .failsafe
            .grant
            .map_or(proof.deadline, |until| until.max(proof.deadline)),
        (None, Some(FenceOrder::Until(at))) => at,
        (None, Some(FenceOrder::StandbyOnly | FenceOrder::Paused) | None) => return false,
    };
    v.now.mono >= deadline.minus(v.settings().demote_lead())
}
