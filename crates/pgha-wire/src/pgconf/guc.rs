//! Server parameters: which ones the cluster controls, with their defaults and ranges, and which a user may set.
//!
//! Controlled parameters go on the command line of the server, so that ALTER SYSTEM cannot override them, and come only
//! from the dynamic configuration: a primary and its standbys have to agree on them.
//!
//! Invariants: names are lower case here (PostgreSQL compares them without case) and match [`is_guc_name`]; a controlled
//! parameter always has a valid value, the default if need be.

use std::collections::BTreeMap;

use super::address::Listen;
use super::recovery::is_recovery_parameter;
use crate::limits::quoted;
use crate::values::{Unit, parse_bool, parse_int_text};

/// Parameters of the cluster: name, default, what is accepted.
const CONTROLLED: [(&str, &str, Accepts); 10] = [
    ("wal_level", "replica", Accepts::WalLevel),
    ("hot_standby", "on", Accepts::OnlyOn),
    ("max_connections", "100", Accepts::AtLeast(25)),
    ("max_wal_senders", "10", Accepts::AtLeast(3)),
    ("max_prepared_transactions", "0", Accepts::AtLeast(0)),
    ("max_locks_per_transaction", "64", Accepts::AtLeast(32)),
    ("track_commit_timestamp", "off", Accepts::Bool),
    ("max_replication_slots", "10", Accepts::AtLeast(4)),
    ("max_worker_processes", "8", Accepts::AtLeast(2)),
    ("wal_log_hints", "on", Accepts::Bool),
];

/// Controlled as well, but never settable: they follow from `postgresql.listen` and `scope`.
const DERIVED: [&str; 3] = ["listen_addresses", "port", "cluster_name"];

/// Controlled as well, but written to postgresql.conf. The older name counts segments of 16 MB.
const WAL_KEEP_SIZE: &str = "wal_keep_size";
const WAL_KEEP_SEGMENTS: &str = "wal_keep_segments";
const DEFAULT_WAL_KEEP_SIZE: &str = "128MB";
const SEGMENT_MB: i64 = 16;

/// Parameters that a standby must have at least as high as its primary had when it wrote the WAL.
pub const STANDBY_MINIMA: [&str; 5] = [
    "max_connections",
    "max_prepared_transactions",
    "max_locks_per_transaction",
    "max_worker_processes",
    "max_wal_senders",
];

#[derive(Clone, Copy)]
enum Accepts {
    WalLevel,
    OnlyOn,
    Bool,
    AtLeast(i64),
}

impl Accepts {
    /// The value as PostgreSQL shall see it, or what would be accepted.
    fn check(self, value: &str) -> Result<String, String> {
        let as_bool = parse_bool(&serde_json::Value::String(value.to_string()));
        match self {
            Accepts::WalLevel => match value.to_ascii_lowercase().as_str() {
                // The old name of the same level.
                "hot_standby" | "replica" => Ok("replica".to_string()),
                "logical" => Ok("logical".to_string()),
                _ => Err("replica or logical".to_string()),
            },
            Accepts::OnlyOn if as_bool == Some(true) => Ok("on".to_string()),
            Accepts::OnlyOn => Err("on".to_string()),
            Accepts::Bool => as_bool
                .map(|b| if b { "on" } else { "off" }.to_string())
                .ok_or("on or off".to_string()),
            Accepts::AtLeast(min) => match parse_int_text(value, None) {
                Some(number) if number >= min => Ok(number.to_string()),
                Some(_) | None => Err(format!("an integer of at least {min}")),
            },
        }
    }
}

/// Do only the dynamic configuration and the agent decide about this parameter (any case)?
pub fn is_controlled(name: &str) -> bool {
    let known = CONTROLLED
        .iter()
        .map(|(name, ..)| *name)
        .chain(DERIVED)
        .chain([WAL_KEEP_SIZE, WAL_KEEP_SEGMENTS]);
    known.into_iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// `^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)?$`: what may stand before `=` in postgresql.conf.
pub fn is_guc_name(name: &str) -> bool {
    let is_word = |word: &str| {
        word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    match name.split_once('.') {
        None => is_word(name),
        Some((class, name)) => is_word(class) && is_word(name),
    }
}

/// What [`plan_parameters`] works on. Values are text, as PostgreSQL reads them.
#[derive(Clone, Debug)]
pub struct ParameterInput<'a> {
    /// `postgresql.parameters` of the dynamic configuration.
    pub dynamic: &'a BTreeMap<String, String>,
    /// `postgresql.parameters` of the local file.
    pub local: &'a BTreeMap<String, String>,
    /// `postgresql.listen`.
    pub listen: &'a Listen,
    /// The scope, which becomes `cluster_name`.
    pub scope: &'a str,
}

/// All parameters of a server, by where they go.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Parameters {
    /// Controlled ones, for the command line; see [`command_line`].
    pub controlled: BTreeMap<String, String>,
    /// For postgresql.conf.
    pub file: BTreeMap<String, String>,
    /// Recovery parameters found among them, for the recovery block.
    pub recovery: BTreeMap<String, String>,
    /// What was not taken over: name, and why.
    pub rejected: Vec<(String, String)>,
}

/// Sorts parameters out: local over dynamic, except that controlled ones count from the dynamic configuration only.
pub fn plan_parameters(input: &ParameterInput<'_>) -> Parameters {
    let mut out = Parameters::default();
    for (name, default, _) in CONTROLLED {
        out.controlled.insert(name.to_string(), default.to_string());
    }
    out.controlled
        .insert("cluster_name".to_string(), input.scope.to_string());
    out.controlled
        .insert("listen_addresses".to_string(), input.listen.listen_addresses());
    out.controlled.insert("port".to_string(), input.listen.port.to_string());
    out.file
        .insert(WAL_KEEP_SIZE.to_string(), DEFAULT_WAL_KEEP_SIZE.to_string());

    let dynamic = input.dynamic.iter().map(|(name, value)| (name, value, true));
    let local = input.local.iter().map(|(name, value)| (name, value, false));
    for (name, value, is_dynamic) in dynamic.chain(local) {
        let lower = name.to_ascii_lowercase();
        if !is_guc_name(&lower) {
            out.rejected
                .push((quoted(name), "is not a name of a parameter".to_string()));
        } else if is_controlled(&lower) {
            if is_dynamic {
                take_controlled(&mut out, &lower, value, input.dynamic);
            }
        } else if is_recovery_parameter(&lower) {
            out.recovery.insert(lower, value.clone());
        } else {
            out.file.insert(lower, value.clone());
        }
    }
    out
}

fn take_controlled(out: &mut Parameters, name: &str, value: &str, dynamic: &BTreeMap<String, String>) {
    let mut reject = |allowed: String| {
        out.rejected.push((
            name.to_string(),
            format!("found {:?}, allowed: {allowed}; the default is used", quoted(value)),
        ));
    };
    match name {
        WAL_KEEP_SIZE => match parse_int_text(value, Some(Unit::Mb)) {
            Some(megabytes) if megabytes >= SEGMENT_MB => {
                out.file.insert(name.to_string(), value.to_string());
            }
            Some(_) | None => reject(format!("at least {SEGMENT_MB}MB")),
        },
        WAL_KEEP_SEGMENTS => match parse_int_text(value, None) {
            // The newer name is the more precise one, so it wins when both are there.
            Some(count) if count >= 1 && !dynamic.keys().any(|k| k.eq_ignore_ascii_case(WAL_KEEP_SIZE)) => {
                out.file.insert(
                    WAL_KEEP_SIZE.to_string(),
                    format!("{}MB", count.saturating_mul(SEGMENT_MB)),
                );
            }
            Some(count) if count >= 1 => {}
            Some(_) | None => reject("an integer of at least 1".to_string()),
        },
        _ => match CONTROLLED.iter().find(|(known, ..)| *known == name) {
            Some((.., accepts)) => match accepts.check(value) {
                Ok(value) => {
                    out.controlled.insert(name.to_string(), value);
                }
                Err(allowed) => reject(allowed),
            },
            None => reject("nothing, since it follows from `listen` and `scope`".to_string()),
        },
    }
}

/// The controlled parameters as arguments of the server program: `--name=value`.
pub fn command_line(controlled: &BTreeMap<String, String>) -> Vec<String> {
    controlled
        .iter()
        .map(|(name, value)| format!("--{name}={value}"))
        .collect()
}

/// Raises what a standby needs to the values of its control file (name -> value), and names what was raised together
/// with the configured value. Without this PostgreSQL would refuse to start after the setting was lowered on the
/// primary, whose WAL still asks for the old one; the difference is a pending restart.
pub fn raise_for_standby(
    controlled: &mut BTreeMap<String, String>,
    control: &BTreeMap<String, i64>,
) -> Vec<(String, String)> {
    let mut raised = Vec::new();
    for name in STANDBY_MINIMA {
        let (Some(value), Some(needed)) = (controlled.get_mut(name), control.get(name)) else {
            continue;
        };
        if value.parse::<i64>().is_ok_and(|value| value < *needed) {
            raised.push((name.to_string(), std::mem::replace(value, needed.to_string())));
        }
    }
    raised
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
    }

    fn plan(dynamic: &[(&str, &str)], local: &[(&str, &str)]) -> Parameters {
        let listen = Listen {
            hosts: vec!["10.0.0.1".into(), "::1".into()],
            port: 5433,
        };
        plan_parameters(&ParameterInput {
            dynamic: &map(dynamic),
            local: &map(local),
            listen: &listen,
            scope: "batman",
        })
    }

    #[test]
    fn without_configuration_the_cluster_has_patronis_defaults() {
        let found = plan(&[], &[]);
        assert_eq!(
            command_line(&found.controlled).join(" "),
            "--cluster_name=batman --hot_standby=on --listen_addresses=10.0.0.1,::1 --max_connections=100 \
             --max_locks_per_transaction=64 --max_prepared_transactions=0 --max_replication_slots=10 --max_wal_senders=10 \
             --max_worker_processes=8 --port=5433 --track_commit_timestamp=off --wal_level=replica --wal_log_hints=on"
        );
        assert_eq!(found.file, map(&[("wal_keep_size", "128MB")]));
    }

    #[test]
    fn controlled_parameters_come_from_the_dynamic_configuration_only() {
        let found = plan(
            &[
                ("Max_Connections", "200"),
                ("wal_level", "hot_standby"),
                ("wal_log_hints", "False"),
                ("work_mem", "4MB"),
            ],
            &[("max_connections", "300"), ("WORK_MEM", "8MB"), ("port", "1")],
        );
        assert_eq!(found.controlled.get("max_connections").map(String::as_str), Some("200"));
        assert_eq!(found.controlled.get("wal_level").map(String::as_str), Some("replica"));
        assert_eq!(found.controlled.get("wal_log_hints").map(String::as_str), Some("off"));
        assert_eq!(found.controlled.get("port").map(String::as_str), Some("5433"));
        assert_eq!(found.file.get("work_mem").map(String::as_str), Some("8MB"));
        assert_eq!(found.rejected, []);
    }

    #[test]
    fn a_value_that_the_cluster_cannot_run_with_falls_back_to_the_default() {
        let bad = [
            ("hot_standby", "off"),
            ("max_connections", "24"),
            ("max_locks_per_transaction", "many"),
            ("max_replication_slots", "3"),
            ("max_wal_senders", "2"),
            ("max_worker_processes", "1"),
            ("port", "6000"),
            ("track_commit_timestamp", "maybe"),
            ("wal_keep_size", "15MB"),
            ("wal_level", "minimal"),
        ];
        let found = plan(&bad, &[]);
        assert_eq!(
            found.rejected.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
            bad.map(|(name, _)| name)
        );
        assert_eq!(found.controlled, plan(&[], &[]).controlled);
        assert_eq!(found.file, plan(&[], &[]).file);
    }

    #[test]
    fn kept_segments_become_a_size() {
        let size = |pairs: &[(&str, &str)]| plan(pairs, &[]).file.remove("wal_keep_size");
        assert_eq!(size(&[("wal_keep_segments", "100")]).as_deref(), Some("1600MB"));
        assert_eq!(
            size(&[("wal_keep_segments", "100"), ("wal_keep_size", "1GB")]).as_deref(),
            Some("1GB")
        );
        assert_eq!(size(&[("wal_keep_segments", "0")]).as_deref(), Some("128MB"));
    }

    #[test]
    fn recovery_parameters_are_moved_and_other_texts_are_no_names() {
        let found = plan(
            &[
                ("restore_command", "cp"),
                ("a = b\nport", "1"),
                ("pg_stat_statements.max", "5"),
                ("a.b.c", "x"),
            ],
            &[],
        );
        assert_eq!(found.recovery, map(&[("restore_command", "cp")]));
        assert_eq!(found.file.get("pg_stat_statements.max").map(String::as_str), Some("5"));
        assert_eq!(found.rejected.len(), 2);
    }

    #[test]
    fn a_standby_starts_with_at_least_what_its_wal_was_written_under() {
        let mut controlled = plan(&[], &[]).controlled;
        let control = [("max_connections".to_string(), 300), ("max_wal_senders".to_string(), 5)].into();
        assert_eq!(
            raise_for_standby(&mut controlled, &control),
            [("max_connections".to_string(), "100".to_string())]
        );
        assert_eq!(controlled.get("max_connections").map(String::as_str), Some("300"));
        assert_eq!(controlled.get("max_wal_senders").map(String::as_str), Some("10"));
    }
}
