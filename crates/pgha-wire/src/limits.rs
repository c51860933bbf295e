//! How much of what comes from outside is looked at. Each bound has its name here and nowhere else.
//!
//! etcd refuses requests above 1.5 MiB by default, so no honest value is cut off by these.

/// Bytes of one member name, in `/leader`, in a member key or in a request.
pub const MAX_NAME_BYTES: usize = 1024;
/// Bytes of `/members/<name>`.
pub const MAX_MEMBER_BYTES: usize = 256 * 1024;
/// Members of one scope.
pub const MAX_MEMBERS: usize = 1000;
/// Bytes of `/initialize`; a system identifier has at most 20 digits.
pub const MAX_INITIALIZE_BYTES: usize = 64;
/// Bytes of `/config`.
pub const MAX_CONFIG_BYTES: usize = 1024 * 1024;
/// Bytes of `/failover`.
pub const MAX_FAILOVER_BYTES: usize = 16 * 1024;
/// Bytes of `/history`.
pub const MAX_HISTORY_BYTES: usize = 1024 * 1024;
/// Bytes of `/status` and of `/optime/leader`.
pub const MAX_STATUS_BYTES: usize = 1024 * 1024;
/// Bytes of `/sync`.
pub const MAX_SYNC_BYTES: usize = 256 * 1024;
/// Bytes of `/failsafe`.
pub const MAX_FAILSAFE_BYTES: usize = 512 * 1024;
/// Bytes of the file with what a daemon keeps of its cluster.
pub const MAX_KEPT_BYTES: usize = 1024 * 1024;
/// Bytes of a request body of the REST API.
pub const MAX_BODY_BYTES: usize = 1024 * 1024;
/// Bytes of a peer's answer.
pub const MAX_PEER_BYTES: usize = 1024 * 1024;
/// Query parameters of one request that are looked at.
pub const MAX_QUERY_PARAMETERS: usize = 64;
/// Characters of a foreign value that are repeated in a message.
pub const MAX_QUOTED_CHARS: usize = 80;
/// Characters of a replication slot name: NAMEDATALEN - 1 of PostgreSQL.
pub const MAX_SLOT_NAME_CHARS: usize = 63;

/// `text`, cut to [`MAX_QUOTED_CHARS`] and without control characters, for repetition in a message.
pub(crate) fn quoted(text: &str) -> String {
    let visible = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    let mut out: String = text.chars().take(MAX_QUOTED_CHARS).map(visible).collect();
    if text.chars().nth(MAX_QUOTED_CHARS).is_some() {
        out.push_str("...");
    }
    out
}
