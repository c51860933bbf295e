//! The `postgresql` section that counts: the file over the dynamic configuration over the defaults.
//!
//! The file wins key by key; below `parameters` it wins parameter by parameter, except for those that the cluster
//! controls, which come from the dynamic configuration only. Mappings such as `callbacks` are taken as a whole.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use super::LocalConfig;
use super::finding::{Finding, Problem, Report, Severity};
use super::postgresql::{Callbacks, Tunable, read_tunable};
use super::section::Section;
use crate::pgconf::guc::{ParameterInput, Parameters, plan_parameters};
use crate::pgconf::options::ToolOption;
use crate::yaml::{Location, Node};

/// Patroni's default for `pg_ctl_timeout`.
const DEFAULT_PG_CTL_TIMEOUT_S: u32 = 60;
/// What findings call the dynamic configuration.
const SOURCE: &str = "dynamic configuration";

/// What the agent does PostgreSQL's work with. Everything has its value; `None` means "none", not "unknown".
#[derive(Clone, PartialEq, Debug)]
pub struct EffectivePostgres {
    /// Server parameters by where they go.
    pub parameters: Parameters,
    /// Recovery parameters, those found among the server parameters included.
    pub recovery_conf: BTreeMap<String, String>,
    /// Lines of pg_hba.conf; `None` = the file is not ours.
    pub pg_hba: Option<Vec<String>>,
    /// Lines of pg_ident.conf; `None` = the file is not ours.
    pub pg_ident: Option<Vec<String>>,
    /// Path of pg_hba.conf.
    pub hba_file: PathBuf,
    /// Path of pg_ident.conf.
    pub ident_file: PathBuf,
    /// Where the configuration files are.
    pub config_dir: PathBuf,
    /// Name of the configuration file without `.conf`.
    pub config_base_name: String,
    /// Included instead of the original file.
    pub custom_conf: Option<PathBuf>,
    /// Directory of PostgreSQL's programs; `None` = `PATH`.
    pub bin_dir: Option<PathBuf>,
    /// Other names for programs.
    pub bin_name: BTreeMap<String, String>,
    /// Database to connect to.
    pub database: String,
    /// Kerberos service name.
    pub krbsrvname: Option<String>,
    /// Connect to the own PostgreSQL by socket.
    pub use_unix_socket: bool,
    /// The same for replication connections to itself.
    pub use_unix_socket_repl: bool,
    /// The agent keeps replication slots for members; from the dynamic configuration only.
    pub use_slots: bool,
    /// Use pg_rewind on diverged nodes.
    pub use_pg_rewind: bool,
    /// Options of pg_rewind.
    pub rewind: Vec<ToolOption>,
    /// Clone anew after pg_rewind has failed.
    pub remove_data_directory_on_rewind_failure: bool,
    /// Clone anew instead of pg_rewind.
    pub remove_data_directory_on_diverged_timelines: bool,
    /// Options of pg_basebackup.
    pub basebackup: Vec<ToolOption>,
    /// Commands to run on events.
    pub callbacks: Callbacks,
    /// Command that may veto a promotion.
    pub pre_promote: Option<String>,
    /// Command to run before PostgreSQL is stopped.
    pub before_stop: Option<String>,
    /// Seconds that pg_ctl waits.
    pub pg_ctl_timeout_s: u32,
    /// What was not taken as written. An error among them means that the dynamic configuration has a wrong shape: the
    /// caller keeps the result of the last good one if there is one.
    pub findings: Vec<Finding>,
}

/// Puts the file over the dynamic configuration (the whole of `/config`).
pub fn effective_postgresql(local: &LocalConfig, dynamic: &Json) -> EffectivePostgres {
    let report = RefCell::new(Report::new(vec![SOURCE.to_string()]));
    let at = Location::default();
    let node = dynamic.get("postgresql").map(|json| Node::from_json(json, at));
    let mut section = Section::new(&report, "postgresql", node.as_ref(), false);
    let theirs = read_tunable(&mut section);
    let use_slots = section.flag("use_slots").unwrap_or(true);
    let ours = local.postgresql.tunable.clone();

    let empty = BTreeMap::new();
    let mut parameters = plan_parameters(&ParameterInput {
        dynamic: theirs.parameters.as_ref().unwrap_or(&empty),
        local: ours.parameters.as_ref().unwrap_or(&empty),
        listen: &local.postgresql.listen,
        scope: &local.scope,
    });
    for (name, reason) in std::mem::take(&mut parameters.rejected) {
        report.borrow_mut().add(
            Severity::Warning,
            at,
            &format!("postgresql.parameters.{name}"),
            Problem::Note(reason),
        );
    }
    let findings = report.into_inner().into_findings();
    merge(local, ours, theirs, parameters, use_slots, findings)
}

fn merge(
    local: &LocalConfig,
    ours: Tunable,
    theirs: Tunable,
    mut parameters: Parameters,
    use_slots: bool,
    findings: Vec<Finding>,
) -> EffectivePostgres {
    let config_dir = local
        .postgresql
        .config_dir
        .clone()
        .unwrap_or_else(|| local.postgresql.data_dir.clone());
    let mut recovery_conf = std::mem::take(&mut parameters.recovery);
    recovery_conf.extend(ours.recovery_conf.or(theirs.recovery_conf).unwrap_or_default());
    let (hba_file, own_hba) = config_file(&config_dir, parameters.file.remove("hba_file"), "pg_hba.conf");
    let (ident_file, own_ident) = config_file(&config_dir, parameters.file.remove("ident_file"), "pg_ident.conf");
    EffectivePostgres {
        recovery_conf,
        // Lines for a file that is somewhere else would overwrite what somebody else looks after.
        pg_hba: ours.pg_hba.or(theirs.pg_hba).filter(|_| own_hba),
        pg_ident: ours.pg_ident.or(theirs.pg_ident).filter(|_| own_ident),
        hba_file,
        ident_file,
        config_dir,
        config_base_name: ours
            .config_base_name
            .or(theirs.config_base_name)
            .unwrap_or_else(|| "postgresql".to_string()),
        custom_conf: ours.custom_conf.or(theirs.custom_conf),
        bin_dir: ours.bin_dir.or(theirs.bin_dir),
        bin_name: ours.bin_name.or(theirs.bin_name).unwrap_or_default(),
        database: ours
            .database
            .or(theirs.database)
            .unwrap_or_else(|| "postgres".to_string()),
        krbsrvname: ours.krbsrvname.or(theirs.krbsrvname),
        use_unix_socket: ours.use_unix_socket.or(theirs.use_unix_socket).unwrap_or(false),
        use_unix_socket_repl: ours
            .use_unix_socket_repl
            .or(theirs.use_unix_socket_repl)
            .unwrap_or(false),
        use_slots,
        use_pg_rewind: ours.use_pg_rewind.or(theirs.use_pg_rewind).unwrap_or(false),
        rewind: ours.rewind.or(theirs.rewind).unwrap_or_default(),
        remove_data_directory_on_rewind_failure: ours
            .remove_data_directory_on_rewind_failure
            .or(theirs.remove_data_directory_on_rewind_failure)
            .unwrap_or(false),
        remove_data_directory_on_diverged_timelines: ours
            .remove_data_directory_on_diverged_timelines
            .or(theirs.remove_data_directory_on_diverged_timelines)
            .unwrap_or(false),
        basebackup: ours.basebackup.or(theirs.basebackup).unwrap_or_default(),
        callbacks: ours.callbacks.or(theirs.callbacks).unwrap_or_default(),
        pre_promote: ours.pre_promote.or(theirs.pre_promote),
        before_stop: ours.before_stop.or(theirs.before_stop),
        pg_ctl_timeout_s: ours
            .pg_ctl_timeout
            .or(theirs.pg_ctl_timeout)
            .unwrap_or(DEFAULT_PG_CTL_TIMEOUT_S),
        parameters,
        findings,
    }
}

/// The path of a configuration file, and whether it is the usual one.
fn config_file(config_dir: &Path, configured: Option<String>, default: &str) -> (PathBuf, bool) {
    let usual = config_dir.join(default);
    match configured {
        None => (usual, true),
        Some(path) => {
            let path = config_dir.join(path);
            let is_usual = path == usual;
            (path, is_usual)
        }
    }
}
