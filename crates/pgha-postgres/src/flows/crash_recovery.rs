//! Brings a crashed data directory to a clean shutdown with a single-user server, so that pg_rewind accepts it.
//!
//! Archiving is switched on with a command that always fails, so that no WAL is recycled which was not archived yet.

use crate::child::Tool;
use crate::config_files;
use crate::control::ControlFile;
use crate::error::Error;
use crate::flows::Job;
use crate::instance::Instance;
use crate::removal::refuse_if_in_use;

impl Instance {
    /// Runs `postgres --single` on an empty input. `options` are the server's usual `--name=value` arguments.
    /// Removes standby.signal, which single-user mode refuses.
    ///
    /// # Errors
    /// [`Error::InUse`]; [`Error::Failed`] with the server's last words. A cancellation leaves a directory that
    /// recovers again.
    pub async fn crash_recovery(&self, options: &[String], job: &Job<'_>) -> Result<ControlFile, Error> {
        let program = self.server_program();
        self.on_disk(move |spec| {
            refuse_if_in_use(spec, &program)?;
            config_files::set_standby_signal(&spec.data_dir, false)?;
            config_files::clean_auto_conf(&spec.data_dir).map(drop)
        })
        .await?;
        let config = self.spec().config_dir.join("postgresql.conf");
        let tool = Tool::new(self.bin().path("postgres")?)
            .arg("--single")
            .arg("-D")
            .arg(self.spec().data_dir.as_os_str())
            .arg(format!("--config-file={}", config.display()))
            .args(options)
            .args(["-c", "archive_mode=on", "-c", "archive_command=false", "template1"])
            .cwd(&self.spec().data_dir);
        job.run("postgres --single", tool).await?.success()?;
        self.control().await
    }
}
