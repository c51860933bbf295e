//! `switchover` and `failover`: what is asked and checked before the request, and how it ended.

use hyper::Method;
use jiff::{ToSpan, Zoned};
use pgha_core::units::MemberName;
use pgha_wire::rest::switchover::Change;
use serde_json::{Map, Value};

use super::handover;
use crate::app::App;
use crate::args::{FailoverArgs, SwitchoverArgs};
use crate::cluster::Cluster;
use crate::error::CtlError;
use crate::limits::{SLACK, SWITCHOVER_LEAST_WAIT};
use crate::listing::Style;
use crate::outcome::Outcome;
use crate::rest::{Answer, Call, CallError};
use crate::schedule::{Moment, parse_moment};

const DONE: [u16; 2] = [200, 202];
/// What an answer holds when the member has stopped waiting for the end.
const UNKNOWN_WORDS: &str = "status unknown";

pub(super) async fn switchover(app: &mut App, args: &SwitchoverArgs) -> Result<Outcome, CtlError> {
    let cluster = read_and_show(app, args.cluster.as_deref()).await?;
    let leader = choose_leader(app, &cluster, args.leader.as_deref(), args.force)?;
    let candidate = choose_candidate(app, &cluster, Change::Switchover, args.candidate.as_deref(), args.force)?;
    let when = ask_when(app, args)?;
    if when.is_some() && cluster.view.settings().pause {
        return Err(CtlError::refused("Can't schedule switchover in the paused state"));
    }
    let plan = Plan {
        change: Change::Switchover,
        leader: Some(leader),
        candidate,
        when,
    };
    carry_out(app, &cluster, &plan, args.force).await
}

pub(super) async fn failover(app: &mut App, args: &FailoverArgs) -> Result<Outcome, CtlError> {
    let cluster = read_and_show(app, args.cluster.as_deref()).await?;
    let candidate = choose_candidate(app, &cluster, Change::Failover, args.candidate.as_deref(), args.force)?;
    let Some(candidate) = candidate else {
        return Err(CtlError::refused(
            "Failover could be performed only to a specific candidate",
        ));
    };
    let sync = cluster.view.sync.as_ref().map_or(&[][..], |sync| &sync.standbys[..]);
    let is_asynchronous = cluster.view.settings().is_synchronous() && !sync.contains(&candidate);
    if is_asynchronous && !args.force {
        let question = format!("Are you sure you want to failover to the asynchronous node {candidate}?");
        if !app.console.confirm(&question)? {
            return Err(CtlError::refused("Aborting failover"));
        }
    }
    let plan = Plan {
        change: Change::Failover,
        leader: None,
        candidate: Some(candidate),
        when: None,
    };
    carry_out(app, &cluster, &plan, args.force).await
}

/// What the user wants.
pub(super) struct Plan {
    pub(super) change: Change,
    /// Whom a switchover departs from.
    pub(super) leader: Option<MemberName>,
    pub(super) candidate: Option<MemberName>,
    pub(super) when: Option<Moment>,
}

impl Plan {
    fn word(&self) -> &'static str {
        word(self.change)
    }

    fn title(&self) -> &'static str {
        match self.change {
            Change::Switchover => "Switchover",
            Change::Failover => "Failover",
        }
    }

    /// The body of the request.
    pub(super) fn body(&self) -> Map<String, Value> {
        let name = |name: &Option<MemberName>| name.as_ref().map_or(Value::Null, |n| Value::from(n.as_str()));
        let mut body = Map::new();
        body.insert("candidate".to_owned(), name(&self.candidate));
        if self.leader.is_some() {
            body.insert("leader".to_owned(), name(&self.leader));
        }
        if let Some(moment) = &self.when {
            body.insert("scheduled_at".to_owned(), Value::from(moment.iso()));
        }
        body
    }
}

fn word(change: Change) -> &'static str {
    match change {
        Change::Switchover => "switchover",
        Change::Failover => "failover",
    }
}

async fn read_and_show(app: &mut App, named: Option<&str>) -> Result<Cluster, CtlError> {
    let scope = app.scope(named)?;
    let cluster = app.store.read(&scope).await?;
    app.console.say("Current cluster topology")?;
    app.show(&cluster, Style::default())?;
    Ok(cluster)
}

fn choose_leader(app: &mut App, cluster: &Cluster, named: Option<&str>, force: bool) -> Result<MemberName, CtlError> {
    let Some(leader) = cluster.view.leader_name() else {
        return Err(CtlError::refused("This cluster has no leader"));
    };
    let answer = match named {
        Some(name) => name.to_owned(),
        None if force => leader.to_string(),
        None => {
            let is_standby_cluster = cluster.view.settings().standby_cluster.is_some();
            app.console.ask(
                if is_standby_cluster {
                    "Standby Leader"
                } else {
                    "Primary"
                },
                leader.as_str(),
            )?
        }
    };
    if answer == leader.as_str() {
        return Ok(leader.clone());
    }
    Err(CtlError::refused(format!(
        "Member {answer} is not the leader of cluster {}",
        cluster.scope
    )))
}

fn choose_candidate(
    app: &mut App,
    cluster: &Cluster,
    change: Change,
    named: Option<&str>,
    force: bool,
) -> Result<Option<MemberName>, CtlError> {
    let leader = cluster.view.leader_name();
    let members = cluster
        .view
        .members
        .iter()
        .filter(|(name, member)| Some(*name) != leader && !member.tags.nofailover);
    let candidates: Vec<&MemberName> = members.map(|(name, _)| name).collect();
    if candidates.is_empty() {
        return Err(CtlError::refused(format!("No candidates found to {} to", word(change))));
    }
    let answer = match named {
        Some(name) => name.to_owned(),
        None if force => String::new(),
        None => {
            let names: Vec<String> = candidates.iter().map(|name| format!("'{name}'")).collect();
            app.console.ask(&format!("Candidate [{}]", names.join(", ")), "")?
        }
    };
    if answer.is_empty() {
        return Ok(None);
    }
    let scope = &cluster.scope;
    if leader.is_some_and(|leader| leader.as_str() == answer) {
        return Err(CtlError::refused(format!(
            "Member {answer} is already the leader of cluster {scope}"
        )));
    }
    match candidates.into_iter().find(|name| name.as_str() == answer) {
        Some(candidate) => Ok(Some(candidate.clone())),
        None => Err(CtlError::refused(format!(
            "Member {answer} does not exist in cluster {scope} or is tagged as nofailover"
        ))),
    }
}

fn ask_when(app: &mut App, args: &SwitchoverArgs) -> Result<Option<Moment>, CtlError> {
    let now = app.now();
    let text = match &args.scheduled {
        Some(text) => text.clone(),
        None if args.force => return Ok(None),
        None => {
            let question = format!("When should the switchover take place (e.g. {} ) ", example(&now));
            app.console.ask(&question, "now")?
        }
    };
    parse_moment(&text, &now, "switchover")
}

/// A time in an hour, as one may write it.
pub(super) fn example(now: &Zoned) -> String {
    let later = now.checked_add(1.hour()).unwrap_or_else(|_| now.clone());
    later.strftime("%Y-%m-%dT%H:%M").to_string()
}

fn confirm(app: &mut App, cluster: &Cluster, plan: &Plan) -> Result<(), CtlError> {
    let (word, scope) = (plan.word(), &cluster.scope);
    let demoting = cluster
        .view
        .leader_name()
        .map(|l| format!(", demoting current leader {l}"))
        .unwrap_or_default();
    let (question, refusal) = match &plan.when {
        Some(moment) => (
            format!(
                "Are you sure you want to schedule {word} of cluster {scope} at {}{demoting}?",
                moment.iso()
            ),
            format!("Aborting scheduled {word}"),
        ),
        None => (
            format!("Are you sure you want to {word} cluster {scope}{demoting}?"),
            format!("Aborting {word}"),
        ),
    };
    if app.console.confirm(&question)? {
        Ok(())
    } else {
        Err(CtlError::Refused(refusal))
    }
}

async fn carry_out(app: &mut App, cluster: &Cluster, plan: &Plan, force: bool) -> Result<Outcome, CtlError> {
    if !force {
        confirm(app, cluster, plan)?;
    }
    let Some(asked) = cluster.view.leader_name().or(plan.candidate.as_ref()) else {
        return Err(CtlError::refused("This cluster has no leader"));
    };
    let watched = cluster.view.settings().loop_wait.max(SWITCHOVER_LEAST_WAIT) * 2;
    let (word, path) = (plan.word(), format!("/{}", plan.word()));
    let call = Call {
        method: Method::POST,
        path: &path,
        body: Some(Value::Object(plan.body())),
        limit: watched + SLACK,
    };
    match app.call(cluster, asked, call).await {
        Ok(answer) => report(app, cluster, plan, &answer).await,
        Err(CallError::NotSent(reason)) => {
            app.console.warn(&format!("member {asked} cannot be asked: {reason}"));
            say_stamped(app, &format!("Could not {word} using Patroni api, falling back to DCS"))?;
            let request = handover::write(app, cluster, plan).await?;
            finish(app, cluster, &request, watched).await
        }
        Err(CallError::Lost(reason)) => {
            // The leader restarts its listener or dies in the middle of a switchover; the store knows how it ends.
            say_stamped(
                app,
                &format!("{word} was requested, but the answer is lost ({reason}); watching the cluster"),
            )?;
            finish(app, cluster, &handover::requested(plan), watched).await
        }
    }
}

async fn report(app: &mut App, cluster: &Cluster, plan: &Plan, answer: &Answer) -> Result<Outcome, CtlError> {
    if DONE.contains(&answer.status) {
        say_stamped(app, &answer.shown())?;
        show_again(app, cluster).await?;
        return Ok(Outcome::Done);
    }
    let is_unknown = answer.body.to_lowercase().contains(UNKNOWN_WORDS);
    let (how, outcome) = if is_unknown {
        ("result unknown", Outcome::Unknown)
    } else {
        ("failed", Outcome::Failed)
    };
    app.console.say(&format!(
        "{} {how}, details: {}, {}",
        plan.title(),
        answer.status,
        answer.shown()
    ))?;
    Ok(outcome)
}

/// Watches the store until the cluster has changed over, or not.
async fn finish(
    app: &mut App,
    cluster: &Cluster,
    request: &handover::Request,
    watched: std::time::Duration,
) -> Result<Outcome, CtlError> {
    let (text, outcome) = handover::watch(app, cluster, request, watched).await;
    say_stamped(app, &text)?;
    show_again(app, cluster).await?;
    Ok(outcome)
}

fn say_stamped(app: &mut App, text: &str) -> Result<(), CtlError> {
    let now = app.now();
    // Tens of microseconds, as patronictl cuts the text of a Python time.
    let stamp = format!(
        "{}.{:05}",
        now.strftime("%Y-%m-%d %H:%M:%S"),
        now.subsec_nanosecond() / 10_000
    );
    app.console.say(&format!("{stamp} {text}"))
}

/// The new table is a courtesy: that it cannot be read does not change how the command ended.
async fn show_again(app: &mut App, cluster: &Cluster) -> Result<(), CtlError> {
    match app.store.read(&cluster.scope).await {
        Ok(now) => app.show(&now, Style::default()),
        Err(trouble) => {
            app.console.warn(&trouble.to_string());
            Ok(())
        }
    }
}
