//! Abstract facts, as lines of the scenario language, and how one of them is put into a view in place.
//!
//! Each part sets its fields whole, so that an enumeration can go from one view to the next by setting only what
//! differs. Nothing is left over from the view before.

use pgha_core::cluster::{ClusterView, DcsView};
use pgha_core::units::Revision;
use pgha_core::view::View;

use super::support::world::World;

/// One kind of fact.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// How etcd answers. Comes before every part that lies in etcd.
    Etcd,
    Settings,
    Me,
    Initialize,
    Leader,
    Members,
    Status,
    Sync,
    Failover,
    History,
    FailsafeKey,
    Lease,
    Pg,
    Peers,
    Proof,
    Sight,
    Fence,
    Job,
    Handover,
    Failure,
    Wish,
    Divergence,
    Cycle,
    Writable,
    Down,
    Terminating,
    Watchdog,
    Claim,
    Floor,
    Known,
    Replaced,
    LongerTtl,
    Empty,
    /// What was promised to a leader without etcd, or by others to this one.
    Failsafe,
}

/// One kind of fact with the values it takes.
pub struct Dimension {
    pub part: Part,
    /// Each value: its lines, and a world in which only they were said.
    pub values: Vec<(&'static str, World)>,
}

/// The values are lines separated by `;`. The empty text is the absence of the fact.
pub fn dimension(part: Part, values: &[&'static str]) -> Dimension {
    let said = |text: &&'static str| {
        let mut w = World::new();
        for line in text.split(';').map(str::trim).filter(|l| !l.is_empty()) {
            w.set(line).unwrap_or_else(|e| panic!("{line}: {e}"));
        }
        (*text, w)
    };
    Dimension {
        part,
        values: values.iter().map(said).collect(),
    }
}

/// The keys as far as known, to be changed.
fn keys(v: &mut View) -> Option<&mut ClusterView> {
    match &mut v.dcs {
        DcsView::Fresh(c) => Some(c),
        DcsView::Unreachable { last, .. } => last.as_deref_mut(),
        DcsView::NotRead => None,
    }
}

/// Puts what `w` says of this part into `v`.
pub fn put(part: Part, w: &World, v: &mut View) {
    let (from, to) = (&w.memory, &mut v.memory);
    match part {
        Part::Etcd => v.dcs = w.view().dcs,
        Part::Settings => to.settings = w.settings.clone(),
        Part::Me => v.me = w.me.clone(),
        Part::Lease => to.lease = from.lease,
        Part::Pg => {
            v.pg = w.view().pg;
            v.timeline_history.clone_from(&w.timeline_history);
        }
        Part::Peers => {
            v.peers.clone_from(&w.peers);
            v.memory.cycle.peers_asked = from.cycle.peers_asked;
        }
        Part::Proof => to.proof = w.view().memory.proof,
        Part::Sight => to.sight.clone_from(&from.sight),
        Part::Fence => to.fence = from.fence,
        Part::Job => to.job.clone_from(&from.job),
        Part::Handover => to.handover.clone_from(&from.handover),
        Part::Failure => to.failures.clone_from(&from.failures),
        Part::Wish => to.wishes.clone_from(&from.wishes),
        Part::Divergence => {
            to.divergence.clone_from(&from.divergence);
            to.divergence_checked_at = from.divergence_checked_at;
            to.stall = from.stall;
            to.member_written.clone_from(&from.member_written);
        }
        Part::Cycle => {
            let peers_asked = to.cycle.peers_asked;
            to.cycle.clone_from(&from.cycle);
            to.cycle.peers_asked = peers_asked;
        }
        Part::Writable => to.maybe_writable = from.maybe_writable,
        Part::Down => to.primary_down_since = from.primary_down_since,
        Part::Terminating => to.terminating = from.terminating,
        Part::Watchdog => to.watchdog = from.watchdog,
        Part::Claim => to.bootstrap_claim = from.bootstrap_claim,
        Part::Floor => to.timeline_floor = from.timeline_floor,
        Part::Known => to.known.clone_from(&from.known),
        Part::Replaced => to.store_replaced_at = from.store_replaced_at,
        Part::LongerTtl => to.longer_ttl = from.longer_ttl,
        Part::Empty => to.scope_empty_since = from.scope_empty_since,
        Part::Failsafe => to.failsafe.clone_from(&from.failsafe),
        Part::Initialize
        | Part::Leader
        | Part::Members
        | Part::Status
        | Part::Sync
        | Part::Failover
        | Part::FailsafeKey
        | Part::History => {
            if part == Part::Sync {
                to.sync_of_past = from.sync_of_past;
            }
            if let Some(c) = keys(v) {
                put_key(part, &w.cluster, c);
            }
        }
    }
}

fn put_key(part: Part, from: &ClusterView, to: &mut ClusterView) {
    match part {
        Part::Initialize => to.initialize = from.initialize,
        Part::Leader => {
            to.leader.clone_from(&from.leader);
            to.unreadable.clone_from(&from.unreadable);
        }
        Part::Members => to.members.clone_from(&from.members),
        Part::Status => to.status.clone_from(&from.status),
        Part::Sync => to.sync.clone_from(&from.sync),
        Part::Failover => to.failover.clone_from(&from.failover),
        Part::History => to.history.clone_from(&from.history),
        Part::FailsafeKey => to.failsafe.clone_from(&from.failsafe),
        _ => {}
    }
    // Every key that is said is a write of its own at revision 101; what was read is at 110.
    to.revision = Revision(110);
}
