//! Columns without borders, and pairs of name and value.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use super::text::printable;

/// How a column is aligned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// Rows in aligned columns under upper-case headers.
pub(crate) fn columns(headers: &[(&str, Align)], rows: &[Vec<String>]) -> String {
    finish(&table(headers, rows))
}

fn table(headers: &[(&str, Align)], rows: &[Vec<String>]) -> Table {
    let mut table = bare();
    table.set_header(headers.iter().map(|(name, _)| name.to_uppercase()).collect::<Vec<_>>());
    for row in rows {
        table.add_row(row.iter().map(|cell| printable(cell)).collect::<Vec<_>>());
    }
    for (index, (_, align)) in headers.iter().enumerate() {
        if let Some(column) = table.column_mut(index) {
            column.set_padding((0, 2));
            if *align == Align::Right {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
    }
    table
}

/// Lines of `Name:  value`; `indent` spaces before each.
pub(crate) fn pairs(indent: usize, pairs: &[(&str, String)]) -> String {
    let longest = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, value) in pairs {
        let name = format!("{name}:");
        let line = format!("{:indent$}{name:<width$}  {}", "", printable(value), width = longest + 1);
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Every line moved to the right.
pub(crate) fn indented(text: &str) -> String {
    text.lines().fold(String::new(), |mut all, line| {
        all.push_str("  ");
        all.push_str(line);
        all.push('\n');
        all
    })
}

/// A table that grows at its end: later rows keep the widths that the first ones had.
#[derive(Debug)]
pub(crate) struct GrowingTable {
    headers: Vec<(&'static str, Align)>,
    widths: Vec<usize>,
}

impl GrowingTable {
    /// Begins with some rows; returns their text, headers included.
    pub(crate) fn begin(headers: &[(&'static str, Align)], rows: &[Vec<String>]) -> (Self, String) {
        let table = table(headers, rows);
        let widths = table.column_max_content_widths().into_iter().map(usize::from).collect();
        let growing = Self { headers: headers.to_vec(), widths };
        (growing, finish(&table))
    }

    /// One more row.
    pub(crate) fn row(&self, cells: &[String]) -> String {
        let cells = cells.iter().zip(&self.widths).zip(&self.headers);
        let line: Vec<String> = cells
            .map(|((cell, width), (_, align))| match align {
                Align::Left => format!("{:<width$}", printable(cell)),
                Align::Right => format!("{:>width$}", printable(cell)),
            })
            .collect();
        format!("{}\n", line.join("  ").trim_end())
    }
}

fn bare() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table
}

fn finish(table: &Table) -> String {
    table.lines().fold(String::new(), |mut text, line| {
        text.push_str(line.trim_end());
        text.push('\n');
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_rows_stand_below_the_first() {
        let headers = [("name", Align::Left), ("flags", Align::Right), ("state", Align::Left)];
        let row = |name: &str, flags: &str, state: &str| [name, flags, state].map(ToOwned::to_owned).to_vec();
        let (growing, mut text) =
            GrowingTable::begin(&headers, &[row("spree", "1200", "current"), row("b", "3", "stale")]);
        text.push_str(&growing.row(&row("c", "10", "unknown")));
        insta::assert_snapshot!(text, @r"
        NAME   FLAGS  STATE
        spree   1200  current
        b          3  stale
        c         10  unknown
        ");
    }
}
