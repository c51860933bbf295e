//! The list of the defects, each with its source and the number of seeds that may be needed to find it. Its order is that of
//! the table in `docs/replayed-bugs.md`.

use pgha_core::planted::Planted;

use super::{Defect, Place, WorldDefect};
use crate::settings::SYNCHRONOUS_FROM;

const fn core(id: &'static str, planted: Planted, limit: u64, source: &'static str, what: &'static str) -> Defect {
    let place = Place::Core(planted);
    Defect {
        id,
        what,
        source,
        from: 0,
        limit,
        place,
    }
}

const fn world(id: &'static str, defect: WorldDefect, limit: u64, source: &'static str, what: &'static str) -> Defect {
    let place = Place::World(defect);
    Defect {
        id,
        what,
        source,
        from: 0,
        limit,
        place,
    }
}

/// A defect that only plans with synchronous modes can show.
const fn synchronous(defect: Defect) -> Defect {
    Defect {
        from: SYNCHRONOUS_FROM,
        ..defect
    }
}

/// All defects.
pub const DEFECTS: &[Defect] = &[
    world(
        "no-fence",
        WorldDefect::NoFence,
        50,
        "Patroni without watchdog: #2188, #1411; F01, F17",
        "nothing stops PostgreSQL when the daemon is frozen or gone",
    ),
    world(
        "fence-dies-with-agent",
        WorldDefect::FenceDiesWithAgent,
        200,
        "Patroni #1411, zalando/postgres-operator#1725; F25",
        "a killed daemon leaves PostgreSQL running without a deadline",
    ),
    world(
        "fence-asks-agent",
        WorldDefect::FenceAsksAgent,
        50,
        "CloudNativePG #11280; F17",
        "the fence asks the frozen daemon to stop PostgreSQL",
    ),
    world(
        "fence-clock-stops",
        WorldDefect::FenceClockStops,
        500,
        "rust-lang/rust#87906, Patroni #3407; F18, F21",
        "deadlines are kept on a clock that stands still while the machine is suspended",
    ),
    world(
        "fence-forgotten",
        WorldDefect::FenceForgottenOnRestart,
        500,
        "bitnami/charts#20998; F25",
        "a restarted daemon forgets the deadline of the primary it finds",
    ),
    world(
        "watchdog-closed-early",
        WorldDefect::WatchdogClosedEarly,
        1_000,
        "Patroni #3639, #3661; F49",
        "the watchdog is closed before the last backend has gone",
    ),
    world(
        "token-never-renewed",
        WorldDefect::TokenNeverRenewed,
        200,
        "Patroni #3219, #3552; F10",
        "a token of etcd that has expired is never asked for again",
    ),
    world(
        "one-member-asked",
        WorldDefect::OneMemberAsked,
        200,
        "Patroni 1.6.1 release notes, grpc-rust #2839; F05",
        "one member of etcd that is away takes the node away from etcd",
    ),
    world(
        "past-believed",
        WorldDefect::PastBelieved,
        3_000,
        "Patroni #308, #3314, #3318; F02, F13",
        "answers of a member of etcd that lags behind are believed",
    ),
    world(
        "deadlines-on-wall-clock",
        WorldDefect::DeadlinesOnWallClock,
        200,
        "Patroni #3560, #3612; F20",
        "deadlines move when somebody sets the wall clock",
    ),
    core(
        "promote-without-proof",
        Planted::PromoteWithoutProof,
        50,
        "Patroni #308, #316; etcd #20418; F02, F13",
        "a read that names this node as the leader is enough to promote",
    ),
    core(
        "keepalive-is-proof",
        Planted::KeepaliveIsProof,
        50,
        "etcd #20590; F12",
        "the answer to a keepalive counts as a proof of leadership",
    ),
    core(
        "timeline-as-number",
        Planted::TimelineAsNumber,
        500,
        "pg_auto_failover #683, #1161; F34, F35",
        "a node with a lower timeline number is taken for merely behind",
    ),
    core(
        "old-primary-starts-again",
        Planted::OldPrimaryStartsAgain,
        50,
        "bitnami/charts#6555, repmgr #766; F25",
        "a returned primary starts as a primary although somebody else leads",
    ),
    core(
        "diverged-waits",
        Planted::DivergedWaitsForEver,
        200,
        "Patroni #3648, #3652; pg_auto_failover #774; F30",
        "a diverged node waits for ever and says nothing",
    ),
    core(
        "restart-in-pause",
        Planted::RestartInPause,
        1_000,
        "Patroni 2.0.1, 3.1.0 release notes; F53",
        "a PostgreSQL that a person stopped is started in maintenance mode",
    ),
    core(
        "demote-in-pause",
        Planted::DemoteInPause,
        2_000,
        "Patroni #659; F53",
        "the primary is demoted in maintenance mode when etcd is away",
    ),
    core(
        "race-in-pause",
        Planted::RaceInPause,
        2_000,
        "Patroni 1.4.4 release notes; F53",
        "a standby is promoted in maintenance mode",
    ),
    core(
        "demote-on-first-silence",
        Planted::DemoteOnFirstSilence,
        50,
        "Patroni #3118, #3407, #3572; F05, F06",
        "one answer of etcd that does not come costs the leadership",
    ),
    core(
        "position-ignored",
        Planted::PositionIgnored,
        500,
        "CloudNativePG #8701",
        "a standby is promoted although a peer that answers is ahead of it",
    ),
    core(
        "race-asks-nobody",
        Planted::RaceAsksNobody,
        2_000,
        "CloudNativePG #7481, repmgr #439",
        "a standby is promoted on what it sees alone, without asking the others",
    ),
    core(
        "old-deadline-ignored",
        Planted::OldDeadlineIgnored,
        1_000,
        "etcd #15247, CloudNativePG #7407; F11",
        "a leader key that vanished early is taken at once, while the old leader counts on its lease",
    ),
    core(
        "history-ignored",
        Planted::HistoryIgnored,
        3_000,
        "Patroni #2779, #2787; F19",
        "a node of an old timeline takes the leader key",
    ),
    core(
        "everybody-must-answer",
        Planted::EverybodyMustAnswer,
        500,
        "pg_auto_failover #1142",
        "the failover waits for ever for a member that does not answer",
    ),
    core(
        "old-answers-used",
        Planted::OldAnswersUsed,
        500,
        "pg_auto_failover #1032, CloudNativePG #11500",
        "the decision who is promoted goes by answers of an earlier time",
    ),
    core(
        "stale-primary-retakes",
        Planted::StalePrimaryRetakes,
        500,
        "Patroni #2779; F19",
        "a primary that was stalled takes the vanished key again without a look who led since",
    ),
    core(
        "released-at-stop",
        Planted::ReleasedAtStop,
        2_000,
        "Patroni 3.1.0 release notes, #2067; F47",
        "a switchover gives the key away before the candidate has the shutdown checkpoint",
    ),
    core(
        "record-half-received",
        Planted::RecordHalfReceived,
        2_000,
        "Patroni 3.2.1 release notes",
        "a switchover compares with the wrong end of the last record",
    ),
    core(
        "wish-never-cleared",
        Planted::WishNeverCleared,
        500,
        "Patroni #3662, pg_auto_failover #1142; F48",
        "a switchover that is not possible stays in /failover for ever",
    ),
    core(
        "silence-means-down",
        Planted::SilenceMeansDown,
        200,
        "Patroni #3646, #3663; F54",
        "a monitoring query that times out demotes a healthy primary",
    ),
    core(
        "isolation-is-fatal",
        Planted::IsolationIsFatal,
        50,
        "CloudNativePG #10287",
        "a primary that reaches no standby is stopped although it proves its leadership",
    ),
    core(
        "promotes-on-old-read",
        Planted::PromotesOnOldRead,
        50,
        "Patroni #3396, #3426; F13",
        "the promotion goes by what was read before the key was taken",
    ),
    core(
        "silence-is-success",
        Planted::SilenceIsSuccess,
        50,
        "pg-ha in Rust (errors of etcd ignored); F03",
        "a transaction whose answer is lost is taken for written",
    ),
    core(
        "half-rewound-started",
        Planted::HalfRewoundStarted,
        500,
        "Patroni 2.1.4 release notes, #2302; F29",
        "a directory that an interrupted pg_rewind left is started",
    ),
    core(
        "half-copy-started",
        Planted::HalfCopyStarted,
        50,
        "Patroni 1.6.1 release notes; F50",
        "PostgreSQL is started on a half-copied directory",
    ),
    core(
        "removes-unasked",
        Planted::RemovesUnasked,
        1_000,
        "canonical/postgresql-operator#1152, #1173",
        "a diverged directory is wiped although no other primary lives",
    ),
    core(
        "slot-goes-with-member",
        Planted::SlotGoesWithMember,
        50,
        "Patroni before 4.0 (member_slots_ttl); F52",
        "the slot of a member is dropped as soon as its key has expired",
    ),
    core(
        "unknown-slot-dropped",
        Planted::UnknownSlotDropped,
        500,
        "Patroni 4.0.5 release notes; F52",
        "a new leader drops the slots of members that are away",
    ),
    core(
        "lost-slot-kept",
        Planted::LostSlotKept,
        3_000,
        "Patroni 4.1.4 release notes; F51",
        "a slot whose WAL was removed is never made anew",
    ),
    core(
        "answers-by-role-only",
        Planted::AnswersByRoleOnly,
        50,
        "Patroni 1.4.5, 1.4.6 release notes, #2388",
        "a node that lost its leadership still answers as the primary",
    ),
    synchronous(core(
        "sync-names-before-key",
        Planted::NamesBeforeKey,
        500,
        "Patroni #2877; F37, F39",
        "synchronous_standby_names drops a standby that /sync still names",
    )),
    synchronous(core(
        "sync-old-names-kept",
        Planted::OldNamesKept,
        3_000,
        "Patroni #3369, #3370; F36",
        "synchronous_standby_names keeps a standby that is gone, and commits wait for it",
    )),
    synchronous(core(
        "sync-published-at-once",
        Planted::PublishedAtOnce,
        500,
        "Patroni 3.0.0 release notes",
        "a standby is written to /sync as soon as it counts, before it has caught up",
    )),
    synchronous(core(
        "sync-flag-believed",
        Planted::WaitingIsBelieved,
        3_000,
        "Patroni (sync_state=sync is enough), pgsql-hackers 2025-10-06; F40, F60",
        "/sync is published while a checkpoint keeps commits from waiting",
    )),
    synchronous(core(
        "switchover-to-async",
        Planted::SwitchoverToAnybody,
        3_000,
        "Patroni #2074, #2076, #2405",
        "a switchover that names no candidate goes to an asynchronous member",
    )),
    synchronous(core(
        "voters-ignored",
        Planted::VotersIgnored,
        1_000,
        "Patroni #3278, CloudNativePG #7481",
        "a member of /sync is promoted in quorum mode without having seen enough others",
    )),
    synchronous(core(
        "strict-mode-star",
        Planted::AnybodyInStrictMode,
        3_000,
        "Patroni #789, #3435; F36",
        "in strict mode anybody that streams may acknowledge commits while no standby is chosen",
    )),
];
