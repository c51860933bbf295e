//! S17: whatever a killed daemon, bootstrap, copy or rewind left behind is never started: it is repaired or copied anew.

use pgha_core::job::Job;

use crate::postgres::Dir;
use crate::world::World;

pub(super) fn check_job(world: &World, i: usize, job: &Job) -> Option<String> {
    let starts = matches!(
        job,
        Job::Start { .. } | Job::Restart { .. } | Job::Promote | Job::CrashRecovery
    );
    let node = &world.nodes[i];
    let what = match &node.pg.dir {
        Dir::Data(_) => return None,
        Dir::Empty => "an empty directory".to_owned(),
        Dir::Unfinished(work) => format!("what an unfinished {work:?} left"),
    };
    starts.then(|| format!("S17: {} starts {what}", node.name))
}
