//! Jobs as words, in both directions.

use std::time::Duration;

use pgha_core::job::{DivergenceFacts, Job, NextWal, StartRole, StopMode, Upstream};
use pgha_core::slots::slot_name;
use pgha_core::units::{Lsn, Timeline};

use super::line::Line;
use super::world::{World, conn_url};

/// `start standby b`, `stop fast`, `promote` ...
pub fn parse(w: &World, line: &mut Line) -> Result<Job, String> {
    let timeout = Duration::from_secs(300);
    Ok(match line.needs("a job")?.as_str() {
        "bootstrap" => Job::Bootstrap,
        "promote" => Job::Promote,
        "crash-recovery" => Job::CrashRecovery,
        "clone" => Job::Clone {
            source: source(w, line)?,
        },
        "rewind" => Job::Rewind {
            source: source(w, line)?,
            discards: None,
            keep_aside: line.flag("aside"),
        },
        "check-divergence" => Job::CheckDivergence {
            source: source(w, line)?,
        },
        "start" => Job::Start {
            role: role(w, line)?,
            timeout,
        },
        "restart" => Job::Restart {
            role: role(w, line)?,
            timeout,
        },
        "stop" => Job::Stop {
            mode: match line.needs("fast or immediate")?.as_str() {
                "fast" => StopMode::Fast,
                "immediate" => StopMode::Immediate,
                other => return Err(format!("stop {other}: fast or immediate was expected")),
            },
            checkpoint_first: line.flag("after_checkpoint"),
        },
        "follow" => Job::Follow {
            upstream: line.word().map(|name| upstream(w, &name)),
        },
        "discard" => Job::DiscardDataDir {
            keep_aside: line.flag("aside"),
            reason: "it is to be copied anew".into(),
        },
        other => return Err(format!("there is no job `{other}`")),
    })
}

fn role(w: &World, line: &mut Line) -> Result<StartRole, String> {
    match line.needs("primary or standby")?.as_str() {
        "primary" => Ok(StartRole::Primary),
        "standby" => Ok(StartRole::Standby {
            upstream: line.word().map(|name| upstream(w, &name)),
        }),
        other => Err(format!("start {other}: primary or standby was expected")),
    }
}

fn source(w: &World, line: &mut Line) -> Result<Upstream, String> {
    Ok(upstream(w, &line.needs("a member")?))
}

fn upstream(w: &World, name: &str) -> Upstream {
    Upstream {
        name: name.into(),
        conn_url: conn_url(name),
        slot: w.settings.use_slots.then(|| slot_name(&w.me.name)),
    }
}

/// The same words again.
pub fn render(job: &Job) -> String {
    match job {
        Job::Bootstrap => "bootstrap".into(),
        Job::Promote => "promote".into(),
        Job::CrashRecovery => "crash-recovery".into(),
        Job::Clone { source } => format!("clone {}", source.name),
        Job::Rewind {
            source,
            discards,
            keep_aside,
        } => {
            let what = discards.map(|wal| format!(" without {wal}")).unwrap_or_default();
            format!("rewind {}{what}{}", source.name, aside(*keep_aside))
        }
        Job::CheckDivergence { source } => format!("check-divergence {}", source.name),
        Job::Start { role, timeout } => format!("start {} within {}", render_role(role), seconds(*timeout)),
        Job::Restart { role, timeout } => format!("restart {} within {}", render_role(role), seconds(*timeout)),
        Job::Stop { mode, checkpoint_first } => {
            let mode = match mode {
                StopMode::Fast => "fast",
                StopMode::Immediate => "immediate",
            };
            let after = if *checkpoint_first { " after_checkpoint" } else { "" };
            format!("stop {mode}{after}")
        }
        Job::Follow { upstream } => format!("follow {}", render_upstream(upstream.as_ref())),
        Job::DiscardDataDir { keep_aside, .. } => {
            format!("discard{}", aside(*keep_aside))
        }
    }
}

fn aside(keep: bool) -> &'static str {
    if keep { " aside" } else { "" }
}

fn render_role(role: &StartRole) -> String {
    match role {
        StartRole::Primary => "primary".into(),
        StartRole::Standby { upstream } => format!("standby of {}", render_upstream(upstream.as_ref())),
    }
}

fn render_upstream(upstream: Option<&Upstream>) -> String {
    match upstream {
        None => "nobody".into(),
        Some(u) => match &u.slot {
            Some(slot) => format!("{} with slot {slot}", u.name),
            None => u.name.to_string(),
        },
    }
}

fn seconds(time: Duration) -> String {
    format!("{} s", time.as_secs())
}

/// What a check of divergence found: `local=1@0/600 came_from=... leader_tl=2 forked=1@0/500 was_primary leader_in_recovery
/// another_promotion next=gone`.
pub fn divergence(line: &mut Line) -> Result<DivergenceFacts, String> {
    let end = |text: Option<String>| -> Result<(Timeline, Lsn), String> {
        super::etcd::timeline_end(&text.unwrap_or_else(|| "1@0/500".into()))
    };
    let (local_timeline, local_lsn) = end(line.value("local"))?;
    let fork = end(line.value("forked"))?;
    let own_fork = line.value("came_from").map(|text| end(Some(text))).transpose()?;
    Ok(DivergenceFacts {
        local_timeline,
        local_lsn,
        was_primary: line.flag("was_primary"),
        shutdown_checkpoint_end: line.lsn("shutdown_end")?,
        leader_timeline: Timeline(line.number("leader_tl")?.unwrap_or(2)),
        leader_in_recovery: line.flag("leader_in_recovery"),
        local_history: own_fork.into_iter().collect(),
        leader_history: vec![fork],
        same_promotion: match (line.flag("same_promotion"), line.flag("another_promotion")) {
            (true, _) => Some(true),
            (false, true) => Some(false),
            (false, false) => None,
        },
        next_wal: match line.value("next").as_deref() {
            None => NextWal::NotKnown,
            Some("kept") => NextWal::Kept,
            Some("gone") => NextWal::Gone { archive: false },
            Some("archived") => NextWal::Gone { archive: true },
            Some(other) => return Err(format!("next={other}: kept, gone or archived was expected")),
        },
    })
}
