//! Which keys `/config` may have. A key outside of this list is most often a misspelt one, so it is worth a warning.

use serde_json::{Map, Value};

/// Keys at the top, old spellings included.
const TOP: [&str; 24] = [
    "check_timeline",
    "failsafe_mode",
    "ignore_slots",
    "loop_wait",
    "master_start_timeout",
    "master_stop_timeout",
    "max_timelines_history",
    "maximum_lag_on_failover",
    "maximum_lag_on_syncnode",
    "member_slots_ttl",
    "pause",
    "permanent_replication_slots",
    "permanent_slots",
    "postgresql",
    "primary_race_backoff",
    "primary_start_timeout",
    "primary_stop_timeout",
    "retry_timeout",
    "slots",
    "standby_cluster",
    "synchronous_mode",
    "synchronous_mode_strict",
    "synchronous_node_count",
    "ttl",
];

/// Keys below `standby_cluster`.
const STANDBY_CLUSTER: [&str; 7] = [
    "archive_cleanup_command",
    "create_replica_methods",
    "host",
    "port",
    "primary_slot_name",
    "recovery_min_apply_delay",
    "restore_command",
];

/// Keys below `postgresql` that may come from the dynamic configuration, besides the sections of replica methods.
const POSTGRESQL: [&str; 37] = [
    "basebackup",
    "before_stop",
    "bin_dir",
    "bin_name",
    "callbacks",
    "config_base_name",
    "create_replica_method",
    "create_replica_methods",
    "custom_conf",
    "database",
    "keep_diverged_wal",
    "krbsrvname",
    "parameters",
    "parameters_primary",
    "parameters_replica",
    "parameters_standby_leader",
    "pg_ctl_timeout",
    "pg_hba",
    "pg_hba_primary",
    "pg_hba_replica",
    "pg_hba_standby_leader",
    "pg_ident",
    "pg_ident_primary",
    "pg_ident_replica",
    "pg_ident_standby_leader",
    "pg_rewind",
    "pre_promote",
    "recovery_conf",
    "remove_data_directory_on_diverged_timelines",
    "remove_data_directory_on_rewind_failure",
    "replication",
    "rewind",
    "superuser",
    "use_pg_rewind",
    "use_slots",
    "use_unix_socket",
    "use_unix_socket_repl",
];

/// The full paths of keys that mean nothing here, in their order.
pub fn unknown_keys(json: &Value) -> Vec<String> {
    let mut unknown = Vec::new();
    let Some(config) = json.as_object() else { return unknown };
    collect("", config, &TOP, &[], &mut unknown);
    if let Some(Value::Object(standby)) = config.get("standby_cluster") {
        collect("standby_cluster.", standby, &STANDBY_CLUSTER, &[], &mut unknown);
    }
    if let Some(Value::Object(postgresql)) = config.get("postgresql") {
        let methods = replica_methods(config, postgresql);
        collect("postgresql.", postgresql, &POSTGRESQL, &methods, &mut unknown);
    }
    unknown
}

fn collect(prefix: &str, section: &Map<String, Value>, known: &[&str], more: &[&str], unknown: &mut Vec<String>) {
    let strange = section
        .keys()
        .filter(|k| !known.contains(&k.as_str()) && !more.contains(&k.as_str()));
    unknown.extend(strange.map(|k| format!("{prefix}{k}")));
}

/// Each replica method has a section of its own name.
fn replica_methods<'a>(config: &'a Map<String, Value>, postgresql: &'a Map<String, Value>) -> Vec<&'a str> {
    let lists = [
        postgresql.get("create_replica_methods"),
        postgresql.get("create_replica_method"),
        config
            .get("standby_cluster")
            .and_then(|s| s.get("create_replica_methods")),
    ];
    lists
        .into_iter()
        .flatten()
        .filter_map(Value::as_array)
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn misspelt_keys_are_named_by_their_path() {
        let config = json!({
            "ttl": 30, "looop_wait": 10,
            "postgresql": {"use_slot": true, "parameters": {"anything": 1}, "create_replica_methods": ["wal_e"], "wal_e": {}},
            "standby_cluster": {"host": "h", "hots": "h"}, "slots": {"any": {}},
        });
        assert_eq!(
            unknown_keys(&config),
            ["looop_wait", "standby_cluster.hots", "postgresql.use_slot"]
        );
    }

    #[test]
    fn what_has_no_keys_has_no_unknown_ones() {
        for value in [json!(null), json!([1]), json!({"postgresql": 1, "standby_cluster": []})] {
            assert_eq!(unknown_keys(&value), Vec::<String>::new(), "{value}");
        }
    }
}
