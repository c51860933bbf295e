//! The accept loop: a listener, a bounded number of connections, and one thread that serves them.
//!
//! The server has its own thread with its own runtime: a flood of requests cannot delay the agent's loop, and a busy
//! loop cannot delay a health check. `axum::serve` is not used: it has no timer and no limits, so a client that sends
//! half a head holds its connection for ever.
//!
//! Absent on purpose: TLS. `serve` takes any stream, so a handshake goes in front of it in `greet`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll};
use std::thread::JoinHandle;

use axum::Router;
use axum::body::Body;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tower::Service;

use crate::backend::Clock;
use crate::connections::{Activity, Connections};
use crate::error::ApiError;
use crate::limits::{
    IDLE_TIMEOUT, LISTEN_BACKLOG, MAX_CONNECTIONS, MAX_HEAD_BYTES, MAX_HEADERS, STOP_GRACE, SWEEP_INTERVAL,
};

/// Pause after an accept that failed for want of descriptors or memory: it would fail again at once.
const ACCEPT_RETRY: std::time::Duration = std::time::Duration::from_millis(50);
/// Stack of the server's thread; handlers are shallow, and the thread should cost little memory.
const THREAD_STACK_BYTES: usize = 512 * 1024;
/// Threads for name resolution, which is the only blocking work here.
const BLOCKING_THREADS: usize = 2;

/// Who sent a request; in the extensions of each request.
#[derive(Clone)]
pub(crate) struct Client {
    /// The other end of the connection.
    pub(crate) address: IpAddr,
    /// To be told when the handler waits for the body.
    pub(crate) activity: Arc<Activity>,
}

/// A running server. Dropping it stops it, as [`ApiServer::stop`] does.
pub struct ApiServer {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    connections: Arc<Connections>,
    thread: Option<JoinHandle<()>>,
}

impl ApiServer {
    /// Listens on `host:port` and serves `router` from a thread of its own.
    ///
    /// `clock` reads the boot clock. An empty host or `*` listens on all IPv4 and IPv6 addresses. Port 0 takes a free one, see
    /// [`ApiServer::address`]. Returns when the socket listens, or with the reason why it cannot.
    pub fn start(host: &str, port: u16, router: Router, clock: Clock) -> Result<ApiServer, ApiError> {
        let (stop, stopping) = watch::channel(false);
        let (ready, started) = mpsc::sync_channel(1);
        let host = host.to_owned();
        let thread = std::thread::Builder::new()
            .name("pgha-api".into())
            .stack_size(THREAD_STACK_BYTES)
            .spawn(move || run_thread(&host, port, router, clock, stopping, &ready))
            .map_err(ApiError::Thread)?;
        let (address, connections) = started.recv().unwrap_or(Err(ApiError::Vanished))?;
        tracing::info!(%address, "the REST API listens");
        Ok(ApiServer {
            address,
            stop,
            connections,
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections open now.
    pub fn connections(&self) -> usize {
        self.connections.count()
    }

    /// Closes the listener, lets replies under way end (for [`STOP_GRACE`] at most), and joins the thread. Blocks.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stop.send_replace(true);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread of the REST API had panicked");
        }
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.end();
    }
}

type Started = Result<(SocketAddr, Arc<Connections>), ApiError>;

fn run_thread(
    host: &str,
    port: u16,
    router: Router,
    clock: Clock,
    stopping: watch::Receiver<bool>,
    ready: &mpsc::SyncSender<Started>,
) {
    let tell = |started: Started| {
        // `start` waits for exactly one message; when it is gone there is nobody to tell.
        ready.send(started).unwrap_or(());
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(e) => return tell(Err(ApiError::Thread(e))),
    };
    runtime.block_on(async {
        let bound = match listen(host, port).await {
            Ok(listener) => listener
                .local_addr()
                .map(|address| (listener, address))
                .map_err(ApiError::Thread),
            Err(e) => Err(e),
        };
        match bound {
            Ok((listener, address)) => {
                let connections = Connections::new(MAX_CONNECTIONS, clock);
                tell(Ok((address, Arc::clone(&connections))));
                accept_loop(listener, router, connections, stopping).await;
            }
            Err(e) => tell(Err(e)),
        }
    });
    // What is still blocked in a name lookup is left behind rather than waited for.
    runtime.shutdown_background();
}

async fn listen(host: &str, port: u16) -> Result<TcpListener, ApiError> {
    let host = host.trim().trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() || host == "*" {
        let all = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        return match listen_on(all) {
            Ok(listener) => Ok(listener),
            // A kernel without IPv6 says "address family not supported": IPv4 alone is then all there is.
            Err(e) if e.kind() != io::ErrorKind::AddrInUse => {
                let all = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
                listen_on(all).map_err(|source| ApiError::Bind {
                    address: all.to_string(),
                    source,
                })
            }
            Err(source) => Err(ApiError::Bind {
                address: format!("*:{port}"),
                source,
            }),
        };
    }
    let resolve = |source| ApiError::Resolve {
        host: host.to_owned(),
        source,
    };
    let address = tokio::net::lookup_host((host, port))
        .await
        .map_err(resolve)?
        .next()
        .ok_or_else(|| resolve(io::Error::new(io::ErrorKind::NotFound, "the name has no address")))?;
    listen_on(address).map_err(|source| ApiError::Bind {
        address: address.to_string(),
        source,
    })
}

fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(v6) => {
            let socket = TcpSocket::new_v6()?;
            // The default is a sysctl; `*` must mean both families wherever we run.
            if v6.ip().is_unspecified() {
                rustix::net::sockopt::set_ipv6_v6only(&socket, false)?;
            }
            socket
        }
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(LISTEN_BACKLOG)
}

async fn accept_loop(
    listener: TcpListener,
    router: Router,
    connections: Arc<Connections>,
    mut stopping: watch::Receiver<bool>,
) {
    let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => greet(stream, peer.ip(), &router, &connections, &stopping),
                Err(e) => {
                    tracing::warn!(error = %e, "a connection to the REST API could not be accepted");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            },
            _ = sweep.tick() => connections.sweep(),
            () = stopped(&mut stopping) => break,
        }
    }
    drop(listener);
    let all_closed = async {
        while connections.count() > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    if tokio::time::timeout(STOP_GRACE, all_closed).await.is_err() {
        tracing::info!(
            connections = connections.count(),
            "connections to the REST API are cut off"
        );
    }
}

fn greet(
    stream: TcpStream,
    address: IpAddr,
    router: &Router,
    connections: &Arc<Connections>,
    stopping: &watch::Receiver<bool>,
) {
    let Some(place) = connections.admit(address) else {
        tracing::warn!(%address, "a connection to the REST API was refused: all {MAX_CONNECTIONS} are being served");
        return;
    };
    if let Err(e) = stream.set_nodelay(true) {
        tracing::debug!(error = %e, "TCP_NODELAY could not be set");
    }
    let (id, router, stopping) = (place.id(), router.clone(), stopping.clone());
    let task = tokio::spawn(async move {
        let client = Client {
            address,
            activity: Arc::clone(&place.activity),
        };
        serve(stream, client, router, stopping).await;
        drop(place);
    });
    connections.set_task(id, task.abort_handle());
}

/// Serves one connection until it closes.
async fn serve<S>(stream: S, client: Client, router: Router, mut stopping: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stream = TokioIo::new(Watched {
        stream,
        activity: Arc::clone(&client.activity),
    });
    let service = service_fn(move |mut request: Request<Incoming>| {
        client.activity.serving();
        let activity = Arc::clone(&client.activity);
        request.extensions_mut().insert(client.clone());
        let answer = router.clone().call(request.map(Body::new));
        async move {
            let answer = answer.await;
            activity.answered();
            answer
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // hyper counts from the end of the last request, so this bounds the silence; heads are bounded by the sweep.
        .header_read_timeout(IDLE_TIMEOUT)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD_BYTES)
        // A client may close its sending side after the request and still wants the answer.
        .half_close(true)
        .serve_connection(stream, service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped(&mut stopping) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(e) = ended {
        tracing::debug!(error = %e, "a connection to the REST API ended early");
    }
}

/// Returns when the server shall stop, or its owner is gone.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    while !*stopping.borrow_and_update() {
        if stopping.changed().await.is_err() {
            return;
        }
    }
}

/// A stream that notes when bytes come in.
struct Watched<S> {
    stream: S,
    activity: Arc<Activity>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.activity.bytes_came();
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
