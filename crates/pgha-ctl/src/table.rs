//! The table that `patronictl` draws, byte for byte: scripts cut columns out of it.
//!
//! Job: cells in, text out. A rule of `-` stands around the header and below the last row; as soon as one cell has
//! more than one line, below every row. The title takes the place of dashes in the first rule.
//! Invariant: control characters of cells never reach the terminal; they came from a store that others write.

use dialoguer::console::measure_text_width;

/// A table before it is drawn.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Table {
    /// Text in the first rule, without its blanks.
    pub title: Option<String>,
    /// Headers and alignment, from the left.
    pub columns: Vec<Column>,
    /// Cells, as many as there are columns in each row; lines of a cell are separated by `\n`.
    pub rows: Vec<Vec<String>>,
}

/// One column.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Column {
    /// Header.
    pub header: &'static str,
    /// Numbers and positions stand at the right.
    pub right: bool,
}

/// Draws the table; every line ends with a newline.
pub fn render_table(table: &Table) -> String {
    let rows: Vec<Vec<Vec<String>>> = table
        .rows
        .iter()
        .map(|row| row.iter().map(|cell| lines(cell)).collect())
        .collect();
    let widths: Vec<usize> = table
        .columns
        .iter()
        .enumerate()
        .map(|(i, column)| {
            let cells = rows
                .iter()
                .filter_map(|row| row.get(i))
                .flatten()
                .map(|line| measure_text_width(line));
            cells.fold(measure_text_width(column.header), usize::max)
        })
        .collect();
    let rule = draw_rule(&widths);
    let tall = rows.iter().flatten().any(|cell| cell.len() > 1);

    let mut out = draw_title(&rule, table.title.as_deref());
    let headers: Vec<Vec<String>> = table.columns.iter().map(|c| vec![c.header.to_owned()]).collect();
    draw_row(&mut out, &headers, &table.columns, &widths);
    push_line(&mut out, &rule);
    for row in &rows {
        draw_row(&mut out, row, &table.columns, &widths);
        if tall {
            push_line(&mut out, &rule);
        }
    }
    if !tall || rows.is_empty() {
        push_line(&mut out, &rule);
    }
    out
}

/// The text without characters that could move the cursor or change colours.
pub fn without_controls(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{FFFD}' } else { c })
        .collect()
}

fn lines(cell: &str) -> Vec<String> {
    cell.split('\n').map(without_controls).collect()
}

fn draw_rule(widths: &[usize]) -> String {
    let mut rule = String::from("+");
    for width in widths {
        rule.push_str(&"-".repeat(width + 2));
        rule.push('+');
    }
    rule
}

/// The first rule, with the title from its second character on, cut where the table ends.
fn draw_title(rule: &str, title: Option<&str>) -> String {
    let mut out = String::new();
    let Some(title) = title else {
        push_line(&mut out, rule);
        return out;
    };
    let room = rule.len().saturating_sub(2);
    let mut line = String::from("+");
    let mut width = 0;
    for c in format!(" {} ", without_controls(title)).chars() {
        let wider = width + measure_text_width(c.encode_utf8(&mut [0; 4]));
        if wider > room {
            break;
        }
        width = wider;
        line.push(c);
    }
    // The rule is ASCII, so its bytes are its columns.
    line.push_str(rule.get(width + 1..).unwrap_or("+"));
    push_line(&mut out, &line);
    out
}

fn draw_row(out: &mut String, cells: &[Vec<String>], columns: &[Column], widths: &[usize]) {
    let height = cells.iter().map(Vec::len).max().unwrap_or(1);
    for line in 0..height {
        out.push('|');
        for (i, (column, width)) in columns.iter().zip(widths).enumerate() {
            let text = cells.get(i).and_then(|cell| cell.get(line)).map_or("", String::as_str);
            let blanks = " ".repeat(width.saturating_sub(measure_text_width(text)));
            let (left, right) = if column.right {
                (blanks.as_str(), "")
            } else {
                ("", blanks.as_str())
            };
            out.push_str(&format!(" {left}{text}{right} |"));
        }
        out.push('\n');
    }
}

fn push_line(out: &mut String, line: &str) {
    out.push_str(line);
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 2] = [
        Column {
            header: "Member",
            right: false,
        },
        Column {
            header: "TL",
            right: true,
        },
    ];

    fn table(title: Option<&str>, rows: &[[&str; 2]]) -> String {
        render_table(&Table {
            title: title.map(str::to_owned),
            columns: COLUMNS.to_vec(),
            rows: rows
                .iter()
                .map(|row| row.iter().map(|c| (*c).to_owned()).collect())
                .collect(),
        })
    }

    #[test]
    fn rules_stand_around_the_header_and_at_the_end() {
        let expected =
            "+--------+----+\n| Member | TL |\n+--------+----+\n| n1     |  1 |\n| n2     |    |\n+--------+----+\n";
        assert_eq!(table(None, &[["n1", "1"], ["n2", ""]]), expected);
    }

    #[test]
    fn a_cell_of_two_lines_puts_a_rule_below_every_row() {
        let expected = "+--------+----+\n| Member | TL |\n+--------+----+\n| n1     |  1 |\n|        |  2 |\n+--------+----+\n\
                        | n2     |    |\n+--------+----+\n";
        assert_eq!(table(None, &[["n1", "1\n2"], ["n2", ""]]), expected);
    }

    #[test]
    fn a_table_without_rows_has_two_rules_at_the_end() {
        assert_eq!(
            table(None, &[]),
            "+--------+----+\n| Member | TL |\n+--------+----+\n+--------+----+\n"
        );
    }

    #[test]
    fn the_title_replaces_dashes_and_is_cut_at_the_frame() {
        assert!(table(Some("a: b"), &[]).starts_with("+ a: b --+----+\n"));
        assert!(table(Some("0123456789abcdef"), &[]).starts_with("+ 0123456789ab+\n"));
    }

    #[test]
    fn wide_characters_keep_the_frame_straight() {
        let expected = "+--------+----+\n| Member | TL |\n+--------+----+\n| 日本   |  1 |\n+--------+----+\n";
        assert_eq!(table(None, &[["日本", "1"]]), expected);
    }

    #[test]
    fn escape_sequences_of_others_do_not_reach_the_terminal() {
        let drawn = table(Some("\u{1b}[2J"), &[["\u{1b}[31mred\r", "1"]]);
        assert!(!drawn.contains('\u{1b}') && !drawn.contains('\r'), "{drawn:?}");
    }
}
