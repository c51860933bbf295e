//! A Patroni file means to pgha what it means to Patroni; the environment and the dynamic configuration join in.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;

use pgha_core::units::MemberName;
use pgha_wire::config::{
    EffectivePostgres, Level, Loaded, LocalConfig, ServerTokens, Severity, Source, VerifyClient, WatchdogMode,
    effective_postgresql, load,
};
use pgha_wire::pgconf::options::ToolOption;
use serde_json::json;

const MINIMAL: &str = "\
scope: batman
name: node1
restapi: {listen: '*:8008', connect_address: 10.0.0.1:8008}
etcd3: {host: 10.0.0.9}
postgresql:
  listen: 10.0.0.1
  data_dir: /data
  authentication: {replication: {username: replicator}}
";

fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
}

fn load_all(texts: &[&str], variables: &[(&str, &str)]) -> Loaded {
    let names = ["a.yml", "b.yml", "c.yml"];
    let sources: Vec<Source<'_>> = texts
        .iter()
        .zip(names)
        .map(|(text, name)| Source { name, text })
        .collect();
    load(&sources, &env(variables)).unwrap_or_else(|findings| {
        panic!("{}", findings.iter().map(|f| format!("{f}\n")).collect::<String>());
    })
}

fn config(texts: &[&str], variables: &[(&str, &str)]) -> LocalConfig {
    load_all(texts, variables).config
}

fn warnings(texts: &[&str], variables: &[(&str, &str)]) -> Vec<String> {
    load_all(texts, variables)
        .warnings
        .iter()
        .map(ToString::to_string)
        .collect()
}

fn errors(texts: &[&str], variables: &[(&str, &str)]) -> Vec<String> {
    let sources: Vec<Source<'_>> = texts.iter().map(|text| Source { name: "a.yml", text }).collect();
    let found = load(&sources, &env(variables)).expect_err("is broken");
    found
        .iter()
        .filter(|f| f.severity == Severity::Error)
        .map(ToString::to_string)
        .collect()
}

#[test]
fn a_minimal_file_gets_patronis_defaults() {
    let c = config(&[MINIMAL], &[]);
    assert_eq!(
        (c.scope.as_str(), c.namespace.as_str(), c.name),
        ("batman", "/service", MemberName::from("node1"))
    );
    assert_eq!(c.restapi.listen.to_string(), "*:8008");
    assert_eq!(c.restapi.request_queue_size, 5);
    assert_eq!(c.restapi.server_tokens, ServerTokens::Original);
    assert_eq!(
        c.etcd.endpoints.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["10.0.0.9:2379"]
    );
    assert_eq!(c.postgresql.listen.to_string(), "10.0.0.1:5432");
    assert_eq!(c.postgresql.connect_address.to_string(), "10.0.0.1:5432");
    assert_eq!(c.watchdog.mode, WatchdogMode::Automatic);
    assert_eq!(c.watchdog.safety_margin, 5);
    assert_eq!(c.log.level, Level::Info);
    assert_eq!(
        (c.log.file_num, c.log.file_size, c.log.max_queue_size),
        (4, 25_000_000, 1000)
    );
    assert!(c.pgha.fence);
    assert_eq!(c.bootstrap.dcs, json!({}));
}

#[test]
fn the_sample_configuration_loads_without_a_warning() {
    let text = include_str!("../../../config/pgha.yml");
    let Loaded { config, warnings } = load_all(&[text], &[]);
    assert_eq!(warnings, []);
    assert_eq!(config.etcd.endpoints.len(), 3);
    assert_eq!(config.bootstrap.dcs["synchronous_mode"], json!(false));
    let effective = effective_postgresql(&config, &config.bootstrap.dcs);
    assert_eq!(effective.findings, []);
    assert!(effective.use_pg_rewind && effective.use_slots);
}

#[test]
fn a_full_file_is_read_in_all_its_sections() {
    let text = "\
namespace: services/pg/
thread_pool_size: 8
restapi:
  authentication: {username: admin, password: 12345}
  allowlist: [10.0.0.0/8, node2]
  allowlist_include_members: 'on'
  http_extra_headers: {X-Frame-Options: DENY, X-Number: 1}
  verify_client: Optional
  certfile: /c
  cafile: /ca
  keyfile_password: s
  request_queue_size: '64'
  server_tokens: ProductOnly
ctl: {insecure: yes, certfile: /x}
etcd3: {hosts: 'h1:1, [::1]:2,h3', port: 2380, protocol: https, username: root, password: s, cacert: /ca, use_proxies: on}
bootstrap:
  dcs: {ttl: 20, loop_wait: 5, retry_timeout: 5, postgresql: {parameters: {max_connections: 200}}}
  method: initdb
  initdb: [encoding: UTF8, data-checksums, 'locale=C']
  post_init: /bin/init
  pg_hba: [host all all all md5]
postgresql:
  proxy_address: 10.0.0.7
  config_dir: /conf
  bin_name: {postgres: pg15}
  database: app
  use_unix_socket: on
  custom_conf: my.conf
  authentication:
    superuser: {username: 1000, password: '0644', sslmode: require, sslpassword: x}
  parameters: {archive_mode: on, log_file_mode: 0600, work_mem: 1_000, timezone: 12:30, gone: ~}
  pg_hba: []
  recovery_conf: {restore_command: cp %f %p}
  basebackup: {max-rate: 10M, checkpoint: fast, verbose: true, progress: false}
  rewind: [debug]
  create_replica_methods: [basebackup]
  callbacks: {on_role_change: /bin/cb}
  pre_promote: /bin/pre
  pg_ctl_timeout: 90
watchdog: {mode: off, safety_margin: -1, driver: testing, device: /tmp/w}
tags: {nofailover: false, failover_priority: 3, nosync: off, clonefrom: true, replicatefrom: node2, nostream: false, rack: r1}
log: {type: json, level: warn, mode: 0640, dir: /var/log, format: [message, {levelname: level}], loggers: {x.y: DEBUG}, static_fields: {a: b}}
pgha: {state_dir: /run/pgha, fence: off, flight_recorder: 64kB}
";
    let loaded = load_all(&[MINIMAL, text], &[]);
    let texts: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        ["b.yml:41: tags.nofailover: conflicts with `failover_priority`; `nofailover` counts when it is true"]
    );
    let c = loaded.config;
    assert_eq!(c.namespace, "/services/pg");
    assert_eq!(
        c.restapi.authentication.as_ref().map(|a| a.password.expose()),
        Some("12345")
    );
    assert!(c.restapi.allowlist_include_members && c.ctl.insecure);
    assert_eq!(
        c.restapi.http_extra_headers.get("X-Number").map(String::as_str),
        Some("1")
    );
    assert_eq!(c.restapi.verify_client, VerifyClient::Optional);
    assert_eq!(c.restapi.request_queue_size, 64);
    assert_eq!(
        c.etcd.endpoints.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["h1:1", "[::1]:2", "h3:2380"]
    );
    assert!(c.etcd.https && c.etcd.use_proxies);
    let option = |name: &str, value: Option<&str>| ToolOption {
        name: name.into(),
        value: value.map(str::to_string),
    };
    assert_eq!(
        c.bootstrap.initdb,
        [
            option("encoding", Some("UTF8")),
            option("data-checksums", None),
            option("locale", Some("C"))
        ]
    );
    assert_eq!(c.bootstrap.post_bootstrap.as_deref(), Some("/bin/init"));
    let pg = &c.postgresql;
    assert_eq!(
        pg.proxy_address.as_ref().map(ToString::to_string).as_deref(),
        Some("10.0.0.7:5432")
    );
    assert_eq!(pg.authentication.superuser.username.as_deref(), Some("1000"));
    assert_eq!(
        pg.authentication
            .rewind_credentials()
            .password
            .as_ref()
            .map(|p| p.expose()),
        Some("0644")
    );
    let parameters: Vec<_> = pg
        .tunable
        .parameters
        .as_ref()
        .unwrap()
        .iter()
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    assert_eq!(
        parameters,
        [
            "archive_mode=on",
            "log_file_mode=0600",
            "timezone=12:30",
            "work_mem=1000"
        ]
    );
    assert_eq!(pg.tunable.pg_hba, Some(vec![]));
    let basebackup = [
        option("max-rate", Some("10M")),
        option("checkpoint", Some("fast")),
        option("verbose", None),
    ];
    assert_eq!(pg.tunable.basebackup.as_deref(), Some(&basebackup[..]));
    assert_eq!(
        (c.watchdog.mode, c.watchdog.safety_margin, c.watchdog.testing),
        (WatchdogMode::Off, -1, true)
    );
    assert_eq!(c.tags.failover_priority, Some(3));
    assert_eq!(c.tags.replicatefrom, Some(MemberName::from("node2")));
    let published: Vec<_> = c.tags.published.keys().map(String::as_str).collect();
    assert_eq!(
        published,
        ["clonefrom", "failover_priority", "nofailover", "rack", "replicatefrom"]
    );
    assert_eq!(
        (c.log.json, c.log.level, c.log.mode),
        (true, Level::Warning, Some(0o640))
    );
    assert_eq!((c.pgha.fence, c.pgha.flight_recorder_bytes), (false, 65_536));
}

#[test]
fn later_files_are_patches_and_null_deletes() {
    let c = config(
        &[
            MINIMAL,
            "tags: {a: 1, b: 2}\npostgresql: {bin_dir: /x}\n",
            "tags: {a: null, c: 3}\npostgresql: {bin_dir: ~}\n",
        ],
        &[],
    );
    assert_eq!(c.tags.published.keys().collect::<Vec<_>>(), ["b", "c"]);
    assert_eq!(c.postgresql.tunable.bin_dir, None);
    assert_eq!(c.postgresql.data_dir.to_str(), Some("/data"));
}

#[test]
fn the_environment_beats_the_file_and_pgha_beats_patroni() {
    let variables = [
        ("PATRONI_NAME", "node7"),
        ("PGHA_NAME", "node8"),
        ("PATRONI_SCOPE", ""),
        ("PATRONI_RESTAPI_ALLOWLIST", "10.0.0.1, 'node2'"),
        ("PATRONI_RESTAPI_HTTP_EXTRA_HEADERS", "X-A: b, X-C: d"),
        ("PATRONI_RESTAPI_USERNAME", "admin"),
        ("PATRONI_RESTAPI_PASSWORD", "0644"),
        ("PATRONI_CTL_INSECURE", "on"),
        ("PATRONI_POSTGRESQL_BIN_POSTGRES", "pg15"),
        ("PATRONI_REPLICATION_PASSWORD", "on"),
        ("PATRONI_ETCD3_HOSTS", "h1:1,h2:2"),
        ("PATRONI_ETCD3_USE_PROXIES", "true"),
        ("PATRONI_LOGLEVEL", "ERROR"),
        ("PATRONI_LOG_MODE", "0600"),
        ("PATRONI_LOG_FORMAT", "message, asctime"),
        ("PATRONI_LOG_LOGGERS", "{a: DEBUG}"),
        ("PATRONI_CONFIGURATION", "ignored here"),
        ("PGHA_FENCE", "off"),
        ("PATH", "/bin"),
    ];
    let loaded = load_all(&[MINIMAL], &variables);
    assert_eq!(loaded.warnings, []);
    let c = loaded.config;
    assert_eq!((c.name.as_str(), c.scope.as_str()), ("node8", "batman"));
    assert_eq!(c.restapi.allowlist, ["10.0.0.1", "node2"]);
    assert_eq!(c.restapi.http_extra_headers.len(), 2);
    assert_eq!(c.restapi.authentication.unwrap().password.expose(), "0644");
    assert_eq!(c.postgresql.authentication.replication.password.unwrap().expose(), "on");
    assert_eq!(
        c.postgresql.authentication.replication.username.as_deref(),
        Some("replicator")
    );
    assert_eq!(
        c.postgresql
            .tunable
            .bin_name
            .unwrap()
            .get("postgres")
            .map(String::as_str),
        Some("pg15")
    );
    assert_eq!(c.etcd.endpoints.len(), 2);
    assert_eq!((c.log.level, c.log.mode), (Level::Error, Some(0o600)));
    assert_eq!(c.log.format, Some(json!(["message", "asctime"])));
    assert!(c.ctl.insecure && c.etcd.use_proxies && !c.pgha.fence);
}

#[test]
fn the_environment_alone_can_be_the_configuration() {
    let c = config(
        &[],
        &[
            ("PATRONI_SCOPE", "s"),
            ("PATRONI_NAME", "n"),
            ("PATRONI_RESTAPI_LISTEN", "10.0.0.1:8008"),
            ("PATRONI_POSTGRESQL_LISTEN", "10.0.0.1:5432"),
            ("PATRONI_POSTGRESQL_DATA_DIR", "/d"),
            ("PATRONI_REPLICATION_USERNAME", "r"),
            ("PATRONI_ETCD3_URL", "https://root:secret@h:2380"),
        ],
    );
    assert!(c.etcd.https);
    assert_eq!(c.etcd.username.as_deref(), Some("root"));
    assert_eq!(
        c.etcd.password.map(|p| p.expose().to_string()).as_deref(),
        Some("secret")
    );
}

#[test]
fn findings_of_variables_name_the_variable() {
    let found = errors(
        &[MINIMAL],
        &[
            ("PATRONI_RESTAPI_REQUEST_QUEUE_SIZE", "many"),
            ("PATRONI_POSTGRESQL_LISTEN", "h:p"),
            ("PATRONI_RESTAPI_ALLOWLIST", "[a"),
        ],
    );
    assert_eq!(
        found,
        [
            "environment variable PATRONI_RESTAPI_ALLOWLIST: restapi.allowlist: found a text that cannot be read as one, allowed: a list such as a, b",
            "environment variable PATRONI_RESTAPI_REQUEST_QUEUE_SIZE: restapi.request_queue_size: found \"many\" (string), allowed: an integer from 0 to 4096",
            "environment variable PATRONI_POSTGRESQL_LISTEN: postgresql.listen: found \"h:p\" (string), allowed: \"HOST:PORT\", also several hosts \"HOST,HOST:PORT\"",
        ]
    );
    let odd = warnings(
        &[MINIMAL],
        &[
            ("PATRONI_KUBERNETES_NAMESPACE", "x"),
            ("PATRONI_NMAE", "y"),
            ("PGHA_TYPO", "z"),
        ],
    );
    assert_eq!(
        odd,
        [
            "environment variable PATRONI_KUBERNETES_NAMESPACE: belongs to a part of Patroni that is not supported, and has no effect",
            "environment variable PATRONI_NMAE: is not a known variable and has no effect",
            "environment variable PGHA_TYPO: is not a known variable and has no effect",
        ]
    );
}

#[test]
fn what_has_no_effect_is_warned_of_with_its_full_path() {
    let text = "\
restapi: {connect_address: 127.0.0.1:8008, lisen: x}
etcd: {host: h}
postgresql:
  use_slots: false
  parameters: {max_connections: 5}
  basebackup: [pgdata: /x]
  superuser: {username: postgres}
  pg_hba_primary: []
  authentication: {replication: {usrname: x}}
  bin_name: {pg_dump: x}
tags: {noloadbalance: 'false'}
bootstrap: {dcs: {ttl: 20, ttll: 5}}
1: x
name: node1
name: node2
";
    let found = warnings(&[MINIMAL, text], &[]);
    let expected = [
        "b.yml:15: the key `name` stands here a second time; the last one counts",
        "b.yml:1: restapi.connect_address: is a loopback address",
        "b.yml:1: restapi.lisen: is not a known key",
        "b.yml:2: etcd: has no effect beside `etcd3`",
        "b.yml:12: bootstrap.dcs.loop_wait: found 10, allowed: loop_wait + 2 * retry_timeout <= ttl, where ttl is 20; 1 is used",
        "b.yml:12: bootstrap.dcs.retry_timeout: found 10, allowed: loop_wait + 2 * retry_timeout <= ttl, where ttl is 20; 9 is used",
        "b.yml:12: bootstrap.dcs.ttll: is not a known key",
        "b.yml:7: postgresql.superuser: belongs to `authentication.superuser`",
        "b.yml:9: postgresql.authentication.replication.usrname: is not a known key",
        "b.yml:8: postgresql.pg_hba_primary: is not supported yet",
        "b.yml:10: postgresql.bin_name.pg_dump: is not a known key",
        "b.yml:6: postgresql.basebackup[0]: option `pgdata` is not allowed for pg_basebackup",
        "b.yml:4: postgresql.use_slots: counts from the dynamic configuration only",
        "b.yml:5: postgresql.parameters.max_connections: must be the same on all members",
        "b.yml:11: tags.noloadbalance: the text \"false\" counts as true",
        "b.yml:13: 1: is not a known key",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}\n{expected}");
    }
}

#[test]
fn no_password_is_in_debug_output() {
    let c = config(
        &[MINIMAL],
        &[
            ("PATRONI_SUPERUSER_PASSWORD", "hunter2"),
            ("PATRONI_ETCD3_PASSWORD", "hunter2"),
        ],
    );
    assert!(!format!("{c:?}").contains("hunter2"));
}

fn effective(local: &str, dynamic: serde_json::Value) -> EffectivePostgres {
    effective_postgresql(&config(&[MINIMAL, local], &[]), &dynamic)
}

#[test]
fn the_file_beats_the_dynamic_configuration_key_by_key() {
    let e = effective(
        "postgresql: {parameters: {work_mem: 8MB, restore_command: mine}, callbacks: {on_stop: a}, pg_ident: [], use_pg_rewind: off}",
        json!({"ttl": 30, "postgresql": {
            "parameters": {"work_mem": "4MB", "max_connections": 300, "fsync": false, "restore_command": "theirs", "nothing": null},
            "callbacks": {"on_start": "b"}, "pg_ident": ["x"], "pg_hba": ["y"], "use_pg_rewind": true, "use_slots": false,
            "recovery_conf": {"recovery_end_command": "end"}, "pg_ctl_timeout": "30",
        }}),
    );
    assert_eq!(e.findings, []);
    assert_eq!(
        e.parameters.controlled.get("max_connections").map(String::as_str),
        Some("300")
    );
    assert_eq!(
        e.parameters.controlled.get("cluster_name").map(String::as_str),
        Some("batman")
    );
    let file: Vec<_> = e.parameters.file.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(file, ["fsync=off", "wal_keep_size=128MB", "work_mem=8MB"]);
    let recovery: Vec<_> = e.recovery_conf.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(recovery, ["recovery_end_command=end", "restore_command=mine"]);
    assert_eq!(
        (e.callbacks.on_start, e.callbacks.on_stop.as_deref()),
        (None, Some("a"))
    );
    assert_eq!((e.pg_hba, e.pg_ident), (Some(vec!["y".to_string()]), Some(vec![])));
    assert_eq!((e.use_pg_rewind, e.use_slots, e.pg_ctl_timeout_s), (false, false, 30));
    assert_eq!(e.hba_file.to_str(), Some("/data/pg_hba.conf"));
}

#[test]
fn host_rules_of_a_file_elsewhere_are_left_alone() {
    let e = effective(
        "postgresql: {parameters: {hba_file: /etc/hba.conf, ident_file: pg_ident.conf}, pg_hba: [x], pg_ident: [y]}",
        json!({}),
    );
    assert_eq!((e.pg_hba, e.hba_file.to_str()), (None, Some("/etc/hba.conf")));
    assert_eq!(
        (e.pg_ident, e.ident_file.to_str()),
        (Some(vec!["y".to_string()]), Some("/data/pg_ident.conf"))
    );
    assert!(!e.parameters.file.contains_key("hba_file"));
}

#[test]
fn a_dynamic_configuration_of_the_wrong_shape_is_an_error_and_a_wrong_value_is_a_warning() {
    let shape = effective("tags: {}", json!({"postgresql": {"parameters": ["x"]}}));
    assert_eq!(
        shape.findings.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["dynamic configuration: postgresql.parameters: found a list, allowed: a mapping of names to single values"]
    );
    assert!(shape.findings.iter().any(|f| f.severity == Severity::Error));
    let value = effective(
        "tags: {}",
        json!({"postgresql": {"parameters": {"max_connections": 5}}}),
    );
    assert_eq!(
        value.findings.iter().map(|f| f.severity).collect::<Vec<_>>(),
        [Severity::Warning]
    );
    for odd in [json!(null), json!(5), json!({"postgresql": []})] {
        assert_eq!(effective("tags: {}", odd).pg_ctl_timeout_s, 60, "the defaults are used");
    }
}
