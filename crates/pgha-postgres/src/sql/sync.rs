//! What commits wait for: the text in force for new sessions, and a commit that is watched while it waits.

use std::time::Duration;

use tokio::time::sleep;

use crate::clock::boot_now;
use crate::error::Error;
use crate::instance::Instance;
use crate::sql::{Purpose, Session};

/// How often the waiting commit is looked at.
const POLL: Duration = Duration::from_millis(10);

/// What became of a commit that should wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SyncProbe {
    /// PostgreSQL showed it waiting for synchronous replication.
    Waited,
    /// It was acknowledged.
    Acknowledged,
}

impl Instance {
    /// `synchronous_standby_names` as a new session sees it: as the postmaster has read it.
    ///
    /// # Errors
    /// No connection, or no answer within `limit`.
    pub async fn synchronous_standby_names(&self, limit: Duration) -> Result<String, Error> {
        const SQL: &str = "SELECT pg_catalog.current_setting('synchronous_standby_names')";
        let session = Session::open(self.spec(), Purpose::Action, limit).await?;
        let text = session.value("read synchronous_standby_names", SQL, limit).await?;
        Ok(text.unwrap_or_default())
    }

    /// Takes `synchronous_standby_names` out of postgresql.auto.conf, where it overrides what the agent writes.
    ///
    /// # Errors
    /// No connection, a refusal, or no answer within `limit`.
    pub async fn forget_altered_sync_names(&self, limit: Duration) -> Result<(), Error> {
        const SQL: &str = "ALTER SYSTEM RESET synchronous_standby_names";
        let session = Session::open(self.spec(), Purpose::Action, limit).await?;
        session.rows("ALTER SYSTEM RESET", SQL, limit).await.map(drop)
    }

    /// Commits a message of no meaning that waits for nobody. A wal sender releases waiting commits when its standby
    /// answers, and a standby that has nothing to receive answers once in `wal_receiver_status_interval` (10 s) only.
    ///
    /// # Errors
    /// No connection, a refusal, or no answer within `limit`.
    pub async fn move_wal(&self, limit: Duration) -> Result<(), Error> {
        const SQL: &str = "SET synchronous_commit = local; \
                           SELECT pg_catalog.pg_logical_emit_message(true, 'pgha', 'to be answered by the standbys')";
        let session = Session::open(self.spec(), Purpose::Action, limit).await?;
        session.rows("move WAL", SQL, limit).await.map(drop)
    }

    /// Commits a message of no meaning with `synchronous_commit` on and watches what it does. A commit that is seen to
    /// wait is cancelled: it stays committed here, and nobody was told so.
    ///
    /// # Errors
    /// No connection, a refusal, or neither outcome within `limit`.
    pub async fn probe_sync(&self, limit: Duration) -> Result<SyncProbe, Error> {
        const COMMIT: &str = "SET synchronous_commit = on; \
                              SELECT pg_catalog.pg_logical_emit_message(true, 'pgha', 'does a commit wait?')";
        let deadline = boot_now().plus(limit);
        let writer = Session::open(self.spec(), Purpose::Action, limit).await?;
        let watcher = Session::open(self.spec(), Purpose::Action, limit).await?;
        let pid = writer
            .value("own pid", "SELECT pg_catalog.pg_backend_pid()", limit)
            .await?;
        let pid: i32 = pid.and_then(|p| p.parse().ok()).ok_or_else(|| Error::Malformed {
            place: "pg_backend_pid()".to_string(),
            reason: "not a number".to_string(),
        })?;
        let look = format!("SELECT wait_event FROM pg_catalog.pg_stat_activity WHERE pid = {pid}");
        let watching = async {
            loop {
                let left = deadline.since(boot_now());
                match watcher.value("watch the probe", &look, left).await {
                    Ok(Some(event)) if event == "SyncRep" => return Ok(SyncProbe::Waited),
                    Ok(_) if left.is_zero() => {
                        return Err(Error::TimedOut {
                            what: "watching a commit".to_string(),
                            limit,
                        });
                    }
                    Ok(_) => sleep(POLL).await,
                    Err(e) => return Err(e),
                }
            }
        };
        let seen = tokio::select! {
            done = writer.rows("commit of the probe", COMMIT, limit) => done.map(|_| SyncProbe::Acknowledged),
            seen = watching => seen,
        };
        // Also when nothing is known: a backend that waits would wait for ever.
        let cancel = format!("SELECT pg_catalog.pg_cancel_backend({pid})");
        if !matches!(seen, Ok(SyncProbe::Acknowledged)) {
            watcher.rows("end the probe", &cancel, limit).await?;
        }
        seen
    }
}
