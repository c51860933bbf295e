//! The monitoring query: everything about a running server that decisions use, in one statement, at one moment.
//!
//! The answer is one JSON value that is read defensively: a missing or odd field becomes "not known" where the fact
//! allows it and makes the whole answer [`SqlView::Unanswered`] where it does not. Views are taken whole
//! (`to_json(row)`), so columns that only newer versions have need no version check.

use std::collections::BTreeMap;
use std::time::Duration;

use pgha_core::pg::{PendingRestart, Slot, SqlFacts, SqlRole, SqlView, StandbyFacts, WalReceiver, WalSender};
use pgha_core::units::{Lsn, Mono, Timeline};
use serde_json::Value;

use crate::clock::boot_now;
use crate::conninfo::ConnInfo;
use crate::error::Error;
use crate::process::ProcessId;
use crate::spec::InstanceSpec;
use crate::sql::{Purpose, STATEMENT_LIMIT, Session};

/// `object_not_in_prerequisite_state`: the server was promoted between two functions of the query. Asked again once.
const CHANGED_MEANWHILE: &str = "55000";

/// The server ended this one connection: `admin_shutdown` (also pg_terminate_backend), `crash_shutdown`,
/// `idle_session_timeout`.
const CONNECTION_ENDED: [&str; 3] = ["57P01", "57P02", "57P05"];

const QUERY: &str = "
SELECT pg_catalog.json_build_object(
  'version', pg_catalog.current_setting('server_version_num'),
  'started', pg_catalog.to_char(pg_catalog.timezone('UTC', pg_catalog.pg_postmaster_start_time()), 'YYYY-MM-DD HH24:MI:SS.US'),
  'in_recovery', x.r,
  'flush', CASE WHEN NOT x.r THEN pg_catalog.pg_current_wal_flush_lsn() END,
  'write', CASE WHEN NOT x.r THEN pg_catalog.pg_current_wal_lsn() END,
  'segment', CASE WHEN NOT x.r THEN pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()) END,
  'received', pg_catalog.pg_last_wal_receive_lsn(),
  'replayed', pg_catalog.pg_last_wal_replay_lsn(),
  'replayed_at', pg_catalog.to_char(pg_catalog.timezone('UTC', pg_catalog.pg_last_xact_replay_timestamp()), 'YYYY-MM-DD HH24:MI:SS.US'),
  'paused', CASE WHEN x.r THEN pg_catalog.pg_is_wal_replay_paused() END,
  'control_timeline', CASE WHEN x.r THEN GREATEST((SELECT timeline_id FROM pg_catalog.pg_control_checkpoint()),
                                                  (SELECT min_recovery_end_timeline FROM pg_catalog.pg_control_recovery())) END,
  'receiver', CASE WHEN x.r THEN (SELECT pg_catalog.to_json(w) FROM pg_catalog.pg_stat_wal_receiver w) END,
  'conninfo', pg_catalog.current_setting('primary_conninfo'),
  'slot_name', pg_catalog.current_setting('primary_slot_name'),
  'restore', pg_catalog.current_setting('restore_command') <> '',
  'senders', (SELECT pg_catalog.json_agg(s) FROM pg_catalog.pg_stat_replication s),
  'slots', (SELECT pg_catalog.json_agg(s) FROM pg_catalog.pg_replication_slots s),
  'sync_names', pg_catalog.current_setting('synchronous_standby_names'),
  'sync_commit', pg_catalog.current_setting('synchronous_commit'),
  'pending', (SELECT pg_catalog.json_agg(pg_catalog.json_build_object('name', p.name,
      'old', pg_catalog.current_setting(p.name),
      'new', (SELECT f.setting FROM pg_catalog.pg_file_settings f WHERE f.name = p.name ORDER BY f.seqno DESC LIMIT 1)))
    FROM pg_catalog.pg_settings p WHERE p.pending_restart)
)
FROM (SELECT pg_catalog.pg_is_in_recovery() AS r OFFSET 0) x";

/// The kept connection, together with the postmaster it belongs to.
#[derive(Default)]
pub(crate) struct Monitor {
    kept: Option<(ProcessId, Session)>,
}

impl Monitor {
    /// Asks the server; answers by `deadline` (boot time) at the latest.
    pub(crate) async fn ask(&mut self, spec: &InstanceSpec, postmaster: ProcessId, deadline: Mono) -> SqlView {
        // A connection that died since the last time says nothing about the server now; a second try does.
        let kept_was_used = self.is_kept(postmaster);
        let mut answer = self.try_once(spec, postmaster, deadline).await;
        let again = match &answer {
            Err(Error::Sql {
                sqlstate: Some(code), ..
            }) => code == CHANGED_MEANWHILE || (kept_was_used && CONNECTION_ENDED.contains(&code.as_str())),
            Err(Error::Sql { sqlstate: None, .. }) => kept_was_used,
            _ => false,
        };
        if again {
            answer = self.try_once(spec, postmaster, deadline).await;
        }
        match answer {
            Ok(facts) => SqlView::Answered(facts),
            Err(e) => {
                let cannot_connect_now = matches!(e, Error::CannotConnectNow { .. });
                SqlView::Unanswered {
                    reason: e.chain(),
                    cannot_connect_now,
                }
            }
        }
    }

    /// Drops the kept connection, so that it does not hold up a shutdown in smart mode.
    pub(crate) fn close(&mut self) {
        self.kept = None;
    }

    fn is_kept(&self, postmaster: ProcessId) -> bool {
        self.kept
            .as_ref()
            .is_some_and(|(of, session)| *of == postmaster && !session.is_closed())
    }

    async fn try_once(
        &mut self,
        spec: &InstanceSpec,
        postmaster: ProcessId,
        deadline: Mono,
    ) -> Result<SqlFacts, Error> {
        if !self.is_kept(postmaster) {
            self.kept = None;
        }
        let session = match self.kept.take() {
            Some((_, session)) => session,
            None => Session::open(spec, Purpose::Heartbeat, left(deadline)?).await?,
        };
        let began = boot_now();
        session.rows("SELECT 1", "SELECT 1", left(deadline)?).await?;
        let response_time = boot_now().since(began);
        let json = session
            .value("monitoring query", QUERY, left(deadline)?.min(STATEMENT_LIMIT))
            .await?;
        // Only a connection that answered is kept: after an error or a timeout its state is not known.
        self.kept = Some((postmaster, session));
        parse_answer(&json.unwrap_or_default(), response_time)
    }
}

fn left(deadline: Mono) -> Result<Duration, Error> {
    let left = deadline.since(boot_now());
    if left.is_zero() {
        return Err(Error::TimedOut {
            what: "asking the local server".to_string(),
            limit: left,
        });
    }
    Ok(left)
}

fn parse_answer(json: &str, response_time: Duration) -> Result<SqlFacts, Error> {
    let odd = |field: &str| Error::Malformed {
        place: format!("answer of the monitoring query, field {field}"),
        reason: "missing or not of the expected type".to_string(),
    };
    let answer: Value = serde_json::from_str(json).map_err(|_| odd("(all)"))?;
    let role = match answer["in_recovery"].as_bool().ok_or_else(|| odd("in_recovery"))? {
        false => SqlRole::Primary {
            timeline: segment_timeline(&answer["segment"]).ok_or_else(|| odd("segment"))?,
            flush: lsn(&answer["flush"]).ok_or_else(|| odd("flush"))?,
            write: lsn(&answer["write"]).ok_or_else(|| odd("write"))?,
        },
        true => SqlRole::Standby(standby(&answer)),
    };
    Ok(SqlFacts {
        response_time,
        server_version: text(&answer["version"])
            .and_then(|v| v.parse().ok())
            .ok_or_else(|| odd("version"))?,
        postmaster_start_time: utc(&answer["started"]).ok_or_else(|| odd("started"))?,
        role,
        wal_senders: rows(&answer["senders"]).filter_map(wal_sender).collect(),
        slots: rows(&answer["slots"]).filter_map(slot).collect::<BTreeMap<_, _>>(),
        synchronous_standby_names: text(&answer["sync_names"]).unwrap_or_default(),
        synchronous_commit: text(&answer["sync_commit"]).unwrap_or_default(),
        pending_restart: rows(&answer["pending"]).filter_map(pending).collect(),
    })
}

fn standby(answer: &Value) -> StandbyFacts {
    let receiver = &answer["receiver"];
    // Before it has connected, a wal receiver has no timeline yet.
    let received_timeline = timeline(&receiver["received_tli"]);
    StandbyFacts {
        timeline: received_timeline.or_else(|| timeline(&answer["control_timeline"])),
        received: lsn(&answer["received"]),
        replayed: lsn(&answer["replayed"]),
        replayed_timestamp: utc(&answer["replayed_at"]),
        replay_paused: answer["paused"].as_bool().unwrap_or(false),
        wal_receiver: text(&receiver["status"]).map(|status| WalReceiver {
            status,
            sender_host: text(&receiver["sender_host"]),
            sender_port: receiver["sender_port"].as_u64().and_then(|p| u16::try_from(p).ok()),
            latest_end: lsn(&receiver["latest_end_lsn"]),
        }),
        primary_conninfo: without_password(&text(&answer["conninfo"]).unwrap_or_default()),
        primary_slot_name: text(&answer["slot_name"]).unwrap_or_default(),
        has_restore_command: answer["restore"].as_bool().unwrap_or(false),
    }
}

/// What cannot be parsed could hide a password, so it is left out.
fn without_password(conninfo: &str) -> String {
    ConnInfo::parse(conninfo)
        .map(|c| c.redacted().render())
        .unwrap_or_default()
}

fn wal_sender(row: &Value) -> Option<WalSender> {
    Some(WalSender {
        pid: row["pid"].as_i64().and_then(|p| i32::try_from(p).ok())?,
        usename: text(&row["usename"]).unwrap_or_default(),
        application_name: text(&row["application_name"]).unwrap_or_default(),
        client_addr: text(&row["client_addr"]),
        state: text(&row["state"]).unwrap_or_default(),
        sync_state: text(&row["sync_state"]).unwrap_or_default(),
        sync_priority: row["sync_priority"]
            .as_i64()
            .and_then(|p| i32::try_from(p).ok())
            .unwrap_or(0),
        write: lsn(&row["write_lsn"]),
        flush: lsn(&row["flush_lsn"]),
        replay: lsn(&row["replay_lsn"]),
    })
}

fn slot(row: &Value) -> Option<(String, Slot)> {
    let slot = Slot {
        logical: row["slot_type"].as_str()? == "logical",
        active: row["active"].as_bool().unwrap_or(false),
        restart: lsn(&row["restart_lsn"]),
        confirmed_flush: lsn(&row["confirmed_flush_lsn"]),
        has_xmin: !row["xmin"].is_null() || !row["catalog_xmin"].is_null(),
        lost: row["wal_status"] == "lost",
        temporary: row["temporary"].as_bool().unwrap_or(false),
        failover: row["failover"].as_bool().unwrap_or(false),
        database: text(&row["database"]),
        plugin: text(&row["plugin"]),
    };
    Some((text(&row["slot_name"])?, slot))
}

fn pending(row: &Value) -> Option<PendingRestart> {
    Some(PendingRestart {
        name: text(&row["name"])?,
        old_value: text(&row["old"]).unwrap_or_default(),
        new_value: text(&row["new"]).unwrap_or_default(),
    })
}

fn rows(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_string)
}

fn utc(value: &Value) -> Option<String> {
    value.as_str().map(|t| format!("{t}+00:00"))
}

fn lsn(value: &Value) -> Option<Lsn> {
    Lsn::parse(value.as_str()?)
}

fn timeline(value: &Value) -> Option<Timeline> {
    value
        .as_u64()
        .and_then(|t| u32::try_from(t).ok())
        .filter(|t| *t > 0)
        .map(Timeline)
}

/// The first eight digits of a segment's name are its timeline.
fn segment_timeline(value: &Value) -> Option<Timeline> {
    let digits = value.as_str()?.get(..8)?;
    u32::from_str_radix(digits, 16).ok().filter(|t| *t > 0).map(Timeline)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const PRIMARY: &str = r#"{"version":"150020","started":"2026-01-02 03:04:05.000006","in_recovery":false,
        "flush":"0/3000060","write":"0/3000070","segment":"000000020000000000000003","senders":[{"pid":7},{"pid":"x"}],
        "slots":[{"slot_name":"a","slot_type":"physical","xmin":"77","wal_status":"lost"},{"slot_name":null}],
        "pending":[{"name":"max_connections","old":"100","new":null}],"sync_names":"","sync_commit":"on"}"#;

    #[test]
    fn a_primarys_answer_is_read_and_odd_rows_are_skipped() {
        let facts = parse_answer(PRIMARY, Duration::ZERO).unwrap();
        assert_eq!(
            facts.role,
            SqlRole::Primary {
                timeline: Timeline(2),
                flush: Lsn(0x300_0060),
                write: Lsn(0x300_0070)
            }
        );
        assert_eq!(facts.postmaster_start_time, "2026-01-02 03:04:05.000006+00:00");
        assert_eq!((facts.wal_senders.len(), facts.slots.len()), (1, 1));
        assert!(facts.slots["a"].lost && facts.slots["a"].has_xmin);
        assert_eq!(facts.pending_restart[0].new_value, "");
    }

    #[test]
    fn an_answer_without_its_essential_fields_is_no_answer() {
        for (field, other) in [
            ("in_recovery", "was"),
            ("flush", "was"),
            ("segment", "was"),
            ("version", "was"),
            ("started", "was"),
        ] {
            assert!(
                parse_answer(&PRIMARY.replacen(field, other, 1), Duration::ZERO).is_err(),
                "{field}"
            );
        }
        for json in ["", "null", "[]", "{}", "\"x\"", "{\"in_recovery\":1}"] {
            assert!(parse_answer(json, Duration::ZERO).is_err(), "{json}");
        }
    }

    #[test]
    fn a_standbys_password_is_not_reported() {
        let json = r#"{"version":"150020","started":"x","in_recovery":true,"conninfo":"host=a password='p w' user=rep",
            "received":null,"replayed":"0/5","receiver":null,"control_timeline":3,"restore":true}"#;
        let SqlRole::Standby(s) = parse_answer(json, Duration::ZERO).unwrap().role else {
            unreachable!()
        };
        assert_eq!(s.primary_conninfo, "host=a user=rep");
        assert_eq!(
            (s.timeline, s.received, s.replayed),
            (Some(Timeline(3)), None, Some(Lsn(5)))
        );
        assert!(s.has_restore_command && s.wal_receiver.is_none());
        assert_eq!(without_password("password=x host"), "");
    }
}
