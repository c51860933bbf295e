//! The text of postgresql.conf, pg_hba.conf and pg_ident.conf.
//!
//! Invariant: the same input gives the same text, so that a file is written only when something changed.

use std::collections::BTreeMap;

use super::guc::is_guc_name;

/// First lines of every file that the agent writes.
const HEADER: &str = "# Written by pgha; changes made here by hand are lost.\n";

/// What postgresql.conf is made of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PostgresqlConf<'a> {
    /// The file to include first: the original postgresql.conf, or `custom_conf`.
    pub include: &'a str,
    /// All parameters that are not on the command line.
    pub parameters: &'a BTreeMap<String, String>,
    /// Path of pg_hba.conf.
    pub hba_file: Option<&'a str>,
    /// Path of pg_ident.conf.
    pub ident_file: Option<&'a str>,
    /// The recovery block of a standby.
    pub recovery: Option<&'a BTreeMap<String, String>>,
}

/// The text of postgresql.conf.
pub fn render_postgresql_conf(conf: &PostgresqlConf<'_>) -> String {
    let mut out = format!("{HEADER}\ninclude {}\n\n", quote(conf.include));
    let mut line = |name: &str, value: &str| {
        // Names were checked where they came in. One that is not a name would change the meaning of other lines.
        if is_guc_name(name) {
            out.push_str(&format!("{name} = {}\n", quote(value)));
        }
    };
    for (name, value) in conf.parameters {
        line(name, value);
    }
    for (name, value) in [("hba_file", conf.hba_file), ("ident_file", conf.ident_file)] {
        if let Some(value) = value {
            line(name, value);
        }
    }
    for (name, value) in conf.recovery.into_iter().flatten() {
        line(name, value);
    }
    out
}

/// The text of pg_hba.conf: the configured lines, unchanged.
pub fn render_pg_hba(lines: &[String]) -> String {
    render_lines(lines)
}

/// The text of pg_ident.conf: the configured lines, unchanged.
pub fn render_pg_ident(lines: &[String]) -> String {
    render_lines(lines)
}

fn render_lines(lines: &[String]) -> String {
    let mut out = format!("{HEADER}\n");
    for line in lines {
        out.push_str(line);
        out.push('\n');
    }
    out
}

/// A value in the quotes of postgresql.conf. A line break cannot stand there literally, so it becomes an escape.
pub fn quote(value: &str) -> String {
    let escaped = value
        .replace('\\', "\\\\")
        .replace('\'', "''")
        .replace('\n', "\\n")
        .replace('\r', "\\r");
    format!("'{escaped}'")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
    }

    #[test]
    fn parameters_are_sorted_and_quoted_and_the_recovery_block_comes_last() {
        let parameters = map(&[("work_mem", "4MB"), ("archive_command", r"cp '%p' \\srv"), ("a b", "x")]);
        let recovery = map(&[("primary_conninfo", "host=a"), ("recovery_target", "")]);
        let text = render_postgresql_conf(&PostgresqlConf {
            include: "postgresql.base.conf",
            parameters: &parameters,
            hba_file: Some("/etc/hba"),
            ident_file: None,
            recovery: Some(&recovery),
        });
        assert_eq!(
            text,
            "# Written by pgha; changes made here by hand are lost.\n\ninclude 'postgresql.base.conf'\n\n\
             archive_command = 'cp ''%p'' \\\\\\\\srv'\nwork_mem = '4MB'\nhba_file = '/etc/hba'\n\
             primary_conninfo = 'host=a'\nrecovery_target = ''\n"
        );
    }

    #[test]
    fn a_value_cannot_break_out_of_its_line() {
        assert_eq!(quote("x'\nport = 1\r"), r"'x''\nport = 1\r'");
    }

    #[test]
    fn host_rules_are_written_unchanged() {
        let text = render_pg_hba(&[
            "local all all trust".to_string(),
            "host all all 0.0.0.0/0 md5".to_string(),
        ]);
        assert!(
            text.ends_with("\n\nlocal all all trust\nhost all all 0.0.0.0/0 md5\n"),
            "{text}"
        );
        assert_eq!(render_pg_ident(&[]), format!("{HEADER}\n"));
    }
}
