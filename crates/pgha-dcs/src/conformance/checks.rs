//! The checks themselves. What each one shows stands at its variant of [`Check`].

use std::time::Duration;

use pgha_core::commit::CommitOutcome;
use pgha_core::units::{LeaseId, Revision};
use pgha_wire::kv::{Compare, KeyValue, Op, Snapshot, Txn};

use super::{Check, EXPIRY_SLACK, HINT_LIMIT, SHORT_TTL, Subject};
use crate::dcs::KeepAlive;
use crate::hints::Hint;

/// A lease that does not run out during a check.
const LONG_TTL: Duration = Duration::from_secs(60);
/// No store gives out this lease.
const NO_SUCH_LEASE: LeaseId = LeaseId(0x0bad_0bad_0bad);

type Outcome = Result<(), String>;

pub(super) async fn run(check: Check, s: &mut dyn Subject, prefix: &str) -> Outcome {
    // A check that failed half way may have left keys.
    applied(s, &[], vec![Op::DeletePrefix(prefix.to_owned())]).await?;
    let p = prefix;
    match check {
        Check::AnAbsentKeyIsAcquiredOnce => an_absent_key_is_acquired_once(s, p).await,
        Check::AProofNeedsCreateRevisionAndLease => a_proof_needs_create_revision_and_lease(s, p).await,
        Check::ARecreatedKeyFailsTheOldProof => a_recreated_key_fails_the_old_proof(s, p).await,
        Check::AnOverwriteKeepsTheCreateRevision => an_overwrite_keeps_the_create_revision(s, p).await,
        Check::AConflictWritesNothing => a_conflict_writes_nothing(s, p).await,
        Check::ATransactionHasOneRevision => a_transaction_has_one_revision(s, p).await,
        Check::ModRevisionAndValueAreCompared => mod_revision_and_value_are_compared(s, p).await,
        Check::AnUnconditionalPutSucceeds => an_unconditional_put_succeeds(s, p).await,
        Check::APrefixIsReadAtOneRevision => a_prefix_is_read_at_one_revision(s, p).await,
        Check::APrefixIsDeletedWithoutItsNeighbours => a_prefix_is_deleted_without_its_neighbours(s, p).await,
        Check::ValuesAreKeptToTheByte => values_are_kept_to_the_byte(s, p).await,
        Check::ALeaseExpiresWithItsKeys => a_lease_expires_with_its_keys(s, p).await,
        Check::AKeptLeaseLives => a_kept_lease_lives(s, p).await,
        Check::ARevokedLeaseIsGone => a_revoked_lease_is_gone(s, p).await,
        Check::APutOnAGoneLeaseWritesNothing => a_put_on_a_gone_lease_writes_nothing(s, p).await,
        Check::AReboundKeySurvivesItsOldLease => a_rebound_key_survives_its_old_lease(s, p).await,
        Check::AChangeIsHinted => a_change_is_hinted(s, p).await,
        Check::AWatchTellsWhatItMissed => a_watch_tells_what_it_missed(s, p).await,
        Check::AnExpiredKeyIsHinted => an_expired_key_is_hinted(s, p).await,
        Check::AnUnknownLeaseIsGone => an_unknown_lease_is_gone(s).await,
        Check::GuardsAreJudgedBeforeTheWrites => guards_are_judged_before_the_writes(s, p).await,
        Check::AKeyIsNotWrittenTwice => a_key_is_not_written_twice(s, p).await,
        Check::NothingDoneIsNoRevision => nothing_done_is_no_revision(s, p).await,
        Check::AWriteIsSeenElsewhere => a_write_is_seen_elsewhere(s, p).await,
        Check::ACompactedWatchSaysResync => a_compacted_watch_says_resync(s, p).await,
        Check::AFullStoreStillReads => {
            let outcome = a_full_store_still_reads(s, p).await;
            s.set_full(false).await?;
            outcome?;
            applied(s, &[], vec![put(&format!("{p}leader"), "c", None)])
                .await
                .map(|_| ())
        }
    }
}

async fn an_absent_key_is_acquired_once(s: &mut dyn Subject, p: &str) -> Outcome {
    let key = format!("{p}leader");
    let lease = s.grant_lease(LONG_TTL).await?;
    let revision = applied(s, &[absent(&key)], vec![put(&key, "one", Some(lease))]).await?;
    conflicts(s, &[absent(&key)], vec![put(&key, "two", Some(lease))]).await?;
    let kv = only(s, p, &key).await?;
    expect("value", &kv.value, &b"one".to_vec())?;
    expect("create revision", &kv.create_revision, &revision)?;
    expect("lease", &kv.lease, &Some(lease))
}

async fn a_proof_needs_create_revision_and_lease(s: &mut dyn Subject, p: &str) -> Outcome {
    let (leader, status) = (format!("{p}leader"), format!("{p}status"));
    let mine = s.grant_lease(LONG_TTL).await?;
    let other = s.grant_lease(LONG_TTL).await?;
    let created = applied(s, &[absent(&leader)], vec![put(&leader, "me", Some(mine))]).await?;
    let proof = |revision, lease| {
        [
            Compare::CreateRevision(leader.clone(), revision),
            Compare::Lease(leader.clone(), lease),
        ]
    };
    applied(s, &proof(created, mine), vec![put(&status, "1", None)]).await?;
    conflicts(s, &proof(created, other), vec![put(&status, "2", None)]).await?;
    conflicts(s, &proof(Revision(created.0 + 1), mine), vec![put(&status, "3", None)]).await?;
    expect("value", &find(s, p, &status).await?.value, &b"1".to_vec())
}

async fn a_recreated_key_fails_the_old_proof(s: &mut dyn Subject, p: &str) -> Outcome {
    let key = format!("{p}leader");
    let lease = s.grant_lease(LONG_TTL).await?;
    let first = applied(s, &[absent(&key)], vec![put(&key, "me", Some(lease))]).await?;
    applied(s, &[], vec![Op::Delete(key.clone())]).await?;
    let second = applied(s, &[absent(&key)], vec![put(&key, "me", Some(lease))]).await?;
    conflicts(
        s,
        &[Compare::CreateRevision(key.clone(), first)],
        vec![put(&key, "x", None)],
    )
    .await?;
    applied(
        s,
        &[Compare::CreateRevision(key.clone(), second)],
        vec![put(&key, "y", None)],
    )
    .await
    .map(|_| ())
}

async fn an_overwrite_keeps_the_create_revision(s: &mut dyn Subject, p: &str) -> Outcome {
    let key = format!("{p}status");
    let created = applied(s, &[], vec![put(&key, "1", None)]).await?;
    let changed = applied(s, &[], vec![put(&key, "2", None)]).await?;
    let kv = only(s, p, &key).await?;
    expect("create revision", &kv.create_revision, &created)?;
    expect("mod revision", &kv.mod_revision, &changed)?;
    expect("a later revision", &(changed > created), &true)
}

async fn a_conflict_writes_nothing(s: &mut dyn Subject, p: &str) -> Outcome {
    let (a, b) = (format!("{p}a"), format!("{p}b"));
    applied(s, &[], vec![put(&a, "1", None)]).await?;
    let before = s.read(p).await?;
    let guards = [Compare::Value(a.clone(), b"1".to_vec()), absent(&a)];
    conflicts(s, &guards, vec![put(&b, "2", None), Op::Delete(a.clone())]).await?;
    expect("keys", &s.read(p).await?.keys, &before.keys)
}

async fn a_transaction_has_one_revision(s: &mut dyn Subject, p: &str) -> Outcome {
    let (leader, status, member) = (format!("{p}leader"), format!("{p}status"), format!("{p}members/a"));
    applied(s, &[], vec![put(&leader, "me", None)]).await?;
    let ops = vec![
        Op::Delete(leader),
        put(&status, "released", None),
        put(&member, "{}", None),
    ];
    let revision = applied(s, &[], ops).await?;
    let snapshot = s.read(p).await?;
    let found: Vec<(&str, Revision)> = snapshot
        .keys
        .iter()
        .map(|kv| (kv.key.as_str(), kv.mod_revision))
        .collect();
    expect(
        "keys and mod revisions",
        &found,
        &vec![(member.as_str(), revision), (status.as_str(), revision)],
    )
}

async fn mod_revision_and_value_are_compared(s: &mut dyn Subject, p: &str) -> Outcome {
    let key = format!("{p}sync");
    let first = applied(s, &[], vec![put(&key, "1", None)]).await?;
    let at = |revision| [Compare::ModRevision(key.clone(), revision)];
    let second = applied(s, &at(first), vec![put(&key, "2", None)]).await?;
    conflicts(s, &at(first), vec![put(&key, "3", None)]).await?;
    conflicts(
        s,
        &[Compare::Value(key.clone(), b"1".to_vec())],
        vec![put(&key, "4", None)],
    )
    .await?;
    applied(
        s,
        &[Compare::Value(key.clone(), b"2".to_vec())],
        vec![put(&key, "5", None)],
    )
    .await?;
    conflicts(s, &at(second), vec![Op::Delete(key.clone())]).await?;
    // A key without a lease, and one that is absent, are on nobody's lease.
    conflicts(
        s,
        &[Compare::Lease(key.clone(), NO_SUCH_LEASE)],
        vec![Op::Delete(key.clone())],
    )
    .await?;
    conflicts(
        s,
        &[Compare::Lease(format!("{p}absent"), NO_SUCH_LEASE)],
        vec![Op::Delete(key.clone())],
    )
    .await?;
    expect("value", &only(s, p, &key).await?.value, &b"5".to_vec())
}

async fn an_unconditional_put_succeeds(s: &mut dyn Subject, p: &str) -> Outcome {
    let key = format!("{p}members/a");
    for value in ["1", "2", "2"] {
        let revision = applied(s, &[], vec![put(&key, value, None)]).await?;
        expect("mod revision", &only(s, p, &key).await?.mod_revision, &revision)?;
    }
    Ok(())
}

async fn a_prefix_is_read_at_one_revision(s: &mut dyn Subject, p: &str) -> Outcome {
    let mut newest = Revision(0);
    // '0' is the character after '/', so the last one is the first key beyond the prefix.
    for key in ["c/sync", "c/members/b", "c/leader", "c", "c0"] {
        newest = applied(s, &[], vec![put(&format!("{p}{key}"), "x", None)]).await?;
    }
    let snapshot = s.read(&format!("{p}c/")).await?;
    let names: Vec<&str> = snapshot.keys.iter().filter_map(|kv| kv.key.strip_prefix(p)).collect();
    expect("keys", &names, &vec!["c/leader", "c/members/b", "c/sync"])?;
    expect(
        "the revision covers the last write",
        &(snapshot.revision >= newest),
        &true,
    )?;
    let empty = s.read(&format!("{p}nothing/")).await?;
    expect("no keys", &empty.keys.len(), &0)
}

async fn a_prefix_is_deleted_without_its_neighbours(s: &mut dyn Subject, p: &str) -> Outcome {
    for key in ["c/leader", "c/members/a", "c", "c0"] {
        applied(s, &[], vec![put(&format!("{p}{key}"), "x", None)]).await?;
    }
    applied(s, &[], vec![Op::DeletePrefix(format!("{p}c/"))]).await?;
    let snapshot = s.read(p).await?;
    let names: Vec<&str> = snapshot.keys.iter().filter_map(|kv| kv.key.strip_prefix(p)).collect();
    expect("keys", &names, &vec!["c", "c0"])
}

async fn values_are_kept_to_the_byte(s: &mut dyn Subject, p: &str) -> Outcome {
    let key = format!("{p}initialize");
    for value in [Vec::new(), vec![0, 0xff, 0xfe, b'\n'], "ä".as_bytes().to_vec()] {
        applied(
            s,
            &[],
            vec![Op::Put {
                key: key.clone(),
                value: value.clone(),
                lease: None,
            }],
        )
        .await?;
        expect("value", &only(s, p, &key).await?.value, &value)?;
    }
    Ok(())
}

async fn a_lease_expires_with_its_keys(s: &mut dyn Subject, p: &str) -> Outcome {
    let (leader, member, other) = (format!("{p}leader"), format!("{p}members/a"), format!("{p}status"));
    let lease = s.grant_lease(SHORT_TTL).await?;
    let ops = vec![
        put(&leader, "a", Some(lease)),
        put(&member, "a", Some(lease)),
        put(&other, "a", None),
    ];
    applied(s, &[], ops).await?;
    s.pass(SHORT_TTL / 2).await;
    expect("keys before the end", &s.read(p).await?.keys.len(), &3)?;
    s.pass(SHORT_TTL / 2 + EXPIRY_SLACK).await;
    only(s, p, &other).await?;
    expect("keepalive", &s.keep_lease(lease).await?, &KeepAlive::Gone)?;
    let outcome = commit(s, &[], vec![put(&leader, "a", Some(lease))]).await;
    expect("a put on it", &outcome, &CommitOutcome::LeaseGone)
}

async fn a_kept_lease_lives(s: &mut dyn Subject, p: &str) -> Outcome {
    let key = format!("{p}leader");
    let lease = s.grant_lease(SHORT_TTL).await?;
    applied(s, &[], vec![put(&key, "a", Some(lease))]).await?;
    for _ in 0..3 {
        s.pass(SHORT_TTL * 2 / 3).await;
        expect(
            "keepalive",
            &s.keep_lease(lease).await?,
            &KeepAlive::Alive { ttl: SHORT_TTL },
        )?;
    }
    only(s, p, &key).await.map(|_| ())
}

async fn a_revoked_lease_is_gone(s: &mut dyn Subject, p: &str) -> Outcome {
    let key = format!("{p}leader");
    let lease = s.grant_lease(LONG_TTL).await?;
    applied(s, &[], vec![put(&key, "a", Some(lease))]).await?;
    s.revoke_lease(lease).await?;
    expect("keys", &s.read(p).await?.keys.len(), &0)?;
    expect("keepalive", &s.keep_lease(lease).await?, &KeepAlive::Gone)?;
    s.revoke_lease(lease).await
}

async fn a_put_on_a_gone_lease_writes_nothing(s: &mut dyn Subject, p: &str) -> Outcome {
    let (a, b) = (format!("{p}a"), format!("{p}b"));
    let ops = vec![put(&a, "1", None), put(&b, "2", Some(NO_SUCH_LEASE))];
    expect("outcome", &commit(s, &[], ops.clone()).await, &CommitOutcome::LeaseGone)?;
    expect("keys", &s.read(p).await?.keys.len(), &0)?;
    // A guard that fails comes first: the write is not even looked at.
    applied(s, &[], vec![put(&a, "0", None)]).await?;
    conflicts(s, &[absent(&a)], ops).await
}

async fn a_rebound_key_survives_its_old_lease(s: &mut dyn Subject, p: &str) -> Outcome {
    let (moved, freed) = (format!("{p}leader"), format!("{p}status"));
    let old = s.grant_lease(LONG_TTL).await?;
    let new = s.grant_lease(LONG_TTL).await?;
    applied(s, &[], vec![put(&moved, "a", Some(old)), put(&freed, "a", Some(old))]).await?;
    applied(s, &[], vec![put(&moved, "a", Some(new)), put(&freed, "a", None)]).await?;
    s.revoke_lease(old).await?;
    let leases: Vec<Option<LeaseId>> = s.read(p).await?.keys.iter().map(|kv| kv.lease).collect();
    expect("leases", &leases, &vec![Some(new), None])
}

async fn a_change_is_hinted(s: &mut dyn Subject, p: &str) -> Outcome {
    let (key, outside) = (format!("{p}c/leader"), format!("{p}c0"));
    let start = s.read(p).await?.revision;
    s.watch(&format!("{p}c/"), start);
    applied(s, &[], vec![put(&outside, "x", None)]).await?;
    let written = applied(s, &[], vec![put(&key, "a", None)]).await?;
    hinted(s, &key, written, false).await?;
    let deleted = applied(s, &[], vec![Op::Delete(key.clone())]).await?;
    hinted(s, &key, deleted, true).await
}

async fn a_watch_tells_what_it_missed(s: &mut dyn Subject, p: &str) -> Outcome {
    let (old, new) = (format!("{p}old"), format!("{p}new"));
    let seen = applied(s, &[], vec![put(&old, "a", None)]).await?;
    let missed = applied(s, &[], vec![put(&new, "a", None)]).await?;
    s.watch(p, seen);
    hinted(s, &new, missed, false).await
}

async fn an_expired_key_is_hinted(s: &mut dyn Subject, p: &str) -> Outcome {
    let key = format!("{p}leader");
    let lease = s.grant_lease(SHORT_TTL).await?;
    let written = applied(s, &[], vec![put(&key, "a", Some(lease))]).await?;
    s.watch(p, written);
    s.pass(SHORT_TTL + EXPIRY_SLACK).await;
    match s.next_hint(HINT_LIMIT).await {
        Some(Hint::Changed {
            key: found,
            deleted: true,
            mod_revision,
        }) if found == key && mod_revision > written => Ok(()),
        other => Err(format!("expected a hint that {key} is deleted, found {other:?}")),
    }
}

async fn an_unknown_lease_is_gone(s: &mut dyn Subject) -> Outcome {
    expect("keepalive", &s.keep_lease(NO_SUCH_LEASE).await?, &KeepAlive::Gone)
}

async fn guards_are_judged_before_the_writes(s: &mut dyn Subject, p: &str) -> Outcome {
    let (leader, status) = (format!("{p}leader"), format!("{p}status"));
    let guards = [absent(&leader), absent(&status)];
    let ops = vec![put(&leader, "me", None), put(&status, "1", None)];
    let revision = applied(s, &guards, ops.clone()).await?;
    conflicts(s, &guards, ops).await?;
    // One guard that holds and one that did so before the other key was written.
    let guards = [Compare::CreateRevision(leader.clone(), revision), absent(&status)];
    conflicts(s, &guards, vec![Op::Delete(leader)]).await
}

async fn a_key_is_not_written_twice(s: &mut dyn Subject, p: &str) -> Outcome {
    let (a, b) = (format!("{p}c/a"), format!("{p}b"));
    for again in [
        put(&a, "2", None),
        Op::Delete(a.clone()),
        Op::DeletePrefix(format!("{p}c/")),
    ] {
        let ops = vec![put(&b, "1", None), put(&a, "1", None), again];
        let outcome = commit(s, &[], ops.clone()).await;
        expect(&format!("{ops:?}"), &outcome, &CommitOutcome::Refused)?;
    }
    expect("keys", &s.read(p).await?.keys.len(), &0)
}

async fn nothing_done_is_no_revision(s: &mut dyn Subject, p: &str) -> Outcome {
    let key = format!("{p}leader");
    let written = applied(s, &[], vec![put(&key, "a", None)]).await?;
    let nothing = applied(s, &[], vec![Op::Delete(format!("{p}absent"))]).await?;
    expect("revision of a transaction that does nothing", &nothing, &written)?;
    conflicts(s, &[absent(&key)], vec![put(&key, "b", None)]).await?;
    let lease = s.grant_lease(LONG_TTL).await?;
    s.revoke_lease(lease).await?;
    expect("revision", &s.read(p).await?.revision, &written)
}

async fn a_write_is_seen_elsewhere(s: &mut dyn Subject, p: &str) -> Outcome {
    let key = format!("{p}status");
    for value in ["1", "2", "3"] {
        let revision = applied(s, &[], vec![put(&key, value, None)]).await?;
        let seen = s.read_elsewhere(p).await?;
        expect("seen at once", &(seen.revision >= revision), &true)?;
        let found: Vec<&[u8]> = seen.keys.iter().map(|kv| kv.value.as_slice()).collect();
        expect("value", &found, &vec![value.as_bytes()])?;
    }
    Ok(())
}

async fn a_compacted_watch_says_resync(s: &mut dyn Subject, p: &str) -> Outcome {
    let key = format!("{p}leader");
    let first = applied(s, &[], vec![put(&key, "a", None)]).await?;
    applied(s, &[], vec![put(&key, "b", None)]).await?;
    let last = applied(s, &[], vec![put(&key, "c", None)]).await?;
    s.compact(last).await?;
    s.watch(p, first);
    expect("hint", &s.next_hint(HINT_LIMIT).await, &Some(Hint::Resync))?;
    // The next watch begins at what is new when it stands; until then writes are hinted at by another resync.
    for _ in 0..20 {
        let written = applied(s, &[], vec![put(&key, "d", None)]).await?;
        let hint = s.next_hint(HINT_LIMIT / 5).await;
        if let Some(Hint::Changed { mod_revision, .. }) = hint {
            return expect(
                "not from before the gap",
                &(mod_revision > last && mod_revision <= written),
                &true,
            );
        }
    }
    Err("the watch tells nothing more after the compaction".to_owned())
}

async fn a_full_store_still_reads(s: &mut dyn Subject, p: &str) -> Outcome {
    let (leader, status) = (format!("{p}leader"), format!("{p}status"));
    let lease = s.grant_lease(LONG_TTL).await?;
    let ops = vec![put(&leader, "a", Some(lease)), put(&status, "a", None)];
    applied(s, &[], ops).await?;
    s.set_full(true).await?;
    let outcome = commit(s, &[], vec![put(&leader, "b", Some(lease))]).await;
    expect("a put", &outcome, &CommitOutcome::Refused)?;
    expect("a grant", &s.grant_lease(LONG_TTL).await.is_err(), &true)?;
    expect(
        "keepalive",
        &s.keep_lease(lease).await?,
        &KeepAlive::Alive { ttl: LONG_TTL },
    )?;
    expect("value", &find(s, p, &leader).await?.value, &b"a".to_vec())?;
    applied(s, &[], vec![Op::Delete(status)]).await?;
    only(s, p, &leader).await.map(|_| ())
}

fn absent(key: &str) -> Compare {
    Compare::CreateRevision(key.to_owned(), Revision(0))
}

fn put(key: &str, value: &str, lease: Option<LeaseId>) -> Op {
    Op::Put {
        key: key.to_owned(),
        value: value.as_bytes().to_vec(),
        lease,
    }
}

async fn commit(s: &mut dyn Subject, compares: &[Compare], ops: Vec<Op>) -> CommitOutcome {
    s.commit(&Txn {
        compares: compares.to_vec(),
        ops,
    })
    .await
}

async fn applied(s: &mut dyn Subject, compares: &[Compare], ops: Vec<Op>) -> Result<Revision, String> {
    match commit(s, compares, ops.clone()).await {
        CommitOutcome::Applied { revision } => Ok(revision),
        other => Err(format!("{ops:?} under {compares:?}: expected Applied, found {other:?}")),
    }
}

async fn conflicts(s: &mut dyn Subject, compares: &[Compare], ops: Vec<Op>) -> Outcome {
    expect(
        &format!("{ops:?} under {compares:?}"),
        &commit(s, compares, ops.clone()).await,
        &CommitOutcome::Conflict,
    )
}

async fn find(s: &mut dyn Subject, prefix: &str, key: &str) -> Result<KeyValue, String> {
    let snapshot: Snapshot = s.read(prefix).await?;
    let found = snapshot.keys.into_iter().find(|kv| kv.key == key);
    found.ok_or_else(|| format!("{key} is missing"))
}

async fn only(s: &mut dyn Subject, prefix: &str, key: &str) -> Result<KeyValue, String> {
    let snapshot = s.read(prefix).await?;
    match <[KeyValue; 1]>::try_from(snapshot.keys) {
        Ok([kv]) if kv.key == key => Ok(kv),
        Ok(other) => Err(format!("expected only {key}, found {other:?}")),
        Err(others) => Err(format!("expected only {key}, found {others:?}")),
    }
}

async fn hinted(s: &mut dyn Subject, key: &str, revision: Revision, deleted: bool) -> Outcome {
    let expected = Hint::Changed {
        key: key.to_owned(),
        mod_revision: revision,
        deleted,
    };
    expect("hint", &s.next_hint(HINT_LIMIT).await, &Some(expected))
}

fn expect<T: PartialEq + std::fmt::Debug>(what: &str, found: &T, expected: &T) -> Outcome {
    if found == expected {
        Ok(())
    } else {
        Err(format!("{what}: expected {expected:?}, found {found:?}"))
    }
}
