//! What other members answered over REST.

use alloc::string::String;

use crate::cluster::{MemberRole, MemberState};
use crate::tags::Tags;
use crate::units::{Lsn, MemberName, Mono, SystemId, Timeline};

/// What is known of a peer from asking it directly.
#[derive(Clone, PartialEq, Debug)]
pub enum PeerView {
    /// It was not asked in this cycle.
    NotAsked,
    /// It did not answer in time, or refused the connection.
    Unreachable {
        /// When that was established.
        at: Mono,
    },
    /// Somebody else answered at its address: other name, scope or system identifier.
    Impostor {
        /// When.
        at: Mono,
        /// What differed, for the log.
        reason: String,
    },
    /// It answered.
    Answered {
        /// When the request was SENT: what it says was true at some moment after.
        at: Mono,
        /// The answer.
        status: PeerStatus,
    },
}

/// The parts of a peer's `GET /patroni` that decisions use.
#[derive(Clone, PartialEq, Debug)]
pub struct PeerStatus {
    /// `patroni.name`; checked against the member key.
    pub name: Option<MemberName>,
    /// `patroni.scope`.
    pub scope: Option<String>,
    /// `database_system_identifier`.
    pub system_id: Option<SystemId>,
    /// State text.
    pub state: MemberState,
    /// Role text.
    pub role: MemberRole,
    /// Its timeline; `None` when it does not know.
    pub timeline: Option<Timeline>,
    /// Is it in recovery? `None` when its PostgreSQL did not answer.
    pub in_recovery: Option<bool>,
    /// Primary: flush position. Standby: the larger of received and replayed.
    pub lsn: Option<Lsn>,
    /// PostgreSQL accepts writes there, or may yet be made to under a proof that is still good (pgha's own field; false
    /// when a peer does not tell).
    pub may_write: bool,
    /// The leader that it told to go on without etcd, while that binds it (pgha's own field).
    pub failsafe_leader: Option<MemberName>,
    /// `watchdog_failed`.
    pub watchdog_failed: bool,
    /// Its tags.
    pub tags: Tags,
}
