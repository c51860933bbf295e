//! Connections to the local server.
//!
//! Every connection has `search_path=pg_catalog` and a statement timeout; every wait has a limit of its own, because a
//! frozen server honours none. A query that runs into its limit is cancelled on the server too.
//! Absent on purpose: TLS. Only the local server is spoken to here; other members are asked through PostgreSQL's
//! own programs (see `remote`).

pub(crate) mod monitor;
pub(crate) mod settings;
pub(crate) mod slots;
pub(crate) mod sync;

use std::future::poll_fn;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::{AsyncMessage, Client, Config, NoTls, SimpleQueryMessage, SimpleQueryRow};

use crate::error::Error;
use crate::spec::{InstanceSpec, LocalAddress};

/// Longest wait for a connection.
pub(crate) const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// Statement timeout of the monitoring connection.
pub(crate) const STATEMENT_LIMIT: Duration = Duration::from_secs(2);
/// A cancel request is a best effort.
const CANCEL_LIMIT: Duration = Duration::from_secs(1);

/// What a connection is for; each has its own, because one connection answers one request at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Purpose {
    /// The monitoring query.
    Heartbeat,
    /// A longer action such as CHECKPOINT.
    Action,
}

/// A live connection.
pub(crate) struct Session {
    client: Client,
    driver: JoinHandle<()>,
}

impl Drop for Session {
    fn drop(&mut self) {
        // Aborting the driver closes the socket even while an answer is outstanding.
        self.driver.abort();
    }
}

impl Session {
    /// Connects to the local server as superuser.
    pub(crate) async fn open(spec: &InstanceSpec, purpose: Purpose, limit: Duration) -> Result<Session, Error> {
        let limit = limit.min(CONNECT_LIMIT);
        let (client, mut connection) = match timeout(limit, config(spec, purpose).connect(NoTls)).await {
            Ok(connected) => connected.map_err(|e| sql_error("connect", &e))?,
            Err(_) => {
                return Err(Error::TimedOut {
                    what: "connecting to the local server".to_string(),
                    limit,
                });
            }
        };
        let driver = tokio::spawn(async move {
            while let Some(message) = poll_fn(|cx| connection.poll_message(cx)).await {
                match message {
                    Ok(AsyncMessage::Notice(notice)) => tracing::debug!(%notice, "PostgreSQL says"),
                    Ok(_) => {}
                    Err(e) => {
                        tracing::debug!(error = %e, "connection to the local server ended");
                        return;
                    }
                }
            }
        });
        Ok(Session { client, driver })
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Runs one or more statements and returns the rows. `what` names it in errors.
    pub(crate) async fn rows(&self, what: &str, sql: &str, limit: Duration) -> Result<Vec<SimpleQueryRow>, Error> {
        let messages = match timeout(limit, self.client.simple_query(sql)).await {
            Ok(answer) => answer.map_err(|e| sql_error(what, &e))?,
            Err(_) => {
                self.cancel();
                return Err(Error::TimedOut {
                    what: what.to_string(),
                    limit,
                });
            }
        };
        let row = |m| {
            if let SimpleQueryMessage::Row(row) = m {
                Some(row)
            } else {
                None
            }
        };
        Ok(messages.into_iter().filter_map(row).collect())
    }

    /// The first column of the first row.
    pub(crate) async fn value(&self, what: &str, sql: &str, limit: Duration) -> Result<Option<String>, Error> {
        let rows = self.rows(what, sql, limit).await?;
        Ok(rows
            .first()
            .and_then(|r| r.try_get(0).ok().flatten())
            .map(str::to_string))
    }

    fn cancel(&self) {
        let token = self.client.cancel_token();
        tokio::spawn(async move {
            if let Ok(Err(e)) = timeout(CANCEL_LIMIT, token.cancel_query(NoTls)).await {
                tracing::debug!(error = %e, "cannot cancel a query");
            }
        });
    }
}

fn config(spec: &InstanceSpec, purpose: Purpose) -> Config {
    let (name, options) = match purpose {
        Purpose::Heartbeat => (
            "pgha heartbeat",
            format!("-c statement_timeout={}", STATEMENT_LIMIT.as_millis()),
        ),
        Purpose::Action => (
            "pgha action",
            "-c statement_timeout=0 -c synchronous_commit=local".to_string(),
        ),
    };
    let mut config = Config::new();
    config
        .user(&spec.superuser.user)
        .dbname(&spec.database)
        .application_name(name)
        .options(format!(
            "{options} -c search_path=pg_catalog -c pg_stat_statements.track=none"
        ))
        .port(spec.local.port())
        .ssl_mode(SslMode::Disable)
        .connect_timeout(CONNECT_LIMIT);
    if let Some(password) = &spec.superuser.password {
        config.password(password.expose());
    }
    match &spec.local {
        LocalAddress::Unix { dir, .. } => config.host_path(dir),
        LocalAddress::Tcp { host, .. } => config.host(host),
    };
    config
}

fn sql_error(what: &str, e: &tokio_postgres::Error) -> Error {
    match e.as_db_error() {
        Some(db) if *db.code() == SqlState::CANNOT_CONNECT_NOW => Error::CannotConnectNow {
            reason: db.message().to_string(),
        },
        Some(db) => Error::Sql {
            what: what.to_string(),
            reason: db.message().to_string(),
            sqlstate: Some(db.code().code().to_string()),
        },
        None => {
            let source = std::error::Error::source(e)
                .map(|s| format!(": {s}"))
                .unwrap_or_default();
            Error::Sql {
                what: what.to_string(),
                reason: format!("{e}{source}"),
                sqlstate: None,
            }
        }
    }
}

/// A string literal that means the same whatever `standard_conforming_strings` says.
pub(crate) fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if text.contains('\\') {
        format!(" E'{}'", quoted.replace('\\', "\\\\"))
    } else {
        format!("'{quoted}'")
    }
}

/// A quoted identifier.
pub(crate) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_backslashes_cannot_leave_a_literal_or_an_identifier() {
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("a\\'b"), " E'a\\\\''b'");
        assert_eq!(identifier("a\"b"), "\"a\"\"b\"");
    }
}
