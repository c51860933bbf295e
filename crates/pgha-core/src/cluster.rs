//! What etcd holds for one scope, read at one revision.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::rewind::DivergedWal;
use crate::settings::Settings;
use crate::tags::Tags;
use crate::units::{LeaseId, Lsn, MemberName, Mono, Revision, SystemId, Timeline, Wall};

/// What this node knows of etcd.
#[derive(Clone, PartialEq, Debug)]
pub enum DcsView {
    /// Nothing was read yet in the life of this daemon.
    NotRead,
    /// Read in this cycle.
    Fresh(ClusterView),
    /// The last read failed or timed out.
    Unreachable {
        /// When the first of the uninterrupted failures was noticed.
        since: Mono,
        /// The last view that was read, for information only; never a base for a promotion.
        last: Option<Box<ClusterView>>,
    },
}

/// All keys of the scope at ONE etcd revision, never a mix of two.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ClusterView {
    /// Store revision of the read.
    pub revision: Revision,
    /// `/initialize`.
    pub initialize: Initialize,
    /// `/config`; `None` when the key is missing.
    pub config: Option<ConfigKey>,
    /// `/leader`.
    pub leader: Option<LeaderKey>,
    /// `/members/*`, by name. Shared between views, as few of them change from one read to the next.
    pub members: BTreeMap<MemberName, Arc<Member>>,
    /// `/failover`; `None` when missing, empty or `{}`.
    pub failover: Option<FailoverKey>,
    /// `/history`.
    pub history: Option<HistoryKey>,
    /// `/status`.
    pub status: Option<StatusKey>,
    /// `/sync`.
    pub sync: Option<SyncKey>,
    /// `/failsafe`.
    pub failsafe: Option<FailsafeKey>,
    /// Values that could not be understood: key and reason. Such a key counts as missing, and is never overwritten for it.
    pub unreadable: Vec<(String, String)>,
}

impl ClusterView {
    /// Is there a key of this name whose value could not be understood?
    pub fn is_unreadable(&self, key: &str) -> bool {
        self.unreadable
            .iter()
            .any(|(name, _)| name.rsplit('/').next() == Some(key))
    }
    /// Mod revision of `/sync`; zero without it.
    pub fn sync_revision(&self) -> Revision {
        self.sync.as_ref().map_or(Revision(0), |key| key.mod_revision)
    }
    /// The name in the leader key.
    pub fn leader_name(&self) -> Option<&MemberName> {
        self.leader.as_ref().map(|l| &l.name)
    }
    /// The highest timeline recorded in `/history` plus one: the timeline the last promotion created.
    pub fn timeline_by_history(&self) -> Option<Timeline> {
        let last = self.history.as_ref()?.lines.last()?;
        Some(Timeline(last.timeline.0.saturating_add(1)))
    }
    /// The settings in force: those of `/config` or the defaults.
    pub fn settings(&self) -> Settings {
        self.config.as_ref().map(|c| c.settings.clone()).unwrap_or_default()
    }
}

/// The state of `/initialize`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Initialize {
    /// No key: the cluster was never bootstrapped.
    #[default]
    Absent,
    /// Empty value: somebody is bootstrapping.
    InProgress {
        /// Mod revision of the claim.
        mod_revision: Revision,
        /// The lease of who claimed it; Patroni's claims have none.
        lease: Option<LeaseId>,
    },
    /// The system identifier of the cluster.
    Done(SystemId),
    /// The key holds something else; nobody may bootstrap over it.
    Unreadable,
}

/// `/config`, the dynamic configuration.
#[derive(Clone, PartialEq, Debug)]
pub struct ConfigKey {
    /// For compare-and-swap.
    pub mod_revision: Revision,
    /// The JSON text as stored; core hands it on and never looks inside.
    pub text: String,
    /// What core understands of it, with defaults for what is absent or wrong.
    pub settings: Settings,
}

/// `/leader`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeaderKey {
    /// Who holds it.
    pub name: MemberName,
    /// The fencing token: differs for every acquisition.
    pub create_revision: Revision,
    /// Changes when the holder rewrites the key.
    pub mod_revision: Revision,
    /// The lease it hangs on; `None` would be a key put by hand.
    pub lease: Option<LeaseId>,
}

/// `/members/<name>`. Every field is what that member said of itself at its last touch.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Member {
    /// For change detection.
    pub mod_revision: Revision,
    /// The lease it hangs on.
    pub lease: Option<LeaseId>,
    /// `conn_url`, e.g. `postgres://10.0.0.1:5432/postgres`.
    pub conn_url: Option<String>,
    /// `api_url`, e.g. `http://10.0.0.1:8008/patroni`.
    pub api_url: Option<String>,
    /// Patroni's state text.
    pub state: MemberState,
    /// Patroni's role text.
    pub role: MemberRole,
    /// Version text of the agent.
    pub version: Option<String>,
    /// Effective tags.
    pub tags: Tags,
    /// `xlog_location`.
    pub lsn: Option<Lsn>,
    /// `receive_lsn`.
    pub receive_lsn: Option<Lsn>,
    /// `replay_lsn`.
    pub replay_lsn: Option<Lsn>,
    /// `timeline`.
    pub timeline: Option<Timeline>,
    /// `streaming` or `in archive recovery`.
    pub replication_state: Option<String>,
    /// `diverged_wal`: it has WAL that is not in the leader's history and will be discarded. Of pgha alone.
    pub diverged_wal: Option<DivergedWal>,
    /// `false` in the key: the leader's checkpoint after promotion is still outstanding.
    pub checkpoint_outstanding: bool,
    /// This member has seen the pause.
    pub pause: bool,
    /// A restart is pending.
    pub pending_restart: bool,
    /// The raw JSON, for those who show what core does not know.
    pub text: String,
}

/// Patroni's state texts, with its numbers for `/metrics`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum MemberState {
    /// `initializing new cluster`
    InitializingNewCluster,
    /// `initdb failed`
    InitdbFailed,
    /// `running custom bootstrap script`
    RunningCustomBootstrap,
    /// `custom bootstrap failed`
    CustomBootstrapFailed,
    /// `creating replica`
    CreatingReplica,
    /// `running`
    Running,
    /// `starting`
    Starting,
    /// `starting after custom bootstrap`
    StartingAfterCustomBootstrap,
    /// `start failed`
    StartFailed,
    /// `restarting`
    Restarting,
    /// `restart failed`
    RestartFailed,
    /// `stopping`
    Stopping,
    /// `stopped`
    Stopped,
    /// `stop failed`
    StopFailed,
    /// `crashed`
    Crashed,
    /// Anything else, or nothing.
    #[default]
    Unknown,
}

/// Patroni's role texts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum MemberRole {
    /// `primary` (`master` in old versions).
    Primary,
    /// `standby_leader`
    StandbyLeader,
    /// `replica`
    Replica,
    /// `promoted`: promotion is under way.
    Promoted,
    /// `demoted`
    Demoted,
    /// `uninitialized`: no data directory.
    #[default]
    Uninitialized,
}

/// `/failover`: an operator's wish.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FailoverKey {
    /// For compare-and-swap.
    pub mod_revision: Revision,
    /// Present: a switchover away from this leader.
    pub leader: Option<MemberName>,
    /// The wanted candidate.
    pub candidate: Option<MemberName>,
    /// When to do it; `None` = now.
    pub scheduled_at: Option<Wall>,
    /// `scheduled_at` was there but could not be understood.
    pub schedule_unreadable: bool,
}

impl FailoverKey {
    /// A switchover names the leader it departs from; a failover does not.
    pub fn is_switchover(&self) -> bool {
        self.leader.is_some()
    }
}

/// `/history`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HistoryKey {
    /// For compare-and-swap.
    pub mod_revision: Revision,
    /// Oldest first.
    pub lines: Vec<HistoryLine>,
}

/// One line of `/history`: the end of a timeline.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HistoryLine {
    /// The timeline that ended.
    pub timeline: Timeline,
    /// Where it ended.
    pub switchpoint: Lsn,
    /// PostgreSQL's reason text, e.g. `no recovery target specified`.
    pub reason: String,
    /// ISO 8601 text; empty in short, old lines.
    pub timestamp: String,
    /// Who was promoted; empty in short, old lines.
    pub new_leader: String,
}

/// `/status`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct StatusKey {
    /// Grows with each proof of leadership, which is how others see that one was made.
    pub mod_revision: Revision,
    /// The leader's last published WAL position.
    pub optime: Lsn,
    /// Slot name to LSN.
    pub slots: BTreeMap<String, Lsn>,
    /// Slots to keep for absent members.
    pub retain_slots: Vec<String>,
    /// Who wrote it (pgha's own field; `None` when Patroni wrote it).
    pub writer: Option<MemberName>,
    /// The writer gave the leadership up in the same transaction (pgha's own field): it no longer accepts writes.
    pub released: bool,
}

/// `/failsafe`: who has to agree when the leader goes on without etcd, and who may lead at all.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FailsafeKey {
    /// For compare-and-swap.
    pub mod_revision: Revision,
    /// Member name to `api_url`, the leader's own included.
    pub members: BTreeMap<MemberName, String>,
}

/// `/sync`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SyncKey {
    /// For compare-and-swap.
    pub mod_revision: Revision,
    /// The primary the names belong to.
    pub leader: Option<MemberName>,
    /// 0 in priority mode.
    pub quorum: u32,
    /// Standbys that hold every acknowledged commit (priority mode), or the voters (quorum mode).
    pub standbys: Vec<MemberName>,
}
