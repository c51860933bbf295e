//! A TCP proxy that loses what it is told to lose.
#![allow(dead_code, clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

const PASS: u8 = 0;
const SWALLOW_REPLIES: u8 = 1;
const SWALLOW_ALL: u8 = 2;

/// A proxy in front of one member.
pub struct Proxy {
    pub url: String,
    mode: Arc<AtomicU8>,
    accepted: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub async fn before(target: &str) -> Proxy {
        let target = target.rsplit('/').next().unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mode = Arc::new(AtomicU8::new(PASS));
        let accepted = Arc::new(AtomicUsize::new(0));
        let open = Arc::new(AtomicUsize::new(0));
        let (counter, opened, setting) = (Arc::clone(&accepted), Arc::clone(&open), Arc::clone(&mode));
        let task = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                counter.fetch_add(1, Ordering::SeqCst);
                let Ok(server) = TcpStream::connect(&target).await else {
                    continue;
                };
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                opened.fetch_add(1, Ordering::SeqCst);
                let opened = Arc::clone(&opened);
                let requests = pump(from_client, to_server, Arc::clone(&setting), SWALLOW_ALL);
                let replies = pump(from_server, to_client, Arc::clone(&setting), SWALLOW_REPLIES);
                tokio::spawn(async move {
                    tokio::select! { () = requests => {}, () = replies => {} }
                    opened.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Proxy {
            url,
            mode,
            accepted,
            open,
            task,
        }
    }

    pub fn pass(&self) {
        self.mode.store(PASS, Ordering::SeqCst);
    }

    /// Requests reach etcd, replies do not come back.
    pub fn swallow_replies(&self) {
        self.mode.store(SWALLOW_REPLIES, Ordering::SeqCst);
    }

    /// Nothing comes through in either direction; connections stay open.
    pub fn swallow_all(&self) {
        self.mode.store(SWALLOW_ALL, Ordering::SeqCst);
    }

    /// Connections ever made.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Connections open now.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Forwards until either side ends, dropping what comes while the mode is at least `lose_from`.
async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mode: Arc<AtomicU8>, lose_from: u8) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if mode.load(Ordering::SeqCst) >= lose_from {
            continue;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
