//! `reinit`: standbys throw their data away and copy it anew.

use std::collections::BTreeMap;
use std::time::Duration;

use hyper::Method;
use pgha_core::units::MemberName;
use serde_json::{Value, json};

use super::version::ask;
use super::{confirm_action, report_trouble};
use crate::app::App;
use crate::args::{ReinitArgs, RoleFilter};
use crate::cluster::{Cluster, joined};
use crate::error::CtlError;
use crate::limits::{QUICK_LIMIT, REINIT_POLL, REINIT_SILENCE, REINIT_START_LIMIT, WRITE_LIMIT};
use crate::listing::Style;
use crate::outcome::Outcome;
use crate::rest::{Answer, Call, CallError};

const BUSY_ENDING: &str = " already in progress";
/// So many looks at a running member before it is believed that the copy is behind it, and not still ahead.
const LOOKS_BEFORE_DONE: u32 = 2;

pub(super) async fn reinit(app: &mut App, args: &ReinitArgs) -> Result<Outcome, CtlError> {
    let scope = app.scope(args.on.cluster.as_deref())?;
    let cluster = app.store.read(&scope).await?;
    app.show(&cluster, Style::default())?;
    let members = choose(app, &cluster, args)?;
    confirm_action(app, "reinitialize", &members, args.force)?;

    let mut outcome = Outcome::Done;
    let mut started = Vec::new();
    for member in members {
        let mut answered = send(app, &cluster, &member, args.force, args.from_leader).await;
        if !args.force
            && answered
                .as_ref()
                .is_ok_and(|a| a.status == 503 && a.body.trim_end().ends_with(BUSY_ENDING))
        {
            let busy = answered.as_ref().map(Answer::shown).unwrap_or_default();
            app.console.say(&format!(
                "Failed: reinitialize for member {member}, status code=503, ({busy})"
            ))?;
            if !app
                .console
                .confirm("Do you want to cancel it and reinitialize anyway?")?
            {
                outcome = outcome.and(Outcome::Failed);
                continue;
            }
            answered = send(app, &cluster, &member, true, args.from_leader).await;
        }
        if answered.as_ref().is_ok_and(|a| a.status == 200) {
            app.console.say(&format!("Success: reinitialize for member {member}"))?;
            started.push(member);
        } else {
            outcome = outcome.and(report_trouble(app, "reinitialize", &member, answered)?);
        }
    }
    if args.wait && !started.is_empty() {
        outcome = outcome.and(wait(app, &cluster, started).await?);
    }
    Ok(outcome)
}

/// The members that were named, or that the user names now. Never all of them: that would be a cluster without standbys.
fn choose(app: &mut App, cluster: &Cluster, args: &ReinitArgs) -> Result<Vec<MemberName>, CtlError> {
    if !args.on.members.is_empty() {
        return cluster.select(RoleFilter::Replica, &args.on.members);
    }
    let standbys = cluster.select(RoleFilter::Replica, &[])?;
    if args.force {
        return Err(CtlError::Usage(
            "--force needs the members to reinitialize by name".to_owned(),
        ));
    }
    let name = app.console.ask(
        &format!("Which member do you want to reinitialize [{}]?", joined(&standbys)),
        "",
    )?;
    let chosen: Vec<MemberName> = standbys
        .into_iter()
        .filter(|standby| standby.as_str() == name)
        .collect();
    if chosen.is_empty() {
        Err(CtlError::refused(format!("{name} is not a member of cluster")))
    } else {
        Ok(chosen)
    }
}

async fn send(
    app: &App,
    cluster: &Cluster,
    member: &MemberName,
    force: bool,
    from_leader: bool,
) -> Result<Answer, CallError> {
    let body = json!({"force": force, "from_leader": from_leader});
    let call = Call {
        method: Method::POST,
        path: "/reinitialize",
        body: Some(body),
        limit: WRITE_LIMIT,
    };
    app.call(cluster, member, call).await
}

/// Asks the members until each has its copy or there is no more hope to hear of it. The copy itself may take hours.
async fn wait(app: &mut App, cluster: &Cluster, members: Vec<MemberName>) -> Result<Outcome, CtlError> {
    app.console.say(&format!(
        "Waiting for reinitialize to complete on: {}",
        joined(&members)
    ))?;
    let mut open: BTreeMap<MemberName, Progress> = members.into_iter().map(|m| (m, Progress::default())).collect();
    let mut outcome = Outcome::Done;
    while !open.is_empty() {
        tokio::time::sleep(REINIT_POLL).await;
        let names: Vec<MemberName> = open.keys().cloned().collect();
        for member in names {
            let status = ask(app, cluster, &member, QUICK_LIMIT).await;
            let state = status
                .as_ref()
                .ok()
                .and_then(|s| s.get("state"))
                .and_then(Value::as_str);
            let Some(progress) = open.get_mut(&member) else {
                continue;
            };
            match progress.look(state) {
                Verdict::Wait => continue,
                Verdict::Completed => app.console.say(&format!("Reinitialize is completed on: {member}"))?,
                Verdict::GiveUp => {
                    let last = state.map_or_else(|| "it does not answer".to_owned(), |s| format!("its state is {s}"));
                    app.console.say(&format!(
                        "Unknown: reinitialize on member {member} has not completed; {last}"
                    ))?;
                    outcome = Outcome::Unknown;
                }
            }
            open.remove(&member);
        }
    }
    Ok(outcome)
}

/// What was seen of one member.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Progress {
    /// It was seen copying.
    copying_seen: bool,
    looks: u32,
    silent: Duration,
    /// Since it was last seen copying.
    starting: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    Wait,
    Completed,
    GiveUp,
}

impl Progress {
    /// One more look, [`REINIT_POLL`] after the last one; `None` is a member that does not answer.
    fn look(&mut self, state: Option<&str>) -> Verdict {
        let Some(state) = state else {
            self.silent += REINIT_POLL;
            return if self.silent >= REINIT_SILENCE {
                Verdict::GiveUp
            } else {
                Verdict::Wait
            };
        };
        self.silent = Duration::ZERO;
        self.looks += 1;
        match state {
            "creating replica" => {
                self.copying_seen = true;
                self.starting = Duration::ZERO;
                return Verdict::Wait;
            }
            "running" | "streaming" | "in archive recovery" if self.copying_seen || self.looks >= LOOKS_BEFORE_DONE => {
                return Verdict::Completed;
            }
            _ => self.starting += REINIT_POLL,
        }
        if self.starting >= REINIT_START_LIMIT {
            Verdict::GiveUp
        } else {
            Verdict::Wait
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_that_was_seen_is_done_when_postgresql_runs() {
        let mut progress = Progress::default();
        for state in ["running", "stopped", "creating replica", "starting"] {
            assert_eq!(progress.look(Some(state)), Verdict::Wait, "{state}");
        }
        assert_eq!(progress.look(Some("running")), Verdict::Completed);
    }

    #[test]
    fn a_copy_too_short_to_be_seen_is_done_at_the_second_look() {
        let mut progress = Progress::default();
        assert_eq!(progress.look(Some("running")), Verdict::Wait);
        assert_eq!(progress.look(Some("running")), Verdict::Completed);
    }

    #[test]
    fn silence_and_a_start_without_end_are_given_up() {
        let looks = |state: Option<&str>| {
            let mut progress = Progress::default();
            (1..10_000).find(|_| progress.look(state) == Verdict::GiveUp)
        };
        assert_eq!(looks(None), Some(30));
        assert_eq!(looks(Some("start failed")), Some(300));
        assert_eq!(looks(Some("creating replica")), None, "a copy may take hours");
    }
}
