//! `version`: of this program, and of members.

use std::time::Duration;

use hyper::Method;
use serde_json::Value;

use crate::app::App;
use crate::args::{RoleFilter, VersionArgs};
use crate::error::CtlError;
use crate::limits::QUICK_LIMIT;
use crate::outcome::Outcome;
use crate::rest::Call;

/// First version number that has two parts: 10.0.
const TWO_PARTS_SINCE: u64 = 100_000;

pub(super) fn own_version() -> String {
    format!("pgha-ctl version {}", env!("CARGO_PKG_VERSION"))
}

pub(super) async fn version(app: &mut App, args: &VersionArgs) -> Result<Outcome, CtlError> {
    app.console.say(&own_version())?;
    let scope = app.scope(args.cluster.as_deref())?;
    let cluster = app.store.read(&scope).await?;
    let members = cluster.select(RoleFilter::Any, &args.members)?;
    app.console.say("")?;
    let mut outcome = Outcome::Done;
    for member in members {
        let status = ask(app, &cluster, &member, QUICK_LIMIT).await;
        let line = match status {
            Ok(status) => format!("{member}: {}", version_text(&status)),
            Err(reason) => {
                outcome = outcome.and(Outcome::Failed);
                format!("{member}: failed to get version: {reason}")
            }
        };
        app.console.say(&line)?;
    }
    Ok(outcome)
}

/// The member's `GET /patroni`.
pub(super) async fn ask(
    app: &App,
    cluster: &crate::cluster::Cluster,
    member: &pgha_core::units::MemberName,
    limit: Duration,
) -> Result<Value, String> {
    let call = Call {
        method: Method::GET,
        path: "/patroni",
        body: None,
        limit,
    };
    let answer = app.call(cluster, member, call).await.map_err(|e| e.to_string())?;
    match serde_json::from_str(&answer.body) {
        Ok(status @ Value::Object(_)) => Ok(status),
        Ok(_) | Err(_) => Err(format!(
            "status code={}, the body is no status of a member",
            answer.status
        )),
    }
}

/// `Patroni 4.1.5 PostgreSQL 15.4`; PostgreSQL is left out when it does not answer.
fn version_text(status: &Value) -> String {
    let agent = status
        .get("patroni")
        .and_then(|p| p.get("version"))
        .and_then(Value::as_str)
        .unwrap_or("unknown");
    let agent = crate::table::without_controls(agent);
    match status.get("server_version").and_then(Value::as_u64) {
        Some(number) => format!("Patroni {agent} PostgreSQL {}", postgres_version(number)),
        None => format!("Patroni {agent}"),
    }
}

/// 150004 is 15.4, 90624 is 9.6.24.
fn postgres_version(number: u64) -> String {
    let (major, middle, minor) = (number / 10_000, number / 100 % 100, number % 100);
    if number < TWO_PARTS_SINCE {
        format!("{major}.{middle}.{minor}")
    } else {
        format!("{major}.{}", number % 10_000)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn version_numbers_are_told_as_postgresql_tells_them() {
        for (number, text) in [
            (150_004, "15.4"),
            (90_624, "9.6.24"),
            (100_000, "10.0"),
            (180_012, "18.12"),
        ] {
            assert_eq!(postgres_version(number), text);
        }
    }

    #[test]
    fn a_silent_postgresql_is_left_out() {
        assert_eq!(
            version_text(&json!({"patroni": {"version": "4.1.5"}, "server_version": 150004})),
            "Patroni 4.1.5 PostgreSQL 15.4"
        );
        assert_eq!(version_text(&json!({"patroni": {"version": "4.1.5"}})), "Patroni 4.1.5");
        assert_eq!(version_text(&json!({})), "Patroni unknown");
    }
}
