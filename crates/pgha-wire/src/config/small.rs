//! The small sections: `log`, `watchdog`, `tags` and pgha's own `pgha`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use pgha_core::tags::Tags;
use serde_json::Value as Json;

use super::finding::Severity;
use super::section::Section;
use crate::tags::parse_tags;
use crate::values::Unit;
use crate::yaml::{Kind, Scalar, Value};

/// Least severe message to write.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Level {
    /// Everything.
    Debug,
    /// Changes of state.
    #[default]
    Info,
    /// Odd things.
    Warning,
    /// A person must look.
    Error,
    /// Like `Error`: there is nothing above it here.
    Critical,
}

const LEVELS: [(&str, Level); 7] = [
    ("DEBUG", Level::Debug),
    ("INFO", Level::Info),
    ("WARN", Level::Warning),
    ("WARNING", Level::Warning),
    ("ERROR", Level::Error),
    ("FATAL", Level::Critical),
    ("CRITICAL", Level::Critical),
];

/// The section `log`.
#[derive(Clone, PartialEq, Debug)]
pub struct Log {
    /// One JSON object per line instead of text.
    pub json: bool,
    /// Least severe message to write.
    pub level: Level,
    /// Tracebacks from this level on; kept, though there are no tracebacks here.
    pub traceback_level: Level,
    /// Python's format string, or for JSON the fields. Kept as written.
    pub format: Option<Json>,
    /// Format of times.
    pub dateformat: Option<String>,
    /// Fields to add to each JSON line.
    pub static_fields: BTreeMap<String, String>,
    /// Records that may wait to be written.
    pub max_queue_size: u32,
    /// Directory for `patroni.log`; standard error when absent.
    pub dir: Option<PathBuf>,
    /// Rotated files to keep.
    pub file_num: u32,
    /// Bytes after which a file is rotated.
    pub file_size: u64,
    /// Mode of the file.
    pub mode: Option<u32>,
    /// Levels of single modules.
    pub loggers: BTreeMap<String, String>,
    /// Do not repeat the message of a cycle that did nothing.
    pub deduplicate_heartbeat_logs: bool,
}

/// Reads `log`.
pub(super) fn read_log(mut section: Section<'_>) -> Log {
    let positive = 1..=i64::from(i32::MAX);
    let log = Log {
        json: section
            .word("type", &[("plain", false), ("json", true)])
            .unwrap_or(false),
        level: section.word("level", &LEVELS).unwrap_or_default(),
        traceback_level: section.word("traceback_level", &LEVELS).unwrap_or(Level::Error),
        format: read_format(&mut section),
        dateformat: section.text("dateformat"),
        static_fields: section.text_map("static_fields").unwrap_or_default(),
        max_queue_size: small(section.int("max_queue_size", positive.clone(), None), 1000),
        dir: section.file("dir"),
        file_num: small(section.int("file_num", 0..=i64::from(i32::MAX), None), 4),
        file_size: section
            .int("file_size", 1..=i64::MAX, None)
            .map_or(25_000_000, i64::unsigned_abs),
        mode: section.int("mode", 0..=0o777, None).map(|mode| small(Some(mode), 0)),
        loggers: section.text_map("loggers").unwrap_or_default(),
        deduplicate_heartbeat_logs: section.flag("deduplicate_heartbeat_logs").unwrap_or(false),
    };
    section.finish();
    log
}

fn read_format(section: &mut Section<'_>) -> Option<Json> {
    let node = section.node("format")?;
    match &node.value {
        Value::Scalar(Scalar { kind: Kind::Str, .. }) | Value::List(_) => section.json("format"),
        Value::Scalar(_) | Value::Map(_) => {
            section.wrong("format", node, "a format string, or a list of fields");
            None
        }
    }
}

/// The reader has checked the range already, so the conversion cannot fail.
fn small(value: Option<i64>, default: u32) -> u32 {
    value.and_then(|value| u32::try_from(value).ok()).unwrap_or(default)
}

/// Whether a watchdog is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum WatchdogMode {
    /// No.
    Off,
    /// If it works.
    #[default]
    Automatic,
    /// A node without a working one never leads.
    Required,
}

/// The section `watchdog`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Watchdog {
    /// Whether it is used.
    pub mode: WatchdogMode,
    /// The device.
    pub device: PathBuf,
    /// Seconds between the watchdog's end and that of the lease; -1 = half of the ttl.
    pub safety_margin: i64,
    /// The driver is a pipe of a test and no device.
    pub testing: bool,
}

/// Reads `watchdog`.
pub(super) fn read_watchdog(mut section: Section<'_>) -> Watchdog {
    const ALLOWED: &str = "off, automatic or required";
    let mode = section.node("mode").and_then(|node| {
        let mode = match &node.value {
            Value::Scalar(Scalar {
                kind: Kind::Bool(false),
                ..
            }) => Some(WatchdogMode::Off),
            Value::Scalar(scalar) => match scalar.text.to_ascii_lowercase().as_str() {
                "off" | "disable" | "disabled" => Some(WatchdogMode::Off),
                "auto" | "automatic" => Some(WatchdogMode::Automatic),
                "require" | "required" => Some(WatchdogMode::Required),
                _ => None,
            },
            Value::List(_) | Value::Map(_) => None,
        };
        if mode.is_none() {
            section.wrong("mode", node, ALLOWED);
        }
        mode
    });
    let watchdog = Watchdog {
        mode: mode.unwrap_or_default(),
        device: section.file("device").unwrap_or_else(|| PathBuf::from("/dev/watchdog")),
        safety_margin: section
            .int("safety_margin", -1..=i64::from(i32::MAX), None)
            .unwrap_or(5),
        testing: section
            .word("driver", &[("default", false), ("testing", true)])
            .unwrap_or(false),
    };
    section.finish();
    watchdog
}

/// Reads `tags`. Every key is allowed: unknown ones are the user's own and are published.
pub(super) fn read_tags(root: &mut Section<'_>) -> Tags {
    let mut section = root.section("tags");
    for key in ["nofailover", "clonefrom", "noloadbalance", "nosync", "nostream"] {
        if let Some(Value::Scalar(Scalar { kind: Kind::Str, text })) = section.node(key).map(|node| &node.value) {
            let means = if key == "nostream" {
                "by its word"
            } else {
                "as true, like every text"
            };
            section.note(
                Severity::Warning,
                key,
                format!(
                    "the text \"{}\" counts {means}; write true or false",
                    crate::limits::quoted(text)
                ),
            );
        } else {
            section.flag(key);
        }
    }
    for (flag, priority) in [("nofailover", "failover_priority"), ("nosync", "sync_priority")] {
        section.int(priority, i64::from(i32::MIN)..=i64::from(i32::MAX), None);
        if section.node(flag).is_some() && section.node(priority).is_some() {
            section.note(
                Severity::Warning,
                flag,
                format!("conflicts with `{priority}`; `{flag}` counts when it is true"),
            );
        }
    }
    section.text("replicatefrom");
    match root.json("tags") {
        Some(Json::Object(tags)) => parse_tags(&tags),
        Some(_) | None => Tags::default(),
    }
}

/// The section `pgha`: what Patroni has no key for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Own {
    /// Where the agent keeps its own state; the daemon's default when absent.
    pub state_dir: Option<PathBuf>,
    /// Run PostgreSQL below the fence.
    pub fence: bool,
    /// Size of the flight recorder's file in bytes; 0 = none.
    pub flight_recorder_bytes: u64,
}

/// Size of the flight recorder when none is written.
pub const DEFAULT_FLIGHT_RECORDER_BYTES: u64 = 4 << 20;
/// Largest size of the flight recorder.
const MAX_FLIGHT_RECORDER_BYTES: i64 = 1 << 30;

/// Reads `pgha`.
pub(super) fn read_own(mut section: Section<'_>) -> Own {
    let own = Own {
        state_dir: section.file("state_dir"),
        fence: section.flag("fence").unwrap_or(true),
        flight_recorder_bytes: section
            .int("flight_recorder", 0..=MAX_FLIGHT_RECORDER_BYTES, Some(Unit::B))
            .map_or(DEFAULT_FLIGHT_RECORDER_BYTES, i64::unsigned_abs),
    };
    section.finish();
    own
}
