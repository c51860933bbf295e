//! The dynamic settings that decisions depend on, with Patroni's defaults and the arithmetic that follows from them.

use alloc::string::String;
use core::time::Duration;

/// What core reads of `/config`. Everything else there (PostgreSQL parameters, slots) passes by as text.
#[derive(Clone, PartialEq, Debug)]
pub struct Settings {
    /// Lease time to live.
    pub ttl: Duration,
    /// Heartbeat interval.
    pub loop_wait: Duration,
    /// Budget for retries towards etcd and PostgreSQL in one cycle.
    pub retry_timeout: Duration,
    /// Bytes a candidate may lag behind the last published position.
    pub maximum_lag_on_failover: u64,
    /// How long a crashed primary may take to start; zero = fail over at once when possible.
    pub primary_start_timeout: Duration,
    /// How long a stop may take in synchronous mode; zero = no limit.
    pub primary_stop_timeout: Duration,
    /// Compare timelines in the leader race. pgha always does; kept to show the setting.
    pub check_timeline: bool,
    /// Maintenance mode.
    pub pause: bool,
    /// Synchronous replication as managed by the agent.
    pub synchronous_mode: SynchronousMode,
    /// Never fall back to asynchronous.
    pub synchronous_mode_strict: bool,
    /// Wanted number of synchronous standbys.
    pub synchronous_node_count: u32,
    /// Bytes a synchronous standby may lag behind the best; `None` = no limit.
    pub maximum_lag_on_syncnode: Option<u64>,
    /// Keep the primary while etcd is down and all members agree.
    pub failsafe_mode: bool,
    /// Lines kept in `/history`; 0 = all.
    pub max_timelines_history: u32,
    /// How long slots of absent members are kept.
    pub member_slots_ttl: Duration,
    /// Member slots are managed at all.
    pub use_slots: bool,
    /// This cluster follows a remote primary.
    pub standby_cluster: Option<StandbyCluster>,
    /// `postgresql.use_pg_rewind`.
    pub use_pg_rewind: bool,
    /// `postgresql.remove_data_directory_on_rewind_failure`.
    pub remove_on_rewind_failure: bool,
    /// `postgresql.remove_data_directory_on_diverged_timelines`.
    pub remove_on_diverged_timelines: bool,
    /// `postgresql.keep_diverged_wal`: WAL that a rewind discards is copied aside, and a diverged directory is renamed.
    pub keep_diverged_wal: bool,
}

/// `synchronous_mode`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SynchronousMode {
    /// The agent leaves synchronous_standby_names to the user.
    #[default]
    Off,
    /// Priority based (`N (a,b)`).
    On,
    /// Quorum based (`ANY N (a,b)`).
    Quorum,
}

/// `standby_cluster`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct StandbyCluster {
    /// Remote host or hosts.
    pub host: Option<String>,
    /// Remote port.
    pub port: Option<String>,
    /// Slot on the remote primary.
    pub primary_slot_name: Option<String>,
    /// Restore command for the standby leader.
    pub restore_command: Option<String>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            ttl: Duration::from_secs(30),
            loop_wait: Duration::from_secs(10),
            retry_timeout: Duration::from_secs(10),
            maximum_lag_on_failover: 1_048_576,
            primary_start_timeout: Duration::from_secs(300),
            primary_stop_timeout: Duration::ZERO,
            check_timeline: false,
            pause: false,
            synchronous_mode: SynchronousMode::Off,
            synchronous_mode_strict: false,
            synchronous_node_count: 1,
            maximum_lag_on_syncnode: None,
            failsafe_mode: false,
            max_timelines_history: 0,
            member_slots_ttl: Duration::from_secs(1800),
            use_slots: true,
            standby_cluster: None,
            use_pg_rewind: false,
            remove_on_rewind_failure: false,
            remove_on_diverged_timelines: false,
            keep_diverged_wal: false,
        }
    }
}

impl Settings {
    /// The part of the lease that is never used: a fifth of the ttl.
    ///
    /// It pays for clocks that run at different rates (10 % slow here and 10 % fast there cost 18.2 %) and for the
    /// milliseconds between the deadline and the death of the last backend.
    pub fn margin(&self) -> Duration {
        self.ttl / 5
    }
    /// How long a proof of leadership is good for, counted from just before its keepalive was sent.
    pub fn proof_lifetime(&self) -> Duration {
        self.ttl.saturating_sub(self.margin())
    }
    /// How long before the deadline the agent itself stops PostgreSQL, so that clients see a fast shutdown rather
    /// than the fence's SIGKILL.
    pub fn demote_lead(&self) -> Duration {
        (self.ttl / 10).min(Duration::from_secs(2))
    }
    /// Is the agent in charge of synchronous_standby_names?
    pub fn is_synchronous(&self) -> bool {
        self.synchronous_mode != SynchronousMode::Off && self.standby_cluster.is_none()
    }
}
