//! Asks other members for their status, or for leave to go on without etcd: all at once, each within its time, each checked
//! for who it is.
//!
//! The addresses come from etcd, so they are not trusted: plain `http` to the host and port of a member key, no
//! redirects, no proxy from the environment, no link-local address (where clouds keep their metadata services), and
//! no more of the answer than a limit. Credentials go with `POST /failsafe` alone, which needs them; a `GET` needs none.
//!
//! Invariants: everybody who was asked is in the answer; `at` of an answer lies before its request was sent.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use pgha_core::failsafe::{Question, Reply};
use pgha_core::peer::{PeerStatus, PeerView};
use pgha_core::units::{MemberName, Mono, SystemId};
use pgha_wire::error::WireError;
use pgha_wire::rest::failsafe::{DCS_READ_HEADER, LSN_HEADER, parse_reply, render_question};
use pgha_wire::rest::status::parse_peer;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::access::BasicAuth;
use crate::backend::Clock;
use crate::limits::{
    MAX_PEER_ADDRESSES, MAX_PEER_BODY_BYTES, MAX_PEER_HEAD_BYTES, MAX_PEERS, PEER_IDLE_TIMEOUT, PEER_TIMEOUT,
};

/// What a peer must say of itself to count as the member it was asked as.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Expect {
    /// Our scope.
    pub scope: String,
    /// The cluster's system identifier, once there is one.
    pub system_id: Option<SystemId>,
}

/// The client. Keeps one connection per peer open between two calls.
pub struct PeerClient {
    clock: Clock,
    user_agent: HeaderValue,
    kept: Arc<Mutex<Kept>>,
}

/// What is kept between two calls.
#[derive(Default)]
struct Kept {
    /// Open connections, by `host:port`.
    connections: HashMap<String, Connection>,
    /// The last addresses of host names, for when the resolver fails.
    addresses: HashMap<String, Vec<SocketAddr>>,
    /// Last trouble with each peer: told in the log only when it changes.
    troubles: HashMap<MemberName, String>,
}

impl Kept {
    /// Forgets what belongs to members that are gone, so that a name made up by somebody costs nothing for long.
    fn prune(&mut self, now: Mono) {
        self.connections.retain(|_, connection| connection.is_fresh(now));
        if self.addresses.len() > MAX_PEERS {
            self.addresses.clear();
        }
        if self.troubles.len() > MAX_PEERS {
            self.troubles.clear();
        }
    }
}

struct Connection {
    sender: SendRequest<Full<Bytes>>,
    unused_since: Mono,
}

/// Why there is no answer, for the log.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("api_url {0:?} is not an http:// URL with a host")]
    NotAUrl(String),
    #[error("api_url is https, which this version cannot verify; it asks only http")]
    Https,
    #[error("{0} is link-local, multicast or no address at all, and no member answers there")]
    ForbiddenAddress(IpAddr),
    #[error("the host name cannot be resolved: {0}")]
    Resolve(std::io::Error),
    #[error("no connection: {0}")]
    Connect(std::io::Error),
    #[error("the connection broke: {0}")]
    Http(#[from] hyper::Error),
    #[error("the answer is longer than {MAX_PEER_BODY_BYTES} bytes or broke off: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    #[error("it answered with HTTP status {0}")]
    Status(StatusCode),
    #[error("{0}")]
    Unreadable(WireError),
    #[error("it does not say who it is")]
    Nameless,
    #[error("no answer within {} ms", .0.as_millis())]
    TooLate(Duration),
    #[error("more than {MAX_PEERS} members; it was not asked")]
    TooMany,
}

impl PeerClient {
    /// A client that names itself `pgha/<version>`; `clock` reads the boot clock.
    pub fn new(clock: Clock) -> PeerClient {
        PeerClient {
            clock,
            user_agent: HeaderValue::from_static(concat!("pgha/", env!("CARGO_PKG_VERSION"))),
            kept: Arc::default(),
        }
    }

    /// `GET`s the status of each peer (name and `api_url`), in parallel, within `budget` and [`PEER_TIMEOUT`].
    ///
    /// A peer whose agent answers but whose PostgreSQL does not is `Answered` with `in_recovery` and `lsn` unknown.
    pub async fn ask(
        &self,
        peers: &[(MemberName, String)],
        expect: &Expect,
        budget: Duration,
    ) -> BTreeMap<MemberName, PeerView> {
        let limit = budget.min(PEER_TIMEOUT);
        lock(&self.kept).prune((self.clock)());
        let mut running = JoinSet::new();
        for (name, url) in peers.iter().take(MAX_PEERS) {
            let asked = Asked {
                user_agent: self.user_agent.clone(),
                clock: Arc::clone(&self.clock),
                limit,
                message: Message::GetStatus,
            };
            let (name, url, kept) = (name.clone(), url.clone(), Arc::clone(&self.kept));
            running.spawn(async move {
                let answer = timeout(limit, asked.get_status(&url, &kept)).await;
                (name, answer.unwrap_or(Err(Trouble::TooLate(limit))))
            });
        }
        let mut views = BTreeMap::new();
        for (name, _) in peers.iter().skip(MAX_PEERS) {
            views.insert(name.clone(), self.judge(name, expect, Err(Trouble::TooMany)));
        }
        while let Some(ended) = running.join_next().await {
            match ended {
                Ok((name, answer)) => {
                    let view = self.judge(&name, expect, answer);
                    views.insert(name, view);
                }
                Err(e) => tracing::error!(error = %e, "asking a peer failed inside"),
            }
        }
        // Whoever is missing by such an inner failure was not reached.
        for (name, _) in peers {
            views
                .entry(name.clone())
                .or_insert_with(|| PeerView::Unreachable { at: (self.clock)() });
        }
        views
    }

    /// `POST`s the question to each peer (name and `api_url`), in parallel, within `budget`: may this leader go on without
    /// etcd? Everybody who was asked is in the answer.
    pub async fn ask_failsafe(
        &self,
        peers: &[(MemberName, String)],
        question: &Question,
        scope: &str,
        authentication: Option<&BasicAuth>,
        budget: Duration,
    ) -> BTreeMap<MemberName, Reply> {
        lock(&self.kept).prune((self.clock)());
        let mut running = JoinSet::new();
        for (name, url) in peers.iter().take(MAX_PEERS) {
            let asked = Asked {
                user_agent: self.user_agent.clone(),
                clock: Arc::clone(&self.clock),
                limit: budget,
                message: Message::Failsafe {
                    body: render_question(question, scope, name).into(),
                    authorization: authentication.and_then(basic),
                },
            };
            let (name, url, kept) = (name.clone(), url.clone(), Arc::clone(&self.kept));
            running.spawn(async move {
                let answer = timeout(budget, asked.exchange(&url, &kept)).await;
                (name, answer.unwrap_or(Err(Trouble::TooLate(budget))))
            });
        }
        let mut replies: BTreeMap<MemberName, Reply> =
            peers.iter().map(|(name, _)| (name.clone(), Reply::Silent)).collect();
        while let Some(ended) = running.join_next().await {
            match ended {
                Ok((name, Ok(answer))) => {
                    let header = |name| answer.headers.get(name).and_then(|v| v.to_str().ok());
                    let (lsn, read) = (header(LSN_HEADER), header(DCS_READ_HEADER));
                    let reply = parse_reply(answer.status.as_u16(), &answer.body, lsn, read, answer.at);
                    if let Reply::Refused(reason) = &reply {
                        tracing::warn!(member = %name, reason, "a member does not let this leader go on");
                    }
                    replies.insert(name, reply);
                }
                Ok((name, Err(trouble))) => {
                    tracing::warn!(member = %name, reason = %trouble, "a member cannot be asked for leave to go on");
                }
                Err(e) => tracing::error!(error = %e, "asking a peer failed inside"),
            }
        }
        replies
    }

    /// From what came back to what it means, and into the log when that is news.
    fn judge(&self, name: &MemberName, expect: &Expect, answer: Result<(Mono, PeerStatus), Trouble>) -> PeerView {
        let (view, trouble) = match answer {
            Ok((at, status)) => match difference(name, expect, &status) {
                Some(reason) => (
                    PeerView::Impostor {
                        at,
                        reason: reason.clone(),
                    },
                    Some(reason),
                ),
                None => (PeerView::Answered { at, status }, None),
            },
            Err(trouble) => (PeerView::Unreachable { at: (self.clock)() }, Some(trouble.to_string())),
        };
        let mut kept = lock(&self.kept);
        match trouble {
            Some(trouble) if kept.troubles.get(name) != Some(&trouble) => {
                tracing::warn!(member = %name, reason = %trouble, "a peer cannot be asked");
                kept.troubles.insert(name.clone(), trouble);
            }
            Some(_) => {}
            None => {
                if kept.troubles.remove(name).is_some() {
                    tracing::info!(member = %name, "the peer answers again");
                }
            }
        }
        view
    }
}

fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    // Each critical section is one map operation; a panic elsewhere leaves the maps whole.
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What in `status` belongs to somebody else. What a peer does not tell does not count against it.
fn difference(name: &MemberName, expect: &Expect, status: &PeerStatus) -> Option<String> {
    if let Some(other) = status.name.as_ref().filter(|n| *n != name) {
        return Some(format!(
            "somebody named {other:?} answers at its address",
            other = other.as_str()
        ));
    }
    if let Some(other) = status.scope.as_ref().filter(|s| **s != expect.scope) {
        return Some(format!("a member of cluster {other:?} answers at its address"));
    }
    match (status.system_id, expect.system_id) {
        (Some(theirs), Some(ours)) if theirs != ours => {
            Some(format!("its system identifier is {theirs}, the cluster's is {ours}"))
        }
        (Some(_) | None, _) => None,
    }
}

/// `Basic` and the encoded user and password; `None` when they cannot stand in a header.
fn basic(auth: &BasicAuth) -> Option<HeaderValue> {
    let encoded = STANDARD.encode(format!("{}:{}", auth.username, auth.password));
    let mut value = HeaderValue::from_str(&format!("Basic {encoded}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// What is asked.
enum Message {
    /// `GET` of the path in the address.
    GetStatus,
    /// `POST /failsafe`. Asking twice does no harm.
    Failsafe {
        body: Bytes,
        authorization: Option<HeaderValue>,
    },
}

/// What came back.
struct Answer {
    /// Just before the request was sent.
    at: Mono,
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

/// One request under way.
struct Asked {
    user_agent: HeaderValue,
    clock: Clock,
    limit: Duration,
    message: Message,
}

impl Asked {
    async fn get_status(&self, url: &str, kept: &Mutex<Kept>) -> Result<(Mono, PeerStatus), Trouble> {
        let Answer { at, status, body, .. } = self.exchange(url, kept).await?;
        // 503 is what health paths say of a node that is up but not in that role.
        if status != StatusCode::OK && status != StatusCode::SERVICE_UNAVAILABLE {
            return Err(Trouble::Status(status));
        }
        match parse_peer(&body) {
            // Every Patroni tells its scope. Something that does not may be any web server that speaks JSON.
            Ok(status) if status.scope.is_some() => Ok((at, status)),
            // Its agent speaks, its PostgreSQL does not; the status says so with its `None`s. As it may end the wait
            // for an old leader, it has to come from that very member.
            Err(WireError::PeerPostgresSilent { status }) if status.scope.is_some() && status.name.is_some() => {
                Ok((at, *status))
            }
            Ok(_) | Err(WireError::PeerPostgresSilent { .. }) => Err(Trouble::Nameless),
            Err(e) => Err(Trouble::Unreadable(e)),
        }
    }

    /// One request and its answer, over a kept connection if there is one.
    async fn exchange(&self, url: &str, kept: &Mutex<Kept>) -> Result<Answer, Trouble> {
        let target = Target::parse(url)?;
        let pooled = lock(kept).connections.remove(&target.authority);
        if let Some(connection) = pooled.filter(|c| c.is_fresh((self.clock)())) {
            // A kept connection may be dead without knowing it, so it only gets a part of the time.
            match timeout(self.limit / 3, self.exchange_over(connection.sender, &target, kept)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(trouble)) => tracing::debug!(reason = %trouble, "a kept connection to a peer is of no use"),
                Err(_) => tracing::debug!("a kept connection to a peer does not answer"),
            }
        }
        let sender = connect(&target, kept).await?;
        self.exchange_over(sender, &target, kept).await
    }

    async fn exchange_over(
        &self,
        mut sender: SendRequest<Full<Bytes>>,
        target: &Target,
        kept: &Mutex<Kept>,
    ) -> Result<Answer, Trouble> {
        let request = self.request(target);
        let at = (self.clock)();
        let response: Response<_> = sender.send_request(request).await?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, MAX_PEER_BODY_BYTES)
            .collect()
            .await
            .map_err(Trouble::Body)?;
        if sender.ready().await.is_ok() {
            let connection = Connection {
                sender,
                unused_since: (self.clock)(),
            };
            lock(kept).connections.insert(target.authority.clone(), connection);
        }
        Ok(Answer {
            at,
            status: parts.status,
            headers: parts.headers,
            body: body.to_bytes(),
        })
    }

    fn request(&self, target: &Target) -> Request<Full<Bytes>> {
        let mut request = match &self.message {
            Message::GetStatus => {
                let mut request = Request::new(Full::default());
                *request.uri_mut() = target.path.clone();
                request
            }
            Message::Failsafe { body, authorization } => {
                let mut request = Request::new(Full::new(body.clone()));
                *request.method_mut() = Method::POST;
                *request.uri_mut() = Uri::from_static("/failsafe");
                let headers = request.headers_mut();
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                headers.extend(authorization.clone().map(|value| (AUTHORIZATION, value)));
                request
            }
        };
        request.headers_mut().insert(HOST, target.host_header.clone());
        request.headers_mut().insert(USER_AGENT, self.user_agent.clone());
        request
    }
}

impl Connection {
    fn is_fresh(&self, now: Mono) -> bool {
        self.sender.is_ready() && now.since(self.unused_since) < PEER_IDLE_TIMEOUT
    }
}

/// Where to ask.
struct Target {
    /// `host:port`, which names the kept connection.
    authority: String,
    host: String,
    port: u16,
    path: Uri,
    host_header: HeaderValue,
}

impl Target {
    fn parse(url: &str) -> Result<Target, Trouble> {
        let not_a_url = || Trouble::NotAUrl(url.chars().take(100).collect());
        let uri: Uri = url.parse().map_err(|_| not_a_url())?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(Trouble::Https),
            Some(_) | None => return Err(not_a_url()),
        }
        let host = uri.host().filter(|h| !h.is_empty()).ok_or_else(not_a_url)?;
        // A user in the URL would be a secret that etcd hands out; nobody writes one, so it is not understood.
        if uri.authority().is_some_and(|a| a.as_str().contains('@')) {
            return Err(not_a_url());
        }
        let port = uri.port_u16().unwrap_or(80);
        let authority = format!("{host}:{port}");
        let path = uri.path_and_query().map_or("/", |p| p.as_str());
        Ok(Target {
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port,
            path: path.parse().map_err(|_| not_a_url())?,
            host_header: HeaderValue::from_str(&authority).map_err(|_| not_a_url())?,
            authority,
        })
    }
}

async fn connect(target: &Target, kept: &Mutex<Kept>) -> Result<SendRequest<Full<Bytes>>, Trouble> {
    let addresses = resolve(target, kept).await?;
    let mut connecting = JoinSet::new();
    for address in addresses.into_iter().take(MAX_PEER_ADDRESSES) {
        connecting.spawn(TcpStream::connect(address));
    }
    let mut stream = Err(std::io::Error::new(
        std::io::ErrorKind::NotFound,
        "the name has no address",
    ));
    while let Some(connected) = connecting.join_next().await {
        stream = connected.unwrap_or_else(|e| Err(std::io::Error::other(e)));
        if stream.is_ok() {
            break;
        }
    }
    let stream = stream.map_err(Trouble::Connect)?;
    stream.set_nodelay(true).map_err(Trouble::Connect)?;
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_PEER_HEAD_BYTES)
        .handshake::<_, Full<Bytes>>(TokioIo::new(stream))
        .await?;
    // Ends by itself when the sender is dropped or the peer closes.
    tokio::spawn(async move {
        if let Err(e) = connection.await {
            tracing::debug!(error = %e, "a connection to a peer ended");
        }
    });
    Ok(sender)
}

async fn resolve(target: &Target, kept: &Mutex<Kept>) -> Result<Vec<SocketAddr>, Trouble> {
    let found = match target.host.parse::<IpAddr>() {
        Ok(address) => vec![SocketAddr::new(address, target.port)],
        Err(_) => look_up(target, kept).await?,
    };
    match found.iter().find(|a| is_forbidden(a.ip())) {
        Some(address) => Err(Trouble::ForbiddenAddress(address.ip())),
        None => Ok(found),
    }
}

async fn look_up(target: &Target, kept: &Mutex<Kept>) -> Result<Vec<SocketAddr>, Trouble> {
    let looked_up = timeout(
        PEER_TIMEOUT / 2,
        tokio::net::lookup_host((target.host.as_str(), target.port)),
    )
    .await;
    match looked_up.unwrap_or_else(|late| Err(late.into())) {
        Ok(found) => {
            let found: Vec<SocketAddr> = found.collect();
            lock(kept).addresses.insert(target.authority.clone(), found.clone());
            Ok(found)
        }
        // A resolver that is down during a failover must not hide the peers.
        Err(e) => lock(kept)
            .addresses
            .get(&target.authority)
            .cloned()
            .ok_or(Trouble::Resolve(e)),
    }
}

fn is_forbidden(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_multicast() || v4.is_unspecified() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.is_multicast() || v6.is_unspecified(),
    }
}
