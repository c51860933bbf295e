//! `list` and `topology`, once or again and again.

use std::io::IsTerminal;
use std::time::Duration;

use crate::app::App;
use crate::args::{ListArgs, TopologyArgs, WatchArgs};
use crate::error::CtlError;
use crate::listing::Style;
use crate::outcome::Outcome;
use crate::output::Format;

const USUAL_PAUSE: Duration = Duration::from_secs(2);
/// Clears the screen and puts the cursor into its corner.
const CLEAR: &str = "\u{1b}[2J\u{1b}[H";

pub(super) async fn list(app: &mut App, args: &ListArgs) -> Result<Outcome, CtlError> {
    let style = Style {
        format: args.format,
        extended: args.extended,
        tree: false,
    };
    show_clusters(app, &args.clusters, style, args.timestamp, &args.watch).await
}

pub(super) async fn topology(app: &mut App, args: &TopologyArgs) -> Result<Outcome, CtlError> {
    let style = Style {
        format: Format::Pretty,
        extended: false,
        tree: true,
    };
    show_clusters(app, &args.clusters, style, false, &args.watch).await
}

async fn show_clusters(
    app: &mut App,
    named: &[String],
    style: Style,
    timestamp: bool,
    watch: &WatchArgs,
) -> Result<Outcome, CtlError> {
    let scopes = if named.is_empty() {
        vec![app.scope(None)?]
    } else {
        named.to_vec()
    };
    let pause = watch
        .watch
        .map(Duration::from_secs_f64)
        .or(watch.every_two_seconds.then_some(USUAL_PAUSE));
    let Some(pause) = pause else {
        show_once(app, &scopes, style, timestamp).await?;
        return Ok(Outcome::Done);
    };
    loop {
        if std::io::stdout().is_terminal() {
            app.console.print(CLEAR)?;
        }
        match show_once(app, &scopes, style, timestamp).await {
            // Whoever watches wants to see the store come back.
            Err(trouble @ CtlError::Dcs { .. }) => app.console.warn(&trouble.to_string()),
            other => other?,
        }
        tokio::time::sleep(pause).await;
    }
}

async fn show_once(app: &mut App, scopes: &[String], style: Style, timestamp: bool) -> Result<(), CtlError> {
    if timestamp {
        let now = app.now().strftime("%Y-%m-%d %H:%M:%S").to_string();
        app.console.say(&now)?;
    }
    for scope in scopes {
        let scope = app.scope(Some(scope))?;
        let cluster = app.store.read(&scope).await?;
        app.show(&cluster, style)?;
    }
    Ok(())
}
