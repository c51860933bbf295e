//! The configuration in force: the local file over the dynamic configuration, turned into what PostgreSQL and core need.
//!
//! A [`Local`] is made anew whenever either side changes; whoever holds an old one goes on with it undisturbed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pgha_api::BasicAuth;
use pgha_core::job::Upstream;
use pgha_core::known::KnownCluster;
use pgha_core::pg::{PgView, SqlRole};
use pgha_core::settings::Settings;
use pgha_core::sync::names::NOBODY;
use pgha_core::view::NodeSpec;
use pgha_postgres::{ConfigTexts, Credentials, Instance, InstanceSpec, LocalAddress, PassEntry, Secret};
use pgha_wire::config::{EffectivePostgres, LocalConfig, WatchdogMode, effective_postgresql};
use pgha_wire::pgconf::conninfo::{ConninfoInput, render_conninfo};
use pgha_wire::pgconf::files::{PostgresqlConf, render_pg_hba, render_pg_ident, render_postgresql_conf};
use pgha_wire::pgconf::recovery::{StandbyRecovery, standby_recovery};
use pgha_wire::settings::parse_settings;
use serde_json::Value;

use super::identity::Identity;

/// File name of the passfile in the state directory, when the configuration names none.
const PASSFILE: &str = "pgpass";
/// The parameter that synchronous mode decides.
const SYNC_NAMES: &str = "synchronous_standby_names";
/// First version whose WAL receiver settings can be reloaded; older ones are not supported.
const OLDEST_MAJOR: u32 = 13;

/// Everything that follows from file and dynamic configuration.
pub struct Local {
    /// The file.
    pub config: LocalConfig,
    /// The `postgresql` section that counts.
    pub effective: EffectivePostgres,
    /// The dynamic configuration it was made with, as JSON text.
    pub dynamic_text: String,
    /// Who we are.
    pub identity: Identity,
    /// The instance.
    pub instance: Arc<Instance>,
    /// Major version of the installed programs.
    pub major: u32,
    /// Held by whoever writes the files of a running server, from before what it writes is known until it is reloaded.
    pub files: Arc<tokio::sync::Mutex<()>>,
}

/// What synchronous mode writes as `synchronous_standby_names`; without that mode the user's own value stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SyncNames {
    /// A name that nobody has: for every server that starts, and for standbys. Core says when something else may be.
    Nobody,
    /// This text.
    Given(String),
}

/// The recovery block of a running server stays as it is; a stopped one gets its files at its start.
pub fn recovery_of(pg: &PgView) -> Option<Recovery> {
    Some(match &pg.facts()?.role {
        SqlRole::Primary { .. } => Recovery::None,
        SqlRole::Standby(s) => Recovery::Kept {
            conninfo: s.primary_conninfo.clone(),
            slot: s.primary_slot_name.clone(),
        },
    })
}

/// What a standby's recovery block follows from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Recovery {
    /// A primary: none.
    None,
    /// A standby of this upstream, or of nobody.
    Standby(Option<Upstream>),
    /// A running standby whose settings are kept as they are.
    Kept {
        /// `primary_conninfo` in force.
        conninfo: String,
        /// `primary_slot_name` in force.
        slot: String,
    },
}

impl Local {
    /// Puts the file over the dynamic configuration. `before` lends its instance when nothing it depends on changed.
    pub fn new(config: LocalConfig, dynamic_text: &str, state_dir: &Path, major: u32, before: Option<&Local>) -> Local {
        let dynamic: Value = serde_json::from_str(dynamic_text).unwrap_or(Value::Null);
        let effective = effective_postgresql(&config, &dynamic);
        for finding in &effective.findings {
            tracing::warn!("{finding}");
        }
        let (settings, problems) = parse_settings(&dynamic);
        warn_of_unsupported(&settings);
        if before.is_some_and(|b| b.dynamic_text != dynamic_text) {
            for problem in problems {
                tracing::warn!("/config: {problem}");
            }
        }
        let spec = instance_spec(&config, &effective, state_dir);
        let reusable = before
            .filter(|b| same_instance(b.instance.spec(), &spec))
            .map(|b| Arc::clone(&b.instance));
        let instance = reusable.unwrap_or_else(|| Arc::new(Instance::new(spec)));
        let identity = Identity::new(&config, &effective.database);
        Local {
            config,
            effective,
            dynamic_text: dynamic_text.to_owned(),
            identity,
            instance,
            major,
            files: before.map(|b| Arc::clone(&b.files)).unwrap_or_default(),
        }
    }

    /// What core needs to know of the local configuration.
    pub fn node_spec(&self, cached_config: Option<String>, kept_cluster: Option<KnownCluster>) -> NodeSpec {
        let dcs = &self.config.bootstrap.dcs;
        let first: Value = cached_config
            .as_deref()
            .and_then(|t| serde_json::from_str(t).ok())
            .unwrap_or_else(|| dcs.clone());
        let (settings, problems) = parse_settings(&first);
        for problem in problems {
            tracing::warn!("{problem}");
        }
        let tunable = &self.config.postgresql.tunable;
        NodeSpec {
            name: self.config.name.clone(),
            scope: self.config.scope.clone(),
            conn_url: self.identity.conn_url.clone(),
            api_url: self.identity.api_url.clone(),
            tags: self.config.tags.clone(),
            may_bootstrap: self.config.bootstrap.given,
            bootstrap_config: if dcs.is_object() {
                dcs.to_string()
            } else {
                "{}".to_owned()
            },
            cached_config,
            kept_cluster,
            cached_settings: Some(settings),
            watchdog_required: self.config.watchdog.mode == WatchdogMode::Required,
            use_pg_rewind: tunable.use_pg_rewind,
            remove_on_rewind_failure: tunable.remove_data_directory_on_rewind_failure,
            remove_on_diverged_timelines: tunable.remove_data_directory_on_diverged_timelines,
            keep_diverged_wal: tunable.keep_diverged_wal,
            fenced: self.config.pgha.fence,
        }
    }

    /// The settings of the dynamic configuration in force.
    pub fn settings(&self) -> Settings {
        let dynamic: Value = serde_json::from_str(&self.dynamic_text).unwrap_or(Value::Null);
        parse_settings(&dynamic).0
    }

    /// The configuration files for this role.
    pub fn config_texts(&self, recovery: &Recovery, names: &SyncNames) -> ConfigTexts {
        let e = &self.effective;
        let block = self.recovery_block(recovery);
        let include = e.custom_conf.as_ref().map_or_else(
            || format!("{}.base.conf", e.config_base_name),
            |p| p.display().to_string(),
        );
        let mut parameters = e.parameters.file.clone();
        if e.use_unix_socket || !parameters.contains_key("unix_socket_directories") {
            parameters
                .entry("unix_socket_directories".to_owned())
                .or_insert_with(|| self.socket_dir());
        }
        if self.settings().is_synchronous() {
            let text = match names {
                SyncNames::Nobody => NOBODY.to_owned(),
                SyncNames::Given(text) => text.clone(),
            };
            parameters.insert(SYNC_NAMES.to_owned(), text);
        }
        let hba = e.hba_file.display().to_string();
        let ident = e.ident_file.display().to_string();
        let own_dir = e.config_dir != self.config.postgresql.data_dir;
        ConfigTexts {
            postgresql_conf: render_postgresql_conf(&PostgresqlConf {
                include: &include,
                parameters: &parameters,
                hba_file: own_dir.then_some(hba.as_str()),
                ident_file: own_dir.then_some(ident.as_str()),
                recovery: block.as_ref(),
            }),
            pg_hba: e.pg_hba.as_ref().map(|lines| render_pg_hba(lines)),
            pg_ident: e.pg_ident.as_ref().map(|lines| render_pg_ident(lines)),
        }
    }

    fn recovery_block(&self, recovery: &Recovery) -> Option<BTreeMap<String, String>> {
        let (conninfo, slot) = match recovery {
            Recovery::None => return None,
            Recovery::Standby(upstream) => (
                upstream.as_ref().and_then(|u| self.primary_conninfo(u)),
                upstream.as_ref().and_then(|u| u.slot.clone()),
            ),
            Recovery::Kept { conninfo, slot } => (Some(conninfo.clone()), Some(slot.clone())),
        };
        Some(standby_recovery(&StandbyRecovery {
            primary_conninfo: conninfo.as_deref(),
            primary_slot_name: slot.as_deref(),
            recovery_conf: Some(&self.effective.recovery_conf),
            major_version: self.major.max(OLDEST_MAJOR),
            ..StandbyRecovery::default()
        }))
    }

    fn primary_conninfo(&self, upstream: &Upstream) -> Option<String> {
        let (host, port) = pgha_core::conninfo::host_port(&upstream.conn_url)?;
        let credentials = &self.config.postgresql.authentication.replication;
        let passfile = self.instance.spec().pgpass.display().to_string();
        Some(render_conninfo(&ConninfoInput {
            host: &host,
            port,
            dbname: &self.effective.database,
            credentials,
            passfile: credentials.password.is_some().then_some(passfile.as_str()),
            application_name: Some(self.config.name.as_str()),
            krbsrvname: self.effective.krbsrvname.as_deref(),
            target_session_attrs: None,
            major_version: self.major.max(OLDEST_MAJOR),
        }))
    }

    /// The passfile lines a standby of `upstream` needs.
    pub fn pass_entries(&self, upstream: &Upstream) -> Vec<PassEntry> {
        let Some((host, port)) = pgha_core::conninfo::host_port(&upstream.conn_url) else {
            return Vec::new();
        };
        let replication = &self.instance.spec().replication;
        let Some(password) = replication.password.clone() else {
            return Vec::new();
        };
        vec![PassEntry {
            host,
            port,
            user: replication.user.clone(),
            password,
        }]
    }

    /// Where the Unix socket of the server is.
    pub fn socket_dir(&self) -> String {
        match &self.instance.spec().local {
            LocalAddress::Unix { dir, .. } => dir.display().to_string(),
            LocalAddress::Tcp { .. } => default_socket_dir(&self.effective).display().to_string(),
        }
    }
}

/// What `restapi.authentication` demands of those who ask, and what this node says when it asks.
pub fn rest_authentication(config: &LocalConfig) -> Option<BasicAuth> {
    config.restapi.authentication.as_ref().map(|a| BasicAuth {
        username: a.username.clone(),
        password: a.password.expose().to_owned(),
    })
}

/// Modes whose promise this version does not keep must not look as if it did.
fn warn_of_unsupported(settings: &Settings) {
    let lost = "is set and not supported yet by this version";
    if settings.standby_cluster.is_some() {
        tracing::error!("standby_cluster {lost}: nobody is promoted, and nobody follows the remote primary");
    }
}

/// The first of `unix_socket_directories`, or the state directory's neighbour `/tmp`, which every build accepts.
fn default_socket_dir(effective: &EffectivePostgres) -> PathBuf {
    let configured = effective
        .parameters
        .file
        .get("unix_socket_directories")
        .and_then(|v| v.split(',').next());
    PathBuf::from(configured.map_or("/tmp", str::trim))
}

fn instance_spec(config: &LocalConfig, effective: &EffectivePostgres, state_dir: &Path) -> InstanceSpec {
    let pg = &config.postgresql;
    let port = pg.listen.port;
    let local = if effective.use_unix_socket {
        LocalAddress::Unix {
            dir: default_socket_dir(effective),
            port,
        }
    } else {
        LocalAddress::Tcp {
            host: pg.listen.local_host().to_owned(),
            port,
        }
    };
    let auth = &pg.authentication;
    InstanceSpec {
        data_dir: pg.data_dir.clone(),
        config_dir: effective.config_dir.clone(),
        state_dir: state_dir.to_path_buf(),
        bin_dir: effective.bin_dir.clone(),
        bin_name: effective.bin_name.clone(),
        superuser: credentials(&auth.superuser, "postgres"),
        replication: credentials(&auth.replication, "replicator"),
        rewind: auth.rewind.as_ref().map(|c| credentials(c, "rewind")),
        database: effective.database.clone(),
        local,
        pgpass: pg.pgpass.clone().unwrap_or_else(|| state_dir.join(PASSFILE)),
    }
}

fn credentials(from: &pgha_wire::pgconf::credentials::Credentials, default_user: &str) -> Credentials {
    let options = [
        ("sslmode", &from.sslmode),
        ("sslcert", &from.sslcert),
        ("sslkey", &from.sslkey),
        ("sslrootcert", &from.sslrootcert),
        ("sslcrl", &from.sslcrl),
        ("sslcrldir", &from.sslcrldir),
        ("gssencmode", &from.gssencmode),
        ("channel_binding", &from.channel_binding),
        ("sslnegotiation", &from.sslnegotiation),
    ];
    Credentials {
        user: from.username.clone().unwrap_or_else(|| default_user.to_owned()),
        password: from.password.as_ref().map(|p| Secret::new(p.expose())),
        options: options
            .into_iter()
            .filter_map(|(k, v)| Some((k.to_owned(), v.clone()?)))
            .collect(),
    }
}

fn same_instance(a: &InstanceSpec, b: &InstanceSpec) -> bool {
    a.data_dir == b.data_dir
        && a.config_dir == b.config_dir
        && a.bin_dir == b.bin_dir
        && a.bin_name == b.bin_name
        && a.superuser == b.superuser
        && a.replication == b.replication
        && a.rewind == b.rewind
        && a.database == b.database
        && a.local == b.local
        && a.pgpass == b.pgpass
}
