//! SQL over a connection that cannot hang.

use std::net::SocketAddrV4;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::task::JoinHandle;
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client, Config, NoTls, Row};

/// Limit of a connection's start, authentication included.
pub const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// Limit of an ordinary statement.
pub const STATEMENT_LIMIT: Duration = Duration::from_secs(5);

/// A connection. Dropping it closes it.
pub struct Sql {
    client: Client,
    driver: JoinHandle<()>,
    sync_wait_cancelled: Arc<AtomicBool>,
}

impl Drop for Sql {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Sql {
    /// Connects over TCP as the superuser.
    pub async fn connect(addr: SocketAddrV4, password: &str) -> Result<Self> {
        let mut config = Config::new();
        config
            .host(addr.ip().to_string())
            .port(addr.port())
            .user("postgres")
            .password(password)
            .dbname("postgres")
            .application_name("pgha-integration");
        let connecting = config.connect(NoTls);
        let (client, mut connection) = tokio::time::timeout(CONNECT_LIMIT, connecting)
            .await
            .with_context(|| format!("PostgreSQL at {addr} does not answer"))?
            .with_context(|| format!("PostgreSQL at {addr} refuses"))?;
        let sync_wait_cancelled = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&sync_wait_cancelled);
        let driver = tokio::spawn(async move {
            while let Some(Ok(message)) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
                if let AsyncMessage::Notice(notice) = message
                    && notice.message().contains("synchronous replication")
                {
                    seen.store(true, Ordering::SeqCst);
                }
            }
        });
        Ok(Self {
            client,
            driver,
            sync_wait_cancelled,
        })
    }

    /// Rows of a query.
    pub async fn query(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>> {
        Self::within(sql, self.client.query(sql, params)).await
    }

    /// The single row of a query.
    pub async fn row(&self, sql: &str) -> Result<Row> {
        Self::within(sql, self.client.query_one(sql, &[])).await
    }

    /// Runs statements without parameters and without rows.
    pub async fn run(&self, sql: &str) -> Result<()> {
        Self::within(sql, self.client.batch_execute(sql)).await
    }

    /// Runs one statement; the bare error lets the caller tell a refusal from a lost connection.
    pub async fn execute(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<u64, tokio_postgres::Error> {
        self.client.execute(sql, params).await
    }

    /// Whether the server has said on this connection that it stopped waiting for a synchronous standby: what it then
    /// acknowledged may be on the primary alone.
    pub fn sync_wait_was_cancelled(&self) -> bool {
        self.sync_wait_cancelled.load(Ordering::SeqCst)
    }

    async fn within<T>(sql: &str, run: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T> {
        tokio::time::timeout(STATEMENT_LIMIT, run)
            .await
            .with_context(|| format!("no answer within {STATEMENT_LIMIT:?} to {sql}"))?
            .with_context(|| sql.to_owned())
    }
}
