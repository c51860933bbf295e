//! etcd as the step machine sees it: whole views in, typed commits out, each completion an event.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pgha_core::cluster::ClusterView;
use pgha_core::commit::{Commit, CommitOutcome};
use pgha_core::event::{Event, KeepAnswer, OpId, Wake};
use pgha_core::units::{LeaseId, MemberName, Revision};
use pgha_dcs::{Dcs, DcsError, Hint, KeepAlive};
use pgha_wire::cluster::parse_cluster;
use pgha_wire::commit::{MemberIdentity, render_txn};
use pgha_wire::keys;
use tokio::sync::mpsc;

use super::identity::Identity;
use crate::clock;

/// The keys of one scope.
#[derive(Clone)]
pub struct Store {
    dcs: Arc<dyn Dcs>,
    base: String,
    /// Keys that could not be understood at the last read, with the reason.
    unreadable: Arc<Mutex<BTreeMap<String, String>>>,
}

impl Store {
    /// The scope below `base`.
    pub fn new(dcs: Arc<dyn Dcs>, base: String) -> Store {
        Store {
            dcs,
            base,
            unreadable: Arc::default(),
        }
    }

    /// Reads everything at one revision.
    ///
    /// # Errors
    /// As [`Dcs::read`].
    pub async fn read(&self, budget: Duration) -> Result<ClusterView, DcsError> {
        let snapshot = self.dcs.read(&keys::prefix(&self.base), budget).await?;
        Ok(parse_cluster(&self.base, &snapshot))
    }

    /// Says of each key that cannot be understood why, once, and when that is over.
    fn tell_unreadable(&self, view: &ClusterView) {
        let now: BTreeMap<String, String> = view.unreadable.iter().cloned().collect();
        // What a panic elsewhere left in it are complete values all the same.
        let mut before = self.unreadable.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, reason) in now.iter().filter(|(key, reason)| before.get(*key) != Some(*reason)) {
            tracing::warn!("{key} cannot be understood and counts as missing: {reason}");
        }
        for key in before.keys().filter(|key| !now.contains_key(*key)) {
            tracing::info!("{key} is no longer broken");
        }
        *before = now;
    }

    /// Commits with the given identity for the member key.
    pub async fn commit(&self, me: &Identity, commit: &Commit, budget: Duration) -> CommitOutcome {
        let txn = render_txn(&self.base, &wire_identity(me), commit);
        self.dcs.commit(&txn, budget).await
    }

    /// `Effect::ReadDcs`.
    pub async fn perform_read(&self, op: OpId, budget: Duration) -> Event {
        let sent_at = clock::boot();
        let view = match self.read(budget).await {
            Ok(view) => {
                self.tell_unreadable(&view);
                Some(Box::new(view))
            }
            Err(error) => {
                tracing::warn!(%error, "Error communicating with DCS");
                None
            }
        };
        Event::DcsRead { op, sent_at, view }
    }

    /// `Effect::Commit`.
    pub async fn perform_commit(&self, op: OpId, me: &Identity, commit: &Commit, budget: Duration) -> Event {
        let sent_at = clock::boot();
        let outcome = self.commit(me, commit, budget).await;
        match outcome {
            CommitOutcome::Applied { revision } => {
                tracing::debug!(purpose = ?commit.purpose, revision = revision.0, "committed");
            }
            CommitOutcome::Conflict => {
                tracing::info!(purpose = ?commit.purpose, "a guard did not hold; nothing was written")
            }
            CommitOutcome::Unknown => {
                tracing::warn!(purpose = ?commit.purpose, "no answer to a write: it may or may not be applied")
            }
            CommitOutcome::LeaseGone => {
                tracing::warn!(purpose = ?commit.purpose, "our lease is gone; nothing was written")
            }
            CommitOutcome::Refused => tracing::warn!(purpose = ?commit.purpose, "etcd did not take the write"),
        }
        Event::Committed { op, sent_at, outcome }
    }

    /// `Effect::GrantLease`.
    pub async fn perform_grant(&self, op: OpId, ttl: Duration, budget: Duration) -> Event {
        let sent_at = clock::boot();
        let lease = match self.dcs.grant_lease(ttl, budget).await {
            Ok(lease) => Some(lease),
            Err(error) => {
                tracing::warn!(%error, "etcd did not grant a lease");
                None
            }
        };
        Event::LeaseGranted { op, sent_at, lease }
    }

    /// `Effect::KeepLease`.
    pub async fn perform_keep(&self, op: OpId, lease: LeaseId, budget: Duration) -> Event {
        let sent_at = clock::boot();
        let answer = match self.dcs.keep_lease(lease, budget).await {
            Ok(KeepAlive::Alive { .. }) => KeepAnswer::Alive,
            Ok(KeepAlive::Gone) => KeepAnswer::Gone,
            Err(error) => {
                tracing::warn!(%error, "no answer to the keepalive of the lease");
                KeepAnswer::Unknown
            }
        };
        Event::LeaseKept { op, sent_at, answer }
    }

    /// Turns watch events into wake-ups, for as long as the driver listens.
    pub fn watch(&self, events: mpsc::Sender<Event>) -> tokio::task::JoinHandle<()> {
        let mut hints = self.dcs.watch(&keys::prefix(&self.base), Revision(0));
        let base = self.base.clone();
        tokio::spawn(async move {
            while let Some(hint) = hints.next().await {
                let wake = match hint {
                    Hint::Resync => Wake::Resync,
                    Hint::Changed { key, mod_revision, .. } => match keys::parse_key(&base, &key) {
                        Some(key) => Wake::Hint { key, mod_revision },
                        None => continue,
                    },
                };
                if events.send(Event::Wake(wake)).await.is_err() {
                    return;
                }
            }
            tracing::warn!("the watch on etcd has ended; changes are noticed by the heartbeat only");
        })
    }
}

fn wire_identity(me: &Identity) -> MemberIdentity<'_> {
    MemberIdentity {
        name: &me.name,
        conn_url: &me.conn_url,
        api_url: &me.api_url,
        proxy_url: me.proxy_url.as_deref(),
        version: crate::VERSION,
        tags: &me.tags,
    }
}

/// Is there already somebody else who runs under our name? Their answer over REST tells, whatever it says.
pub fn namesake<'a>(view: &'a ClusterView, name: &MemberName) -> Option<&'a str> {
    view.members.get(name)?.api_url.as_deref()
}
