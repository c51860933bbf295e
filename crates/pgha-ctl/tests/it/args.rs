//! The command line is that of `patronictl`.

use clap::{CommandFactory, Parser};
use pgha_ctl::args::{Cli, Command, RoleFilter};
use pgha_ctl::output::Format;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split(' '))
}

#[test]
fn the_definitions_fit_together() {
    Cli::command().debug_assert();
}

#[test]
fn options_of_patronictl_are_understood() {
    for line in [
        "pgha-ctl -c f -d etcd3://h:1 -k list",
        "pgha-ctl --config-file f --dcs h:1 --insecure list a b -e -t -f yml -W",
        "pgha-ctl list -f tsv -w 0.5",
        "pgha-ctl topology a --watch 2",
        "pgha-ctl switchover a --primary p --candidate c --scheduled now --force",
        "pgha-ctl switchover --leader p",
        "pgha-ctl failover a --candidate c --force",
        "pgha-ctl restart a m1 m2 -r standby-leader --any --scheduled t --pg-version 9.5.2 --pending --timeout 5min --force",
        "pgha-ctl reload a m1 --role replica --force",
        "pgha-ctl reinit a m1 --force --from-leader --wait",
        "pgha-ctl pause --wait",
        "pgha-ctl resume a",
        "pgha-ctl history -f json",
        "pgha-ctl show-config a",
        "pgha-ctl edit-config a -q -s a=1 --set b=2 -p c=3 --pg d=4 --apply - --replace f --force",
        "pgha-ctl version a m1",
    ] {
        if let Err(e) = parse(line) {
            panic!("{line}: {e}");
        }
    }
}

#[test]
fn positional_words_are_the_cluster_and_then_members() {
    let Command::Restart(args) = parse("pgha-ctl restart batman n1 n2 -r replica").unwrap().command else {
        panic!()
    };
    assert_eq!(args.on.cluster.as_deref(), Some("batman"));
    assert_eq!(args.on.members, ["n1", "n2"]);
    assert_eq!(args.role, RoleFilter::Replica);
    let Command::List(args) = parse("pgha-ctl list a b -f yml").unwrap().command else {
        panic!()
    };
    assert_eq!((args.clusters.len(), args.format), (2, Format::Yaml));
}

#[test]
fn wrong_usage_ends_with_two() {
    for line in [
        "pgha-ctl",
        "pgha-ctl bogus",
        "pgha-ctl list -f xml",
        "pgha-ctl list -w 0",
        "pgha-ctl restart -r boss",
        "pgha-ctl list --bogus",
    ] {
        assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
    }
}

#[test]
fn the_help_tells_the_exit_codes() {
    let help = Cli::command().render_long_help().to_string();
    assert!(help.contains("3  the outcome is unknown"), "{help}");
}
