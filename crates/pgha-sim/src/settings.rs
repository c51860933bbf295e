//! The cluster of a plan: its size, its configuration, and how chance treats it.
//!
//! A new setting is a field, its value in `default`, an entry in [`KNOBS`], and a line in `draw`.

use std::time::Duration;

use pgha_core::settings::Settings;
pub use pgha_core::settings::SynchronousMode;
use pgha_core::units::MemberName;
use pgha_core::view::NodeSpec;

use crate::network::MAX_NODES;
use crate::planted::{Defect, by_id};
use crate::rng::{Rng, Stream};
use crate::tags::SimTags;

/// Fixed before the first event.
#[derive(Clone, PartialEq, Debug)]
pub struct SimSettings {
    /// Number of nodes.
    pub nodes: usize,
    /// Lease time to live in seconds.
    pub ttl: u64,
    /// Heartbeat in seconds.
    pub loop_wait: u64,
    /// Retry budget in seconds.
    pub retry_timeout: u64,
    /// `maximum_lag_on_failover` in bytes.
    pub maximum_lag: u64,
    /// `synchronous_mode`.
    pub sync: SynchronousMode,
    /// `synchronous_mode_strict`.
    pub sync_strict: bool,
    /// Checksums are on and pg_rewind allowed.
    pub use_pg_rewind: bool,
    /// A damaged or diverged directory may be removed.
    pub may_remove: bool,
    /// Answers of etcd that are lost, per mille of writes and keepalives.
    pub lost_reply_per_mille: u64,
    /// Writes that are applied after their sender has given up, per mille.
    pub delayed_per_mille: u64,
    /// Keepalives of dead leases that are answered with success, per mille.
    pub false_keepalive_per_mille: u64,
    /// Simulated seconds with faults.
    pub fault_seconds: u64,
    /// Requests to etcd that are lost, per mille.
    pub lost_request_per_mille: u64,
    /// Writes that are performed a second time some time later, per mille.
    pub duplicated_per_mille: u64,
    /// Watch events that are lost for good, per mille (etcd issues 17529 and 19179).
    pub lost_hint_per_mille: u64,
    /// Watch events that come seconds late, per mille.
    pub late_hint_per_mille: u64,
    /// Reads may be stale and an isolated leader keeps leases (etcd issues 20418 and 15247).
    pub etcd_bugs: bool,
    /// Reads that are stale when they may be, per mille.
    pub stale_read_per_mille: u64,
    /// Milliseconds between two commits of a client; zero: nobody commits.
    pub commit_every_ms: u64,
    /// Every machine has a watchdog, and `watchdog.mode` is `required`.
    pub watchdog_required: bool,
    /// `failsafe_mode`.
    pub failsafe: bool,
    /// Questions of a leader without etcd, and answers to them, that are lost, per mille.
    pub lost_rest_per_mille: u64,
    /// The same that come seconds late, per mille.
    pub slow_rest_per_mille: u64,
    /// A defect on purpose.
    pub planted: Option<&'static Defect>,
    /// There is a WAL archive: archive_mode is on, archive_command and restore_command are set everywhere.
    pub archive: bool,
    /// `synchronous_node_count`.
    pub sync_nodes: u64,
    /// `maximum_lag_on_syncnode` in bytes; zero: no limit.
    pub sync_lag: u64,
    /// Tags of members.
    pub tags: SimTags,
}

/// From this seed on plans draw the synchronous modes, tags, and what happens to them. Below it all is asynchronous: campaigns
/// with these modes are not clean yet (`docs/correctness.md`).
pub const SYNCHRONOUS_FROM: u64 = 1 << 32;

/// One setting as the text form of plans has it.
pub struct Knob {
    /// Its name.
    pub name: &'static str,
    /// Its value as text.
    pub get: fn(&SimSettings) -> String,
    /// Sets it from a text.
    pub set: fn(&mut SimSettings, &str) -> Result<(), String>,
}

/// A value that a plan can hold as text.
trait KnobValue: Sized {
    fn render(&self) -> String;
    fn parse(text: &str) -> Result<Self, String>;
}

macro_rules! knobs {
    ($($field:ident),* $(,)?) => {
        &[$(Knob {
            name: stringify!($field),
            get: |s| KnobValue::render(&s.$field),
            set: |s, text| {
                s.$field = KnobValue::parse(text)?;
                Ok(())
            },
        }),*]
    };
}

/// All settings, in the order of the text form.
pub const KNOBS: &[Knob] = knobs![
    nodes,
    ttl,
    loop_wait,
    retry_timeout,
    maximum_lag,
    sync,
    sync_strict,
    use_pg_rewind,
    may_remove,
    lost_reply_per_mille,
    delayed_per_mille,
    false_keepalive_per_mille,
    fault_seconds,
    lost_request_per_mille,
    duplicated_per_mille,
    lost_hint_per_mille,
    late_hint_per_mille,
    etcd_bugs,
    stale_read_per_mille,
    commit_every_ms,
    watchdog_required,
    failsafe,
    lost_rest_per_mille,
    slow_rest_per_mille,
    planted,
    archive,
    sync_nodes,
    sync_lag,
    tags,
];

impl KnobValue for u64 {
    fn render(&self) -> String {
        self.to_string()
    }
    fn parse(text: &str) -> Result<u64, String> {
        text.parse().map_err(|_| "a whole number was expected".into())
    }
}

/// Only the number of nodes is a `usize`.
impl KnobValue for usize {
    fn render(&self) -> String {
        self.to_string()
    }
    fn parse(text: &str) -> Result<usize, String> {
        match text.parse() {
            Ok(n) if (1..=MAX_NODES).contains(&n) => Ok(n),
            Ok(_) | Err(_) => Err(format!("1 to {MAX_NODES} nodes are possible")),
        }
    }
}

impl KnobValue for bool {
    fn render(&self) -> String {
        if *self { "yes" } else { "no" }.into()
    }
    fn parse(text: &str) -> Result<bool, String> {
        match text {
            "yes" => Ok(true),
            "no" => Ok(false),
            _ => Err("`yes` or `no` was expected".into()),
        }
    }
}

impl KnobValue for SimTags {
    fn render(&self) -> String {
        self.to_string()
    }
    fn parse(text: &str) -> Result<SimTags, String> {
        SimTags::parse(text)
    }
}

impl KnobValue for SynchronousMode {
    fn render(&self) -> String {
        match self {
            SynchronousMode::Off => "off",
            SynchronousMode::On => "on",
            SynchronousMode::Quorum => "quorum",
        }
        .into()
    }
    fn parse(text: &str) -> Result<SynchronousMode, String> {
        match text {
            "off" => Ok(SynchronousMode::Off),
            "on" => Ok(SynchronousMode::On),
            "quorum" => Ok(SynchronousMode::Quorum),
            _ => Err("`off`, `on` or `quorum` was expected".into()),
        }
    }
}

impl KnobValue for Option<&'static Defect> {
    fn render(&self) -> String {
        self.map_or("none", |d| d.id).into()
    }
    fn parse(text: &str) -> Result<Option<&'static Defect>, String> {
        match text {
            "none" => Ok(None),
            id => by_id(id).map(Some).ok_or_else(|| "there is no such defect".into()),
        }
    }
}

impl Default for SimSettings {
    fn default() -> SimSettings {
        SimSettings {
            nodes: 3,
            ttl: 30,
            loop_wait: 10,
            retry_timeout: 10,
            maximum_lag: 1_048_576,
            sync: SynchronousMode::Off,
            sync_strict: false,
            use_pg_rewind: true,
            may_remove: true,
            lost_reply_per_mille: 0,
            delayed_per_mille: 0,
            false_keepalive_per_mille: 0,
            fault_seconds: 300,
            lost_request_per_mille: 0,
            duplicated_per_mille: 0,
            lost_hint_per_mille: 0,
            late_hint_per_mille: 0,
            etcd_bugs: false,
            stale_read_per_mille: 0,
            commit_every_ms: 500,
            watchdog_required: false,
            failsafe: false,
            lost_rest_per_mille: 0,
            slow_rest_per_mille: 0,
            planted: None,
            archive: false,
            sync_nodes: 1,
            sync_lag: 0,
            tags: SimTags::default(),
        }
    }
}

impl SimSettings {
    /// The settings of a seed.
    pub fn draw(seed: u64) -> SimSettings {
        let mut r = Rng::new(seed, Stream::Topology);
        let mut etcd = Rng::new(seed, Stream::Etcd);
        let mut failsafe = Rng::new(seed, Stream::Failsafe);
        let (ttl, loop_wait, retry_timeout) = match r.range(0, 9) {
            0..=4 => (30, 10, 10),
            5 => (20, 5, 5),
            6 => (10, 2, 4),
            7 => (10, 10, 3),
            8 => (5, 1, 2),
            _ => (3, 1, 1),
        };
        let drawn = SimSettings {
            nodes: [1, 2, 3, 3, 3, 3, 3, 3, 4, 4, 4, 5, 5, 5, 6, 7][r.index(16)],
            ttl,
            loop_wait,
            retry_timeout,
            use_pg_rewind: r.chance(800),
            may_remove: r.chance(600),
            lost_reply_per_mille: [0, 5, 50][r.index(3)],
            delayed_per_mille: [0, 5, 30][r.index(3)],
            false_keepalive_per_mille: [0, 0, 500][r.index(3)],
            fault_seconds: 120 + r.range(0, 900),
            lost_request_per_mille: [0, 5, 30][etcd.index(3)],
            duplicated_per_mille: [0, 0, 10][etcd.index(3)],
            lost_hint_per_mille: [0, 20, 200][etcd.index(3)],
            late_hint_per_mille: [0, 20, 200][etcd.index(3)],
            etcd_bugs: etcd.chance(300),
            stale_read_per_mille: [10, 100][etcd.index(2)],
            commit_every_ms: [100, 500, 500, 2000][r.index(4)],
            // With less there is no room for the device's margin.
            watchdog_required: r.chance(150) && ttl >= 20,
            maximum_lag: [1 << 20, 1 << 20, 64 << 10][r.index(3)],
            archive: Rng::new(seed, Stream::Archive).chance(300),
            failsafe: failsafe.chance(400),
            lost_rest_per_mille: [0, 20, 200][failsafe.index(3)],
            slow_rest_per_mille: [0, 50, 300][failsafe.index(3)],
            ..SimSettings::default()
        };
        match seed < SYNCHRONOUS_FROM {
            true => drawn,
            false => drawn.with_synchronous_mode(&mut Rng::new(seed, Stream::Synchronous)),
        }
    }

    /// How replication waits, and who may be waited for.
    fn with_synchronous_mode(self, r: &mut Rng) -> SimSettings {
        let sync = match r.range(0, 99) {
            0..=44 => SynchronousMode::Off,
            45..=74 => SynchronousMode::On,
            _ => SynchronousMode::Quorum,
        };
        let strict = r.chance(300);
        SimSettings {
            sync,
            sync_strict: strict && sync != SynchronousMode::Off,
            sync_nodes: [1, 1, 1, 1, 1, 1, 2, 2, 2, 3][r.index(10)],
            sync_lag: [0, 0, 0, 1_048_576, 4_194_304][r.index(5)],
            tags: SimTags::draw(r, self.nodes),
            ..self
        }
    }

    /// Chance does no more harm.
    pub fn calm_down(&mut self) {
        self.lost_reply_per_mille = 0;
        self.delayed_per_mille = 0;
        self.false_keepalive_per_mille = 0;
        self.lost_request_per_mille = 0;
        self.lost_rest_per_mille = 0;
        self.slow_rest_per_mille = 0;
        self.duplicated_per_mille = 0;
        self.lost_hint_per_mille = 0;
        self.late_hint_per_mille = 0;
        self.stale_read_per_mille = 0;
        self.etcd_bugs = false;
    }

    /// The dynamic configuration as core sees it.
    pub fn dynamic(&self) -> Settings {
        let seconds = Duration::from_secs;
        Settings {
            ttl: seconds(self.ttl),
            loop_wait: seconds(self.loop_wait),
            retry_timeout: seconds(self.retry_timeout),
            maximum_lag_on_failover: self.maximum_lag,
            synchronous_mode: self.sync,
            synchronous_mode_strict: self.sync_strict,
            failsafe_mode: self.failsafe,
            synchronous_node_count: u32::try_from(self.sync_nodes).unwrap_or(u32::MAX),
            maximum_lag_on_syncnode: (self.sync_lag > 0).then_some(self.sync_lag),
            use_pg_rewind: self.use_pg_rewind,
            ..Settings::default()
        }
    }

    /// The dynamic configuration as `/config` has it.
    pub fn dynamic_json(&self) -> String {
        let sync = match self.sync {
            SynchronousMode::Off => "false",
            SynchronousMode::On => "true",
            SynchronousMode::Quorum => "\"quorum\"",
        };
        let mut synchronous = String::new();
        if self.sync_nodes != 1 {
            synchronous += &format!(r#""synchronous_node_count":{},"#, self.sync_nodes);
        }
        if self.sync_lag > 0 {
            synchronous += &format!(r#""maximum_lag_on_syncnode":{},"#, self.sync_lag);
        }
        format!(
            r#"{{"ttl":{},"loop_wait":{},"retry_timeout":{},"maximum_lag_on_failover":{},"synchronous_mode":{sync},"synchronous_mode_strict":{},"failsafe_mode":{},{synchronous}"postgresql":{{"use_pg_rewind":{}}}}}"#,
            self.ttl,
            self.loop_wait,
            self.retry_timeout,
            self.maximum_lag,
            self.sync_strict,
            self.failsafe,
            self.use_pg_rewind
        )
    }

    /// The local configuration of a node.
    pub fn node_spec(&self, node: usize, name: &MemberName) -> NodeSpec {
        NodeSpec {
            name: name.clone(),
            scope: "sim".into(),
            conn_url: format!("postgres://{name}:5432/postgres"),
            api_url: format!("http://{name}:8008/patroni"),
            tags: self.tags.of(node),
            may_bootstrap: true,
            bootstrap_config: self.dynamic_json(),
            cached_config: None,
            kept_cluster: None,
            cached_settings: Some(self.dynamic()),
            watchdog_required: self.watchdog_required,
            use_pg_rewind: Some(self.use_pg_rewind),
            remove_on_rewind_failure: Some(self.may_remove),
            remove_on_diverged_timelines: Some(self.may_remove),
            keep_diverged_wal: None,
            fenced: true,
        }
    }

    /// How long the calm phase after the faults lasts before progress is demanded.
    pub fn calm(&self) -> Duration {
        Duration::from_secs(4 * self.ttl + 90)
    }
}
