//! What can be wrong with a text that somebody else wrote.

use pgha_core::peer::PeerStatus;

/// A text from outside that is not what it should be. The message says what was found and what is allowed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum WireError {
    /// A point in time without an offset from UTC.
    #[error("timestamp {found:?} has no time zone; write it with one, e.g. 2026-01-01T13:00:00+00:00")]
    TimeWithoutZone {
        /// The text, cut.
        found: String,
    },
    /// Not a point in time.
    #[error("timestamp {found:?} is not in ISO 8601 format, e.g. 2026-01-01T13:00:00+00:00")]
    TimeUnparsable {
        /// The text, cut.
        found: String,
    },
    /// The file with what a daemon keeps of its cluster.
    #[error("what was kept of the cluster cannot be read: {reason}")]
    Kept {
        /// What is wrong with it.
        reason: String,
    },
    /// A peer's answer is not the status of a node.
    #[error("peer's status cannot be read: {reason}")]
    Peer {
        /// What is wrong with it.
        reason: String,
    },
    /// A peer's agent answered but its PostgreSQL did not.
    ///
    /// For an election that peer counts as unreachable, as it does in Patroni. What its agent said is kept: it may
    /// show that it no longer runs as primary.
    #[error("peer's status has neither `xlog` nor `wal`: its PostgreSQL does not answer")]
    PeerPostgresSilent {
        /// What the agent said; `in_recovery` and `lsn` are `None`.
        status: Box<PeerStatus>,
    },
}
