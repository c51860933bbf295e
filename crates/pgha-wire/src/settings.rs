//! `/config`, the dynamic configuration, as far as decisions depend on it.
//!
//! Anybody can write anything into `/config`, so reading it never fails: what is wrong or missing becomes the default,
//! and each such place is told as a [`Problem`]. PostgreSQL's parameters, slots and the like pass by unread.

mod known;
mod timing;

use std::fmt;
use std::time::Duration;

use pgha_core::settings::{Settings, StandbyCluster, SynchronousMode};
use serde_json::{Map, Value};

pub use known::unknown_keys;

use crate::limits::quoted;
use crate::values::{Unit, is_truthy, parse_bool, parse_int, python_str};

/// A value that was not taken as it is written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// Where it stands, e.g. `postgresql.use_slots`.
    pub path: String,
    /// What stands there, cut.
    pub found: String,
    /// What is allowed there.
    pub allowed: String,
    /// What is used instead.
    pub used: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: found {}, allowed is {}; {} is used",
            self.path, self.found, self.allowed, self.used
        )
    }
}

/// Reads the dynamic configuration; each value that is not taken as written is listed.
pub fn parse_settings(json: &Value) -> (Settings, Vec<Problem>) {
    let mut reader = Reader { problems: Vec::new() };
    let default = Settings::default();
    let Some(config) = reader.object("/config", Some(json)) else {
        return (default, reader.problems);
    };
    let postgresql = reader.object("postgresql", config.get("postgresql"));
    let empty = Map::new();
    let pg = Section {
        prefix: "postgresql.",
        values: postgresql.unwrap_or(&empty),
    };
    let top = Section {
        prefix: "",
        values: config,
    };

    let timing = timing::read(&mut reader, &top, &default);
    let strict = reader.flag(&top, "synchronous_mode_strict", default.synchronous_mode_strict);
    let settings = Settings {
        ttl: timing.ttl,
        loop_wait: timing.loop_wait,
        retry_timeout: timing.retry_timeout,
        maximum_lag_on_failover: reader.unsigned(&top, "maximum_lag_on_failover", default.maximum_lag_on_failover),
        primary_start_timeout: reader.renamed_seconds(&top, "primary_start_timeout", default.primary_start_timeout),
        primary_stop_timeout: reader.renamed_seconds(&top, "primary_stop_timeout", default.primary_stop_timeout),
        check_timeline: reader.flag(&top, "check_timeline", default.check_timeline),
        pause: reader.flag(&top, "pause", default.pause),
        synchronous_mode: reader.synchronous_mode(&top),
        synchronous_mode_strict: strict,
        synchronous_node_count: reader.node_count(&top, default.synchronous_node_count),
        maximum_lag_on_syncnode: reader.lag_on_syncnode(&top),
        failsafe_mode: reader.flag(&top, "failsafe_mode", default.failsafe_mode),
        max_timelines_history: saturating_u32(reader.unsigned(
            &top,
            "max_timelines_history",
            u64::from(default.max_timelines_history),
        )),
        member_slots_ttl: reader.seconds(&top, "member_slots_ttl", Some(Unit::S), default.member_slots_ttl),
        use_slots: reader.flag(&pg, "use_slots", default.use_slots),
        standby_cluster: reader.standby_cluster(&top),
        use_pg_rewind: reader.flag(&pg, "use_pg_rewind", default.use_pg_rewind),
        remove_on_rewind_failure: reader.flag(
            &pg,
            "remove_data_directory_on_rewind_failure",
            default.remove_on_rewind_failure,
        ),
        remove_on_diverged_timelines: reader.flag(
            &pg,
            "remove_data_directory_on_diverged_timelines",
            default.remove_on_diverged_timelines,
        ),
        keep_diverged_wal: reader.flag(&pg, "keep_diverged_wal", default.keep_diverged_wal),
    };
    (settings, reader.problems)
}

/// An object of the configuration and what stands before its keys in a path.
struct Section<'a> {
    prefix: &'static str,
    values: &'a Map<String, Value>,
}

impl<'a> Section<'a> {
    /// The value of a key; null is the same as none.
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.values.get(key).filter(|v| !v.is_null())
    }
}

/// Reads values and collects what is wrong with them.
struct Reader {
    problems: Vec<Problem>,
}

impl Reader {
    fn complain(&mut self, path: String, found: &Value, allowed: &str, used: &dyn fmt::Display) {
        self.problems.push(Problem {
            path,
            found: show(found),
            allowed: allowed.to_owned(),
            used: used.to_string(),
        });
    }

    fn object<'a>(&mut self, path: &str, value: Option<&'a Value>) -> Option<&'a Map<String, Value>> {
        match value? {
            Value::Object(map) => Some(map),
            Value::Null => None,
            other => {
                self.complain(path.to_owned(), other, "a mapping", &"none");
                None
            }
        }
    }

    fn flag(&mut self, section: &Section<'_>, key: &str, default: bool) -> bool {
        let Some(value) = section.get(key) else { return default };
        parse_bool(value).unwrap_or_else(|| {
            self.complain(
                path(section, key),
                value,
                "on, off, true, false, yes, no, 1 or 0",
                &default,
            );
            default
        })
    }

    /// A number of zero or more.
    fn unsigned(&mut self, section: &Section<'_>, key: &str, default: u64) -> u64 {
        let Some(value) = section.get(key) else { return default };
        parse_int(value, None)
            .and_then(|n| u64::try_from(n).ok())
            .unwrap_or_else(|| {
                self.complain(
                    path(section, key),
                    value,
                    "a whole number of 0 or more, without a unit",
                    &default,
                );
                default
            })
    }

    fn seconds(&mut self, section: &Section<'_>, key: &str, unit: Option<Unit>, default: Duration) -> Duration {
        let Some(value) = section.get(key) else { return default };
        match parse_int(value, unit).and_then(|n| u64::try_from(n).ok()) {
            Some(seconds) => Duration::from_secs(seconds),
            None => {
                let allowed = match unit {
                    Some(_) => "0 or more seconds, or a number with us, ms, s, min, h or d",
                    None => "0 or more seconds, without a unit",
                };
                self.complain(path(section, key), value, allowed, &default.as_secs());
                default
            }
        }
    }

    /// A key that began with `master_` before Patroni 3.
    fn renamed_seconds(&mut self, section: &Section<'_>, key: &str, default: Duration) -> Duration {
        let old = key.replace("primary_", "master_");
        let key = if section.values.contains_key(key) { key } else { &old };
        self.seconds(section, key, None, default)
    }

    fn synchronous_mode(&mut self, top: &Section<'_>) -> SynchronousMode {
        let key = "synchronous_mode";
        let Some(value) = top.get(key) else {
            return SynchronousMode::Off;
        };
        match parse_bool(value) {
            Some(true) => SynchronousMode::On,
            Some(false) => SynchronousMode::Off,
            None if python_str(value).eq_ignore_ascii_case("quorum") => SynchronousMode::Quorum,
            None => {
                self.complain(path(top, key), value, "on, off or quorum", &"off");
                SynchronousMode::Off
            }
        }
    }

    fn node_count(&mut self, top: &Section<'_>, default: u32) -> u32 {
        let key = "synchronous_node_count";
        let Some(value) = top.get(key) else { return default };
        match parse_int(value, None)
            .and_then(|n| u32::try_from(n).ok())
            .filter(|n| *n >= 1)
        {
            Some(count) => count,
            None => {
                self.complain(path(top, key), value, "a whole number of 1 or more", &default);
                default
            }
        }
    }

    /// Zero and less mean: no limit.
    fn lag_on_syncnode(&mut self, top: &Section<'_>) -> Option<u64> {
        let key = "maximum_lag_on_syncnode";
        let value = top.get(key)?;
        match parse_int(value, None) {
            Some(limit) => u64::try_from(limit).ok().filter(|limit| *limit > 0),
            None => {
                self.complain(
                    path(top, key),
                    value,
                    "a whole number of bytes, or -1 for no limit",
                    &-1,
                );
                None
            }
        }
    }

    /// Active when it says where to stream or restore from.
    fn standby_cluster(&mut self, top: &Section<'_>) -> Option<StandbyCluster> {
        let values = self.object("standby_cluster", top.get("standby_cluster"))?;
        let section = Section {
            prefix: "standby_cluster.",
            values,
        };
        let standby = StandbyCluster {
            host: self.text(&section, "host"),
            port: self.text(&section, "port"),
            primary_slot_name: self.text(&section, "primary_slot_name"),
            restore_command: self.text(&section, "restore_command"),
        };
        let active = standby.host.is_some() || standby.port.is_some() || standby.restore_command.is_some();
        active.then_some(standby)
    }

    /// A text or a number; empty and zero are none.
    fn text(&mut self, section: &Section<'_>, key: &str) -> Option<String> {
        let value = section.get(key).filter(|v| is_truthy(v))?;
        if let Value::String(_) | Value::Number(_) = value {
            return Some(python_str(value));
        }
        self.complain(path(section, key), value, "a text", &"none");
        None
    }
}

fn path(section: &Section<'_>, key: &str) -> String {
    format!("{}{key}", section.prefix)
}

fn show(value: &Value) -> String {
    quoted(&value.to_string())
}

fn saturating_u32(n: u64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn paths(problems: &[Problem]) -> Vec<&str> {
        problems.iter().map(|p| p.path.as_str()).collect()
    }

    #[test]
    fn an_empty_configuration_is_the_defaults() {
        for empty in [
            json!({}),
            json!(null),
            json!({"ttl": null, "postgresql": null, "standby_cluster": null}),
        ] {
            assert_eq!(parse_settings(&empty), (Settings::default(), Vec::new()), "{empty}");
        }
    }

    #[test]
    fn values_may_be_texts_words_and_numbers_with_units() {
        let (settings, problems) = parse_settings(&json!({
            "ttl": "30", "loop_wait": 0xA, "retry_timeout": "012", "maximum_lag_on_failover": "0x100000",
            "primary_start_timeout": 0, "master_stop_timeout": "7", "check_timeline": "on", "pause": 1,
            "synchronous_mode": "Quorum", "synchronous_mode_strict": "YES", "synchronous_node_count": "2",
            "maximum_lag_on_syncnode": "4096",
            "failsafe_mode": "true", "max_timelines_history": 5, "member_slots_ttl": "30min",
            "postgresql": {"use_slots": "off", "use_pg_rewind": true, "remove_data_directory_on_rewind_failure": "on",
                           "remove_data_directory_on_diverged_timelines": 1, "keep_diverged_wal": true},
            "standby_cluster": {"host": "h", "port": 5433, "primary_slot_name": "s"},
        }));
        assert_eq!(problems, Vec::new());
        let expected = Settings {
            primary_start_timeout: Duration::ZERO,
            primary_stop_timeout: Duration::from_secs(7),
            check_timeline: true,
            pause: true,
            synchronous_mode: SynchronousMode::Quorum,
            synchronous_mode_strict: true,
            synchronous_node_count: 2,
            maximum_lag_on_syncnode: Some(4096),
            failsafe_mode: true,
            max_timelines_history: 5,
            use_slots: false,
            use_pg_rewind: true,
            remove_on_rewind_failure: true,
            remove_on_diverged_timelines: true,
            keep_diverged_wal: true,
            standby_cluster: Some(StandbyCluster {
                host: Some("h".into()),
                port: Some("5433".into()),
                primary_slot_name: Some("s".into()),
                restore_command: None,
            }),
            ..Settings::default()
        };
        assert_eq!(settings, expected);
    }

    #[test]
    fn each_wrong_value_becomes_its_default_and_is_named() {
        let wrong = json!({
            "ttl": [], "loop_wait": true, "retry_timeout": "ten", "maximum_lag_on_failover": "1MB",
            "primary_start_timeout": -1, "primary_stop_timeout": "1min", "check_timeline": "maybe", "pause": 2,
            "synchronous_mode": "sometimes", "synchronous_mode_strict": {}, "synchronous_node_count": 0,
            "maximum_lag_on_syncnode": "1MB",
            "failsafe_mode": [], "max_timelines_history": "-1", "member_slots_ttl": "1MB",
            "postgresql": {"use_slots": "x", "use_pg_rewind": 7}, "standby_cluster": {"host": [1]},
        });
        let (settings, problems) = parse_settings(&wrong);
        assert_eq!(settings, Settings::default());
        let mut found = paths(&problems);
        found.sort_unstable();
        let sections = ["postgresql", "standby_cluster"];
        let top = wrong.as_object().into_iter().flat_map(|m| m.keys().map(String::as_str));
        let mut expected: Vec<&str> = top.filter(|k| !sections.contains(k)).collect();
        expected.extend([
            "postgresql.use_slots",
            "postgresql.use_pg_rewind",
            "standby_cluster.host",
        ]);
        expected.sort_unstable();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_configuration_of_the_wrong_shape_is_the_defaults() {
        for wrong in [json!([]), json!("x"), json!(1), json!(true)] {
            let (settings, problems) = parse_settings(&wrong);
            assert_eq!((settings, problems.len()), (Settings::default(), 1), "{wrong}");
        }
        let (settings, problems) = parse_settings(&json!({"postgresql": [], "standby_cluster": "x"}));
        assert_eq!(settings, Settings::default());
        assert_eq!(paths(&problems), ["postgresql", "standby_cluster"]);
    }

    #[test]
    fn the_new_name_of_a_renamed_key_wins() {
        let (settings, _) = parse_settings(&json!({"primary_start_timeout": 1, "master_start_timeout": 2}));
        assert_eq!(settings.primary_start_timeout, Duration::from_secs(1));
    }

    #[test]
    fn a_problem_reads_as_a_sentence() {
        let (_, problems) = parse_settings(&json!({"pause": "perhaps"}));
        let text: Vec<String> = problems.iter().map(Problem::to_string).collect();
        assert_eq!(
            text,
            ["pause: found \"perhaps\", allowed is on, off, true, false, yes, no, 1 or 0; false is used"]
        );
    }
}
