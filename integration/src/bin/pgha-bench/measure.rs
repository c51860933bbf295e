//! What is measured.

use std::collections::BTreeMap;

use pgha_integration::agent::Agent;

/// The cluster's timings in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timings {
    pub ttl: u32,
    pub loop_wait: u32,
    pub retry_timeout: u32,
}

impl Timings {
    /// Patroni's defaults.
    pub const PATRONI: Self = Self {
        ttl: 30,
        loop_wait: 10,
        retry_timeout: 10,
    };
    /// Shorter than Patroni accepts; it would raise ttl to 20.
    pub const SHORT: Self = Self {
        ttl: 5,
        loop_wait: 1,
        retry_timeout: 2,
    };
}

/// One measured quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Quantity {
    PostmasterKilled,
    Switchover,
    Sigterm,
    NodeKilled,
    AgentKilledGap,
    AgentKilledLost,
    AgentKilledAcked,
    SyncStandbyKilled,
    CommitP50Ms,
    CommitP99Ms,
    ResidentMb,
    Threads,
    CpuMsPerMinute,
    RestPerSecond,
    RestP50Ms,
    RestP99Ms,
}

impl Quantity {
    /// All, in the order of the report.
    pub const ALL: [Self; 16] = [
        Self::PostmasterKilled,
        Self::Switchover,
        Self::Sigterm,
        Self::NodeKilled,
        Self::AgentKilledGap,
        Self::AgentKilledLost,
        Self::AgentKilledAcked,
        Self::SyncStandbyKilled,
        Self::CommitP50Ms,
        Self::CommitP99Ms,
        Self::ResidentMb,
        Self::Threads,
        Self::CpuMsPerMinute,
        Self::RestPerSecond,
        Self::RestP50Ms,
        Self::RestP99Ms,
    ];

    /// Its row in the report.
    pub fn title(self) -> &'static str {
        match self {
            Self::PostmasterKilled => "postmaster killed: longest time without a write, s",
            Self::Switchover => "switchover: longest time without a write, s",
            Self::Sigterm => "SIGTERM of the primary's agent: longest time without a write, s",
            Self::NodeKilled => "primary's node killed: longest time without a write, s",
            Self::AgentKilledGap => "primary's agent killed alone: longest time without a write, s",
            Self::AgentKilledLost => "primary's agent killed alone: acknowledged rows lost",
            Self::AgentKilledAcked => "primary's agent killed alone: rows acknowledged",
            Self::SyncStandbyKilled => "synchronous standby killed: longest time without a write, s",
            Self::CommitP50Ms => "synchronous commit: latency p50, ms",
            Self::CommitP99Ms => "synchronous commit: latency p99, ms",
            Self::ResidentMb => "resident memory of the agent (for pgha with its fence), MB",
            Self::Threads => "threads",
            Self::CpuMsPerMinute => "CPU time at rest, ms a minute",
            Self::RestPerSecond => "REST: GET /primary, requests a second",
            Self::RestP50Ms => "REST: latency p50, ms",
            Self::RestP99Ms => "REST: latency p99, ms",
        }
    }

    /// Whether a ratio of the two agents says something about it.
    pub fn has_ratio(self) -> bool {
        !matches!(
            self,
            Self::AgentKilledGap | Self::AgentKilledLost | Self::AgentKilledAcked
        )
    }

    /// Whether more is better.
    pub fn more_is_better(self) -> bool {
        self == Self::RestPerSecond
    }

    /// Digits behind the point.
    pub fn digits(self) -> usize {
        match self {
            Self::PostmasterKilled
            | Self::Switchover
            | Self::Sigterm
            | Self::NodeKilled
            | Self::AgentKilledGap
            | Self::SyncStandbyKilled
            | Self::CommitP50Ms
            | Self::CommitP99Ms
            | Self::RestP50Ms
            | Self::RestP99Ms => 2,
            Self::ResidentMb => 1,
            Self::AgentKilledLost
            | Self::AgentKilledAcked
            | Self::Threads
            | Self::CpuMsPerMinute
            | Self::RestPerSecond => 0,
        }
    }
}

/// Everything measured of one agent with one set of timings.
#[derive(Clone, Debug)]
pub struct Figures {
    pub agent: Agent,
    pub timings: Timings,
    pub version: String,
    values: BTreeMap<Quantity, Vec<f64>>,
}

impl Figures {
    pub fn new(agent: Agent, timings: Timings, version: String) -> Self {
        Self {
            agent,
            timings,
            version,
            values: BTreeMap::new(),
        }
    }

    /// Adds one round's value.
    pub fn add(&mut self, quantity: Quantity, value: f64) {
        eprintln!(
            "  {} ({}/{}): {} {value:.2}",
            self.agent,
            self.timings.ttl,
            self.timings.loop_wait,
            quantity.title()
        );
        self.values.entry(quantity).or_default().push(value);
    }

    /// The median of the rounds.
    pub fn median(&self, quantity: Quantity) -> Option<f64> {
        let mut values = self.values.get(&quantity)?.clone();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    }

    /// The smallest and the largest value.
    pub fn range(&self, quantity: Quantity) -> Option<(f64, f64)> {
        let values = self.values.get(&quantity)?;
        Some((
            values.iter().copied().reduce(f64::min)?,
            values.iter().copied().reduce(f64::max)?,
        ))
    }
}
