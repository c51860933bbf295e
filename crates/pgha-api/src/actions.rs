//! Requests that change something: `/config`, `/restart`, `/reinitialize`. What they mean and what is answered is
//! wire's business; here they are carried out, each wait with its bound.

use pgha_core::commit::CommitOutcome;
use pgha_core::request::Request;
use pgha_core::units::Revision;
use pgha_wire::rest::actions::{parse_reinitialize, parse_restart};
use pgha_wire::rest::patch::{self, ConfigChange};
use pgha_wire::rest::reply::Reply;
use serde_json::{Map, Value};
use tokio::time::timeout;

use crate::info::config_of;
use crate::limits::{ACTION_TIMEOUT, WRITE_TIMEOUT};
use crate::router::Api;

/// `PATCH /config`: compare-and-swap on the revision that was patched.
pub(crate) async fn patch_config(api: &Api, body: &Map<String, Value>) -> Result<Reply, Reply> {
    let view = api.fresh_cluster().await.ok_or_else(|| Reply::error_page(503))?;
    let revision = view.config.as_ref().map(|c| c.mod_revision);
    let (Some(config), Some(revision)) = (config_of(&view), revision) else {
        return Err(Reply::error_page(503));
    };
    let change = patch::patch_config(&config, body)?;
    match store(api, &change, Some(revision)).await {
        Stored::Yes => Ok(finish(api, change)),
        Stored::Conflict => Err(Reply::error_page(409)),
        Stored::Unsure => Err(Reply::error_page(503)),
    }
}

/// `PUT /config`: whatever was there before.
pub(crate) async fn put_config(api: &Api, body: &Map<String, Value>) -> Result<Reply, Reply> {
    let view = api.fresh_cluster().await.ok_or_else(|| Reply::error_page(502))?;
    let change = patch::replace_config(config_of(&view).as_ref(), body)?;
    match store(api, &change, None).await {
        Stored::Yes => Ok(finish(api, change)),
        Stored::Conflict | Stored::Unsure => Err(Reply::error_page(502)),
    }
}

fn finish(api: &Api, change: ConfigChange) -> Reply {
    api.backend.wake();
    change.reply
}

enum Stored {
    Yes,
    Conflict,
    Unsure,
}

async fn store(api: &Api, change: &ConfigChange, expected: Option<Revision>) -> Stored {
    if !change.changed {
        return Stored::Yes;
    }
    let written = timeout(WRITE_TIMEOUT, api.backend.write_config(change.text.clone(), expected)).await;
    match written.unwrap_or(CommitOutcome::Unknown) {
        CommitOutcome::Applied { .. } => Stored::Yes,
        CommitOutcome::Conflict => Stored::Conflict,
        CommitOutcome::LeaseGone | CommitOutcome::Refused => Stored::Unsure,
        // The answer was lost, the write perhaps not: what is there now tells.
        CommitOutcome::Unknown => {
            let view = api.fresh_cluster().await;
            let found = view.and_then(|v| v.config).is_some_and(|c| c.text == change.text);
            if found { Stored::Yes } else { Stored::Unsure }
        }
    }
}

/// `POST /restart`: answers when the restart has ended, or was planned or refused.
pub(crate) async fn restart(api: &Api, body: &Map<String, Value>) -> Result<Reply, Reply> {
    let request = {
        let published = api.board.load();
        let status = &published.status;
        let started = status.sql.as_ref().map(|sql| sql.postmaster_start_time.as_str());
        parse_restart(body, status.pause, api.backend.now().wall, started)?
    };
    Ok(ask(api, request).await)
}

/// `DELETE /restart`.
pub(crate) async fn cancel_restart(api: &Api) -> Reply {
    ask(api, Request::CancelScheduledRestart).await
}

/// `POST /reinitialize`.
pub(crate) async fn reinitialize(api: &Api, body: &Map<String, Value>) -> Reply {
    ask(api, parse_reinitialize(body)).await
}

async fn ask(api: &Api, request: Request) -> Reply {
    match timeout(ACTION_TIMEOUT, api.backend.request(request)).await {
        Ok(answer) => answer.into(),
        Err(_) => Reply::error_page(503),
    }
}
