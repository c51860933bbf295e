//! `check ...`: what the last line of defence says to an effect, whoever may have asked for it.

use pgha_core::check;
use pgha_core::commit::{Change, Commit, Guard, Key, Purpose, StatusValue};
use pgha_core::effect::Effect;
use pgha_core::event::OpId;
use pgha_core::plan;
use pgha_core::view::View;

use super::jobs;
use super::line::Line;
use super::world::World;

/// `check job promote`, `check commit release`, `check unguarded status`.
pub fn run(w: &World, line: &mut Line) -> Result<Vec<String>, String> {
    let view = w.view();
    let op = OpId(1);
    let effect = match line.needs("job, commit or unguarded")?.as_str() {
        "job" => Effect::StartJob {
            op,
            job: jobs::parse(w, line)?,
        },
        "commit" => commit_effect(op, planned(&view, line)?),
        "unguarded" => commit_effect(op, unguarded(&view, line)?),
        other => return Err(format!("check {other} is not known")),
    };
    Ok(vec![match check::check(&view, &effect) {
        Ok(()) => "allowed".into(),
        Err(v) => format!("refused {}: {}", v.invariant, v.what),
    }])
}

fn commit_effect(op: OpId, commit: Commit) -> Effect {
    Effect::Commit {
        op,
        commit,
        budget: std::time::Duration::from_secs(1),
    }
}

/// A commit as the node plans it.
fn planned(view: &View, line: &mut Line) -> Result<Commit, String> {
    let what = line.needs("prove, release, acquire or take-over")?;
    match what.as_str() {
        "prove" => plan::prove(view),
        "release" => plan::release(view, None),
        "acquire" => plan::acquire(view),
        "take-over" => plan::take_over(view),
        other => return Err(format!("check commit {other} is not known")),
    }
    .ok_or_else(|| format!("nothing is planned for `{what}`"))
}

/// A commit as a mistake would make it.
fn unguarded(view: &View, line: &mut Line) -> Result<Commit, String> {
    let change = match line.needs("leader, status, history or release")?.as_str() {
        "leader" => Change::PutLeader {
            name: view.me.name.clone(),
            lease: view.memory.lease.ok_or("no lease")?.id,
        },
        "status" => Change::PutStatus(StatusValue::default()),
        "history" => Change::PutHistory(Vec::new()),
        "release" => Change::Delete(Key::Leader),
        other => return Err(format!("check unguarded {other} is not known")),
    };
    Ok(Commit {
        purpose: Purpose::UpdateHistory,
        guards: if line.flag("guarded") {
            vec![Guard::Absent(Key::Sync)]
        } else {
            Vec::new()
        },
        changes: vec![change],
    })
}
