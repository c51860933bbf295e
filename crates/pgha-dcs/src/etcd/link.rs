//! One connection to one endpoint.
//!
//! The client library's balancer picks endpoints at random and hands the error of a failed connect to the next call,
//! so it is not used: each endpoint has one client of its own, and it is connected *before* a request is sent. A new
//! connection is good for nothing until the member has answered `Status` on it: the kernel completes connections
//! for a process that is stopped, and a transaction must not be the first thing to find that out.
//!
//! Absent on purpose: retries and time-outs (the caller's), except the bound on connecting itself.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use etcd_client::{Channel, Client, ConnectOptions, Error, ResponseHeader};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use super::config::{EtcdConfig, TlsFiles};
use super::meaning::{explain, read_error};
use crate::error::BoxError;
use pgha_core::horizon::Header;
use pgha_wire::meaning::{Meaning, Reading};

/// Requests that may queue on one connection. The agent has a handful under way at most.
const MAX_QUEUED_REQUESTS: usize = 64;
/// Idle time before the kernel probes a connection without open requests, which HTTP/2 pings do not cover.
const TCP_KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
const USER_AGENT: &str = concat!("pgha/", env!("CARGO_PKG_VERSION"));

/// An open connection. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Link {
    pub client: Client,
    /// Version that the member reported, if it let us ask.
    pub version: Option<String>,
    /// Member that answered; 0 when it would not say.
    pub member_id: u64,
}

/// Where the one connection of an endpoint is kept.
#[derive(Default)]
pub(crate) struct Door {
    link: Mutex<Option<Link>>,
    /// Held while connecting, so that two requests do not open two connections.
    opening: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Door")
    }
}

/// Why a connection could not be opened. Nothing but `Authenticate` and `Status` was sent.
#[derive(Debug)]
pub(crate) struct OpenError {
    /// What it means.
    pub meaning: Meaning,
    /// For the log.
    pub source: BoxError,
}

impl Door {
    /// The open connection, or a new one. Returns true with it when it is new.
    pub async fn open(&self, url: &str, config: &EtcdConfig) -> Result<(Link, bool), OpenError> {
        if let Some(link) = self.kept() {
            return Ok((link, false));
        }
        let _opening = self.opening.lock().await;
        if let Some(link) = self.kept() {
            return Ok((link, false));
        }
        let link = Link::open(url, config).await?;
        *self.place() = Some(link.clone());
        Ok((link, true))
    }

    /// Forgets the connection. Requests under way on it go on.
    pub fn close(&self) {
        *self.place() = None;
    }

    fn kept(&self) -> Option<Link> {
        self.place().clone()
    }

    /// A panic cannot leave the place half changed, so poison is ignored.
    fn place(&self) -> MutexGuard<'_, Option<Link>> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Link {
    async fn open(url: &str, config: &EtcdConfig) -> Result<Link, OpenError> {
        let endpoint = build_endpoint(url, config).await.map_err(OpenError::unavailable)?;
        let channel = endpoint
            .connect()
            .await
            .map_err(|error| OpenError::unavailable(error.into()))?;
        // `hasleader`: a member without a leader says so at once instead of letting requests hang.
        let options = ConnectOptions::new().with_require_leader(true);
        let client = Client::from_channel(Channel::Tonic(channel), Some(options))
            .await
            .map_err(OpenError::from)?;
        let mut link = Link {
            client,
            version: None,
            member_id: 0,
        };
        link.authenticate(config).await.map_err(OpenError::from)?;
        match link.client.status().await {
            Ok(answer) => {
                link.version = Some(answer.version().to_owned());
                link.member_id = answer.header().map_or(0, ResponseHeader::member_id);
            }
            Err(error) => {
                // A refusal is an answer too, so the member is alive; only its version stays unknown.
                let reading = read_error(&error);
                if reading.meaning == Meaning::Unavailable {
                    return Err(OpenError::from(error));
                }
            }
        }
        Ok(link)
    }

    /// Gets a new token. Without credentials, or when etcd runs without authentication, there is nothing to do.
    pub async fn authenticate(&self, config: &EtcdConfig) -> Result<(), Error> {
        let Some(credentials) = &config.credentials else {
            return Ok(());
        };
        let user = (credentials.username.clone(), credentials.password.clone());
        // Clones share the token, so this reaches every user of the connection.
        match self.client.clone().update_user(Some(user)).await {
            Err(error) if read_error(&error).meaning == Meaning::AuthNotEnabled => {
                tracing::debug!("etcd runs without authentication; the configured user is not used");
                Ok(())
            }
            other => other,
        }
    }
}

impl OpenError {
    fn unavailable(source: BoxError) -> OpenError {
        OpenError {
            meaning: Meaning::Unavailable,
            source,
        }
    }
}

impl From<Error> for OpenError {
    fn from(error: Error) -> OpenError {
        let Reading { meaning, .. } = read_error(&error);
        OpenError {
            meaning,
            source: explain(error),
        }
    }
}

/// The origin of an answer.
pub(crate) fn header_of(header: Option<&ResponseHeader>) -> Option<Header> {
    header.map(|header| Header {
        cluster_id: header.cluster_id(),
        member_id: header.member_id(),
        raft_term: header.raft_term(),
        revision: header.revision(),
    })
}

async fn build_endpoint(url: &str, config: &EtcdConfig) -> Result<Endpoint, BoxError> {
    let endpoint = Endpoint::from_shared(url.to_owned())?
        .user_agent(USER_AGENT)?
        .connect_timeout(config.connect_timeout)
        .buffer_size(MAX_QUEUED_REQUESTS)
        .tcp_nodelay(true)
        .tcp_keepalive(Some(TCP_KEEPALIVE_IDLE))
        .http2_keep_alive_interval(config.ping_every)
        .keep_alive_timeout(config.ping_timeout)
        // etcd closes a connection that is pinged while no request is open.
        .keep_alive_while_idle(false);
    if !url.starts_with("https://") {
        return Ok(endpoint);
    }
    let none = TlsFiles::default();
    let files = config.tls.as_ref().unwrap_or(&none);
    let mut tls = ClientTlsConfig::new().timeout(config.connect_timeout);
    tls = match &files.ca {
        Some(path) => tls.ca_certificate(Certificate::from_pem(read_file(path).await?)),
        None => tls.with_native_roots(),
    };
    if let (Some(cert), Some(key)) = (&files.cert, &files.key) {
        tls = tls.identity(Identity::from_pem(read_file(cert).await?, read_file(key).await?));
    }
    Ok(endpoint.tls_config(tls)?)
}

async fn read_file(path: &Path) -> Result<Vec<u8>, BoxError> {
    tokio::fs::read(path)
        .await
        .map_err(|error| format!("{}: {error}", path.display()).into())
}
