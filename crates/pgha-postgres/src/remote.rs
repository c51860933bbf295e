//! Facts about another member's server, asked through `psql`.
//!
//! `psql` is libpq: it understands every `sslmode`, certificate and passfile setting that replication itself uses, and
//! speaks the replication protocol's IDENTIFY_SYSTEM and TIMELINE_HISTORY. These questions come once per divergence
//! check, so a fork costs nothing that matters.

use std::time::Duration;

use pgha_core::units::{Lsn, SystemId, Timeline};
use tokio_util::sync::CancellationToken;

use crate::child::{Tool, run};
use crate::conninfo::ConnInfo;
use crate::error::Error;
use crate::files::TemporaryPass;
use crate::history::{HistoryEntry, parse_history};
use crate::instance::Instance;
use crate::spec::Credentials;

/// libpq's own limit for each host, in seconds.
const CONNECT_TIMEOUT: &str = "3";
/// A byte that occurs in none of the answers.
const SEPARATOR: &str = "\x1f";

/// The answer to IDENTIFY_SYSTEM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// System identifier.
    pub system_id: SystemId,
    /// Current timeline; in recovery the one being replayed.
    pub timeline: Timeline,
    /// Flushed position; in recovery the larger of received and replayed.
    pub position: Lsn,
}

/// `source` completed with the user and the user's connection options, never with a password.
pub(crate) fn reach(source: &ConnInfo, user: &Credentials, database: &str) -> ConnInfo {
    let mut info = source.redacted();
    if info.get("dbname").is_none() {
        info.set("dbname", database);
    }
    info.set("user", &user.user);
    for (key, value) in &user.options {
        if info.get(key).is_none() {
            info.set(key, value);
        }
    }
    info.redacted()
}

impl Instance {
    /// IDENTIFY_SYSTEM on another server, or on the local one with [`crate::InstanceSpec::local_conninfo`]'s host and
    /// port, as the replication user. `source` needs `host` and `port`.
    ///
    /// # Errors
    /// [`Error::Failed`] with libpq's words when there is no connection; [`Error::TimedOut`].
    pub async fn identify_system(&self, source: &ConnInfo, limit: Duration) -> Result<Identity, Error> {
        let info = source.clone().with("replication", "true");
        let text = self
            .psql(&info, &self.spec().replication, "IDENTIFY_SYSTEM", limit)
            .await?;
        parse_identity(&text).ok_or_else(|| malformed("IDENTIFY_SYSTEM", &text))
    }

    /// The history of a timeline as another server knows it. Timeline 1 has none: the answer is empty without asking.
    ///
    /// # Errors
    /// As [`Instance::identify_system`]; also when the server has no such file.
    pub async fn timeline_history(
        &self,
        source: &ConnInfo,
        timeline: Timeline,
        limit: Duration,
    ) -> Result<Vec<HistoryEntry>, Error> {
        if timeline.0 <= 1 {
            return Ok(Vec::new());
        }
        let info = source.clone().with("replication", "true");
        let command = format!("TIMELINE_HISTORY {timeline}");
        let text = self.psql(&info, &self.spec().replication, &command, limit).await?;
        match text.split_once(SEPARATOR) {
            Some((_, content)) => parse_history(content),
            None => Err(malformed(&command, &text)),
        }
    }

    /// Whether another server is in recovery, and the timeline of its latest checkpoint, asked as the rewind user.
    /// pg_rewind trusts that timeline, so it must have changed after a promotion before a rewind can work.
    ///
    /// # Errors
    /// As [`Instance::identify_system`].
    pub async fn source_checkpoint(&self, source: &ConnInfo, limit: Duration) -> Result<(bool, Timeline), Error> {
        const SQL: &str = "SELECT pg_catalog.pg_is_in_recovery(), timeline_id FROM pg_catalog.pg_control_checkpoint()";
        let text = self.psql(source, self.spec().rewind_user(), SQL, limit).await?;
        let parsed = text.trim().split_once(SEPARATOR).and_then(|(recovery, timeline)| {
            Some((recovery == "t", Timeline(timeline.parse().ok().filter(|t| *t > 0)?)))
        });
        parsed.ok_or_else(|| malformed("the question for its checkpoint", &text))
    }

    /// CHECKPOINT on another server as superuser.
    ///
    /// # Errors
    /// As [`Instance::identify_system`].
    pub async fn checkpoint_source(&self, source: &ConnInfo, limit: Duration) -> Result<(), Error> {
        self.psql(source, &self.spec().superuser, "CHECKPOINT", limit)
            .await
            .map(drop)
    }

    pub(crate) async fn psql(
        &self,
        source: &ConnInfo,
        user: &Credentials,
        command: &str,
        limit: Duration,
    ) -> Result<String, Error> {
        let info = reach(source, user, &self.spec().database).with("connect_timeout", CONNECT_TIMEOUT);
        let pass = TemporaryPass::new(&self.spec().state_dir, &info, user)?;
        let tool = Tool::new(self.bin().path("psql")?)
            .args(["--no-psqlrc", "--no-password", "--quiet", "--tuples-only", "--no-align"])
            .arg(format!("--field-separator={SEPARATOR}"))
            .arg(format!("--dbname={}", info.render()))
            .arg(format!("--command={command}"))
            .env("PGPASSFILE", pass.path())
            .in_english()
            .limit(limit);
        let ended = run(tool, &CancellationToken::new(), |_| {}).await?;
        ended.success().map(|e| e.stdout)
    }
}

fn parse_identity(text: &str) -> Option<Identity> {
    let mut fields = text.trim().split(SEPARATOR);
    let system_id = SystemId(fields.next()?.parse().ok()?);
    let timeline = fields.next()?.parse().ok().filter(|t| *t > 0).map(Timeline)?;
    Some(Identity {
        system_id,
        timeline,
        position: Lsn::parse(fields.next()?)?,
    })
}

pub(crate) fn malformed(what: &str, text: &str) -> Error {
    Error::Malformed {
        place: format!("answer to {what}"),
        reason: format!("not understood: {:?}", text.chars().take(80).collect::<String>()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_identity_is_read_and_nonsense_refused() {
        let id = parse_identity("7000\x1f2\x1f0/3000060\x1f\n").unwrap();
        assert_eq!(
            id,
            Identity {
                system_id: SystemId(7000),
                timeline: Timeline(2),
                position: Lsn(0x300_0060)
            }
        );
        for text in ["", "x\x1f1\x1f0/1", "1\x1f0\x1f0/1", "1\x1f1\x1f", "1"] {
            assert_eq!(parse_identity(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_users_options_do_not_override_the_source_and_no_password_gets_through() {
        let mut user = Credentials::new("rep", "secret");
        user.options = vec![
            ("sslmode".into(), "verify-full".into()),
            ("sslpassword".into(), "k".into()),
        ];
        let source = ConnInfo::new()
            .with("host", "a")
            .with("sslmode", "disable")
            .with("password", "x");
        assert_eq!(
            reach(&source, &user, "db").render(),
            "host=a sslmode=disable dbname=db user=rep"
        );
    }
}
