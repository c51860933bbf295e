//! A load on the REST API: as many GET requests as it takes, over connections that are kept as long as the server does.
//!
//! Written on bare sockets, so that on a small machine the client takes little of what the server is measured with.
//! Patroni closes after each answer (HTTP/1.0), which costs it a new connection each time, as with any real client.

use std::net::SocketAddrV4;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pgha_integration::boottime;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Longest answer that is read.
const ANSWER_LIMIT: usize = 64 * 1024;
/// Longest wait for one answer.
const WAIT_LIMIT: Duration = Duration::from_secs(5);

/// What the load measured.
pub struct Load {
    pub per_second: f64,
    pub p50: Duration,
    pub p99: Duration,
}

/// Loads `path` for that long.
pub async fn run(addr: SocketAddrV4, path: &str, connections: usize, length: Duration) -> Result<Load> {
    let start = boottime::now();
    let mut clients = JoinSet::new();
    for _ in 0..connections {
        clients.spawn(client(
            addr,
            format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\n\r\n"),
            start + length,
        ));
    }
    let mut times: Vec<Duration> = Vec::new();
    while let Some(done) = clients.join_next().await {
        times.extend(done??);
    }
    let took = boottime::since(start).as_secs_f64();
    times.sort_unstable();
    let at = |percent: usize| {
        times
            .get(times.len() * percent / 100)
            .copied()
            .context("no request was answered")
    };
    Ok(Load {
        per_second: times.len() as f64 / took,
        p50: at(50)?,
        p99: at(99)?,
    })
}

async fn client(addr: SocketAddrV4, request: String, until: Duration) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    let mut kept: Option<TcpStream> = None;
    let mut buffer = Vec::new();
    loop {
        let sent = boottime::now();
        if sent >= until {
            return Ok(times);
        }
        let exchange = async {
            let mut stream = match kept.take() {
                Some(stream) => stream,
                None => TcpStream::connect(addr).await?,
            };
            stream.set_nodelay(true)?;
            stream.write_all(request.as_bytes()).await?;
            let keep = read_answer(&mut stream, &mut buffer).await?;
            anyhow::Ok(keep.then_some(stream))
        };
        kept = tokio::time::timeout(WAIT_LIMIT, exchange)
            .await
            .context("a request was not answered")??;
        times.push(boottime::since(sent));
    }
}

/// Reads one answer; true if the connection may be used again.
async fn read_answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<bool> {
    buffer.clear();
    let head = loop {
        if let Some(end) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break end + 4;
        }
        ensure!(buffer.len() < ANSWER_LIMIT, "an answer without an end of its head");
        ensure!(stream.read_buf(buffer).await? > 0, "closed before an answer");
    };
    let text = String::from_utf8_lossy(buffer.get(..head).unwrap_or_default()).to_ascii_lowercase();
    ensure!(
        text.split(' ').nth(1) == Some("200"),
        "answered {:?}",
        text.lines().next().unwrap_or_default()
    );
    let header = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let length: Option<usize> = header("content-length:").and_then(|value| value.parse().ok());
    let keep = text.starts_with("http/1.1") && header("connection:") != Some("close") && length.is_some();
    match length {
        Some(length) => {
            while buffer.len() < head + length {
                ensure!(stream.read_buf(buffer).await? > 0, "closed within an answer");
            }
        }
        None => while stream.read_buf(buffer).await? > 0 {},
    }
    Ok(keep)
}
