//! Options of initdb, pg_basebackup and pg_rewind as users configure them, turned into arguments.
//!
//! Invariant: an option that the agent sets itself, or that would make the program do something else, never gets
//! through, abbreviated or not; what is left out is named.

/// A program whose options a user may configure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tool {
    /// `bootstrap.initdb`.
    Initdb,
    /// `postgresql.basebackup`.
    Basebackup,
    /// `postgresql.rewind`.
    Rewind,
}

impl Tool {
    /// The program's name.
    pub fn name(self) -> &'static str {
        match self {
            Tool::Initdb => "initdb",
            Tool::Basebackup => "pg_basebackup",
            Tool::Rewind => "pg_rewind",
        }
    }

    fn forbidden(self) -> &'static [&'static str] {
        match self {
            Tool::Initdb => &["pgdata", "nosync", "pwfile", "sync-only", "version"],
            Tool::Basebackup => &[
                "pgdata",
                "format",
                "wal-method",
                "xlog-method",
                "gzip",
                "version",
                "dbname",
                "host",
                "port",
                "username",
                "password",
            ],
            Tool::Rewind => &[
                "target-pgdata",
                "source-pgdata",
                "source-server",
                "write-recovery-conf",
                "dry-run",
                "restore-target-wal",
                "config-file",
                "no-ensure-shutdown",
                "version",
                "help",
            ],
        }
    }
}

/// One configured option.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ToolOption {
    /// Long name without dashes.
    pub name: String,
    /// Its value, if it takes one.
    pub value: Option<String>,
}

impl ToolOption {
    /// Reads a list item: `data-checksums` or `encoding=UTF8`.
    pub fn from_item(item: &str) -> ToolOption {
        let item = item.trim().trim_start_matches("--");
        match item.split_once('=') {
            None => ToolOption {
                name: item.to_string(),
                value: None,
            },
            Some((name, value)) => ToolOption::with_value(name, value),
        }
    }

    /// An option with a value; one pair of quotes around it is removed.
    pub fn with_value(name: &str, value: &str) -> ToolOption {
        let name = name.trim().trim_start_matches("--").to_string();
        ToolOption {
            name,
            value: Some(unquoted(value).to_string()),
        }
    }
}

fn unquoted(text: &str) -> &str {
    ['\'', '"']
        .into_iter()
        .find_map(|quote| text.strip_prefix(quote)?.strip_suffix(quote))
        .unwrap_or(text)
}

/// Why this option is not passed on; `None` if it is. `major_version` is that of the server, if it is known yet.
pub fn rejection(tool: Tool, option: &ToolOption, major_version: Option<u32>) -> Option<String> {
    let name = option.name.as_str();
    let well_formed = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        && !option.value.as_deref().unwrap_or_default().contains('\0');
    if !well_formed {
        return Some(format!("is not the long name of an option of {}", tool.name()));
    }
    let lower = name.to_ascii_lowercase();
    if tool.forbidden().contains(&lower.as_str()) {
        return Some(format!(
            "is not allowed for {}, the agent takes care of it",
            tool.name()
        ));
    }
    if let Some(full) = tool.forbidden().iter().find(|full| full.starts_with(&lower)) {
        return Some(format!(
            "is not allowed for {}, it may be read as `{full}`",
            tool.name()
        ));
    }
    if tool == Tool::Basebackup && "compress".starts_with(&lower) {
        // Compression by the client only works for tar files, which the agent does not ask for.
        let on_server = option.value.as_deref().is_some_and(|value| value.starts_with("server"));
        if !on_server || major_version.is_some_and(|major| major < 15) {
            return Some(
                "is allowed from PostgreSQL 15 on, and only with a value that begins with `server`".to_string(),
            );
        }
    }
    None
}

/// The arguments for the allowed options, and the others with the reason.
pub fn arguments(
    tool: Tool,
    options: &[ToolOption],
    major_version: Option<u32>,
) -> (Vec<String>, Vec<(String, String)>) {
    let mut arguments = Vec::new();
    let mut rejected = Vec::new();
    for option in options {
        match (rejection(tool, option, major_version), &option.value) {
            (Some(reason), _) => rejected.push((option.name.clone(), reason)),
            (None, Some(value)) => arguments.push(format!("--{}={value}", option.name)),
            (None, None) => arguments.push(format!("--{}", option.name)),
        }
    }
    (arguments, rejected)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(tool: Tool, items: &[&str], major: u32) -> (String, Vec<String>) {
        let options: Vec<ToolOption> = items.iter().map(|item| ToolOption::from_item(item)).collect();
        let (arguments, rejected) = arguments(tool, &options, Some(major));
        (
            arguments.join(" "),
            rejected.into_iter().map(|(name, _)| name).collect(),
        )
    }

    #[test]
    fn options_become_long_arguments_without_their_quotes() {
        let (arguments, rejected) = run(
            Tool::Initdb,
            &["data-checksums", "encoding='UTF8'", "--locale=C.UTF-8"],
            15,
        );
        assert_eq!(arguments, "--data-checksums --encoding=UTF8 --locale=C.UTF-8");
        assert_eq!(rejected, Vec::<String>::new());
    }

    #[test]
    fn options_that_the_agent_owns_are_left_out_in_every_spelling() {
        for (tool, item) in [
            (Tool::Initdb, "pgdata=/x"),
            (Tool::Initdb, "PGDATA=/x"),
            (Tool::Initdb, "pgd=/x"),
            (Tool::Initdb, "sync-only"),
            (Tool::Initdb, "D /x"),
            (Tool::Initdb, ""),
            (Tool::Initdb, "-"),
            (Tool::Basebackup, "host=evil"),
            (Tool::Basebackup, "format=t"),
            (Tool::Basebackup, "compress=9"),
            (Tool::Rewind, "dry-run"),
            (Tool::Rewind, "source-server=x"),
        ] {
            let (arguments, rejected) = run(tool, &[item, "progress"], 15);
            assert_eq!(arguments, "--progress", "{tool:?} {item:?}");
            assert_eq!(rejected.len(), 1, "{tool:?} {item:?}");
        }
    }

    #[test]
    fn compression_is_left_to_servers_that_can_do_it() {
        assert_eq!(
            run(Tool::Basebackup, &["compress=server-zstd"], 15).0,
            "--compress=server-zstd"
        );
        assert_eq!(run(Tool::Basebackup, &["compress=server-zstd"], 14).0, "");
        assert_eq!(
            run(Tool::Basebackup, &["checkpoint=fast", "max-rate=10M"], 13).0,
            "--checkpoint=fast --max-rate=10M"
        );
    }
}
