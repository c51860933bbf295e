//! Two states are the same when nothing that happens from now on can tell them apart.
//!
//! The text of a state (`Debug`) is hashed without what no decision reads: numbers of operations, reasons in words, and
//! when something was last said. Revisions are replaced by their rank, since only their order and equality matter.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::hash::{DefaultHasher, Hasher};

use super::cluster::State;

/// Fields whose value changes nothing; up to the next comma. For how long a standby has stood still is read only after
/// longer than any horizon here.
const SILENT: &[&str] = &[
    " decided_at: ",
    " cycle_ended: ",
    " because: ",
    " reason: ",
    " wall: ",
    " stall: ",
    " divergence_checked_at: ",
];

/// The fingerprint of a state.
pub fn of(s: &State) -> u64 {
    let mut text = String::with_capacity(16_384);
    // Writing to a string never fails.
    let written = write!(
        text,
        "{} {} {} {} {} {} {:?} {:?} {:?} {:?}",
        s.time, s.faults, s.drift, s.writes, s.replication, s.promotions, s.reached, s.broken, s.store, s.machines
    );
    assert!(written.is_ok(), "writing to a string never fails");
    let revisions = numbers(&text, "Revision(");
    let mut hash = DefaultHasher::new();
    let (bytes, mut at, mut said) = (text.as_bytes(), 0, 0);
    while at < bytes.len() {
        // Everything that is replaced begins with one of these; the rest is hashed as it stands.
        if !matches!(bytes[at], b'R' | b'O' | b' ') {
            at += 1;
            continue;
        }
        let rest = &text[at..];
        let after = if let Some(tail) = rest.strip_prefix("Revision(") {
            let (number, tail) = number(tail);
            hash.write_usize(revisions.partition_point(|r| *r < number));
            tail
        } else if let Some(tail) = rest.strip_prefix("OpId(") {
            number(tail).1
        } else if let Some(field) = SILENT.iter().find(|f| rest.starts_with(**f)) {
            skip(&rest[field.len()..])
        } else {
            at += 1;
            continue;
        };
        hash.write(&bytes[said..at]);
        at = text.len() - after.len();
        said = at;
    }
    hash.write(&bytes[said..]);
    hash.finish()
}

fn numbers(text: &str, before: &str) -> Vec<i64> {
    let found: BTreeSet<i64> = text
        .match_indices(before)
        .map(|(at, _)| number(&text[at + before.len()..]).0)
        .collect();
    found.into_iter().collect()
}

fn number(text: &str) -> (i64, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '-')
        .unwrap_or(text.len());
    (text[..end].parse().unwrap_or_default(), &text[end..])
}

/// The text after a value: a quoted string, or whatever comes before the next comma.
fn skip(text: &str) -> &str {
    match text.strip_prefix('"') {
        Some(quoted) => quoted.find('"').map_or("", |end| &quoted[end + 1..]),
        None => text.find([',', '}']).map_or("", |end| &text[end..]),
    }
}
