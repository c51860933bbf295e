//! Nobody holds the leader key and PostgreSQL runs here: the race.

use alloc::format;
use alloc::vec::Vec;
use core::time::Duration;

use super::{Action, Decision, RACE_POLL, act, ask_once, dcs_lost, rest, rest_until, scope_lost, soon};
use crate::cluster::{ClusterView, FailoverKey, Initialize};
use crate::failsafe;
use crate::job::{Job, StopMode};
use crate::planted::{Planted, planted};
use crate::race::{self, NotHealthiest};
use crate::rule::Rule;
use crate::units::{MemberName, Mono};
use crate::view::{ProofSight, View, WatchdogView};

/// How long the old leader leaves the race to others after a hand-over.
const STEP_DOWN_GRACE: Duration = Duration::from_secs(2);

pub(super) fn decide(v: &View, c: &ClusterView) -> Decision {
    if c.is_unreadable("leader") {
        return decide_unreadable_key(v);
    }
    if v.pg.says_primary() {
        return decide_running_primary(v, c);
    }
    if !v.pg.says_standby() {
        return soon(
            v,
            Rule::RaceUnknownPosition,
            "PostgreSQL does not answer; not taking part in the leader race",
        );
    }
    if let Some(decision) = not_eligible(v, c) {
        return decision;
    }
    if let Some(decision) = scope_lost::decide(v, c) {
        return decision;
    }
    if let Some(decision) = wait_old_deadline_or_ask(v, c) {
        return decision;
    }
    decide_race(v, c)
}

/// The key is there, whoever holds it: it can be neither proven nor taken. What was proven counts until its deadline.
fn decide_unreadable_key(v: &View) -> Decision {
    if v.pg.says_primary() && !v.settings().pause {
        return dcs_lost::keep_until_deadline(v);
    }
    rest(
        Rule::RaceKeyUnreadable,
        "the leader key holds nothing that can be understood, so nobody can take it: a person must remove it",
    )
}

// ---- we are a primary whose key is gone ----

fn decide_running_primary(v: &View, c: &ClusterView) -> Decision {
    let silent = v.memory.cycle.dcs_silent && !v.settings().pause;
    if v.memory.cycle.lost_race && silent && v.deadline().is_some() {
        // etcd can be read and takes no writes: nobody else has the key, and the deadline counts as without etcd.
        return dcs_lost::keep_until_deadline(v);
    }
    if v.memory.cycle.lost_race {
        return soon(
            v,
            Rule::RaceLost,
            "demoted self after trying and failing to obtain lock",
        );
    }
    if planted(v, Planted::StalePrimaryRetakes) {
        return act(Rule::RaceReacquire, Action::AcquireLeaderKey, "there is no leader key");
    }
    if let (Some(mine), Some(cluster)) = (race::my_timeline(v), c.timeline_by_history())
        && mine < cluster
    {
        return stale(
            v,
            format!("My timeline {mine} is behind last known cluster timeline {cluster}"),
        );
    }
    if v.settings().pause {
        if let Some(wait) = wait_for_word(v, Rule::RaceFailsafeWord) {
            return wait;
        }
        return match c.initialize {
            Initialize::Done(_) | Initialize::Absent => act(
                Rule::RaceReacquire,
                Action::AcquireLeaderKey,
                "PAUSE: running as primary without a leader: taking the leader key",
            ),
            Initialize::InProgress { .. } | Initialize::Unreadable => {
                rest(Rule::RacePaused, "PAUSE: continue to run as primary without lock")
            }
        };
    }
    if let Some(proof) = &v.memory.proof {
        let wrote_since = c
            .status
            .as_ref()
            .is_some_and(|s| s.mod_revision > proof.revision && s.writer.as_ref() != Some(&v.me.name));
        if wrote_since {
            return stale(v, "somebody else wrote as leader since my last proof");
        }
    }
    // Whoever took the key in between may still be promoting itself: the peers are asked as everybody else asks them.
    if let Some(ask) = ask_once(
        v,
        Rule::RaceAskPeers,
        whom_to_ask(v, c),
        "the leader key is gone; is another primary alive?",
    ) {
        return ask;
    }
    if let Some(name) = race::living_primary(v) {
        return stale(v, format!("Primary ({name}) is still alive"));
    }
    if let Some(wait) = wait_for_word(v, Rule::RaceFailsafeWord) {
        return wait;
    }
    if v.memory.proof.is_none()
        && let Some(wait) = wait_for_old_leader(v, c)
    {
        return wait;
    }
    act(
        Rule::RaceReacquire,
        Action::AcquireLeaderKey,
        "the leader key is gone and nobody led since: taking it again",
    )
}

fn stale(v: &View, because: impl alloc::string::ToString) -> Decision {
    if v.settings().pause {
        return rest(Rule::RacePaused, because);
    }
    act(
        Rule::RaceStalePrimary,
        Action::Begin(Job::Stop {
            mode: StopMode::Immediate,
            checkpoint_first: false,
        }),
        because,
    )
}

// ---- we are a standby ----

fn not_eligible(v: &View, c: &ClusterView) -> Option<Decision> {
    let m = &v.memory;
    if m.cycle.lost_race {
        return Some(soon(
            v,
            Rule::RaceLost,
            "following new leader after trying and failing to obtain lock",
        ));
    }
    if v.settings().standby_cluster.is_some() {
        let because = "standby_cluster is set and not supported yet by this version: not promoting";
        return Some(soon(v, Rule::RaceStandbyCluster, because));
    }
    let named = c
        .failover
        .as_ref()
        .is_some_and(|f| f.candidate.as_ref() == Some(&v.me.name) && f.scheduled_at.is_none());
    if v.settings().pause && !named && !planted(v, Planted::RaceInPause) {
        return Some(rest(Rule::RacePaused, "PAUSE: no action, there is no leader"));
    }
    if !v.me.tags.may_lead() {
        return Some(soon(
            v,
            Rule::RaceNotAllowed,
            "following a different leader because I am not allowed to promote",
        ));
    }
    if v.me.watchdog_required && m.watchdog == WatchdogView::Failed {
        return Some(soon(v, Rule::RaceWatchdog, "Watchdog device is not usable"));
    }
    if let Some(failure) = &m.failures.promote
        && v.now.mono < failure.at.plus(v.settings().ttl)
    {
        let until = failure.at.plus(v.settings().ttl);
        return Some(rest_until(
            Rule::RaceBackoff,
            format!("backoff: skip leader race after a failed promotion: {}", failure.reason),
            until,
        ));
    }
    if let Some(released) = m.handover.as_ref().and_then(|h| h.released_at)
        && v.now.mono < released.plus(STEP_DOWN_GRACE)
    {
        return Some(rest_until(
            Rule::RaceSteppedDown,
            "handed leadership over; the others go first",
            released.plus(STEP_DOWN_GRACE),
        ));
    }
    if let Some(because) = failsafe::not_listed(v, c) {
        return Some(soon(v, Rule::RaceNotListed, because));
    }
    if !race::in_sync_set(v, c, &v.me.name) && !race::is_manual_failover_to_me(v, c) {
        return Some(soon(
            v,
            Rule::RaceNotSynchronous,
            "not taking part in the leader race: not in /sync",
        ));
    }
    None
}

fn wait_old_deadline_or_ask(v: &View, c: &ClusterView) -> Option<Decision> {
    if planted(v, Planted::RaceAsksNobody) {
        return wait_for_old_leader(v, c);
    }
    if let Some(ask) = ask_once(
        v,
        Rule::RaceAskPeers,
        whom_to_ask(v, c),
        "no leader: asking all members for their position",
    ) {
        return Some(ask);
    }
    wait_for_word(v, Rule::RaceFailsafeWord)
        .or_else(|| wait_for_paused_leader(v, c))
        .or_else(|| wait_for_old_leader(v, c))
}

/// The leader that this node told to go on may do so until then, and so may one that another member told. That one may have
/// been listed by the leader when this node was not, for instance in an etcd that was restored since.
pub(super) fn wait_for_word(v: &View, rule: Rule) -> Option<Decision> {
    let Some(word) = failsafe::word(v) else {
        let (member, leader) = failsafe::word_of_another(v)?;
        let because = format!("failsafe mode: {member} has told {leader} that it may go on as the leader");
        return Some(soon(v, rule, because));
    };
    Some(rest_until(
        rule,
        format!(
            "failsafe mode: {} was told that it may go on as the leader for another {} ms",
            word.leader,
            word.until.since(v.now.mono).as_millis()
        ),
        word.until.min(v.now.mono.plus(RACE_POLL)),
    ))
}

/// All members, also those whose keys are gone: an outage of etcd that outlasts the ttl takes every key, and who comes back
/// first is not alone for that. The old leader, whose key went with its lease, is asked while there is time to be won by it, or
/// when its last proof is from maintenance mode: then no deadline has ended it. So it is when nobody was seen to lead here: the
/// keys may be those of a restored snapshot, older than a promotion that only it can tell of.
fn whom_to_ask(v: &View, c: &ClusterView) -> Vec<MemberName> {
    // A host that is down answers nobody, and the wait for it must not outlast the deadline it is asked about.
    let worth_it = old_deadline(v, c).is_some_and(|until| v.now.mono.plus(race::PEER_BUDGET) <= until);
    let old = old_leader(v, c);
    let mut who = race::askable_or_known(v, c);
    if race::sync_is_of_past(v, c) {
        return who;
    }
    who.retain(|name| c.members.contains_key(name) || Some(name) != old);
    let was_seen = v.memory.sight.as_ref().is_some_and(|s| s.witnessed);
    let told = failsafe::word(v).map(|word| &word.leader);
    let wanted = old.filter(|_| worth_it || led_in_pause(v) || !was_seen);
    for name in wanted.into_iter().chain(told) {
        if *name != v.me.name && !who.contains(name) && race::address(v, name).is_some() {
            who.push(name.clone());
        }
    }
    who.sort();
    who
}

/// Whose proof was seen last, as far as that is known.
fn old_leader<'a>(v: &'a View, c: &'a ClusterView) -> Option<&'a MemberName> {
    let writer = c.status.as_ref().and_then(|s| s.writer.as_ref());
    writer.or_else(|| v.memory.sight.as_ref()?.holder.as_ref())
}

/// The last proof that was seen may be from maintenance mode: no deadline has ended what its leader does.
fn led_in_pause(v: &View) -> bool {
    let sight = v.memory.sight.as_ref().map(|s| s.at);
    v.settings().pause || v.memory.pause_lifted_at.is_some_and(|at| sight <= Some(at))
}

/// R10: until when a leader that vanished without a release marker may still believe in its lease.
fn wait_for_old_leader(v: &View, c: &ClusterView) -> Option<Decision> {
    let until = old_deadline(v, c)?;
    if v.now.mono >= until {
        return None;
    }
    Some(rest_until(
        Rule::RaceWaitOldDeadline,
        format!(
            "the last leader may count on its lease for another {} ms",
            until.since(v.now.mono).as_millis()
        ),
        // Ask again meanwhile: the old leader itself may say that it stopped.
        until.min(v.now.mono.plus(RACE_POLL)),
    ))
}

fn old_deadline(v: &View, c: &ClusterView) -> Option<Mono> {
    if planted(v, Planted::OldDeadlineIgnored) {
        return None;
    }
    let replaced = v.memory.store_replaced_at.map(|at| at.plus(v.longest_ttl()));
    if let Some(until) = replaced.filter(|until| v.now.mono < *until) {
        // The keys tell of a leader of long ago: who led when the store was replaced is not known, nor asked.
        return Some(until);
    }
    let sight = v.memory.sight.as_ref()?;
    if tells_of_the_last_leader(v, c, sight) && has_ended(v, c) {
        return None;
    }
    // A leader in maintenance mode stops when it hears that the mode is over, and is given the time to hear it.
    let lifted = v.memory.pause_lifted_at.filter(|_| led_in_pause(v));
    Some(lifted.map_or(sight.at, |at| at.max(sight.at)).plus(v.longest_ttl()))
}

/// Can etcd be believed about who led last? What a daemon reads first may be as old as the snapshot that etcd was restored
/// from. Then everybody who is known has to answer, so that a promotion since would be heard of.
fn tells_of_the_last_leader(v: &View, c: &ClusterView, sight: &ProofSight) -> bool {
    sight.witnessed
        || race::askable_or_known(v, c)
            .iter()
            .all(|name| race::answer(v, name).is_some())
}

/// Is it certain that whoever proved leadership last writes no more? By its mark when it released the key, by its own answer,
/// or because it was this node, which runs a standby now.
fn has_ended(v: &View, c: &ClusterView) -> bool {
    if c.status.as_ref().is_some_and(|s| s.released) {
        return true;
    }
    old_leader(v, c).is_some_and(|name| {
        (*name == v.me.name && v.memory.proof.is_none()) || race::answer(v, name).is_some_and(race::no_longer_primary)
    })
}

/// In maintenance mode no deadline ends what its leader does, not even for a candidate that a person named.
fn wait_for_paused_leader(v: &View, c: &ClusterView) -> Option<Decision> {
    if !v.settings().pause || !led_in_pause(v) || has_ended(v, c) {
        return None;
    }
    let name = old_leader(v, c)?;
    Some(soon(
        v,
        Rule::RacePausedLeader,
        format!(
            "{name} led in maintenance mode, which sets it no deadline, and does not say that it accepts no writes. \
             Stop PostgreSQL there, or end maintenance mode"
        ),
    ))
}

fn decide_race(v: &View, c: &ClusterView) -> Decision {
    let answered = |name| race::answer(v, name).is_some();
    if planted(v, Planted::EverybodyMustAnswer) && !v.memory.known.members.keys().all(answered) {
        return rest(Rule::RaceQuorumMissing, "not every member answers");
    }
    if let Some(decision) = sync_of_past(v, c) {
        return decision;
    }
    if let Some(wait) = leave_to_whoever_has_all(v, c) {
        return wait;
    }
    let (ignore, check_lag) = match &c.failover {
        // A switchover is asked of a leader, and whoever it names was chosen by that one.
        Some(wish) if wish.is_switchover() && race::sync_is_of_past(v, c) => (None, true),
        Some(wish) if wish.scheduled_at.is_none() => match manual(v, c, wish) {
            Ok(ignore) => (ignore, false),
            Err(decision) => return decision,
        },
        Some(_) | None => (None, true),
    };
    match race::healthiest(v, c, ignore.as_ref(), check_lag) {
        Ok(()) if let Some(missing) = race::votes_missing(v, c) => soon(v, Rule::RaceQuorumMissing, missing),
        Ok(()) => act(
            Rule::RaceAcquire,
            Action::AcquireLeaderKey,
            "I am the healthiest node: taking the leader key",
        ),
        Err(NotHealthiest::PrimaryAlive(name)) => {
            soon(v, Rule::RacePrimaryAlive, format!("Primary ({name}) is still alive"))
        }
        Err(NotHealthiest::Behind(reason) | NotHealthiest::Unfit(reason)) => soon(
            v,
            Rule::RaceNotHealthiest,
            format!("following a different leader because i am not the healthiest node: {reason}"),
        ),
    }
}

/// Whom `/sync` of a restored etcd names is of no use: whoever led since has acknowledged commits with others. As when the scope
/// is lost, everybody who is remembered has to answer, and nobody may be ahead; otherwise a person decides.
fn sync_of_past(v: &View, c: &ClusterView) -> Option<Decision> {
    if !race::sync_is_of_past(v, c) || race::is_manual_failover_to_me(v, c) {
        return None;
    }
    let reason = scope_lost::evidence(v).err()?;
    Some(soon(
        v,
        Rule::RaceSyncOfPast,
        format!(
            "etcd was restored, /sync is of the past, and it is not certain that nobody is ahead: {reason}. {}",
            scope_lost::remedy(v)
        ),
    ))
}

/// A switchover loses nothing: the leader gave its key up when somebody had its last record. Who lacks that record may not even
/// reach whoever has it, and leaves the race to the others for a ttl.
fn leave_to_whoever_has_all(v: &View, c: &ClusterView) -> Option<Decision> {
    c.failover.as_ref().filter(|wish| wish.is_switchover())?;
    let end = c.status.as_ref().filter(|s| s.released)?.optime;
    let until = v.memory.sight.as_ref()?.at.plus(v.settings().ttl);
    let mine = v.pg.facts().and_then(|f| f.lsn()).unwrap_or_default();
    // The record that begins at the end is the last one.
    let lacks_it = mine < end || (mine == end && !planted(v, Planted::RecordHalfReceived));
    (lacks_it && v.now.mono < until).then(|| {
        rest_until(
            Rule::RaceLastRecordMissing,
            format!("switchover: the leader ended with the record at {end}, and I am at {mine}: who has it goes first"),
            until.min(v.now.mono.plus(RACE_POLL)),
        )
    })
}

/// The candidate was chosen by a person, and as a rule checked by the old leader: others being ahead does not matter. But
/// the leader may have died before it looked, so what nobody may ignore is looked at here: a living primary, `/history`, and
/// for a switchover how much is missing, and in synchronous mode the members that have to be seen.
fn decide_as_candidate(v: &View, c: &ClusterView, wish: &FailoverKey) -> Decision {
    if let Some(name) = race::living_primary(v) {
        return soon(v, Rule::RacePrimaryAlive, format!("Primary ({name}) is still alive"));
    }
    if let Some(reason) = race::too_old(v, c, wish.is_switchover()) {
        return soon(v, Rule::RaceNotHealthiest, reason);
    }
    if let Some(missing) = race::votes_missing(v, c).filter(|_| wish.is_switchover()) {
        return soon(v, Rule::RaceQuorumMissing, missing);
    }
    act(
        Rule::RaceAcquire,
        Action::AcquireLeaderKey,
        "I am the candidate: taking the leader key",
    )
}

/// Patroni's manual rules while the old leader has stepped down. `Ok`: race, ignoring this member.
fn manual(v: &View, c: &ClusterView, wish: &FailoverKey) -> Result<Option<MemberName>, Decision> {
    match &wish.candidate {
        Some(candidate) if *candidate == v.me.name => Err(decide_as_candidate(v, c, wish)),
        Some(candidate) => {
            // Whom a switchover names must be in /sync like everybody else, or all would wait for it for ever.
            let only_sync = wish.is_switchover() && v.settings().is_synchronous();
            let (fit, _) = race::candidates(v, c, Some(candidate), None, only_sync);
            let overtaken = wish.is_switchover() && race::has_voters(v, c) && race::is_behind_me(v, candidate);
            if fit.is_empty() || overtaken {
                return Ok(wish.leader.clone());
            }
            Err(soon(
                v,
                Rule::RaceCandidateFirst,
                format!("switchover: to {candidate}, i am {}", v.me.name),
            ))
        }
        None => Ok(wish.leader.clone()),
    }
}
