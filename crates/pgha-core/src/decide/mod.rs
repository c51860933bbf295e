//! The rules. [`decide`] is total: no error, no panic, the same view gives the same decision.
//!
//! One file per situation; this one only tells the situations apart. A decision is one action. When its outcome is
//! known within the cycle (a commit, the answers of peers) the node folds it in and decides again.

mod bootstrap;
mod dcs_lost;
mod follow;
mod handover;
mod job;
mod lead;
mod no_data_dir;
mod no_leader;
mod pg_down;
mod scope_lost;
mod shutdown;
mod system_id;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

pub(crate) use job::describe;
pub(crate) use lead::restart_refusal;

use crate::cluster::{ClusterView, DcsView, MemberRole};
use crate::commit::FailoverValue;
use crate::job::{Job, StopMode, Upstream};
use crate::peer::PeerStatus;
use crate::pg::{DataDir, Postmaster, PostmasterPhase, SqlView};
use crate::race;
use crate::rule::Rule;
use crate::units::{Lsn, MemberName, Mono};
use crate::view::{Failure, HandoverReason, View};

/// What was decided, and why.
#[derive(Clone, PartialEq, Debug)]
pub struct Decision {
    /// The rule that applied.
    pub rule: Rule,
    /// What is to be done.
    pub action: Action,
    /// The reason with its figures, for people; Patroni's wording where it has one.
    pub because: String,
    /// When something may change by the mere passing of time.
    pub wake_at: Option<Mono>,
}

/// One action.
#[derive(Clone, PartialEq, Debug)]
pub enum Action {
    /// Nothing more in this cycle.
    Rest,
    /// Read etcd and observe PostgreSQL once more before deciding.
    LookAgain,
    /// Keepalive, then the guarded write.
    HoldLeaderKey,
    /// Take the leader key.
    AcquireLeaderKey,
    /// Put our own leader key, found on another lease, on our lease.
    TakeOverOwnKey,
    /// Give the leader key up with the release marker.
    ReleaseLeaderKey {
        /// Position to publish; `None` keeps the last one.
        optime: Option<Lsn>,
    },
    /// Claim `/initialize`.
    ClaimInitialize,
    /// Give the claim back.
    CancelInitialize,
    /// Rewrite `/failover`.
    UpdateFailover(Option<FailoverValue>),
    /// Ask these members.
    AskPeers(Vec<MemberName>),
    /// Ask these members whether this leader may go on without etcd.
    AskFailsafe(Vec<MemberName>),
    /// Stop PostgreSQL as the first step of a hand-over.
    HandOver {
        /// Why.
        reason: HandoverReason,
        /// Only to this one.
        candidate: Option<MemberName>,
    },
    /// End a hand-over that nobody could take.
    AbortHandOver,
    /// Begin a job.
    Begin(Job),
    /// Cancel the running job.
    CancelJob,
    /// End the daemon.
    Exit {
        /// Exit code.
        code: i32,
        /// Leave PostgreSQL running.
        leave_running: bool,
    },
}

/// How often a copy, start, rewind or check that failed is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(5);
/// The same while the failures go on.
const RETRY_PAUSE_LONG: Duration = Duration::from_secs(30);
/// How soon peers are asked again while somebody is waited for.
pub(crate) const POLL: Duration = Duration::from_millis(100);
/// How soon a node that lost the race looks again.
pub(crate) const RACE_POLL: Duration = Duration::from_millis(500);

/// Decides. See the module documentation.
pub fn decide(v: &View) -> Decision {
    if matches!(v.pg.data_dir, DataDir::NotObserved) {
        return rest(Rule::NothingKnown, "PostgreSQL was not observed yet");
    }
    if let Some(running) = &v.memory.job {
        return job::decide(v, running);
    }
    if v.memory.terminating {
        return shutdown::decide(v);
    }
    match &v.dcs {
        DcsView::NotRead | DcsView::Unreachable { .. } => dcs_lost::decide(v),
        DcsView::Fresh(cluster) => decide_with_cluster(v, cluster),
    }
}

fn decide_with_cluster(v: &View, c: &ClusterView) -> Decision {
    match &v.pg.data_dir {
        DataDir::NotObserved => rest(Rule::NothingKnown, "PostgreSQL was not observed yet"),
        DataDir::Empty => no_data_dir::decide_empty(v, c),
        DataDir::Inaccessible { reason } => no_data_dir::decide_inaccessible(v, c, reason),
        DataDir::Foreign { reason } => no_data_dir::decide_foreign(v, c, reason),
        DataDir::Unfinished { what } => no_data_dir::decide_unfinished(v, c, *what),
        DataDir::Present(control) => {
            if let Some(decision) = system_id::decide(v, c, control) {
                return decision;
            }
            if let Some(decision) = take_over_own_key(v, c).or_else(|| own_key_overtaken(v, c)) {
                return decision;
            }
            if c.leader_name() == Some(&v.me.name) && !v.holds_leader_key() {
                return own_key_out_of_reach(v);
            }
            match &v.pg.postmaster {
                Postmaster::NotRunning => pg_down::decide(v, c, control),
                Postmaster::NotObserved => rest(Rule::NothingKnown, "the postmaster was not observed"),
                Postmaster::Running { phase, .. } => {
                    if is_starting(v, *phase) {
                        return decide_starting(v, c);
                    }
                    if v.memory.loose_promotion && v.pg.says_standby() && !v.settings().pause {
                        return stop_loose_promotion();
                    }
                    if c.leader.is_none() {
                        no_leader::decide(v, c)
                    } else if v.holds_leader_key() {
                        lead::decide(v, c)
                    } else {
                        follow::decide(v, c)
                    }
                }
            }
        }
    }
}

/// It may become a primary at any moment without anybody's proof: stopped before it may lead or follow.
fn stop_loose_promotion() -> Decision {
    let stop = Job::Stop {
        mode: StopMode::Immediate,
        checkpoint_first: false,
    };
    let because = "a promotion that nobody waits for may still be under way, stopping PostgreSQL";
    act(Rule::LeadPromotionFailed, Action::Begin(stop), because)
}

/// After a restart of the daemon the key carries our name on the lease of the daemon before.
fn take_over_own_key(v: &View, c: &ClusterView) -> Option<Decision> {
    let leader = c.leader.as_ref()?;
    if leader.name != v.me.name || v.holds_leader_key() || v.memory.cycle.refuted || v.memory.cycle.dcs_silent {
        return None;
    }
    let take_over = || {
        act(
            Rule::RaceTakeOverOwnKey,
            Action::TakeOverOwnKey,
            "the leader key carries my name on another lease",
        )
    };
    own_key_overtaken(v, c).or_else(|| Some(take_over()))
}

/// The leader key carries our name, nothing that this daemon remembers bears it out, and PostgreSQL is no primary here: has
/// somebody led since? Only the peers can tell when etcd was restored from a snapshot in which this node led. So it is for a
/// restarted daemon, and for one whose last proof has run out, whatever its lease says now.
fn own_key_overtaken(v: &View, c: &ClusterView) -> Option<Decision> {
    let leader = c.leader.as_ref().filter(|leader| leader.name == v.me.name)?;
    let cycle = &v.memory.cycle;
    let is_borne_out = cycle.acquired || v.live_proof_of_key().is_some() || v.pg.says_primary();
    // In maintenance mode a key on our own lease stays with whoever a person left it to, and makes nobody a primary.
    let left_alone = v.settings().pause && v.holds_leader_key();
    if is_borne_out || cycle.refuted || cycle.dcs_silent || left_alone {
        return None;
    }
    let leave = |because: String| {
        let because = format!("the leader key carries my name, but {because}");
        // On our own lease it could stay for ever. The release carries no mark: who led since may write.
        Some(
            if v.holds_leader_key() && !v.memory.maybe_writable && v.memory.job.is_none() {
                let release = Action::ReleaseLeaderKey { optime: None };
                act(
                    Rule::RaceOwnKeyOvertaken,
                    release,
                    format!("{because}: giving the key up"),
                )
            } else {
                soon(
                    v,
                    Rule::RaceOwnKeyOvertaken,
                    format!("{because}: leaving the key to its lease"),
                )
            },
        )
    };
    if v.memory.overtaken_key == Some(leader.create_revision) {
        return leave("somebody has led since".into());
    }
    let because = "the leader key carries my name and PostgreSQL is no primary here: has somebody led since?";
    if let Some(ask) = ask_once(v, Rule::RaceAskPeers, race::askable_or_known(v, c), because) {
        return Some(ask);
    }
    if let Some(name) = race::led_since(v) {
        return leave(format!("{name} has led since"));
    }
    // Whoever led stops when it hears nothing of etcd, and does not tell its timeline until it runs as a standby.
    let is_untold = |peer: &PeerStatus| peer.timeline.is_none() && peer.role != MemberRole::Uninitialized;
    let untold = race::answers(v).find(|(_, peer)| is_untold(peer));
    if let Some((name, _)) = untold.filter(|_| v.settings().is_synchronous()) {
        return leave(format!("{name} does not tell on which timeline it is"));
    }
    if race::sync_is_of_past(v, c)
        && let Err(reason) = scope_lost::evidence(v)
    {
        return leave(format!(
            "etcd was restored and it is not certain that nobody is ahead: {reason}"
        ));
    }
    None
}

/// The key carries our name and could not be put on our lease in this cycle: nobody else leads, so nothing is hurried.
fn own_key_out_of_reach(v: &View) -> Decision {
    if v.memory.maybe_writable && v.pg.is_running() && !v.settings().pause {
        return dcs_lost::keep_until_deadline(v);
    }
    soon(
        v,
        Rule::LeadUnproven,
        "the leader key carries my name, and etcd did not let me prove that it is mine",
    )
}

fn is_starting(v: &View, phase: PostmasterPhase) -> bool {
    match (&v.pg.sql, phase) {
        (SqlView::Answered(_), _) => false,
        (SqlView::Unanswered { cannot_connect_now, .. }, _) if *cannot_connect_now => true,
        (SqlView::NotAsked | SqlView::Unanswered { .. }, PostmasterPhase::Starting | PostmasterPhase::Stopping) => true,
        (SqlView::NotAsked | SqlView::Unanswered { .. }, PostmasterPhase::Ready | PostmasterPhase::Unknown) => false,
    }
}

fn decide_starting(v: &View, c: &ClusterView) -> Decision {
    if v.holds_leader_key() {
        if let Some(hold) = hold_leader_key_if_due(v, Rule::StartingAsLeader) {
            return hold;
        }
        if let Some(give_up) = start_takes_too_long(v, c) {
            return give_up;
        }
        return soon(v, Rule::StartingAsLeader, "PostgreSQL is still starting up");
    }
    soon(v, Rule::StartingAsStandby, "Still starting up as a standby")
}

/// The primary still recovers after primary_start_timeout: stopped when somebody else can lead.
fn start_takes_too_long(v: &View, c: &ClusterView) -> Option<Decision> {
    let limit = v.settings().primary_start_timeout;
    let down_for = v.now.mono.since(v.memory.primary_down_since?);
    if limit.is_zero() || down_for < limit || v.settings().pause {
        return None;
    }
    let because = "PostgreSQL does not come up within primary_start_timeout; can somebody else lead?";
    if let Some(ask) = ask_once(v, Rule::JobAskPeers, race::askable(v, c), because) {
        return Some(ask);
    }
    let (fit, _) = race::candidates(v, c, None, None, v.settings().is_synchronous());
    let stop = Job::Stop {
        mode: StopMode::Immediate,
        checkpoint_first: false,
    };
    let name = fit.first()?;
    Some(act(
        Rule::JobCancelStartTimeout,
        Action::Begin(stop),
        format!("stopped PostgreSQL because of startup timeout: {name} can lead"),
    ))
}

// ---- helpers for the files beside this one ----

pub(crate) fn rest(rule: Rule, because: impl ToString) -> Decision {
    act(rule, Action::Rest, because)
}

pub(crate) fn act(rule: Rule, action: Action, because: impl ToString) -> Decision {
    Decision {
        rule,
        action,
        because: because.to_string(),
        wake_at: None,
    }
}

/// Nothing now, but look again soon.
pub(crate) fn soon(v: &View, rule: Rule, because: impl ToString) -> Decision {
    rest_until(rule, because, v.now.mono.plus(RACE_POLL))
}

pub(crate) fn rest_until(rule: Rule, because: impl ToString, wake_at: Mono) -> Decision {
    Decision {
        wake_at: Some(wake_at),
        ..rest(rule, because)
    }
}

/// Asks the members that were not asked in this cycle; `None` when all of them were.
pub(crate) fn ask_once(v: &View, rule: Rule, who: Vec<MemberName>, because: impl ToString) -> Option<Decision> {
    if v.memory.cycle.peers_asked || who.is_empty() {
        return None;
    }
    Some(act(rule, Action::AskPeers(who), because))
}

/// The time until which a failed action is not tried again; `None` when it may be tried now.
pub(crate) fn backoff(v: &View, failure: Option<&Failure>) -> Option<Mono> {
    let failure = failure?;
    let pause = if failure.times > 3 {
        RETRY_PAUSE_LONG
    } else {
        RETRY_PAUSE
    };
    let until = failure.at.plus(pause);
    (v.now.mono < until).then_some(until)
}

/// Is the proof of this cycle's leader key missing or old?
pub(crate) fn proof_due(v: &View) -> bool {
    let Some(leader) = v.cluster().and_then(|c| c.leader.as_ref()) else {
        return true;
    };
    let Some(proof) = v.live_proof() else { return true };
    // A heartbeat that comes a little early still counts as due.
    let interval = v.settings().loop_wait / 10 * 9;
    proof.create_revision != leader.create_revision || v.now.mono.since(proof.kept_at) >= interval
}

/// Decides to prove leadership when that is due and was not tried in this cycle, and to ask first when the key may be from a
/// time before somebody else led.
pub(crate) fn hold_leader_key_if_due(v: &View, rule: Rule) -> Option<Decision> {
    let cycle = &v.memory.cycle;
    if cycle.proven || cycle.dcs_silent || cycle.refuted || !proof_due(v) {
        return None;
    }
    let prove = act(
        rule,
        Action::HoldLeaderKey,
        "leadership is proven by a keepalive and a guarded write",
    );
    let overtaken = v.cluster().and_then(|c| own_key_overtaken(v, c));
    Some(overtaken.unwrap_or(prove))
}

/// The upstream for a member by name, with our slot there.
pub(crate) fn upstream(v: &View, c: &ClusterView, name: &MemberName) -> Option<Upstream> {
    let member = c.members.get(name)?;
    let conn_url = member.conn_url.clone()?;
    crate::conninfo::host_port(&conn_url)?;
    let slot = v.settings().use_slots.then(|| crate::slots::slot_name(&v.me.name));
    Some(Upstream {
        name: name.clone(),
        conn_url,
        slot,
    })
}

/// Whom this node should stream from while `leader` leads: the member of its replicatefrom tag, else the leader.
pub(crate) fn wanted_upstream(v: &View, c: &ClusterView, leader: &MemberName) -> Option<Upstream> {
    let by_tag = v.me.tags.replicatefrom.as_ref().filter(|name| **name != v.me.name);
    by_tag
        .and_then(|name| upstream(v, c, name))
        .or_else(|| upstream(v, c, leader))
}
