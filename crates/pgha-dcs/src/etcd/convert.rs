//! Between pgha's key-value vocabulary and the client library's.

use std::time::Duration;

use etcd_client::{Compare as EtcdCompare, CompareOp, DeleteOptions, KeyValue as EtcdKeyValue, PutOptions, TxnOp};
use pgha_core::units::{LeaseId, Revision};
use pgha_wire::kv::{Compare, KeyValue, Op, Txn};

/// etcd's name for "no lease".
const NO_LEASE: i64 = 0;

/// Renders a transaction.
///
/// # Errors
/// A text when it could never be meant: an empty prefix stands for every key of every cluster in the store.
pub(crate) fn render_txn(txn: &Txn) -> Result<etcd_client::Txn, String> {
    let compares: Vec<EtcdCompare> = txn.compares.iter().map(render_compare).collect();
    let ops = txn.ops.iter().map(render_op).collect::<Result<Vec<TxnOp>, String>>()?;
    Ok(etcd_client::Txn::new().when(compares).and_then(ops))
}

fn render_compare(compare: &Compare) -> EtcdCompare {
    match compare {
        Compare::CreateRevision(key, revision) => {
            EtcdCompare::create_revision(key.as_str(), CompareOp::Equal, revision.0)
        }
        Compare::ModRevision(key, revision) => EtcdCompare::mod_revision(key.as_str(), CompareOp::Equal, revision.0),
        Compare::Lease(key, lease) => EtcdCompare::lease(key.as_str(), CompareOp::Equal, lease.0),
        Compare::Value(key, value) => EtcdCompare::value(key.as_str(), CompareOp::Equal, value.clone()),
    }
}

fn render_op(op: &Op) -> Result<TxnOp, String> {
    Ok(match op {
        Op::Put { key, value, lease } => {
            let options = PutOptions::new().with_lease(lease.map_or(NO_LEASE, |lease| lease.0));
            TxnOp::put(key.as_str(), value.clone(), Some(options))
        }
        Op::Delete(key) => TxnOp::delete(key.as_str(), None),
        Op::DeletePrefix(prefix) if prefix.is_empty() => {
            return Err("deleting below an empty prefix would delete everything in the store".to_owned());
        }
        Op::DeletePrefix(prefix) => TxnOp::delete(prefix.as_str(), Some(DeleteOptions::new().with_prefix())),
    })
}

/// Takes a key as read; `None` when its name is not UTF-8, which no key of ours is.
pub(crate) fn parse_key_value(kv: EtcdKeyValue) -> Option<KeyValue> {
    let (create_revision, mod_revision, lease) = (kv.create_revision(), kv.mod_revision(), kv.lease());
    let (key, value) = kv.into_key_value();
    Some(KeyValue {
        key: String::from_utf8(key).ok()?,
        value,
        create_revision: Revision(create_revision),
        mod_revision: Revision(mod_revision),
        lease: (lease != NO_LEASE).then_some(LeaseId(lease)),
    })
}

/// Whole seconds, rounded up, at least one: etcd knows no shorter lease.
pub(crate) fn lease_seconds(ttl: Duration) -> i64 {
    let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
    i64::try_from(seconds.max(1)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_lease_is_never_shorter_than_asked() {
        for (ttl_ms, seconds) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (30_000, 30)] {
            assert_eq!(lease_seconds(Duration::from_millis(ttl_ms)), seconds, "{ttl_ms} ms");
        }
    }

    #[test]
    fn a_delete_of_everything_is_refused() {
        let txn = Txn {
            compares: Vec::new(),
            ops: vec![Op::DeletePrefix(String::new())],
        };
        assert!(render_txn(&txn).is_err());
    }
}
