//! The section `postgresql`: what only this file says ([`Postgresql`]) and what the dynamic configuration may say as
//! well ([`Tunable`]).

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::finding::Severity;
use super::rest::{HOST_PORT, read_connect_address};
use super::section::Section;
use super::tools::read_options;
use crate::pgconf::address::{HostPort, Listen, is_any, parse_host_port, parse_listen};
use crate::pgconf::credentials::Credentials;
use crate::pgconf::guc::{is_controlled, is_guc_name};
use crate::pgconf::options::{Tool, ToolOption};
use crate::yaml::Value;

/// Port of PostgreSQL when none is written.
const DEFAULT_PORT: u16 = 5432;
const LISTEN: &str = "\"HOST:PORT\", also several hosts \"HOST,HOST:PORT\"";

/// The section `postgresql` of the local file.
#[derive(Clone, PartialEq, Debug)]
pub struct Postgresql {
    /// What PostgreSQL listens on.
    pub listen: Listen,
    /// How others reach this PostgreSQL.
    pub connect_address: HostPort,
    /// A proxy in front of it, for clients.
    pub proxy_address: Option<HostPort>,
    /// The data directory.
    pub data_dir: PathBuf,
    /// Where the configuration files are; the data directory when absent.
    pub config_dir: Option<PathBuf>,
    /// Password file that the agent writes. Patroni's default is `~/pgpass`.
    pub pgpass: Option<PathBuf>,
    /// Roles that the agent uses.
    pub authentication: Authentication,
    /// What the dynamic configuration may say as well.
    pub tunable: Tunable,
}

/// The section `postgresql.authentication`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Authentication {
    /// For everything local.
    pub superuser: Credentials,
    /// For standbys.
    pub replication: Credentials,
    /// For pg_rewind; the superuser when absent.
    pub rewind: Option<Credentials>,
}

impl Authentication {
    /// Whom pg_rewind connects as.
    pub fn rewind_credentials(&self) -> &Credentials {
        self.rewind.as_ref().unwrap_or(&self.superuser)
    }
}

/// Keys of `postgresql` that may stand in the file and in the dynamic configuration. `None` = not said here, so that
/// the file can override with an empty value too.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Tunable {
    /// Directory of PostgreSQL's programs; `PATH` when absent.
    pub bin_dir: Option<PathBuf>,
    /// Other names for programs.
    pub bin_name: Option<BTreeMap<String, String>>,
    /// Name of the configuration file without `.conf`.
    pub config_base_name: Option<String>,
    /// Included instead of the original postgresql.conf.
    pub custom_conf: Option<PathBuf>,
    /// Database to connect to.
    pub database: Option<String>,
    /// Kerberos service name.
    pub krbsrvname: Option<String>,
    /// Connect to the own PostgreSQL by socket.
    pub use_unix_socket: Option<bool>,
    /// The same for replication connections to itself.
    pub use_unix_socket_repl: Option<bool>,
    /// Server parameters, each with its text as written.
    pub parameters: Option<BTreeMap<String, String>>,
    /// Lines of pg_hba.conf.
    pub pg_hba: Option<Vec<String>>,
    /// Lines of pg_ident.conf.
    pub pg_ident: Option<Vec<String>>,
    /// Recovery parameters.
    pub recovery_conf: Option<BTreeMap<String, String>>,
    /// Use pg_rewind on diverged nodes.
    pub use_pg_rewind: Option<bool>,
    /// Options of pg_rewind.
    pub rewind: Option<Vec<ToolOption>>,
    /// Clone anew after pg_rewind has failed.
    pub remove_data_directory_on_rewind_failure: Option<bool>,
    /// Clone anew instead of pg_rewind.
    pub remove_data_directory_on_diverged_timelines: Option<bool>,
    /// Keep WAL that pg_rewind or a new clone would discard. pgha's own.
    pub keep_diverged_wal: Option<bool>,
    /// Options of pg_basebackup.
    pub basebackup: Option<Vec<ToolOption>>,
    /// Commands to run on events.
    pub callbacks: Option<Callbacks>,
    /// Command that may veto a promotion.
    pub pre_promote: Option<String>,
    /// Command to run before PostgreSQL is stopped.
    pub before_stop: Option<String>,
    /// Seconds that pg_ctl waits.
    pub pg_ctl_timeout: Option<u32>,
}

/// The section `postgresql.callbacks`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Callbacks {
    /// After a start.
    pub on_start: Option<String>,
    /// After a stop.
    pub on_stop: Option<String>,
    /// After a restart.
    pub on_restart: Option<String>,
    /// After a reload.
    pub on_reload: Option<String>,
    /// After a change of role.
    pub on_role_change: Option<String>,
}

/// Reads the local section; `None` when something that has no default is missing or wrong.
pub(super) fn read_postgresql(mut section: Section<'_>) -> Option<Postgresql> {
    let listen = section.parsed("listen", LISTEN, |text| parse_listen(text, Some(DEFAULT_PORT)));
    let listen = section.required("listen", LISTEN, listen);
    let port = listen.as_ref().map(|listen| listen.port);
    let concrete = listen.as_ref().and_then(|listen| {
        let host = listen
            .hosts
            .iter()
            .find(|host| !is_any(host))
            .or(listen.hosts.first())?;
        Some(HostPort {
            host: host.clone(),
            port: listen.port,
        })
    });
    let connect_address = read_connect_address(&mut section, "connect_address", concrete, port);
    let proxy_address = section.parsed("proxy_address", HOST_PORT, |text| parse_host_port(text, port));
    let data_dir = section.file("data_dir");
    let data_dir = section.required("data_dir", "a path", data_dir);
    let config_dir = section.file("config_dir");
    let pgpass = section.file("pgpass");
    let authentication = read_authentication(&mut section);
    let tunable = read_tunable(&mut section);
    warn_of_local_limits(&mut section, &tunable);
    section.finish();
    Some(Postgresql {
        listen: listen?,
        connect_address: connect_address?,
        proxy_address,
        data_dir: data_dir?,
        config_dir,
        pgpass,
        authentication,
        tunable,
    })
}

/// Things that are right in the dynamic configuration and without effect in a file.
fn warn_of_local_limits(section: &mut Section<'_>, tunable: &Tunable) {
    if section.node("use_slots").is_some() {
        section.note(
            Severity::Warning,
            "use_slots",
            "counts from the dynamic configuration only and has no effect here",
        );
    }
    let parameters = section
        .node("parameters")
        .and_then(|node| node.entries())
        .unwrap_or_default();
    let given = tunable.parameters.as_ref();
    for entry in parameters
        .iter()
        .filter(|entry| given.is_some_and(|map| map.contains_key(&entry.key.text)))
    {
        if is_controlled(&entry.key.text) {
            let path = format!("{}.{}", section.path_of("parameters"), entry.key.text);
            let text = "must be the same on all members, so it counts from the dynamic configuration only and has no effect here";
            section.note_at(Severity::Warning, entry.at, &path, text);
        }
    }
    section.accept(&["name"]);
}

fn read_authentication(section: &mut Section<'_>) -> Authentication {
    let mut auth = section.secret_section("authentication");
    let mut out = Authentication::default();
    // Before `authentication` existed the roles stood directly below `postgresql`.
    for (key, place) in [("superuser", &mut out.superuser), ("replication", &mut out.replication)] {
        let from_auth = auth.node(key).is_some();
        let old = section.node(key);
        if let (false, Some(node)) = (from_auth, old) {
            section.note_at(
                Severity::Warning,
                node.at,
                &section.path_of(key),
                format!("belongs to `authentication.{key}`"),
            );
            *place = read_credentials(section.secret_section(key));
        } else {
            *place = read_credentials(auth.section(key));
        }
    }
    if auth.node("rewind").is_some() {
        out.rewind = Some(read_credentials(auth.section("rewind")));
    } else if section.node("pg_rewind").is_some() {
        section.note(Severity::Warning, "pg_rewind", "belongs to `authentication.rewind`");
        out.rewind = Some(read_credentials(section.secret_section("pg_rewind")));
    }
    if out.replication.username.is_none() {
        let mut replication = auth.section("replication");
        replication.required("username", "the name of a role", out.replication.username.clone());
    }
    auth.finish();
    out
}

fn read_credentials(mut section: Section<'_>) -> Credentials {
    let credentials = Credentials {
        username: section.loose_text("username", false),
        password: section.secret("password"),
        sslmode: section.word_text(
            "sslmode",
            &["disable", "allow", "prefer", "require", "verify-ca", "verify-full"],
        ),
        sslcert: section.text("sslcert"),
        sslkey: section.text("sslkey"),
        sslpassword: section.secret("sslpassword"),
        sslrootcert: section.text("sslrootcert"),
        sslcrl: section.text("sslcrl"),
        sslcrldir: section.text("sslcrldir"),
        gssencmode: section.word_text("gssencmode", &["disable", "prefer", "require"]),
        channel_binding: section.word_text("channel_binding", &["disable", "prefer", "require"]),
        sslnegotiation: section.word_text("sslnegotiation", &["postgres", "direct"]),
    };
    section.finish();
    credentials
}

/// Reads the keys that both sources share. Does not warn of unknown keys.
pub(super) fn read_tunable(section: &mut Section<'_>) -> Tunable {
    for key in ["create_replica_methods", "create_replica_method"] {
        read_replica_methods(section, key);
    }
    for key in [
        "parameters_primary",
        "parameters_replica",
        "parameters_standby_leader",
        "pg_hba_primary",
        "pg_hba_replica",
        "pg_hba_standby_leader",
        "pg_ident_primary",
        "pg_ident_replica",
        "pg_ident_standby_leader",
    ] {
        if section.node(key).is_some() {
            section.note(
                Severity::Warning,
                key,
                "is not supported yet by this version and has no effect",
            );
        }
    }
    let mut bin_name = section.section("bin_name");
    bin_name.accept(&[
        "pg_ctl",
        "initdb",
        "pg_controldata",
        "pg_basebackup",
        "postgres",
        "pg_isready",
        "pg_rewind",
    ]);
    bin_name.finish();
    Tunable {
        bin_dir: section.file("bin_dir"),
        bin_name: section.text_map("bin_name"),
        config_base_name: section.text("config_base_name"),
        custom_conf: section.file("custom_conf"),
        database: section.text("database"),
        krbsrvname: section.text("krbsrvname"),
        use_unix_socket: section.flag("use_unix_socket"),
        use_unix_socket_repl: section.flag("use_unix_socket_repl"),
        parameters: read_parameters(section),
        pg_hba: section.strings("pg_hba"),
        pg_ident: section.strings("pg_ident"),
        recovery_conf: section.text_map("recovery_conf"),
        use_pg_rewind: section.flag("use_pg_rewind"),
        rewind: read_options(section, "rewind", Tool::Rewind),
        remove_data_directory_on_rewind_failure: section.flag("remove_data_directory_on_rewind_failure"),
        remove_data_directory_on_diverged_timelines: section.flag("remove_data_directory_on_diverged_timelines"),
        keep_diverged_wal: section.flag("keep_diverged_wal"),
        basebackup: read_options(section, "basebackup", Tool::Basebackup),
        callbacks: section
            .node("callbacks")
            .is_some()
            .then(|| read_callbacks(section.section("callbacks"))),
        pre_promote: section.text("pre_promote"),
        before_stop: section.text("before_stop"),
        pg_ctl_timeout: section
            .int("pg_ctl_timeout", 0..=i64::from(i32::MAX), None)
            .and_then(|s| u32::try_from(s).ok()),
    }
}

fn read_parameters(section: &mut Section<'_>) -> Option<BTreeMap<String, String>> {
    let node = section.node("parameters")?;
    for entry in node.entries().unwrap_or_default() {
        if !is_guc_name(&entry.key.text) {
            let path = format!("{}.{}", section.path_of("parameters"), entry.key.text);
            section.note_at(
                Severity::Error,
                entry.at,
                &path,
                "is not a name of a server parameter; allowed: letters, digits, _ and one dot",
            );
        }
    }
    section.text_map("parameters")
}

fn read_callbacks(mut section: Section<'_>) -> Callbacks {
    let callbacks = Callbacks {
        on_start: section.text("on_start"),
        on_stop: section.text("on_stop"),
        on_restart: section.text("on_restart"),
        on_reload: section.text("on_reload"),
        on_role_change: section.text("on_role_change"),
    };
    section.finish();
    callbacks
}

fn read_replica_methods(section: &mut Section<'_>, key: &'static str) {
    let Some(node) = section.node(key) else { return };
    let methods = section.strings(key).unwrap_or_default();
    let Value::List(items) = &node.value else { return };
    for (item, method) in items.iter().zip(&methods) {
        if method != "basebackup" {
            let text = format!("method `{method}` is not supported yet by this version, only `basebackup` is");
            section.note_at(Severity::Error, item.at, &section.path_of(key), text);
        }
    }
}
