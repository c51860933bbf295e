//! What an error of the client library means (rule R7): etcd's words, which pgha-wire knows, first, and the gRPC code second.

use std::error::Error as _;

use etcd_client::Error;
use pgha_wire::meaning::{Meaning, Reading, read_text};
use tonic::{Code, ConnectError, Status};

use crate::error::BoxError;

/// Understands the code and the text of a gRPC status.
pub(crate) fn read_status(code: Code, message: &str) -> Reading {
    let by_text = read_text(message);
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
