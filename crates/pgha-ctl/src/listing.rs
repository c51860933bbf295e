//! `list` and `topology`: the cluster as a table, in the columns of `patronictl`.
//!
//! Job: a [`ClusterTable`] in, text out. Invariant: no member is left out; members that name each other in
//! `replicatefrom` stand below the leader, where `patronictl` forgets them.

use std::collections::BTreeSet;

use pgha_core::cluster::Initialize;
use pgha_wire::isotime::render_iso;
use pgha_wire::rest::cluster::{ClusterTable, MemberRow, Position, Positions, RowRole};
use pgha_wire::values::{is_truthy, python_str};
use pgha_wire::yaml::emit::{KeyOrder, to_yaml};
use serde_json::{Map, Value};

use crate::output::{self, Format, flow_text};
use crate::table::{self, Table, render_table, without_controls};

/// Port that is not worth mentioning.
const USUAL_PORT: u16 = 5432;
/// Longest reason for a pending restart that is drawn in a table, in characters.
const MAX_REASON_CHARS: usize = 50;
/// Width in which the words `from` and `to` stand at the right.
const FOOTER_WORD_WIDTH: usize = 24;
const BYTES_PER_MIB: u64 = 1024 * 1024;

/// How it is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Style {
    /// Output format.
    pub format: Format,
    /// Show the columns that nobody has a value for.
    pub extended: bool,
    /// Draw who replicates from whom; only with [`Format::Pretty`].
    pub tree: bool,
}

/// All columns, in their order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Column {
    Cluster,
    Member,
    Host,
    Role,
    State,
    Timeline,
    ReceiveLsn,
    ReceiveLag,
    ReplayLsn,
    ReplayLag,
    PendingRestart,
    PendingRestartReason,
    ScheduledRestart,
    Tags,
}

use Column::{
    Cluster, Host, Member, PendingRestart, PendingRestartReason, ReceiveLag, ReceiveLsn, ReplayLag, ReplayLsn, Role,
    ScheduledRestart, State, Tags, Timeline,
};

const COLUMNS: [Column; 14] = [
    Cluster,
    Member,
    Host,
    Role,
    State,
    Timeline,
    ReceiveLsn,
    ReceiveLag,
    ReplayLsn,
    ReplayLag,
    PendingRestart,
    PendingRestartReason,
    ScheduledRestart,
    Tags,
];

impl Column {
    fn header(self) -> &'static str {
        match self {
            Cluster => "Cluster",
            Member => "Member",
            Host => "Host",
            Role => "Role",
            State => "State",
            Timeline => "TL",
            ReceiveLsn => "Receive LSN",
            ReceiveLag => "Receive Lag",
            ReplayLsn => "Replay LSN",
            ReplayLag => "Replay Lag",
            PendingRestart => "Pending restart",
            PendingRestartReason => "Pending restart reason",
            ScheduledRestart => "Scheduled restart",
            Tags => "Tags",
        }
    }

    fn is_optional(self) -> bool {
        matches!(self, PendingRestart | PendingRestartReason | ScheduledRestart | Tags)
    }

    fn drawn(self) -> table::Column {
        let header = if matches!(self, ReceiveLag | ReplayLag) {
            "Lag"
        } else {
            self.header()
        };
        table::Column {
            header,
            right: matches!(self, Timeline | ReceiveLsn | ReceiveLag | ReplayLsn | ReplayLag),
        }
    }
}

/// A member's cells, one for each of [`COLUMNS`]; the empty text is a cell without a value.
struct Row {
    cells: Vec<Value>,
    replicate_from: Option<String>,
    is_leader: bool,
}

impl Row {
    fn cell(&self, column: Column) -> &Value {
        const NOTHING: &Value = &Value::Null;
        COLUMNS
            .iter()
            .position(|c| *c == column)
            .and_then(|i| self.cells.get(i))
            .unwrap_or(NOTHING)
    }

    fn name(&self) -> &str {
        self.cell(Member).as_str().unwrap_or_default()
    }
}

/// The cluster as text, ending with a newline. `initialize` stands in the title.
pub fn render_listing(table: &ClusterTable, initialize: Initialize, style: Style) -> String {
    let rows = read_rows(table);
    let shown: Vec<Column> = COLUMNS
        .into_iter()
        .filter(|column| !column.is_optional() || style.extended || rows.iter().any(|row| !is_blank(row.cell(*column))))
        .collect();
    match style.format {
        Format::Pretty => {
            let title = format!("Cluster: {} ({})", table.scope, initialize_text(initialize));
            draw(title, &rows, &shown, style.tree) + &render_footer(table)
        }
        Format::Tsv => {
            let headers: Vec<&str> = shown.iter().map(|c| c.header()).collect();
            let cells: Vec<Vec<Value>> = rows
                .iter()
                .map(|row| shown.iter().map(|c| row.cell(*c).clone()).collect())
                .collect();
            output::render_tsv(&headers, &cells)
        }
        Format::Json => output::render_json(objects(&rows, &shown)),
        Format::Yaml => output::render_yaml(objects(&rows, &shown)),
    }
}

fn objects(rows: &[Row], shown: &[Column]) -> Vec<Map<String, Value>> {
    let object = |row: &Row| {
        let filled = shown.iter().filter(|column| !is_blank(row.cell(**column)));
        filled
            .map(|column| (column.header().to_owned(), row.cell(*column).clone()))
            .collect()
    };
    rows.iter().map(object).collect()
}

fn is_blank(value: &Value) -> bool {
    value.is_null() || value.as_str() == Some("")
}

fn draw(title: String, rows: &[Row], shown: &[Column], tree: bool) -> String {
    let columns: Vec<Column> = shown.iter().copied().filter(|c| *c != Cluster).collect();
    let ordered: Vec<(usize, &Row)> = if tree {
        order_as_tree(rows)
    } else {
        rows.iter().map(|row| (0, row)).collect()
    };
    let cells = ordered
        .into_iter()
        .map(|(level, row)| {
            columns
                .iter()
                .map(|column| drawn_cell(row, *column, level, tree))
                .collect()
        })
        .collect();
    render_table(&Table {
        title: Some(title),
        columns: columns.iter().map(|c| c.drawn()).collect(),
        rows: cells,
    })
}

fn drawn_cell(row: &Row, column: Column, level: usize, tree: bool) -> String {
    let value = row.cell(column);
    match (column, value) {
        (Member, _) if level > 0 => format!("{}+ {}", "  ".repeat(level - 1), row.name()),
        (Tags, Value::Object(_)) if !tree => to_yaml(value, KeyOrder::Sorted).trim_end().to_owned(),
        (PendingRestartReason, Value::String(text)) => {
            let lines: Vec<String> = text.split('\n').map(short_reason).collect();
            lines.join("\n")
        }
        (_, _) => flow_text(value),
    }
}

fn short_reason(line: &str) -> String {
    match line.split_once(": ") {
        Some((name, _)) if line.chars().count() > MAX_REASON_CHARS => format!("{name}: [hidden - too long]"),
        Some(_) | None => line.to_owned(),
    }
}

fn initialize_text(initialize: Initialize) -> String {
    match initialize {
        Initialize::Absent => "uninitialized".to_owned(),
        Initialize::InProgress { .. } => "initializing".to_owned(),
        Initialize::Done(id) => id.to_string(),
        Initialize::Unreadable => "unreadable system identifier".to_owned(),
    }
}

/// What stands below the table: maintenance mode and a planned switchover.
fn render_footer(table: &ClusterTable) -> String {
    let mut out = String::new();
    if table.pause {
        out.push_str(" Maintenance mode: on\n");
    }
    if let Some(planned) = &table.scheduled_switchover {
        out.push_str(&format!(" Switchover scheduled at: {}\n", render_iso(planned.at)));
        for (word, name) in [("from", &planned.from), ("to", &planned.to)] {
            if let Some(name) = name {
                out.push_str(&format!(
                    "{word:>FOOTER_WORD_WIDTH$}: {}\n",
                    without_controls(name.as_str())
                ));
            }
        }
    }
    out
}

/// Rows with their level: the leader at 0, the others below whom they replicate from.
fn order_as_tree(rows: &[Row]) -> Vec<(usize, &Row)> {
    let standbys: BTreeSet<&str> = rows.iter().filter(|r| !r.is_leader).map(Row::name).collect();
    let parent = |row: &Row| {
        let from = row
            .replicate_from
            .as_deref()
            .filter(|from| *from != row.name() && standbys.contains(from));
        from.map(str::to_owned)
    };
    let mut ordered: Vec<(usize, &Row)> = rows.iter().filter(|r| r.is_leader).map(|r| (0, r)).collect();
    // Depth first without recursion: names come from outside and may form long chains.
    let mut open: Vec<(usize, &Row)> = rows
        .iter()
        .rev()
        .filter(|r| !r.is_leader && parent(r).is_none())
        .map(|r| (1, r))
        .collect();
    while let Some((level, row)) = open.pop() {
        ordered.push((level, row));
        let below = rows
            .iter()
            .rev()
            .filter(|r| !r.is_leader && parent(r).as_deref() == Some(row.name()));
        open.extend(below.map(|r| (level + 1, r)));
    }
    let placed: BTreeSet<&str> = ordered.iter().map(|(_, row)| row.name()).collect();
    let in_circles: Vec<(usize, &Row)> = rows
        .iter()
        .filter(|r| !placed.contains(r.name()))
        .map(|r| (1, r))
        .collect();
    ordered.extend(in_circles);
    ordered
}

fn read_rows(table: &ClusterTable) -> Vec<Row> {
    let hosts: BTreeSet<Option<&str>> = table
        .members
        .iter()
        .map(|m| m.address.as_ref().map(|(h, _)| h.as_str()))
        .collect();
    let show_port = hosts.len() != table.members.len()
        || table
            .members
            .iter()
            .any(|m| m.address.as_ref().is_some_and(|(_, port)| *port != USUAL_PORT));
    table
        .members
        .iter()
        .map(|member| read_row(&table.scope, member, show_port))
        .collect()
}

fn read_row(scope: &str, member: &MemberRow, show_port: bool) -> Row {
    let detail = |name: &str| member.details.get(name).cloned().unwrap_or(Value::Null);
    let host = match &member.address {
        Some((host, port)) if show_port => format!("{host}:{port}"),
        Some((host, _)) => host.clone(),
        None => String::new(),
    };
    let wal = member
        .positions
        .map(|positions| wal_cells(&positions, &member.state))
        .unwrap_or_default();
    let cells = vec![
        Value::from(scope),
        Value::from(member.name.as_str()),
        Value::from(host),
        Value::from(title_case(member.role.text())),
        Value::from(member.state.as_str()),
        detail("timeline"),
        wal.receive_lsn,
        wal.receive_lag,
        wal.replay_lsn,
        wal.replay_lag,
        Value::from(if is_truthy(&detail("pending_restart")) { "*" } else { "" }),
        Value::from(reason_text(&detail("pending_restart_reason"))),
        Value::from(scheduled_restart_text(&detail("scheduled_restart"))),
        detail("tags"),
    ];
    let replicate_from = member
        .details
        .get("tags")
        .and_then(|t| t.get("replicatefrom"))
        .and_then(Value::as_str);
    Row {
        cells,
        replicate_from: replicate_from.map(str::to_owned),
        is_leader: matches!(member.role, RowRole::Leader | RowRole::StandbyLeader),
    }
}

/// Blank for a leader.
#[derive(Default)]
struct WalCells {
    receive_lsn: Value,
    receive_lag: Value,
    replay_lsn: Value,
    replay_lag: Value,
}

fn wal_cells(positions: &Positions, state: &str) -> WalCells {
    let (received, replayed) = match (positions.received, positions.replayed, positions.latest) {
        // Members of old versions, and stopped ones, publish one position only.
        (None, None, latest) if state == "streaming" => (latest, None),
        (None, None, latest) => (None, latest),
        (received, replayed, _) => (received, replayed),
    };
    let lsn = |p: Option<Position>| Value::from(p.map_or_else(|| "unknown".to_owned(), |p| p.lsn.to_string()));
    let lag = |p: Option<Position>| p.map_or(Value::Null, |p| Value::from(mebibytes(p.lag)));
    WalCells {
        receive_lsn: lsn(received),
        receive_lag: lag(received),
        replay_lsn: lsn(replayed),
        replay_lag: lag(replayed),
    }
}

/// Bytes as whole MiB, halves to the even side, as Python rounds.
fn mebibytes(bytes: u64) -> u64 {
    let (whole, rest) = (bytes / BYTES_PER_MIB, bytes % BYTES_PER_MIB);
    let half = BYTES_PER_MIB / 2;
    if rest > half || (rest == half && whole % 2 == 1) {
        whole + 1
    } else {
        whole
    }
}

/// `sync_standby` becomes `Sync Standby`.
fn title_case(role: &str) -> String {
    let words = role.split('_').map(|word| {
        let mut chars = word.chars();
        let first: String = chars.next().into_iter().flat_map(char::to_uppercase).collect();
        first + &chars.as_str().to_lowercase()
    });
    words.collect::<Vec<String>>().join(" ")
}

fn reason_text(reason: &Value) -> String {
    let Some(parameters) = reason.as_object() else {
        return String::new();
    };
    let text = |change: &Value, key: &str| change.get(key).map(python_str).unwrap_or_default();
    let line = |(name, change): (&String, &Value)| {
        format!("{name}: {}->{}", text(change, "old_value"), text(change, "new_value"))
    };
    parameters.iter().map(line).collect::<Vec<String>>().join("\n")
}

fn scheduled_restart_text(planned: &Value) -> String {
    let text = |key: &str| planned.get(key).and_then(Value::as_str);
    match (text("schedule"), text("postgres_version")) {
        (Some(at), Some(version)) => format!("{at} if version < {version}"),
        (Some(at), None) => at.to_owned(),
        (None, _) => String::new(),
    }
}
