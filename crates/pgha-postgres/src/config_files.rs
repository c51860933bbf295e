//! PostgreSQL's configuration files as the agent keeps them.
//!
//! The operator's postgresql.conf is renamed once to postgresql.base.conf and included from then on; ours is written
//! whole, from a text that arrives ready made. Copies named `*.backup` in the data directory travel with base backups,
//! for installations that keep their configuration elsewhere.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::files::{atomic_write, file_mode_of, read_optional, remove_file, sync_parent};
use crate::spec::InstanceSpec;

/// The operator's configuration, included by ours.
const BASE: &str = "postgresql.base.conf";
const MAIN: &str = "postgresql.conf";
const HBA: &str = "pg_hba.conf";
const IDENT: &str = "pg_ident.conf";
const AUTO: &str = "postgresql.auto.conf";
const STANDBY_SIGNAL: &str = "standby.signal";
const RECOVERY_SIGNAL: &str = "recovery.signal";
const DYNAMIC_JSON: &str = "patroni.dynamic.json";
/// In the data directory: what the daemon keeps of its cluster for its next life.
pub const KEPT_CLUSTER: &str = "pgha.cluster.json";
/// Files that are copied to and from `*.backup`.
const COPIED: [&str; 4] = [MAIN, BASE, HBA, IDENT];

/// Settings that belong to recovery; `ALTER SYSTEM` or `pg_basebackup -R` may have put them into postgresql.auto.conf,
/// where they would override what the agent writes.
const RECOVERY_SETTINGS: [&str; 15] = [
    "archive_cleanup_command",
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
    "primary_conninfo",
    "primary_slot_name",
];

/// Contents of the configuration files, ready to be written.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ConfigTexts {
    /// postgresql.conf.
    pub postgresql_conf: String,
    /// pg_hba.conf; `None` leaves the file alone.
    pub pg_hba: Option<String>,
    /// pg_ident.conf; `None` leaves the file alone.
    pub pg_ident: Option<String>,
}

/// Writes the configuration files that changed; returns whether any did. Renames the original postgresql.conf once.
pub(crate) fn write(spec: &InstanceSpec, texts: &ConfigTexts) -> Result<bool, Error> {
    take_over(spec)?;
    let files = [
        (MAIN, Some(&texts.postgresql_conf)),
        (HBA, texts.pg_hba.as_ref()),
        (IDENT, texts.pg_ident.as_ref()),
    ];
    let mut changed = false;
    for (name, text) in files {
        let Some(text) = text else { continue };
        let path = spec.config_dir.join(name);
        if read_optional(&path)?.as_ref() != Some(text) {
            atomic_write(&path, text.as_bytes(), file_mode_of(&spec.data_dir))?;
            changed = true;
        }
    }
    Ok(changed)
}

/// Keeps the operator's postgresql.conf as the base file, once.
fn take_over(spec: &InstanceSpec) -> Result<(), Error> {
    let (main, base) = (spec.config_dir.join(MAIN), spec.config_dir.join(BASE));
    if base.exists() || !main.exists() {
        return Ok(());
    }
    fs::rename(&main, &base).map_err(Error::io("rename", &main))?;
    sync_parent(&base)
}

/// Copies the configuration to `*.backup` in the data directory.
pub(crate) fn save_copies(spec: &InstanceSpec) -> Result<(), Error> {
    for name in COPIED {
        let (from, to) = (spec.config_dir.join(name), copy_of(&spec.data_dir, name));
        if let Some(text) = read_optional(&from)?
            && read_optional(&to)?.as_ref() != Some(&text)
        {
            atomic_write(&to, text.as_bytes(), file_mode_of(&spec.data_dir))?;
        }
    }
    Ok(())
}

/// Puts back what is missing from the `*.backup` copies, and makes an empty pg_ident.conf if there is none.
pub(crate) fn restore_copies(spec: &InstanceSpec) -> Result<(), Error> {
    let mode = file_mode_of(&spec.data_dir);
    for name in COPIED {
        let path = spec.config_dir.join(name);
        if path.exists() {
            continue;
        }
        match read_optional(&copy_of(&spec.data_dir, name))? {
            Some(text) => atomic_write(&path, text.as_bytes(), mode)?,
            None if name == IDENT => atomic_write(&path, b"", mode)?,
            None => {}
        }
    }
    Ok(())
}

fn copy_of(data_dir: &Path, name: &str) -> PathBuf {
    data_dir.join(format!("{name}.backup"))
}

/// Removes recovery settings from postgresql.auto.conf; returns whether there were any.
pub(crate) fn clean_auto_conf(data_dir: &Path) -> Result<bool, Error> {
    let path = data_dir.join(AUTO);
    let Some(text) = read_optional(&path)? else {
        return Ok(false);
    };
    let kept: String = text.split_inclusive('\n').filter(|line| !sets_recovery(line)).collect();
    if kept == text {
        return Ok(false);
    }
    atomic_write(&path, kept.as_bytes(), file_mode_of(data_dir))?;
    Ok(true)
}

fn sets_recovery(line: &str) -> bool {
    let name = line
        .trim_start()
        .split(|c: char| c == '=' || c.is_whitespace())
        .next()
        .unwrap_or("");
    RECOVERY_SETTINGS.iter().any(|s| s.eq_ignore_ascii_case(name))
}

/// Creates or removes standby.signal; recovery.signal is removed in both cases, PostgreSQL would prefer the former
/// anyway.
pub(crate) fn set_standby_signal(data_dir: &Path, wanted: bool) -> Result<(), Error> {
    let signal = data_dir.join(STANDBY_SIGNAL);
    remove_file(&data_dir.join(RECOVERY_SIGNAL))?;
    if wanted && !signal.exists() {
        return atomic_write(&signal, b"", file_mode_of(data_dir));
    }
    if !wanted && signal.exists() {
        remove_file(&signal)?;
        return sync_parent(&signal);
    }
    Ok(())
}

/// Writes the cached dynamic configuration when it changed.
pub(crate) fn write_dynamic_json(data_dir: &Path, text: &str) -> Result<(), Error> {
    write_changed(data_dir, &data_dir.join(DYNAMIC_JSON), text)
}

/// Reads the cached dynamic configuration.
pub(crate) fn read_dynamic_json(data_dir: &Path) -> Result<Option<String>, Error> {
    read_optional(&data_dir.join(DYNAMIC_JSON))
}

/// Writes what the daemon keeps of its cluster when it changed.
pub(crate) fn write_kept_cluster(data_dir: &Path, text: &str) -> Result<(), Error> {
    write_changed(data_dir, &data_dir.join(KEPT_CLUSTER), text)
}

fn write_changed(data_dir: &Path, path: &Path, text: &str) -> Result<(), Error> {
    if read_optional(path)?.as_deref() == Some(text) {
        return Ok(());
    }
    atomic_write(path, text.as_bytes(), file_mode_of(data_dir))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::spec::{Credentials, LocalAddress};

    fn spec(root: &Path) -> InstanceSpec {
        for dir in ["data", "conf"] {
            fs::create_dir(root.join(dir)).unwrap();
        }
        InstanceSpec {
            data_dir: root.join("data"),
            config_dir: root.join("conf"),
            state_dir: root.join("state"),
            bin_dir: None,
            bin_name: Default::default(),
            superuser: Credentials::new("postgres", "x"),
            replication: Credentials::new("rep", "y"),
            rewind: None,
            database: "postgres".into(),
            local: LocalAddress::Unix {
                dir: root.into(),
                port: 1,
            },
            pgpass: root.join("pgpass"),
        }
    }

    #[test]
    fn the_operators_file_is_renamed_once_and_a_second_write_changes_nothing() {
        let root = tempfile::tempdir().unwrap();
        let spec = spec(root.path());
        fs::write(spec.config_dir.join(MAIN), "theirs").unwrap();
        let texts = ConfigTexts {
            postgresql_conf: "ours".into(),
            pg_hba: Some("local all all trust\n".into()),
            pg_ident: None,
        };
        assert!(write(&spec, &texts).unwrap());
        assert!(!write(&spec, &texts).unwrap());
        let read = |name: &str| fs::read_to_string(spec.config_dir.join(name)).unwrap();
        assert_eq!((read(MAIN), read(BASE)), ("ours".to_string(), "theirs".to_string()));
        assert!(!spec.config_dir.join(IDENT).exists());
    }

    #[test]
    fn copies_bring_back_what_a_base_backup_did_not_carry() {
        let root = tempfile::tempdir().unwrap();
        let spec = spec(root.path());
        fs::write(spec.config_dir.join(MAIN), "ours").unwrap();
        fs::write(spec.config_dir.join(HBA), "hba").unwrap();
        save_copies(&spec).unwrap();
        fs::remove_file(spec.config_dir.join(MAIN)).unwrap();
        fs::write(spec.config_dir.join(HBA), "newer").unwrap();
        restore_copies(&spec).unwrap();
        let read = |name: &str| fs::read_to_string(spec.config_dir.join(name)).unwrap();
        assert_eq!(
            (read(MAIN), read(HBA), read(IDENT)),
            ("ours".into(), "newer".into(), String::new())
        );
    }

    #[test]
    fn recovery_settings_leave_the_auto_conf_and_others_stay() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join(AUTO);
        fs::write(
            &path,
            "# c\nwork_mem = '1MB'\nprimary_conninfo = 'host=x'\n Restore_Command='y'\nrecovery_targets = 1\n",
        )
        .unwrap();
        assert!(clean_auto_conf(root.path()).unwrap());
        assert!(!clean_auto_conf(root.path()).unwrap());
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            "# c\nwork_mem = '1MB'\nrecovery_targets = 1\n"
        );
    }

    #[test]
    fn the_standby_signal_comes_and_goes() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join(RECOVERY_SIGNAL), "").unwrap();
        set_standby_signal(root.path(), true).unwrap();
        assert!(root.path().join(STANDBY_SIGNAL).exists() && !root.path().join(RECOVERY_SIGNAL).exists());
        set_standby_signal(root.path(), false).unwrap();
        assert!(!root.path().join(STANDBY_SIGNAL).exists());
    }
}
