//! Situations without a running PostgreSQL, without etcd, with a job, and everything at once.

use super::enumerate::Situation;
use super::facts::Part;
use super::situations::*;

pub fn leading_down(answers: &[&'static str]) -> Situation {
    situation(
        "down with the key",
        &[
            (Part::Members, &[TWO]),
            (Part::Leader, &["leader a", "leader a lease=77"]),
            (
                Part::Pg,
                &[
                    "pg down primary",
                    "pg down primary crashed",
                    "pg down standby",
                    "pg down primary with_signal",
                    "pg down primary tl=2",
                ],
            ),
            (
                Part::Settings,
                &[
                    "",
                    "settings pause=yes",
                    "settings primary_start_timeout=0",
                    "settings synchronous=yes",
                ],
            ),
            (Part::Me, &["", "me watchdog_required"]),
            (Part::Watchdog, WATCHDOG),
            (Part::History, HISTORY),
            (
                Part::Failure,
                &[
                    "",
                    "failure start age=1s",
                    "failure start times=2 age=1s",
                    "failure start times=5 age=20s",
                    "failure start times=2 age=60s",
                    "failure promote age=1s",
                ],
            ),
            (Part::Down, &["", "down age=1s", "down age=400s"]),
            (Part::Floor, &["", "timeline_floor tl=2"]),
            (Part::Peers, answers),
            (Part::Proof, &PROOFS[..6]),
            (Part::Cycle, &CYCLE[..4]),
        ],
    )
}

pub fn following_down() -> Situation {
    situation(
        "down, somebody else leads",
        &[
            (
                Part::Members,
                &[
                    TWO,
                    LEADER_RUNS,
                    "member a; member b primary checkpoint_outstanding",
                    "member a; member b no_address",
                ],
            ),
            (Part::Leader, &["leader b"]),
            (
                Part::Pg,
                &[
                    "pg down primary",
                    "pg down primary crashed checksums",
                    "pg down primary checksums",
                    "pg down standby",
                    "pg down standby checksums",
                ],
            ),
            (
                Part::Settings,
                &[
                    "",
                    "settings pause=yes",
                    "settings use_pg_rewind=yes",
                    "settings use_pg_rewind=yes remove_on_rewind_failure=yes",
                    "settings remove_on_diverged_timelines=yes",
                ],
            ),
            (
                Part::Divergence,
                &[
                    "",
                    "divergence none b",
                    "divergence none c",
                    "divergence found b local=1@0/700 forked=1@0/500",
                    "divergence found b local=1@0/400 forked=1@0/500",
                    "divergence wal-gone b",
                    "divergence found b local=1@0/700 forked=1@0/500; untold",
                ],
            ),
            (
                Part::Failure,
                &[
                    "",
                    "failure start age=1s",
                    "failure rewind age=1s",
                    "failure rewind times=3 age=60s",
                    "failure check age=1s kind=source",
                    "failure check age=1s",
                    "failure rewind times=5 kind=source",
                ],
            ),
            (
                Part::Wish,
                &["", "wish reinitialize", "wish reinitialize force from_leader"],
            ),
            (Part::Terminating, BOTH),
            (
                Part::Peers,
                &[
                    "",
                    "peer b unreachable",
                    "peer b standby",
                    "peer b primary",
                    "peer b impostor",
                    "peer b stopped",
                ],
            ),
        ],
    )
}

pub fn leaderless_down(answers: &[&'static str]) -> Situation {
    situation(
        "down, nobody leads",
        &[
            (Part::Members, &[TWO]),
            (
                Part::Pg,
                &[
                    "pg down primary",
                    "pg down primary crashed",
                    "pg down standby",
                    "pg down primary tl=2",
                ],
            ),
            (Part::Initialize, INITIALIZE),
            (Part::Settings, PAUSE),
            (Part::Me, &["", "me nofailover"]),
            (Part::Claim, &["", "claim"]),
            (
                Part::Handover,
                &[
                    "",
                    "handover switchover released=1s",
                    "handover switchover released=10s",
                ],
            ),
            (Part::Failure, &["", "failure start age=1s"]),
            (Part::Terminating, BOTH),
            (Part::Peers, answers),
            (Part::Cycle, CYCLE),
            (Part::History, HISTORY),
        ],
    )
}

pub fn nothing_here() -> Situation {
    situation(
        "no usable data",
        &[
            (
                Part::Members,
                &[
                    TWO,
                    "member a; member b primary; member c clonefrom",
                    "member a; member b stopped",
                    "member a; member b no_address",
                ],
            ),
            (Part::Leader, &["", "leader a", "leader a lease=77", "leader b"]),
            (
                Part::Pg,
                &[
                    "pg empty",
                    "pg inaccessible gone",
                    "pg foreign odd",
                    "pg unfinished bootstrap",
                    "pg unfinished clone",
                    "pg unfinished rewind",
                    "pg unknown",
                ],
            ),
            (Part::Initialize, INITIALIZE),
            (
                Part::Settings,
                &["", "settings pause=yes", "settings remove_on_rewind_failure=yes"],
            ),
            (Part::Claim, &["", "claim"]),
            (Part::Failure, &["", "failure clone age=1s", "failure bootstrap age=1s"]),
            (Part::Wish, &["", "wish reinitialize", "wish reinitialize from_leader"]),
            (Part::Terminating, BOTH),
            (
                Part::Peers,
                &["", "peer b primary", "peer b standby", "peer b unreachable"],
            ),
            (Part::Cycle, &CYCLE[..4]),
        ],
    )
}

pub fn bootstrap(answers: &[&'static str]) -> Situation {
    let mut answers = answers.to_vec();
    answers.push("peer b empty");
    situation(
        "bootstrap",
        &[
            (
                Part::Members,
                &["", "member a", "member a; member b uninitialized", TWO, LEADER_RUNS],
            ),
            (Part::Initialize, INITIALIZE),
            (Part::Pg, &["pg empty", "pg unfinished bootstrap"]),
            (Part::Me, &["", "me nofailover", "me may_bootstrap=no"]),
            (Part::Settings, PAUSE),
            (Part::Claim, &["", "claim"]),
            (
                Part::Failure,
                &["", "failure bootstrap age=1s", "failure bootstrap age=60s"],
            ),
            (Part::Peers, &answers),
            (Part::Cycle, &["", "cycle lost_claim"]),
            (Part::Lease, &["", "lease none"]),
        ],
    )
}

/// Maintenance mode without etcd: what the others say of a newer primary.
pub fn paused_without_etcd() -> Situation {
    situation(
        "paused, without etcd",
        &[
            (Part::Etcd, &["etcd unreachable", "etcd not-read"]),
            (Part::Members, &[TWO]),
            (Part::Leader, &["", "leader a", "leader b"]),
            (Part::Settings, &["settings pause=yes"]),
            (
                Part::Pg,
                &[
                    "pg primary",
                    "pg primary tl=2",
                    "pg silent primary",
                    "pg standby",
                    "pg down primary",
                ],
            ),
            (Part::Known, &["", "known leader=b members=b"]),
            (
                Part::Peers,
                &[
                    "",
                    "asked",
                    "peer b primary tl=2",
                    "peer b primary",
                    "peer b standby",
                    "peer b unreachable",
                ],
            ),
            (Part::Writable, WRITABLE),
            (Part::Proof, PROOFS),
            (Part::Terminating, BOTH),
        ],
    )
}

pub fn without_etcd() -> Situation {
    situation(
        "without etcd",
        &[
            (Part::Etcd, &["etcd unreachable", "etcd not-read"]),
            (Part::Members, &[TWO]),
            (Part::Leader, &["", "leader a", "leader b"]),
            (
                Part::Pg,
                &[
                    "pg unknown",
                    "pg empty",
                    "pg inaccessible gone",
                    "pg foreign odd",
                    "pg unfinished rewind",
                    "pg down primary",
                    "pg down standby",
                    "pg starting primary",
                    "pg stopping primary",
                    "pg silent primary",
                    "pg silent standby",
                    "pg primary",
                    "pg standby",
                ],
            ),
            (Part::Settings, PAUSE),
            (
                Part::Fence,
                &["", "fence until=60s", "fence until=1s", "fence standby", "fence paused"],
            ),
            (Part::Failure, &["", "failure start age=1s", "failure stop age=1s"]),
            (
                Part::Job,
                &["", "job promote age=1s", "job start primary age=400s", "job clone b"],
            ),
            (Part::Terminating, BOTH),
            (Part::Writable, WRITABLE),
            (Part::Proof, PROOFS),
            (Part::Cycle, &CYCLE[..4]),
        ],
    )
}

pub fn jobs(answers: &[&'static str]) -> Situation {
    situation(
        "a job runs",
        &[
            (Part::Members, &[TWO]),
            (Part::Leader, &["", "leader a", "leader a lease=77", "leader b"]),
            (
                Part::Job,
                &[
                    "job promote age=1s",
                    "job start primary age=400s",
                    "job start primary age=1s cancelled",
                    "job start standby b",
                    "job stop fast",
                    "job restart primary",
                    "job clone b",
                    "job rewind b",
                    "job bootstrap",
                    "job check-divergence b",
                    "job discard",
                    "job follow b",
                    "job crash-recovery",
                ],
            ),
            (
                Part::Pg,
                &[
                    "pg primary",
                    "pg standby",
                    "pg down primary",
                    "pg starting primary",
                    "pg empty",
                ],
            ),
            (
                Part::Settings,
                &["", "settings pause=yes", "settings primary_start_timeout=0"],
            ),
            (Part::Handover, &["", "handover switchover age=1s checkpoint=0/500"]),
            (Part::Wish, &["", "wish reinitialize force"]),
            (Part::Terminating, BOTH),
            (Part::Peers, answers),
            (Part::Proof, PROOFS),
            (Part::Cycle, &CYCLE[..4]),
        ],
    )
}

pub fn system_id() -> Situation {
    situation(
        "whose data",
        &[
            (Part::Members, &[TWO]),
            (Part::Leader, &["", "leader a", "leader b", "leader a lease=77"]),
            (Part::Initialize, INITIALIZE),
            (
                Part::Pg,
                &[
                    "pg primary",
                    "pg standby",
                    "pg down primary",
                    "pg down standby",
                    "pg primary sysid=7",
                    "pg standby sysid=7",
                    "pg down standby sysid=7",
                    "pg unobserved_postmaster",
                ],
            ),
            (Part::Settings, PAUSE),
            (Part::Claim, &["", "claim"]),
            (Part::Writable, WRITABLE),
            (Part::Proof, PROOFS),
            (Part::Cycle, CYCLE),
            (Part::Terminating, BOTH),
            (Part::Empty, &[""]),
        ],
    )
}

/// etcd came back empty, or older than it was.
pub fn scope_lost(answers: &[&'static str]) -> Situation {
    situation(
        "scope lost",
        &[
            (Part::Members, &[TWO, THREE]),
            (Part::Initialize, &["initialize none", "initialize 42"]),
            (Part::Leader, &["", "leader unreadable"]),
            (
                Part::Pg,
                &[
                    "pg standby",
                    "pg standby tl=2",
                    "pg primary",
                    "pg down primary",
                    "pg down standby",
                    "pg empty",
                ],
            ),
            (Part::Settings, &["", "settings synchronous=yes"]),
            (Part::Failover, &["", "failover candidate=a"]),
            (
                Part::Known,
                &[
                    "",
                    "known leader=b members=b,c",
                    "known leader=a members=b,c",
                    "known leader=b members=b tl=2",
                    "known leader=b members=b,c lsn=0/900",
                    "known sysid=7 leader=b members=b",
                ],
            ),
            (Part::Empty, &["", "scope_empty age=1s", "scope_empty age=60s"]),
            (Part::Replaced, &["", "store_replaced age=1s", "store_replaced age=60s"]),
            (Part::Peers, answers),
        ],
    )
}

/// A leader that lost etcd goes on while all listed members agree, and they keep their word.
pub fn failsafe(answers: &[&'static str]) -> Situation {
    situation(
        "failsafe",
        &[
            (Part::Etcd, &["etcd unreachable age=30s", "etcd fresh"]),
            (Part::Members, &[THREE]),
            (Part::Leader, &["", "leader a", "leader b"]),
            (Part::Pg, &["pg primary", "pg standby", "pg down primary"]),
            (Part::Settings, &["settings failsafe=yes", ""]),
            (Part::Status, &["", "status lsn=0/500 writer=b released"]),
            (Part::FailsafeKey, &["", "failsafe a,b,c", "failsafe b,c"]),
            (
                Part::Failsafe,
                &[
                    "",
                    "word b age=5s left=10s",
                    "word b age=31s left=0s",
                    "ack b age=1s lsn=0/500 read=1s; ack c age=1s read=1s",
                    "ack b age=1s lsn=0/500 read=1s; ack c age=1s read=1s; grant left=14s",
                    "ack b age=1s lsn=0/500 read=1s; ack c age=1s read=1s; grant left=14s; alone age=30s",
                    "ack b age=9s; ack c age=9s; grant left=1s",
                ],
            ),
            (Part::Sight, &["", "sight age=60s of=b"]),
            (Part::Peers, answers),
            (Part::Writable, WRITABLE),
            (Part::Proof, &PROOFS[..5]),
            (Part::Cycle, &["", "cycle silent"]),
        ],
    )
}

/// Two or three values of nearly every fact at once.
pub fn everything() -> Situation {
    situation(
        "everything",
        &[
            (Part::Etcd, &["etcd fresh", "etcd unreachable"]),
            (Part::Members, &[LEADER_RUNS]),
            (Part::Initialize, &["initialize 42", "initialize none"]),
            (Part::Leader, &["", "leader a", "leader b"]),
            (
                Part::Pg,
                &[
                    "pg empty",
                    "pg down primary",
                    "pg down standby",
                    "pg starting primary",
                    "pg primary",
                    "pg standby",
                    "pg silent primary",
                ],
            ),
            (Part::Settings, PAUSE),
            (Part::Failover, &["", "failover leader=a", "failover candidate=a"]),
            (Part::Status, &["", "status lsn=0/500 writer=b"]),
            (Part::History, HISTORY),
            (Part::Sight, &["", "sight age=1s of=b"]),
            (Part::Peers, &["", "peer b standby lsn=0/600", "peer b primary"]),
            (Part::Job, &["", "job start primary age=1s"]),
            (Part::Handover, &["", "handover switchover age=20s checkpoint=0/500"]),
            (Part::Failure, &["", "failure start age=1s"]),
            (Part::Wish, &["", "wish restart", "wish reinitialize"]),
            (Part::Terminating, BOTH),
            (
                Part::Proof,
                &[
                    "",
                    "proof age=1s create=101 rev=105",
                    "proof age=25s create=101 rev=105",
                ],
            ),
            (Part::Cycle, &["", "cycle silent"]),
        ],
    )
}
