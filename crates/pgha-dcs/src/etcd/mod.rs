//! The etcd v3 backend.
//!
//! | file | job |
//! |---|---|
//! | `config` | what the caller has to say |
//! | `link` | one connection: TLS, token, first sign of life |
//! | `session` | one request against the endpoints within a budget; what was learnt from answers |
//! | `commit` | one transaction, at most once |
//! | `watch` | watch events to hints |
//! | `survey` | member list and versions, now and then |
//! | `meaning` | what an error means (rule R7) |
//! | `versions` | known faults (rule R9) |
//! | `convert` | vocabulary |

mod commit;
mod config;
mod convert;
mod link;
mod meaning;
mod session;
mod survey;
mod versions;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Client, Error, GetOptions};
use pgha_core::commit::CommitOutcome;
use pgha_core::units::{LeaseId, Revision};
use pgha_wire::kv::{KeyValue, Snapshot, Txn};

pub use self::config::{Credentials, EtcdConfig, TlsFiles};

use self::convert::{lease_seconds, parse_key_value};
use self::link::header_of;
use self::meaning::read_error;
use self::session::{Answer, Session};
use crate::dcs::{Dcs, DcsFuture, DcsStatus, KeepAlive};
use crate::error::DcsError;
use crate::hints::WatchHints;
use pgha_core::horizon::{Freshness, Header};
use pgha_wire::meaning::Meaning;

/// The etcd v3 backend. Cheap to clone; clones share connections and memory.
///
/// Nothing is connected before the first call. Calls must be made inside a tokio runtime.
#[derive(Clone)]
pub struct EtcdDcs {
    session: Arc<Session>,
}

impl EtcdDcs {
    /// Takes a configuration. Does no I/O.
    ///
    /// # Errors
    /// [`DcsError::Config`] when the configuration cannot work.
    pub fn new(config: EtcdConfig) -> Result<EtcdDcs, DcsError> {
        Ok(EtcdDcs {
            session: Session::new(config)?,
        })
    }

    /// Connects, learns version and members, and fills [`Dcs::warnings`]: for the start of the agent. Happens by itself
    /// later on.
    ///
    /// # Errors
    /// Any [`DcsError`]; [`DcsError::Denied`] means that waiting will not help.
    pub async fn survey(&self, budget: Duration) -> Result<(), DcsError> {
        self.session.survey(budget).await
    }
}

impl Dcs for EtcdDcs {
    fn read<'a>(&'a self, prefix: &'a str, budget: Duration) -> DcsFuture<'a, Result<Snapshot, DcsError>> {
        Box::pin(async move {
            if prefix.is_empty() {
                let detail = "an empty prefix stands for everything in the store".to_owned();
                return Err(DcsError::Config {
                    setting: "prefix".to_owned(),
                    detail,
                });
            }
            let limit = self.session.config().max_answer_bytes;
            let range = |client: Client| -> DcsFuture<'static, Result<Answer<_>, Error>> {
                let prefix = prefix.to_owned();
                Box::pin(async move {
                    let mut kv = client.kv_client().max_decoding_message_size(limit);
                    let mut found = kv.get(prefix, Some(GetOptions::new().with_prefix())).await?;
                    Ok(Answer {
                        header: header_of(found.header()),
                        value: found.take_kvs(),
                    })
                })
            };
            let (header, kvs) = self.session.ask(budget, Freshness::Linearizable, &range).await?;
            let keys: Vec<KeyValue> = kvs.into_iter().filter_map(parse_key_value).collect();
            Ok(Snapshot {
                revision: Revision(header.revision),
                keys,
            })
        })
    }

    fn commit<'a>(&'a self, txn: &'a Txn, budget: Duration) -> DcsFuture<'a, CommitOutcome> {
        Box::pin(self.session.commit(txn, budget))
    }

    fn grant_lease(&self, ttl: Duration, budget: Duration) -> DcsFuture<'_, Result<LeaseId, DcsError>> {
        Box::pin(async move {
            let seconds = lease_seconds(ttl);
            let grant = |mut client: Client| -> DcsFuture<'static, Result<Answer<_>, Error>> {
                Box::pin(async move {
                    let lease = client.lease_grant(seconds, None).await?;
                    Ok(Answer {
                        header: header_of(lease.header()),
                        value: (lease.id(), lease.ttl()),
                    })
                })
            };
            let (header, (id, granted)) = self.session.ask(budget, Freshness::Local, &grant).await?;
            if granted < seconds {
                // Every deadline is computed from the ttl asked for, so a shorter lease would be a hole in it.
                return Err(DcsError::Protocol {
                    endpoint: self.session.current(),
                    detail: format!("member {:x} granted {granted} s for {seconds} s", header.member_id),
                });
            }
            Ok(LeaseId(id))
        })
    }

    fn keep_lease(&self, lease: LeaseId, budget: Duration) -> DcsFuture<'_, Result<KeepAlive, DcsError>> {
        Box::pin(async move {
            let keep =
                |client: Client| -> DcsFuture<'static, Result<Answer<_>, Error>> { Box::pin(keep_once(client, lease)) };
            let (_, kept) = self.session.ask(budget, Freshness::Local, &keep).await?;
            Ok(kept)
        })
    }

    fn revoke_lease(&self, lease: LeaseId, budget: Duration) -> DcsFuture<'_, Result<(), DcsError>> {
        Box::pin(async move {
            let revoke = |mut client: Client| -> DcsFuture<'static, Result<Answer<_>, Error>> {
                Box::pin(async move {
                    match client.lease_revoke(lease.0).await {
                        Ok(done) => Ok(Answer {
                            header: header_of(done.header()),
                            value: (),
                        }),
                        Err(error) if read_error(&error).meaning == Meaning::LeaseNotFound => {
                            // The error carries no header, so the absence is confirmed by an answer that does.
                            let answer = client.lease_time_to_live(lease.0, None).await?;
                            let header = header_of(answer.header());
                            if answer.ttl() > 0 {
                                Err(error)
                            } else {
                                Ok(Answer { header, value: () })
                            }
                        }
                        Err(error) => Err(error),
                    }
                })
            };
            self.session.ask(budget, Freshness::Local, &revoke).await.map(|_| ())
        })
    }

    fn watch(&self, prefix: &str, after: Revision) -> WatchHints {
        watch::start(&self.session, prefix, after)
    }

    fn status(&self) -> DcsStatus {
        self.session.status()
    }

    fn warnings(&self) -> Vec<String> {
        self.session.warnings()
    }
}

/// Renews a lease on a stream of its own.
///
/// A kept stream could hand the late reply to an earlier request to a later one, and so extend a deadline for nothing. The
/// library reads the first reply and does not show its ttl; the second exchange on the same stream tells it.
async fn keep_once(mut client: Client, lease: LeaseId) -> Result<Answer<KeepAlive>, Error> {
    let (mut keeper, mut replies) = match client.lease_keep_alive(lease.0).await {
        Ok(stream) => stream,
        Err(error) if read_error(&error).meaning == Meaning::LeaseNotFound => {
            // "Gone" ends a leadership, so it needs a header to be checked against the horizon.
            let answer = client.lease_time_to_live(lease.0, None).await?;
            let header = header_of(answer.header());
            return match answer.ttl() {
                ..=0 => Ok(Answer {
                    header,
                    value: KeepAlive::Gone,
                }),
                _ => Err(Error::LeaseKeepAliveError(
                    "the member contradicts itself about the lease".to_owned(),
                )),
            };
        }
        Err(error) => return Err(error),
    };
    keeper.keep_alive().await?;
    let Some(reply) = replies.message().await? else {
        return Err(Error::LeaseKeepAliveError(
            "the stream ended without a reply".to_owned(),
        ));
    };
    if reply.id() != lease.0 {
        return Err(Error::LeaseKeepAliveError(
            "the reply is about another lease".to_owned(),
        ));
    }
    let header: Option<Header> = header_of(reply.header());
    Ok(match u64::try_from(reply.ttl()) {
        Ok(seconds) if seconds > 0 => Answer {
            header,
            value: KeepAlive::Alive {
                ttl: Duration::from_secs(seconds),
            },
        },
        _ => Answer {
            header,
            value: KeepAlive::Gone,
        },
    })
}
