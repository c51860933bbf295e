//! What the agent tells this crate about the instance: plain values, already validated and rendered by the caller.
//!
//! Invariant: a [`Secret`] has no way into `Debug` or `Display`. Absent on purpose: defaults, YAML, environment.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use crate::conninfo::ConnInfo;

/// A password. Its text is only reachable through [`Secret::expose`].
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a password.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }
    /// The password itself, for the wire or a 0600 file. Never for an argument list or a log.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A PostgreSQL user.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Credentials {
    /// Role name.
    pub user: String,
    /// Password; `None` for peer, trust, certificate or Kerberos authentication.
    pub password: Option<Secret>,
    /// Further libpq parameters for connections to other members (`sslmode`, `sslcert`, ...), in the order to write them.
    pub options: Vec<(String, String)>,
}

impl Credentials {
    /// A user with a password.
    pub fn new(user: impl Into<String>, password: impl Into<String>) -> Credentials {
        Credentials {
            user: user.into(),
            password: Some(Secret::new(password)),
            options: Vec::new(),
        }
    }

    /// Connection parameters of this user for `host:port`, without any password.
    pub fn conninfo(&self, host: &str, port: u16, database: &str) -> ConnInfo {
        let mut info = ConnInfo::new();
        info.set("dbname", database);
        info.set("user", &self.user);
        info.set("host", host);
        info.set("port", &port.to_string());
        for (key, value) in &self.options {
            info.set(key, value);
        }
        info
    }
}

/// Where the local server is reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LocalAddress {
    /// Unix socket.
    Unix {
        /// Directory of the socket.
        dir: PathBuf,
        /// Port, part of the socket's name.
        port: u16,
    },
    /// TCP, usually to `localhost`.
    Tcp {
        /// Host name or address.
        host: String,
        /// Port.
        port: u16,
    },
}

impl LocalAddress {
    /// `host` as libpq writes it: a directory for a Unix socket.
    pub fn host(&self) -> String {
        match self {
            LocalAddress::Unix { dir, .. } => dir.display().to_string(),
            LocalAddress::Tcp { host, .. } => host.clone(),
        }
    }
    /// The port.
    pub fn port(&self) -> u16 {
        match self {
            LocalAddress::Unix { port, .. } | LocalAddress::Tcp { port, .. } => *port,
        }
    }
}

/// One PostgreSQL instance. Made anew (with a new [`crate::Instance`]) when the configuration is reloaded.
#[derive(Clone, Debug)]
pub struct InstanceSpec {
    /// `PGDATA`, absolute.
    pub data_dir: PathBuf,
    /// Directory of postgresql.conf, pg_hba.conf and pg_ident.conf; usually the data directory.
    pub config_dir: PathBuf,
    /// The agent's private directory for this instance. It must live as long as the data directory does and must not
    /// lie inside it: the marks that say "never start this" are kept here.
    pub state_dir: PathBuf,
    /// Where the PostgreSQL programs are; `None` looks in `PATH`.
    pub bin_dir: Option<PathBuf>,
    /// Other file names for programs, by their usual name.
    pub bin_name: BTreeMap<String, String>,
    /// The superuser.
    pub superuser: Credentials,
    /// The user standbys connect as.
    pub replication: Credentials,
    /// The user pg_rewind connects as; `None` takes the superuser.
    pub rewind: Option<Credentials>,
    /// Database for all SQL connections, usually `postgres`.
    pub database: String,
    /// How the agent connects to the local server.
    pub local: LocalAddress,
    /// The passfile named in `primary_conninfo`.
    pub pgpass: PathBuf,
}

impl InstanceSpec {
    /// The user pg_rewind connects as.
    pub fn rewind_user(&self) -> &Credentials {
        self.rewind.as_ref().unwrap_or(&self.superuser)
    }
    /// Connection parameters of the superuser for the local server, without password.
    pub fn local_conninfo(&self) -> ConnInfo {
        let mut info = ConnInfo::new();
        info.set("dbname", &self.database);
        info.set("user", &self.superuser.user);
        info.set("host", &self.local.host());
        info.set("port", &self.local.port().to_string());
        info
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_in_the_debug_text() {
        let text = format!("{:?}", Credentials::new("rep", "hunter2"));
        assert!(text.contains("rep") && !text.contains("hunter2"), "{text}");
    }
}
