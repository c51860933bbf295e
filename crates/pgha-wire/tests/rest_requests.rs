//! Requests of operators: what is accepted, and the exact answer to each one that is not.

mod common;

use std::time::Duration;

use common::{BASE, key, name, snapshot};
use pgha_core::cluster::ClusterView;
use pgha_core::request::{Request, RestartRequest, RestartRole};
use pgha_core::units::{Lsn, Revision, Wall};
use pgha_wire::cluster::parse_cluster;
use pgha_wire::rest::actions::{Body, parse_body, parse_reinitialize, parse_restart};
use pgha_wire::rest::failsafe::parse_question;
use pgha_wire::rest::reply::Reply;
use pgha_wire::rest::switchover::{
    Change, cancelled, no_good_candidates, outcome, outcome_unknown, parse_cancel, parse_change, written,
};
use serde_json::{Map, Value, json};

/// 2026-01-01T13:00:00Z.
const NOW: Wall = Wall(1_767_272_400_000_000);
const LATER: &str = "2026-01-01T14:00:00+00:00";
const UNPARSABLE: &str = "Unable to parse scheduled timestamp. It should be in an unambiguous format, e.g. ISO 8601";

fn body(value: &Value) -> Map<String, Value> {
    value.as_object().cloned().expect("an object")
}

/// `n1` leads, `n2` and `n3` follow, `n4` has no REST address.
fn cluster(config: &str, sync: &str, failover: &str) -> ClusterView {
    let member = r#"{"api_url":"http://h:8008/patroni"}"#;
    let mut keys = vec![key("config", config), key("leader", "n1"), key("members/n1", member)];
    keys.extend([
        key("members/n2", member),
        key("members/n3", member),
        key("members/n4", "{}"),
    ]);
    if !sync.is_empty() {
        keys.push(key("sync", sync));
    }
    if !failover.is_empty() {
        keys.push(key("failover", failover));
    }
    parse_cluster(BASE, &snapshot(keys))
}

fn plain() -> ClusterView {
    cluster("{}", "", "")
}

#[test]
fn bodies_are_json_objects() {
    for (bytes, need, expected) in [
        (None, Body::Mandatory, Err(411)),
        (None, Body::Optional, Ok(0)),
        (Some(&b""[..]), Body::Mandatory, Err(400)),
        (Some(b""), Body::Optional, Ok(0)),
        (Some(b"{}"), Body::Mandatory, Err(400)),
        (Some(b"{}"), Body::Optional, Ok(0)),
        (Some(b"{\"a\":1}"), Body::Mandatory, Ok(1)),
        (Some(b"[1]"), Body::Optional, Err(400)),
        (Some(b"null"), Body::Optional, Err(400)),
        (Some(b"{"), Body::Optional, Err(400)),
        (Some(b"\xff"), Body::Mandatory, Err(400)),
        (Some(&vec![b' '; 1024 * 1024 + 1]), Body::Mandatory, Err(413)),
    ] {
        assert_eq!(
            parse_body(bytes, need).map(|m| m.len()).map_err(|r| r.status),
            expected,
            "{bytes:?}"
        );
    }
}

#[test]
fn a_restart_is_taken_with_its_conditions() {
    let all = json!({"role": "replica", "postgres_version": "15.3", "timeout": "2min", "restart_pending": false});
    let request = RestartRequest {
        role: Some(RestartRole::Standby),
        version_below: Some(150_003),
        if_pending: true,
        timeout: Some(Duration::from_secs(120)),
    };
    assert_eq!(
        parse_restart(&body(&all), true, NOW, None),
        Ok(Request::Restart(request.clone()))
    );
    assert_eq!(
        parse_restart(&Map::new(), true, NOW, None),
        Ok(Request::Restart(RestartRequest::default()))
    );
    for (version, number) in [("9.5.3", 90_503), ("10.1", 100_001), ("16.04", 160_004)] {
        let found = parse_restart(&body(&json!({"postgres_version": version})), false, NOW, None);
        let expected = RestartRequest {
            version_below: Some(number),
            ..RestartRequest::default()
        };
        assert_eq!(found, Ok(Request::Restart(expected)));
    }

    let mut planned = body(&all);
    planned.insert("schedule".into(), LATER.into());
    let text = r#"{"role":"replica","postgres_version":"15.3","timeout":120,"restart_pending":false,"schedule":"2026-01-01T14:00:00+00:00","postmaster_start_time":"then"}"#;
    let at = Wall(NOW.0 + 3_600_000_000);
    assert_eq!(
        parse_restart(&planned, false, NOW, Some("then")),
        Ok(Request::ScheduleRestart {
            at,
            request,
            text: text.into()
        })
    );
}

#[test]
fn a_bad_restart_gets_patronis_answer() {
    let role = "PostgreSQL role should be either primary, standby_leader, or replica";
    let timeout = "Timeout should be a positive number of seconds";
    let format = "Invalid PostgreSQL version format: X.Y or X.Y.Z is accepted: ";
    let past = "Cannot schedule restart in the past";
    let zone = "Timezone information is mandatory for the scheduled restart";
    for (request, status, text) in [
        (json!({"role": "master"}), 400, role.to_owned()),
        (json!({"role": 1}), 400, role.to_owned()),
        (json!({"timeout": 0}), 400, timeout.to_owned()),
        (json!({"timeout": "-1s"}), 400, timeout.to_owned()),
        (json!({"timeout": "soon"}), 400, timeout.to_owned()),
        (json!({"timeout": null}), 400, timeout.to_owned()),
        (
            json!({"postgres_version": "a.b.c"}),
            400,
            "Invalid PostgreSQL version: a.b.c".to_owned(),
        ),
        (
            json!({"postgres_version": 15}),
            400,
            "Invalid PostgreSQL version: 15".to_owned(),
        ),
        (json!({"postgres_version": "10"}), 400, format!("{format}10")),
        (json!({"postgres_version": "9.6"}), 400, format!("{format}9.6")),
        (json!({"postgres_version": "1.2.3.4"}), 400, format!("{format}1.2.3.4")),
        (json!({"schedule": "2026-01-01T12:59:59+00:00"}), 422, past.to_owned()),
        (json!({"schedule": "2026-01-01T14:00:00"}), 400, zone.to_owned()),
        (json!({"schedule": "soon"}), 422, UNPARSABLE.to_owned()),
        (json!({"schedule": 5}), 422, UNPARSABLE.to_owned()),
        (json!({"schedule": null}), 422, UNPARSABLE.to_owned()),
        (
            json!({"x": 1, "role": "bad"}),
            400,
            "Unknown filter for the scheduled restart: x".to_owned(),
        ),
    ] {
        assert_eq!(
            parse_restart(&body(&request), false, NOW, None),
            Err(Reply::text(status, text)),
            "{request}"
        );
    }
    let paused = parse_restart(&body(&json!({"role": "bad", "schedule": LATER})), true, NOW, None);
    assert_eq!(
        paused,
        Err(Reply::text(500, "Can't schedule restart in the paused state"))
    );
}

#[test]
fn reinitialize_takes_two_flags() {
    for (request, force, from_leader) in [
        (json!({}), false, false),
        (json!({"force": true}), true, false),
        (json!({"force": "on", "from_leader": "yes"}), true, true),
        (json!({"force": [], "from_leader": "maybe"}), false, false),
    ] {
        assert_eq!(
            parse_reinitialize(&body(&request)),
            Request::Reinitialize { force, from_leader },
            "{request}"
        );
    }
}

#[test]
fn a_failsafe_question_says_who_asks() {
    let good = json!({"name": "n1", "conn_url": "c", "api_url": "a", "slots": {"n2": 5, "x": "y"}});
    let request = parse_question(&body(&good)).expect("it is complete");
    assert_eq!(
        (request.name, request.slots),
        (name("n1"), [("n2".to_owned(), Lsn(5))].into())
    );
    for bad in [
        json!({"name": "n1"}),
        json!({"name": 1, "conn_url": "c", "api_url": "a"}),
        json!({"x": 1}),
    ] {
        assert_eq!(parse_question(&body(&bad)), Err(Reply::error_page(400)), "{bad}");
    }
}

#[test]
fn a_switchover_names_those_to_be_asked() {
    let parse = |change, request: Value, view: &ClusterView| {
        let found = parse_change(change, &body(&request), view, NOW).expect("it is allowed");
        (
            found.change,
            found.ask.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
            found.value,
        )
    };
    let (change, ask, value) = parse(Change::Switchover, json!({"leader": "n1"}), &plain());
    assert_eq!((change, ask.as_str()), (Change::Switchover, "n2,n3"));
    assert_eq!(
        (value.leader, value.candidate, value.scheduled_at),
        (Some(name("n1")), None, None)
    );

    let (change, ask, _) = parse(Change::Failover, json!({"member": "n2"}), &plain());
    assert_eq!((change, ask.as_str()), (Change::Failover, "n2"));

    let (change, _, value) = parse(
        Change::Failover,
        json!({"leader": "n1", "candidate": "n2", "member": "x"}),
        &plain(),
    );
    assert_eq!(
        (change, value.candidate),
        (Change::Switchover, Some(name("n2"))),
        "a leader makes it a switchover"
    );

    let request = json!({"leader": "n1", "candidate": "anybody", "scheduled_at": LATER});
    let (_, ask, value) = parse(Change::Switchover, request, &plain());
    assert_eq!(
        (ask.as_str(), value.scheduled_at),
        ("", Some(Wall(NOW.0 + 3_600_000_000)))
    );

    let sync = cluster(
        r#"{"synchronous_mode":true}"#,
        r#"{"leader":"n1","sync_standby":"N3"}"#,
        "",
    );
    let (_, ask, _) = parse(Change::Switchover, json!({"leader": "n1"}), &sync);
    assert_eq!(ask, "n3");
    let (_, ask, _) = parse(Change::Failover, json!({"candidate": "n2"}), &sync);
    assert_eq!(ask, "n2", "a failover may go to an asynchronous member");
    let quorum = cluster(
        r#"{"synchronous_mode":"quorum"}"#,
        r#"{"leader":"n1","sync_standby":"n3"}"#,
        "",
    );
    let (_, ask, _) = parse(Change::Switchover, json!({"leader": "n1", "candidate": "n2"}), &quorum);
    assert_eq!(ask, "n2");
}

#[test]
fn a_bad_switchover_gets_patronis_answer() {
    use Change::{Failover, Switchover};
    let sync = cluster(
        r#"{"synchronous_mode":true}"#,
        r#"{"leader":"n1","sync_standby":"n3"}"#,
        "",
    );
    let no_sync = cluster(r#"{"synchronous_mode":true}"#, "", "");
    let paused = cluster(r#"{"pause":true}"#, "", "");
    let alone = parse_cluster(BASE, &snapshot(vec![key("leader", "n1"), key("members/n1", "{}")]));
    let sync_word = "candidate name does not match with sync_standby";
    let past = json!({"leader": "n1", "scheduled_at": "2026-01-01T13:59:00+01:00"});
    let no_zone = json!({"leader": "n1", "scheduled_at": "2026-01-01T14:00:00"});
    let to_async = json!({"leader": "n1", "candidate": "n2"});
    for (change, request, view, status, text) in [
        (
            Failover,
            json!({"leader": "n1"}),
            &plain(),
            400,
            "Failover could be performed only to a specific candidate",
        ),
        (
            Failover,
            json!({"candidate": ""}),
            &plain(),
            400,
            "Failover could be performed only to a specific candidate",
        ),
        (
            Switchover,
            json!({"candidate": "n2"}),
            &plain(),
            400,
            "Switchover could be performed only from a specific leader",
        ),
        (
            Switchover,
            json!({"leader": 1}),
            &plain(),
            400,
            "leader has to be the name of a member",
        ),
        (
            Switchover,
            json!({"leader": "n1", "candidate": ["n2"]}),
            &plain(),
            400,
            "candidate has to be the name of a member",
        ),
        (
            Failover,
            json!({"candidate": "n2", "scheduled_at": LATER}),
            &plain(),
            400,
            "Failover can't be scheduled",
        ),
        (
            Switchover,
            json!({"leader": "n1", "scheduled_at": LATER}),
            &paused,
            400,
            "Can't schedule switchover in the paused state",
        ),
        (
            Switchover,
            past,
            &plain(),
            422,
            "Cannot schedule switchover in the past",
        ),
        (
            Switchover,
            no_zone,
            &plain(),
            400,
            "Timezone information is mandatory for the scheduled switchover",
        ),
        (
            Switchover,
            json!({"leader": "n1", "scheduled_at": {"a": 1}}),
            &plain(),
            422,
            UNPARSABLE,
        ),
        (
            Switchover,
            json!({"leader": "n1"}),
            &paused,
            400,
            "Switchover is possible only to a specific candidate in a paused state",
        ),
        (
            Switchover,
            json!({"leader": "n1", "candidate": "n1"}),
            &plain(),
            400,
            "Switchover target and source are the same",
        ),
        (
            Switchover,
            json!({"leader": "n2", "candidate": "n1"}),
            &plain(),
            412,
            "leader name does not match",
        ),
        (Switchover, to_async.clone(), &sync, 412, sync_word),
        (Failover, to_async, &sync, 412, sync_word),
        (
            Switchover,
            json!({"leader": "n1", "candidate": "n9"}),
            &plain(),
            412,
            "candidate does not exists",
        ),
        (
            Switchover,
            json!({"leader": "n1"}),
            &no_sync,
            412,
            "switchover is not possible: can not find sync_standby",
        ),
        (
            Switchover,
            json!({"leader": "n1"}),
            &alone,
            412,
            "switchover is not possible: cluster does not have members except leader",
        ),
    ] {
        let found = parse_change(change, &body(&request), view, NOW);
        assert_eq!(found, Err(Reply::text(status, text)), "{change:?} {request}");
    }
    assert_eq!(
        no_good_candidates(Switchover),
        Reply::text(412, "switchover is not possible: no good candidates have been found")
    );
}

#[test]
fn the_outcome_of_a_switchover_is_told_as_patroni_tells_it() {
    let pending = |leader: &str| {
        parse_cluster(
            BASE,
            &snapshot(vec![key("leader", leader), key("failover", r#"{"leader":"n1"}"#)]),
        )
    };
    let done = |leader: &str| parse_cluster(BASE, &snapshot(vec![key("leader", leader), key("failover", "{}")]));
    let former = Some(name("n1"));
    let ask = |change, request: Value| parse_change(change, &body(&request), &plain(), NOW).expect("it is allowed");
    let anywhere = ask(Change::Switchover, json!({"leader": "n1"}));
    let to_n2 = ask(Change::Switchover, json!({"leader": "n1", "candidate": "n2"}));
    let failover = ask(Change::Failover, json!({"candidate": "n2"}));
    for (request, view, expected) in [
        (&anywhere, pending("n1"), None),
        (
            &anywhere,
            parse_cluster(BASE, &snapshot(vec![key("failover", "a:b")])),
            None,
        ),
        (
            &anywhere,
            done("n3"),
            Some((200, "Successfully switched over to \"n3\"")),
        ),
        (
            &to_n2,
            pending("n2"),
            Some((200, "Successfully switched over to \"n2\"")),
        ),
        (
            &to_n2,
            done("n3"),
            Some((200, "Switched over to \"n3\" instead of \"n2\"")),
        ),
        (&to_n2, done("n1"), Some((503, "Switchover failed"))),
        (&failover, done("n2"), Some((200, "Successfully failed over to \"n2\""))),
        (
            &failover,
            done("n3"),
            Some((200, "Failed over to \"n3\" instead of \"n2\"")),
        ),
        (&failover, done("n1"), Some((503, "Failover failed"))),
    ] {
        assert_eq!(
            outcome(request, former.as_ref(), &view),
            expected.map(|(s, t)| Reply::text(s, t))
        );
    }
    assert_eq!(written(&to_n2, true), None);
    assert_eq!(
        written(&to_n2, false),
        Some(Reply::text(503, "failed to write failover key into DCS"))
    );
    let planned = ask(Change::Switchover, json!({"leader": "n1", "scheduled_at": LATER}));
    assert_eq!(written(&planned, true), Some(Reply::text(202, "Switchover scheduled")));
    let unknown = "Failover status unknown after 20 seconds; operation may still be in progress";
    assert_eq!(outcome_unknown(Change::Failover, 20), Reply::text(503, unknown));
}

#[test]
fn only_a_planned_switchover_can_be_cancelled() {
    let planned = cluster("{}", "", &format!(r#"{{"leader":"n1","scheduled_at":"{LATER}"}}"#));
    assert_eq!(parse_cancel(&planned), Ok(Revision(7)));
    let unreadable = cluster("{}", "", r#"{"leader":"n1","scheduled_at":"soon"}"#);
    assert_eq!(parse_cancel(&unreadable), Ok(Revision(7)));
    for view in [plain(), cluster("{}", "", r#"{"leader":"n1"}"#)] {
        assert_eq!(parse_cancel(&view), Err(Reply::text(404, "no switchover is scheduled")));
    }
    assert_eq!(cancelled(true), Reply::text(200, "scheduled switchover deleted"));
    assert_eq!(cancelled(false), Reply::error_page(409));
}
