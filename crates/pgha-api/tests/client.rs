//! The peer client against peers that lie, stall, babble or go away.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pgha_api::limits::{MAX_PEER_BODY_BYTES, PEER_TIMEOUT};
use pgha_api::{BasicAuth, Expect, PeerClient};
use pgha_core::failsafe::{Question, Reply};
use pgha_core::peer::PeerView;
use pgha_core::units::{Lsn, MemberName, Mono, SystemId, Timeline};

const BUDGET: Duration = Duration::from_secs(2);

fn body(name: &str, scope: &str, system_id: u64) -> String {
    format!(
        r#"{{"state": "running", "role": "replica", "server_version": 150004, "xlog": {{"received_location": 83886080, "replayed_location": 83886080, "replayed_timestamp": null, "paused": false}}, "timeline": 7, "database_system_identifier": "{system_id}", "patroni": {{"version": "4.1.5", "scope": "{scope}", "name": "{name}"}}}}"#
    )
}

fn reply(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// A peer that runs `talk` with each connection.
fn peer(talk: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let talk = Arc::new(talk);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let talk = Arc::clone(&talk);
            std::thread::spawn(move || talk(stream));
        }
    });
    address
}

/// Reads one request head; `None` when the client closed.
fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            Ok(_) | Err(_) => return None,
        }
    }
    Some(String::from_utf8_lossy(&head).into_owned())
}

/// A peer that gives the same bytes to everybody, then closes.
fn parrot(text: String) -> SocketAddr {
    peer(move |mut stream| {
        if read_head(&mut stream).is_some() {
            // The client may hang up in the middle of a long answer.
            stream.write_all(text.as_bytes()).unwrap_or(());
        }
    })
}

fn url(address: SocketAddr) -> String {
    format!("http://{address}/patroni")
}

fn client() -> PeerClient {
    let ticks = Arc::new(AtomicU64::new(1));
    PeerClient::new(Arc::new(move || Mono(ticks.fetch_add(1, Ordering::Relaxed))))
}

fn expect() -> Expect {
    Expect {
        scope: "batman".into(),
        system_id: Some(SystemId(77)),
    }
}

async fn ask_one(url: String) -> PeerView {
    let name = MemberName::from("pg2");
    let mut views = client().ask(&[(name.clone(), url)], &expect(), BUDGET).await;
    views.remove(&name).expect("everybody who was asked is in the answer")
}

fn is_unreachable(view: &PeerView) -> bool {
    matches!(view, PeerView::Unreachable { .. })
}

#[tokio::test]
async fn a_peer_that_answers_is_understood_and_dated_before_it_was_asked() {
    let ticks = Arc::new(AtomicU64::new(1));
    let (at_peer, seen) = (Arc::clone(&ticks), Arc::new(AtomicU64::new(0)));
    let at_client = Arc::clone(&ticks);
    let saw = Arc::clone(&seen);
    let address = peer(move |mut stream| {
        if read_head(&mut stream).is_some() {
            saw.store(at_peer.fetch_add(1, Ordering::SeqCst), Ordering::SeqCst);
            stream.write_all(reply(&body("pg2", "batman", 77)).as_bytes()).unwrap();
        }
    });
    let client = PeerClient::new(Arc::new(move || Mono(at_client.fetch_add(1, Ordering::SeqCst))));
    let views = client.ask(&[("pg2".into(), url(address))], &expect(), BUDGET).await;
    let PeerView::Answered { at, status } = &views[&MemberName::from("pg2")] else {
        panic!("{views:?}")
    };
    assert!(at.0 < seen.load(Ordering::SeqCst), "{at:?}");
    assert_eq!(status.lsn, Some(Lsn(83_886_080)));
    assert_eq!(status.timeline, Some(Timeline(7)));
    assert_eq!(status.in_recovery, Some(true));
}

#[tokio::test]
async fn a_peer_whose_postgresql_is_silent_still_speaks_for_itself() {
    let text =
        r#"{"state": "stopped", "role": "demoted", "patroni": {"version": "4.1.5", "scope": "batman", "name": "pg2"}}"#;
    let view = ask_one(url(parrot(reply(text)))).await;
    let PeerView::Answered { status, .. } = view else {
        panic!("{view:?}")
    };
    assert_eq!((status.in_recovery, status.lsn), (None, None));
}

#[tokio::test]
async fn another_name_scope_or_system_identifier_is_an_impostor() {
    for (name, scope, id, what) in [
        ("pg3", "batman", 77, "pg3"),
        ("pg2", "robin", 77, "robin"),
        ("pg2", "batman", 78, "78"),
    ] {
        let view = ask_one(url(parrot(reply(&body(name, scope, id))))).await;
        match view {
            PeerView::Impostor { reason, .. } => assert!(reason.contains(what), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn garbage_redirects_and_refusals_count_as_unreachable() {
    let moved = "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n".to_owned();
    for text in [
        reply("not json"),
        reply("[]"),
        reply(""),
        reply(r#"{"state": 7, "xlog": "x"}"#),
        reply("{}"),
        reply(r#"{"state": "stopped", "role": "replica", "patroni": {"scope": "batman"}}"#),
        reply(
            r#"{"state": "running", "role": "replica", "xlog": {"received_location": 1}, "patroni": {"name": "pg2"}}"#,
        ),
        "SSH-2.0-OpenSSH_9.2\r\n".to_owned(),
        "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n".to_owned(),
        moved,
        String::new(),
        "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{".to_owned(),
    ] {
        let view = ask_one(url(parrot(text.clone()))).await;
        assert!(is_unreachable(&view), "{text:?} -> {view:?}");
    }
}

#[tokio::test]
async fn an_endless_answer_is_cut_off() {
    let flood = peer(|mut stream| {
        read_head(&mut stream).unwrap_or_default();
        let chunk = [b' '; 64 * 1024];
        let mut sent = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\n");
        let mut total = 0;
        while sent.is_ok() && total < 64 * MAX_PEER_BODY_BYTES {
            total += chunk.len();
            sent = stream.write_all(&chunk);
        }
    });
    let began = Instant::now();
    assert!(is_unreachable(&ask_one(url(flood)).await));
    assert!(began.elapsed() < BUDGET, "cut by size, not by time");
    let endless_head = peer(|mut stream| {
        let mut sent = stream.write_all(b"HTTP/1.1 200 OK\r\n");
        while sent.is_ok() {
            sent = stream.write_all(b"X-More: and more of it\r\n");
        }
    });
    let began = Instant::now();
    assert!(is_unreachable(&ask_one(url(endless_head)).await));
    assert!(began.elapsed() < BUDGET, "cut by size, not by time");
}

#[tokio::test]
async fn peers_are_asked_in_parallel_and_each_within_the_budget() {
    let mute = peer(|stream| {
        std::thread::sleep(Duration::from_secs(10));
        drop(stream);
    });
    let well = parrot(reply(&body("well", "batman", 77)));
    let mut peers: Vec<(MemberName, String)> = (0..20)
        .map(|i| (MemberName::new(format!("mute{i}")), url(mute)))
        .collect();
    peers.push(("well".into(), url(well)));
    let began = Instant::now();
    let views = client().ask(&peers, &expect(), Duration::from_millis(300)).await;
    assert!(began.elapsed() < Duration::from_millis(900), "{:?}", began.elapsed());
    assert_eq!(views.len(), 21);
    assert!(matches!(views[&MemberName::from("well")], PeerView::Answered { .. }));
    assert_eq!(views.values().filter(|v| is_unreachable(v)).count(), 20);
}

#[tokio::test]
async fn no_budget_is_longer_than_the_peer_timeout() {
    let mute = peer(|stream| {
        std::thread::sleep(Duration::from_secs(10));
        drop(stream);
    });
    let began = Instant::now();
    let views = client()
        .ask(&[("mute".into(), url(mute))], &expect(), Duration::from_secs(60))
        .await;
    assert_eq!(views.len(), 1);
    assert!(
        began.elapsed() < PEER_TIMEOUT + Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn addresses_that_no_member_has_are_never_asked() {
    for bad in [
        "https://127.0.0.1:8008/patroni",
        "http://169.254.169.254/latest/meta-data",
        "http://[fe80::1]:8008/patroni",
        "http://[::ffff:169.254.169.254]/",
        "http://0.0.0.0:8008/",
        "http://user:pw@127.0.0.1:8008/patroni",
        "file:///etc/passwd",
        "127.0.0.1:8008",
        "http://",
        "",
        "http://host name/",
    ] {
        let began = Instant::now();
        let view = ask_one(bad.to_owned()).await;
        assert!(is_unreachable(&view), "{bad} -> {view:?}");
        assert!(began.elapsed() < Duration::from_secs(1), "{bad} was tried");
    }
}

#[tokio::test]
async fn a_connection_is_kept_and_replaced_when_the_peer_has_closed_it() {
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&accepted);
    // Two answers per connection, then it goes without a word.
    let address = peer(move |mut stream| {
        count.fetch_add(1, Ordering::SeqCst);
        for _ in 0..2 {
            match read_head(&mut stream) {
                Some(head) => {
                    assert!(head.starts_with("GET /patroni HTTP/1.1\r\n"), "{head}");
                    stream.write_all(reply(&body("pg2", "batman", 77)).as_bytes()).unwrap();
                }
                None => return,
            }
        }
    });
    let client = client();
    let peers = [(MemberName::from("pg2"), url(address))];
    for round in 1..=4 {
        let views = client.ask(&peers, &expect(), BUDGET).await;
        assert!(
            matches!(views[&peers[0].0], PeerView::Answered { .. }),
            "round {round}: {views:?}"
        );
    }
    assert_eq!(accepted.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_kept_connection_that_hangs_does_not_use_up_the_time() {
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&accepted);
    let address = peer(move |mut stream| {
        let nth = count.fetch_add(1, Ordering::SeqCst);
        let answers = if nth == 0 { 1 } else { 100 };
        for _ in 0..answers {
            if read_head(&mut stream).is_none() {
                return;
            }
            stream.write_all(reply(&body("pg2", "batman", 77)).as_bytes()).unwrap();
        }
        std::thread::sleep(Duration::from_secs(10));
    });
    let client = client();
    let peers = [(MemberName::from("pg2"), url(address))];
    for _ in 0..2 {
        let views = client.ask(&peers, &expect(), Duration::from_millis(600)).await;
        assert!(matches!(views[&peers[0].0], PeerView::Answered { .. }), "{views:?}");
    }
    assert_eq!(accepted.load(Ordering::SeqCst), 2);
}

fn question() -> Question {
    Question {
        name: "pg1".into(),
        conn_url: "postgres://10.0.0.1:5432/postgres".into(),
        api_url: "http://10.0.0.1:8008/patroni".into(),
        slots: [("pg1".to_owned(), Lsn(1280))].into(),
        ttl: Some(Duration::from_secs(30)),
        addressee: None,
    }
}

/// Reads a body of the length that its head announces.
fn read_body(stream: &mut TcpStream, head: &str) -> String {
    let length = head.to_lowercase();
    let length = length
        .split("content-length: ")
        .nth(1)
        .and_then(|rest| rest.lines().next());
    let mut body = vec![0; length.and_then(|l| l.parse().ok()).unwrap_or(0)];
    stream.read_exact(&mut body).unwrap();
    String::from_utf8(body).unwrap()
}

#[tokio::test]
async fn a_leave_to_go_on_is_asked_for_with_the_password_and_dated_before_it_was_asked() {
    let address = peer(|mut stream| {
        let Some(head) = read_head(&mut stream) else { return };
        assert!(head.starts_with("POST /failsafe HTTP/1.1\r\n"), "{head}");
        assert!(head.contains("Basic YWRtaW46cXdlcnR5"), "{head}");
        let body = read_body(&mut stream, &head);
        assert!(
            body.ends_with(r#""pgha":{"ttl_ms":30000,"scope":"batman","name":"pg2"}}"#),
            "{body}"
        );
        let reply = "HTTP/1.1 200 OK\r\nlsn: 1280\r\nx-pgha-dcs-read-ms-ago: 0\r\nContent-Length: 8\r\n\r\nAccepted";
        stream.write_all(reply.as_bytes()).unwrap();
    });
    let password = BasicAuth {
        username: "admin".into(),
        password: "qwerty".into(),
    };
    let peers = [(MemberName::from("pg2"), url(address))];
    let replies = client()
        .ask_failsafe(&peers, &question(), "batman", Some(&password), BUDGET)
        .await;
    let Reply::Accepted(ack) = replies[&peers[0].0] else {
        panic!("{replies:?}")
    };
    assert_eq!((ack.lsn, ack.dcs_read_at), (Some(Lsn(1280)), Some(ack.sent_at)));
}

#[tokio::test]
async fn a_refusal_is_no_leave_and_silence_is_told_apart_from_it() {
    let refuses = "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 19\r\n\r\nRunning as a leader".to_owned();
    let mute = peer(|stream| {
        std::thread::sleep(Duration::from_secs(10));
        drop(stream);
    });
    let slow = peer(|mut stream| {
        let Some(head) = read_head(&mut stream) else { return };
        read_body(&mut stream, &head);
        std::thread::sleep(PEER_TIMEOUT + Duration::from_millis(300));
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nAccepted")
            .unwrap();
    });
    let peers: Vec<(MemberName, String)> = vec![
        ("a".into(), url(parrot(refuses))),
        ("b".into(), url(mute)),
        ("c".into(), url(slow)),
        ("d".into(), "https://127.0.0.1:1/".into()),
    ];
    let budget = PEER_TIMEOUT + Duration::from_secs(2);
    let replies = client().ask_failsafe(&peers, &question(), "batman", None, budget).await;
    assert!(matches!(&replies[&MemberName::from("a")], Reply::Refused(why) if why.contains("Running as a leader")));
    assert_eq!(replies[&MemberName::from("b")], Reply::Silent);
    assert!(
        matches!(replies[&MemberName::from("c")], Reply::Accepted(_)),
        "slow, and in time"
    );
    assert_eq!(replies[&MemberName::from("d")], Reply::Silent);
}
