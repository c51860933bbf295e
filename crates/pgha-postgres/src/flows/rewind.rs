//! Rewinds a diverged data directory with pg_rewind.
//!
//! pg_rewind reads first and writes later, and says `need to copy` in between. Before that line nothing has been
//! changed and the directory is as good as before; after it, only success makes the directory usable again, so the mark
//! stays.

use pgha_core::pg::{DataDir, UnfinishedWork};

use crate::child::Tool;
use crate::conninfo::ConnInfo;
use crate::data_dir::classify;
use crate::error::Error;
use crate::files::TemporaryPass;
use crate::flows::Job;
use crate::instance::Instance;
use crate::remote::reach;
use crate::removal::refuse_if_in_use;

/// pg_rewind's last words before it writes.
const BEFORE_WRITING: &str = "need to copy";
const NOTHING_TO_DO: &str = "no rewind required";

/// Reasons that pass by themselves.
const SOURCE_NOT_READY: [&str; 10] = [
    "could not connect to server",
    "connection to server",
    "server closed the connection",
    "the database system is",
    "terminating connection",
    "could not receive data from",
    "could not send data to",
    "source server must not be in recovery",
    "session is read-only",
    "could not translate host name",
];
/// Connection errors that only a person can mend.
const REFUSED_FOR_GOOD: [&str; 5] = [
    "authentication failed",
    "no pg_hba.conf entry",
    "does not exist",
    "no password supplied",
    "permission denied",
];

/// How to rewind.
#[derive(Clone, Debug)]
pub struct RewindRequest {
    /// `host` and `port` of the source; the rewind user and its options are added.
    pub source: ConnInfo,
    /// Let pg_rewind fetch missing WAL with the configured restore_command.
    pub restore_target_wal: bool,
    /// Further arguments, already checked by the caller.
    pub options: Vec<String>,
}

/// What became of a rewind.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RewindOutcome {
    /// The directory follows the source's history now.
    Done {
        /// False when pg_rewind found nothing to do.
        rewound: bool,
    },
    /// The source cannot be reached or is not a primary yet. Nothing was changed.
    SourceNotReady {
        /// pg_rewind's words.
        reason: String,
    },
    /// A WAL file is not in pg_wal any more. Nothing was changed.
    MissingWal {
        /// Its name.
        segment: String,
        /// pg_rewind's words.
        reason: String,
    },
    /// It failed and nothing was changed.
    Failed {
        /// pg_rewind's words.
        reason: String,
    },
    /// It was cancelled or failed after it had begun to write: the directory is damaged and stays marked.
    Interrupted {
        /// pg_rewind's words, or that it was cancelled.
        reason: String,
    },
}

impl Instance {
    /// Runs pg_rewind on the stopped data directory.
    ///
    /// # Errors
    /// [`Error::InUse`], [`Error::Unsuitable`]; [`Error::Cancelled`] when it was cancelled before it wrote anything.
    pub async fn rewind(&self, request: &RewindRequest, job: &Job<'_>) -> Result<RewindOutcome, Error> {
        self.unfinished().end_worker().await?;
        let program = self.server_program();
        let data_dir = self
            .on_disk(move |spec| {
                refuse_if_in_use(spec, &program)?;
                Ok(classify(spec, false))
            })
            .await?;
        let DataDir::Present(_) = data_dir else {
            return Err(self.unsuitable(format!("it must hold a cluster and is {data_dir:?}")));
        };
        let (mark, user) = (self.unfinished(), self.spec().rewind_user());
        let info = reach(&request.source, user, &self.spec().database).with("target_session_attrs", "read-write");
        let pass = TemporaryPass::new(&self.spec().state_dir, &info, user)?;
        let tool = self.rewind_tool(request, &info)?.env("PGPASSFILE", pass.path());
        mark.begin(UnfinishedWork::Rewind)?;
        let mut words = Words::default();
        let ended = job
            .run_marked("pg_rewind", tool, (&mark, UnfinishedWork::Rewind), |line| {
                words.hear(line)
            })
            .await;
        let failure = match ended.and_then(|e| e.success()) {
            Ok(_) => None,
            Err(Error::Failed { tail, .. }) => Some(tail),
            Err(e) if words.writing => Some(e.chain()),
            Err(e) => {
                mark.finish()?;
                return Err(e);
            }
        };
        let outcome = words.outcome(failure);
        if !matches!(outcome, RewindOutcome::Interrupted { .. }) {
            mark.finish()?;
        }
        Ok(outcome)
    }

    fn rewind_tool(&self, request: &RewindRequest, info: &ConnInfo) -> Result<Tool, Error> {
        let spec = self.spec();
        let mut tool = Tool::new(self.bin().path("pg_rewind")?);
        if request.restore_target_wal {
            tool = tool.arg("--restore-target-wal");
            if spec.config_dir != spec.data_dir {
                tool = tool.arg(format!(
                    "--config-file={}",
                    spec.config_dir.join("postgresql.conf").display()
                ));
            }
        }
        Ok(tool
            .arg("--progress")
            .arg(format!("--target-pgdata={}", spec.data_dir.display()))
            .arg(format!("--source-server={}", info.render()))
            .args(&request.options)
            .env("PGOPTIONS", "-c statement_timeout=0")
            .in_english())
    }
}

/// What pg_rewind said that matters.
#[derive(Default)]
struct Words {
    writing: bool,
    nothing_to_do: bool,
    missing: Option<String>,
}

impl Words {
    fn hear(&mut self, line: &str) {
        self.writing |= line.contains(BEFORE_WRITING);
        self.nothing_to_do |= line.contains(NOTHING_TO_DO);
        if let Some(segment) = missing_segment(line) {
            self.missing = Some(segment);
        }
    }

    fn outcome(self, failure: Option<String>) -> RewindOutcome {
        let Some(reason) = failure else {
            return RewindOutcome::Done {
                rewound: !self.nothing_to_do,
            };
        };
        let says = |list: &[&str]| list.iter().any(|words| reason.contains(words));
        if self.writing {
            RewindOutcome::Interrupted { reason }
        } else if let Some(segment) = self.missing {
            RewindOutcome::MissingWal { segment, reason }
        } else if says(&SOURCE_NOT_READY) && !says(&REFUSED_FOR_GOOD) {
            RewindOutcome::SourceNotReady { reason }
        } else {
            RewindOutcome::Failed { reason }
        }
    }
}

/// The name of the WAL file in `could not open file ".../pg_wal/0000000A00006AA100000068": ...`.
fn missing_segment(line: &str) -> Option<String> {
    let (_, rest) = line.split_once("could not open file \"")?;
    let (path, _) = rest.split_once('"')?;
    let (dir, name) = path.rsplit_once('/')?;
    let is_segment = name.len() == 24 && name.bytes().all(|b| b.is_ascii_hexdigit());
    (dir.ends_with("pg_wal") && is_segment).then(|| name.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(lines: &[&str], failure: Option<&str>) -> RewindOutcome {
        let mut words = Words::default();
        lines.iter().for_each(|l| words.hear(l));
        words.outcome(failure.map(str::to_string))
    }

    #[test]
    fn the_outcome_follows_from_what_was_said() {
        let missing = "pg_rewind: error: could not open file \"/d/pg_wal/000000010000000000000004\": No such file";
        assert_eq!(
            after(&["pg_rewind: no rewind required"], None),
            RewindOutcome::Done { rewound: false }
        );
        assert_eq!(
            after(&["pg_rewind: need to copy 3 MB"], None),
            RewindOutcome::Done { rewound: true }
        );
        assert!(matches!(
            after(&["pg_rewind: need to copy 3 MB"], Some("x")),
            RewindOutcome::Interrupted { .. }
        ));
        assert!(
            matches!(after(&[missing], Some(missing)), RewindOutcome::MissingWal { segment, .. } if segment == "000000010000000000000004")
        );
        let refused = "connection to server at \"h\" failed: Connection refused";
        assert!(matches!(
            after(&[], Some(refused)),
            RewindOutcome::SourceNotReady { .. }
        ));
        let password = "connection to server at \"h\" failed: FATAL:  password authentication failed for user \"r\"";
        assert!(matches!(after(&[], Some(password)), RewindOutcome::Failed { .. }));
    }

    #[test]
    fn only_a_wal_segment_counts_as_missing_wal() {
        assert_eq!(
            missing_segment("could not open file \"/d/base/1/2\": No such file"),
            None
        );
        assert_eq!(
            missing_segment("could not open file \"/d/pg_wal/archive_status\": x"),
            None
        );
    }
}
