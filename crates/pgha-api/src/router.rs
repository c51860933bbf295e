//! From a request to its answer: routing, access, body, and which module answers.
//!
//! What Patroni routes is routed by `pgha_wire::rest::routes`, so everything but pgha's own paths arrives at the
//! fallback. Health checks and all else that only tells about this node are answered from the status board without
//! a single `.await`: nothing that hangs can make them hang.

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::get;
use hyper::header::{
    CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, SERVER, TRANSFER_ENCODING, WWW_AUTHENTICATE,
};
use hyper::{HeaderMap, Method, StatusCode, Uri};
use pgha_core::cluster::ClusterView;
use pgha_core::request::Answer;
use pgha_wire::limits::MAX_BODY_BYTES;
use pgha_wire::rest::actions::{Body as Need, parse_body};
use pgha_wire::rest::failsafe::{parse_question, render_verdict};
use pgha_wire::rest::health::{health, liveness, readiness};
use pgha_wire::rest::metrics::render_metrics;
use pgha_wire::rest::reply::{ContentType, Reply};
use pgha_wire::rest::routes::{Access as Door, Kind, Routed, route};
use pgha_wire::rest::switchover::Change;
use serde_json::{Map, Value};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::access::{Access, AccessSettings, Denied};
use crate::actions;
use crate::backend::Backend;
use crate::board::{Published, StatusBoard};
use crate::error::ApiError;
use crate::info;
use crate::limits::{
    BODY_TIMEOUT, FAILSAFE_TIMEOUT, FRESH_READ_TIMEOUT, MAX_ACTIONS, MAX_FRESH_READS, MAX_QUESTIONS, MAX_REFRESHES,
    REFRESH_TIMEOUT,
};
use crate::server::Client;
use crate::switchover;

/// What `restapi` says, apart from where to listen.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ApiSettings {
    /// Allowlist and password.
    pub access: AccessSettings,
    /// The `Server` header; empty sends none.
    pub server: String,
    /// `http_extra_headers`: sent with every full reply.
    pub extra_headers: Vec<(String, String)>,
}

/// The API of one node. Settings can be replaced while it serves.
pub struct Api {
    pub(crate) board: Arc<StatusBoard>,
    pub(crate) backend: Arc<dyn Backend>,
    rules: ArcSwap<Rules>,
    fresh_reads: Semaphore,
    actions: Semaphore,
    refreshes: Semaphore,
    questions: Semaphore,
}

/// [`ApiSettings`], understood.
struct Rules {
    access: Access,
    server: Option<HeaderValue>,
    extra_headers: HeaderMap,
}

impl Rules {
    fn new(settings: &ApiSettings) -> Result<Rules, ApiError> {
        let wrong = |what: &str| ApiError::Header {
            header: what.to_owned(),
        };
        let mut extra_headers = HeaderMap::new();
        for (name, value) in &settings.extra_headers {
            let parsed: HeaderName = name.parse().map_err(|_| wrong(name))?;
            extra_headers.insert(parsed, HeaderValue::from_str(value).map_err(|_| wrong(name))?);
        }
        let server = match settings.server.as_str() {
            "" => None,
            text => Some(HeaderValue::from_str(text).map_err(|_| wrong("server"))?),
        };
        Ok(Rules {
            access: Access::new(&settings.access),
            server,
            extra_headers,
        })
    }
}

impl Api {
    /// An API that answers from `board` and acts through `backend`.
    ///
    /// # Errors
    /// [`ApiError::Header`] when a header in `settings` cannot be sent.
    pub fn new(
        board: Arc<StatusBoard>,
        backend: Arc<dyn Backend>,
        settings: &ApiSettings,
    ) -> Result<Arc<Api>, ApiError> {
        Ok(Arc::new(Api {
            board,
            backend,
            rules: ArcSwap::from_pointee(Rules::new(settings)?),
            fresh_reads: Semaphore::new(MAX_FRESH_READS),
            actions: Semaphore::new(MAX_ACTIONS),
            refreshes: Semaphore::new(MAX_REFRESHES),
            questions: Semaphore::new(MAX_QUESTIONS),
        }))
    }

    /// Replaces the settings for all requests that come from now on.
    ///
    /// # Errors
    /// As [`Api::new`]; the old settings then stay in force.
    pub fn configure(&self, settings: &ApiSettings) -> Result<(), ApiError> {
        self.rules.store(Arc::new(Rules::new(settings)?));
        Ok(())
    }

    /// The router to serve.
    pub fn router(self: &Arc<Api>) -> Router {
        Router::new()
            .route("/explain", get(explain).fallback(dispatch))
            .fallback(dispatch)
            .with_state(Arc::clone(self))
    }

    /// The status with a new look at PostgreSQL, or as it was published last when PostgreSQL does not answer soon: peers
    /// in a leader race compare the positions in it, so an old one could let the wrong member win.
    async fn fresh_status(&self) -> Response {
        if let Ok(_permit) = self.refreshes.try_acquire()
            && timeout(REFRESH_TIMEOUT, self.backend.refresh()).await.is_err()
        {
            tracing::debug!("answering from the last publication");
        }
        self.status_body(200, &self.board.load())
    }

    /// The cluster as it is in etcd now, or as it was published last when etcd does not answer soon.
    async fn newest_cluster(&self) -> Option<Arc<ClusterView>> {
        let fresh = match self.fresh_reads.try_acquire() {
            Ok(_permit) => self.fresh_cluster().await,
            Err(_) => None,
        };
        fresh.map(Arc::new).or_else(|| self.board.load().cluster.clone())
    }

    /// The cluster as it is in etcd now.
    pub(crate) async fn fresh_cluster(&self) -> Option<ClusterView> {
        timeout(FRESH_READ_TIMEOUT, self.backend.read_cluster())
            .await
            .ok()
            .flatten()
    }

    /// A leader that lost etcd asks for leave to go on. Long actions do not keep it from an answer.
    async fn answer_failsafe(&self, body: Option<&[u8]>) -> Response {
        let Ok(_permit) = self.questions.try_acquire() else {
            return self.respond(Reply::error_page(503));
        };
        let question = match parse_body(body, Need::Mandatory).and_then(|object| parse_question(&object)) {
            Ok(question) => question,
            Err(reply) => return self.respond(reply),
        };
        tracing::debug!(leader = %question.name, "asked for leave to go on without etcd");
        let asked = self.backend.request(pgha_core::request::Request::Failsafe(question));
        let (reply, headers) = match timeout(FAILSAFE_TIMEOUT, asked).await {
            Ok(Answer::Failsafe(verdict)) => render_verdict(verdict),
            Ok(other) => (other.into(), Vec::new()),
            Err(_) => (Reply::error_page(503), Vec::new()),
        };
        let mut response = self.respond(reply);
        for (name, value) in headers {
            if let Ok(value) = HeaderValue::from_str(&value) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }

    async fn admit(&self, client: &Client, headers: &HeaderMap, door: Door) -> Result<(), Denied> {
        // Whoever is not known yet may be closed for a newcomer, also while a name is looked up.
        client.activity.awaiting_client();
        let members = || member_hosts(&self.board.load());
        let for_members = match door {
            Door::Open => return Ok(()),
            Door::Checked => true,
            Door::CheckedWithoutMembers => false,
        };
        let now = self.backend.now().mono;
        self.rules
            .load_full()
            .access
            .check(client.address, headers, members, for_members, now)
            .await
    }

    fn respond(&self, reply: Reply) -> Response {
        let is_page = reply.content == ContentType::ErrorPage;
        let mut response = bare(reply.status, Body::from(reply.body));
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static(reply.content.header()));
        self.decorate(&mut response, !is_page);
        response
    }

    fn decorate(&self, response: &mut Response, with_extra: bool) {
        let rules = self.rules.load();
        if let Some(server) = &rules.server {
            response.headers_mut().insert(SERVER, server.clone());
        }
        if with_extra {
            response.headers_mut().extend(rules.extra_headers.clone());
        }
    }

    fn denied(&self, denied: Denied) -> Response {
        let mut response = self.respond(denied.reply());
        if denied != Denied::Address {
            response
                .headers_mut()
                .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"Patroni\""));
        }
        response
    }

    fn status_body(&self, status: u16, published: &Published) -> Response {
        let mut response = bare(status, Body::from(published.body()));
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static(ContentType::Json.header()));
        self.decorate(&mut response, true);
        response
    }

    /// Answers that need nothing but the board. `None` when `kind` is not one of them.
    fn answer_at_once(&self, method: &Method, target: &str, kind: Kind) -> Option<Response> {
        let published = self.board.load();
        let now = self.backend.now().mono;
        let status = &published.status;
        match kind {
            Kind::Health if method == Method::GET => Some(self.status_body(health(target, status, now), &published)),
            Kind::Health => Some(bare(health(target, status, now), Body::empty())),
            Kind::Liveness => Some(bare(liveness(status, now), Body::empty())),
            Kind::Readiness => Some(bare(readiness(target, status, now), Body::empty())),
            Kind::Metrics => Some(self.respond(Reply {
                status: 200,
                content: ContentType::Metrics,
                body: render_metrics(status, now),
            })),
            Kind::Failsafe => Some(self.respond(info::render_failsafe(published.cluster.as_deref()))),
            Kind::Patroni
            | Kind::Cluster
            | Kind::History
            | Kind::Config
            | Kind::PatchConfig
            | Kind::PutConfig
            | Kind::Reload
            | Kind::AskFailsafe
            | Kind::Restart
            | Kind::CancelRestart
            | Kind::Reinitialize
            | Kind::Switchover
            | Kind::CancelSwitchover
            | Kind::Failover => None,
        }
    }
}

async fn explain(State(api): State<Arc<Api>>) -> Response {
    api.respond(info::render_explain(&api.board.load(), api.backend.now()))
}

async fn dispatch(State(api): State<Arc<Api>>, request: Request) -> Response {
    let target = path_and_query(request.uri());
    let (kind, door) = match route(request.method().as_str(), target) {
        Routed::To(kind, door) => (kind, door),
        Routed::Unsupported(reply) => return api.respond(reply),
    };
    if let Some(response) = api.answer_at_once(request.method(), target, kind) {
        return response;
    }
    // Boxed so that health checks do not carry the state of the long answers.
    Box::pin(answer_later(api, request, kind, door)).await
}

async fn answer_later(api: Arc<Api>, request: Request, kind: Kind, door: Door) -> Response {
    if kind == Kind::Patroni {
        return api.fresh_status().await;
    }
    if door == Door::Open {
        let view = api.newest_cluster().await;
        let scope = &api.board.load().status.scope;
        return api.respond(match kind {
            Kind::Cluster => info::render_members(scope, view.as_deref()),
            Kind::History => info::render_history(view.as_deref()),
            _ => info::render_config(view.as_deref()),
        });
    }
    let (parts, body) = request.into_parts();
    let Some(client) = parts.extensions.get::<Client>() else {
        // Only a router that is not behind our accept loop gets here; nobody is let in whose address is unknown.
        return api.denied(Denied::Address);
    };
    if let Err(denied) = api.admit(client, &parts.headers, door).await {
        tracing::info!(client = %client.address, method = %parts.method, path = parts.uri.path(), ?denied, "refused");
        return api.denied(denied);
    }
    let body = match read_body(&parts.headers, body).await {
        Ok(body) => body,
        Err(reply) => return api.respond(reply),
    };
    client.activity.serving();
    if kind == Kind::AskFailsafe {
        return api.answer_failsafe(body.as_deref()).await;
    }
    let Ok(_permit) = api.actions.try_acquire() else {
        return api.respond(Reply::error_page(503));
    };
    tracing::info!(client = %client.address, method = %parts.method, path = parts.uri.path(), "asked to act");
    let reply = match act(&api, kind, body.as_deref()).await {
        Ok(reply) | Err(reply) => reply,
    };
    api.respond(reply)
}

/// Performs what is asked. Both sides are the answer: `Err` is one that a check on the way gave.
async fn act(api: &Api, kind: Kind, body: Option<&[u8]>) -> Result<Reply, Reply> {
    let object = |need: Need| -> Result<Map<String, Value>, Reply> { parse_body(body, need) };
    match kind {
        Kind::PatchConfig => actions::patch_config(api, &object(Need::Mandatory)?).await,
        Kind::PutConfig => actions::put_config(api, &object(Need::Mandatory)?).await,
        Kind::Restart => actions::restart(api, &object(Need::Optional)?).await,
        Kind::CancelRestart => Ok(actions::cancel_restart(api).await),
        Kind::Reinitialize => Ok(actions::reinitialize(api, &object(Need::Optional)?).await),
        Kind::Switchover => switchover::run(api, Change::Switchover, &object(Need::Mandatory)?).await,
        Kind::Failover => switchover::run(api, Change::Failover, &object(Need::Mandatory)?).await,
        Kind::CancelSwitchover => switchover::cancel(api).await,
        Kind::Reload => {
            api.backend.reload();
            Ok(Reply::text(202, "reload scheduled"))
        }
        Kind::AskFailsafe
        | Kind::Health
        | Kind::Patroni
        | Kind::Cluster
        | Kind::History
        | Kind::Config
        | Kind::Failsafe
        | Kind::Metrics
        | Kind::Liveness
        | Kind::Readiness => Err(Reply::error_page(501)),
    }
}

/// The body, or `None` when none was announced. A client gets [`BODY_TIMEOUT`] to send it.
async fn read_body(headers: &HeaderMap, body: Body) -> Result<Option<Bytes>, Reply> {
    if !headers.contains_key(CONTENT_LENGTH) && !headers.contains_key(TRANSFER_ENCODING) {
        return Ok(None);
    }
    let announced = headers
        .get(CONTENT_LENGTH)
        .and_then(|l| l.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|bytes| bytes > MAX_BODY_BYTES as u64) {
        return Err(Reply::error_page(413));
    }
    match timeout(BODY_TIMEOUT, axum::body::to_bytes(body, MAX_BODY_BYTES)).await {
        Ok(Ok(bytes)) => Ok(Some(bytes)),
        // Without an announced length it can only have been too long, or the client broke off and reads nothing.
        Ok(Err(_)) if announced.is_none() => Err(Reply::error_page(413)),
        Ok(Err(_)) | Err(_) => Err(Reply::error_page(400)),
    }
}

fn path_and_query(uri: &Uri) -> &str {
    uri.path_and_query().map_or("/", |p| p.as_str())
}

fn bare(status: u16, body: Body) -> Response {
    let mut response = Response::new(body);
    // Every status comes from a table in wire; one outside 100..1000 would be our own mistake, and is shown as such.
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
}

/// The hosts in the members' `api_url`.
fn member_hosts(published: &Published) -> Vec<String> {
    let members = published.cluster.iter().flat_map(|c| c.members.values());
    let hosts = members.filter_map(|m| {
        let uri: Uri = m.api_url.as_deref()?.parse().ok()?;
        Some(uri.host()?.trim_start_matches('[').trim_end_matches(']').to_owned())
    });
    hosts.collect()
}
