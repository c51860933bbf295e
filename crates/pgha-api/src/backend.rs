//! What the API needs from the agent around it. The agent implements it; tests do too.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use pgha_core::cluster::ClusterView;
use pgha_core::commit::{CommitOutcome, FailoverValue};
use pgha_core::peer::PeerView;
use pgha_core::request::{Answer, Request};
use pgha_core::units::{MemberName, Mono, Now, Revision};

/// Reads the boot clock.
pub type Clock = Arc<dyn Fn() -> Mono + Send + Sync>;

/// An answer that may take its time. The API bounds every one of them, so an implementation may wait for ever.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The agent, as the API sees it. Called from the thread of the API.
pub trait Backend: Send + Sync + 'static {
    /// Both clocks, now.
    fn now(&self) -> Now;
    /// Reads the cluster from etcd; `None` when etcd did not answer.
    fn read_cluster(&self) -> Later<'_, Option<ClusterView>>;
    /// Writes `/config`, only if its mod revision is still `expected`, or in any case when that is `None`.
    fn write_config(&self, text: String, expected: Option<Revision>) -> Later<'_, CommitOutcome>;
    /// Writes `/failover` (`None` clears it to `{}`), only if its mod revision is still `expected`, or in any case.
    fn write_failover(&self, value: Option<FailoverValue>, expected: Option<Revision>) -> Later<'_, CommitOutcome>;
    /// Hands a request to the step machine and waits for its answer.
    fn request(&self, request: Request) -> Later<'_, Answer>;
    /// Asks these members (name and `api_url`) for their status.
    fn ask_peers(&self, peers: Vec<(MemberName, String)>) -> Later<'_, BTreeMap<MemberName, PeerView>>;
    /// Looks at PostgreSQL now and publishes what it saw, for peers that compare positions in a race.
    fn refresh(&self) -> Later<'_, ()>;
    /// Reads the configuration files again before the next cycle.
    fn reload(&self);
    /// Runs a cycle now.
    fn wake(&self);
}
