//! One transaction, at most once (rule R4).
//!
//! Endpoints are tried in turn only while none has been sent the transaction, that is while connecting. After that the only
//! repetition is after etcd's own word that the token was refused, which it gives before it writes anything.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Error, TxnResponse};
use pgha_core::commit::CommitOutcome;
use pgha_core::units::Revision;
use pgha_wire::kv::Txn;
use tokio::time::timeout;

use super::convert::render_txn;
use super::link::{Link, header_of};
use super::meaning::{explain, read_error};
use super::session::{Lane, Session, dcs_error};
use crate::clock::boot_now;
use crate::error::DcsError;
use pgha_core::horizon::Freshness;
use pgha_wire::meaning::Reading;

/// How sending ended.
enum Sent {
    /// It ended; the error is for the log.
    Ended(CommitOutcome, Option<DcsError>),
    /// The connection was gone and could not be made again: nobody has seen the transaction.
    Never(DcsError),
}

impl Session {
    pub async fn commit(self: &Arc<Self>, txn: &Txn, budget: Duration) -> CommitOutcome {
        let (outcome, error) = self.commit_once(txn, budget).await;
        self.note(Lane::Commit, error.as_ref());
        outcome
    }

    async fn commit_once(self: &Arc<Self>, txn: &Txn, budget: Duration) -> (CommitOutcome, Option<DcsError>) {
        let rendered = match render_txn(txn) {
            Ok(rendered) => rendered,
            Err(detail) => {
                let error = DcsError::Protocol {
                    endpoint: self.current(),
                    detail,
                };
                return (CommitOutcome::Refused, Some(error));
            }
        };
        let deadline = boot_now().plus(budget);
        let share = self.share_of(budget);
        let mut last = DcsError::TimedOut {
            endpoint: self.current(),
            budget,
        };
        for url in self.order() {
            let left = deadline.since(boot_now());
            if left.is_zero() {
                break;
            }
            let link = match timeout(share.min(left), self.link(&url)).await {
                Ok(Ok(link)) => link,
                Ok(Err(error)) => {
                    self.failed(&url);
                    last = dcs_error(&url, error.meaning, error.source);
                    continue;
                }
                Err(_) => {
                    self.failed(&url);
                    last = DcsError::TimedOut {
                        endpoint: url.to_string(),
                        budget,
                    };
                    continue;
                }
            };
            match self
                .send(&url, &link, rendered.clone(), deadline.since(boot_now()), budget)
                .await
            {
                Sent::Ended(outcome, error) => return (outcome, error),
                Sent::Never(error) => {
                    self.failed(&url);
                    last = error;
                }
            }
        }
        (CommitOutcome::Refused, Some(last))
    }

    async fn send(&self, url: &str, link: &Link, txn: etcd_client::Txn, allowed: Duration, budget: Duration) -> Sent {
        let floor = self.state().horizon.floor();
        let error = match timeout(allowed, self.exchange_txn(link, txn)).await {
            Err(_) => {
                self.failed(url);
                let error = DcsError::TimedOut {
                    endpoint: url.to_owned(),
                    budget,
                };
                return Sent::Ended(CommitOutcome::Unknown, Some(error));
            }
            Ok(Err(error)) => error,
            Ok(Ok(answer)) => {
                let Some(header) = header_of(answer.header()) else {
                    let detail = "the answer to a transaction carries no header".to_owned();
                    let error = DcsError::Protocol {
                        endpoint: url.to_owned(),
                        detail,
                    };
                    return Sent::Ended(CommitOutcome::Unknown, Some(error));
                };
                if let Err(regression) = self.state().horizon.admit(floor, header, Freshness::Linearizable) {
                    // It was written to, or compared with, something that is not the cluster we know.
                    let error = DcsError::Stale {
                        endpoint: url.to_owned(),
                        detail: regression.to_string(),
                    };
                    return Sent::Ended(CommitOutcome::Unknown, Some(error));
                }
                self.succeeded(url);
                let outcome = match answer.succeeded() {
                    true => CommitOutcome::Applied {
                        revision: Revision(header.revision),
                    },
                    false => CommitOutcome::Conflict,
                };
                return Sent::Ended(outcome, None);
            }
        };
        let reading = read_error(&error);
        let cause = dcs_error(url, reading.meaning, explain(error));
        match reading.ends_commit() {
            None => Sent::Never(cause),
            Some(CommitOutcome::LeaseGone) => Sent::Ended(CommitOutcome::LeaseGone, None),
            Some(CommitOutcome::Unknown) => {
                self.failed(url);
                Sent::Ended(CommitOutcome::Unknown, Some(cause))
            }
            Some(outcome) => Sent::Ended(outcome, Some(cause)),
        }
    }

    /// Sends; with a new token once more when etcd itself says that it refused the old one.
    async fn exchange_txn(&self, link: &Link, txn: etcd_client::Txn) -> Result<TxnResponse, Error> {
        let error = match link.client.kv_client().txn(txn.clone()).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let Reading { meaning, spoken, .. } = read_error(&error);
        if !spoken || !self.may_reauthenticate(meaning) || link.authenticate(self.config()).await.is_err() {
            return Err(error);
        }
        link.client.kv_client().txn(txn).await
    }
}
