//! A plan is everything that a run is made of, as data: the cluster, its settings and every fault with its time. Running
//! a plan is a pure function of it, so a plan can be written down, shortened, and given to real machines.

mod draw;
mod text;

use crate::etcd::Time;
use crate::faults::FaultKind;
use crate::settings::SimSettings;

pub use text::PlanError;

/// What one run does.
#[derive(Clone, PartialEq, Debug)]
pub struct Plan {
    /// Where latencies, durations and other chances come from.
    pub seed: u64,
    /// The cluster, and how chance treats it.
    pub settings: SimSettings,
    /// What happens to it, in order of time.
    pub faults: Vec<PlannedFault>,
    /// What must have become of the leader in the end. Chance may decide otherwise in the simulator, so only a run on real
    /// machines is held to it.
    pub leader: Option<LeaderFate>,
}

/// Who leads at the end, compared with the begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LeaderFate {
    /// The same node, without a pause.
    Stays,
    /// Another node.
    Moves,
}

/// One thing that will happen.
#[derive(Clone, PartialEq, Debug)]
pub struct PlannedFault {
    /// When, in whole milliseconds.
    pub at: Time,
    /// What.
    pub kind: &'static FaultKind,
    /// The slot `NODE`.
    pub node: Option<Target>,
    /// The slot `OTHER`.
    pub other: Option<Target>,
    /// The slot `NUMBER`, or `TIME` in milliseconds.
    pub number: Option<i64>,
    /// How long.
    pub lasts: Lasts,
}

/// Whom a fault hits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// This node, counted from zero; `n1` in texts is node 0.
    Node(usize),
    /// Whoever holds the leader key when it begins.
    Leader,
    /// The first node that does not hold the leader key when it begins.
    Standby,
    /// The first node that `/sync` names when it begins; without one as `Standby`.
    Synchronous,
}

/// How long a fault lasts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lasts {
    /// Until all faults end.
    UntilHealed,
    /// So long.
    For(Time),
    /// It is not healed: the others must do without.
    Ever,
}
