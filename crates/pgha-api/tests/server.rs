//! The accept loop against clients that do not behave. The router behind it is trivial on purpose.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use pgha_api::limits::{HEAD_TIMEOUT, MAX_CONNECTIONS, SWEEP_INTERVAL};
use pgha_api::{ApiError, ApiServer, Clock};
use pgha_core::units::Mono;

fn clock() -> Clock {
    let began = Instant::now();
    Arc::new(move || Mono(u64::try_from(began.elapsed().as_nanos()).unwrap()))
}

fn serve(port: u16, router: Router) -> Result<ApiServer, ApiError> {
    ApiServer::start("127.0.0.1", port, router, clock())
}

fn start() -> ApiServer {
    let slow = || async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        "slow but sure"
    };
    let router = Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/slow", get(slow));
    serve(0, router).unwrap()
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
    stream
}

fn send(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).unwrap();
}

/// Everything until the server closes; a reset counts as closed.
fn read_to_end(stream: &mut TcpStream) -> String {
    let mut out = Vec::new();
    match stream.read_to_end(&mut out) {
        Ok(_) => {}
        Err(e) if e.kind() == ErrorKind::ConnectionReset => {}
        Err(e) => panic!("the server neither answers nor closes: {e}"),
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn ask_once(address: SocketAddr) -> String {
    let mut stream = connect(address);
    send(&mut stream, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    read_to_end(&mut stream)
}

#[test]
fn an_http_1_0_client_without_host_is_answered_and_the_connection_closed() {
    let server = start();
    let mut stream = connect(server.address());
    send(&mut stream, "GET / HTTP/1.0\r\n\r\n");
    let answer = read_to_end(&mut stream);
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nhello"), "{answer}");
}

#[test]
fn an_http_1_0_client_may_ask_for_keep_alive() {
    let server = start();
    let mut stream = connect(server.address());
    for _ in 0..3 {
        send(&mut stream, "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        let mut answer = String::new();
        while !answer.ends_with("hello") {
            let mut buf = [0; 1024];
            let n = stream.read(&mut buf).unwrap();
            assert!(n > 0, "closed after {answer:?}");
            answer.push_str(std::str::from_utf8(&buf[..n]).unwrap());
        }
        assert!(answer.to_lowercase().contains("connection: keep-alive"), "{answer}");
    }
}

#[test]
fn a_client_that_closes_its_sending_side_still_gets_its_answer() {
    let server = start();
    let mut stream = connect(server.address());
    send(
        &mut stream,
        "GET /slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    );
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(read_to_end(&mut stream).ends_with("slow but sure"));
}

#[test]
fn a_head_that_comes_too_slowly_ends_the_connection() {
    let server = start();
    let mut stream = connect(server.address());
    send(&mut stream, "GET / HTTP/1.1\r\nHost: x\r\n");
    let began = Instant::now();
    // A byte now and then must not prolong the time.
    let mut dripping = stream.try_clone().unwrap();
    let drip = std::thread::spawn(move || {
        while dripping.write_all(b"X").is_ok() {
            std::thread::sleep(Duration::from_millis(300));
        }
    });
    assert_eq!(read_to_end(&mut stream), "");
    let took = began.elapsed();
    drip.join().unwrap();
    let limit = HEAD_TIMEOUT + SWEEP_INTERVAL + Duration::from_secs(1);
    assert!(took > HEAD_TIMEOUT.mul_f64(0.8) && took < limit, "{took:?}");
}

#[test]
fn a_client_that_never_says_a_word_is_let_go() {
    let server = start();
    let mut silent = connect(server.address());
    let mut second = connect(server.address());
    send(&mut second, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(read_to_end(&mut silent), "");
    // One that has had an answer is given longer.
    second.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let mut buf = [0; 4096];
    let n = second.read(&mut buf).unwrap();
    assert!(buf[..n].ends_with(b"hello"));
    assert!(matches!(second.read(&mut buf), Err(e) if e.kind() == ErrorKind::WouldBlock));
}

#[test]
fn a_thousand_idle_connections_do_not_keep_anybody_out() {
    let server = start();
    let mut idle = Vec::new();
    for i in 0..1000 {
        let mut stream = connect(server.address());
        // Half of them say something, so that both kinds of waiting occur.
        if i % 2 == 0 {
            send(&mut stream, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        }
        idle.push(stream);
        if i % 250 == 249 {
            let began = Instant::now();
            assert!(ask_once(server.address()).ends_with("hello"));
            assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        }
    }
    assert!(server.connections() <= MAX_CONNECTIONS);
    assert!(ask_once(server.address()).ends_with("hello"));
}

#[test]
fn requests_under_way_survive_a_crowd_of_newcomers() {
    let server = start();
    let mut served = connect(server.address());
    send(
        &mut served,
        "GET /slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    );
    std::thread::sleep(Duration::from_millis(50));
    let crowd: Vec<TcpStream> = (0..MAX_CONNECTIONS + 50).map(|_| connect(server.address())).collect();
    assert!(read_to_end(&mut served).ends_with("slow but sure"));
    drop(crowd);
}

#[test]
fn an_oversized_head_is_refused() {
    let server = start();
    for head in [
        format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(100_000)),
        format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "a".repeat(100_000)),
        format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: b\r\n".repeat(100)),
    ] {
        let mut stream = connect(server.address());
        // The server may close before all is sent.
        let sent = stream.write_all(head.as_bytes());
        let answer = read_to_end(&mut stream);
        assert!(sent.is_err() || !answer.contains(" 200 "), "{answer}");
        assert!(
            answer.is_empty() || answer.contains(" 431 ") || answer.contains(" 414 "),
            "{answer}"
        );
    }
    assert!(ask_once(server.address()).ends_with("hello"));
}

#[test]
fn bytes_that_are_not_http_are_answered_with_400_or_closed() {
    let server = start();
    for junk in [
        "\x16\x03\x01\x02\x00\x01\x00",
        "GET\r\n\r\n",
        "\0\0\0\0",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let mut stream = connect(server.address());
        send(&mut stream, junk);
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let answer = read_to_end(&mut stream);
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 400 "),
            "{junk:?} -> {answer}"
        );
    }
    assert!(ask_once(server.address()).ends_with("hello"));
}

#[test]
fn stopping_waits_for_replies_and_frees_the_port() {
    let server = start();
    let address = server.address();
    let idle = connect(address);
    let mut served = connect(address);
    send(&mut served, "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
    std::thread::sleep(Duration::from_millis(100));
    let began = Instant::now();
    server.stop();
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert!(read_to_end(&mut served).ends_with("slow but sure"));
    drop(idle);
    let again = serve(address.port(), Router::new());
    assert!(again.is_ok(), "{:?}", again.err());
}

#[test]
fn a_star_listens_on_both_families() {
    let server = ApiServer::start("*", 0, Router::new().route("/", get(|| async { "hello" })), clock()).unwrap();
    let port = server.address().port();
    assert!(ask_once(SocketAddr::from(([127, 0, 0, 1], port))).ends_with("hello"));
    if server.address().is_ipv6() {
        assert!(ask_once(SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, port))).ends_with("hello"));
    }
}

#[test]
fn a_port_in_use_is_an_error_that_names_the_address() {
    let server = start();
    let port = server.address().port();
    match serve(port, Router::new()) {
        Err(e @ ApiError::Bind { .. }) => assert!(e.to_string().contains(&format!("127.0.0.1:{port}")), "{e}"),
        Err(e) => panic!("another error: {e}"),
        Ok(_) => panic!("two servers on one port"),
    }
}
