//! `ttl`, `loop_wait` and `retry_timeout`, and the rule that binds them.
//!
//! Patroni's minimum of 20 s for `ttl` is not applied: here the deadline is arithmetic, so 3 s is safe. The rule
//! `loop_wait + 2 * retry_timeout <= ttl` is repaired as Patroni does; the stored key is not changed.

use std::time::Duration;

use pgha_core::settings::Settings;

use super::{Problem, Reader, Section, path};
use crate::values::parse_int;

/// The shortest lease: below it a fifth of margin is less than one second of rounding.
const MIN_TTL_S: i64 = 3;
/// The longest lease etcd grants.
const MAX_TTL_S: i64 = 9_000_000_000;
/// The shortest heartbeat and the shortest retry budget.
const MIN_WAIT_S: i64 = 1;

const RULE: &str = "loop_wait + 2 * retry_timeout <= ttl";

pub(super) struct Timing {
    pub(super) ttl: Duration,
    pub(super) loop_wait: Duration,
    pub(super) retry_timeout: Duration,
}

pub(super) fn read(reader: &mut Reader, top: &Section<'_>, default: &Settings) -> Timing {
    let ttl = bounded(reader, top, "ttl", MIN_TTL_S, default.ttl);
    let loop_wait = bounded(reader, top, "loop_wait", MIN_WAIT_S, default.loop_wait);
    let retry_timeout = bounded(reader, top, "retry_timeout", MIN_WAIT_S, default.retry_timeout);

    let (fit_loop_wait, fit_retry_timeout) = if MIN_WAIT_S + 2 * retry_timeout > ttl {
        (MIN_WAIT_S, ((ttl - MIN_WAIT_S) / 2).max(MIN_WAIT_S))
    } else {
        (loop_wait.min(ttl - 2 * retry_timeout), retry_timeout)
    };
    for (key, before, after) in [
        ("loop_wait", loop_wait, fit_loop_wait),
        ("retry_timeout", retry_timeout, fit_retry_timeout),
    ] {
        if before != after {
            reader.problems.push(Problem {
                path: path(top, key),
                found: before.to_string(),
                allowed: format!("{RULE}, where ttl is {ttl}"),
                used: after.to_string(),
            });
        }
    }
    Timing {
        ttl: seconds(ttl),
        loop_wait: seconds(fit_loop_wait),
        retry_timeout: seconds(fit_retry_timeout),
    }
}

/// A number of seconds; one that is out of bounds becomes the bound, what is no number the default.
fn bounded(reader: &mut Reader, top: &Section<'_>, key: &str, min: i64, default: Duration) -> i64 {
    let default = i64::try_from(default.as_secs()).unwrap_or(MAX_TTL_S);
    let Some(value) = top.get(key) else { return default };
    let used = parse_int(value, None).map_or(default, |n| n.clamp(min, MAX_TTL_S));
    if parse_int(value, None) != Some(used) {
        reader.complain(
            path(top, key),
            value,
            &format!("{min} or more whole seconds, without a unit"),
            &used,
        );
    }
    used
}

fn seconds(n: i64) -> Duration {
    Duration::from_secs(n.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::settings::parse_settings;

    fn timing(value: &Value) -> ((u64, u64, u64), Vec<String>) {
        let (settings, problems) = parse_settings(value);
        let numbers = (
            settings.ttl.as_secs(),
            settings.loop_wait.as_secs(),
            settings.retry_timeout.as_secs(),
        );
        (numbers, problems.into_iter().map(|p| p.path).collect())
    }

    #[test]
    fn safe_values_are_taken_as_written() {
        for (ttl, loop_wait, retry_timeout) in [(30, 10, 10), (3, 1, 1), (5, 1, 2), (60, 1, 1), (9_000_000_000, 1, 1)] {
            let value = json!({"ttl": ttl, "loop_wait": loop_wait, "retry_timeout": retry_timeout});
            assert_eq!(timing(&value), ((ttl, loop_wait, retry_timeout), Vec::new()));
        }
    }

    #[test]
    fn loop_wait_is_reduced_first_and_retry_timeout_after_it() {
        assert_eq!(timing(&json!({"ttl": 25})), ((25, 5, 10), vec!["loop_wait".into()]));
        assert_eq!(
            timing(&json!({"ttl": 20, "loop_wait": 10, "retry_timeout": 10})),
            ((20, 1, 9), vec!["loop_wait".into(), "retry_timeout".into()])
        );
        assert_eq!(
            timing(&json!({"ttl": 5, "loop_wait": 1})),
            ((5, 1, 2), vec!["retry_timeout".into()])
        );
        assert_eq!(
            timing(&json!({"ttl": 3, "loop_wait": 1, "retry_timeout": 50})),
            ((3, 1, 1), vec!["retry_timeout".into()])
        );
    }

    #[test]
    fn values_out_of_bounds_become_the_bound() {
        assert_eq!(
            timing(&json!({"ttl": 1, "loop_wait": 0, "retry_timeout": -5})),
            (
                (3, 1, 1),
                vec!["ttl".into(), "loop_wait".into(), "retry_timeout".into()]
            )
        );
        assert_eq!(timing(&json!({"ttl": "99999999999999999999"})).0.0, 9_000_000_000);
        assert_eq!(
            timing(&json!({"ttl": i64::MAX, "loop_wait": i64::MAX, "retry_timeout": i64::MAX}))
                .0
                .1,
            1
        );
    }

    #[test]
    fn no_numbers_can_break_the_rule() {
        for ttl in -3..40 {
            for loop_wait in -1..25 {
                for retry_timeout in -1..25 {
                    let value = json!({"ttl": ttl, "loop_wait": loop_wait, "retry_timeout": retry_timeout});
                    let ((ttl, loop_wait, retry_timeout), _) = timing(&value);
                    assert!(
                        loop_wait + 2 * retry_timeout <= ttl && loop_wait >= 1 && retry_timeout >= 1,
                        "{value}"
                    );
                }
            }
        }
    }
}
