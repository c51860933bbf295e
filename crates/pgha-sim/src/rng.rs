//! The simulator's own random numbers: small, seeded, the same on every machine for ever.

/// SplitMix64. One stream per concern, so that a new fault does not change an old topology.
#[derive(Clone, Debug)]
pub struct Rng(u64);

/// Concerns that draw numbers. New ones are appended, so old seeds keep their meaning.
#[derive(Clone, Copy, Debug)]
pub enum Stream {
    /// Number of nodes, settings, tags.
    Topology,
    /// Latencies.
    Network,
    /// Durations and failures of PostgreSQL's flows.
    Postgres,
    /// Faults and when they end.
    Faults,
    /// Operators and clients.
    Workload,
    /// How etcd treats its clients.
    Etcd,
    /// The WAL archive.
    Archive,
    /// Whether failsafe mode is on, and how members of such a cluster hear each other.
    Failsafe,
    /// Requests between members over REST.
    Rest,
    /// Settings of synchronous replication, tags of members.
    Synchronous,
    /// What happens to synchronous replication.
    SynchronousFaults,
}

impl Rng {
    /// The stream of a seed.
    pub fn new(seed: u64, stream: Stream) -> Rng {
        let mut rng = Rng(seed ^ (stream as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        rng.draw();
        rng
    }
    /// 64 random bits.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    /// A number from `low` to `high`, both included.
    pub fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.draw() % (high - low + 1)
    }
    /// True in `per_mille` of a thousand draws.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.draw() % 1000 < per_mille
    }
    /// One of `n` indexes.
    pub fn index(&mut self, n: usize) -> usize {
        usize::try_from(self.draw() % n.max(1) as u64).unwrap_or(0)
    }
}
