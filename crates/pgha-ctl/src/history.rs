//! `history`: the timelines of a cluster and who was promoted at the end of each.

use pgha_core::cluster::HistoryLine;
use serde_json::{Map, Value};

use crate::output::{self, Format, flow_text};
use crate::table::{Column, Table, render_table};

const COLUMNS: [Column; 5] = [
    Column {
        header: "TL",
        right: true,
    },
    Column {
        header: "LSN",
        right: true,
    },
    Column {
        header: "Reason",
        right: false,
    },
    Column {
        header: "Timestamp",
        right: false,
    },
    Column {
        header: "New Leader",
        right: false,
    },
];

/// The lines of `/history`, oldest first, as text.
pub fn render_history(lines: &[HistoryLine], format: Format) -> String {
    let rows: Vec<Vec<Value>> = lines.iter().map(cells).collect();
    let headers: Vec<&str> = COLUMNS.iter().map(|c| c.header).collect();
    let objects = |rows: Vec<Vec<Value>>| -> Vec<Map<String, Value>> {
        rows.into_iter()
            .map(|row| headers.iter().map(|h| (*h).to_owned()).zip(row).collect())
            .collect()
    };
    match format {
        Format::Pretty => render_table(&Table {
            title: None,
            columns: COLUMNS.to_vec(),
            rows: rows.iter().map(|row| row.iter().map(flow_text).collect()).collect(),
        }),
        Format::Tsv => output::render_tsv(&headers, &rows),
        Format::Json => output::render_json(objects(rows)),
        Format::Yaml => output::render_yaml(objects(rows)),
    }
}

fn cells(line: &HistoryLine) -> Vec<Value> {
    vec![
        Value::from(line.timeline.0),
        Value::from(line.switchpoint.0),
        Value::from(line.reason.as_str()),
        Value::from(line.timestamp.as_str()),
        Value::from(line.new_leader.as_str()),
    ]
}
