//! What changes something: who may, what is asked of the agent, and every answer.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use common::{Rig, exchange, fit_peer, rig, rig_with};
use pgha_api::limits::BODY_TIMEOUT;
use pgha_api::{AccessSettings, ApiSettings, BasicAuth};
use pgha_core::commit::CommitOutcome;
use pgha_core::failsafe::Verdict;
use pgha_core::peer::PeerView;
use pgha_core::request::Answer;
use pgha_core::units::Lsn;

const UNSAFE: [(&str, &str); 10] = [
    ("PATCH", "/config"),
    ("PUT", "/config"),
    ("POST", "/reload"),
    ("POST", "/failsafe"),
    ("POST", "/restart"),
    ("DELETE", "/restart"),
    ("POST", "/switchover"),
    ("DELETE", "/switchover"),
    ("POST", "/failover"),
    ("POST", "/reinitialize"),
];

fn with_access(access: AccessSettings) -> Rig {
    rig_with(&ApiSettings {
        access,
        ..ApiSettings::default()
    })
}

#[test]
fn unsafe_routes_ask_for_the_password_and_the_others_do_not() {
    let authentication = Some(BasicAuth {
        username: "admin".into(),
        password: "qwerty".into(),
    });
    let rig = with_access(AccessSettings {
        authentication,
        ..AccessSettings::default()
    });
    // admin:wrong and admin:qwerty
    let (wrong, right) = (
        "Authorization: Basic YWRtaW46d3Jvbmc=\r\n",
        "Authorization: Basic YWRtaW46cXdlcnR5\r\n",
    );
    for (method, path) in UNSAFE {
        let none = rig.send(method, path, None);
        none.is(401, "no auth header received");
        assert_eq!(none.header("www-authenticate"), Some("Basic realm=\"Patroni\""));
        rig.send_with(method, path, wrong, None).is(401, "not authenticated");
        assert_ne!(rig.send_with(method, path, right, None).status, 401, "{method} {path}");
    }
    for path in [
        "/", "/patroni", "/cluster", "/config", "/history", "/metrics", "/explain",
    ] {
        assert_eq!(rig.get(path).status, 200, "{path}");
    }
}

#[test]
fn the_allowlist_comes_before_the_password() {
    let rig = with_access(AccessSettings {
        allowlist: vec!["10.0.0.0/8".into()],
        include_members: false,
        authentication: Some(BasicAuth {
            username: "a".into(),
            password: "b".into(),
        }),
    });
    for (method, path) in UNSAFE {
        rig.send(method, path, None).is(403, "Access is denied");
    }
    assert!(rig.fake.calls().is_empty());
    assert_eq!(rig.get("/config").status, 200);
}

#[test]
fn members_are_let_in_when_the_list_includes_them() {
    let rig = with_access(AccessSettings {
        include_members: true,
        ..AccessSettings::default()
    });
    rig.send("POST", "/reload", None).is(403, "Access is denied");
    let mut view = common::cluster();
    let pg2 = view.members.get_mut(&"pg2".into()).unwrap();
    std::sync::Arc::make_mut(pg2).api_url = Some("http://localhost:8008/patroni".into());
    let now = pgha_core::units::Now::default();
    rig.fake
        .board
        .publish(common::primary(), Some(std::sync::Arc::new(view)), now);
    rig.send("POST", "/reload", None).is(202, "reload scheduled");
}

#[test]
fn unknown_methods_and_paths_are_told_apart_from_refusals() {
    let rig = rig();
    for (method, path) in [
        ("POST", "/"),
        ("DELETE", "/config"),
        ("PUT", "/restart"),
        ("BREW", "/pot"),
        ("POST", "/sigterm"),
    ] {
        let got = rig.send(method, path, None);
        got.is_page(501);
        assert!(
            got.body.contains("Server does not support this operation"),
            "{}",
            got.body
        );
    }
}

#[test]
fn a_configuration_patch_is_compared_and_swapped() {
    let rig = rig();
    let new = r#"{"ttl": 20, "postgresql": {"use_slots": true}}"#;
    rig.send("PATCH", "/config", Some(r#"{"ttl": 20, "gone": null}"#))
        .is(200, new);
    assert_eq!(
        rig.fake.calls(),
        [
            r#"config {"ttl":20,"postgresql":{"use_slots":true}} if Some(5)"#,
            "wake"
        ]
    );
    rig.get("/config").is(200, new);
    // Nothing to change, nothing written.
    rig.send("PATCH", "/config", Some(r#"{"ttl": 20}"#)).is(200, new);
    assert_eq!(rig.fake.calls().iter().filter(|c| c.starts_with("config")).count(), 1);
}

#[test]
fn a_configuration_patch_fails_in_every_way_it_can() {
    let rig = rig();
    let patch = || rig.send("PATCH", "/config", Some(r#"{"ttl": 20}"#));
    for (outcome, status) in [
        (CommitOutcome::Conflict, 409),
        (CommitOutcome::Refused, 503),
        (CommitOutcome::Unknown, 503),
    ] {
        *rig.fake.outcome.lock().unwrap() = outcome;
        patch().is_page(status);
    }
    // The answer got lost, the write did not.
    rig.fake.writes_anyway.store(true, Ordering::SeqCst);
    assert_eq!(patch().status, 200);
    rig.fake.etcd.lock().unwrap().config = None;
    patch().is_page(503);
    rig.fake.etcd_down.store(true, Ordering::SeqCst);
    patch().is_page(503);
}

#[test]
fn a_configuration_is_replaced_even_where_there_is_none() {
    let rig = rig();
    rig.send("PUT", "/config", Some(r#"{"ttl": 25}"#))
        .is(200, r#"{"ttl": 25}"#);
    rig.fake.etcd.lock().unwrap().config = None;
    rig.send("PUT", "/config", Some(r#"{"ttl": 26}"#))
        .is(200, r#"{"ttl": 26}"#);
    *rig.fake.outcome.lock().unwrap() = CommitOutcome::Refused;
    rig.send("PUT", "/config", Some(r#"{"ttl": 27}"#)).is_page(502);
    let writes: Vec<String> = rig
        .fake
        .calls()
        .into_iter()
        .filter(|c| c.starts_with("config"))
        .collect();
    assert_eq!(
        writes,
        [
            r#"config {"ttl":25} if None"#,
            r#"config {"ttl":26} if None"#,
            r#"config {"ttl":27} if None"#
        ]
    );
}

#[test]
fn restart_and_its_relatives_pass_the_answer_of_the_agent_on() {
    let rig = rig();
    rig.send("POST", "/restart", None).is(200, "restarted successfully");
    rig.send("POST", "/restart", Some(r#"{"restart_pending": true}"#))
        .is(200, "restarted successfully");
    for (answer, status) in [
        (Answer::Refused("restart conditions are not satisfied".into()), 503),
        (Answer::Conflict("Another restart is already scheduled".into()), 409),
        (Answer::NotFound("no restarts are scheduled".into()), 404),
        (Answer::Scheduled("Restart scheduled".into()), 202),
        (Answer::Impossible("Can't".into()), 500),
    ] {
        *rig.fake.answer.lock().unwrap() = answer.clone();
        for (method, path) in [("POST", "/restart"), ("DELETE", "/restart"), ("POST", "/reinitialize")] {
            let got = rig.send(method, path, None);
            assert_eq!(got.status, status);
            assert!(format!("{answer:?}").contains(&got.body), "{got:?}");
        }
    }
    rig.send("POST", "/restart", Some(r#"{"role": "king"}"#)).is(
        400,
        "PostgreSQL role should be either primary, standby_leader, or replica",
    );
    let calls = rig.fake.calls();
    assert!(calls.iter().any(|c| c == "CancelScheduledRestart"), "{calls:?}");
    assert!(
        calls.iter().any(|c| c.starts_with("Reinitialize { force: false")),
        "{calls:?}"
    );
    rig.send("POST", "/reinitialize", Some(r#"{"force": true}"#));
    assert!(
        rig.fake
            .calls()
            .iter()
            .any(|c| c.starts_with("Reinitialize { force: true"))
    );
}

#[test]
fn a_planned_restart_carries_its_time() {
    let rig = rig();
    *rig.fake.answer.lock().unwrap() = Answer::Scheduled("Restart scheduled".into());
    let body = r#"{"schedule": "2026-11-21T00:00:00+00:00"}"#;
    rig.send("POST", "/restart", Some(body)).is(202, "Restart scheduled");
    rig.send("POST", "/restart", Some(r#"{"schedule": "2020-01-01T00:00:00+00:00"}"#))
        .is(422, "Cannot schedule restart in the past");
    assert_eq!(rig.fake.calls().len(), 1);
}

#[test]
fn reload_is_scheduled() {
    let rig = rig();
    rig.send("POST", "/reload", None).is(202, "reload scheduled");
    assert_eq!(rig.fake.calls(), ["reload"]);
}

#[test]
fn a_leader_without_etcd_is_answered_in_the_words_of_patroni() {
    let rig = rig();
    let body = Some(r#"{"name": "pg2", "conn_url": "x", "api_url": "y", "slots": {"pg2": 1280}}"#);
    let answer = |verdict| *rig.fake.answer.lock().unwrap() = Answer::Failsafe(verdict);
    answer(Verdict::Accepted {
        lsn: Some(Lsn(1280)),
        dcs_read_ago: Some(Duration::from_millis(250)),
    });
    let accepted = rig.send("POST", "/failsafe", body);
    accepted.is(200, "Accepted");
    assert_eq!(accepted.header("lsn"), Some("1280"));
    assert_eq!(accepted.header("x-pgha-dcs-read-ms-ago"), Some("250"));
    answer(Verdict::Accepted {
        lsn: None,
        dcs_read_ago: None,
    });
    let accepted = rig.send("POST", "/failsafe", body);
    assert_eq!((accepted.status, accepted.header("lsn")), (200, None));
    answer(Verdict::RunsAsLeader);
    rig.send("POST", "/failsafe", body).is(500, "Running as a leader");
    answer(Verdict::Off);
    rig.send("POST", "/failsafe", body).is_page(502);
    rig.send("POST", "/failsafe", None).is_page(411);
    rig.send("POST", "/failsafe", Some(r#"{"name": "pg2"}"#)).is_page(400);
    assert_eq!(rig.fake.calls().len(), 4);
}

#[test]
fn a_switchover_is_done_when_another_one_leads() {
    let rig = rig();
    *rig.fake.successor.lock().unwrap() = Some("pg2");
    let began = Instant::now();
    rig.send("POST", "/switchover", Some(r#"{"leader": "pg1"}"#))
        .is(200, r#"Successfully switched over to "pg2""#);
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "it is looked at often: {:?}",
        began.elapsed()
    );
    assert_eq!(rig.fake.calls().last().map(String::as_str), Some("wake"));
}

#[test]
fn a_failover_to_somebody_else_says_so() {
    let rig = rig();
    rig.fake.etcd.lock().unwrap().leader = None;
    *rig.fake.successor.lock().unwrap() = Some("pg1");
    rig.send("POST", "/failover", Some(r#"{"candidate": "pg2"}"#))
        .is(200, r#"Failed over to "pg1" instead of "pg2""#);
}

#[test]
fn a_switchover_that_is_called_off_has_failed() {
    let rig = rig();
    rig.fake.clears_failover.store(true, Ordering::SeqCst);
    rig.send("POST", "/switchover", Some(r#"{"leader": "pg1"}"#))
        .is(503, "Switchover failed");
}

#[test]
fn the_moment_without_a_leader_is_not_a_failure() {
    let rig = rig();
    rig.fake.etcd.lock().unwrap().leader = None;
    rig.fake.clears_failover.store(true, Ordering::SeqCst);
    let fake = std::sync::Arc::clone(&rig.fake);
    let promoted = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(800));
        fake.etcd.lock().unwrap().leader = Some(common::leader("pg2", 9));
    });
    rig.send("POST", "/failover", Some(r#"{"candidate": "pg2"}"#))
        .is(200, r#"Successfully failed over to "pg2""#);
    promoted.join().unwrap();
}

#[test]
fn a_switchover_needs_somebody_fit() {
    let rig = rig();
    let none = "switchover is not possible: no good candidates have been found";
    let ask = || rig.send("POST", "/switchover", Some(r#"{"leader": "pg1", "candidate": "pg2"}"#));
    let changed = |change: fn(&mut pgha_core::peer::PeerStatus)| {
        let PeerView::Answered { at, mut status } = fit_peer() else {
            panic!("it answers")
        };
        change(&mut status);
        PeerView::Answered { at, status }
    };
    for unfit in [
        PeerView::NotAsked,
        PeerView::Unreachable { at: Default::default() },
        PeerView::Impostor {
            at: Default::default(),
            reason: "another".into(),
        },
        changed(|s| s.tags.nofailover = true),
        changed(|s| s.watchdog_failed = true),
        changed(|s| s.in_recovery = None),
    ] {
        rig.fake.peers.lock().unwrap().insert("pg2".into(), unfit.clone());
        ask().is(412, none);
    }
    assert!(rig.fake.calls().is_empty(), "nothing was written");
    rig.send("POST", "/switchover", Some(r#"{"leader": "pg2"}"#))
        .is(412, "leader name does not match");
    rig.send("POST", "/switchover", Some(r#"{"candidate": "pg2"}"#))
        .is(400, "Switchover could be performed only from a specific leader");
}

#[test]
fn a_switchover_whose_request_cannot_be_written_says_so() {
    let rig = rig();
    let ask = || rig.send("POST", "/switchover", Some(r#"{"leader": "pg1"}"#));
    *rig.fake.outcome.lock().unwrap() = CommitOutcome::Refused;
    ask().is(503, "failed to write failover key into DCS");
    *rig.fake.outcome.lock().unwrap() = CommitOutcome::Unknown;
    let got = ask();
    assert!(got.status == 503 && got.body.contains("status unknown"), "{got:?}");
    rig.fake.etcd_down.store(true, Ordering::SeqCst);
    ask().is_page(503);
}

#[test]
fn a_planned_switchover_can_be_cancelled() {
    let rig = rig();
    rig.send("DELETE", "/switchover", None)
        .is(404, "no switchover is scheduled");
    let body = r#"{"leader": "pg1", "scheduled_at": "2026-11-21T00:00:00+00:00"}"#;
    rig.send("POST", "/switchover", Some(body))
        .is(202, "Switchover scheduled");
    assert!(
        rig.get("/cluster")
            .body
            .contains(r#""scheduled_switchover": {"at": "2026-11-21T00:00:00+00:00", "from": "pg1"}"#)
    );
    *rig.fake.outcome.lock().unwrap() = CommitOutcome::Conflict;
    rig.send("DELETE", "/switchover", None).is_page(409);
    *rig.fake.outcome.lock().unwrap() = CommitOutcome::Applied {
        revision: Default::default(),
    };
    rig.send("DELETE", "/switchover", None)
        .is(200, "scheduled switchover deleted");
    rig.send("DELETE", "/switchover", None)
        .is(404, "no switchover is scheduled");
}

#[test]
fn broken_bodies_are_refused_and_nothing_happens() {
    let rig = rig();
    let deep = "[".repeat(10_000);
    let deep_object = r#"{"a":"#.repeat(5_000);
    for body in [
        "",
        "{",
        "[]",
        "null",
        "5",
        "\"x\"",
        "{}",
        "\u{0}",
        "{\"a\":1}x",
        &deep,
        &deep_object,
    ] {
        for (method, path) in [
            ("PATCH", "/config"),
            ("PUT", "/config"),
            ("POST", "/switchover"),
            ("POST", "/failover"),
        ] {
            rig.send(method, path, Some(body)).is_page(400);
        }
    }
    for (method, path) in [
        ("PATCH", "/config"),
        ("PUT", "/config"),
        ("POST", "/switchover"),
        ("POST", "/failover"),
    ] {
        rig.send(method, path, None).is_page(411);
    }
    rig.send("POST", "/restart", Some("{")).is_page(400);
    rig.send("POST", "/reinitialize", Some("[1]")).is_page(400);
    let mut raw = b"PATCH /config HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 4\r\n\r\n".to_vec();
    raw.extend([0xff, 0xfe, 0x00, 0x7b]);
    exchange(rig.server.address(), &raw).is_page(400);
    assert!(rig.fake.calls().is_empty(), "{:?}", rig.fake.calls());
}

#[test]
fn a_body_beyond_the_limit_is_refused_before_it_is_read() {
    let rig = rig();
    let head = "PATCH /config HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 99999999999\r\n\r\n{";
    exchange(rig.server.address(), head.as_bytes()).is_page(413);
    // Without an announced length it is cut off on the way.
    let mut chunked =
        b"PATCH /config HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..20 {
        chunked.extend(format!("{:x}\r\n{}\r\n", 65_536, "x".repeat(65_536)).as_bytes());
    }
    exchange(rig.server.address(), &chunked).is_page(413);
    assert_eq!(rig.get("/primary").status, 200);
}

#[test]
fn a_chunked_body_is_as_good_as_any() {
    let rig = rig();
    let request = "PATCH /config HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n\
                   4\r\n{\"tt\r\n8\r\nl\": 20 }\r\n0\r\n\r\n";
    assert_eq!(exchange(rig.server.address(), request.as_bytes()).status, 200);
}

#[test]
fn a_body_that_does_not_come_is_not_waited_for_long() {
    let rig = rig();
    let mut stream = TcpStream::connect(rig.server.address()).unwrap();
    stream
        .write_all(b"PATCH /config HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        .unwrap();
    let began = Instant::now();
    stream.set_read_timeout(Some(BODY_TIMEOUT * 3)).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(
        began.elapsed() < BODY_TIMEOUT + Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
}
