//! `pause` and `resume`: maintenance mode on and off.

use hyper::Method;
use pgha_core::units::MemberName;
use serde_json::{Value, json};

use crate::app::App;
use crate::args::PauseArgs;
use crate::cluster::{Cluster, joined};
use crate::error::CtlError;
use crate::limits::{POLL, WRITE_LIMIT};
use crate::outcome::Outcome;
use crate::rest::{Call, CallError};

pub(super) async fn pause(app: &mut App, args: &PauseArgs, on: bool) -> Result<Outcome, CtlError> {
    let scope = app.scope(args.cluster.as_deref())?;
    let cluster = app.store.read(&scope).await?;
    let (verb, done) = if on { ("pause", "paused") } else { ("resume", "resumed") };
    if cluster.view.settings().pause == on {
        return Err(CtlError::refused(if on {
            "Cluster is already paused"
        } else {
            "Cluster is not paused"
        }));
    }
    let outcome = switch(app, &cluster, on, verb).await?;
    if outcome != Outcome::Done {
        return Ok(outcome);
    }
    if args.wait {
        app.console.say(&format!(
            "'{verb}' request sent, waiting until it is recognized by all nodes"
        ))?;
        let (deaf, waited) = wait(app, &cluster, on).await;
        if !deaf.is_empty() {
            let names = joined(&deaf);
            app.console.say(&format!(
                "{names} members didn't recognized {verb} state after {waited} seconds"
            ))?;
            return Ok(Outcome::Unknown);
        }
    }
    app.console.say(&format!("Success: cluster management is {done}"))?;
    Ok(Outcome::Done)
}

/// Asks one member after the other, the leader first, until one has answered. Doing it twice is no harm.
async fn switch(app: &mut App, cluster: &Cluster, on: bool, verb: &str) -> Result<Outcome, CtlError> {
    let value = if on { Value::Bool(true) } else { Value::Null };
    let leader = cluster.view.leader_name();
    let others = cluster.view.members.keys().filter(|name| Some(*name) != leader);
    let members: Vec<MemberName> = leader.into_iter().chain(others).cloned().collect();
    let mut lost = None;
    for member in &members {
        let call = Call {
            method: Method::PATCH,
            path: "/config",
            body: Some(json!({"pause": value})),
            limit: WRITE_LIMIT,
        };
        match app.call(cluster, member, call).await {
            Ok(answer) if answer.status == 200 => return Ok(Outcome::Done),
            Ok(answer) => {
                let (status, body) = (answer.status, answer.shown());
                app.console.say(&format!(
                    "Failed: {verb} cluster management status code={status}, ({body})"
                ))?;
                return Ok(Outcome::Failed);
            }
            Err(reason) => {
                app.console.warn(&format!("member {member} does not answer: {reason}"));
                lost = lost.or(matches!(reason, CallError::Lost(_)).then_some(member));
            }
        }
    }
    let Some(lost) = lost else {
        return Err(CtlError::refused("Can not find accessible cluster member"));
    };
    // A lost answer may hide a success; the store knows.
    if app
        .store
        .read(&cluster.scope)
        .await
        .is_ok_and(|now| now.view.settings().pause == on)
    {
        return Ok(Outcome::Done);
    }
    app.console.say(&format!(
        "Unknown: {verb} was requested from member {lost}, which did not say how it ended"
    ))?;
    Ok(Outcome::Unknown)
}

/// Waits for the member keys to show it. Gives who did not, and after how many seconds.
async fn wait(app: &mut App, before: &Cluster, on: bool) -> (Vec<MemberName>, u64) {
    let limit = before.view.settings().loop_wait.as_secs() + 1;
    let mut waited = 0;
    loop {
        let deaf: Vec<MemberName> = match app.store.read(&before.scope).await {
            Ok(now) => now
                .view
                .members
                .iter()
                .filter(|(_, m)| m.pause != on)
                .map(|(name, _)| name.clone())
                .collect(),
            Err(trouble) => {
                app.console.warn(&trouble.to_string());
                return (before.view.members.keys().cloned().collect(), waited);
            }
        };
        if deaf.is_empty() || waited >= limit {
            return (deaf, waited);
        }
        tokio::time::sleep(POLL).await;
        waited += POLL.as_secs();
    }
}
