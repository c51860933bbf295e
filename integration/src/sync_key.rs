//! `/sync`: who leads next has every acknowledged row, as the agent claims it.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::cluster::Cluster;
use crate::wait::wait_for;

/// What `/sync` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncKey {
    /// The last leader.
    pub leader: Option<String>,
    /// How many others a candidate has to see.
    pub quorum: u64,
    /// Names.
    pub standbys: Vec<String>,
}

impl SyncKey {
    /// `None` when there is no such key.
    pub async fn read(cluster: &Cluster) -> Result<Option<Self>> {
        let Some(text) = cluster.etcd.get(&cluster.key("sync")).await? else {
            return Ok(None);
        };
        let key: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
        let field = |name: &str| key.get(name).cloned().unwrap_or_default();
        let (names, quorum) = (field("sync_standby"), field("quorum"));
        let names = names.as_str().unwrap_or_default().split(',');
        Ok(Some(Self {
            leader: field("leader").as_str().map(str::to_owned),
            quorum: quorum.as_u64().with_context(|| text.clone())?,
            standbys: names.filter(|n| !n.is_empty()).map(str::to_owned).collect(),
        }))
    }

    /// Waits until it is the leader's own and names so many standbys.
    pub async fn wait(cluster: &Cluster, count: usize, limit: Duration) -> Result<Self> {
        wait_for(&format!("/sync names {count} standbys"), limit, async || {
            let key = Self::read(cluster).await.ok()??;
            let is_own = key.leader.is_some() && key.leader == cluster.leader_key().await.ok()?;
            (is_own && key.standbys.len() == count).then_some(key)
        })
        .await
        .with_context(|| cluster.log_tails())
    }

    /// Leader and standbys: one of them leads next.
    pub fn has(&self, name: &str) -> bool {
        self.leader.as_deref() == Some(name) || self.standbys.iter().any(|n| n == name)
    }
}
