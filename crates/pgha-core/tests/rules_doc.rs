//! `docs/rules.md` says for people what `Rule::ALL` says in the source. `PGHA_UPDATE=1` writes it anew.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fmt::Write;
use std::fs;
use std::path::Path;

use pgha_core::rule::Rule;

/// What the blocks of a hundred are about, and the file under `crates/pgha-core/src/decide/` that holds them.
const BLOCKS: &[(u16, &str, &str)] = &[
    (0, "Nothing is known yet", "mod.rs"),
    (100, "etcd does not answer", "dcs_lost.rs"),
    (200, "A job runs", "job.rs"),
    (300, "PostgreSQL is starting", "mod.rs"),
    (400, "Founding a cluster", "bootstrap.rs"),
    (500, "No usable data directory", "no_data_dir.rs"),
    (600, "Whose data are these?", "system_id.rs"),
    (700, "PostgreSQL is down", "pg_down.rs"),
    (800, "Nobody holds the leader key", "no_leader.rs"),
    (900, "The leader key is ours", "lead.rs, handover.rs"),
    (1000, "Somebody else leads", "follow.rs"),
    (1200, "What operators ask for", "lead.rs, follow.rs"),
    (1300, "The daemon ends", "shutdown.rs"),
];

fn render() -> String {
    let mut text = String::from(
        "# Rules\n\nGenerated from `crates/pgha-core/src/rule.rs`; `PGHA_UPDATE=1 cargo test -p pgha-core --test rules_doc` \
         writes it anew.\n\nEach decision of pgha has a rule, and each rule a fixed number, which stands in the log, in the \
         status and in `/metrics`. Scenarios that show each of them stand in `crates/pgha-core/tests/scenarios/`.\n",
    );
    for (start, title, file) in BLOCKS {
        let rules = || Rule::ALL.iter().filter(|r| r.number() / 100 * 100 == *start);
        assert!(rules().next().is_some(), "no rule is left in block {start}");
        write!(
            text,
            "\n## {start}: {title}\n\n`decide/{file}`\n\n| | rule | why |\n|---|---|---|\n"
        )
        .unwrap();
        for rule in rules() {
            let why = rule
                .why()
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" ")
                .replace('|', "\\|");
            writeln!(text, "| {} | {} | {why} |", rule.number(), rule.name()).unwrap();
        }
    }
    text
}

#[test]
fn each_rule_stands_in_a_block_that_the_document_knows() {
    for rule in Rule::ALL {
        let block = rule.number() / 100 * 100;
        assert!(
            BLOCKS.iter().any(|(start, ..)| *start == block),
            "{} has number {}, and no block begins with {block}",
            rule.name(),
            rule.number()
        );
    }
}

#[test]
fn the_document_of_rules_says_what_the_source_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/rules.md");
    let text = render();
    if std::env::var_os("PGHA_UPDATE").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &text).unwrap();
    }
    let there = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        there == text,
        "docs/rules.md is not what rule.rs says; PGHA_UPDATE=1 writes it anew"
    );
}
