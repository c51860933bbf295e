//! Flows: the long actions on the instance. Each is one async method that reports progress and can be cancelled; none
//! chooses anything.

pub(crate) mod basebackup;
pub(crate) mod bootstrap;
pub(crate) mod crash_recovery;
pub(crate) mod promote;
pub(crate) mod rewind;
pub(crate) mod start;
pub(crate) mod stop;

use pgha_core::pg::UnfinishedWork;
use tokio_util::sync::CancellationToken;

use crate::child::{Ended, Moment, Tool, run};
use crate::error::Error;
use crate::instance::Instance;
use crate::process::ProcessId;
use crate::unfinished::UnfinishedMarker;
use crate::wal::ShutdownCheckpoint;

/// What a flow tells while it runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Progress {
    /// The postmaster was started.
    Launched(ProcessId),
    /// A program wrote a line. It may hold anything; secrets were never given to it.
    Line {
        /// The program.
        program: &'static str,
        /// The line.
        text: String,
    },
    /// So much is copied.
    Bytes {
        /// Bytes so far.
        done: u64,
        /// Bytes in all, as the source estimates.
        total: Option<u64>,
    },
    /// During a stop: no user's backend is left, so nothing is committed any more.
    BackendsGone,
    /// During a stop: `pg_control` says `shut down`, while the postmaster may still be archiving or sending WAL.
    ShutdownCheckpoint(ShutdownCheckpoint),
}

/// Who listens to a flow and who may cancel it.
#[derive(Clone, Copy)]
pub struct Job<'a> {
    /// Cancels the flow.
    pub cancel: &'a CancellationToken,
    /// Hears its progress. Must not block.
    pub report: &'a (dyn Fn(Progress) + Send + Sync),
}

impl Job<'_> {
    pub(crate) fn say(&self, progress: Progress) {
        (self.report)(progress);
    }

    /// Runs a program, passing on its lines and the amounts in them.
    pub(crate) async fn run(&self, program: &'static str, tool: Tool) -> Result<Ended, Error> {
        run(tool, self.cancel, |m| self.hear(program, &m)).await
    }

    /// As [`Job::run`], for a program that leaves the data directory unusable while it runs: its process is noted in the
    /// mark. A second listener hears the lines.
    pub(crate) async fn run_marked(
        &self,
        program: &'static str,
        tool: Tool,
        mark: (&UnfinishedMarker, UnfinishedWork),
        mut listen: impl FnMut(&str) + Send,
    ) -> Result<Ended, Error> {
        let mut noted = Ok(());
        let stop = self.cancel.child_token();
        let ended = run(tool, &stop, |m| {
            if let Moment::Started(Some(worker)) = &m {
                noted = mark.0.set_worker(mark.1, *worker);
                if noted.is_err() {
                    stop.cancel();
                }
            }
            if let Moment::Line(line) = &m {
                listen(line);
            }
            self.hear(program, &m);
        })
        .await;
        noted?;
        ended
    }

    fn hear(&self, program: &'static str, moment: &Moment<'_>) {
        let Moment::Line(line) = moment else { return };
        match parse_amount(line) {
            Some((done, total)) => self.say(Progress::Bytes {
                done,
                total: Some(total),
            }),
            None => self.say(Progress::Line {
                program,
                text: (*line).to_string(),
            }),
        }
    }
}

impl Instance {
    /// The words of an error about the data directory.
    pub(crate) fn unsuitable(&self, reason: impl Into<String>) -> Error {
        Error::Unsuitable {
            data_dir: self.spec().data_dir.clone(),
            reason: reason.into(),
        }
    }
}

/// `  1234/5678 kB (21%), ...` as pg_basebackup and pg_rewind print it, in bytes.
fn parse_amount(line: &str) -> Option<(u64, u64)> {
    let (amounts, _) = line.trim_start().split_once(" kB (")?;
    let (done, total) = amounts.split_once('/')?;
    Some((
        done.parse::<u64>().ok()?.saturating_mul(1024),
        total.parse::<u64>().ok()?.saturating_mul(1024),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_told_from_other_lines() {
        assert_eq!(parse_amount("   10/20 kB (50%), 0/1 tablespace"), Some((10240, 20480)));
        assert_eq!(parse_amount("pg_basebackup: initiating base backup"), None);
        assert_eq!(parse_amount("a/b kB (x"), None);
    }
}
