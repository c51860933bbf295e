//! One look at PostgreSQL, with what an observation alone does not show: the timeline that a standby without a wal
//! receiver replays, parameters that wait for a restart because the command line carries them, and the history file.

use std::collections::BTreeMap;
use std::time::Duration;

use pgha_core::pg::{PendingRestart, PgView, Postmaster, SqlRole, SqlView};
use pgha_core::units::Timeline;
use pgha_core::view::TimelineEnd;
use tokio::sync::mpsc;

use super::jobs;
use super::local::Local;
use crate::clock;

/// Most time for asking a standby without a wal receiver for its timeline.
const TIMELINE_LIMIT: Duration = Duration::from_millis(800);

/// The history file of a timeline, read once.
pub type History = (Timeline, Vec<TimelineEnd>);

/// Parameters of the postmaster's command line that differ from those it would be started with now. PostgreSQL cannot
/// know: its own `pending_restart` compares with the configuration files, and the command line overrides those.
fn pending_by_command_line(local: &Local, pid: i32) -> Vec<PendingRestart> {
    let Ok(bytes) = std::fs::read(format!("/proc/{pid}/cmdline")) else {
        return Vec::new();
    };
    let text = String::from_utf8_lossy(&bytes);
    let running: BTreeMap<&str, &str> = text
        .split('\0')
        .filter_map(|arg| arg.strip_prefix("--")?.split_once('='))
        .collect();
    let wanted = &local.effective.parameters.controlled;
    let differs = |(name, new): (&String, &String)| {
        let old = *running.get(name.as_str())?;
        (old != new).then(|| PendingRestart {
            name: name.clone(),
            old_value: old.to_owned(),
            new_value: new.clone(),
        })
    };
    wanted.iter().filter_map(differs).collect()
}

/// Observes, and asks a standby without a wal receiver for the timeline it replays: pg_control lags behind there.
pub async fn look(local: &Local, budget: Duration) -> PgView {
    let mut view = local.instance.observe(clock::boot(), budget).await;
    if let (SqlView::Answered(facts), Postmaster::Running { pid, .. }) = (&mut view.sql, &view.postmaster) {
        facts.pending_restart.extend(pending_by_command_line(local, *pid));
    }
    if let SqlView::Answered(facts) = &mut view.sql
        && let SqlRole::Standby(standby) = &mut facts.role
        && standby.wal_receiver.is_none()
    {
        let me = jobs::local_address(local.instance.spec());
        match local.instance.identify_system(&me, TIMELINE_LIMIT.min(budget)).await {
            Ok(identity) => standby.timeline = standby.timeline.max(Some(identity.timeline)),
            Err(error) => tracing::debug!(error = error.chain(), "the timeline is known from pg_control only"),
        }
    }
    view
}

/// The history file of the running primary's timeline; what was read is passed on through `out` to be known next time.
pub async fn read_history(
    local: &Local,
    timeline: Timeline,
    known: Option<History>,
    out: &mpsc::Sender<History>,
) -> Vec<TimelineEnd> {
    if let Some((of, lines)) = known.filter(|(of, _)| *of == timeline) {
        tracing::trace!(timeline = of.0, "history known");
        return lines;
    }
    let file = match local.instance.history(timeline).await {
        Ok(Some(file)) => file,
        Ok(None) => return Vec::new(),
        Err(error) => {
            tracing::warn!(error = error.chain(), "the timeline history file cannot be read");
            return Vec::new();
        }
    };
    let lines: Vec<TimelineEnd> = file
        .entries
        .into_iter()
        .map(|e| TimelineEnd {
            timeline: e.timeline,
            switchpoint: e.switchpoint,
            reason: e.reason,
        })
        .collect();
    // A full channel means that the same answer is on its way already.
    let _full = out.try_send((timeline, lines.clone()));
    lines
}
