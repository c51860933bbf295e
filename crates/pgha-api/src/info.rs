//! Answers that are read from the cluster: `/cluster`, `/history`, `/config`, `/failsafe`, and pgha's own `/explain`.

use pgha_core::cluster::{ClusterView, HistoryLine};
use pgha_core::units::Now;
use pgha_wire::isotime::render_iso;
use pgha_wire::pyjson::render_spaced;
use pgha_wire::rest::cluster::{cluster_table, render_cluster};
use pgha_wire::rest::reply::Reply;
use serde_json::{Map, Value, json};

use crate::board::Published;

/// `GET /cluster`; 503 when the cluster was never read.
pub(crate) fn render_members(scope: &str, view: Option<&ClusterView>) -> Reply {
    match view {
        Some(view) => Reply::json(200, render_cluster(&cluster_table(scope, view))),
        None => Reply::error_page(503),
    }
}

/// `GET /history`; an absent key is an empty history, a cluster that was never read is 503.
pub(crate) fn render_history(view: Option<&ClusterView>) -> Reply {
    let Some(view) = view else {
        return Reply::error_page(503);
    };
    let lines = view.history.iter().flat_map(|h| &h.lines).map(history_line);
    Reply::json(200, render_spaced(&lines.collect()))
}

/// Lines of old versions have three fields, later ones four and five.
fn history_line(line: &HistoryLine) -> Value {
    let mut fields = vec![
        line.timeline.0.into(),
        line.switchpoint.0.into(),
        line.reason.as_str().into(),
    ];
    if !line.timestamp.is_empty() {
        fields.push(Value::from(line.timestamp.as_str()));
        if !line.new_leader.is_empty() {
            fields.push(Value::from(line.new_leader.as_str()));
        }
    }
    Value::Array(fields)
}

/// `GET /config`; 502 when the key is missing or no object.
pub(crate) fn render_config(view: Option<&ClusterView>) -> Reply {
    match view.and_then(config_of) {
        Some(config) => Reply::json(200, render_spaced(&Value::Object(config))),
        None => Reply::error_page(502),
    }
}

/// The dynamic configuration, if there is one that can be read.
pub(crate) fn config_of(view: &ClusterView) -> Option<Map<String, Value>> {
    serde_json::from_str(&view.config.as_ref()?.text).ok()
}

/// `GET /failsafe`; 502 when the key is missing.
pub(crate) fn render_failsafe(view: Option<&ClusterView>) -> Reply {
    match view.and_then(|v| v.failsafe.as_ref()).map(|key| &key.members) {
        Some(members) => {
            let members: Map<String, Value> = members
                .iter()
                .map(|(name, url)| (name.to_string(), url.as_str().into()))
                .collect();
            Reply::json(200, render_spaced(&Value::Object(members)))
        }
        None => Reply::error_page(502),
    }
}

/// `GET /explain`: the last decision, since when it has been that, and what it waits for. Null before the first one.
pub(crate) fn render_explain(published: &Published, now: Now) -> Reply {
    let status = &published.status;
    let decision = status.decision.as_ref().map(|d| {
        json!({
            "rule": d.rule,
            "reason": d.text,
            "waits_for": d.waits_for,
            "since": render_iso(published.decided_at.wall),
            "for_seconds": now.mono.since(published.decided_at.mono).as_secs(),
        })
    });
    let body = json!({
        "scope": status.scope,
        "name": status.name.as_str(),
        "decision": decision,
        "job": status.job,
    });
    Reply::json(200, render_spaced(&body))
}
