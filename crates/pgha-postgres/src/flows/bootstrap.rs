//! Makes a new cluster: initdb, then roles and the operator's script.
//!
//! Passwords reach initdb through a private file and the server as SCRAM verifiers computed here, so no log setting can
//! leak them; statement logging is off in that session all the same. The data directory stays marked as an unfinished
//! bootstrap until the caller removes the mark, when the cluster's key is in place.

use std::path::{Path, PathBuf};
use std::time::Duration;

use pgha_core::pg::UnfinishedWork;
use postgres_protocol::password::scram_sha_256;

use crate::child::Tool;
use crate::control::ControlFile;
use crate::error::Error;
use crate::files::TemporaryPass;
use crate::flows::Job;
use crate::flows::basebackup::prepare_empty;
use crate::instance::Instance;
use crate::spec::Credentials;
use crate::sql::{CONNECT_LIMIT, Purpose, Session, identifier, literal};

/// Longest wait for one statement about roles.
const STATEMENT_LIMIT: Duration = Duration::from_secs(60);

/// Keeps statements out of every log this session could write them to. Settings of extensions that are not loaded are
/// accepted as placeholders.
const SILENCE: &str = "SET log_statement = 'none'; SET log_min_duration_statement = -1; \
    SET log_min_duration_sample = -1; SET log_transaction_sample_rate = 0; SET log_min_error_statement = 'panic'; \
    SET pg_stat_statements.track_utility = 'off'; SET pgaudit.log = 'none'";

/// What pg_rewind needs to be allowed when it is not superuser.
const REWIND_FUNCTIONS: [&str; 4] = [
    "pg_ls_dir(text, boolean, boolean)",
    "pg_stat_file(text, boolean)",
    "pg_read_binary_file(text)",
    "pg_read_binary_file(text, bigint, bigint, boolean)",
];

/// What follows the first start.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PostBootstrap {
    /// The operator's script and its arguments; a connection string is added. `None` for no script.
    pub script: Option<(PathBuf, Vec<String>)>,
}

impl Instance {
    /// Runs initdb with these further arguments (already checked by the caller) in the empty data directory.
    ///
    /// # Errors
    /// [`Error::Unsuitable`] when the directory is not empty; initdb's own failure.
    pub async fn initdb(&self, options: &[String], job: &Job<'_>) -> Result<ControlFile, Error> {
        self.unfinished().end_worker().await?;
        self.on_disk(prepare_empty).await?;
        let (mark, superuser) = (self.unfinished(), &self.spec().superuser);
        let password = superuser.password.as_ref();
        let password_file = password
            .map(|p| TemporaryPass::bare(&self.spec().state_dir, p))
            .transpose()?;
        mark.begin(UnfinishedWork::Bootstrap)?;
        let mut tool = Tool::new(self.bin().path("initdb")?)
            .arg(format!("--pgdata={}", self.spec().data_dir.display()))
            .arg(format!("--username={}", superuser.user))
            .args(options);
        if let Some(file) = &password_file {
            tool = tool.arg(format!("--pwfile={}", file.path().display()));
        }
        job.run_marked("initdb", tool, (&mark, UnfinishedWork::Bootstrap), |_| {})
            .await?
            .success()?;
        self.control().await
    }

    /// Creates or alters the superuser, the replication user and the rewind user on the running primary, and runs the
    /// operator's script in between, as Patroni does.
    ///
    /// # Errors
    /// PostgreSQL refuses a statement; the script ends with an exit code other than 0.
    pub async fn post_bootstrap(&self, request: &PostBootstrap, job: &Job<'_>) -> Result<(), Error> {
        let spec = self.spec();
        let session = Session::open(spec, Purpose::Action, CONNECT_LIMIT).await?;
        session.rows("silence the log", SILENCE, STATEMENT_LIMIT).await?;
        if spec.superuser.password.is_some() {
            make_role(&session, &spec.superuser, "SUPERUSER").await?;
        }
        if let Some((script, args)) = &request.script {
            self.run_script(script, args, job).await?;
        }
        make_role(&session, &spec.replication, "REPLICATION").await?;
        if let Some(rewind) = &spec.rewind {
            make_role(&session, rewind, "").await?;
            let grant = |function| {
                format!(
                    "GRANT EXECUTE ON FUNCTION pg_catalog.{function} TO {}",
                    identifier(&rewind.user)
                )
            };
            let grants: Vec<String> = REWIND_FUNCTIONS.iter().map(grant).collect();
            session
                .rows("grant pg_rewind's functions", &grants.join("; "), STATEMENT_LIMIT)
                .await?;
        }
        Ok(())
    }

    async fn run_script(&self, script: &Path, args: &[String], job: &Job<'_>) -> Result<(), Error> {
        let info = self.spec().local_conninfo();
        let pass = TemporaryPass::new(&self.spec().state_dir, &info, &self.spec().superuser)?;
        let tool = Tool::new(script.to_path_buf())
            .args(args)
            .arg(info.render())
            .env("PGPASSFILE", pass.path())
            .env("PGOPTIONS", "-c synchronous_commit=local -c statement_timeout=0");
        job.run("post_bootstrap", tool).await?.success().map(drop)
    }
}

async fn make_role(session: &Session, role: &Credentials, attributes: &str) -> Result<(), Error> {
    let what = format!("create role {}", role.user);
    let exists = format!(
        "SELECT 1 FROM pg_catalog.pg_authid WHERE rolname = {}",
        literal(&role.user)
    );
    let verb = match session.value(&what, &exists, STATEMENT_LIMIT).await? {
        Some(_) => "ALTER",
        None => "CREATE",
    };
    let password = role.password.as_ref().map(|p| {
        let verifier = scram_sha_256(p.expose().as_bytes());
        format!(" PASSWORD {}", literal(&verifier))
    });
    let statement = format!(
        "{verb} ROLE {} WITH {attributes} LOGIN{}",
        identifier(&role.user),
        password.unwrap_or_default()
    );
    session.rows(&what, &statement, STATEMENT_LIMIT).await.map(drop)
}
