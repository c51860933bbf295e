//! Directives for what the node remembers.

use std::collections::BTreeMap;

use pgha_core::commit::MemberValue;
use pgha_core::effect::{CallbackRole, FenceOrder};
use pgha_core::event::OpId;
use pgha_core::failsafe::{Ack, InDoubt, Word};
use pgha_core::job::JobFailure;
use pgha_core::known::KnownCluster;
use pgha_core::request::{RequestId, RestartRequest, RestartRole};
use pgha_core::units::{LeaseId, Lsn, MemberName, Revision, SystemId, Timeline};
use pgha_core::view::{
    CycleFacts, Divergence, Failure, Handover, HandoverReason, ProofSight, Reinitialize, RunningJob, ScheduledRestart,
    Stall, WatchdogView,
};

use super::jobs;
use super::line::{Line, duration, lsn};
use super::world::{FailsafeReply, ProofSpec, START, SYSTEM_ID, World, api_url};

/// Sets something remembered; `false` when the directive is none of memory's.
pub fn set(w: &mut World, directive: &str, line: &mut Line) -> Result<bool, String> {
    match directive {
        "proof" => proof(w, line)?,
        "sight" => sight(w, line)?,
        "lifted" => w.memory.pause_lifted_at = Some(w.age(line)?),
        "fence" => w.memory.fence = fence_order(w, line)?,
        "job" => job(w, line)?,
        "handover" => handover(w, line)?,
        "word" => word(w, line)?,
        "ack" => ack(w, line)?,
        "reply" => reply(w, line)?,
        "grant" => {
            let left = line.duration("left")?.ok_or("grant needs left=")?;
            w.memory.failsafe.grant = Some(w.now.mono.plus(left));
        }
        "alone" => w.memory.failsafe.alone_since = Some(w.age(line)?),
        "in_doubt" => in_doubt(w, line),
        "silent_before" => w.memory.failsafe.silences = 1,
        "failure" => failure(w, line)?,
        "wish" => wish(w, line)?,
        "divergence" => {
            w.memory.divergence_checked_at = line.duration("ago")?.map(|ago| w.now.mono.minus(ago));
            w.memory.divergence = divergence(line)?;
        }
        // The member key stands as it was before anything was found out.
        "untold" => w.memory.member_written = Some((LeaseId(70), MemberValue::default())),
        "stall" => {
            let since = w.age(line)?;
            let at = line.lsn("at")?.unwrap_or(Lsn(0x500));
            w.memory.stall = Some(Stall { since, at });
        }
        "cycle" => cycle(w, line),
        "writable" => w.memory.maybe_writable = true,
        "not-writable" => w.memory.maybe_writable = false,
        "down" => w.memory.primary_down_since = Some(w.age(line)?),
        "terminating" => w.memory.terminating = true,
        "watchdog" => w.memory.watchdog = watchdog(line)?,
        "claim" => w.memory.bootstrap_claim = line.number("rev")?.map(Revision).or(Some(w.cluster.revision)),
        "known" => known(w, line)?,
        "scope_empty" => w.memory.scope_empty_since = Some(w.age(line)?),
        "leaderless" => w.memory.leaderless_since = Some(w.age(line)?),
        "store_replaced" => w.memory.store_replaced_at = Some(w.age(line)?),
        "sync_of_past" => w.memory.sync_of_past = Some(w.cluster.sync_revision()),
        "overtaken" => w.memory.overtaken_key = w.cluster.leader.as_ref().map(|l| l.create_revision),
        "timeline_floor" => w.memory.timeline_floor = line.number("tl")?.map(Timeline),
        "longer_ttl" => {
            let ttl = line.duration("ttl")?.ok_or("longer_ttl needs ttl=")?;
            let left = line.duration("left")?.ok_or("longer_ttl needs left=")?;
            w.memory.longer_ttl = Some((ttl, w.now.mono.plus(left)));
        }
        "told" => {
            w.memory.told_role = Some(match line.needs("primary or replica")?.as_str() {
                "primary" => CallbackRole::Primary,
                "replica" => CallbackRole::Replica,
                other => return Err(format!("told {other}: primary or replica was expected")),
            })
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// `proof age=3s`, of the leader key as it stands; `create=` and `rev=` make it one of another key or time.
fn proof(w: &mut World, line: &mut Line) -> Result<(), String> {
    let none = line.flag("none");
    let spec = ProofSpec {
        kept_at: w.age(line)?,
        create: line.number("create")?.map(Revision),
        revision: line.number("rev")?.map(Revision),
    };
    w.proof = (!none).then_some(spec);
    Ok(())
}

fn sight(w: &mut World, line: &mut Line) -> Result<(), String> {
    let at = w.age(line)?;
    w.memory.sight = Some(ProofSight {
        witnessed: !line.flag("only_read"),
        revision: line.number("rev")?.map_or(w.cluster.revision, Revision),
        at,
        holder: line.value("of").map(MemberName::new),
    });
    Ok(())
}

/// `standby`, `paused`, `none`, `until=20s` since the beginning.
pub fn fence_order(_w: &World, line: &mut Line) -> Result<Option<FenceOrder>, String> {
    if let Some(until) = line.duration("until")? {
        return Ok(Some(FenceOrder::Until(START.plus(until))));
    }
    match line.needs("standby, paused, none or until=")?.as_str() {
        "standby" => Ok(Some(FenceOrder::StandbyOnly)),
        "paused" => Ok(Some(FenceOrder::Paused)),
        "none" => Ok(None),
        other => Err(format!("fence {other} is not known")),
    }
}

/// `word b age=3s left=20s slots=b@0/500`: what this node told a leader without etcd.
fn word(w: &mut World, line: &mut Line) -> Result<(), String> {
    let leader = line.needs("to whom")?;
    let slots = slots(line)?;
    w.memory.failsafe.word = Some(Word {
        at: w.age(line)?,
        until: w.now.mono.plus(line.duration("left")?.ok_or("word needs left=")?),
        api_url: api_url(&leader),
        leader: MemberName::new(leader),
        slots,
    });
    Ok(())
}

/// `slots=b@0/500,c@0/400`: positions of slots.
pub fn slots(line: &mut Line) -> Result<BTreeMap<String, Lsn>, String> {
    let slots = line.value("slots").unwrap_or_default();
    let slot = |text: &str| {
        let (name, at) = text.split_once('@').ok_or_else(|| format!("`{text}` is no slot"))?;
        Ok((name.to_string(), lsn(at)?))
    };
    slots.split(',').filter(|s| !s.is_empty()).map(slot).collect()
}

/// `ack b age=3s lsn=0/500 read=1s`: the word of a member, and how long ago it read etcd.
fn ack(w: &mut World, line: &mut Line) -> Result<(), String> {
    let name = MemberName::new(line.needs("whose")?);
    let ack = Ack {
        sent_at: w.age(line)?,
        lsn: line.lsn("lsn")?,
        dcs_read_at: line.duration("read")?.map(|ago| w.now.mono.minus(ago)),
    };
    w.memory.failsafe.acks.insert(name, ack);
    Ok(())
}

/// `reply b lsn=0/500 read=1s`, `reply b refused "..."`, `reply b silent`: what a member answers when it is asked.
fn reply(w: &mut World, line: &mut Line) -> Result<(), String> {
    let name = MemberName::new(line.needs("whose")?);
    let answer = match line.word().as_deref() {
        None => FailsafeReply::Accepted(line.lsn("lsn")?, line.duration("read")?),
        Some("refused") => FailsafeReply::Refused(line.needs("why")?),
        Some("silent") => {
            w.failsafe_replies.remove(&name);
            return Ok(());
        }
        Some(other) => return Err(format!("reply {other} is not known")),
    };
    w.failsafe_replies.insert(name, answer);
    Ok(())
}

/// `in_doubt a,b removal`: a write of `/failsafe` whose answer never came.
fn in_doubt(w: &mut World, line: &mut Line) {
    let removal = line.flag("removal");
    let names = line.word().unwrap_or_default();
    let member = |name: &str| (MemberName::new(name), api_url(name));
    w.memory.failsafe.in_doubt = Some(InDoubt {
        base: w.cluster.failsafe.as_ref().map(|key| key.mod_revision),
        members: names.split(',').filter(|n| !n.is_empty()).map(member).collect(),
        removal,
    });
}

/// `known leader=b members=b,c tl=1 lsn=0/500`: the cluster from before etcd forgot it.
fn known(w: &mut World, line: &mut Line) -> Result<(), String> {
    let members = line.value("members").unwrap_or_default();
    w.memory.known = KnownCluster {
        system_id: Some(line.number("sysid")?.map_or(SYSTEM_ID, SystemId)),
        leader: line.value("leader").map(MemberName::new),
        members: members
            .split(',')
            .filter(|name| !name.is_empty())
            .map(|name| (MemberName::new(name), Some(api_url(name))))
            .collect(),
        timeline: Some(Timeline(line.number("tl")?.unwrap_or(1))),
        optime: line.lsn("lsn")?.unwrap_or_default(),
        config: None,
        led_since: None,
    };
    Ok(())
}

fn job(w: &mut World, line: &mut Line) -> Result<(), String> {
    if line.flag("none") {
        w.memory.job = None;
        return Ok(());
    }
    let since = w.age(line)?;
    let cancelled = line.flag("cancelled");
    let shut_down_at = line.lsn("shut_down_at")?;
    let job = jobs::parse(w, line)?;
    w.memory.job = Some(RunningJob {
        op: OpId(1),
        job,
        since,
        copied: None,
        shut_down_at,
        step: None,
        cancelled,
    });
    Ok(())
}

fn handover(w: &mut World, line: &mut Line) -> Result<(), String> {
    let since = w.age(line)?;
    let reason = match line.needs("switchover, failover, shutdown or none")?.as_str() {
        "switchover" => HandoverReason::Switchover,
        "failover" => HandoverReason::ManualFailover,
        "shutdown" => HandoverReason::Shutdown,
        "none" => {
            w.memory.handover = None;
            return Ok(());
        }
        other => return Err(format!("handover {other} is not known")),
    };
    let released = line.duration("released")?;
    w.memory.handover = Some(Handover {
        reason,
        candidate: line.value("candidate").map(MemberName::new),
        since,
        checkpoint: line.lsn("checkpoint")?,
        released_at: released.map(|ago| w.now.mono.minus(ago)),
    });
    Ok(())
}

/// `failure start age=1s times=2 kind=exited "it crashed"`
fn failure(w: &mut World, line: &mut Line) -> Result<(), String> {
    let of = line.needs("of which job")?;
    let failure = Some(Failure {
        at: w.age(line)?,
        times: line.number("times")?.unwrap_or(1),
        kind: line
            .value("kind")
            .map_or(Ok(JobFailure::Nothing), |k| failure_kind(&k))?,
        reason: line.word().unwrap_or_else(|| "it broke".into()),
    });
    let failures = &mut w.memory.failures;
    match of.as_str() {
        "start" => failures.start = failure,
        "clone" => failures.clone = failure,
        "rewind" => failures.rewind = failure,
        "check" => failures.divergence_check = failure,
        "promote" => failures.promote = failure,
        "bootstrap" => failures.bootstrap = failure,
        "stop" => failures.stop = failure,
        "none" => *failures = Default::default(),
        other => return Err(format!("failure {other} is not known")),
    }
    Ok(())
}

/// Kinds of failure by name.
pub fn failure_kind(name: &str) -> Result<JobFailure, String> {
    Ok(match name {
        "nothing" => JobFailure::Nothing,
        "source" => JobFailure::SourceNotReady,
        "timed_out" => JobFailure::TimedOut,
        "pre_promote" => JobFailure::PrePromote,
        "damaged" => JobFailure::Damaged,
        "exited" => JobFailure::Exited,
        "fenced" => JobFailure::Fenced,
        other => return Err(format!("there is no kind of failure `{other}`")),
    })
}

fn wish(w: &mut World, line: &mut Line) -> Result<(), String> {
    match line.needs("restart, scheduled or reinitialize")?.as_str() {
        "restart" => w.memory.wishes.restart = Some((RequestId(1), restart_request(line)?)),
        "scheduled" => {
            let at = w.wall_at(&line.value("at").ok_or("wish scheduled needs at=")?)?;
            w.memory.wishes.scheduled_restart = Some(ScheduledRestart {
                at,
                postmaster_start_time: line.value("started"),
                request: restart_request(line)?,
                text: "{}".into(),
            });
        }
        "reinitialize" => {
            w.memory.wishes.reinitialize = Some(Reinitialize {
                from_leader: line.flag("from_leader"),
                force: line.flag("force"),
            })
        }
        other => return Err(format!("wish {other} is not known")),
    }
    Ok(())
}

/// `role=standby version_below=160000 pending timeout=60s`
pub fn restart_request(line: &mut Line) -> Result<RestartRequest, String> {
    Ok(RestartRequest {
        role: match line.value("role").as_deref() {
            None => None,
            Some("primary") => Some(RestartRole::Primary),
            Some("standby") => Some(RestartRole::Standby),
            Some("standby_leader") => Some(RestartRole::StandbyLeader),
            Some(other) => return Err(format!("role={other} is not known")),
        },
        version_below: line.number("version_below")?,
        if_pending: line.flag("pending"),
        timeout: line.value("timeout").map(|t| duration(&t)).transpose()?,
    })
}

/// `unknown`, `none b`, `wal-gone b archive`, `found b local=...`; `ago=20s`: when it was compared.
fn divergence(line: &mut Line) -> Result<Divergence, String> {
    let what = line.needs("unknown, none, wal-gone or found")?;
    if what == "unknown" {
        return Ok(Divergence::Unknown);
    }
    let leader = MemberName::new(line.needs("the leader it was checked against")?);
    match what.as_str() {
        "none" => Ok(Divergence::None { leader }),
        "wal-gone" => Ok(Divergence::WalGone {
            leader,
            at: line.lsn("at")?.unwrap_or(Lsn(0x500)),
            archive: line.flag("archive"),
        }),
        "found" => Ok(Divergence::Found {
            leader,
            facts: jobs::divergence(line)?,
        }),
        other => Err(format!("divergence {other} is not known")),
    }
}

fn cycle(w: &mut World, line: &mut Line) {
    if line.flag("none") {
        w.memory.cycle = CycleFacts::default();
    }
    let c = &mut w.memory.cycle;
    c.proven |= line.flag("proven");
    c.refuted |= line.flag("refuted");
    c.dcs_silent |= line.flag("silent");
    let acquired = line.flag("acquired");
    c.acquired |= acquired;
    c.acquired_in_pause |= acquired;
    c.lost_race |= line.flag("lost_race");
    c.lost_claim |= line.flag("lost_claim");
}

/// State of the watchdog by name.
pub fn watchdog(line: &mut Line) -> Result<WatchdogView, String> {
    Ok(match line.needs("off, usable, armed or failed")?.as_str() {
        "off" => WatchdogView::Off,
        "usable" => WatchdogView::Usable,
        "armed" => WatchdogView::Armed,
        "failed" => WatchdogView::Failed,
        other => return Err(format!("watchdog {other} is not known")),
    })
}
