//! Jobs that bring a node back behind the leader: follow, compare histories, recover, rewind, discard.

use std::time::Duration;

use pgha_core::job::{DivergenceFacts, JobFailure, JobOutcome, NextWal, Upstream};
use pgha_core::pg::{ControlState, SqlRole};
use pgha_core::rewind::DivergedWal;
use pgha_core::units::{Lsn, Timeline};
use pgha_postgres::{ConnInfo, Error, RewindOutcome, RewindRequest};
use pgha_wire::pgconf::guc::command_line;
use pgha_wire::pgconf::options::Tool;

use super::{Bench, address, failed, local_address};
use crate::clock;
use crate::driver::local::{Recovery, SyncNames};

/// Limit for each question to another server.
const REMOTE_LIMIT: Duration = Duration::from_secs(5);
/// How long a reloaded standby may take to show its new upstream.
const FOLLOW_SETTLE: Duration = Duration::from_secs(2);

impl Bench {
    pub(super) async fn follow(&self, upstream: Option<Upstream>) -> Result<JobOutcome, Error> {
        let instance = self.instance();
        self.write_passfile(upstream.as_ref())?;
        instance
            .write_config(
                &self
                    .local
                    .config_texts(&Recovery::Standby(upstream.clone()), &SyncNames::Nobody),
            )
            .await?;
        instance.set_standby(true).await?;
        instance.reload(&self.fence).await?;
        let until = clock::boot().plus(FOLLOW_SETTLE);
        while clock::boot() < until {
            let view = instance.observe(clock::boot(), Duration::from_secs(1)).await;
            let there = view.facts().is_some_and(|f| match &f.role {
                SqlRole::Standby(s) => pgha_core::conninfo::follows(s, upstream.as_ref()),
                SqlRole::Primary { .. } => false,
            });
            if there {
                return Ok(JobOutcome::Done);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(failed(
            JobFailure::TimedOut,
            "PostgreSQL did not take the new primary_conninfo over",
        ))
    }

    pub(super) async fn check_divergence(&self, source: &Upstream) -> Result<JobOutcome, Error> {
        let instance = self.instance();
        let there = address(source)?;
        let control = instance.control().await?.data;
        let running = instance.find_postmaster().await.process().is_some();
        let (local_timeline, local_lsn) = if running {
            let me = local_address(instance.spec());
            let identity = instance.identify_system(&me, REMOTE_LIMIT).await?;
            (identity.timeline, identity.position)
        } else if let (ControlState::ShutDownInRecovery | ControlState::InArchiveRecovery, Some(timeline)) =
            (control.state, control.min_recovery_timeline)
        {
            (timeline, control.min_recovery)
        } else {
            (control.checkpoint_timeline, control.checkpoint)
        };
        let recovering = matches!(
            control.state,
            ControlState::ShutDownInRecovery | ControlState::InArchiveRecovery
        );
        let shutdown = if running {
            None
        } else {
            instance.shutdown_checkpoint().await?
        };
        let own = instance.history(local_timeline).await?;
        let local_history: Vec<_> = own
            .map(|file| file.entries.iter().map(|e| (e.timeline, e.switchpoint)).collect())
            .unwrap_or_default();
        let remote = async {
            let (in_recovery, _) = instance.source_checkpoint(&there, REMOTE_LIMIT).await?;
            let identity = instance.identify_system(&there, REMOTE_LIMIT).await?;
            let history = instance
                .timeline_history(&there, identity.timeline, REMOTE_LIMIT)
                .await?;
            Ok::<_, Error>((in_recovery, identity.timeline, history))
        };
        let (leader_in_recovery, leader_timeline, history) = match remote.await {
            Ok(found) => found,
            Err(error) => return Ok(failed(JobFailure::SourceNotReady, error.chain())),
        };
        let leader_history: Vec<_> = history.into_iter().map(|e| (e.timeline, e.switchpoint)).collect();
        let begun_at = local_history.last().map(|(_, switchpoint)| *switchpoint);
        let same_promotion = match begun_at {
            Some(from) => instance
                .is_same_promotion(&there, local_timeline, from, local_lsn, REMOTE_LIMIT)
                .await
                .unwrap_or_else(|error| {
                    tracing::debug!(error = error.chain(), "the timeline's first records were not compared");
                    None
                }),
            None => None,
        };
        let next_wal = match running {
            true => self.next_wal(&there, local_lsn).await,
            false => NextWal::NotKnown,
        };
        Ok(JobOutcome::Divergence(DivergenceFacts {
            local_timeline,
            local_lsn,
            was_primary: !running && !control.recovery_signal && !recovering,
            shutdown_checkpoint_end: shutdown.and_then(|s| s.end),
            leader_timeline,
            leader_in_recovery,
            local_history,
            leader_history,
            same_promotion,
            next_wal,
        }))
    }

    /// What comes next is asked about only while PostgreSQL waits for it: until then it lives on what it has.
    async fn next_wal(&self, there: &ConnInfo, at: Lsn) -> NextWal {
        let instance = self.instance();
        let kept = async {
            let Some(waits) = instance.waits_for_wal(REMOTE_LIMIT).await? else {
                return Ok(NextWal::NotKnown);
            };
            let archive = waits.archive;
            let kept = instance.keeps_wal_from(there, at, REMOTE_LIMIT).await?;
            Ok::<_, Error>(if kept { NextWal::Kept } else { NextWal::Gone { archive } })
        };
        kept.await.unwrap_or_else(|error| {
            tracing::debug!(
                error = error.chain(),
                "whether the leader keeps the next WAL is not known"
            );
            NextWal::NotKnown
        })
    }

    pub(super) async fn crash_recovery(&self) -> Result<JobOutcome, Error> {
        let report = self.report();
        let job = pgha_postgres::Job {
            cancel: &self.cancel,
            report: &report,
        };
        let instance = self.instance();
        instance
            .write_config(&self.local.config_texts(&Recovery::None, &SyncNames::Nobody))
            .await?;
        instance
            .crash_recovery(&command_line(&self.local.effective.parameters.controlled), &job)
            .await?;
        Ok(JobOutcome::Done)
    }

    pub(super) async fn rewind(
        &self,
        source: &Upstream,
        discards: Option<DivergedWal>,
        keep_aside: bool,
    ) -> Result<JobOutcome, Error> {
        let there = address(source)?;
        // pg_rewind believes the source's last checkpoint: before the one after promotion it finds nothing to do.
        let identity = self.instance().identify_system(&there, REMOTE_LIMIT).await;
        let checkpoint = self.instance().source_checkpoint(&there, REMOTE_LIMIT).await;
        match (identity, checkpoint) {
            (Ok(now), Ok((false, checkpoint))) if checkpoint == now.timeline => {}
            (Ok(now), Ok((false, checkpoint))) => return Ok(not_checkpointed(source, now.timeline, checkpoint)),
            (Ok(_), Ok((true, _))) => {
                return Ok(failed(
                    JobFailure::SourceNotReady,
                    format!("{} is in recovery", source.name),
                ));
            }
            (Err(e), _) | (_, Err(e)) => return Ok(failed(JobFailure::SourceNotReady, e.chain())),
        }
        let report = self.report();
        let job = pgha_postgres::Job {
            cancel: &self.cancel,
            report: &report,
        };
        if let Some(wal) = discards {
            self.tell_discarded(wal, keep_aside).await?;
        }
        self.archive_leftovers(&job).await;
        let request = RewindRequest {
            source: there,
            restore_target_wal: self.local.effective.recovery_conf.contains_key("restore_command"),
            options: self.options(Tool::Rewind, &self.local.effective.rewind),
        };
        Ok(match self.instance().rewind(&request, &job).await? {
            RewindOutcome::Done { rewound } => {
                tracing::info!(rewound, source = source.name.as_str(), "pg_rewind is done");
                JobOutcome::Done
            }
            RewindOutcome::SourceNotReady { reason } => failed(JobFailure::SourceNotReady, reason),
            RewindOutcome::MissingWal { segment, reason } => failed(
                JobFailure::Nothing,
                format!("WAL segment {segment} is missing: {reason}"),
            ),
            RewindOutcome::Failed { reason } => failed(JobFailure::Nothing, reason),
            RewindOutcome::Interrupted { reason } => failed(JobFailure::Damaged, reason),
        })
    }

    /// Nothing is discarded silently.
    async fn tell_discarded(&self, wal: DivergedWal, keep_aside: bool) -> Result<(), Error> {
        let DivergedWal { timeline, from, to } = wal;
        let bytes = wal.bytes();
        tracing::warn!(
            %timeline, %from, %to, bytes,
            "pg_rewind discards WAL that is not in the leader's history, with everything committed in it"
        );
        if keep_aside {
            let kept = self.instance().keep_wal(wal).await?;
            tracing::warn!(path = %kept.path.display(), files = kept.files, "the WAL was copied aside");
        }
        Ok(())
    }

    /// pg_rewind removes WAL that only this node has; what was not archived yet goes to the archive first.
    async fn archive_leftovers(&self, job: &pgha_postgres::Job<'_>) {
        let parameters = &self.local.effective.parameters.file;
        let archiving = parameters
            .get("archive_mode")
            .is_some_and(|mode| matches!(mode.as_str(), "on" | "always"));
        let Some(command) = parameters.get("archive_command").filter(|c| archiving && !c.is_empty()) else {
            return;
        };
        match self.instance().archive_ready(command, job).await {
            Ok(count) => tracing::info!(count, "archived what was left before pg_rewind"),
            Err(error) => tracing::warn!(error = error.chain(), "not everything was archived before pg_rewind"),
        }
    }

    pub(super) async fn discard(&self, keep_aside: bool, reason: &str) -> Result<JobOutcome, Error> {
        if keep_aside {
            let suffix = format!(".failed-{}", clock::now().wall.0 / 1_000_000);
            let path = self.instance().set_aside(&suffix).await?;
            tracing::warn!(reason, path = %path.display(), "the data directory was put aside");
        } else {
            tracing::warn!(reason, "removing the data directory");
            self.instance().wipe().await?;
        }
        Ok(JobOutcome::Done)
    }
}

fn not_checkpointed(source: &Upstream, now: Timeline, checkpoint: Timeline) -> JobOutcome {
    let reason = format!(
        "Waiting for checkpoint on {} before rewind (timeline {now}, checkpoint on {checkpoint})",
        source.name
    );
    failed(JobFailure::SourceNotReady, reason)
}
