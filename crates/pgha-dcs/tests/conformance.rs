//! The etcd backend passes the suite that every backend and model must pass.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::sync::Arc;

use common::Etcd;
use pgha_dcs::Dcs;
use pgha_dcs::conformance::{Check, Live};
use tokio::task::JoinSet;

/// All checks at once: most of their time is waiting for leases to expire.
async fn conforms(etcd: &Etcd) {
    let dcs: Arc<dyn Dcs> = etcd.dcs();
    let mut checks = JoinSet::new();
    for check in Check::ALL {
        let mut subject = Live::new(Arc::clone(&dcs));
        checks.spawn(async move {
            check
                .run(&mut subject, "/t")
                .await
                .map_err(|reason| format!("{check}: {reason}"))
        });
    }
    let failures: Vec<String> = checks.join_all().await.into_iter().filter_map(Result::err).collect();
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
