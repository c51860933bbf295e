//! What is shown is what `patronictl` 4.1.5 shows for the same keys: `golden/` holds its output.
//!
//! YAML is compared as values: pgha puts quotes round some texts where PyYAML needs none.

use std::path::PathBuf;

use pgha_core::units::Revision;
use pgha_ctl::cluster::Cluster;
use pgha_ctl::history::render_history;
use pgha_ctl::listing::{Style, render_listing};
use pgha_ctl::output::{Format, render_yaml_document};
use pgha_wire::kv::{KeyValue, Snapshot};
use serde_json::Value;

const FORMATS: [(Format, &str); 4] = [
    (Format::Pretty, "pretty"),
    (Format::Tsv, "tsv"),
    (Format::Json, "json"),
    (Format::Yaml, "yaml"),
];

fn golden(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/it/golden")
        .join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn cluster(scope: &str) -> Cluster {
    let all: Value = serde_json::from_str(&golden("clusters.json")).unwrap();
    let base = format!("/service/{scope}");
    let key = |(key, value): (&String, &Value)| KeyValue {
        key: format!("{base}/{key}"),
        value: value.as_str().unwrap().as_bytes().to_vec(),
        create_revision: Revision(1),
        mod_revision: Revision(1),
        lease: None,
    };
    let mut keys: Vec<KeyValue> = all
        .get(scope)
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(key)
        .collect();
    keys.sort_by(|a, b| a.key.cmp(&b.key));
    Cluster::new(
        scope,
        base,
        Snapshot {
            revision: Revision(1),
            keys,
        },
    )
}

fn listing(scope: &str, style: Style) -> String {
    let cluster = cluster(scope);
    render_listing(&cluster.table(), cluster.view.initialize, style)
}

fn yaml(text: &str) -> Value {
    pgha_wire::yaml::parse(text, 0)
        .unwrap()
        .root
        .unwrap()
        .to_json()
        .unwrap()
}

fn compare(name: &str, format: Format, shown: &str) {
    let expected = golden(name);
    if format == Format::Yaml {
        assert_eq!(yaml(shown), yaml(&expected), "{name}");
        assert!(shown.ends_with("\n\n") && expected.ends_with("\n\n"), "{name}");
    } else {
        assert_eq!(shown, expected, "{name}\n{shown}\n{expected}");
    }
}

#[test]
fn lists_are_those_of_patronictl_in_every_format() {
    for scope in ["batman", "robin", "simple", "odd", "empty"] {
        for (format, word) in FORMATS {
            compare(
                &format!("{scope}.list.{word}"),
                format,
                &listing(
                    scope,
                    Style {
                        format,
                        ..Style::default()
                    },
                ),
            );
        }
    }
}

#[test]
fn an_extended_list_has_all_columns() {
    let shown = listing(
        "simple",
        Style {
            extended: true,
            ..Style::default()
        },
    );
    compare("simple.extended.pretty", Format::Pretty, &shown);
}

#[test]
fn trees_are_those_of_patronictl() {
    for scope in ["batman", "robin", "simple", "empty"] {
        compare(
            &format!("{scope}.topology"),
            Format::Pretty,
            &listing(
                scope,
                Style {
                    tree: true,
                    ..Style::default()
                },
            ),
        );
    }
}

#[test]
fn members_that_follow_each_other_are_not_lost_from_the_tree() {
    let shown = listing(
        "odd",
        Style {
            tree: true,
            ..Style::default()
        },
    );
    for member in [
        "| n1 ",
        "| + c1 ",
        "| + c2 ",
        "| + d ",
        "| + s ",
        "| + v ",
        "| + 日本 |",
    ] {
        assert_eq!(shown.matches(member).count(), 1, "{member}\n{shown}");
    }
}

#[test]
fn histories_are_those_of_patronictl_in_every_format() {
    for scope in ["batman", "empty"] {
        let view = cluster(scope).view;
        let lines = view.history.map(|h| h.lines).unwrap_or_default();
        for (format, word) in FORMATS {
            compare(
                &format!("{scope}.history.{word}"),
                format,
                &render_history(&lines, format),
            );
        }
    }
}

#[test]
fn the_configuration_is_shown_as_sorted_yaml() {
    let config = cluster("batman").view.config.unwrap();
    let shown = render_yaml_document(&serde_json::from_str(&config.text).unwrap());
    compare("batman.config.yaml", Format::Yaml, &shown);
    let keys: Vec<&str> = shown
        .lines()
        .filter_map(|l| l.split_once(':').map(|(k, _)| k))
        .filter(|k| !k.starts_with([' ', '-']))
        .collect();
    assert!(keys.is_sorted() && keys.len() > 5, "{keys:?}");
}

#[test]
fn other_roles_have_their_names() {
    let mut odd = cluster("odd");
    let config = odd.view.config.as_mut().unwrap();
    config.settings.synchronous_mode = pgha_core::settings::SynchronousMode::Quorum;
    let shown = render_listing(&odd.table(), odd.view.initialize, Style::default());
    assert_eq!(shown.matches("| Quorum Standby |").count(), 2, "{shown}");
    odd.view.config.as_mut().unwrap().settings.standby_cluster = Some(Default::default());
    let shown = render_listing(&odd.table(), odd.view.initialize, Style::default());
    assert_eq!(shown.matches("| Standby Leader |").count(), 1, "{shown}");
}
