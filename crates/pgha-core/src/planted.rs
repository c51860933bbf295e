//! Defects that can be put into the rules on purpose, to measure whether the simulator would find them. Each is one that
//! Patroni, Stolon, pg_auto_failover, repmgr, CloudNativePG or a client of etcd really had; `docs/replayed-bugs.md` names the
//! sources.
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
    /// A candidate does not compare its position with those of its peers.
    PositionIgnored,
    /// A candidate asks nobody.
    RaceAsksNobody,
    /// A candidate does not wait for the deadline of a leader whose key vanished.
    OldDeadlineIgnored,
    /// A candidate does not compare its timeline with `/history`.
    HistoryIgnored,
    /// Nobody is promoted until every member has answered.
    EverybodyMustAnswer,
    /// What peers answered once is used again in later cycles.
    OldAnswersUsed,
    /// A primary whose key is gone takes it again and does not look who led since.
    StalePrimaryRetakes,
    /// The key is released when PostgreSQL has stopped, whoever has the shutdown checkpoint.
    ReleasedAtStop,
    /// Who has the beginning of the shutdown checkpoint's record is taken to have it.
    RecordHalfReceived,
    /// A wish in `/failover` that cannot be fulfilled stays.
    WishNeverCleared,
    /// A monitoring query without an answer is taken for a server that is down.
    SilenceMeansDown,
    /// A primary that reaches no peer is stopped.
    IsolationIsFatal,
    /// The promotion goes by keys that were read before the proof.
    PromotesOnOldRead,
    /// A transaction without an answer is taken for applied.
    SilenceIsSuccess,
    /// A directory that pg_rewind left half way is started.
    HalfRewoundStarted,
    /// A directory that a copy left half way is started.
    HalfCopyStarted,
    /// Data is removed without a look whether a primary lives elsewhere.
    RemovesUnasked,
    /// A member's slot is dropped as soon as its key is gone.
    SlotGoesWithMember,
    /// A slot that this daemon never saw wanted is dropped.
    UnknownSlotDropped,
    /// A slot whose WAL is lost stays.
    LostSlotKept,
    /// The health check for the primary goes by PostgreSQL's role alone.
    AnswersByRoleOnly,
    /// A switchover that names nobody may go to a member outside `/sync`.
    SwitchoverToAnybody,
    /// Commits are believed to wait as soon as there are synchronous names.
    WaitingIsBelieved,
    /// A standby is named in `/sync` before it has received what was acknowledged.
    PublishedAtOnce,
    /// Synchronous names change before `/sync` is taken back.
    NamesBeforeKey,
    /// A standby that is gone stays among the synchronous names.
    OldNamesKept,
    /// In strict mode any standby may acknowledge while nobody is chosen.
    AnybodyInStrictMode,
    /// A candidate of `/sync` does not look whom else it sees.
    VotersIgnored,
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
