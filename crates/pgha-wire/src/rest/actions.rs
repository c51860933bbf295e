//! Bodies of the acting requests: typed requests, or the exact answer that refuses them.
//!
//! Where Patroni takes a broken body and acts all the same (`/reinitialize`), nothing is done here.

use std::time::Duration;

use pgha_core::request::{Request, RestartRequest, RestartRole};
use pgha_core::units::Wall;
use serde_json::{Map, Value};

use super::reply::Reply;
use crate::error::WireError;
use crate::isotime::{parse_iso, render_iso};
use crate::limits::{MAX_BODY_BYTES, quoted};
use crate::pyjson::render_compact;
use crate::values::{Unit, parse_bool, parse_int, python_str};

/// Has a request to have a body?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Body {
    /// A non-empty object.
    Mandatory,
    /// Nothing, or an object.
    Optional,
}

/// Reads a body; `None` means that the request has no `Content-Length` (and no chunks).
///
/// # Errors
/// The answer to give: 411, 413 or 400.
pub fn parse_body(body: Option<&[u8]>, need: Body) -> Result<Map<String, Value>, Reply> {
    let optional = need == Body::Optional;
    let bytes = match body {
        None if optional => return Ok(Map::new()),
        None => return Err(Reply::error_page(411)),
        Some([]) if optional => return Ok(Map::new()),
        Some(bytes) if bytes.len() > MAX_BODY_BYTES => return Err(Reply::error_page(413)),
        Some(bytes) => bytes,
    };
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(map)) if optional || !map.is_empty() => Ok(map),
        Ok(_) | Err(_) => Err(Reply::error_page(400)),
    }
}

/// `POST /restart`. `postmaster_start_time` is kept with a schedule, so that a restart in between cancels it.
///
/// # Errors
/// The answer that refuses it; keys are looked at in the order of the body.
pub fn parse_restart(
    body: &Map<String, Value>,
    paused: bool,
    now: Wall,
    postmaster_start_time: Option<&str>,
) -> Result<Request, Reply> {
    if body.contains_key("schedule") && paused {
        return Err(Reply::text(500, "Can't schedule restart in the paused state"));
    }
    let mut request = RestartRequest::default();
    let mut schedule = None;
    let mut kept = Map::new();
    for (key, value) in body {
        let mut shown = value.clone();
        match key.as_str() {
            "schedule" => {
                let at = parse_schedule(value, "restart", now)?;
                schedule = Some(at);
                shown = render_iso(at).into();
            }
            "role" => request.role = Some(parse_role(value)?),
            "postgres_version" => request.version_below = Some(parse_version(value)?),
            "timeout" => {
                let timeout = parse_timeout(value)?;
                request.timeout = Some(timeout);
                shown = timeout.as_secs().into();
            }
            // Its presence counts, whatever the value.
            "restart_pending" => request.if_pending = true,
            other => {
                let other = quoted(other);
                return Err(Reply::text(
                    400,
                    format!("Unknown filter for the scheduled restart: {other}"),
                ));
            }
        }
        kept.insert(key.clone(), shown);
    }
    let Some(at) = schedule else {
        return Ok(Request::Restart(request));
    };
    kept.insert("postmaster_start_time".to_owned(), postmaster_start_time.into());
    Ok(Request::ScheduleRestart {
        at,
        request,
        text: render_compact(&Value::Object(kept)),
    })
}

/// `POST /reinitialize`.
pub fn parse_reinitialize(body: &Map<String, Value>) -> Request {
    let flag = |key: &str| body.get(key).and_then(parse_bool).unwrap_or(false);
    Request::Reinitialize {
        force: flag("force"),
        from_leader: flag("from_leader"),
    }
}

/// A point in time that lies ahead and has a time zone.
pub(super) fn parse_schedule(value: &Value, action: &str, now: Wall) -> Result<Wall, Reply> {
    let unparsable = "Unable to parse scheduled timestamp. It should be in an unambiguous format, e.g. ISO 8601";
    match value.as_str().map(parse_iso) {
        Some(Ok(at)) if at < now => Err(Reply::text(422, format!("Cannot schedule {action} in the past"))),
        Some(Ok(at)) => Ok(at),
        Some(Err(WireError::TimeWithoutZone { .. })) => Err(Reply::text(
            400,
            format!("Timezone information is mandatory for the scheduled {action}"),
        )),
        Some(Err(_)) | None => Err(Reply::text(422, unparsable)),
    }
}

fn parse_role(value: &Value) -> Result<RestartRole, Reply> {
    match value.as_str() {
        Some("primary") => Ok(RestartRole::Primary),
        Some("standby_leader") => Ok(RestartRole::StandbyLeader),
        Some("replica") => Ok(RestartRole::Standby),
        _ => Err(Reply::text(
            400,
            "PostgreSQL role should be either primary, standby_leader, or replica",
        )),
    }
}

fn parse_timeout(value: &Value) -> Result<Duration, Reply> {
    let seconds = parse_int(value, Some(Unit::S))
        .and_then(|n| u64::try_from(n).ok())
        .filter(|n| *n > 0);
    seconds
        .map(Duration::from_secs)
        .ok_or_else(|| Reply::text(400, "Timeout should be a positive number of seconds"))
}

/// `X.Y` or, before PostgreSQL 10, `X.Y.Z` as a `server_version_num`.
fn parse_version(value: &Value) -> Result<u32, Reply> {
    let text = python_str(value);
    let invalid = || Reply::text(400, format!("Invalid PostgreSQL version: {}", quoted(&text)));
    let parts: Option<Vec<u32>> = match value {
        Value::String(_) => text
            .split('.')
            .map(|part| part.trim().parse().ok().filter(|n| *n < 100))
            .collect(),
        _ => None,
    };
    match parts.ok_or_else(invalid)?.as_slice() {
        [major, minor] if *major >= 10 => Ok(major * 10_000 + minor),
        [a, b, c] => Ok(a * 10_000 + b * 100 + c),
        _ => {
            let found = quoted(&text);
            Err(Reply::text(
                400,
                format!("Invalid PostgreSQL version format: X.Y or X.Y.Z is accepted: {found}"),
            ))
        }
    }
}
