//! Nobody holds the leader key and PostgreSQL runs here: the race.

use alloc::format;
use core::time::Duration;

use super::{Action, Decision, RACE_POLL, act, ask_once, rest, rest_until, soon};
use crate::cluster::{ClusterView, FailoverKey, Initialize, MemberState};
use crate::job::{Job, StopMode};
use crate::race::{self, NotHealthiest};
use crate::rule::Rule;
use crate::units::{MemberName, Mono};
use crate::view::{View, WatchdogView};

/// How long the old leader leaves the race to others after a hand-over.
const STEP_DOWN_GRACE: Duration = Duration::from_secs(2);

pub(super) fn decide(v: &View, c: &ClusterView) -> Decision {
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
    if let Some(decision) = wait_old_deadline_or_ask(v, c) {
        return decision;
    }
    decide_race(v, c)
}

// ---- we are a primary whose key is gone ----

fn decide_running_primary(v: &View, c: &ClusterView) -> Decision {
    if v.memory.cycle.lost_race {
        return soon(
            v,
            Rule::RaceLost,
            "demoted self after trying and failing to obtain lock",
        );
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
        race::askable(v, c),
        "the leader key is gone; is another primary alive?",
    ) {
        return ask;
    }
    let other = race::askable(v, c)
        .into_iter()
        .find(|n| race::answer(v, n).is_some_and(|p| p.in_recovery == Some(false)));
    if let Some(name) = other {
        return stale(v, format!("Primary ({name}) is still alive"));
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
    if v.settings().pause && !named {
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
    if !race::in_sync_set(v, c, &v.me.name) && !is_manual_failover_to_me(v, c) {
        return Some(soon(
            v,
            Rule::RaceNotSynchronous,
            "not taking part in the leader race: not in /sync",
        ));
    }
    None
}

fn is_manual_failover_to_me(v: &View, c: &ClusterView) -> bool {
    c.failover
        .as_ref()
        .is_some_and(|f| !f.is_switchover() && f.candidate.as_ref() == Some(&v.me.name))
}

fn wait_old_deadline_or_ask(v: &View, c: &ClusterView) -> Option<Decision> {
    if let Some(ask) = ask_once(
        v,
        Rule::RaceAskPeers,
        race::askable(v, c),
        "no leader: asking all members for their position",
    ) {
        return Some(ask);
    }
    wait_for_old_leader(v, c)
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
    let status = c.status.as_ref();
    if status.is_some_and(|s| s.released) {
        return None;
    }
    let sight = v.memory.sight.as_ref()?;
    let holder = status.and_then(|s| s.writer.as_ref()).or(sight.holder.as_ref());
    if let Some(name) = holder {
        if *name == v.me.name && v.memory.proof.is_none() {
            // We were the leader in an earlier life of this daemon; PostgreSQL is a standby here now.
            return None;
        }
        if race::answer(v, name).is_some_and(|p| p.in_recovery == Some(true) || p.state == MemberState::Stopped) {
            return None;
        }
    }
    let longer = v
        .memory
        .longer_ttl
        .filter(|(_, until)| v.now.mono < *until)
        .map(|(ttl, _)| ttl);
    let ttl = longer.unwrap_or(v.settings().ttl).max(v.settings().ttl);
    Some(sight.at.plus(ttl))
}

fn decide_race(v: &View, c: &ClusterView) -> Decision {
    let (ignore, check_lag) = match &c.failover {
        Some(wish) if wish.scheduled_at.is_none() => match manual(v, c, wish) {
            Ok(ignore) => (ignore, false),
            Err(decision) => return decision,
        },
        Some(_) | None => (None, true),
    };
    match race::healthiest(v, c, ignore.as_ref(), check_lag) {
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

/// Patroni's manual rules while the old leader has stepped down. `Ok`: race, ignoring this member.
fn manual(v: &View, c: &ClusterView, wish: &FailoverKey) -> Result<Option<MemberName>, Decision> {
    match &wish.candidate {
        Some(candidate) if *candidate == v.me.name => {
            // The candidate was chosen by a person and checked by the old leader; only a living primary stops it.
            let alive = race::askable(v, c)
                .into_iter()
                .find(|n| race::answer(v, n).is_some_and(|p| p.in_recovery == Some(false)));
            Err(match alive {
                Some(name) => soon(v, Rule::RacePrimaryAlive, format!("Primary ({name}) is still alive")),
                None => act(
                    Rule::RaceAcquire,
                    Action::AcquireLeaderKey,
                    "I am the candidate: taking the leader key",
                ),
            })
        }
        Some(candidate) => {
            let (fit, _) = race::candidates(v, c, Some(candidate), None, false);
            if fit.is_empty() {
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
