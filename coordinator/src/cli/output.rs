//! Printing data: tables for people, objects for programs.

use std::io::{self, Write};

use comfy_table::{ContentArrangement, Table, presets::NOTHING};
use serde::Serialize;

use super::failure::Outcome;

/// Prints one object on one line.
pub fn json(value: &impl Serialize) -> Outcome {
    let mut line = serde_json::to_vec(value).map_err(io::Error::from)?;
    line.push(b'\n');
    print(&line)
}

/// Prints a table without lines, which `cut` and `awk` can read as well.
pub fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> Outcome {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(header.to_vec());
    for row in rows {
        table.add_row(row);
    }
    let text: Vec<String> = table.lines().map(|line| line.trim_end().trim_start_matches(' ').to_owned()).collect();
    print((text.join("\n") + "\n").as_bytes())
}

/// Prints lines as they are.
pub fn text(text: &str) -> Outcome {
    print(format!("{text}\n").as_bytes())
}

/// `print!` would panic when the reader has gone; here that is an outcome.
pub fn print(bytes: &[u8]) -> Outcome {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()?;
    Ok(())
}

/// Numbers separated by commas, or a dash.
pub fn list<T: ToString>(items: &[T]) -> String {
    if items.is_empty() {
        return "-".to_owned();
    }
    items.iter().map(T::to_string).collect::<Vec<_>>().join(",")
}

/// What there is, or a dash.
pub fn optional<T: ToString>(item: Option<T>) -> String {
    item.map_or_else(|| "-".to_owned(), |item| item.to_string())
}
