//! What an etcd error means, in one table (rule R7).
//!
//! etcd has moved the same message between gRPC codes over its versions, so the text is looked at first and the code
//! second. Whatever is in neither table is [`Meaning::Unavailable`]: an error nobody thought of must look like a store
//! out of reach, never like a statement about the cluster.

use std::error::Error as _;

use etcd_client::Error;
use tonic::{Code, ConnectError, Status};

use crate::error::BoxError;

/// What an error says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Meaning {
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
pub(crate) struct Reading {
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

/// Understands the code and the text of a gRPC status.
pub(crate) fn read_status(code: Code, message: &str) -> Reading {
    let text = message.to_ascii_lowercase();
    let by_text = BY_TEXT
        .iter()
        .find(|(part, _)| text.contains(part))
        .map(|(_, meaning)| *meaning);
    let meaning = by_text.unwrap_or(match code {
        Code::Unauthenticated => Meaning::TokenRejected,
        Code::PermissionDenied => Meaning::Denied,
        _ => Meaning::Unavailable,
    });
    Reading {
        meaning,
        spoken: by_text.is_some(),
        never_sent: false,
    }
}

/// Understands an error of the client library.
pub(crate) fn read_error(error: &Error) -> Reading {
    match error {
        Error::GRpcStatus(status) => {
            let mut reading = read_status(status.code(), status.message());
            reading.never_sent = is_connect_failure(status);
            reading
        }
        // The library's own words for a keepalive that was answered with ttl 0.
        Error::LeaseKeepAliveError(text) if text.contains("lease not found") => Reading {
            meaning: Meaning::LeaseNotFound,
            spoken: true,
            never_sent: false,
        },
        Error::InvalidArgs(_) => Reading {
            meaning: Meaning::Malformed,
            spoken: true,
            never_sent: true,
        },
        _ => Reading {
            meaning: Meaning::Unavailable,
            spoken: false,
            never_sent: false,
        },
    }
}

/// The error as a cause to show: code, message and what lies below, without the response's metadata.
pub(crate) fn explain(error: Error) -> BoxError {
    let Error::GRpcStatus(status) = error else {
        return error.into();
    };
    let mut text = format!("{:?}: {}", status.code(), status.message());
    let mut cause = status.source();
    while let Some(error) = cause {
        let more = error.to_string();
        // Each layer of the transport repeats the one below.
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text.into()
}

/// The status stands for a connection that could not be made.
fn is_connect_failure(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn every_known_error_has_its_meaning_whatever_code_it_comes_with() {
        use Meaning::*;
        for (code, message, meaning) in [
            (Code::Unknown, "lessor: not a primary lessor", Unavailable),
            (Code::Unknown, "etcdserver: not a primary lessor", Unavailable),
            (Code::Unavailable, "etcdserver: no leader", Unavailable),
            (Code::Unavailable, "etcdserver: leader changed", Unavailable),
            (Code::Unavailable, "etcdserver: request timed out", Unavailable),
            (
                Code::Unknown,
                "etcdserver: request timed out, possibly due to previous leader failure",
                Unavailable,
            ),
            (
                Code::Unavailable,
                "etcdserver: request timed out, possibly due to connection lost",
                Unavailable,
            ),
            (Code::ResourceExhausted, "etcdserver: too many requests", Unavailable),
            (
                Code::ResourceExhausted,
                "etcdserver: mvcc: database space exceeded",
                NoSpace,
            ),
            (Code::NotFound, "etcdserver: requested lease not found", LeaseNotFound),
            (Code::Unknown, "etcdserver: requested lease not found", LeaseNotFound),
            (Code::Unauthenticated, "etcdserver: invalid auth token", TokenRejected),
            (Code::Unknown, "etcdserver: invalid auth token", TokenRejected),
            (
                Code::InvalidArgument,
                "etcdserver: revision of auth store is old",
                TokenRejected,
            ),
            (Code::InvalidArgument, "etcdserver: user name is empty", TokenRejected),
            (Code::Unknown, "auth: revision in header is old", TokenRejected),
            (Code::PermissionDenied, "etcdserver: permission denied", Denied),
            (Code::Unknown, "etcdserver: permission denied", Denied),
            (
                Code::InvalidArgument,
                "etcdserver: authentication failed, invalid user ID or password",
                Denied,
            ),
            (
                Code::FailedPrecondition,
                "etcdserver: authentication is not enabled",
                AuthNotEnabled,
            ),
            (
                Code::OutOfRange,
                "etcdserver: mvcc: required revision has been compacted",
                RevisionUnavailable,
            ),
            (Code::InvalidArgument, "etcdserver: request is too large", Malformed),
            (
                Code::ResourceExhausted,
                "grpc: received message larger than max (3000044 vs. 2097152)",
                Malformed,
            ),
            (
                Code::InvalidArgument,
                "etcdserver: duplicate key given in txn request",
                Malformed,
            ),
        ] {
            let reading = read_status(code, message);
            assert_eq!(reading.meaning, meaning, "{code:?} {message}");
            assert!(reading.spoken, "{message}");
        }
    }

    #[test]
    fn r7_what_nobody_thought_of_means_unavailable_and_proves_nothing() {
        for code in [
            Code::Unknown,
            Code::Internal,
            Code::InvalidArgument,
            Code::FailedPrecondition,
            Code::Cancelled,
            Code::DeadlineExceeded,
            Code::Aborted,
            Code::DataLoss,
            Code::NotFound,
            Code::ResourceExhausted,
            Code::Unimplemented,
        ] {
            let reading = read_status(code, "something new in etcd 4");
            let expected = Reading {
                meaning: Meaning::Unavailable,
                spoken: false,
                never_sent: false,
            };
            assert_eq!(reading, expected, "{code:?}");
        }
        // A proxy's 403 or 401 denies, but it is not etcd's own word that nothing was written.
        assert!(!read_status(Code::PermissionDenied, "blocked by gateway").spoken);
        assert!(!read_status(Code::Unauthenticated, "").spoken);
    }
}
