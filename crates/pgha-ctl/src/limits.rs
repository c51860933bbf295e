//! How long and how much this program waits and reads. Each bound has its name here.

use std::time::Duration;

/// One read or write of etcd, all endpoints tried.
pub const DCS_BUDGET: Duration = Duration::from_secs(10);
/// Opening one connection to a member.
pub const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// A request that a member answers from what it knows.
pub const QUICK_LIMIT: Duration = Duration::from_secs(10);
/// A request that makes a member write to etcd.
pub const WRITE_LIMIT: Duration = Duration::from_secs(30);
/// What a member may need beyond the time that the cluster's settings name.
pub const SLACK: Duration = Duration::from_secs(60);
/// The least time that a switchover is waited for, before doubling, as in the REST API.
pub const SWITCHOVER_LEAST_WAIT: Duration = Duration::from_secs(10);
/// Between two looks at the cluster.
pub const POLL: Duration = Duration::from_secs(1);
/// Between two questions how a reinitialisation is going.
pub const REINIT_POLL: Duration = Duration::from_secs(2);
/// How long a member may be silent while it is reinitialised.
pub const REINIT_SILENCE: Duration = Duration::from_secs(60);
/// How long a member that has copied its data may take until PostgreSQL runs.
pub const REINIT_START_LIMIT: Duration = Duration::from_secs(600);
/// Bytes of an answer's head.
pub const MAX_HEAD_BYTES: usize = 64 * 1024;
/// Bytes of an answer's body.
pub const MAX_BODY_BYTES: usize = 1024 * 1024;
/// Characters of a body that are shown.
pub const MAX_SHOWN_BODY_CHARS: usize = 500;
/// Bytes of one configuration file.
pub const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// Files of a configuration directory.
pub const MAX_FILES: usize = 100;
