//! A small HTTP client: one connection for each request, as HAProxy and Patroni's own tools do it.

use std::net::SocketAddrV4;
use std::time::Duration;

use anyhow::{Context, Result};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status code.
    pub status: StatusCode,
    /// Body as text.
    pub body: String,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.body).with_context(|| format!("not JSON: {:?}", self.body))
    }
}

/// Sends a request without a body.
pub async fn get(addr: SocketAddrV4, path: &str, limit: Duration) -> Result<Answer> {
    request(addr, Method::GET, path, None, limit).await
}

/// Sends a JSON body.
pub async fn post(addr: SocketAddrV4, path: &str, body: &Value, limit: Duration) -> Result<Answer> {
    request(addr, Method::POST, path, Some(body), limit).await
}

/// Sends a request and reads the whole answer, all within `limit`.
pub async fn request(
    addr: SocketAddrV4,
    method: Method,
    path: &str,
    body: Option<&Value>,
    limit: Duration,
) -> Result<Answer> {
    let what = format!("{method} http://{addr}{path}");
    tokio::time::timeout(limit, exchange(addr, method, path, body))
        .await
        .with_context(|| format!("{what}: no answer within {limit:?}"))?
        .with_context(|| what)
}

async fn exchange(addr: SocketAddrV4, method: Method, path: &str, body: Option<&Value>) -> Result<Answer> {
    let stream = TcpStream::connect(addr).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // The connection's own error also arrives at the sender.
    let driver = tokio::spawn(async move { connection.await.ok() });
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", addr.to_string());
    let bytes = match body {
        Some(json) => {
            request = request.header("content-type", "application/json");
            Bytes::from(json.to_string())
        }
        None => Bytes::new(),
    };
    let answer = sender.send_request(request.body(Full::new(bytes))?).await?;
    let status = answer.status();
    let body = answer.into_body().collect().await?.to_bytes();
    driver.abort();
    Ok(Answer {
        status,
        body: String::from_utf8_lossy(&body).into_owned(),
    })
}
