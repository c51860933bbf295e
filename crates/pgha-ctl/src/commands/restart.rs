//! `restart`: now, at some time, or under conditions. Members are restarted one after the other.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use hyper::Method;
use pgha_core::units::MemberName;
use pgha_wire::rest::actions::parse_restart;
use pgha_wire::values::{Unit, parse_int_text};
use serde_json::{Map, Value};

use super::report_trouble;
use crate::app::App;
use crate::args::RestartArgs;
use crate::cluster::{Cluster, joined};
use crate::error::CtlError;
use crate::limits::{QUICK_LIMIT, SLACK};
use crate::listing::Style;
use crate::outcome::Outcome;
use crate::rest::{Answer, Call};
use crate::schedule::{Moment, parse_moment, wall};

pub(super) async fn restart(app: &mut App, args: &RestartArgs) -> Result<Outcome, CtlError> {
    let scope = app.scope(args.on.cluster.as_deref())?;
    let cluster = app.store.read(&scope).await?;
    app.show(&cluster, Style::default())?;
    let mut members = cluster.select(args.role, &args.on.members)?;

    let when = ask_when(app, args)?;
    if when.is_some() && cluster.view.settings().pause {
        return Err(CtlError::refused("Can't schedule restart in the paused state"));
    }
    if args.pending && when.is_none() {
        members.retain(|name| cluster.view.members.get(name).is_some_and(|m| m.pending_restart));
    }
    if args.any {
        members = pick_one(members);
    }
    if members.is_empty() {
        app.console.say("No member has a pending restart")?;
        return Ok(Outcome::Done);
    }
    confirm(app, args, &members, when.as_ref())?;
    let body = request_body(app, args, when.as_ref())?;
    check(app, &body)?;

    let limit = answer_limit(&cluster, args.timeout.as_deref());
    let mut outcome = Outcome::Done;
    for member in members {
        if when.is_some() && args.force && has_scheduled_restart(&cluster, &member) {
            delete_scheduled(app, &cluster, &member).await?;
        }
        let call = Call {
            method: Method::POST,
            path: "/restart",
            body: Some(Value::Object(body.clone())),
            limit,
        };
        let answered = app.call(&cluster, &member, call).await;
        outcome = outcome.and(match answered.as_ref().map(|answer| answer.status) {
            Ok(200) => say_done(app, &format!("Success: restart on member {member}"))?,
            Ok(202) => say_done(app, &format!("Success: restart scheduled on member {member}"))?,
            Ok(409) => {
                app.console.say(&format!(
                    "Failed: another restart is already scheduled on member {member}"
                ))?;
                Outcome::Failed
            }
            Ok(_) | Err(_) => report_trouble(app, "restart", &member, answered)?,
        });
    }
    Ok(outcome)
}

fn say_done(app: &mut App, line: &str) -> Result<Outcome, CtlError> {
    app.console.say(line)?;
    Ok(Outcome::Done)
}

fn ask_when(app: &mut App, args: &RestartArgs) -> Result<Option<Moment>, CtlError> {
    let now = app.now();
    let text = match &args.scheduled {
        Some(text) => text.clone(),
        None if args.force => return Ok(None),
        None => {
            let example = super::switchover::example(&now);
            app.console
                .ask(&format!("When should the restart take place (e.g. {example}) "), "now")?
        }
    };
    parse_moment(&text, &now, "restart")
}

fn confirm(app: &mut App, args: &RestartArgs, members: &[MemberName], when: Option<&Moment>) -> Result<(), CtlError> {
    let Some(moment) = when else {
        return super::confirm_action(app, "restart", members, args.force);
    };
    if args.force {
        return Ok(());
    }
    let names = joined(members);
    let question = if args.pending {
        "The nodes needing a restart will be identified at the scheduled time, and might be different from the ones showing \
         pending restart right now. Is this fine?"
            .to_owned()
    } else {
        format!(
            "Are you sure you want to schedule restart of members {names} at {}?",
            moment.spaced()
        )
    };
    if app.console.confirm(&question)? {
        Ok(())
    } else {
        Err(CtlError::refused("Aborted scheduled restart"))
    }
}

fn request_body(app: &mut App, args: &RestartArgs, when: Option<&Moment>) -> Result<Map<String, Value>, CtlError> {
    let version = match &args.pg_version {
        Some(version) => version.clone(),
        None if args.force => String::new(),
        None => app.console.ask(
            "Restart if the PostgreSQL version is less than provided (e.g. 9.5.2) ",
            "",
        )?,
    };
    let mut body = Map::new();
    if args.pending {
        body.insert("restart_pending".to_owned(), Value::Bool(true));
    }
    if !version.is_empty() {
        body.insert("postgres_version".to_owned(), Value::from(version));
    }
    if let Some(moment) = when {
        body.insert("schedule".to_owned(), Value::from(moment.iso()));
    }
    if let Some(timeout) = &args.timeout {
        body.insert("timeout".to_owned(), Value::from(timeout.as_str()));
    }
    Ok(body)
}

/// The member would refuse it in the same words; but then half of the members may have restarted already.
fn check(app: &App, body: &Map<String, Value>) -> Result<(), CtlError> {
    match parse_restart(body, false, wall(&app.now()), None) {
        Ok(_) => Ok(()),
        Err(refusal) => Err(CtlError::Refused(refusal.body)),
    }
}

/// A member answers when the restart has ended, which may take as long as the settings allow.
fn answer_limit(cluster: &Cluster, timeout: Option<&str>) -> Duration {
    let asked = timeout
        .and_then(|t| parse_int_text(t, Some(Unit::S)))
        .and_then(|s| u64::try_from(s).ok());
    let settings = cluster.view.settings();
    let allowed = settings.primary_start_timeout + settings.primary_stop_timeout;
    asked.map_or(allowed, Duration::from_secs) + settings.loop_wait + SLACK
}

fn has_scheduled_restart(cluster: &Cluster, member: &MemberName) -> bool {
    cluster
        .table()
        .members
        .iter()
        .any(|row| row.name == *member && row.details.contains_key("scheduled_restart"))
}

async fn delete_scheduled(app: &mut App, cluster: &Cluster, member: &MemberName) -> Result<(), CtlError> {
    let call = Call {
        method: Method::DELETE,
        path: "/restart",
        body: None,
        limit: QUICK_LIMIT,
    };
    let line = match app.call(cluster, member, call).await {
        Ok(Answer { status: 200, .. }) => format!("Success: flush scheduled restart for member {member}"),
        Ok(Answer { status: 404, .. }) => format!("No scheduled restart for member {member}"),
        // The new schedule will be refused then, which is what decides the outcome.
        Ok(answer) => format!(
            "Failed: flush scheduled restart for member {member}, ({})",
            answer.shown()
        ),
        Err(reason) => format!("Failed: flush scheduled restart for member {member}, {reason}"),
    };
    app.console.say(&line)
}

/// Any one of them. The keys of a new hasher are random, and that is all the chance that is needed here.
fn pick_one(members: Vec<MemberName>) -> Vec<MemberName> {
    let count = u64::try_from(members.len()).unwrap_or(1).max(1);
    let at = usize::try_from(RandomState::new().build_hasher().finish() % count).unwrap_or(0);
    members.into_iter().nth(at).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_one_of_the_members_is_picked() {
        let all: Vec<MemberName> = ["a", "b", "c"].map(MemberName::from).to_vec();
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..200 {
            let picked = pick_one(all.clone());
            assert_eq!(picked.len(), 1);
            seen.extend(picked);
        }
        assert_eq!(seen.len(), 3, "200 draws miss none of three");
        assert!(pick_one(Vec::new()).is_empty());
    }
}
