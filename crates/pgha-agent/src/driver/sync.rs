//! What commits wait for, as core wants it: the file and the running server, or a commit that is watched.

use std::sync::Arc;
use std::time::Duration;

use pgha_core::pg::PgView;
use pgha_core::sync::{SyncOutcome, SyncTask};
use pgha_postgres::{Error, SyncProbe};
use tokio::time::sleep;

use super::guard::FenceGuard;
use super::local::{Local, SyncNames, recovery_of};
use crate::clock;

/// How long a server may take until new sessions see a new text.
const RELOAD_LIMIT: Duration = Duration::from_secs(1);
/// How often that is looked at.
const POLL: Duration = Duration::from_millis(20);
/// How long the message may take that makes the standbys answer.
const MOVE_LIMIT: Duration = Duration::from_secs(1);
/// How long a commit is watched.
const PROBE_LIMIT: Duration = Duration::from_secs(2);

/// One task.
pub struct SyncErrand {
    /// Configuration in force.
    pub local: Arc<Local>,
    /// Who signals the postmaster.
    pub fence: FenceGuard,
    /// The observation the task was planned from.
    pub pg: PgView,
}

impl SyncErrand {
    /// Does it. What is not known to have happened counts as failed and is planned anew.
    pub async fn run(&self, task: SyncTask) -> SyncOutcome {
        let done = match &task {
            SyncTask::SetNames(text) => self.set_names(text).await,
            SyncTask::Probe => self.probe().await,
        };
        done.unwrap_or_else(|error| {
            tracing::warn!(?task, error = error.chain(), "synchronous replication");
            SyncOutcome::Failed
        })
    }

    async fn probe(&self) -> Result<SyncOutcome, Error> {
        Ok(match self.local.instance.probe_sync(PROBE_LIMIT).await? {
            SyncProbe::Waited => SyncOutcome::Done,
            SyncProbe::Acknowledged => {
                tracing::warn!(
                    "commits do not wait yet, whatever synchronous_standby_names says: is a checkpoint running?"
                );
                SyncOutcome::Acknowledged
            }
        })
    }

    async fn set_names(&self, text: &str) -> Result<SyncOutcome, Error> {
        let Some(recovery) = recovery_of(&self.pg) else {
            return Ok(SyncOutcome::Failed);
        };
        let instance = &self.local.instance;
        let _files = self.local.files.lock().await;
        let texts = self.local.config_texts(&recovery, &SyncNames::Given(text.to_owned()));
        instance.write_config(&texts).await?;
        instance.reload(&self.fence).await?;
        if !self.is_in_force(text).await? {
            // Only ALTER SYSTEM is read after our file.
            instance.forget_altered_sync_names(RELOAD_LIMIT).await?;
            instance.reload(&self.fence).await?;
            if !self.is_in_force(text).await? {
                tracing::error!("synchronous_standby_names stays other than what was set: {text:?}");
                return Ok(SyncOutcome::Failed);
            }
        }
        tracing::info!("Assigning synchronous_standby_names to {text:?}");
        if self.pg.says_primary()
            && let Err(error) = instance.move_wal(MOVE_LIMIT).await
        {
            // The text is in force all the same; commits that wait go on with the next one that writes.
            tracing::warn!(error = error.chain(), "the standbys were given nothing to answer");
        }
        Ok(SyncOutcome::Done)
    }

    async fn is_in_force(&self, text: &str) -> Result<bool, Error> {
        let until = clock::boot().plus(RELOAD_LIMIT);
        loop {
            if self.local.instance.synchronous_standby_names(RELOAD_LIMIT).await? == text {
                return Ok(true);
            }
            if clock::boot() >= until {
                return Ok(false);
            }
            sleep(POLL).await;
        }
    }
}
