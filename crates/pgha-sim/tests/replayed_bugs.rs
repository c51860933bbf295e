//! `docs/replayed-bugs.md` names every planted defect with its source.
#![allow(clippy::unwrap_used, clippy::panic)]

use pgha_sim::planted::DEFECTS;

#[test]
fn the_page_lists_every_planted_defect_and_no_other() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/replayed-bugs.md");
    let page = std::fs::read_to_string(path).unwrap();
    let rows: Vec<&str> = page
        .lines()
        .filter(|l| l.starts_with("| ") && !l.starts_with("| id "))
        .collect();
    assert_eq!(
        rows.len(),
        DEFECTS.len(),
        "run `just planted --write docs/replayed-bugs.md`"
    );
    for (row, defect) in rows.iter().zip(DEFECTS) {
        let begins = format!("| {} | {} | {} | ", defect.id, defect.what, defect.source);
        assert!(row.starts_with(&begins), "{row}\nshould begin with\n{begins}");
        assert!(!row.contains("SURVIVED"), "{row}");
    }
}

#[test]
fn no_two_defects_share_a_name() {
    for (i, a) in DEFECTS.iter().enumerate() {
        assert!(DEFECTS[i + 1..].iter().all(|b| a.id != b.id), "{}", a.id);
    }
}
