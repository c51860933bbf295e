//! Every decision has a rule with a fixed number. The doc comment says why the rule exists.
//!
//! Numbers come in blocks of a hundred, one block per file under `decide/`, with gaps for what is to come. A number is
//! never reused: it stands in logs, in `/metrics` and in the simulator's coverage. `docs/rules.md` is
//! generated from [`Rule::ALL`].

macro_rules! rules {
    ($($(#[doc = $doc:literal])+ $name:ident = $number:literal,)+) => {
        /// A decision's reason.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u16)]
        pub enum Rule { $($(#[doc = $doc])+ $name = $number,)+ }

        impl Rule {
            /// All rules, by number.
            pub const ALL: &'static [Rule] = &[$(Rule::$name,)+];
            /// The fixed number.
            pub fn number(self) -> u16 { self as u16 }
            /// The name as written in the source.
            pub fn name(self) -> &'static str {
                match self { $(Rule::$name => stringify!($name),)+ }
            }
            /// Why the rule exists.
            pub fn why(self) -> &'static str {
                match self { $(Rule::$name => concat!($($doc, "\n",)+),)+ }
            }
        }
    };
}

rules! {
    /// Nothing has been read or observed yet; nothing may be concluded.
    NothingKnown = 10,

    /// etcd does not answer and PostgreSQL is a standby: it goes on as it is. Stopping reads because the
    /// coordinator is away would turn one outage into two.
    DcsLostStandby = 100,
    /// etcd does not answer, but the last proof of leadership is still good: nobody else can lead before it ends,
    /// so the primary goes on. Demoting at once is what turned etcd hiccups into outages for others.
    DcsLostKeepUntilDeadline = 110,
    /// The deadline of the last proof is near and could not be renewed: PostgreSQL is stopped by its own shutdown
    /// before the fence would kill it.
    DcsLostDemote = 120,
    /// etcd does not answer and PostgreSQL is down: it is started read-only, following nobody.
    DcsLostStartReadOnly = 130,
    /// Maintenance mode was on when etcd was last read: nothing is touched.
    DcsLostPaused = 140,
    /// Maintenance mode and no etcd: the mode may have been lifted and another member promoted unheard. Patroni answers health
    /// checks as the primary for as long as it cannot read etcd; here the members are asked first.
    DcsLostPausedAsk = 142,
    /// Another member is a primary on a newer timeline: PostgreSQL is left alone, and health checks are not answered as the
    /// primary.
    DcsLostPausedOvertaken = 144,
    /// etcd does not answer, and there is nothing to start or keep.
    DcsLostWait = 150,
    /// Failsafe mode: everybody who could take over is asked whether this leader may go on without etcd. Whoever has not
    /// answered is asked again until the time is used up; elsewhere one slow answer of more than 2 s cost the leadership.
    FailsafeAsk = 160,
    /// Failsafe mode: all listed members gave their word not to lead, so an outage of etcd is no outage of the database.
    FailsafeKeep = 165,
    /// Failsafe mode: all others have reached etcd for as long as a proof lasts and this node has not. Going on would leave a
    /// cluster with a healthy etcd without a leader that can use it, so the others, who can, take over.
    FailsafeAlone = 170,

    /// A job runs and we lead: the leader key is proven meanwhile, so that a long start or stop costs no failover.
    JobHoldLeaderKey = 200,
    /// A job runs; nothing else is decided until it ends.
    JobInProgress = 210,
    /// Leadership was lost while a job was about to make PostgreSQL writable: the job is cancelled.
    JobCancelLostLeadership = 220,
    /// The operator forced a reinitialisation over a running job.
    JobCancelForced = 230,
    /// SIGTERM while a copy, a bootstrap or a start runs: the job is cancelled.
    JobCancelShutdown = 235,
    /// The primary takes longer to start than primary_start_timeout and somebody else could lead.
    JobCancelStartTimeout = 240,
    /// The start takes longer than primary_start_timeout: the peers are asked whether one of them could lead.
    JobAskPeers = 250,

    /// PostgreSQL is starting under our lock: wait, it is proven meanwhile.
    StartingAsLeader = 300,
    /// PostgreSQL is starting as a standby.
    StartingAsStandby = 310,

    /// No data, no leader, no /initialize: before claiming the right to bootstrap the peers are asked whether one of
    /// them has data. A wiped etcd must never lead to a second, empty cluster.
    BootstrapAskPeers = 400,
    /// A peer has a system identifier although /initialize is missing: the cluster exists, so nothing is created.
    BootstrapClusterExists = 410,
    /// Claim /initialize, bound to our lease so that a dead bootstrapper does not block the cluster for ever.
    BootstrapClaim = 420,
    /// The claim is ours: initdb.
    BootstrapRun = 430,
    /// The bootstrap failed: the claim is given back.
    BootstrapCancel = 440,
    /// Somebody else bootstraps.
    BootstrapWait = 450,
    /// This node has no bootstrap section, or nofailover, or not the watchdog that it needs to lead: it waits for a cluster to
    /// exist.
    BootstrapNotAllowed = 460,

    /// The data directory is empty and there is a leader: copy from it, or from a member with clonefrom.
    CloneFromMember = 500,
    /// The last copy failed; it is tried again after a pause.
    CloneBackoff = 510,
    /// There is a leader, but nobody to copy from answers as running yet.
    CloneWaitForSource = 520,
    /// We hold the leader key without data: released, since nothing can be led from here.
    NoDataReleaseLeaderKey = 530,
    /// The data directory cannot be read, or its mount is missing: nothing is created over it.
    DataDirInaccessible = 540,
    /// The data directory holds something that is no cluster: a person must look.
    DataDirForeign = 550,
    /// A bootstrap or copy broke off: what it left was never part of the cluster and is removed.
    UnfinishedCopyDiscard = 560,
    /// A rewind broke off: the directory must not be started. It is removed when the settings allow it.
    UnfinishedRewindDiscard = 570,
    /// A rewind broke off and removal is not allowed: an operator must reinitialise.
    UnfinishedRewindStop = 580,
    /// No data directory and maintenance mode.
    NoDataPaused = 590,

    /// The data belongs to another cluster than /initialize says: this node does not take part.
    SystemIdMismatch = 600,
    /// The same in maintenance mode: our leader key is released, nothing else is touched.
    SystemIdMismatchPaused = 610,
    /// There is no /initialize and PostgreSQL is a standby: it waits for the primary to restore the key. A standby
    /// that restored it after etcd was wiped could start a second cluster. One that is down is started first (782).
    SystemIdUnknownStandby = 620,
    /// etcd came back empty and everybody is a standby, the old leader included. This node knows the cluster from before:
    /// everybody it remembers is asked, since etcd can no longer tell who may be ahead.
    ScopeLostAskMembers = 630,
    /// The same, but somebody who may be ahead is silent, or this node has less than the last leader had: promoting it
    /// could lose what was acknowledged. A person decides, by a failover to a named candidate.
    ScopeLostUnproven = 640,

    /// PostgreSQL is down under our lock: before it is started, leadership is proven.
    DownHoldLeaderKey = 700,
    /// PostgreSQL crashed under our lock: started again as primary at once.
    DownRestartPrimary = 710,
    /// It could not be started within primary_start_timeout: peers are asked whether one of them can lead.
    DownAskPeers = 720,
    /// A healthy peer can lead and PostgreSQL does not start here: the key is released.
    DownFailover = 730,
    /// PostgreSQL is down and nobody else can lead: it is tried again.
    DownKeepTrying = 740,
    /// We took the lock as a standby and PostgreSQL went down: started as a standby, promoted afterwards.
    DownStartStandbyWithLock = 750,
    /// Our WAL may have left the leader's history: checked before PostgreSQL is started.
    DownCheckDivergence = 760,
    /// A crashed former primary is brought to a clean end first, otherwise its end of WAL is unknown.
    DownCrashRecovery = 762,
    /// Our WAL left the leader's history, and what will be discarded does not stand in the member key yet: it is told first, so
    /// that the leader puts it into `/history`. Others rewind without a word, and nobody can say later what was lost.
    DownTellDiverged = 763,
    /// Our WAL left the leader's history: pg_rewind.
    DownRewind = 764,
    /// The new leader's checkpoint after promotion is outstanding: pg_rewind would take its old timeline for the current one.
    DownWaitLeaderCheckpoint = 766,
    /// The leader is not running as a primary yet, so no verdict is possible.
    DownWaitLeader = 768,
    /// Diverged, and pg_rewind failed or is not possible: the directory is removed since the settings allow it.
    DownDiscardDiverged = 770,
    /// Before anything is removed, the leader itself must answer that it is alive and of the same cluster.
    DownAskLeaderBeforeDiscard = 772,
    /// Diverged, and neither rewind nor removal is possible: an operator must reinitialise.
    DownDivergedStop = 774,
    /// The leader has removed the WAL that this standby needs next, and the settings allow a new copy: the leader is asked
    /// that it lives, then the directory is removed. Before this rule such a standby waited for ever and said nothing.
    DownDiscardWalGone = 776,
    /// Start as a standby of the leader.
    DownStartStandby = 780,
    /// No leader: start as a standby of nobody, to be able to race.
    DownStartLeaderless = 782,
    /// The last start failed; tried again after a pause.
    DownStartBackoff = 784,
    /// Down in maintenance mode: left alone.
    DownPaused = 790,
    /// Down under our lock in maintenance mode: the key is released.
    DownPausedRelease = 792,
    /// A reinitialisation was asked for and PostgreSQL is down: the directory is removed, then copied anew.
    DownReinitialize = 794,

    /// The leader key is gone and we are the running primary whose last proof nobody followed: taken again.
    RaceReacquire = 800,
    /// The leader key is gone, we are a running primary, and somebody else wrote as leader since our last proof, or our
    /// timeline is behind /history: another may have been promoted, so PostgreSQL is stopped.
    RaceStalePrimary = 805,
    /// This node must not lead (nofailover).
    RaceNotAllowed = 810,
    /// The vanished key is no proof that the old leader's deadline has passed: wait until our last sight of its
    /// proof + ttl (R10).
    RaceWaitOldDeadline = 815,
    /// Failsafe mode: this standby told a leader without etcd that it may go on for a ttl, and that is not over; or another member
    /// says that it did. An empty leader key says nothing here: that leader cannot renew it.
    RaceFailsafeWord = 817,
    /// Maintenance mode lifts the deadline of whoever leads. A candidate that a person names in it is not promoted beside a
    /// leader that was not heard to have stopped.
    RacePausedLeader = 818,
    /// Ask all members for their position.
    RaceAskPeers = 820,
    /// A primary is still alive somewhere.
    RacePrimaryAlive = 825,
    /// Somebody is healthier, or we lag too far behind.
    RaceNotHealthiest = 830,
    /// A manual candidate is alive: it goes first.
    RaceCandidateFirst = 835,
    /// A switchover released the key because somebody has the leader's last record, and this node does not have it. It may be cut
    /// off from those who have it and take itself for the healthiest: it waits for them, for a ttl at most.
    RaceLastRecordMissing = 837,
    /// The healthiest node takes the key.
    RaceAcquire = 840,
    /// Somebody else was faster.
    RaceLost = 845,
    /// Something that is no name stands in the leader key, so it cannot be taken, however often it is tried: a person has
    /// to remove it.
    RaceKeyUnreadable = 848,
    /// We just handed leadership over: the others go first.
    RaceSteppedDown = 850,
    /// PostgreSQL does not answer, so we cannot tell whether we are fit to lead.
    RaceUnknownPosition = 855,
    /// The watchdog is required and cannot be used.
    RaceWatchdog = 860,
    /// The pre_promote script, or the promotion, failed lately: leave it to the others for one ttl.
    RaceBackoff = 865,
    /// Maintenance mode: no race, only a named candidate or the running primary.
    RacePaused = 870,
    /// Synchronous mode: only members of /sync may race.
    RaceNotSynchronous = 875,
    /// Synchronous mode, and `/sync` is what a restored etcd brought: it does not know who was promoted since the snapshot, and
    /// with whom commits were acknowledged. Everybody who is remembered has to answer and nobody may be ahead. Believing the old
    /// names has made a primary of a node that lacked acknowledged commits.
    RaceSyncOfPast = 876,
    /// Quorum mode: too few members of /sync answer and are not ahead. A commit may be on those that do not, and whoever
    /// takes the key without having seen them throws it away.
    RaceQuorumMissing = 877,
    /// `standby_cluster` is set: this cluster follows another one, and nobody here may be promoted. Following a remote
    /// primary is not built yet; promoting over it would be the worst thing to do instead.
    RaceStandbyCluster = 878,
    /// `/failsafe` does not list this node, so a leader that has lost etcd goes on without asking it.
    RaceNotListed = 879,
    /// The key carries our name on another lease (the daemon was restarted): taken over.
    RaceTakeOverOwnKey = 880,
    /// The key carries our name, PostgreSQL is no primary here, and a peer is one, or is on a newer timeline: an etcd that was
    /// restored from a snapshot tells of a leadership of long ago. On our own lease the key is given up, without the mark that
    /// tells others not to wait; on another one it ends with that.
    RaceOwnKeyOvertaken = 882,

    /// Prove leadership: keepalive, then the guarded write.
    LeadHoldLeaderKey = 900,
    /// The leader with the lock. Nothing to do.
    LeadNoAction = 905,
    /// The proof failed for certain: look again who leads.
    LeadRefuted = 910,
    /// Strict synchronous mode and no standby: commits wait. Told as such, since to clients it looks like a hang.
    LeadCommitsWait = 912,
    /// Synchronous mode, and this server would acknowledge commits alone as soon as it is promoted, while /sync still
    /// names others who may follow: it is promoted when it carries the name that nobody has.
    LeadWouldAcknowledge = 913,
    /// The key is ours and PostgreSQL is in recovery: promote, with a proof and facts read under it.
    LeadPromote = 915,
    /// Before a promotion the keys are read once more under the proof (S3).
    LeadReadUnderProof = 920,
    /// The key is ours, but our timeline is behind /history: somebody else was promoted. Released.
    LeadTimelineBehind = 925,
    /// The key is ours and PostgreSQL does not answer its monitoring query: that says nothing, so we hold on.
    LeadUnanswered = 930,
    /// A switchover or failover was asked for: candidates are asked.
    LeadHandoverAskPeers = 935,
    /// The request cannot be fulfilled: cleared, with the reason.
    LeadHandoverImpossible = 940,
    /// A candidate is ready: PostgreSQL is stopped with a checkpoint, the key is kept.
    LeadHandoverStop = 945,
    /// The shutdown checkpoint is written; waiting for a candidate to hold it.
    LeadHandoverWait = 950,
    /// A candidate holds the shutdown checkpoint: the key is released, with the release marker.
    LeadHandoverRelease = 955,
    /// No candidate got the shutdown checkpoint in time: PostgreSQL is started again here.
    LeadHandoverAbort = 960,
    /// The watchdog is required and cannot be used: somebody else must lead.
    LeadWatchdog = 965,
    /// A switchover is scheduled for later.
    LeadScheduled = 970,
    /// In maintenance mode the key is kept only while PostgreSQL runs as primary.
    LeadPausedRelease = 975,
    /// etcd did not answer the proof: the deadline of the last one still counts.
    LeadUnproven = 985,
    /// Failsafe mode: a write that took the key came late, after this node had told a leader without etcd that it may go on.
    /// The key is kept and nobody is promoted until that word is over.
    LeadFailsafeWord = 987,
    /// Promotion failed or pre_promote refused: the key is released for the others.
    LeadPromotionFailed = 990,
    /// A standby following the leader. Nothing to do.
    FollowNoAction = 1000,
    /// A primary without the lock: stopped at once.
    FollowDemote = 1010,
    /// PostgreSQL follows somebody else than it should.
    FollowChangeUpstream = 1020,
    /// Not streaming and on an older timeline than the leader: checked for divergence.
    FollowCheckDivergence = 1030,
    /// Diverged while running: stopped, to be rewound.
    FollowStopForRewind = 1040,
    /// Maintenance mode: left as it is.
    FollowPaused = 1050,
    /// Maintenance mode: a primary without the lock is left running, unfenced by the operator's will.
    FollowPausedPrimary = 1055,
    /// The leader published no address to follow yet.
    FollowWaitAddress = 1060,
    /// PostgreSQL does not answer; nothing is concluded.
    FollowUnanswered = 1070,
    /// Diverged and hopeless: an operator must reinitialise; the standby stays up for reads.
    FollowDiverged = 1080,
    /// No stream and not a step further for a while, although it follows whom it should and the leader has what comes
    /// next: a password, pg_hba.conf, no free wal sender. PostgreSQL tries again for ever and says so only in its log, and
    /// by its state such a standby looks like one that has nothing to do (Patroni #3648). Looked into again and again.
    FollowStalled = 1085,
    /// The leader has removed the WAL that this standby needs next, and no archive has brought it: it can never stream again
    /// by itself. Patroni lets it try for ever (#3652). It stays up for reads, and a person must reinitialise it.
    FollowWalGone = 1090,
    /// The same, and the settings allow a new copy: the leader is asked that it lives, then PostgreSQL is stopped.
    FollowStopForCopy = 1095,

    /// A restart was asked for, and its conditions hold.
    RestartNow = 1200,
    /// A scheduled restart is due.
    RestartScheduled = 1210,
    /// A reinitialisation was asked for: PostgreSQL is stopped first.
    ReinitializeStop = 1220,
    /// A reinitialisation was asked for: the leader is asked that it lives before anything is removed.
    ReinitializeAskLeader = 1230,
    /// A reinitialisation was asked for, and `/sync` still names this member: its copy of acknowledged commits is removed only
    /// when nobody counts on it any more. Otherwise a new copy, made of a standby that lags, could win the next race.
    ReinitializeLeaveSync = 1240,

    /// SIGTERM in maintenance mode: PostgreSQL and the key stay as they are.
    ShutdownPaused = 1300,
    /// SIGTERM: PostgreSQL is stopped.
    ShutdownStop = 1310,
    /// SIGTERM: everything is down, the daemon ends.
    ShutdownExit = 1320,
    /// SIGTERM: the key is given up.
    ShutdownRelease = 1330,
}

impl Rule {
    /// A state that lasts until a person does something about it; what, stands in the reason.
    pub fn needs_a_person(self) -> bool {
        matches!(
            self,
            Rule::DataDirForeign
                | Rule::UnfinishedRewindStop
                | Rule::SystemIdMismatch
                | Rule::DownDivergedStop
                | Rule::FollowDiverged
                | Rule::FollowWalGone
        )
    }
}

#[cfg(test)]
mod tests {
    use super::Rule;

    #[test]
    fn rule_numbers_ascend_and_each_rule_says_why() {
        let mut last = 0;
        for rule in Rule::ALL {
            assert!(rule.number() > last, "{} is out of order", rule.name());
            assert!(rule.why().trim().len() > 20, "{} must say why it exists", rule.name());
            last = rule.number();
        }
    }
}
