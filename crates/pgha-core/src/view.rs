//! Everything a decision is made from, in one value.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use crate::cluster::{ClusterView, DcsView};
use crate::effect::FenceOrder;
use crate::event::OpId;
use crate::failsafe::Failsafe;
use crate::job::{DivergenceFacts, Job, JobFailure};
use crate::known::KnownCluster;
use crate::peer::PeerView;
use crate::pg::PgView;
use crate::planted::{Planted, planted};
use crate::request::{RequestId, RestartRequest};
use crate::rewind::{DivergedWal, Verdict, diverged_wal, judge};
use crate::settings::Settings;
use crate::tags::Tags;
use crate::units::{LeaseId, Lsn, MemberName, Mono, Now, Revision, Timeline, Wall};

/// The facts, and nothing but the facts.
#[derive(Clone, PartialEq, Debug)]
pub struct View {
    /// Both clocks at the event being handled.
    pub now: Now,
    /// Who I am and what the local configuration says.
    pub me: NodeSpec,
    /// etcd.
    pub dcs: DcsView,
    /// PostgreSQL.
    pub pg: PgView,
    /// The history file of the running primary's timeline, oldest first.
    pub timeline_history: Vec<TimelineEnd>,
    /// Answers of peers in this cycle.
    pub peers: BTreeMap<MemberName, PeerView>,
    /// What the node remembers from before.
    pub memory: Memory,
}

/// One line of a timeline history file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TimelineEnd {
    /// The timeline that ended.
    pub timeline: Timeline,
    /// Where.
    pub switchpoint: Lsn,
    /// PostgreSQL's reason text.
    pub reason: String,
}

/// Identity and local configuration of this node.
#[derive(Clone, PartialEq, Debug)]
pub struct NodeSpec {
    /// Member name.
    pub name: MemberName,
    /// Scope.
    pub scope: String,
    /// What peers connect to for replication.
    pub conn_url: String,
    /// Where peers ask for the status.
    pub api_url: String,
    /// Tags.
    pub tags: Tags,
    /// There is a `bootstrap` section: this node may create a cluster.
    pub may_bootstrap: bool,
    /// `bootstrap.dcs` as JSON text: the first `/config`.
    pub bootstrap_config: String,
    /// The last dynamic configuration cached on disk, to restore a lost `/config`.
    pub cached_config: Option<String>,
    /// What was kept on disk of the cluster as it was ([`crate::effect::Effect::Remember`]).
    pub kept_cluster: Option<KnownCluster>,
    /// What core understands of that cache: in force until etcd is read for the first time.
    pub cached_settings: Option<Settings>,
    /// `watchdog.mode` is `required`.
    pub watchdog_required: bool,
    /// Local `postgresql.use_pg_rewind`, if set there.
    pub use_pg_rewind: Option<bool>,
    /// Local `postgresql.remove_data_directory_on_rewind_failure`.
    pub remove_on_rewind_failure: Option<bool>,
    /// Local `postgresql.remove_data_directory_on_diverged_timelines`.
    pub remove_on_diverged_timelines: Option<bool>,
    /// Local `postgresql.keep_diverged_wal`.
    pub keep_diverged_wal: Option<bool>,
    /// The fence is on.
    pub fenced: bool,
}

/// State of the watchdog.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum WatchdogView {
    /// Not used.
    #[default]
    Off,
    /// Present, not armed.
    Usable,
    /// Armed.
    Armed,
    /// Wanted, but it cannot be used.
    Failed,
}

/// What the node remembers between cycles. All of it may be lost in a crash without harm; of `known` a part is kept on disk.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Memory {
    /// The lease, if one is held as far as known.
    pub lease: Option<LeaseMemory>,
    /// The last proof of leadership.
    pub proof: Option<Proof>,
    /// Last sight of somebody's proof, for R10.
    pub sight: Option<ProofSight>,
    /// What the fence was told last.
    pub fence: Option<FenceOrder>,
    /// The running job.
    pub job: Option<RunningJob>,
    /// What this cycle has established so far.
    pub cycle: CycleFacts,
    /// `/initialize` is claimed by this node: mod revision of the claim.
    pub bootstrap_claim: Option<Revision>,
    /// What is known of local WAL against the leader's history.
    pub divergence: Divergence,
    /// When that was last compared.
    pub divergence_checked_at: Option<Mono>,
    /// This standby does not stream, and where it has stood since when.
    pub stall: Option<Stall>,
    /// The last failure of each kind of job, for back-off.
    pub failures: Failures,
    /// A restart, reinitialisation or shutdown asked for.
    pub wishes: Wishes,
    /// A planned hand-over is under way.
    pub handover: Option<Handover>,
    /// The checkpoint after promotion is still due.
    pub checkpoint_due: bool,
    /// Last role told to callbacks.
    pub told_role: Option<crate::effect::CallbackRole>,
    /// When PostgreSQL was found crashed or still starting under our lock, for `primary_start_timeout`.
    pub primary_down_since: Option<Mono>,
    /// PostgreSQL may accept writes: it said so, or a job that makes it writable was begun, and nothing observed since
    /// says otherwise.
    pub maybe_writable: bool,
    /// The running server may have been told to promote itself by somebody who does not wait for it any more: a daemon
    /// before this one, or a job that was given up. It cannot be taken back, only stopped.
    pub loose_promotion: bool,
    /// When the last job ended: an observation that began earlier says nothing about its result.
    pub job_ended_at: Mono,
    /// Since when there has been neither `/initialize` nor a leader.
    pub scope_empty_since: Option<Mono>,
    /// Since when etcd, read again and again, has had no leader key.
    pub leaderless_since: Option<Mono>,
    /// The cluster as it was while somebody led.
    pub known: KnownCluster,
    /// As it was when a part of it was last put on disk; nothing after a job that replaced the data directory.
    pub known_kept: Option<KnownCluster>,
    /// Failsafe mode, on both sides.
    pub failsafe: Failsafe,
    /// Just before etcd was last asked for all keys, of the requests that it answered.
    pub dcs_read_at: Option<Mono>,
    /// When a look around in maintenance mode ended last: etcd showed the mode, or did not answer and no member that does is
    /// a newer primary.
    pub pause_holds_at: Option<Mono>,
    /// When maintenance mode, known to be on, was read to be off.
    pub pause_lifted_at: Option<Mono>,
    /// When etcd answered with a lower revision than before: it was restored from a snapshot or replaced.
    pub store_replaced_at: Option<Mono>,
    /// [`ClusterView::sync_revision`] as the etcd that took the place of another one brought it.
    pub sync_of_past: Option<Revision>,
    /// [`ClusterView::sync_revision`] that a write of `/sync` without an answer is guarded by: it may yet arrive.
    pub sync_in_doubt: Option<Revision>,
    /// Create revision of a leader key with our own name, when somebody was seen to have led since.
    pub overtaken_key: Option<Revision>,
    /// Create revision of the leader key seen last; a new one makes earlier checks of divergence void.
    pub leader_seen: Option<Revision>,
    /// Mod revision of the `/config` that was applied last.
    pub config_applied: Option<Revision>,
    /// The value last written to the member key, with its lease: written again only when it changes.
    pub member_written: Option<(LeaseId, crate::commit::MemberValue)>,
    /// Watchdog.
    pub watchdog: WatchdogView,
    /// A larger ttl that was in force until lately, and until when a leader may still count on it (R10).
    pub longer_ttl: Option<(core::time::Duration, Mono)>,
    /// Highest timeline seen from SQL since the data directory was last copied, rewound or started. pg_control lags
    /// behind by up to a restartpoint when there is no wal receiver.
    pub timeline_floor: Option<Timeline>,
    /// Slots of members, present and absent: when each was last wanted. Those of `/status` that this node does not know
    /// begin anew when they are first read.
    pub slot_last_wanted: BTreeMap<String, Mono>,
    /// Bytes of WAL outside of the leader's history that were discarded in the life of this daemon.
    pub discarded_wal_bytes: u64,
    /// What was seen of waiting commits and of the way of a new `synchronous_standby_names`.
    pub sync: crate::sync::proof::Proof,
    /// Which standbys have not answered yet, and since when.
    pub heard: crate::sync::heard::Heard,
    /// SIGTERM was received.
    pub terminating: bool,
    /// The settings last read from etcd; kept while etcd is away.
    pub settings: Settings,
    /// A defect on purpose.
    #[cfg(feature = "planted-bugs")]
    pub planted: Option<crate::planted::Planted>,
}

/// The lease of this node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeaseMemory {
    /// Which.
    pub id: LeaseId,
    /// Its time to live.
    pub ttl: core::time::Duration,
    /// Just before the last successful keepalive (or the grant) was sent.
    pub kept_at: Mono,
}

/// A proof of leadership: keepalive at `kept_at`, then a guarded write that was applied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Proof {
    /// The fencing token that was proven.
    pub create_revision: Revision,
    /// Just before the keepalive was sent.
    pub kept_at: Mono,
    /// Store revision of the guarded write.
    pub revision: Revision,
    /// kept_at + ttl - margin.
    pub deadline: Mono,
}

/// When the last proof of any leader was first noticed here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProofSight {
    /// Mod revision of `/status` (or of the leader key, if higher) that was new.
    pub revision: Revision,
    /// When it was noticed: an upper bound of when it was made.
    pub at: Mono,
    /// Whose it was.
    pub holder: Option<MemberName>,
    /// It followed one that was seen before it: somebody proved leadership while this daemon looked on. What is read first may
    /// be as old as the snapshot that etcd was restored from.
    pub witnessed: bool,
}

/// The running job.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RunningJob {
    /// For its events.
    pub op: OpId,
    /// What.
    pub job: Job,
    /// Since when.
    pub since: Mono,
    /// Bytes copied.
    pub copied: Option<(u64, u64)>,
    /// Position of the shutdown checkpoint, once known.
    pub shut_down_at: Option<Lsn>,
    /// Last step told.
    pub step: Option<String>,
    /// Cancelling was asked for.
    pub cancelled: bool,
}

/// What one cycle has established. Reset at its start.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CycleFacts {
    /// The lease was kept or granted in this cycle.
    pub lease_kept: bool,
    /// etcd did not answer a keepalive or a proof in this cycle.
    pub dcs_silent: bool,
    /// Leadership was proven in this cycle.
    pub proven: bool,
    /// The guarded write met another leader, or none: leadership is lost for certain.
    pub refuted: bool,
    /// Peers were asked in this cycle.
    pub peers_asked: bool,
    /// The listed members were asked in this cycle whether this leader may go on.
    pub failsafe_asked: bool,
    /// The leader key was taken in this cycle, and etcd said so.
    pub acquired: bool,
    /// That was in maintenance mode: somebody had named this node.
    pub acquired_in_pause: bool,
    /// An attempt to take the leader key failed in this cycle.
    pub lost_race: bool,
    /// The claim of `/initialize` failed in this cycle.
    pub lost_claim: bool,
}

/// Local WAL against the leader's history.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Divergence {
    /// Not checked since the leader or our state changed.
    #[default]
    Unknown,
    /// Checked for this leader: on its history.
    None {
        /// Leader it was checked against.
        leader: MemberName,
    },
    /// Checked: on its history, but the leader has removed what comes next.
    WalGone {
        /// Leader it was checked against.
        leader: MemberName,
        /// Where local WAL ends; void when this server has got any further.
        at: Lsn,
        /// There is a restore_command, which may bring it yet.
        archive: bool,
    },
    /// Checked: local WAL left the leader's history.
    Found {
        /// Leader it was checked against.
        leader: MemberName,
        /// The facts.
        facts: DivergenceFacts,
    },
}

/// A standby that does not stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stall {
    /// Since when it has stood there without a stream.
    pub since: Mono,
    /// Where: what it has received or replayed.
    pub at: Lsn,
}

/// Failures that make the node wait before it tries again.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Failures {
    /// Starts of PostgreSQL that failed in a row.
    pub start: Option<Failure>,
    /// Clones that failed in a row.
    pub clone: Option<Failure>,
    /// Rewinds that failed in a row.
    pub rewind: Option<Failure>,
    /// Checks of divergence that failed in a row.
    pub divergence_check: Option<Failure>,
    /// Promotions that failed.
    pub promote: Option<Failure>,
    /// Bootstraps that failed.
    pub bootstrap: Option<Failure>,
    /// Stops that failed.
    pub stop: Option<Failure>,
}

/// The last of some failures in a row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// When.
    pub at: Mono,
    /// How many in a row.
    pub times: u32,
    /// Kind of the last.
    pub kind: JobFailure,
    /// Text of the last.
    pub reason: String,
}

/// What operators asked for and has not happened yet.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Wishes {
    /// Restart now.
    pub restart: Option<(RequestId, RestartRequest)>,
    /// Restart at a time: when, conditions, JSON for the member key, start time of the postmaster it was meant for.
    pub scheduled_restart: Option<ScheduledRestart>,
    /// Reinitialise.
    pub reinitialize: Option<Reinitialize>,
    /// Requests whose job is running.
    pub running: Vec<RequestId>,
}

/// A reinitialisation asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reinitialize {
    /// Only from the leader.
    pub from_leader: bool,
    /// Cancel a running job for it.
    pub force: bool,
}

/// A restart at a time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScheduledRestart {
    /// When.
    pub at: Wall,
    /// Conditions.
    pub request: RestartRequest,
    /// JSON for the member key.
    pub text: String,
    /// Start time of the postmaster when it was asked for; another one means it has been restarted already.
    pub postmaster_start_time: Option<String>,
}

/// A planned hand-over: PostgreSQL is stopped first, the key is released when somebody holds the shutdown checkpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Handover {
    /// Why.
    pub reason: HandoverReason,
    /// Only to this member.
    pub candidate: Option<MemberName>,
    /// Since when.
    pub since: Mono,
    /// Shutdown checkpoint.
    pub checkpoint: Option<Lsn>,
    /// The key was released; give the others this long before racing again.
    pub released_at: Option<Mono>,
}

/// Why leadership is handed over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HandoverReason {
    /// `/failover` with a leader.
    Switchover,
    /// `/failover` without one.
    ManualFailover,
    /// The daemon was told to stop.
    Shutdown,
}

/// Until when a node leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LeadsUntil {
    /// By a proof that is good until then.
    Proven(Mono),
    /// Maintenance mode: no limit, as long as the daemon keeps looking. One that was stopped for a while may have missed
    /// the end of it, so what it published before counts until then.
    Lifted(Mono),
}

impl View {
    /// A node that knows nothing yet.
    pub fn new(now: Now, me: NodeSpec) -> View {
        let me_settings = me.cached_settings.clone().unwrap_or_default();
        let kept = me.kept_cluster.clone().unwrap_or_default();
        let known = kept.kept(&me.name);
        View {
            now,
            me,
            dcs: DcsView::NotRead,
            pg: PgView::not_observed(),
            timeline_history: Vec::new(),
            peers: BTreeMap::new(),
            memory: Memory {
                settings: me_settings,
                known,
                ..Memory::default()
            },
        }
    }
    /// The cluster as read in this cycle; `None` when etcd could not be read.
    pub fn cluster(&self) -> Option<&ClusterView> {
        match &self.dcs {
            DcsView::Fresh(c) => Some(c),
            DcsView::NotRead | DcsView::Unreachable { .. } => None,
        }
    }
    /// The last cluster read, however old: for information, never for a promotion.
    pub fn last_cluster(&self) -> Option<&ClusterView> {
        match &self.dcs {
            DcsView::Fresh(c) => Some(c),
            DcsView::Unreachable { last, .. } => last.as_deref(),
            DcsView::NotRead => None,
        }
    }
    /// Settings in force.
    pub fn settings(&self) -> &Settings {
        &self.memory.settings
    }
    /// Does the leader key, as read, carry our name on our lease?
    pub fn holds_leader_key(&self) -> bool {
        match (self.cluster().and_then(|c| c.leader.as_ref()), &self.memory.lease) {
            (Some(leader), Some(lease)) => leader.name == self.me.name && leader.lease == Some(lease.id),
            (Some(_) | None, _) => false,
        }
    }
    /// The proof of leadership, if its deadline is still ahead.
    pub fn live_proof(&self) -> Option<Proof> {
        self.memory.proof.filter(|p| self.now.mono < p.deadline)
    }
    /// Until when this node may accept writes, by its last proof or by the word of all listed members.
    pub fn deadline(&self) -> Option<Mono> {
        let proof = self.memory.proof?;
        Some(
            self.memory
                .failsafe
                .grant
                .map_or(proof.deadline, |until| until.max(proof.deadline)),
        )
    }
    /// The same, of the very leader key that was read: what is made writable needs this one. The proof of a key that was
    /// lost and taken again still bounds what runs, and allows nothing new.
    pub fn live_proof_of_key(&self) -> Option<Proof> {
        let key = self.cluster()?.leader.as_ref()?.create_revision;
        self.live_proof().filter(|p| p.create_revision == key)
    }
    /// Local WAL that was found to be outside of the leader's history.
    pub fn diverged_wal(&self) -> Option<DivergedWal> {
        match &self.memory.divergence {
            Divergence::Found { facts, .. } => (judge(facts) == Verdict::Diverged).then(|| diverged_wal(facts)),
            Divergence::Unknown | Divergence::None { .. } | Divergence::WalGone { .. } => None,
        }
    }
    /// Is diverged WAL kept under another name when it is discarded? Local setting, then the one of `/config`.
    pub fn keeps_diverged_wal(&self) -> bool {
        self.me.keep_diverged_wal.unwrap_or(self.settings().keep_diverged_wal)
    }
    /// The ttl in force, or a larger one that a leader may still count on (R10).
    pub fn longest_ttl(&self) -> core::time::Duration {
        let longer = self.memory.longer_ttl.filter(|(_, until)| self.now.mono < *until);
        let ttl = self.settings().ttl;
        longer.map_or(ttl, |(longer, _)| longer.max(ttl))
    }
    /// Does PostgreSQL accept writes here, or may it yet be made to, without another look at etcd? A proof of a key that
    /// was seen to be gone makes nothing writable.
    pub fn may_write(&self) -> bool {
        let key_is_gone = self.cluster().is_some() && !self.holds_leader_key();
        self.memory.maybe_writable || (self.live_proof().is_some() && !key_is_gone)
    }
    /// Until when this node may call itself the leader: by proof, or in maintenance mode for as long as it looks around.
    pub fn leads_until(&self) -> Option<LeadsUntil> {
        let paused = self.settings().pause && self.memory.maybe_writable;
        if paused
            && (self.holds_leader_key() || self.cluster().is_none())
            && let Some(at) = self.memory.pause_holds_at
        {
            return Some(LeadsUntil::Lifted(at.plus(self.settings().ttl)));
        }
        self.deadline()
            .filter(|_| self.memory.maybe_writable)
            .map(LeadsUntil::Proven)
    }
    /// Does `/primary` answer 200 at `now`? Only while the proof holds and PostgreSQL said that it is no standby.
    pub fn answers_as_primary(&self, now: Mono) -> bool {
        let leads = match self.leads_until() {
            Some(LeadsUntil::Proven(until) | LeadsUntil::Lifted(until)) => now < until,
            None => false,
        } || planted(self, Planted::AnswersByRoleOnly);
        leads && self.pg.says_primary()
    }
    /// May pg_rewind be used here? Setting, and checksums or wal_log_hints in pg_control.
    pub fn can_rewind(&self) -> bool {
        let wanted = self.me.use_pg_rewind.unwrap_or(self.settings().use_pg_rewind);
        wanted && self.pg.control().is_some_and(|c| c.data_checksums || c.wal_log_hints)
    }
}
