//! `edit-config`: the dynamic configuration, shown as a difference and written with compare-and-swap.

use std::io::{IsTerminal, Read};
use std::path::Path;

use dialoguer::console::style;
use pgha_core::commit::{CommitOutcome, Key};
use pgha_wire::keys::full_key;
use pgha_wire::kv::{Op, Txn};
use serde_json::{Map, Value};

use super::editor;
use crate::app::App;
use crate::args::EditConfigArgs;
use crate::cluster::Cluster;
use crate::config_change::{
    apply_yaml, assign, config_diff, config_text, config_yaml, new_problems, parse_assignment, parse_mapping,
    parse_parameter,
};
use crate::error::CtlError;
use crate::limits::MAX_FILE_BYTES;
use crate::outcome::Outcome;

/// Stands for standard input.
const STDIN: &str = "-";

/// `/config` as an object.
pub(super) fn current(cluster: &Cluster) -> Result<Map<String, Value>, CtlError> {
    if let Some(reason) = cluster.unreadable(&Key::Config) {
        return Err(CtlError::refused(format!(
            "the config key of cluster {} cannot be read: {reason}; write a new one with edit-config --replace",
            cluster.scope
        )));
    }
    let text = cluster.view.config.as_ref().map(|config| config.text.as_str());
    match text.map(serde_json::from_str) {
        Some(Ok(Value::Object(config))) => Ok(config),
        Some(_) | None => Err(CtlError::refused(format!(
            "The config key does not exist in the cluster {}",
            cluster.scope
        ))),
    }
}

pub(super) async fn edit(app: &mut App, args: &EditConfigArgs, editor: Option<&str>) -> Result<Outcome, CtlError> {
    let scope = app.scope(args.cluster.as_deref())?;
    let from_stdin = [&args.apply, &args.replace]
        .into_iter()
        .flatten()
        .any(|path| path.as_os_str() == STDIN);
    let cluster = app.store.read(&scope).await?;
    let old = match current(&cluster) {
        // What cannot be read can still be replaced.
        Err(_) if args.replace.is_some() && cluster.has(&Key::Config) => Map::new(),
        other => other?,
    };
    let new = changed(args, &old, &scope, editor)?;
    let diff = config_diff(&old, &new);
    if diff.is_empty() {
        app.console.say("Not changed")?;
        return Ok(Outcome::Done);
    }
    if !args.quiet {
        app.console.print(&painted(&diff, std::io::stdout().is_terminal()))?;
    }
    for problem in new_problems(&old, &new) {
        app.console.warn(&problem);
    }
    let text = config_text(&new)?;
    if !args.force {
        if from_stdin {
            return Err(CtlError::refused("Use --force option to apply changes"));
        }
        if !app.console.confirm("Apply these changes?")? {
            return Err(CtlError::refused("Aborted, nothing is changed"));
        }
    }
    write(app, &cluster, text).await
}

/// The configuration that the options ask for, or that the user writes in an editor.
fn changed(
    args: &EditConfigArgs,
    old: &Map<String, Value>,
    scope: &str,
    editor: Option<&str>,
) -> Result<Map<String, Value>, CtlError> {
    if args.replace.is_none() && args.apply.is_none() && args.set.is_empty() && args.pg.is_empty() {
        return editor::edit(scope, &config_yaml(old), editor);
    }
    let mut new = old.clone();
    if let Some(path) = &args.replace {
        new = parse_mapping(&read_text(path)?, &path.display().to_string())?;
    }
    if let Some(path) = &args.apply {
        new = apply_yaml(&new, &read_text(path)?, &path.display().to_string())?;
    }
    for text in &args.set {
        assign(&mut new, &parse_assignment(text)?);
    }
    for text in &args.pg {
        assign(&mut new, &parse_parameter(text)?);
    }
    Ok(new)
}

fn read_text(path: &Path) -> Result<String, CtlError> {
    let failed = |e: std::io::Error| CtlError::refused(format!("{} cannot be read: {e}", path.display()));
    let mut text = String::new();
    // One byte more than is allowed, so that the YAML reader sees that it is too long.
    if path.as_os_str() == STDIN {
        std::io::stdin()
            .take(MAX_FILE_BYTES + 1)
            .read_to_string(&mut text)
            .map_err(failed)?;
    } else {
        let file = std::fs::File::open(path).map_err(failed)?;
        file.take(MAX_FILE_BYTES + 1)
            .read_to_string(&mut text)
            .map_err(failed)?;
    }
    Ok(text)
}

fn painted(diff: &str, colours: bool) -> String {
    if !colours {
        return diff.to_owned();
    }
    let paint = |line: &str| match line.as_bytes().first() {
        Some(b'+') => format!("{}\n", style(line).green().force_styling(true)),
        Some(b'-') => format!("{}\n", style(line).red().force_styling(true)),
        Some(b'@') => format!("{}\n", style(line).cyan().force_styling(true)),
        Some(_) | None => format!("{line}\n"),
    };
    diff.lines().map(paint).collect()
}

async fn write(app: &mut App, cluster: &Cluster, text: String) -> Result<Outcome, CtlError> {
    let key = full_key(&cluster.base, &Key::Config);
    let txn = Txn {
        compares: vec![cluster.unchanged(&Key::Config)],
        ops: vec![Op::Put {
            key,
            value: text.clone().into_bytes(),
            lease: None,
        }],
    };
    let unknown = match app.store.commit(&txn).await {
        CommitOutcome::Applied { .. } => false,
        CommitOutcome::Conflict => {
            return Err(CtlError::refused(
                "Config modification aborted due to concurrent changes",
            ));
        }
        CommitOutcome::LeaseGone | CommitOutcome::Refused => {
            return Err(CtlError::refused("etcd refused the change; nothing is written"));
        }
        CommitOutcome::Unknown => true,
    };
    if unknown && !is_written(app, cluster, &text).await {
        app.console
            .say("Unknown: etcd did not confirm the change; look with show-config whether it is there")?;
        return Ok(Outcome::Unknown);
    }
    app.console.say("Configuration changed")?;
    Ok(Outcome::Done)
}

/// After a lost answer: does the store have it?
async fn is_written(app: &App, cluster: &Cluster, text: &str) -> bool {
    let now = app.store.read(&cluster.scope).await;
    now.is_ok_and(|now| now.view.config.is_some_and(|config| config.text == text))
}
