//! Configurations and histories.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use baton_broker::config::{BrokerConfig, Sources, load, to_toml};
use baton_history::{Checker, Options, read::add_file};

/// A configuration file; behind a line of `%`, variables as `NAME=value` lines.
pub fn config(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let (file, variables) = text.split_once("\n%\n").unwrap_or((&text, ""));
    let pair = |line: &str| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    let environment = variables.lines().filter_map(pair).collect();
    let sources =
        Sources { file: Some((PathBuf::from("baton.toml"), file.to_owned())), environment, ..Sources::default() };
    match load::<BrokerConfig>(&sources) {
        Ok(config) => drop(to_toml(&config)),
        Err(error) => drop(error.to_string()),
    }
}

/// A history file, checked to the end.
pub fn history(input: &[u8]) {
    let mut checker = Checker::new(Options { skew_us: 10, examples_max: 3 });
    match add_file(&mut checker, Path::new("h.jsonl"), Cursor::new(input)) {
        Ok(()) => drop(checker.finish().to_string()),
        Err(error) => drop(error.to_string()),
    }
}
