//! Defects that can be put into the rules on purpose, to measure whether the simulator would find them. Each is one that
//! Patroni, Stolon, repmgr, pg_auto_failover or a client of etcd really had; `docs/replayed-bugs.md` names the sources.
//!
//! Without the feature `planted-bugs` a question for a defect is the constant `false`, and nothing can be planted. No crate
//! but the simulator may enable it, and not by default (`integration/tests/borders.rs`).

use crate::view::View;

/// A defect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Planted {
    /// A read that shows the own name in the leader key is enough to promote.
    PromoteWithoutProof,
    /// The answer to a keepalive is enough as a proof.
    KeepaliveIsProof,
    /// Timelines are compared as numbers.
    TimelineAsNumber,
    /// A former primary is started as a primary although somebody else leads.
    OldPrimaryStartsAgain,
    /// A diverged node waits and says nothing.
    DivergedWaitsForEver,
    /// A crashed PostgreSQL is started in maintenance mode.
    RestartInPause,
    /// A primary is demoted in maintenance mode when etcd is away.
    DemoteInPause,
    /// The race goes on in maintenance mode.
    RaceInPause,
    /// The primary is demoted at the first answer of etcd that does not come.
    DemoteOnFirstSilence,
}

/// Is this defect planted in this node?
#[cfg(feature = "planted-bugs")]
pub(crate) fn planted(v: &View, defect: Planted) -> bool {
    v.memory.planted == Some(defect)
}

/// Is this defect planted in this node? Never, in this build.
#[cfg(not(feature = "planted-bugs"))]
pub(crate) const fn planted(_: &View, _: Planted) -> bool {
    false
}

/// The last check is off while a defect is planted, so that the oracles have to find what it does.
#[cfg(feature = "planted-bugs")]
pub(crate) fn is_last_check_off(v: &View) -> bool {
    v.memory.planted.is_some()
}

/// The last check is always on in this build.
#[cfg(not(feature = "planted-bugs"))]
pub(crate) const fn is_last_check_off(_: &View) -> bool {
    false
}

#[cfg(feature = "planted-bugs")]
impl crate::node::Node {
    /// Plants a defect in this node.
    pub fn plant(&mut self, defect: Planted) {
        self.view_mut().memory.planted = Some(defect);
    }
}
