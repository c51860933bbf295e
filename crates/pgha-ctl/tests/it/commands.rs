//! The program against a real etcd and played members, one story each.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::world::{World, free_port, lines, member, play, run};

const BASIC: &str = "Basic YWRtaW46c2VzYW1l";

const TABLE: &str = "\
+ Cluster: batman (7123456789012345678) +----+-------------+-----+------------+-----+
| Member | Host     | Role    | State   | TL | Receive LSN | Lag | Replay LSN | Lag |
+--------+----------+---------+---------+----+-------------+-----+------------+-----+
| node1  | 10.0.0.1 | Leader  | running |  3 |             |     |            |     |
| node2  | 10.0.0.2 | Replica | running |  3 |     unknown |     |    unknown |     |
| node3  | 10.0.0.3 | Replica | running |  3 |     unknown |     |    unknown |     |
+--------+----------+---------+---------+----+-------------+-----+------------+-----+
";

fn config(world: &World) -> Value {
    serde_json::from_str(&world.get("config").unwrap()).unwrap()
}

#[test]
fn what_etcd_holds_is_shown() {
    let world = World::start();
    world.put_cluster([1, 2, 3]);
    world.put(&[(
        "history",
        r#"[[1,25165992,"no recovery target specified","2026-01-01T13:00:00+00:00","node1"]]"#.to_owned(),
    )]);
    let ran = world.run("list", "");
    assert_eq!((ran.code, ran.out.as_str()), (0, TABLE), "{}", ran.err);
    let ran = world.run("list batman -f json", "");
    let rows: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(rows[0]["Member"], "node1");
    assert_eq!((ran.out.matches('\n').count(), rows[1]["TL"].as_u64()), (1, Some(3)));
    let ran = world.run("topology", "");
    assert!(ran.out.contains("| + node2 | 10.0.0.2 |"), "{}", ran.out);
    assert_eq!(
        world.run("history -f tsv", "").out,
        "TL\tLSN\tReason\tTimestamp\tNew Leader\n1\t25165992\tno recovery target specified\t2026-01-01T13:00:00+00:00\tnode1\n"
    );
    assert_eq!(world.run("show-config", "").out, "loop_wait: 1\nttl: 30\n\n");
    let ran = world.run("list -t", "");
    assert_eq!(ran.out.lines().next().map(str::len), Some("2026-01-01 13:00:00".len()));

    let ran = world.run("list nobody", "");
    assert!(
        ran.code == 0 && ran.out.starts_with("+ Cluster: nobody (uninitialized) --+"),
        "{ran:?}"
    );
    let ran = world.run("show-config nobody", "");
    assert_eq!(
        (ran.code, ran.err.as_str()),
        (1, "Error: The config key does not exist in the cluster nobody\n")
    );
    let other = run(&["-d".to_owned(), world.endpoint.clone(), "list".to_owned()], "", &[]);
    assert!(
        other.code == 2 && other.err.contains("no cluster was named"),
        "{other:?}"
    );
}

#[test]
fn the_configuration_is_changed_by_options_files_and_an_editor() {
    let world = World::start();
    world.put_cluster([1, 2, 3]);
    let ran = world.run("edit-config -s ttl=40 -p max_connections=200", "y\n");
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(
        ran.out,
        "--- \n+++ \n@@ -1,2 +1,5 @@\n loop_wait: 1\n-ttl: 30\n+postgresql:\n+  parameters:\n+    max_connections: 200\n+ttl: 40\nApply these changes? [y/N]: Configuration changed\n"
    );
    assert_eq!(
        config(&world),
        json!({"ttl": 40, "loop_wait": 1, "postgresql": {"parameters": {"max_connections": 200}}})
    );

    let ran = world.run("edit-config -s ttl=50", "n\n");
    assert!(ran.code == 1 && ran.err.contains("nothing is changed"), "{ran:?}");
    let ran = world.run("edit-config --apply -", "ttl: 50\n");
    assert!(
        ran.code == 1 && ran.err.contains("Use --force option to apply changes"),
        "{ran:?}"
    );
    let ran = world.run("edit-config -s ttl=40", "");
    assert_eq!((ran.code, ran.out.as_str()), (0, "Not changed\n"));
    assert_eq!(config(&world)["ttl"], 40);

    let ran = world.run(
        "edit-config -q --apply - --force",
        "postgresql: null\nmaster_start_timeout: on\n",
    );
    assert_eq!(
        (ran.code, ran.out.as_str()),
        (0, "Configuration changed\n"),
        "{}",
        ran.err
    );
    assert_eq!(
        config(&world),
        json!({"ttl": 40, "loop_wait": 1, "master_start_timeout": true})
    );

    let script = world.folder.path().join("editor.sh");
    std::fs::write(&script, "#!/bin/sh\nsed -i s/40/45/ \"$2\"\n").unwrap();
    let editor = format!("sh {} --option", script.display());
    let edit = [
        "-c".to_owned(),
        world.config_file(),
        "edit-config".to_owned(),
        "--force".to_owned(),
    ];
    let ran = run(&edit, "", &[("EDITOR", &editor)]);
    assert!(ran.code == 0 && ran.out.contains("+ttl: 45"), "{ran:?}");
    let ran = run(&edit, "", &[("EDITOR", "false")]);
    assert!(
        ran.code == 1 && ran.err.contains("Editor exited with return code 1"),
        "{ran:?}"
    );
    assert_eq!(config(&world)["ttl"], 45);
}

#[test]
fn a_configuration_that_is_wrong_changes_nothing() {
    let world = World::start();
    world.put_cluster([1, 2, 3]);
    let before = config(&world);
    for (line, input, part) in [
        ("edit-config --force -s ttl", "", "Invalid parameter setting ttl"),
        ("edit-config --force --replace -", "a: [\n", "-: line"),
        ("edit-config --force --replace -", "- a\n", "a mapping"),
        ("edit-config --force --replace /nowhere", "", "/nowhere cannot be read"),
        (
            "edit-config --force nobody -s a=1",
            "",
            "does not exist in the cluster nobody",
        ),
    ] {
        let ran = world.run(line, input);
        assert!(ran.code == 1 && ran.err.contains(part), "{line}: {ran:?}");
    }
    assert_eq!(config(&world), before);
    let ran = world.run("edit-config --force -s ttl=soon", "");
    assert!(ran.code == 0 && ran.err.contains("Warning: ttl: found"), "{ran:?}");

    world.put(&[("config", "no json".to_owned())]);
    let ran = world.run("edit-config --force -s ttl=30", "");
    assert!(ran.code == 1 && ran.err.contains("--replace"), "{ran:?}");
    let ran = world.run("edit-config --force --replace -", "ttl: 30\n");
    assert_eq!((ran.code, config(&world)), (0, json!({"ttl": 30})), "{ran:?}");
}

#[test]
fn pause_asks_the_next_member_when_the_leader_is_away() {
    let world = World::start();
    let (port, asked) = play(|_| Some((200, "{}".to_owned())));
    world.put_cluster([free_port(), port, free_port()]);
    let ran = world.run("pause", "");
    assert_eq!(
        (ran.code, ran.out.as_str()),
        (0, "Success: cluster management is paused\n"),
        "{}",
        ran.err
    );
    assert_eq!(
        *asked.lock().unwrap(),
        [(r#"PATCH /config {"pause": true}"#.to_owned(), Some(BASIC.to_owned()))]
    );
    assert!(!format!("{ran:?}").contains("sesame"));

    let ran = world.run("resume", "");
    assert_eq!((ran.code, ran.err.as_str()), (1, "Error: Cluster is not paused\n"));
    world.put(&[("config", r#"{"loop_wait":1,"pause":true}"#.to_owned())]);
    let ran = world.run("pause", "");
    assert_eq!((ran.code, ran.err.as_str()), (1, "Error: Cluster is already paused\n"));
    // Nobody's member key shows a pause, so all know of its end.
    let ran = world.run("resume --wait", "");
    assert_eq!(
        ran.out,
        "'resume' request sent, waiting until it is recognized by all nodes\nSuccess: cluster management is resumed\n"
    );
    assert_eq!(lines(&asked).last().unwrap(), r#"PATCH /config {"pause": null}"#);
}

#[test]
fn a_pause_that_not_all_members_see_is_an_unknown_outcome() {
    let world = World::start();
    let (port, _) = play(|_| Some((200, "{}".to_owned())));
    world.put_cluster([port, port, port]);
    world.put(&[("members/node1", member(1, port, "primary", r#","pause":true"#))]);
    let ran = world.run("pause --wait", "");
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(
        ran.out
            .ends_with("node2, node3 members didn't recognized pause state after 2 seconds\n"),
        "{}",
        ran.out
    );
}

#[test]
fn nobody_to_ask_is_a_failure() {
    let world = World::start();
    let (refusing, _) = play(|_| Some((401, "no auth header received".to_owned())));
    world.put_cluster([free_port(), free_port(), free_port()]);
    let ran = world.run("pause", "");
    assert!(
        ran.code == 1 && ran.err.contains("Error: Can not find accessible cluster member"),
        "{ran:?}"
    );
    world.put_cluster([refusing, refusing, refusing]);
    let ran = world.run("pause", "");
    assert_eq!(
        (ran.code, ran.out.as_str()),
        (
            1,
            "Failed: pause cluster management status code=401, (no auth header received)\n"
        )
    );
}

#[test]
fn restarts_are_told_member_by_member_and_the_worst_one_is_the_exit_code() {
    let world = World::start();
    let (good, asked) = play(|_| Some((200, "restarted successfully".to_owned())));
    let (bad, _) = play(|_| Some((503, "restart failed".to_owned())));
    let (mute, _) = play(|_| None);
    world.put_cluster([good, bad, mute]);

    let ran = world.run("restart batman", "\ny\n\n");
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(
        ran.out.starts_with(TABLE)
            && ran
                .out
                .contains("  [now]: Are you sure you want to restart members node1, node2, node3? [y/N]: Restart if"),
        "{}",
        ran.out
    );
    assert!(ran.out.contains("Success: restart on member node1\nFailed: restart for member node2, status code=503, (restart failed)\nUnknown: restart for member node3"), "{}", ran.out);
    assert_eq!(lines(&asked), ["POST /restart {}"]);
    assert_eq!(world.run("restart batman node3 --force", "").code, 3);
    assert_eq!(world.run("restart batman --force -r leader", "").code, 0);

    let ran = world.run(
        "restart batman node1 --force --scheduled 2050-01-01T10:00 --pg-version 9.5.2 --timeout 5",
        "",
    );
    assert_eq!(ran.code, 0, "{ran:?}");
    let expected =
        r#"POST /restart {"postgres_version": "9.5.2", "schedule": "2050-01-01T10:00:00+00:00", "timeout": "5"}"#;
    assert_eq!(lines(&asked).last().unwrap(), expected);
}

#[test]
fn a_restart_that_makes_no_sense_reaches_nobody() {
    let world = World::start();
    let (port, asked) = play(|_| Some((200, String::new())));
    world.put_cluster([port, port, port]);
    for (line, input, part) in [
        ("restart batman", "\nn\n", "Error: Aborted restart"),
        ("restart batman", "", "Aborted!"),
        (
            "restart batman node9 --force",
            "",
            "Error: node9 is not a member of cluster batman",
        ),
        (
            "restart batman node1 -r replica --force",
            "",
            "Error: No replica among provided members",
        ),
        (
            "restart batman --force --scheduled bogus",
            "",
            "Unable to parse scheduled timestamp (bogus)",
        ),
        (
            "restart batman --force --pg-version bogus",
            "",
            "Invalid PostgreSQL version",
        ),
        (
            "restart batman --force --timeout never",
            "",
            "Timeout should be a positive number of seconds",
        ),
        (
            "restart nobody --force",
            "",
            "Error: nobody cluster doesn't have any members",
        ),
        ("reinit batman", "node1\ny\n", "Error: node1 is not a member of cluster"),
        ("reload batman", "n\n", "Error: Aborted reload"),
    ] {
        let ran = world.run(line, input);
        assert!(ran.code == 1 && ran.err.contains(part), "{line}: {ran:?}");
    }
    let ran = world.run("restart batman --pending --force", "");
    assert!(
        ran.code == 0 && ran.out.ends_with("No member has a pending restart\n"),
        "{ran:?}"
    );
    assert_eq!(world.run("reinit batman --force", "").code, 2);
    world.put(&[("config", r#"{"pause":true}"#.to_owned())]);
    let ran = world.run("restart batman --force --scheduled 2050-01-01T10:00", "");
    assert!(
        ran.code == 1 && ran.err.contains("Can't schedule restart in the paused state"),
        "{ran:?}"
    );
    assert!(lines(&asked).is_empty(), "{:?}", lines(&asked));
}

#[test]
fn reload_and_reinit_tell_what_the_members_say() {
    let world = World::start();
    let (port, asked) = play(|request| {
        Some(match request {
            "POST /reload" => (202, "reload scheduled".to_owned()),
            "GET /patroni" => (
                200,
                r#"{"state": "running", "server_version": 150004, "patroni": {"version": "4.1.5"}}"#.to_owned(),
            ),
            _ => (200, "reinitialize started".to_owned()),
        })
    });
    let (busy, busy_asked) = play(|_| Some((503, "restart already in progress".to_owned())));
    world.put_cluster([port, port, busy]);
    let ran = world.run("reload batman node2 --force", "");
    assert!(
        ran.out
            .ends_with("Reload request received for member node2 and will be processed within 1 seconds\n"),
        "{}",
        ran.out
    );
    let ran = world.run("reinit batman --wait", "node2\ny\n");
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.contains("Which member do you want to reinitialize [node2, node3]? []: Are you sure you want to reinitialize members node2? [y/N]: Success: reinitialize for member node2\nWaiting for reinitialize to complete on: node2\nReinitialize is completed on: node2\n"), "{}", ran.out);
    assert!(lines(&asked).contains(&r#"POST /reinitialize {"force": false, "from_leader": false}"#.to_owned()));
    let ran = world.run("reinit batman node3", "y\ny\n");
    assert!(
        ran.code == 1
            && ran
                .out
                .contains("Do you want to cancel it and reinitialize anyway? [y/N]: "),
        "{ran:?}"
    );
    assert_eq!(lines(&busy_asked).len(), 2);
    assert!(lines(&busy_asked)[1].contains(r#""force": true"#));

    let ran = world.run("version batman node1", "");
    assert_eq!(
        ran.out,
        format!(
            "pgha-ctl version {}\n\nnode1: Patroni 4.1.5 PostgreSQL 15.4\n",
            env!("CARGO_PKG_VERSION")
        )
    );
}

#[test]
fn an_etcd_that_is_away_is_told_with_its_address_and_soon() {
    let port = free_port();
    let args = [
        "-d".to_owned(),
        format!("etcd3://127.0.0.1:{port}"),
        "list".to_owned(),
        "batman".to_owned(),
    ];
    let started = Instant::now();
    let ran = run(&args, "", &[]);
    assert!(
        ran.code == 1 && ran.err.contains(&format!("http://127.0.0.1:{port}")),
        "{ran:?}"
    );
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
}

#[test]
fn a_configuration_file_that_cannot_be_used_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("broken.yml");
    std::fs::write(&file, "scope: batman\netcd3: {hosts: [}\n").unwrap();
    let list = |path: &str| run(&["-c".to_owned(), path.to_owned(), "list".to_owned()], "", &[]);
    let ran = list(&file.display().to_string());
    assert!(ran.code == 1 && ran.err.contains("broken.yml: line 2"), "{ran:?}");
    let ran = list("/nowhere.yml");
    assert!(
        ran.code == 1
            && ran.err.contains(
                "Provided config file /nowhere.yml not existing or no read rights. Check the -c/--config-file parameter"
            ),
        "{ran:?}"
    );
    let ran = run(&["list".to_owned()], "", &[("PATRONICTL_CONFIG_FILE", "/nowhere.yml")]);
    assert!(ran.code == 1 && ran.err.contains("/nowhere.yml"), "{ran:?}");
    let ran = run(&["list".to_owned()], "", &[]);
    assert!(ran.code == 1 && ran.err.contains("name one with -c FILE"), "{ran:?}");
    let ran = run(&["version".to_owned()], "", &[]);
    assert_eq!(
        (ran.code, ran.out),
        (0, format!("pgha-ctl version {}\n", env!("CARGO_PKG_VERSION")))
    );
}

#[test]
fn a_pause_whose_answer_is_lost_is_looked_up_in_etcd() {
    let world = World::start();
    let (mute, asked) = play(|_| None);
    world.put_cluster([mute, mute, mute]);
    let ran = world.run("pause", "");
    assert!(
        ran.code == 3 && ran.out.starts_with("Unknown: pause was requested from member node1"),
        "{ran:?}"
    );
    assert_eq!(lines(&asked).len(), 3);
}

#[test]
fn names_from_etcd_cannot_play_with_the_terminal() {
    let world = World::start();
    let (port, _) = play(|_| Some((200, String::new())));
    world.put_cluster([port, port, port]);
    world.put(&[("members/\u{1b}[2Jx", member(4, port, "replica", ""))]);
    for line in ["list", "topology", "restart batman --force", "switchover"] {
        let ran = world.run(line, "");
        assert!(
            ran.out.contains("[2Jx") && !format!("{}{}", ran.out, ran.err).contains('\u{1b}'),
            "{line}: {ran:?}"
        );
    }
}

#[test]
fn a_change_of_somebody_else_meanwhile_is_not_overwritten() {
    let world = World::start();
    world.put_cluster([1, 2, 3]);
    let script = world.folder.path().join("editor.sh");
    let put = format!(
        "ETCDCTL_API=3 etcdctl --endpoints {} put /service/batman/config '{{\"ttl\":99}}'",
        world.endpoint
    );
    std::fs::write(&script, format!("sed -i s/30/45/ \"$1\"\n{put} >/dev/null\n")).unwrap();
    let edit = [
        "-c".to_owned(),
        world.config_file(),
        "edit-config".to_owned(),
        "--force".to_owned(),
    ];
    let ran = run(&edit, "", &[("EDITOR", &format!("sh {}", script.display()))]);
    assert!(
        ran.code == 1
            && ran
                .err
                .contains("Config modification aborted due to concurrent changes"),
        "{ran:?}"
    );
    assert_eq!(config(&world), json!({"ttl": 99}));
}
