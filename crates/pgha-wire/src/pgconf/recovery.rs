//! The recovery configuration of a standby, PostgreSQL 13 to 18: parameters in postgresql.conf beside `standby.signal`.
//!
//! Absent on purpose: point-in-time recovery, which belongs to custom bootstrap methods.

use std::collections::BTreeMap;

use super::guc::is_guc_name;

/// Parameters that PostgreSQL reads for recovery only. In `parameters` they are moved to the recovery block, and in
/// `postgresql.auto.conf` they are removed.
pub const RECOVERY_PARAMETERS: [&str; 16] = [
    "archive_cleanup_command",
    "primary_conninfo",
    "primary_slot_name",
    "promote_trigger_file",
    "recovery_end_command",
    "recovery_min_apply_delay",
    "recovery_target",
    "recovery_target_action",
    "recovery_target_inclusive",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_timeline",
    "recovery_target_xid",
    "restore_command",
    "trigger_file",
];

/// Is this one of [`RECOVERY_PARAMETERS`] (any case)?
pub fn is_recovery_parameter(name: &str) -> bool {
    RECOVERY_PARAMETERS.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// What a standby's recovery block is made of.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct StandbyRecovery<'a> {
    /// Connection string of the upstream; `None` for a standby that does not stream.
    pub primary_conninfo: Option<&'a str>,
    /// Slot on the upstream.
    pub primary_slot_name: Option<&'a str>,
    /// `postgresql.recovery_conf`, with what was moved there from `parameters`.
    pub recovery_conf: Option<&'a BTreeMap<String, String>>,
    /// `standby_cluster.restore_command`, which overrides the above.
    pub restore_command: Option<&'a str>,
    /// `standby_cluster.archive_cleanup_command`, likewise.
    pub archive_cleanup_command: Option<&'a str>,
    /// `standby_cluster.recovery_min_apply_delay`, likewise; for the standby leader only.
    pub recovery_min_apply_delay: Option<&'a str>,
    /// Major version of the server.
    pub major_version: u32,
}

/// The recovery parameters of a standby. All targets are set to nothing, so that a target left in another file cannot
/// end recovery where nobody wants it.
pub fn standby_recovery(input: &StandbyRecovery<'_>) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    let mut set = |name: &str, value: &str| {
        out.insert(name.to_string(), value.to_string());
    };
    for (name, value) in input.recovery_conf.into_iter().flatten() {
        let name = name.to_ascii_lowercase();
        let is_ours =
            name.starts_with("recovery_target") || matches!(name.as_str(), "primary_conninfo" | "primary_slot_name");
        match name.as_str() {
            // recovery.conf's switch; its place has been taken by standby.signal.
            "standby_mode" => {}
            // The parameter has had two names and is gone since 16.
            "trigger_file" | "promote_trigger_file" if input.major_version >= 16 => {}
            "trigger_file" => set("promote_trigger_file", value),
            _ if !is_ours && is_guc_name(&name) => set(&name, value),
            _ => {}
        }
    }
    for target in [
        "recovery_target",
        "recovery_target_lsn",
        "recovery_target_name",
        "recovery_target_time",
        "recovery_target_xid",
    ] {
        set(target, "");
    }
    set("recovery_target_timeline", "latest");
    let optional = [
        ("primary_conninfo", input.primary_conninfo),
        ("primary_slot_name", input.primary_slot_name),
        ("restore_command", input.restore_command),
        ("archive_cleanup_command", input.archive_cleanup_command),
        ("recovery_min_apply_delay", input.recovery_min_apply_delay),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            set(name, value);
        }
    }
    out
}

/// The text of `postgresql.auto.conf` without recovery parameters; every other line stays as it is.
pub fn without_recovery_parameters(auto_conf: &str) -> String {
    let is_kept = |line: &&str| {
        let name = line
            .trim_start()
            .split(|c: char| c == '=' || c.is_whitespace())
            .next()
            .unwrap_or_default();
        !is_recovery_parameter(name)
    };
    auto_conf.split_inclusive('\n').filter(is_kept).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standby_follows_its_upstream_on_the_latest_timeline_and_to_no_target() {
        let user: BTreeMap<String, String> = [
            ("restore_command", "cp /a/%f %p"),
            ("recovery_target_time", "2024-01-01"),
            ("primary_conninfo", "host=evil"),
            ("standby_mode", "on"),
            ("trigger_file", "/t"),
            ("bad name", "x"),
        ]
        .map(|(k, v)| (k.to_string(), v.to_string()))
        .into();
        let input = StandbyRecovery {
            primary_conninfo: Some("host=a"),
            primary_slot_name: Some("node2"),
            recovery_conf: Some(&user),
            major_version: 15,
            ..StandbyRecovery::default()
        };
        let found = standby_recovery(&input);
        let expected = [
            ("primary_conninfo", "host=a"),
            ("primary_slot_name", "node2"),
            ("promote_trigger_file", "/t"),
            ("recovery_target", ""),
            ("recovery_target_lsn", ""),
            ("recovery_target_name", ""),
            ("recovery_target_time", ""),
            ("recovery_target_timeline", "latest"),
            ("recovery_target_xid", ""),
            ("restore_command", "cp /a/%f %p"),
        ];
        assert_eq!(found, expected.map(|(k, v)| (k.to_string(), v.to_string())).into());
        let newer = standby_recovery(&StandbyRecovery {
            major_version: 16,
            restore_command: Some("x"),
            ..input
        });
        assert!(!newer.contains_key("promote_trigger_file"));
        assert_eq!(newer.get("restore_command").map(String::as_str), Some("x"));
    }

    #[test]
    fn only_recovery_lines_leave_the_auto_configuration() {
        let text = "# note\nwork_mem = '4MB'\nprimary_conninfo = 'host=x'\nrestore_command='y'\nRecovery_Target = ''\nport = 1";
        assert_eq!(without_recovery_parameters(text), "# note\nwork_mem = '4MB'\nport = 1");
    }
}
