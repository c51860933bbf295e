//! Every bound of this crate in one place: connections, sizes and waits of the server and of the peer client. The
//! size of a request body is bounded by `pgha_wire::limits::MAX_BODY_BYTES`, where it is parsed.

use std::time::Duration;

/// Open connections. One more and the oldest one that waits for its client is closed.
pub const MAX_CONNECTIONS: usize = 512;
/// Connections the kernel holds for us between two accepts.
pub const LISTEN_BACKLOG: u32 = 1024;
/// From accept to the first complete request head, and from the first byte of a later head to its end.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Silence between two requests on a kept-alive connection.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a client may take to send the body it announced.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// How often connections are looked at for [`HEAD_TIMEOUT`].
pub const SWEEP_INTERVAL: Duration = Duration::from_millis(500);
/// Header lines of one request.
pub const MAX_HEADERS: usize = 64;
/// Bytes of one request head, and of each connection's read and write buffer.
pub const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Requests that read etcd (`/cluster`, `/history`, `/config`) at one time; the next one is served from the last view.
pub const MAX_FRESH_READS: usize = 16;
/// How long such a request waits for etcd before it is served from the last view.
pub const FRESH_READ_TIMEOUT: Duration = Duration::from_secs(2);
/// Requests that act (`POST /restart`, ...) at one time; the next one is refused with 503.
pub const MAX_ACTIONS: usize = 32;
/// How long `GET /patroni` waits for a new look at PostgreSQL before it answers from what was published.
pub const REFRESH_TIMEOUT: Duration = Duration::from_millis(400);
/// Looks asked for by `GET /patroni` at one time; further requests are answered from what was published.
pub const MAX_REFRESHES: usize = 16;
/// How long a write to etcd for a request may take.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a restart, reinitialisation or cancellation may take to answer. A restart answers when it has ended, and
/// its own limits are shorter than this.
pub const ACTION_TIMEOUT: Duration = Duration::from_secs(3600);
/// Between two looks at the cluster while a switchover runs.
pub const SWITCHOVER_POLL: Duration = Duration::from_millis(100);
/// The least time a switchover is watched, before doubling; `loop_wait` when that is longer.
pub const SWITCHOVER_MIN_WATCH: Duration = Duration::from_secs(10);
/// Looks, [`SWITCHOVER_POLL`] apart, during which a request that vanished without a new leader may still turn into one.
pub const SWITCHOVER_SETTLE_LOOKS: u32 = 50;
/// Host names of the allowlist and of members that are looked up for one request.
pub const MAX_ALLOWED_NAMES: usize = 64;
/// Resolving the host names of the allowlist, all together.
pub const RESOLVE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a resolved allowlist is used before the names are looked up again.
pub const RESOLVE_KEPT: Duration = Duration::from_secs(30);
/// How long a stopping server waits for replies under way.
pub const STOP_GRACE: Duration = Duration::from_secs(3);

/// Bytes of a peer's answer.
pub const MAX_PEER_BODY_BYTES: usize = 256 * 1024;
/// Bytes of the head of a peer's answer.
pub const MAX_PEER_HEAD_BYTES: usize = 16 * 1024;
/// Peers asked in one call; the rest counts as not reachable. No real cluster comes near.
pub const MAX_PEERS: usize = 128;
/// Addresses of one host name that are tried, all at once.
pub const MAX_PEER_ADDRESSES: usize = 4;
/// Time for one peer in any case: Patroni's own limit.
pub const PEER_TIMEOUT: Duration = Duration::from_secs(2);
/// A connection to a peer that was not used for this long is not used again: the server's [`IDLE_TIMEOUT`] (and
/// Patroni closes at once) would race with the request.
pub const PEER_IDLE_TIMEOUT: Duration = Duration::from_secs(20);
/// Questions of leaders without etcd that wait for an answer at once. There is one such leader at a time.
pub const MAX_QUESTIONS: usize = 8;
/// How long such a question waits for the step machine, which answers at once when it runs at all.
pub const FAILSAFE_TIMEOUT: Duration = Duration::from_secs(2);
