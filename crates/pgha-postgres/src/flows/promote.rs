//! Promotes a standby and waits until it is a primary.

use std::time::Duration;

use pgha_core::pg::ControlState;
use tokio::time::{sleep, timeout};

use crate::child::Tool;
use crate::error::Error;
use crate::flows::Job;
use crate::instance::Instance;
use crate::process::is_alive;

/// How often `pg_control` is looked at.
const POLL: Duration = Duration::from_millis(10);
/// `pg_ctl promote -W` only writes a file and a signal.
const PG_CTL_LIMIT: Duration = Duration::from_secs(10);

/// What became of a promotion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PromoteOutcome {
    /// The server accepts writes: it writes `in production` into `pg_control` after it has left recovery.
    Promoted,
    /// It was told to and has not done it within the limit; it may still do so at any time.
    NotYet,
    /// The server is gone.
    ServerGone,
}

impl Instance {
    /// `pg_ctl promote`, then waits up to `limit` for the end of recovery.
    ///
    /// # Errors
    /// [`Error::NotRunning`]; [`Error::Failed`] when pg_ctl refuses (not a standby). [`Error::Cancelled`] does not take a
    /// promotion back.
    pub async fn promote(&self, limit: Duration, job: &Job<'_>) -> Result<PromoteOutcome, Error> {
        let data_dir = &self.spec().data_dir;
        let server = self.find_postmaster().await.process();
        let server = server.ok_or_else(|| Error::NotRunning {
            data_dir: data_dir.clone(),
        })?;
        let tool = Tool::new(self.bin().path("pg_ctl")?)
            .args(["promote", "-W", "-D"])
            .arg(data_dir.as_os_str())
            .in_english()
            .limit(PG_CTL_LIMIT);
        job.run("pg_ctl", tool).await?.success()?;
        let promoted = async {
            loop {
                if self.control().await?.data.state == ControlState::InProduction {
                    return Ok(PromoteOutcome::Promoted);
                }
                if !is_alive(server) {
                    return Ok(PromoteOutcome::ServerGone);
                }
                sleep(POLL).await;
            }
        };
        tokio::select! {
            outcome = timeout(limit, promoted) => outcome.unwrap_or(Ok(PromoteOutcome::NotYet)),
            () = job.cancel.cancelled() => Err(Error::Cancelled),
        }
    }
}
