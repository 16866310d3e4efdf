//! Reading history files.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::check::{Checker, Options};
use crate::event::{Event, Header, VERSION};
use crate::report::Report;

/// A longer line is refused, so that a file that is none of ours does not fill the memory.
pub const LINE_BYTES_MAX: u64 = 64 << 20;

/// A history that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("{}: {error}", file.display())]
    Io { file: PathBuf, error: io::Error },
    /// Line and column count from 1.
    #[error("{}:{line}:{column}: {what}", file.display())]
    Line { file: PathBuf, line: u64, column: u64, what: String },
}

/// What is wrong with one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: {what}")]
pub struct BadLine {
    /// Counts bytes from 1.
    pub column: u64,
    pub what: String,
}

/// Reads and checks one history of several files, in their order.
///
/// # Errors
/// A file cannot be read, or is no history. Half a line at the end of a file is none: its writer
/// was killed, and the report says so.
pub fn check_files(paths: &[impl AsRef<Path>], options: Options) -> Result<Report, ReadError> {
    let mut checker = Checker::new(options);
    for path in paths.iter().map(AsRef::as_ref) {
        let io = |error| ReadError::Io { file: path.to_owned(), error };
        let file = File::open(path).map_err(io)?;
        add_file(&mut checker, path, BufReader::with_capacity(1 << 20, file))?;
    }
    Ok(checker.finish())
}

/// Adds what one file holds.
///
/// # Errors
/// As for [`check_files`].
pub fn add_file(checker: &mut Checker, path: &Path, mut input: impl BufRead) -> Result<(), ReadError> {
    checker.begin_file(&path.display().to_string());
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let taken = input.by_ref().take(LINE_BYTES_MAX + 1).read_until(b'\n', &mut line);
        let read = taken.map_err(|error| ReadError::Io { file: path.to_owned(), error })?;
        let whole = line.pop_if(|byte| *byte == b'\n').is_some();
        if read == 0 && number > 1 {
            break;
        }
        match add_line(checker, number, &line) {
            Ok(()) => {}
            // Nothing can follow: the file ends here.
            Err(_) if !whole && (read as u64) <= LINE_BYTES_MAX => {
                checker.remark(format!("{}:{number}: the last line is cut off, and left out", path.display()));
                break;
            }
            Err(BadLine { column, what }) => {
                return Err(ReadError::Line { file: path.to_owned(), line: number, column, what });
            }
        }
    }
    Ok(())
}

fn add_line(checker: &mut Checker, number: u64, line: &[u8]) -> Result<(), BadLine> {
    if line.len() as u64 >= LINE_BYTES_MAX {
        return Err(BadLine { column: 1, what: format!("expected a line below {LINE_BYTES_MAX} bytes") });
    }
    if number == 1 {
        return parse_header(line);
    }
    let event = parse(line)?;
    checker.add(&event).map_err(|invalid| BadLine { column: 1, what: invalid.what })
}

/// Parses the first line.
///
/// # Errors
/// It is none, or of another version.
pub fn parse_header(line: &[u8]) -> Result<(), BadLine> {
    let header: Header<'_> = json(line).map_err(|BadLine { column, what }| {
        let expected = format!(r#"expected the first line of a history, {{"baton_history":{VERSION}}}"#);
        BadLine { column, what: format!("{expected}: {what}") }
    })?;
    match header.baton_history {
        VERSION => Ok(()),
        other => {
            let what = format!("expected a history of version {VERSION}, and this is one of version {other}");
            Err(BadLine { column: 1, what })
        }
    }
}

/// Parses any other line, without the line feed.
///
/// # Errors
/// It is no event.
pub fn parse(line: &[u8]) -> Result<Event<'_>, BadLine> {
    json(line)
}

fn json<'a, T: Deserialize<'a>>(line: &'a [u8]) -> Result<T, BadLine> {
    serde_json::from_slice(line).map_err(|error| {
        let said = error.to_string();
        // The line number would be that in the line.
        let what = said.rsplit_once(" at line ").map_or(said.as_str(), |(what, _)| what).to_owned();
        BadLine { column: error.column().max(1) as u64, what }
    })
}
