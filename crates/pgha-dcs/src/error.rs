//! The errors of this crate, told apart by what the caller can do about them.

use std::time::Duration;

/// The cause below an error, kept for logs.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why the store did not give an answer. Decide by variant, never by text.
///
/// To the agent, everything but [`DcsError::Config`] means that the store cannot be relied on now. None of them says
/// anything about what the cluster looks like.
#[derive(Debug, thiserror::Error)]
pub enum DcsError {
    /// No endpoint took the request, or those that did could not serve it.
    #[error("no endpoint of the store could serve the request; the last one tried was {endpoint}")]
    Unreachable {
        /// The last endpoint tried.
        endpoint: String,
        /// What it said.
        #[source]
        source: BoxError,
    },
    /// The budget ran out while an endpoint was silent.
    #[error("the store did not answer within {budget:?}; the last endpoint tried was {endpoint}")]
    TimedOut {
        /// The last endpoint tried.
        endpoint: String,
        /// The budget of the call.
        budget: Duration,
    },
    /// The answers are older than what was seen before, or come from another cluster (rule R5). They were dropped.
    #[error("{endpoint} answered from the past or from another cluster: {detail}")]
    Stale {
        /// The last endpoint that did so.
        endpoint: String,
        /// What regressed.
        detail: String,
    },
    /// The store refused the credentials, or they lack a permission, also after a new token was asked for.
    #[error("{endpoint} denied access; check username, password and the permissions of the user's roles")]
    Denied {
        /// Who denied.
        endpoint: String,
        /// What it said.
        #[source]
        source: BoxError,
    },
    /// The store's database is full: it answers reads and refuses writes.
    #[error(
        "{endpoint} has no space left for writes; compact, defragment, raise the quota, then run `etcdctl alarm disarm`"
    )]
    NoSpace {
        /// Who said so.
        endpoint: String,
        /// What it said.
        #[source]
        source: BoxError,
    },
    /// The store gave an answer that makes no sense, or says that the request makes none.
    #[error("the exchange with {endpoint} broke the protocol: {detail}")]
    Protocol {
        /// With whom.
        endpoint: String,
        /// What was wrong.
        detail: String,
    },
    /// The configuration of the store cannot be used.
    #[error("store configuration, {setting}: {detail}")]
    Config {
        /// The setting.
        setting: String,
        /// What was found and what is allowed.
        detail: String,
    },
}
