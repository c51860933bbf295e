//! S14: in maintenance mode a daemon begins no work on PostgreSQL but what an operator asked for.

use pgha_core::job::Job;

use crate::world::World;

pub(super) fn check_job(world: &World, i: usize, job: &Job) -> Option<String> {
    let node = &world.nodes[i];
    let view = node.agent.as_ref()?.view();
    if !view.settings().pause {
        return None;
    }
    let wishes = &view.memory.wishes;
    let reinitializes = wishes.reinitialize.is_some();
    let asked = match job {
        Job::Restart { .. } => wishes.restart.is_some() || wishes.scheduled_restart.is_some(),
        Job::Stop { .. } => view.memory.handover.is_some() || reinitializes,
        Job::Promote => world.oracles.watch.named.contains(&i),
        Job::DiscardDataDir { .. } | Job::Clone { .. } => reinitializes,
        // It changes nothing.
        Job::CheckDivergence { .. } => true,
        Job::Bootstrap | Job::Start { .. } | Job::Follow { .. } | Job::CrashRecovery | Job::Rewind { .. } => false,
    };
    (!asked).then(|| format!("S14: {} begins {job:?} in maintenance mode", node.name))
}
