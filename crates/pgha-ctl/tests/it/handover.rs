//! Switchover and failover: what is asked, what is sent, and how it is told that it ended.

use std::thread;
use std::time::Duration;

use crate::world::{World, free_port, lines, play};

#[test]
fn a_switchover_is_asked_for_and_told() {
    let world = World::start();
    let (port, asked) = play(|_| Some((200, "Successfully switched over to \"node2\"".to_owned())));
    world.put_cluster([port, free_port(), free_port()]);
    let ran = world.run("switchover", "\nnode2\n\ny\n");
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(
        ran.out.starts_with("Current cluster topology\n+ Cluster: batman"),
        "{}",
        ran.out
    );
    assert!(
        ran.out.contains(
            "+\nPrimary [node1]: Candidate ['node2', 'node3'] []: When should the switchover take place (e.g. "
        ),
        "{}",
        ran.out
    );
    assert!(
        ran.out.contains(
            " )  [now]: Are you sure you want to switchover cluster batman, demoting current leader node1? [y/N]: "
        ),
        "{}",
        ran.out
    );
    assert!(
        ran.out
            .contains(" Successfully switched over to \"node2\"\n+ Cluster: batman"),
        "{}",
        ran.out
    );
    assert_eq!(world.run("switchover --force", "").code, 0);
    let ran = world.run("switchover --force --candidate node3 --scheduled 2050-01-01T10:00", "");
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(
        lines(&asked),
        [
            r#"POST /switchover {"candidate": "node2", "leader": "node1"}"#,
            r#"POST /switchover {"candidate": null, "leader": "node1"}"#,
            r#"POST /switchover {"candidate": "node3", "leader": "node1", "scheduled_at": "2050-01-01T10:00:00+00:00"}"#,
        ]
    );
}

#[test]
fn a_refusal_and_an_unknown_end_have_their_own_exit_codes() {
    let world = World::start();
    let (port, _) = play(|request| match request {
        "POST /failover" => Some((
            412,
            "failover is not possible: no good candidates have been found".to_owned(),
        )),
        _ => Some((
            503,
            "Switchover status unknown after 20 seconds; operation may still be in progress".to_owned(),
        )),
    });
    world.put_cluster([port, free_port(), free_port()]);
    let ran = world.run("failover --candidate node2", "y\n");
    assert_eq!(ran.code, 1);
    assert!(
        ran.out
            .ends_with("Failover failed, details: 412, failover is not possible: no good candidates have been found\n"),
        "{}",
        ran.out
    );
    let ran = world.run("switchover --force", "");
    assert_eq!(ran.code, 3);
    assert!(
        ran.out.contains("Switchover result unknown, details: 503, "),
        "{}",
        ran.out
    );
}

#[test]
fn what_makes_no_sense_reaches_nobody() {
    let world = World::start();
    let (port, asked) = play(|_| Some((200, String::new())));
    world.put_cluster([port, port, port]);
    for (line, input, part) in [
        (
            "switchover",
            "node2\n",
            "Error: Member node2 is not the leader of cluster batman",
        ),
        (
            "switchover",
            "\nnode9\n",
            "Error: Member node9 does not exist in cluster batman or is tagged as nofailover",
        ),
        (
            "switchover",
            "\nnode1\n",
            "Error: Member node1 is already the leader of cluster batman",
        ),
        ("switchover", "\n\n\nn\n", "Error: Aborting switchover"),
        (
            "switchover",
            "\n\n2050-01-01T10:00\n\n",
            "Error: Aborting scheduled switchover",
        ),
        ("switchover", "\n", "Aborted!"),
        (
            "switchover --force --scheduled 2001-01-01T10:00",
            "",
            "Cannot schedule switchover in the past",
        ),
        (
            "failover",
            "\n",
            "Error: Failover could be performed only to a specific candidate",
        ),
        (
            "failover --force",
            "",
            "Error: Failover could be performed only to a specific candidate",
        ),
        ("switchover nobody --force", "", "Error: This cluster has no leader"),
        (
            "failover nobody --force",
            "",
            "Error: No candidates found to failover to",
        ),
    ] {
        let ran = world.run(line, input);
        assert!(ran.code == 1 && ran.err.contains(part), "{line}: {ran:?}");
    }
    world.put(&[
        ("config", r#"{"synchronous_mode":true}"#.to_owned()),
        (
            "sync",
            r#"{"leader":"node1","quorum":0,"sync_standby":"node2"}"#.to_owned(),
        ),
    ]);
    let ran = world.run("failover --candidate node3", "n\n");
    assert!(
        ran.code == 1
            && ran
                .out
                .contains("Are you sure you want to failover to the asynchronous node node3? [y/N]: "),
        "{ran:?}"
    );
    world.put(&[("config", r#"{"pause":true}"#.to_owned())]);
    let ran = world.run("switchover --force --scheduled 2050-01-01T10:00", "");
    assert!(
        ran.code == 1 && ran.err.contains("Can't schedule switchover in the paused state"),
        "{ran:?}"
    );
    assert!(lines(&asked).is_empty(), "{:?}", lines(&asked));
}

/// Waits for `/failover` to be written, then plays the cluster's part.
fn react(world: &World, keys: &[(&str, String)]) {
    let mut looks = 0;
    while world.get("failover").is_none_or(|text| text == "{}") {
        looks += 1;
        assert!(looks < 200, "the key was not written");
        thread::sleep(Duration::from_millis(50));
    }
    world.put(keys);
}

#[test]
fn without_a_member_to_ask_the_key_is_written_and_its_effect_watched() {
    let world = World::start();
    world.put_cluster([free_port(), free_port(), free_port()]);
    world.put(&[("failover", "{}".to_owned())]);
    let ran = thread::scope(|scope| {
        let ran = scope.spawn(|| world.run("switchover --force --candidate node2", ""));
        react(&world, &[("leader", "node2".to_owned()), ("failover", "{}".to_owned())]);
        ran.join().unwrap()
    });
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(
        ran.out
            .contains(" Could not switchover using Patroni api, falling back to DCS\n"),
        "{}",
        ran.out
    );
    assert!(
        ran.out.contains(" Successfully switched over to \"node2\"\n"),
        "{}",
        ran.out
    );

    let ran = thread::scope(|scope| {
        let ran = scope.spawn(|| world.run("failover --force --candidate node3", ""));
        react(&world, &[("failover", "{}".to_owned())]);
        ran.join().unwrap()
    });
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.out.contains(" Failover failed\n"), "{}", ran.out);
}

#[test]
fn a_planned_switchover_is_written_for_the_leader_to_find() {
    let world = World::start();
    world.put_cluster([free_port(), free_port(), free_port()]);
    let ran = world.run("switchover --force --scheduled 2050-01-01T10:00", "");
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(
        ran.out
            .contains(" Switchover scheduled at: 2050-01-01T10:00:00+00:00\n                    from: node1\n"),
        "{}",
        ran.out
    );
    assert_eq!(
        world.get("failover").unwrap(),
        r#"{"leader":"node1","scheduled_at":"2050-01-01T10:00:00+00:00"}"#
    );
}

#[test]
fn a_lost_answer_is_cleared_up_by_looking_at_the_cluster() {
    let world = World::start();
    let (mute, asked) = play(|_| None);
    world.put_cluster([mute, free_port(), free_port()]);
    let ran = thread::scope(|scope| {
        let ran = scope.spawn(|| world.run("switchover --force --candidate node2", ""));
        while lines(&asked).is_empty() {
            thread::sleep(Duration::from_millis(20));
        }
        world.put(&[("leader", "node2".to_owned())]);
        ran.join().unwrap()
    });
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.contains("the answer is lost"), "{}", ran.out);
    assert!(
        ran.out.contains(" Successfully switched over to \"node2\"\n"),
        "{}",
        ran.out
    );
    assert_eq!(
        world.get("failover"),
        None,
        "a request that may have arrived is not made again"
    );
    assert_eq!(lines(&asked).len(), 1);
}
