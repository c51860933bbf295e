//! Users, tokens and TLS.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::time::Duration;

use common::{BUDGET, Etcd, Pki, about, put, read, txn, wait_hint, write};
use pgha_core::commit::CommitOutcome;
use pgha_core::units::Revision;
use pgha_dcs::etcd::{Credentials, EtcdConfig, EtcdDcs, TlsFiles};
use pgha_dcs::{Dcs, DcsError, KeepAlive};

const TTL: Duration = Duration::from_secs(60);

fn with_user(etcd: &Etcd, password: &str) -> EtcdDcs {
    let mut config = EtcdConfig::new(etcd.urls());
    config.credentials = Some(Credentials {
        username: "root".into(),
        password: password.into(),
    });
    EtcdDcs::new(config).unwrap()
}

fn enable_auth(etcd: &Etcd) {
    let member = &etcd.members[0];
    member.ctl(&["user", "add", "root:secret"]);
    member.ctl(&["user", "grant-role", "root", "root"]);
    member.ctl(&["auth", "enable"]);
}

/// Tokens of etcd that live for one second.
fn etcd_with_short_tokens() -> Etcd {
    let etcd = Etcd::single_with(&["--auth-token-ttl", "1"]);
    enable_auth(&etcd);
    etcd
}

#[tokio::test]
async fn an_expired_token_is_renewed_in_every_call() {
    let etcd = etcd_with_short_tokens();
    let dcs = with_user(&etcd, "secret");
    let expire = || tokio::time::sleep(Duration::from_millis(2500));
    let lease = dcs.grant_lease(TTL, BUDGET).await.unwrap();
    expire().await;
    assert!(read(&dcs).await.keys.is_empty());
    expire().await;
    write(&dcs, "/t/a", "1").await;
    expire().await;
    assert_eq!(
        dcs.keep_lease(lease, BUDGET).await.unwrap(),
        KeepAlive::Alive { ttl: TTL }
    );
    expire().await;
    let mut hints = dcs.watch("/t/", Revision(0));
    tokio::time::sleep(Duration::from_millis(1000)).await;
    write(&dcs, "/t/b", "1").await;
    assert!(wait_hint(&mut hints, BUDGET, |_| true).await.is_some());
}

#[tokio::test]
async fn a_token_older_than_the_last_change_of_users_is_renewed() {
    let etcd = Etcd::single();
    enable_auth(&etcd);
    let dcs = with_user(&etcd, "secret");
    write(&dcs, "/t/a", "1").await;
    etcd.members[0].ctl(&["--user", "root:secret", "role", "add", "other"]);
    write(&dcs, "/t/a", "2").await;
    etcd.members[0].ctl(&["--user", "root:secret", "role", "add", "another"]);
    assert_eq!(read(&dcs).await.keys[0].value, b"2");
}

#[tokio::test]
async fn authentication_that_is_switched_on_later_is_obeyed() {
    let etcd = Etcd::single();
    let dcs = with_user(&etcd, "secret");
    write(&dcs, "/t/a", "1").await;
    enable_auth(&etcd);
    write(&dcs, "/t/a", "2").await;
    assert_eq!(read(&dcs).await.keys.len(), 1);
}

#[tokio::test]
async fn a_wrong_password_no_user_and_a_missing_permission_are_denied() {
    let etcd = Etcd::single();
    enable_auth(&etcd);
    let member = &etcd.members[0];
    member.ctl(&["--user", "root:secret", "user", "add", "guest:guest"]);
    let mut guest = EtcdConfig::new(etcd.urls());
    guest.credentials = Some(Credentials {
        username: "guest".into(),
        password: "guest".into(),
    });
    for dcs in [
        with_user(&etcd, "wrong"),
        EtcdDcs::new(EtcdConfig::new(etcd.urls())).unwrap(),
        EtcdDcs::new(guest).unwrap(),
    ] {
        let error = dcs.read("/t/", BUDGET).await.unwrap_err();
        assert!(matches!(error, DcsError::Denied { .. }), "{error:?}");
        assert!(
            !format!("{error:?} {error}").contains("wrong\""),
            "no password in errors"
        );
        let outcome = dcs.commit(&txn(vec![], vec![put("/t/a", "1", None)]), BUDGET).await;
        assert_eq!(outcome, CommitOutcome::Refused);
    }
}

#[tokio::test]
async fn f58_a_password_changed_while_running_ends_in_a_clear_error() {
    let etcd = etcd_with_short_tokens();
    let dcs = with_user(&etcd, "secret");
    write(&dcs, "/t/a", "1").await;
    // etcdctl asks for the new password on its standard input only; the deletion of the user has the same effect.
    let member = &etcd.members[0];
    member.ctl(&["--user", "root:secret", "user", "add", "admin:admin"]);
    member.ctl(&["--user", "root:secret", "user", "grant-role", "admin", "root"]);
    let mut config = EtcdConfig::new(etcd.urls());
    config.credentials = Some(Credentials {
        username: "admin".into(),
        password: "admin".into(),
    });
    let admin = EtcdDcs::new(config).unwrap();
    write(&admin, "/t/a", "2").await;
    member.ctl(&["--user", "root:secret", "user", "delete", "admin"]);
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let error = admin.read("/t/", BUDGET).await.unwrap_err();
    assert!(matches!(error, DcsError::Denied { .. }), "{error:?}");
    assert_eq!(read(&dcs).await.keys[0].value, b"2", "others are not disturbed");
}

fn https_etcd(pki: &Pki, client_auth: bool) -> Etcd {
    let (cert, key, ca) = (pki.text("server.pem"), pki.text("server.key"), pki.text("ca.pem"));
    let mut args = vec!["--cert-file", &cert, "--key-file", &key];
    if client_auth {
        args.extend(["--client-cert-auth", "--trusted-ca-file", &ca]);
    }
    Etcd::start(1, &args, "https")
}

fn with_tls(etcd: &Etcd, tls: Option<TlsFiles>) -> EtcdDcs {
    EtcdDcs::new(EtcdConfig {
        tls,
        ..EtcdConfig::new(etcd.urls())
    })
    .unwrap()
}

async fn is_refused(dcs: &EtcdDcs) {
    let error = dcs.read("/t/", Duration::from_secs(1)).await.unwrap_err();
    assert!(matches!(error, DcsError::Unreachable { .. }), "{error:?}");
    let outcome = dcs
        .commit(&txn(vec![], vec![put("/t/a", "2", None)]), Duration::from_secs(1))
        .await;
    assert_eq!(outcome, CommitOutcome::Refused);
}

#[tokio::test]
async fn tls_works_with_the_right_authority_and_only_with_it() {
    let (pki, other) = (Pki::new(), Pki::new());
    let etcd = https_etcd(&pki, false);
    let ca = |path| {
        Some(TlsFiles {
            ca: Some(path),
            ..TlsFiles::default()
        })
    };
    let trusted = with_tls(&etcd, ca(pki.path("ca.pem")));
    let written = write(&trusted, "/t/a", "1").await;
    let mut hints = trusted.watch("/t/", Revision(written.0 - 1));
    assert!(wait_hint(&mut hints, BUDGET, about("/t/a")).await.is_some());
    for tls in [ca(other.path("ca.pem")), None, ca("/nonexistent/ca.pem".into())] {
        is_refused(&with_tls(&etcd, tls)).await;
    }
    assert_eq!(read(&trusted).await.keys[0].value, b"1");
}

#[tokio::test]
async fn a_client_certificate_is_shown_when_there_is_one() {
    let pki = Pki::new();
    let etcd = https_etcd(&pki, true);
    let mut files = TlsFiles {
        ca: Some(pki.path("ca.pem")),
        ..TlsFiles::default()
    };
    is_refused(&with_tls(&etcd, Some(files.clone()))).await;
    files.cert = Some(pki.path("client.pem"));
    files.key = Some(pki.path("client.key"));
    write(&with_tls(&etcd, Some(files)), "/t/a", "1").await;
}
