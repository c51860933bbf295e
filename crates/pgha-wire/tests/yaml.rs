//! YAML is read as PyYAML reads it, written so that PyYAML reads it back, and no input brings the reader down.
#![allow(clippy::unwrap_used, clippy::panic)]

use pgha_wire::yaml::emit::{KeyOrder, to_yaml};
use pgha_wire::yaml::parse::{MAX_BYTES, MAX_DEPTH};
use pgha_wire::yaml::{Kind, Node, Value, YamlProblem, parse};
use proptest::prelude::*;
use serde_json::json;

fn root(text: &str) -> Node {
    parse(text, 0)
        .unwrap_or_else(|e| panic!("{text:?}: {e:?}"))
        .root
        .unwrap()
}

fn json_of(text: &str) -> serde_json::Value {
    root(text).to_json().unwrap()
}

fn problems(text: &str) -> Vec<(usize, usize, YamlProblem)> {
    parse(text, 0)
        .unwrap_err()
        .into_iter()
        .map(|e| (e.at.line, e.at.column, e.problem))
        .collect()
}

/// Type, value as text, and text as written.
fn scalar(text: &str) -> (&'static str, String, String) {
    let node = root(&format!("k: {text}"));
    let Value::Scalar(scalar) = &node.get("k").unwrap().value else {
        panic!("{text:?} is no scalar")
    };
    let value = match scalar.kind {
        Kind::Bool(b) => b.to_string(),
        Kind::Int(i) => i.to_string(),
        Kind::Float(f) => format!("{f:?}"),
        Kind::Str => scalar.text.clone(),
        Kind::Null | Kind::Date | Kind::DateTime => String::new(),
    };
    (scalar.kind.name(), value, scalar.text.clone())
}

#[test]
fn plain_scalars_have_the_type_and_value_that_pyyaml_gives_them() {
    let table = include_str!("data/pyyaml_scalars.tsv");
    let mut rows = 0;
    for line in table.lines().filter(|l| !l.starts_with('#')) {
        let [text, kind, value] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("bad row {line:?}")
        };
        let (found_kind, found, written) = scalar(text);
        assert_eq!(found_kind, kind, "type of {text:?}");
        if kind == "number" {
            let expected: f64 = value.parse().unwrap();
            let found: f64 = found.parse().unwrap();
            assert!(
                found == expected || (found.is_nan() && expected.is_nan()),
                "{text:?}: {found} for {expected}"
            );
        } else {
            assert_eq!(found, value, "value of {text:?}");
        }
        assert_eq!(written, text.trim(), "the written text of {text:?} is kept");
        rows += 1;
    }
    assert!(rows > 150, "the table has been read");
}

#[test]
fn quoted_and_tagged_scalars_follow_pyyaml_too() {
    for (text, kind) in [
        ("'on'", "string"),
        ("\"0644\"", "string"),
        ("! 5", "integer"),
        ("!!str 5", "string"),
        ("!!float 1", "number"),
        ("!!int 0x10", "integer"),
        ("!!null x", "null"),
        ("!!bool on", "boolean"),
        ("!!timestamp 2024-01-01", "date"),
        ("''", "string"),
        ("", "null"),
        ("&a", "null"),
        ("!!str", "string"),
    ] {
        assert_eq!(scalar(text).0, kind, "{text:?}");
    }
    assert_eq!(scalar("!!str").2, "", "an absent value has no text");
    assert_eq!(scalar("&a").2, "", "an absent value has no text");
}

#[test]
fn faults_name_the_line_and_column_and_never_the_value() {
    let cases: &[(&str, usize, usize, YamlProblem)] = &[
        ("a: 1\nk: =", 2, 4, YamlProblem::SpecialValue),
        ("a: 1\nk: <<", 2, 4, YamlProblem::SpecialValue),
        ("k: 0x_", 1, 4, YamlProblem::WrongInteger),
        (
            "k: 999999999999999999999999999999999999999999",
            1,
            4,
            YamlProblem::WrongInteger,
        ),
        ("k: 2024-13-01", 1, 4, YamlProblem::WrongDate),
        ("k: 2024-02-30 10:00:00", 1, 4, YamlProblem::WrongDate),
        ("k: 2024-02-03 25:00:00", 1, 4, YamlProblem::WrongDate),
        ("k: 0000-01-01", 1, 4, YamlProblem::WrongDate),
        ("k: !secret x", 1, 4, YamlProblem::UnknownTag),
        ("k: !!binary aGk=", 1, 4, YamlProblem::UnknownTag),
        ("k: !!set {a}", 1, 4, YamlProblem::UnknownTag),
        ("k: !!int abc", 1, 4, YamlProblem::WrongTag),
        ("k: *x", 1, 4, YamlProblem::UnknownAlias),
        ("k: &x [*x]", 1, 8, YamlProblem::RecursiveAlias),
        ("[1, 2]: 3", 1, 1, YamlProblem::CollectionKey),
        ("<<: 5\na: 1", 1, 1, YamlProblem::WrongMerge),
        ("<<: [{a: 1}, 5]", 1, 1, YamlProblem::WrongMerge),
        ("a: 1\n---\nb: 2", 2, 1, YamlProblem::SecondDocument),
        ("a: \u{1}", 1, 4, YamlProblem::Character(1)),
        ("a: b\u{2028}c", 1, 5, YamlProblem::Character(0x2028)),
        ("a: b\nc: \u{0}", 2, 4, YamlProblem::Character(0)),
    ];
    for (text, line, column, problem) in cases {
        let (found_line, found_column, found) = problems(text).remove(0);
        assert_eq!(&found, problem, "{text:?}");
        assert_eq!((found_line, found_column), (*line, *column), "{text:?}");
    }
    for text in [
        "k: [::1]:5432",
        "k: @x",
        "k: `x",
        "a: 'open",
        "a: b: c",
        "a:\n\tb: 1",
        "a: [1, 2",
        "a: }",
    ] {
        let (line, _, problem) = problems(text).remove(0);
        assert!(
            line >= 1 && matches!(problem, YamlProblem::Syntax(_)),
            "{text:?}: {problem:?}"
        );
    }
}

#[test]
fn all_faulty_values_are_reported_in_one_pass() {
    let found = problems("a: 2024-13-01\nb: !x y\nc: 0x_\n");
    assert_eq!(found.iter().map(|p| p.0).collect::<Vec<_>>(), [1, 2, 3]);
}

#[test]
fn the_last_of_equal_keys_counts_and_a_warning_says_so() {
    let parsed = parse("a: 1\nb: 2\na: 3\n1: x\ntrue: y\n", 0).unwrap();
    assert_eq!(
        parsed.root.unwrap().to_json().unwrap(),
        json!({"a": 3, "true": "y", "b": 2})
    );
    let lines: Vec<_> = parsed.warnings.iter().map(|w| (w.at.line, w.problem.clone())).collect();
    assert_eq!(
        lines,
        [
            (3, YamlProblem::DuplicateKey("a".into())),
            (5, YamlProblem::DuplicateKey("true".into()))
        ]
    );
}

#[test]
fn merge_keys_fill_in_what_the_mapping_does_not_say_itself() {
    let text = "base: &b {x: 1, y: 2}\nother: &o {y: 3, z: 4}\none:\n  <<: *b\n  y: 9\nlist:\n  <<: [*b, *o]\nquoted: {'<<': 1}\n";
    assert_eq!(
        json_of(text),
        json!({"base": {"x": 1, "y": 2}, "other": {"y": 3, "z": 4}, "one": {"x": 1, "y": 9},
               "list": {"y": 2, "z": 4, "x": 1}, "quoted": {"<<": 1}})
    );
}

#[test]
fn aliases_of_aliases_end_at_the_node_budget() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_string();
    for i in 1..20 {
        let uses = vec![format!("*a{}", i - 1); 10].join(", ");
        text.push_str(&format!("a{i}: &a{i} [{uses}]\n"));
    }
    assert_eq!(problems(&text)[0].2, YamlProblem::TooManyNodes);
}

#[test]
fn depth_is_bounded_however_it_is_reached() {
    let flow = "[".repeat(MAX_DEPTH + 1) + &"]".repeat(MAX_DEPTH + 1);
    assert_eq!(problems(&flow)[0].2, YamlProblem::TooDeep);
    let block: String = (0..=MAX_DEPTH)
        .map(|i| format!("{}a:\n", " ".repeat(i)))
        .collect::<String>();
    assert_eq!(problems(&block)[0].2, YamlProblem::TooDeep);
    let mut aliases = "- &a0 [x]\n".to_string();
    for i in 1..=MAX_DEPTH {
        aliases.push_str(&format!("- &a{i} [*a{}]\n", i - 1));
    }
    assert_eq!(problems(&aliases)[0].2, YamlProblem::TooDeep);
    let allowed = "[".repeat(MAX_DEPTH) + &"]".repeat(MAX_DEPTH);
    assert!(parse(&allowed, 0).is_ok());
}

#[test]
fn a_text_beyond_the_size_limit_is_refused_unread() {
    let text = "a: ".to_string() + &"x".repeat(MAX_BYTES);
    assert_eq!(problems(&text)[0].2, YamlProblem::TooLong);
}

#[test]
fn an_empty_document_has_no_root() {
    for text in ["", "\n", "# only a comment\n", "---\n"] {
        assert!(
            parse(text, 0).unwrap().root.is_none_or(|node| node.is_null()),
            "{text:?}"
        );
    }
}

#[test]
fn debug_output_of_a_tree_shows_no_scalar() {
    let shown = format!("{:?}", root("password: hunter2\nlist: [hunter3]\n"));
    assert!(!shown.contains("hunter"), "{shown}");
}

#[test]
fn strings_that_pyyaml_would_retype_are_written_in_quotes() {
    for text in [
        "on",
        "yes",
        "y",
        "0644",
        "12:30",
        "2024-01-01",
        "1_000",
        "~",
        "null",
        "=",
        "<<",
        "",
        " x",
        "1e3",
        "08",
    ] {
        let yaml = to_yaml(&json!({"k": text}), KeyOrder::AsGiven);
        assert_eq!(yaml, format!("k: '{text}'\n"));
    }
    let value = json!({"b": [1, {"c": "x", "d": []}, ["z"]], "a": {"e": null, "f": {}}, "t": "two\nlines", "m": 1e300});
    assert_eq!(
        to_yaml(&value, KeyOrder::Sorted),
        "a:\n  e: null\n  f: {}\nb:\n- 1\n- c: x\n  d: []\n- - z\nm: 1.0e+300\nt: \"two\\nlines\"\n"
    );
}

fn any_string() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[ -~\n\t]{0,20}",
        "[-+0-9:._eExob~=<]{0,8}",
        proptest::sample::select(vec![
            "on",
            "No",
            "NULL",
            "~",
            "0644",
            "12:30",
            "2024-01-01",
            "---",
            "...",
            "- a",
            "a: b",
            "#x",
            "? x"
        ])
        .prop_map(str::to_string),
    ]
}

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(|b| json!(b)),
        any::<i64>().prop_map(|i| json!(i)),
        any::<u64>().prop_map(|i| json!(i)),
        any::<f64>()
            .prop_filter("JSON has finite numbers only", |f| f.is_finite())
            .prop_map(|f| json!(f)),
        any_string().prop_map(|s| json!(s)),
    ];
    leaf.prop_recursive(5, 60, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(|v| json!(v)),
            prop::collection::vec((any_string(), inner), 0..6)
                .prop_map(|pairs| serde_json::Value::Object(pairs.into_iter().collect())),
        ]
    })
}

/// Every fault has a line of the text, or the end of it.
fn faults_lie_within(text: &str) -> bool {
    let lines = text.split(['\n', '\r']).count() + 1;
    match parse(text, 0) {
        Ok(_) => true,
        Err(errors) => errors.iter().all(|e| (1..=lines).contains(&e.at.line)),
    }
}

proptest! {
    #[test]
    fn what_is_written_reads_back_as_the_same_value(value in any_json()) {
        for order in [KeyOrder::AsGiven, KeyOrder::Sorted] {
            let yaml = to_yaml(&value, order);
            let parsed = parse(&yaml, 0).map_err(|e| TestCaseError::fail(format!("{yaml}\n{e:?}")))?;
            prop_assert_eq!(parsed.root.unwrap().to_json().unwrap(), value.clone(), "{}", yaml);
        }
    }

    #[test]
    fn no_text_brings_the_reader_down(text in any::<String>()) {
        prop_assert!(faults_lie_within(&text));
    }

    #[test]
    fn no_text_of_yaml_characters_brings_the_reader_down(text in "[-a-c0-9:,{}\\[\\]&*!|>'\"%@`#?<=~. \n\t]{0,60}") {
        prop_assert!(faults_lie_within(&text));
    }
}
