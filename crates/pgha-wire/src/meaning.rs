//! What the words of an etcd error mean, in one table (rule R7).
//!
//! etcd has moved the same message between gRPC codes over its versions, so its text counts. What is not in the table is
//! [`Meaning::Unavailable`]: an error nobody thought of must look like a store out of reach, never like a statement about
//! the cluster. pgha-dcs adds the codes; the simulated etcd answers in these very words.

use pgha_core::commit::CommitOutcome;

/// What an error says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Meaning {
    /// The member cannot serve now; another may.
    Unavailable,
    /// There is no such lease.
    LeaseNotFound,
    /// The database is full.
    NoSpace,
    /// The token is missing, expired or older than the last change of users and roles: a new one may help.
    TokenRejected,
    /// User, password or permission are wrong.
    Denied,
    /// A token was asked for, but etcd runs without authentication.
    AuthNotEnabled,
    /// The revision asked for is gone, or not there yet.
    RevisionUnavailable,
    /// The request itself is at fault and will be refused every time.
    Malformed,
}

/// An error, understood.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reading {
    /// What it says.
    pub meaning: Meaning,
    /// etcd itself said so, in words known to be said before anything is written.
    pub spoken: bool,
    /// The connection was never made: the request cannot have reached anybody.
    pub never_sent: bool,
}

/// Parts of messages, lower case. The first that matches counts.
const BY_TEXT: &[(&str, Meaning)] = &[
    ("requested lease not found", Meaning::LeaseNotFound),
    ("database space exceeded", Meaning::NoSpace),
    ("invalid auth token", Meaning::TokenRejected),
    ("revision of auth store is old", Meaning::TokenRejected),
    ("revision in header is old", Meaning::TokenRejected),
    ("user name is empty", Meaning::TokenRejected),
    ("authentication is not enabled", Meaning::AuthNotEnabled),
    ("authentication failed", Meaning::Denied),
    ("invalid user id or password", Meaning::Denied),
    ("etcdserver: permission denied", Meaning::Denied),
    ("user name not found", Meaning::Denied),
    ("required revision has been compacted", Meaning::RevisionUnavailable),
    ("required revision is a future revision", Meaning::RevisionUnavailable),
    ("request is too large", Meaning::Malformed),
    // gRPC's own limit, met before etcd sees the request. Answers to transactions are far too small to meet it.
    ("received message larger than max", Meaning::Malformed),
    ("too many operations in txn", Meaning::Malformed),
    ("duplicate key given in txn", Meaning::Malformed),
    ("key is not provided", Meaning::Malformed),
    ("too large lease ttl", Meaning::Malformed),
    // Named although they are the default, so that a change of the default does not change them.
    ("not a primary lessor", Meaning::Unavailable),
    ("no leader", Meaning::Unavailable),
    ("leader changed", Meaning::Unavailable),
    ("request timed out", Meaning::Unavailable),
    ("too many requests", Meaning::Unavailable),
    ("server stopped", Meaning::Unavailable),
    ("not capable", Meaning::Unavailable),
];

/// The meaning of a message, when etcd itself is known to say it.
pub fn read_text(message: &str) -> Option<Meaning> {
    let text = message.to_ascii_lowercase();
    BY_TEXT
        .iter()
        .find(|(part, _)| text.contains(part))
        .map(|(_, meaning)| *meaning)
}

impl Meaning {
    /// A request that may be repeated was answered so: another endpoint may do better.
    pub fn elsewhere_may_help(self) -> bool {
        match self {
            Meaning::Unavailable | Meaning::AuthNotEnabled => true,
            Meaning::LeaseNotFound
            | Meaning::NoSpace
            | Meaning::TokenRejected
            | Meaning::Denied
            | Meaning::RevisionUnavailable
            | Meaning::Malformed => false,
        }
    }
}

impl Reading {
    /// How a transaction ended that was answered so (rule R4). `None` when nobody can have seen it.
    pub fn ends_commit(self) -> Option<CommitOutcome> {
        if self.never_sent {
            return None;
        }
        Some(match (self.meaning, self.spoken) {
            // A lease that ran out is news about the node, not trouble with etcd.
            (Meaning::LeaseNotFound, true) => CommitOutcome::LeaseGone,
            (Meaning::NoSpace | Meaning::Denied | Meaning::TokenRejected | Meaning::Malformed, true) => {
                CommitOutcome::Refused
            }
            (
                Meaning::LeaseNotFound
                | Meaning::NoSpace
                | Meaning::Denied
                | Meaning::TokenRejected
                | Meaning::Malformed
                | Meaning::Unavailable
                | Meaning::AuthNotEnabled
                | Meaning::RevisionUnavailable,
                _,
            ) => CommitOutcome::Unknown,
        })
    }
}
