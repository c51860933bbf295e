//! The key-value vocabulary between the formats of this crate and a DCS: what etcd v3 speaks, without its client.

use pgha_core::units::{LeaseId, Revision};

/// One key as read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyValue {
    /// Full key, e.g. `/service/batman/leader`.
    pub key: String,
    /// Value as stored; not necessarily UTF-8.
    pub value: Vec<u8>,
    /// Revision that created the key.
    pub create_revision: Revision,
    /// Revision of the last write.
    pub mod_revision: Revision,
    /// Lease, if any.
    pub lease: Option<LeaseId>,
}

/// A whole prefix at one revision.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    /// Store revision.
    pub revision: Revision,
    /// Keys in key order.
    pub keys: Vec<KeyValue>,
}

/// A condition of a transaction. All compares of etcd that pgha uses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Compare {
    /// `create_revision(key) == revision`; 0 means the key is absent.
    CreateRevision(String, Revision),
    /// `mod_revision(key) == revision`.
    ModRevision(String, Revision),
    /// `lease(key) == lease`.
    Lease(String, LeaseId),
    /// `value(key) == value`.
    Value(String, Vec<u8>),
}

/// A write of a transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    /// Put, on a lease or without.
    Put {
        /// Full key.
        key: String,
        /// Value.
        value: Vec<u8>,
        /// Lease.
        lease: Option<LeaseId>,
    },
    /// Delete one key.
    Delete(String),
    /// Delete all keys below a prefix.
    DeletePrefix(String),
}

/// All compares hold, or nothing is done.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Txn {
    /// Conditions.
    pub compares: Vec<Compare>,
    /// Writes.
    pub ops: Vec<Op>,
}
