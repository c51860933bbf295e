//! Situations of a running PostgreSQL: the race, the leader, its hand-over, and who follows.

use super::enumerate::Situation;
use super::facts::Part;
use super::situations::*;

pub fn race_standby(name: &'static str, members: &'static str, answers: &[&'static str]) -> Situation {
    // What is this node's own varies among two members, what others say among three.
    let own = if members == TWO { 2 } else { 1 };
    let handover = &["", "handover switchover released=1s"][..own];
    let proof = &["", "proof age=1s create=99 rev=98"][..own];
    let failure = &["", "failure promote age=1s"][..own];
    situation(
        name,
        &[
            (Part::Members, &[members]),
            (Part::Pg, &["pg standby", "pg standby tl=2"]),
            (
                Part::Settings,
                &[
                    "",
                    "settings pause=yes",
                    "settings synchronous=yes",
                    "settings standby_cluster=yes",
                ],
            ),
            (
                Part::Sync,
                &["", "sync leader=a standbys=b", "sync leader=b standbys=c"],
            ),
            (Part::Me, &["", "me nofailover", "me watchdog_required"]),
            (Part::Watchdog, WATCHDOG),
            (Part::Failover, &FAILOVER[..6]),
            (Part::Peers, answers),
            (
                Part::Status,
                &[
                    STATUS[0],
                    STATUS[1],
                    STATUS[2],
                    STATUS[3],
                    "status lsn=0/900000 writer=b",
                ],
            ),
            (Part::Sight, SIGHT),
            (Part::History, HISTORY),
            (Part::Failure, failure),
            (Part::Handover, handover),
            (Part::Proof, proof),
        ],
    )
}

pub fn race_primary(answers: &[&'static str]) -> Situation {
    situation(
        "race, primary and others",
        &[
            (Part::Members, &[THREE]),
            (
                Part::Pg,
                &[
                    "pg primary",
                    "pg primary tl=2",
                    "pg silent primary",
                    "pg starting standby",
                    "pg stopping primary",
                ],
            ),
            (Part::Initialize, &INITIALIZE[..5]),
            (Part::Settings, PAUSE),
            (Part::Peers, answers),
            (Part::Status, STATUS),
            (Part::Sight, SIGHT),
            (Part::History, HISTORY),
            (
                Part::Proof,
                &["", "proof age=1s create=99 rev=98", "proof age=1s create=99 rev=105"],
            ),
            (Part::Cycle, &["", "cycle lost_race", "cycle silent"]),
            (Part::LongerTtl, &["", "longer_ttl ttl=90s left=10s"]),
        ],
    )
}

pub fn lead(answers: &[&'static str]) -> Situation {
    situation(
        "lead",
        &[
            (Part::Members, &[TWO]),
            (
                Part::Pg,
                &[
                    "pg primary",
                    "pg primary tl=2",
                    "pg standby",
                    "pg standby tl=2",
                    "pg silent primary",
                    "pg starting primary",
                    "pg stopping primary",
                ],
            ),
            (Part::Leader, &["leader a", "leader a lease=77", "leader b"]),
            (
                Part::Settings,
                &["", "settings pause=yes", "settings standby_cluster=yes"],
            ),
            (Part::Me, &["", "me watchdog_required"]),
            (Part::Watchdog, WATCHDOG),
            (Part::History, HISTORY),
            (Part::Failover, &["", "failover candidate=a"]),
            (
                Part::Failure,
                &[
                    "",
                    "failure promote age=1s",
                    "failure promote age=1s kind=timed_out",
                    "failure stop age=1s",
                ],
            ),
            (Part::Down, &["", "down age=400s"]),
            (Part::Peers, &[answers[0], answers[1], answers[3]]),
            (Part::Writable, WRITABLE),
            (Part::Proof, PROOFS),
            (Part::Cycle, CYCLE),
        ],
    )
}

/// Synchronous mode: who has to be seen before the key is taken.
pub fn race_quorum(answers: &[&'static str]) -> Situation {
    situation(
        "race, quorum",
        &[
            (Part::Members, &[THREE]),
            (Part::Pg, &["pg standby", "pg standby tl=2"]),
            (
                Part::Settings,
                &["settings synchronous=quorum", "settings synchronous=yes"],
            ),
            (
                Part::Sync,
                &[
                    "sync leader=b standbys=a,c quorum=1",
                    "sync leader=b standbys=a,c quorum=2",
                    "sync leader=b standbys=c quorum=1",
                    "sync leader=a standbys=b,c quorum=2",
                    "sync leader=b standbys=c quorum=1; sync_of_past",
                ],
            ),
            (Part::Known, &["", "known leader=b members=b,c"]),
            (Part::Failover, &FAILOVER[..6]),
            (Part::Peers, answers),
            (Part::Status, STATUS),
            (Part::Sight, SIGHT),
        ],
    )
}

/// Synchronous mode under the own key.
pub fn lead_synchronous() -> Situation {
    situation(
        "lead, synchronous",
        &[
            (Part::Members, &[TWO]),
            (Part::Leader, &["leader a", "leader a lease=77"]),
            (
                Part::Pg,
                &[
                    "pg primary",
                    "pg standby",
                    "pg standby names=b",
                    "pg standby names=__patroni_strict_sync_replica_placeholder__",
                ],
            ),
            (
                Part::Settings,
                &[
                    "settings synchronous=yes",
                    "settings synchronous=yes strict=yes",
                    "settings synchronous=quorum strict=yes pause=yes",
                ],
            ),
            (Part::Sync, &["", "sync leader=a", "sync leader=b standbys=a"]),
            (Part::Writable, WRITABLE),
            (Part::Proof, PROOFS),
            (Part::Cycle, CYCLE),
        ],
    )
}

pub fn wishes(answers: &[&'static str]) -> Situation {
    situation(
        "wishes of operators",
        &[
            (Part::Members, &[THREE]),
            (Part::Leader, &["leader a"]),
            (Part::Pg, &["pg primary", "pg primary pending_restart"]),
            (Part::Settings, &["", "settings pause=yes", "settings synchronous=yes"]),
            (Part::Sync, &["", "sync leader=a standbys=b"]),
            (Part::Failover, FAILOVER),
            (
                Part::Wish,
                &[
                    "",
                    "wish restart",
                    "wish scheduled at=-1s",
                    "wish scheduled at=+60s",
                    "wish scheduled at=-1s role=standby",
                    "wish scheduled at=-1s pending",
                    "wish scheduled at=-1s version_below=100000",
                ],
            ),
            (Part::Failure, &["", "failure stop age=1s"]),
            (Part::Status, &["", "status lsn=0/500 writer=a"]),
            (Part::Peers, answers),
            (Part::Terminating, BOTH),
            (Part::Proof, &PROOFS[..4]),
        ],
    )
}

pub fn handover(answers: &[&'static str]) -> Situation {
    situation(
        "hand-over",
        &[
            (Part::Members, &[THREE]),
            (Part::Leader, &["leader a"]),
            (Part::Pg, &["pg down primary", "pg stopping primary", "pg primary"]),
            (Part::Job, &["", "job stop fast age=1s"]),
            (
                Part::Handover,
                &[
                    "handover switchover age=1s",
                    "handover switchover age=1s checkpoint=0/500",
                    "handover switchover candidate=b age=20s checkpoint=0/500",
                    "handover failover age=20s checkpoint=0/400",
                    "handover shutdown age=1s checkpoint=0/500",
                    "handover shutdown age=20s checkpoint=0/500",
                ],
            ),
            (Part::Settings, &["", "settings pause=yes", "settings synchronous=yes"]),
            (Part::Sync, &["", "sync leader=a standbys=c"]),
            (Part::Peers, answers),
            (Part::Terminating, BOTH),
            (Part::Cycle, &CYCLE[..4]),
            (Part::Proof, &PROOFS[..5]),
        ],
    )
}

pub fn follow() -> Situation {
    situation(
        "follow",
        &[
            (
                Part::Members,
                &[
                    TWO,
                    "member a; member b primary tl=2",
                    "member a; member b no_address",
                    "member a; member b; member c",
                ],
            ),
            (Part::Leader, &["leader b", "leader a lease=77"]),
            (
                Part::Pg,
                &[
                    "pg primary",
                    "pg primary tl=2",
                    "pg standby",
                    "pg standby from=b",
                    "pg standby from=b streaming",
                    "pg standby from=c tl=2",
                    "pg silent standby",
                    "pg starting standby",
                    "pg standby from=b checksums",
                ],
            ),
            (
                Part::Settings,
                &[
                    "",
                    "settings pause=yes",
                    "settings use_pg_rewind=yes",
                    "settings remove_on_diverged_timelines=yes",
                ],
            ),
            (Part::Me, &["", "me nostream", "me replicatefrom=c"]),
            (
                Part::Divergence,
                &[
                    "",
                    "divergence none b",
                    "divergence found b local=1@0/700 forked=1@0/500",
                    "divergence found b local=1@0/400 forked=1@0/500",
                    "divergence wal-gone b; stall age=20s",
                    "divergence none b ago=1s; stall age=20s",
                ],
            ),
            (
                Part::Failure,
                &[
                    "",
                    "failure check age=1s",
                    "failure start age=1s",
                    "failure stop age=1s",
                ],
            ),
            (
                Part::Wish,
                &["", "wish restart", "wish reinitialize", "wish scheduled at=-1s"],
            ),
            (
                Part::Peers,
                &["", "peer b primary", "peer b standby", "peer b unreachable"],
            ),
            (Part::Cycle, &CYCLE[..4]),
        ],
    )
}

/// A member that is to be reinitialised, and that `/sync` may count on.
pub fn follow_synchronous() -> Situation {
    situation(
        "follow, synchronous",
        &[
            (Part::Members, &[TWO, "member a; member b primary tl=2"]),
            (Part::Leader, &["leader b"]),
            (
                Part::Pg,
                &[
                    "pg standby",
                    "pg standby from=b streaming",
                    "pg down standby",
                    "pg down primary",
                ],
            ),
            (
                Part::Settings,
                &[
                    "settings synchronous=yes",
                    "settings synchronous=quorum",
                    "settings synchronous=yes pause=yes",
                ],
            ),
            (Part::Sync, &["", "sync leader=b", "sync leader=b standbys=a"]),
            (
                Part::Wish,
                &["", "wish restart", "wish reinitialize", "wish reinitialize force"],
            ),
            (
                Part::Peers,
                &["", "peer b primary", "peer b standby", "peer b unreachable"],
            ),
            (Part::Terminating, BOTH),
            (Part::Cycle, &CYCLE[..4]),
        ],
    )
}
