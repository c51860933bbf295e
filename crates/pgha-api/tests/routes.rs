//! What can be read: health checks, status, cluster, metrics; and that it can be read while all else hangs.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use common::{WALL, cluster, exchange, primary, rig, rig_with, seconds};
use pgha_api::ApiSettings;
use pgha_core::cluster::{FailsafeKey, HistoryKey, HistoryLine};
use pgha_core::units::{Lsn, Now, Revision, Timeline, Wall};
use serde_json::Value;

const HEALTH_PATHS: [&str; 8] = [
    "/",
    "/primary",
    "/leader",
    "/replica",
    "/health",
    "/read-write",
    "/read-only",
    "/no-such-path",
];

#[test]
fn health_checks_by_get_carry_the_status_and_those_by_head_and_options_nothing() {
    let rig = rig();
    let patroni = rig.get("/patroni");
    assert_eq!(patroni.status, 200);
    for path in HEALTH_PATHS {
        let get = rig.get(path);
        let expected = if matches!(path, "/replica" | "/no-such-path") {
            503
        } else {
            200
        };
        get.is(expected, &patroni.body);
        assert_eq!(get.header("content-type"), Some("application/json"));
        for method in ["HEAD", "OPTIONS"] {
            rig.send(method, path, None).is(expected, "");
        }
    }
    let json: Value = serde_json::from_str(&patroni.body).unwrap();
    assert_eq!(json["role"], "primary");
    assert_eq!(json["patroni"]["name"], "pg1");
}

#[test]
fn the_primary_check_turns_to_503_by_the_clock_alone() {
    let rig = rig();
    assert_eq!(rig.get("/primary").status, 200);
    rig.fake.mono.store(seconds(1000).0, Ordering::SeqCst);
    assert_eq!(rig.get("/primary").status, 503);
    assert_eq!(rig.get("/patroni").status, 200);
}

#[test]
fn a_publication_is_seen_by_the_next_request() {
    let rig = rig();
    let mut status = primary();
    status.pause = true;
    assert!(!rig.get("/patroni").body.contains("\"pause\""));
    rig.fake.board.publish(
        status,
        None,
        Now {
            mono: seconds(108),
            wall: WALL,
        },
    );
    assert!(rig.get("/patroni").body.contains("\"pause\": true"));
    rig.get("/failsafe").is_page(502);
}

#[test]
fn liveness_and_readiness_answer_without_a_body() {
    let rig = rig();
    rig.get("/liveness").is(200, "");
    rig.get("/readiness").is(200, "");
    rig.fake.mono.store(seconds(1001).0, Ordering::SeqCst);
    rig.get("/liveness").is(503, "");
    rig.send("HEAD", "/liveness", None).is(503, "");
}

#[test]
fn metrics_are_served_as_text() {
    let got = rig().get("/metrics");
    assert_eq!((got.status, got.header("content-type")), (200, Some("text/plain")));
    assert!(
        got.body.contains("patroni_primary{scope=\"batman\",name=\"pg1\"} 1\n"),
        "{}",
        got.body
    );
}

#[test]
fn the_cluster_is_read_anew_and_the_last_one_serves_while_etcd_is_away() {
    let rig = rig();
    rig.fake.etcd.lock().unwrap().members.remove(&"pg2".into());
    let fresh = rig.get("/cluster");
    assert_eq!(fresh.status, 200);
    assert!(
        fresh.body.contains("\"pg1\"") && !fresh.body.contains("\"pg2\""),
        "{}",
        fresh.body
    );
    assert!(fresh.body.ends_with("\"scope\": \"batman\"}"), "{}", fresh.body);
    rig.fake.etcd_down.store(true, Ordering::SeqCst);
    assert!(
        rig.get("/cluster").body.contains("\"pg2\""),
        "the published view serves"
    );
    rig.fake.board.publish(primary(), None, rig_now());
    rig.get("/cluster").is_page(503);
    rig.get("/history").is_page(503);
    rig.get("/config").is_page(502);
}

fn rig_now() -> Now {
    Now {
        mono: seconds(107),
        wall: WALL,
    }
}

#[test]
fn history_keeps_the_number_of_fields() {
    let rig = rig();
    rig.get("/history").is(200, "[]");
    let line = |timeline, timestamp: &str, new_leader: &str| HistoryLine {
        timeline: Timeline(timeline),
        switchpoint: Lsn(25_623_960),
        reason: "no recovery target specified".into(),
        timestamp: timestamp.into(),
        new_leader: new_leader.into(),
    };
    rig.fake.etcd.lock().unwrap().history = Some(HistoryKey {
        mod_revision: Revision(3),
        lines: vec![
            line(1, "", ""),
            line(2, "2019-09-23T16:57:57+00:00", ""),
            line(3, "2020-01-01T00:00:00+00:00", "pg1"),
        ],
    });
    rig.get("/history").is(
        200,
        r#"[[1, 25623960, "no recovery target specified"], [2, 25623960, "no recovery target specified", "2019-09-23T16:57:57+00:00"], [3, 25623960, "no recovery target specified", "2020-01-01T00:00:00+00:00", "pg1"]]"#,
    );
}

#[test]
fn the_configuration_is_shown_as_stored_and_502_when_there_is_none() {
    let rig = rig();
    let shown = r#"{"ttl": 30, "postgresql": {"use_slots": true}}"#;
    rig.get("/config").is(200, shown);
    rig.get("/config/any/thing").is(200, shown);
    for broken in ["[]", "5", "{", ""] {
        rig.fake.etcd.lock().unwrap().config.as_mut().unwrap().text = broken.into();
        rig.get("/config").is_page(502);
    }
    rig.fake.etcd.lock().unwrap().config = None;
    rig.get("/config").is_page(502);
}

#[test]
fn the_failsafe_members_are_shown_when_published() {
    let rig = rig();
    rig.get("/failsafe").is_page(502);
    let mut view = cluster();
    view.failsafe = Some(FailsafeKey {
        mod_revision: Revision(7),
        members: [("pg1".into(), "http://10.0.0.1:8008/patroni".into())].into(),
    });
    rig.fake.board.publish(primary(), Some(Arc::new(view)), rig_now());
    rig.get("/failsafe")
        .is(200, r#"{"pg1": "http://10.0.0.1:8008/patroni"}"#);
}

#[test]
fn explain_tells_the_decision_and_since_when() {
    let rig = rig();
    // The same decision again does not begin anew.
    let later = Now {
        mono: seconds(105),
        wall: Wall(WALL.0 + 5_000_000),
    };
    rig.fake.board.publish(primary(), None, later);
    let json: Value = serde_json::from_str(&rig.get("/explain").body).unwrap();
    assert_eq!(json["decision"]["rule"], 400);
    assert_eq!(
        json["decision"]["reason"],
        "no action. I am (pg1), the leader with the lock"
    );
    assert_eq!(json["decision"]["waits_for"], "a \"quote\"");
    assert_eq!(json["decision"]["since"], "2026-11-20T12:00:00+00:00");
    assert_eq!(json["decision"]["for_seconds"], 7);
    let mut status = primary();
    status.decision.as_mut().unwrap().rule = 401;
    rig.fake.board.publish(status.clone(), None, later);
    let json: Value = serde_json::from_str(&rig.get("/explain").body).unwrap();
    assert_eq!(json["decision"]["for_seconds"], 2);
    status.decision = None;
    rig.fake.board.publish(status, None, later);
    let json: Value = serde_json::from_str(&rig.get("/explain").body).unwrap();
    assert_eq!(
        (json["decision"].clone(), json["name"].clone()),
        (Value::Null, "pg1".into())
    );
    assert_eq!(
        rig.send("OPTIONS", "/explain", None).status,
        503,
        "it is no health check"
    );
    assert_eq!(rig.send("POST", "/explain", None).status, 501);
}

#[test]
fn nothing_that_hangs_delays_what_tells_about_this_node() {
    let rig = rig();
    rig.fake.hangs.store(true, Ordering::SeqCst);
    let address = rig.server.address();
    // Readers of etcd and actors that will wait in vain.
    let waiting: Vec<_> = (0..100)
        .map(|i| {
            let request = match i % 3 {
                0 => "GET /cluster HTTP/1.0\r\n\r\n",
                1 => "GET /config HTTP/1.0\r\n\r\n",
                _ => "POST /restart HTTP/1.0\r\n\r\n",
            };
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
            stream
        })
        .collect();
    std::thread::sleep(Duration::from_millis(100));
    for path in [
        "/primary",
        "/replica",
        "/patroni",
        "/metrics",
        "/liveness",
        "/readiness",
        "/explain",
        "/failsafe",
    ] {
        // The best of some tries: what is measured is waiting for others, not a busy machine.
        let fastest = (0..5)
            .map(|_| {
                let began = Instant::now();
                assert_ne!(rig.get(path).status, 500);
                began.elapsed()
            })
            .min()
            .unwrap();
        assert!(fastest < Duration::from_millis(50), "{path}: {fastest:?}");
    }
    drop(waiting);
}

#[test]
fn a_hanging_etcd_costs_the_readers_of_the_cluster_a_bounded_time() {
    let rig = rig();
    rig.fake.hangs.store(true, Ordering::SeqCst);
    let began = Instant::now();
    let got = rig.get("/cluster");
    assert!(got.body.contains("\"pg2\""), "the published view serves");
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}

#[test]
fn extra_headers_come_with_full_replies_only() {
    let settings = ApiSettings {
        server: "Patroni".into(),
        extra_headers: vec![("X-Frame-Options".into(), "SAMEORIGIN".into())],
        ..ApiSettings::default()
    };
    let rig = rig_with(&settings);
    let full = rig.get("/primary");
    assert_eq!(
        (full.header("server"), full.header("x-frame-options")),
        (Some("Patroni"), Some("SAMEORIGIN"))
    );
    assert_eq!(rig.send("HEAD", "/primary", None).header("x-frame-options"), None);
    assert_eq!(rig.send("POST", "/nothing", None).header("x-frame-options"), None);
    let broken = ApiSettings {
        extra_headers: vec![("a b".into(), "c".into())],
        ..settings
    };
    let error = rig.api.configure(&broken).unwrap_err().to_string();
    assert!(error.contains("\"a b\""), "{error}");
    assert_eq!(
        rig.get("/primary").header("server"),
        Some("Patroni"),
        "the old settings stay"
    );
    rig.api.configure(&ApiSettings::default()).unwrap();
    assert_eq!(rig.get("/primary").header("server"), None);
}

#[test]
fn haproxy_speaks_http_1_0_with_options_and_gets_no_body() {
    let rig = rig();
    for request in ["OPTIONS /primary HTTP/1.0\r\n\r\n", "HEAD /primary HTTP/1.0\r\n\r\n"] {
        let got = exchange(rig.server.address(), request.as_bytes());
        assert!(got.head.starts_with("HTTP/1.0 200 OK"), "{got:?}");
        assert_eq!(got.body, "");
    }
}

#[test]
fn odd_targets_get_an_answer() {
    let rig = rig();
    for target in [
        "/%00",
        "//",
        "/primary?lag=%ff&x",
        "/?tag_%zz=1",
        "http://x/primary",
        "/primary%",
        "/é",
        "/.",
    ] {
        let got = rig.get(target);
        assert!(matches!(got.status, 200 | 400 | 503), "{target}: {got:?}");
    }
    assert_eq!(rig.send("OPTIONS", "*", None).status, 503);
}
