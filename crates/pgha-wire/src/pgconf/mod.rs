//! PostgreSQL's own texts: configuration files, connection strings, password files, program options.
//!
//! Everything here is a pure function from values to text or back. PostgreSQL 13 to 18 are meant; older servers had
//! recovery.conf and are not supported.
//!
//! Invariants: whatever a value contains, it stays one value: quoting is complete, and names are checked with
//! [`guc::is_guc_name`] before they are written. A password is written only by [`conninfo::pgpass_lines`].
//!
//! Absent on purpose: a table of all server parameters with their ranges. PostgreSQL checks its own values, and names
//! that this server does not know are its to report.

pub mod address;
pub mod conninfo;
pub mod credentials;
pub mod files;
pub mod guc;
pub mod options;
pub mod recovery;

/// A text that is not what PostgreSQL or a person should have written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PgConfError {
    /// Not `HOST:PORT`.
    #[error("{found:?} is not an address: {reason}; write HOST:PORT, an IPv6 address as [ADDRESS]:PORT")]
    Address {
        /// The text, cut.
        found: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Not a libpq connection string. The text is not repeated, it may hold a password.
    #[error("connection string: {reason} at character {at}")]
    Conninfo {
        /// What is wrong with it.
        reason: &'static str,
        /// Where, counted from 1.
        at: usize,
    },
    /// A password file cannot hold this value.
    #[error("{what} contains a line break, which a password file cannot hold")]
    PasswordFile {
        /// Which value.
        what: &'static str,
    },
}
