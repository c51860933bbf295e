//! The situations: which facts vary in each. Revisions: what is said of one key alone stands at revision 101, what was
//! read is revision 110, so a proof with `rev=105` is newer than the keys and read, and one with `rev=120` is not.

use super::enumerate::Situation;
use super::facts::{Dimension, Part, dimension};
use super::{other, running};

/// One member besides this node, or two.
pub const TWO: &str = "member a; member b";
pub const THREE: &str = "member a; member b; member c";
pub const LEADER_RUNS: &str = "member a; member b primary";

pub const BOTH: &[&str] = &["", "terminating"];
pub const PAUSE: &[&str] = &["", "settings pause=yes"];
pub const WRITABLE: &[&str] = &["", "writable"];
/// None; one of this key, fresh, due, nearly over and over; one of another key; one newer than what was read.
pub const PROOFS: &[&str] = &[
    "",
    "proof age=1s create=101 rev=105",
    "proof age=10s create=101 rev=105",
    "proof age=23s create=101 rev=105",
    "proof age=25s create=101 rev=105",
    "proof age=1s create=99 rev=98",
    "proof age=1s create=101 rev=120",
];
pub const CYCLE: &[&str] = &[
    "",
    "cycle proven",
    "cycle silent",
    "cycle refuted",
    "cycle acquired",
    "cycle lost_race",
];
pub const STATUS: &[&str] = &[
    "",
    "status lsn=0/500 writer=b",
    "status lsn=0/500 writer=b released",
    "status lsn=0/500 writer=a",
];
pub const SIGHT: &[&str] = &["", "sight age=1s of=b", "sight age=60s of=b", "sight age=1s of=a"];
pub const HISTORY: &[&str] = &["", "history 1@0/400"];
pub const WATCHDOG: &[&str] = &["", "watchdog failed"];
pub const FAILOVER: &[&str] = &[
    "",
    "failover leader=a candidate=b",
    "failover candidate=a",
    "failover leader=a",
    "failover leader=b candidate=c",
    "failover candidate=c at=+60s",
    "failover leader=a at=-1s",
    "failover leader=a at=-60s",
];
pub const INITIALIZE: &[&str] = &[
    "initialize 42",
    "initialize none",
    "initialize 7",
    "initialize unreadable",
    "initialize claimed by=a",
    "initialize claimed by=b",
];
/// What one peer may answer.
pub const ANSWERS: [&str; 9] = [
    "unreachable",
    "standby lsn=0/400",
    "standby lsn=0/500",
    "standby lsn=0/500 may_write",
    "standby lsn=0/600",
    "standby tl=2 lsn=0/300",
    "standby lsn=0/600 nofailover",
    "primary",
    "stopped",
];

/// Every pair of answers of `b` and `c`, and nobody asked; `c` is left out of two members.
fn peers(members: &str) -> Vec<&'static str> {
    let mut all = vec![""];
    for b in ANSWERS {
        if members == THREE {
            all.extend(ANSWERS.iter().map(|c| said(format!("peer b {b}; peer c {c}"))));
        } else {
            all.push(said(format!("peer b {b}")));
        }
    }
    all
}

/// A text for the life of the test.
fn said(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

pub fn situation(name: &'static str, parts: &[(Part, &[&'static str])]) -> Situation {
    let dimensions: Vec<Dimension> = parts.iter().map(|(part, values)| dimension(*part, values)).collect();
    Situation { name, dimensions }
}

/// All of them, the longest first.
pub fn all() -> Vec<Situation> {
    let (two, three) = (peers(TWO), peers(THREE));
    vec![
        running::race_standby("race, standby", THREE, &three),
        other::everything(),
        running::race_standby("race, standby, two members", TWO, &two),
        running::race_primary(&three),
        running::race_quorum(&three),
        running::lead(&two),
        running::lead_synchronous(),
        running::follow_synchronous(),
        other::failsafe(&two),
        running::wishes(&three),
        running::handover(&three),
        other::leading_down(&two),
        other::following_down(),
        other::leaderless_down(&two),
        running::follow(),
        other::nothing_here(),
        other::bootstrap(&two),
        other::without_etcd(),
        other::paused_without_etcd(),
        other::jobs(&two),
        other::system_id(),
        other::scope_lost(&three),
    ]
}
