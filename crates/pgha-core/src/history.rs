//! `/history`: how each timeline ended, and which WAL is discarded because of it.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use crate::cluster::{ClusterView, HistoryKey, HistoryLine};
use crate::commit::{Change, Commit, Guard, Key, Purpose};
use crate::pg::SqlRole;
use crate::units::Timeline;
use crate::view::View;

/// Longest reason with notes, in bytes: members that diverge again and again do not fill etcd.
const MAX_REASON_BYTES: usize = 1024;

/// The write that brings `/history` up to date: with the line of the timeline that our promotion ended, and with a note for
/// each member whose WAL left it. `None` when nothing is missing.
pub fn update(v: &View, c: &ClusterView, guard: Guard) -> Option<Commit> {
    let timeline = match &v.pg.facts()?.role {
        SqlRole::Primary { timeline, .. } => *timeline,
        SqlRole::Standby(_) => return None,
    };
    if timeline.0 <= 1 || c.is_unreadable("history") {
        return None;
    }
    let old = c.history.as_ref();
    let mut lines = match old.filter(|h| is_complete(v, h, timeline)) {
        Some(complete) => complete.lines.clone(),
        None => with_our_promotion(v, old, timeline)?,
    };
    note_diverged(c, &mut lines);
    if old.is_some_and(|h| h.lines == lines) {
        return None;
    }
    let keep = usize::try_from(v.settings().max_timelines_history).unwrap_or(0);
    if keep > 0 && lines.len() > keep {
        lines.drain(..lines.len() - keep);
    }
    let key_guard = match old {
        Some(h) => Guard::Unchanged(Key::History, h.mod_revision),
        None => Guard::Absent(Key::History),
    };
    Some(Commit {
        purpose: Purpose::UpdateHistory,
        guards: vec![guard, key_guard],
        changes: vec![Change::PutHistory(lines)],
    })
}

/// Does it end with the promotion to this timeline? PostgreSQL's own file decides. The timeline that ended need not be the
/// one before: a promotion skips the numbers that the WAL archive knows. Nor is the same number the same end.
fn is_complete(v: &View, history: &HistoryKey, timeline: Timeline) -> bool {
    let last = history.lines.last().filter(|l| !l.new_leader.is_empty());
    match (last, v.timeline_history.last()) {
        (Some(line), Some(end)) => (line.timeline, line.switchpoint) == (end.timeline, end.switchpoint),
        (Some(line), None) => line.timeline.0 + 1 == timeline.0,
        (None, _) => false,
    }
}

/// The lines of PostgreSQL's own history file, with what `/history` knows beside them. `None` while that file was not read.
fn with_our_promotion(v: &View, old: Option<&HistoryKey>, timeline: Timeline) -> Option<Vec<HistoryLine>> {
    let ends = &v.timeline_history;
    ends.last().filter(|l| l.timeline < timeline)?;
    let newest = ends.len() - 1;
    let lines = ends.iter().enumerate().map(|(i, end)| {
        let same = |l: &&HistoryLine| l.timeline == end.timeline && l.switchpoint == end.switchpoint;
        let known = old.and_then(|h| h.lines.iter().find(same));
        HistoryLine {
            timeline: end.timeline,
            switchpoint: end.switchpoint,
            reason: known.map_or_else(|| end.reason.clone(), |line| line.reason.clone()),
            timestamp: match known {
                Some(line) if i != newest || !line.timestamp.is_empty() => line.timestamp.clone(),
                Some(_) | None if i == newest => crate::history_time::render(v.now.wall),
                Some(_) | None => String::new(),
            },
            new_leader: match known {
                Some(line) if !line.new_leader.is_empty() => line.new_leader.clone(),
                Some(_) | None if i == newest => v.me.name.as_str().into(),
                Some(_) | None => String::new(),
            },
        }
    });
    Some(lines.collect())
}

/// Members tell which of their WAL is not in our history: it is noted where that WAL left it, before it is gone.
fn note_diverged(c: &ClusterView, lines: &mut [HistoryLine]) {
    for (name, member) in &c.members {
        let Some(wal) = member.diverged_wal else { continue };
        let note = format!("{name} had {wal} beyond it");
        if lines.iter().any(|l| l.reason.contains(&note)) {
            continue;
        }
        let place = lines.iter().rposition(|l| l.switchpoint == wal.from);
        let Some(line) = place.or(lines.len().checked_sub(1)).and_then(|at| lines.get_mut(at)) else {
            continue;
        };
        if line.reason.len() + note.len() + 2 <= MAX_REASON_BYTES {
            line.reason.push_str("; ");
            line.reason.push_str(&note);
        }
    }
}
