//! Clones another member with pg_basebackup.
//!
//! The data directory is marked unfinished before and until the clone has ended well. One try: whether to try again, or
//! from somebody else, is decided by the caller, who wipes the directory first.

use std::os::unix::fs::DirBuilderExt;

use pgha_core::pg::{DataDir, UnfinishedWork};

use crate::child::Tool;
use crate::config_files;
use crate::conninfo::ConnInfo;
use crate::control::{ControlFile, read_control};
use crate::data_dir::classify;
use crate::error::Error;
use crate::files::{PRIVATE_DIR, TemporaryPass};
use crate::flows::Job;
use crate::instance::Instance;
use crate::remote::reach;

/// What to clone from.
#[derive(Clone, Debug)]
pub struct BasebackupRequest {
    /// `host` and `port` of the source; the replication user and its options are added.
    pub source: ConnInfo,
    /// Further arguments, already checked by the caller.
    pub options: Vec<String>,
}

impl Instance {
    /// Runs pg_basebackup into the empty data directory and puts back missing configuration files.
    ///
    /// # Errors
    /// [`Error::Unsuitable`] when the directory is not empty; pg_basebackup's own failure. After an error or a
    /// cancellation the directory stays marked as an unfinished clone until it is wiped.
    pub async fn basebackup(&self, request: &BasebackupRequest, job: &Job<'_>) -> Result<ControlFile, Error> {
        self.unfinished().end_worker().await?;
        self.on_disk(prepare_empty).await?;
        let (mark, user) = (self.unfinished(), &self.spec().replication);
        let info = reach(&request.source, user, &self.spec().database);
        let pass = TemporaryPass::new(&self.spec().state_dir, &info, user)?;
        mark.begin(UnfinishedWork::Clone)?;
        let tool = Tool::new(self.bin().path("pg_basebackup")?)
            .arg(format!("--pgdata={}", self.spec().data_dir.display()))
            .args(["-X", "stream", "--progress", "--no-password"])
            .arg(format!("--dbname={}", info.render()))
            .args(&request.options)
            .env("PGPASSFILE", pass.path())
            .in_english();
        job.run_marked("pg_basebackup", tool, (&mark, UnfinishedWork::Clone), |_| {})
            .await?
            .success()?;
        self.on_disk(|spec| {
            config_files::restore_copies(spec)?;
            read_control(&spec.data_dir)
        })
        .await
        .and_then(|control| mark.finish().map(|()| control))
    }
}

/// Checks that the data directory may be filled, and creates it if it is missing.
pub(crate) fn prepare_empty(spec: &crate::InstanceSpec) -> Result<(), Error> {
    let dir = &spec.data_dir;
    match classify(spec, false) {
        DataDir::Empty if dir.exists() => Ok(()),
        DataDir::Empty => std::fs::DirBuilder::new()
            .mode(PRIVATE_DIR)
            .create(dir)
            .map_err(Error::io("create", dir)),
        other => Err(Error::Unsuitable {
            data_dir: dir.clone(),
            reason: format!("it must be empty and is {other:?}"),
        }),
    }
}
