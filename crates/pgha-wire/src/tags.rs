//! Tags of a member: Patroni's evaluation of what is configured or published.

use pgha_core::tags::Tags;
use pgha_core::units::MemberName;
use serde_json::{Map, Value};

use crate::values::{is_truthy, parse_bool, parse_int, python_str};

/// Built-in tags that are not published while they are off.
const HIDDEN_WHEN_FALSY: [&str; 5] = ["clonefrom", "nofailover", "noloadbalance", "nosync", "nostream"];

/// Evaluates tags. Older tags go by Python's truth (so the text `"false"` is true), `nostream` by words.
pub fn parse_tags(tags: &Map<String, Value>) -> Tags {
    let published = tags.iter().filter(|(name, value)| is_published(name, value, tags));
    Tags {
        nofailover: flag(tags, "nofailover", "failover_priority"),
        failover_priority: number(tags, "failover_priority"),
        clonefrom: tags.get("clonefrom").is_some_and(is_truthy),
        noloadbalance: tags.get("noloadbalance").is_some_and(is_truthy),
        replicatefrom: tags
            .get("replicatefrom")
            .filter(|v| is_truthy(v))
            .map(|v| MemberName::new(python_str(v))),
        nosync: flag(tags, "nosync", "sync_priority"),
        sync_priority: number(tags, "sync_priority"),
        nostream: tags.get("nostream").and_then(parse_bool).unwrap_or(false),
        published: published
            .map(|(name, value)| (name.clone(), value.to_string()))
            .collect(),
    }
}

/// The tags as they are published; `release_from_sync` adds what asks the primary to take this node out of `/sync`.
pub fn published_tags(tags: &Tags, release_from_sync: bool) -> Map<String, Value> {
    let mut out: Map<String, Value> = Map::new();
    for (name, text) in &tags.published {
        // The texts were made by `parse_tags`; one that is no JSON all the same is shown as the text it is.
        let value = serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.clone()));
        out.insert(name.clone(), value);
    }
    if release_from_sync {
        out.insert("nosync".to_owned(), Value::Bool(true));
        out.insert("sync_priority".to_owned(), Value::from(0));
    }
    out
}

/// Can both of the twins be told from each other? Both are shown then, since the flag wins over the number.
fn is_published(name: &str, value: &Value, tags: &Map<String, Value>) -> bool {
    let twin = match name {
        "nofailover" => Some("failover_priority"),
        "nosync" => Some("sync_priority"),
        _ => None,
    };
    !HIDDEN_WHEN_FALSY.contains(&name) || is_truthy(value) || twin.is_some_and(|t| tags.contains_key(t))
}

/// A flag with a priority as its twin: the flag if it is there, else a priority of zero or less.
fn flag(tags: &Map<String, Value>, name: &str, priority: &str) -> bool {
    match tags.get(name) {
        None | Some(Value::Null) => number(tags, priority).is_some_and(|n| n <= 0),
        Some(value) => is_truthy(value),
    }
}

fn number(tags: &Map<String, Value>, name: &str) -> Option<i64> {
    tags.get(name).and_then(|v| parse_int(v, None))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn tags(value: Value) -> Tags {
        parse_tags(value.as_object().unwrap())
    }

    #[test]
    fn a_member_without_tags_may_do_everything() {
        assert_eq!(tags(json!({})), Tags::default());
        assert!(Tags::default().may_lead() && Tags::default().may_sync());
    }

    #[test]
    fn the_flag_wins_over_the_priority() {
        assert!(tags(json!({"nofailover": true, "failover_priority": 5})).nofailover);
        assert!(!tags(json!({"nofailover": false, "failover_priority": 0})).nofailover);
        assert!(tags(json!({"failover_priority": "0"})).nofailover);
        assert!(tags(json!({"nofailover": null, "failover_priority": -1})).nofailover);
        assert_eq!(tags(json!({"failover_priority": "7"})).effective_failover_priority(), 7);
        assert!(tags(json!({"sync_priority": 0})).nosync);
        assert!(
            tags(json!({"nosync": "false"})).nosync,
            "a non-empty text is true to Patroni"
        );
    }

    #[test]
    fn nostream_goes_by_words_and_the_others_by_truth() {
        assert!(!tags(json!({"nostream": "off"})).nostream);
        assert!(tags(json!({"nostream": "yes"})).nostream);
        assert!(tags(json!({"clonefrom": "off"})).clonefrom);
        assert!(!tags(json!({"noloadbalance": 0})).noloadbalance);
    }

    #[test]
    fn falsy_built_in_tags_are_not_published_and_custom_ones_are() {
        let all = tags(
            json!({"clonefrom": false, "nofailover": false, "dc": "", "rack": 7, "nosync": false, "sync_priority": 2}),
        );
        let names: Vec<&str> = all.published.keys().map(String::as_str).collect();
        assert_eq!(names, ["dc", "nosync", "rack", "sync_priority"]);
        assert_eq!(
            tags(Value::Object(published_tags(&all, false))).published,
            all.published
        );
    }

    #[test]
    fn a_node_that_asks_for_release_publishes_that_it_will_not_sync() {
        let asked = published_tags(&tags(json!({"sync_priority": 3})), true);
        assert_eq!(asked.get("nosync"), Some(&json!(true)));
        assert_eq!(asked.get("sync_priority"), Some(&json!(0)));
        assert!(!parse_tags(&asked).may_sync());
    }
}
