//! What operators ask of this node over REST. Switchover and failover come through `/failover` in etcd instead, so
//! that they survive the node that was asked.

use alloc::string::String;
use core::time::Duration;

use crate::failsafe::{Question, Verdict};
use crate::units::Wall;

/// Ties an answer to its request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct RequestId(pub u64);

/// A request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    /// `POST /restart` without a schedule.
    Restart(RestartRequest),
    /// `POST /restart` with a schedule.
    ScheduleRestart {
        /// When.
        at: Wall,
        /// Conditions, checked when it is due.
        request: RestartRequest,
        /// `schedule` and conditions as JSON text for the member key.
        text: String,
    },
    /// `DELETE /restart`.
    CancelScheduledRestart,
    /// `POST /reinitialize`.
    Reinitialize {
        /// Cancel a running job first.
        force: bool,
        /// Clone from the leader even if a clonefrom member exists.
        from_leader: bool,
    },
    /// `POST /failsafe`: a leader that lost etcd asks for leave to go on.
    Failsafe(Question),
}

/// Conditions of a restart.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RestartRequest {
    /// Only in this role.
    pub role: Option<RestartRole>,
    /// Only if `server_version_num` is lower.
    pub version_below: Option<u32>,
    /// Only if a restart is pending.
    pub if_pending: bool,
    /// Limit for the start; `None` = `primary_start_timeout`.
    pub timeout: Option<Duration>,
}

/// Role filter of a restart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RestartRole {
    /// Primary.
    Primary,
    /// Leader of a standby cluster.
    StandbyLeader,
    /// Standby.
    Standby,
}

/// The answer to a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Done (200).
    Done(String),
    /// Accepted, happens later (202).
    Scheduled(String),
    /// Conflicts with another (409).
    Conflict(String),
    /// Nothing to cancel (404).
    NotFound(String),
    /// Cannot be done now (503).
    Refused(String),
    /// Not in this state at all (500).
    Impossible(String),
    /// To a leader that lost etcd.
    Failsafe(Verdict),
}
