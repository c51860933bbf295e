//! A dozen of the fault scenarios, one test each; `just faults` runs all of them.
//!
//! Where the kernel or the rights lack a means, a test passes without having run; the test command names those at its end
//! (`scripts/not-checked.sh`).
#![allow(clippy::unwrap_used, clippy::panic)]

use pgha_integration::rig::{directory, scenarios};

fn run(name: &str) {
    let all = scenarios().unwrap();
    let scenario = all.into_iter().find(|scenario| scenario.name == name);
    let scenario = scenario.unwrap_or_else(|| panic!("{} has no {name}", directory().display()));
    match scenario.lacking() {
        Some(reason) => println!("NOT CHECKED: {name}: {reason}"),
        None => match scenario.run() {
            Ok(report) => println!("{report}"),
            Err(error) => panic!("{error:?}"),
        },
    }
}

#[test]
fn f01_a_leader_cut_from_etcd() {
    run("F01");
}

#[test]
fn f01q_a_leader_cut_from_everybody_but_its_clients_in_quorum_mode() {
    run("F01q");
}

#[test]
fn f02_a_leader_that_sees_one_isolated_member_of_etcd() {
    run("F02");
}

#[test]
fn f03_a_leader_that_hears_no_answers_of_etcd() {
    run("F03");
}

#[test]
fn f05_a_leader_that_loses_one_member_of_etcd() {
    run("F05");
}

#[test]
fn f11_a_lease_revoked_early() {
    run("F11");
}

#[test]
fn f15_etcd_comes_back_empty() {
    run("F15");
}

#[test]
fn f18_a_frozen_machine() {
    run("F18");
}

#[test]
fn f18s_a_frozen_machine_in_synchronous_mode() {
    run("F18s");
}

#[test]
fn f25c_a_machine_that_loses_power() {
    run("F25c");
}

#[test]
fn f26_a_full_disk() {
    run("F26");
}

#[test]
fn f38_everything_loses_power_at_once() {
    run("F38");
}

#[test]
fn f48_the_candidate_of_a_switchover_dies() {
    run("F48");
}

#[test]
fn f49_stopped_backends_of_a_leader_that_must_give_way() {
    run("F49");
}

#[test]
fn every_scenario_file_can_be_read_and_names_its_story() {
    let all = scenarios().unwrap();
    assert!(all.len() >= 30, "{} scenarios", all.len());
    for scenario in all {
        assert!(!scenario.plan.faults.is_empty(), "{} does nothing", scenario.name);
    }
}
