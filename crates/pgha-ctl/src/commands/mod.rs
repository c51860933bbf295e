//! One file per verb: reads the cluster, asks the user, acts, and says how it ended.

mod config;
mod editor;
mod handover;
mod list;
mod pause;
mod reinit;
mod reload;
mod restart;
mod switchover;
mod version;

use std::collections::BTreeMap;

use jiff::Zoned;
use pgha_core::units::MemberName;

use crate::app::App;
use crate::args::{Cli, ClusterArgs, Command, HistoryArgs};
use crate::cluster::joined;
use crate::console::Console;
use crate::error::CtlError;
use crate::history::render_history;
use crate::outcome::Outcome;
use crate::output::render_yaml_document;
use crate::rest::{Answer, CallError};

/// Performs the command of `cli`. `env` is the environment of the process.
///
/// # Errors
/// [`CtlError`] when it did not get as far as an [`Outcome`].
pub async fn run(
    cli: Cli,
    env: BTreeMap<String, String>,
    mut console: Console,
    clock: fn() -> Zoned,
) -> Result<Outcome, CtlError> {
    if let Command::Version(args) = &cli.command
        && args.cluster.is_none()
    {
        console.say(&version::own_version())?;
        return Ok(Outcome::Done);
    }
    let editor = env.get("EDITOR").cloned();
    let mut app = App::new(&cli, env, console, clock)?;
    match cli.command {
        Command::List(args) => list::list(&mut app, &args).await,
        Command::Topology(args) => list::topology(&mut app, &args).await,
        Command::Switchover(args) => switchover::switchover(&mut app, &args).await,
        Command::Failover(args) => switchover::failover(&mut app, &args).await,
        Command::Restart(args) => restart::restart(&mut app, &args).await,
        Command::Reload(args) => reload::reload(&mut app, &args).await,
        Command::Reinit(args) => reinit::reinit(&mut app, &args).await,
        Command::Pause(args) => pause::pause(&mut app, &args, true).await,
        Command::Resume(args) => pause::pause(&mut app, &args, false).await,
        Command::History(args) => history(&mut app, &args).await,
        Command::ShowConfig(args) => show_config(&mut app, &args).await,
        Command::EditConfig(args) => config::edit(&mut app, &args, editor.as_deref()).await,
        Command::Version(args) => version::version(&mut app, &args).await,
    }
}

async fn history(app: &mut App, args: &HistoryArgs) -> Result<Outcome, CtlError> {
    let scope = app.scope(args.cluster.as_deref())?;
    let cluster = app.store.read(&scope).await?;
    if let Some(reason) = cluster.unreadable(&pgha_core::commit::Key::History) {
        return Err(CtlError::refused(format!(
            "the history of cluster {scope} cannot be read: {reason}"
        )));
    }
    let lines = cluster.view.history.as_ref().map_or(&[][..], |h| &h.lines[..]);
    app.console.print(&render_history(lines, args.format))?;
    Ok(Outcome::Done)
}

async fn show_config(app: &mut App, args: &ClusterArgs) -> Result<Outcome, CtlError> {
    let scope = app.scope(args.cluster.as_deref())?;
    let cluster = app.store.read(&scope).await?;
    let config = config::current(&cluster)?;
    app.console
        .print(&render_yaml_document(&serde_json::Value::Object(config)))?;
    Ok(Outcome::Done)
}

/// Asks whether to act on the members, unless forced.
fn confirm_action(app: &mut App, action: &str, members: &[MemberName], force: bool) -> Result<(), CtlError> {
    if force
        || app.console.confirm(&format!(
            "Are you sure you want to {action} members {}?",
            joined(members)
        ))?
    {
        return Ok(());
    }
    Err(CtlError::refused(format!("Aborted {action}")))
}

/// Tells that a member did not do what was asked, or did not say.
fn report_trouble(
    app: &mut App,
    action: &str,
    member: &MemberName,
    answered: Result<Answer, CallError>,
) -> Result<Outcome, CtlError> {
    let (line, outcome) = match answered {
        Ok(answer) => {
            let (status, body) = (answer.status, answer.shown());
            (
                format!("Failed: {action} for member {member}, status code={status}, ({body})"),
                Outcome::Failed,
            )
        }
        Err(CallError::NotSent(reason)) => (
            format!("Failed: {action} for member {member}, {reason}"),
            Outcome::Failed,
        ),
        Err(CallError::Lost(reason)) => (
            format!("Unknown: {action} for member {member} was requested and may still be running, {reason}"),
            Outcome::Unknown,
        ),
    };
    app.console.say(&line)?;
    Ok(outcome)
}
