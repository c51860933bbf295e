//! Everything a seed fixes before the first event.

use std::time::Duration;

use pgha_core::settings::Settings;
use pgha_core::tags::Tags;
use pgha_core::units::MemberName;
use pgha_core::view::NodeSpec;

use crate::rng::{Rng, Stream};

/// Drawn once per seed, printed in full.
#[derive(Clone, Debug)]
pub struct SimSettings {
    /// Number of nodes.
    pub nodes: usize,
    /// Lease time to live in seconds.
    pub ttl: u64,
    /// Heartbeat in seconds.
    pub loop_wait: u64,
    /// Retry budget in seconds.
    pub retry_timeout: u64,
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
    /// Faults in the run.
    pub faults: usize,
    /// Simulated seconds with faults.
    pub fault_seconds: u64,
}

impl SimSettings {
    /// The settings of a seed.
    pub fn draw(seed: u64) -> SimSettings {
        let mut r = Rng::new(seed, Stream::Topology);
        let (ttl, loop_wait, retry_timeout) = match r.range(0, 2) {
            0 => (30, 10, 10),
            1 => (10, 2, 4),
            _ => (5, 1, 2),
        };
        SimSettings {
            nodes: 3,
            ttl,
            loop_wait,
            retry_timeout,
            use_pg_rewind: r.chance(800),
            may_remove: r.chance(600),
            lost_reply_per_mille: [0, 5, 50][r.index(3)],
            delayed_per_mille: [0, 5, 30][r.index(3)],
            false_keepalive_per_mille: [0, 0, 500][r.index(3)],
            faults: 2 + r.index(7),
            fault_seconds: 120 + r.range(0, 180),
        }
    }

    /// The local configuration of a node.
    pub fn node_spec(&self, name: &MemberName) -> NodeSpec {
        let (ttl, loop_wait, retry) = (self.ttl, self.loop_wait, self.retry_timeout);
        let seconds = Duration::from_secs;
        let settings = Settings {
            ttl: seconds(ttl),
            loop_wait: seconds(loop_wait),
            retry_timeout: seconds(retry),
            use_pg_rewind: self.use_pg_rewind,
            ..Settings::default()
        };
        NodeSpec {
            name: name.clone(),
            scope: "sim".into(),
            conn_url: format!("postgres://{name}:5432/postgres"),
            api_url: format!("http://{name}:8008/patroni"),
            tags: Tags::default(),
            may_bootstrap: true,
            bootstrap_config: format!(
                r#"{{"ttl":{ttl},"loop_wait":{loop_wait},"retry_timeout":{retry},"postgresql":{{"use_pg_rewind":{}}}}}"#,
                self.use_pg_rewind
            ),
            cached_config: None,
            cached_settings: Some(settings),
            watchdog_required: false,
            use_pg_rewind: Some(self.use_pg_rewind),
            remove_on_rewind_failure: Some(self.may_remove),
            remove_on_diverged_timelines: Some(self.may_remove),
            fenced: true,
        }
    }

    /// How long the calm phase after the faults lasts before progress is demanded.
    pub fn calm(&self) -> Duration {
        Duration::from_secs(4 * self.ttl + 90)
    }
}
