//! Who connects, and how the connection is secured.
//!
//! Invariant: no `Debug` output contains a password.

use std::fmt;

/// A text that must not be seen in logs, errors, `Debug` output or argument lists.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }
    /// The text itself. Whoever calls this takes care of where it goes.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

/// A PostgreSQL role with its connection options, as below `postgresql.authentication`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Credentials {
    /// Role name.
    pub username: Option<String>,
    /// Its password.
    pub password: Option<Secret>,
    /// `sslmode`.
    pub sslmode: Option<String>,
    /// Client certificate file.
    pub sslcert: Option<String>,
    /// Client key file.
    pub sslkey: Option<String>,
    /// Password of the client key.
    pub sslpassword: Option<Secret>,
    /// File with certificates of authorities.
    pub sslrootcert: Option<String>,
    /// File with revoked certificates.
    pub sslcrl: Option<String>,
    /// Directory with revoked certificates (PostgreSQL 14).
    pub sslcrldir: Option<String>,
    /// `gssencmode`.
    pub gssencmode: Option<String>,
    /// `channel_binding`.
    pub channel_binding: Option<String>,
    /// `sslnegotiation` (PostgreSQL 17).
    pub sslnegotiation: Option<String>,
}
