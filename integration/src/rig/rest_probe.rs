//! Does `/primary` ever answer 200 on two nodes at once? What it claims is held against the same rule as accepted writes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::boottime;
use crate::cluster::Cluster;
use crate::http;
use crate::probe::{Accepted, overlaps};

/// Time between two questions to one node.
const EVERY: Duration = Duration::from_millis(100);
/// A health check that takes longer is as good as none.
const LIMIT: Duration = Duration::from_secs(1);

/// The running probe. Dropping it stops it.
pub struct RestProbe {
    claims: Arc<Mutex<Vec<Accepted>>>,
    tasks: Vec<JoinHandle<()>>,
}

impl RestProbe {
    /// Starts asking every node.
    pub fn start(cluster: &Cluster) -> Self {
        let claims = Arc::new(Mutex::new(Vec::new()));
        let tasks = cluster.nodes.iter().map(|node| {
            let (name, rest, claims) = (node.name.clone(), node.rest, Arc::clone(&claims));
            tokio::spawn(async move {
                loop {
                    let sent = boottime::now();
                    if let Some(timeline) = claimed_timeline(rest).await {
                        let claim = Accepted {
                            node: name.clone(),
                            timeline,
                            sent,
                            acked: boottime::now(),
                        };
                        claims.lock().unwrap_or_else(PoisonError::into_inner).push(claim);
                    }
                    tokio::time::sleep(EVERY).await;
                }
            })
        });
        let tasks = tasks.collect();
        Self { claims, tasks }
    }

    /// Fails if two nodes said at once that they were the primary, or if nobody ever did.
    pub fn check(&self) -> Result<()> {
        let claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(!claims.is_empty(), "no node ever answered 200 to /primary");
        match overlaps(&claims).as_slice() {
            [] => Ok(()),
            all @ [(a, b), ..] => bail!(
                "/primary answered 200 on two nodes at once, {} times; first {a} and {b}",
                all.len()
            ),
        }
    }
}

impl Drop for RestProbe {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// The timeline that a node claims as primary.
async fn claimed_timeline(rest: std::net::SocketAddrV4) -> Option<i32> {
    let answer = http::get(rest, "/primary", LIMIT).await.ok()?;
    let body: Value = answer.status.is_success().then(|| answer.json())?.ok()?;
    i32::try_from(body.get("timeline")?.as_i64()?).ok()
}
