//! `reload`: members read their configuration files again.

use hyper::Method;

use super::{confirm_action, report_trouble};
use crate::app::App;
use crate::args::ReloadArgs;
use crate::error::CtlError;
use crate::limits::QUICK_LIMIT;
use crate::listing::Style;
use crate::outcome::Outcome;
use crate::rest::Call;

pub(super) async fn reload(app: &mut App, args: &ReloadArgs) -> Result<Outcome, CtlError> {
    let scope = app.scope(args.on.cluster.as_deref())?;
    let cluster = app.store.read(&scope).await?;
    app.show(&cluster, Style::default())?;
    let members = cluster.select(args.role, &args.on.members)?;
    confirm_action(app, "reload", &members, args.force)?;
    let loop_wait = cluster.view.settings().loop_wait.as_secs();
    let mut outcome = Outcome::Done;
    for member in members {
        let call = Call {
            method: Method::POST,
            path: "/reload",
            body: None,
            limit: QUICK_LIMIT,
        };
        let answered = app.call(&cluster, &member, call).await;
        outcome = outcome.and(match answered.as_ref().map(|answer| answer.status) {
            Ok(202) => {
                app.console.say(&format!(
                    "Reload request received for member {member} and will be processed within {loop_wait} seconds"
                ))?;
                Outcome::Done
            }
            Ok(200) => {
                app.console.say(&format!("No changes to apply on member {member}"))?;
                Outcome::Done
            }
            Ok(_) | Err(_) => report_trouble(app, "reload", &member, answered)?,
        });
    }
    Ok(outcome)
}
