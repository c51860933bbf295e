//! Changes of the dynamic configuration: merging a patch into it, or replacing it.
//!
//! Values are compared as Python prints them, so `5` and `"5"` are equal and no write is made for that difference.

use serde_json::{Map, Value};

use super::reply::Reply;
use crate::limits::MAX_CONFIG_BYTES;
use crate::pyjson::{render_compact, render_spaced};
use crate::values::python_str;

/// A new dynamic configuration.
#[derive(Clone, PartialEq, Debug)]
pub struct ConfigChange {
    /// Does it differ from the old one? If not, nothing is written.
    pub changed: bool,
    /// The text for `/config`.
    pub text: String,
    /// The answer once it is written, or at once if nothing changed.
    pub reply: Reply,
}

/// Merges `patch` into `current`: null deletes a key, objects are merged, all else replaces.
///
/// # Errors
/// The answer to give when the result is too large to be read again.
pub fn patch_config(current: &Map<String, Value>, patch: &Map<String, Value>) -> Result<ConfigChange, Reply> {
    let mut config = current.clone();
    let changed = merge(&mut config, patch);
    change(changed, config)
}

/// Replaces `current`, which is `None` when `/config` is missing or unreadable.
///
/// # Errors
/// The answer to give when the new configuration is too large to be read again.
pub fn replace_config(current: Option<&Map<String, Value>>, new: &Map<String, Value>) -> Result<ConfigChange, Reply> {
    change(current.is_none_or(|current| !is_equal(current, new)), new.clone())
}

fn change(changed: bool, config: Map<String, Value>) -> Result<ConfigChange, Reply> {
    let config = Value::Object(config);
    let text = render_compact(&config);
    if text.len() > MAX_CONFIG_BYTES {
        return Err(Reply::error_page(413));
    }
    Ok(ConfigChange {
        changed,
        text,
        reply: Reply::json(200, render_spaced(&config)),
    })
}

fn merge(config: &mut Map<String, Value>, patch: &Map<String, Value>) -> bool {
    let mut changed = false;
    for (name, value) in patch {
        changed |= match (config.get_mut(name), value) {
            (None, Value::Null) => false,
            (Some(_), Value::Null) => config.shift_remove(name).is_some_and(|old| !old.is_null()),
            (Some(Value::Object(old)), Value::Object(new)) => merge(old, new),
            (Some(old), new) if !new.is_object() && python_str(old) == python_str(new) => false,
            (Some(_) | None, new) => {
                config.insert(name.clone(), new.clone());
                true
            }
        };
    }
    changed
}

fn is_equal(a: &Map<String, Value>, b: &Map<String, Value>) -> bool {
    a.len() == b.len()
        && a.iter().all(|(name, value)| match (value, b.get(name)) {
            (_, None) => false,
            (Value::Object(a), Some(Value::Object(b))) => is_equal(a, b),
            (Value::Object(_), Some(_)) => false,
            (a, Some(b)) => python_str(a) == python_str(b),
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn map(value: &Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap_or_default()
    }

    #[test]
    fn patches_are_merged_as_patroni_merges_them() {
        for (current, patch, new, changed) in [
            (json!({"a": 1}), json!({"a": "1"}), json!({"a": 1}), false),
            (json!({"a": 1}), json!({"a": 2}), json!({"a": 2}), true),
            (json!({"a": 1, "b": 2}), json!({"a": null}), json!({"b": 2}), true),
            (json!({"b": 2}), json!({"a": null}), json!({"b": 2}), false),
            (json!({"a": null}), json!({"a": null}), json!({}), false),
            (
                json!({"a": {"x": 1, "y": 2}}),
                json!({"a": {"x": null, "z": 3}}),
                json!({"a": {"y": 2, "z": 3}}),
                true,
            ),
            (
                json!({"a": {"x": 1}}),
                json!({"a": {"x": "1"}}),
                json!({"a": {"x": 1}}),
                false,
            ),
            (
                json!({"a": 1}),
                json!({"a": {"x": null}}),
                json!({"a": {"x": null}}),
                true,
            ),
            (json!({"a": {"x": 1}}), json!({"a": 5}), json!({"a": 5}), true),
            (json!({"a": [1]}), json!({"a": ["1"]}), json!({"a": ["1"]}), true),
            (json!({"a": true}), json!({"a": "True"}), json!({"a": true}), false),
            (json!({}), json!({"pause": true}), json!({"pause": true}), true),
        ] {
            let change = patch_config(&map(&current), &map(&patch)).expect("small");
            assert_eq!(
                (change.changed, &change.text),
                (changed, &render_compact(&new)),
                "{current} + {patch}"
            );
            assert_eq!(change.reply, Reply::json(200, render_spaced(&new)));
        }
    }

    #[test]
    fn a_replacement_is_written_only_if_it_differs() {
        let old = map(&json!({"ttl": 30, "postgresql": {"use_slots": true}}));
        for (new, changed) in [
            (json!({"postgresql": {"use_slots": "True"}, "ttl": "30"}), false),
            (json!({"ttl": 30}), true),
            (json!({"ttl": 30, "postgresql": {}}), true),
            (json!({"ttl": 30, "postgresql": 1}), true),
            (json!({"ttl": 30, "x": {"use_slots": true}}), true),
        ] {
            let change = replace_config(Some(&old), &map(&new)).expect("small");
            assert_eq!((change.changed, change.text), (changed, render_compact(&new)), "{new}");
        }
        assert!(replace_config(None, &old).expect("small").changed);
    }

    #[test]
    fn a_configuration_that_could_not_be_read_again_is_refused() {
        let large = map(&json!({"a": "x".repeat(MAX_CONFIG_BYTES)}));
        assert_eq!(patch_config(&Map::new(), &large).map_err(|r| r.status), Err(413));
        assert_eq!(replace_config(None, &large).map_err(|r| r.status), Err(413));
    }
}
