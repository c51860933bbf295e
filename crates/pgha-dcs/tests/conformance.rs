//! The etcd backend passes the suite that every backend and model must pass.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::sync::Arc;

use common::Etcd;
use etcd_client::{AlarmAction, AlarmType, Client};
use pgha_core::units::Revision;
use pgha_dcs::conformance::{Check, Live, Operator};
use pgha_dcs::{Dcs, DcsFuture};
use tokio::task::JoinSet;

/// Speaks to the first member without the backend under test.
struct Direct {
    url: String,
}

impl Direct {
    async fn client(&self) -> Result<Client, String> {
        Client::connect([&self.url], None).await.map_err(|e| e.to_string())
    }
}

impl Operator for Direct {
    fn compact(&self, revision: Revision) -> DcsFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let compacted = self.client().await?.compact(revision.0, None).await;
            compacted.map(|_| ()).map_err(|e| e.to_string())
        })
    }

    fn set_full(&self, full: bool) -> DcsFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let action = if full {
                AlarmAction::Activate
            } else {
                AlarmAction::Deactivate
            };
            let set = self.client().await?.alarm(action, AlarmType::Nospace, None).await;
            set.map(|_| ()).map_err(|e| e.to_string())
        })
    }
}

/// Most checks at once: most of their time is waiting for leases to expire. Then those that need the store alone.
async fn conforms(etcd: &Etcd) {
    let dcs: Arc<dyn Dcs> = etcd.dcs();
    let elsewhere: Arc<dyn Dcs> = etcd.dcs();
    let operator: Arc<dyn Operator> = Arc::new(Direct {
        url: etcd.urls().remove(0),
    });
    let run = |check: Check| {
        let mut subject = Live::new(Arc::clone(&dcs), Arc::clone(&elsewhere), Arc::clone(&operator));
        async move {
            check
                .run(&mut subject, "/t")
                .await
                .map_err(|reason| format!("{check}: {reason}"))
        }
    };
    let (alone, together): (Vec<Check>, Vec<Check>) = Check::ALL.into_iter().partition(|c| c.needs_the_store_alone());
    let together: JoinSet<_> = together.into_iter().map(run).collect();
    let mut results = together.join_all().await;
    for check in alone {
        results.push(run(check).await);
    }
    assert_eq!(results.len(), Check::ALL.len());
    let failures: Vec<String> = results.into_iter().filter_map(Result::err).collect();
    assert!(failures.is_empty(), "{failures:#?}");
}

#[tokio::test]
async fn etcd_with_one_member_conforms() {
    conforms(&Etcd::single()).await;
}

#[tokio::test]
async fn etcd_with_three_members_conforms() {
    conforms(&Etcd::three()).await;
}
