//! File + environment + flags → a validated struct.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::check::Problems;
use super::keys::{Key, Kind, PREFIX, Section};

/// A whole configuration.
pub trait Settings: Section + Serialize + DeserializeOwned {
    /// Fills in what follows from other keys, and notes every value that is not allowed.
    fn complete(&mut self, problems: &mut Problems);
}

/// Why a configuration was refused. Every message names the key and where it was set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("the configuration {path:?} cannot be read: {cause}")]
    Unreadable { path: PathBuf, cause: String },
    #[error("{from} is no TOML: {cause}")]
    Syntax { from: Origin, cause: String },
    #[error("{from}: there is no key {key}{}", hint(.nearest.as_deref()))]
    UnknownKey { from: Origin, key: String, nearest: Option<String> },
    #[error("{from}: {key} = {value}: it has to be {allowed}")]
    WrongType { from: Origin, key: String, value: String, allowed: String },
    #[error("{from}: {key} has {len} elements; {index} is not one of them, nor the next")]
    NoSuchElement { from: Origin, key: String, index: usize, len: usize },
    #[error("the configuration is not allowed:{}", bullets(.0))]
    Invalid(Problems),
}

fn hint(nearest: Option<&str>) -> String {
    nearest.map(|key| format!("; did you mean {key}?")).unwrap_or_default()
}

fn bullets(problems: &Problems) -> String {
    problems.messages().iter().map(|problem| format!("\n  {problem}")).collect()
}

/// Where a value was set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    File(PathBuf),
    Variable(String),
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Variable(name) => write!(f, "the variable {name}"),
            Self::Flag(name) => write!(f, "the flag for {name}"),
        }
    }
}

/// What a configuration is read from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file's name and text.
    pub file: Option<(PathBuf, String)>,
    /// Variables; those that do not start with `BATON_` are passed over.
    pub environment: Vec<(String, String)>,
    /// `BATON_` variables that are no keys, such as those of the command line's own flags.
    pub foreign: Vec<String>,
    /// Keys (`log.dir`, `listeners.0.bind`) with the values that flags gave.
    pub flags: Vec<(String, String)>,
}

/// Variables that every `baton` command knows and that are no keys.
pub const COMMAND_LINE_VARIABLES: &[&str] = &["BATON_BOOTSTRAP", "BATON_CONFIG", "BATON_OUTPUT"];

impl Sources {
    /// Reads `file` and the process's environment.
    ///
    /// # Errors
    /// [`ConfigError::Unreadable`]; [`ConfigError::WrongType`] for a `BATON_` variable that
    /// is not UTF-8.
    pub fn of_process(file: Option<&Path>) -> Result<Self, ConfigError> {
        let environment = utf8_variables(std::env::vars_os())?;
        let file = file.map(read_file).transpose()?;
        Ok(Self { file, environment, ..Self::default() })
    }
}

fn read_file(path: &Path) -> Result<(PathBuf, String), ConfigError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok((path.to_owned(), text)),
        Err(error) => Err(ConfigError::Unreadable { path: path.to_owned(), cause: error.to_string() }),
    }
}

fn utf8_variables(all: impl Iterator<Item = (OsString, OsString)>) -> Result<Vec<(String, String)>, ConfigError> {
    let ours = all.filter_map(|(name, value)| {
        let name = name.to_string_lossy().into_owned();
        name.starts_with(PREFIX).then_some((name, value))
    });
    ours.map(|(name, value)| match value.into_string() {
        Ok(value) => Ok((name, value)),
        Err(value) => Err(ConfigError::WrongType {
            from: Origin::Variable(name.clone()),
            key: name,
            value: format!("{value:?}"),
            allowed: "valid UTF-8".to_owned(),
        }),
    })
    .collect()
}

/// Reads, merges and validates a configuration.
///
/// # Errors
/// The first key that is unknown or of a wrong type; or else everything that the validation
/// has to say.
pub fn load<T: Settings>(sources: &Sources) -> Result<T, ConfigError> {
    let schema = Schema { keys: T::keys() };
    let mut merged = match Value::try_from(T::default()) {
        Ok(Value::Table(table)) => table,
        Ok(_) | Err(_) => Table::new(),
    };
    if let Some((path, text)) = &sources.file {
        let from = Origin::File(path.clone());
        let table = parse(&from, text)?;
        schema.check_table(&from, "", &table)?;
        overlay(&mut merged, table);
    }
    for assignment in assignments(sources) {
        schema.assign(&mut merged, &assignment)?;
    }
    let mut settings: T = Value::Table(merged).try_into().map_err(|error: toml::de::Error| {
        // The schema has checked every value; what is left is a list's element without a
        // table, or a schema that does not describe its struct.
        let mut problems = Problems::default();
        problems.add("configuration", "merged", error.message());
        ConfigError::Invalid(problems)
    })?;
    let mut problems = Problems::default();
    settings.complete(&mut problems);
    if problems.is_empty() { Ok(settings) } else { Err(ConfigError::Invalid(problems)) }
}

fn parse(from: &Origin, text: &str) -> Result<Table, ConfigError> {
    text.parse::<Table>().map_err(|error| ConfigError::Syntax { from: from.clone(), cause: error.to_string() })
}

fn overlay(below: &mut Table, above: Table) {
    for (key, value) in above {
        match (below.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => overlay(below, above),
            (_, value) => {
                below.insert(key, value);
            }
        }
    }
}

/// A part of a key as variables and flags spell it. Elements sort by number, and a list
/// before its elements, so that assigning in order never meets a gap that is filled later.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Segment {
    Index(usize),
    Name(String),
}

struct Assignment {
    from: Origin,
    path: Vec<Segment>,
    value: String,
}

fn assignments(sources: &Sources) -> Vec<Assignment> {
    let foreign = |name: &String| COMMAND_LINE_VARIABLES.contains(&name.as_str()) || sources.foreign.contains(name);
    let from_variable = |(name, value): &(String, String)| {
        let key = name.strip_prefix(PREFIX)?.to_lowercase();
        let (from, value) = (Origin::Variable(name.clone()), value.clone());
        (!foreign(name)).then(|| Assignment { from, path: segments(&key, "__"), value })
    };
    let mut variables: Vec<Assignment> = sources.environment.iter().filter_map(from_variable).collect();
    variables.sort_by(|a, b| a.path.cmp(&b.path));
    let flags = sources.flags.iter().map(|(key, value)| Assignment {
        from: Origin::Flag(key.clone()),
        path: segments(key, "."),
        value: value.clone(),
    });
    variables.extend(flags);
    variables
}

fn segments(key: &str, separator: &str) -> Vec<Segment> {
    let segment = |part: &str| match part.parse::<usize>() {
        Ok(index) => Segment::Index(index),
        Err(_) => Segment::Name(part.to_owned()),
    };
    key.split(separator).map(segment).collect()
}

/// `listeners.0.bind` → `listeners[].bind`, as the table of keys spells it.
fn canonical(path: &[Segment]) -> String {
    let mut text = String::new();
    for segment in path {
        match segment {
            Segment::Index(_) => text.push_str("[]"),
            Segment::Name(name) => text = join(&text, name),
        }
    }
    text
}

fn join(section: &str, name: &str) -> String {
    if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") }
}

struct Schema {
    keys: Vec<Key>,
}

impl Schema {
    fn key(&self, path: &str) -> Option<&Key> {
        self.keys.iter().find(|key| key.path == path)
    }

    fn is_section(&self, path: &str) -> bool {
        self.keys.iter().any(|key| key.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
    }

    fn unknown(&self, from: &Origin, path: &str) -> ConfigError {
        let nearest = self
            .keys
            .iter()
            .map(|key| (edit_distance(&key.path, path), &key.path))
            .min()
            .filter(|(distance, _)| *distance <= 3.max(path.len() / 4))
            .map(|(_, key)| key.clone());
        ConfigError::UnknownKey { from: from.clone(), key: path.to_owned(), nearest }
    }

    /// Every key of `table` is known and of the right kind.
    fn check_table(&self, from: &Origin, section: &str, table: &Table) -> Result<(), ConfigError> {
        for (name, value) in table {
            let path = join(section, name);
            match (self.key(&path), value) {
                (Some(key), value) => self.check_value(from, key, value)?,
                (None, Value::Table(inner)) if self.is_section(&path) => self.check_table(from, &path, inner)?,
                (None, _) if self.is_section(&path) => return Err(wrong(from, &path, value, "a table")),
                (None, _) => return Err(self.unknown(from, &path)),
            }
        }
        Ok(())
    }

    fn check_value(&self, from: &Origin, key: &Key, value: &Value) -> Result<(), ConfigError> {
        if !key.kind.accepts(value) {
            // What was meant as a secret must not end in a log.
            let shown = if key.secret { Value::String("***".to_owned()) } else { value.clone() };
            return Err(wrong(from, &key.path, &shown, &key.kind.describe()));
        }
        let Value::Array(elements) = value else {
            return Ok(());
        };
        let path = format!("{}[]", key.path);
        for element in elements {
            match element {
                Value::Table(inner) => self.check_table(from, &path, inner)?,
                other => return Err(wrong(from, &path, other, "a table")),
            }
        }
        Ok(())
    }

    fn assign(&self, merged: &mut Table, assignment: &Assignment) -> Result<(), ConfigError> {
        let Assignment { from, path, value } = assignment;
        let canonical = canonical(path);
        let Some(key) = self.key(&canonical) else {
            return Err(self.unknown(from, &canonical));
        };
        let value = read_value(from, key, value)?;
        self.check_value(from, key, &value)?;
        insert(merged, from, path, value)
    }
}

fn wrong(from: &Origin, key: &str, value: &Value, allowed: &str) -> ConfigError {
    ConfigError::WrongType {
        from: from.clone(),
        key: key.to_owned(),
        value: value.to_string(),
        allowed: allowed.to_owned(),
    }
}

/// Reads a variable's or flag's text as its key's kind asks: text as it stands, a list as
/// TOML on one line (`[{name = "a", bind = "0.0.0.0:7400"}]`).
fn read_value(from: &Origin, key: &Key, text: &str) -> Result<Value, ConfigError> {
    let value = match key.kind {
        Kind::Text | Kind::OneOf(_) => Some(Value::String(text.to_owned())),
        Kind::Boolean => text.parse().ok().map(Value::Boolean),
        Kind::Integer { .. } => text.parse().ok().map(Value::Integer),
        Kind::List => parse(from, &format!("list = {text}"))?.remove("list"),
    };
    value.ok_or_else(|| wrong(from, &key.path, &Value::String(text.to_owned()), &key.kind.describe()))
}

/// Puts `value` where `path` says. The schema knows the path, so that its names are there.
fn insert(merged: &mut Table, from: &Origin, path: &[Segment], value: Value) -> Result<(), ConfigError> {
    let Some((Segment::Name(name), rest)) = path.split_first() else {
        return Ok(());
    };
    let Some(slot) = descend(merged, name, rest) else {
        merged.insert(name.clone(), value);
        return Ok(());
    };
    match (slot, rest) {
        (Value::Table(inner), rest) => insert(inner, from, rest, value),
        (Value::Array(elements), [Segment::Index(index), rest @ ..]) => {
            let len = elements.len();
            if *index > len {
                let key = name.clone();
                return Err(ConfigError::NoSuchElement { from: from.clone(), key, index: *index, len });
            }
            if *index == len {
                elements.push(Value::Table(Table::new()));
            }
            match elements.get_mut(*index) {
                Some(Value::Table(inner)) => insert(inner, from, rest, value),
                _ => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

/// The table or list `name` that the rest of the path leads into; none if the path ends here.
fn descend<'a>(merged: &'a mut Table, name: &str, rest: &[Segment]) -> Option<&'a mut Value> {
    if rest.is_empty() { None } else { merged.get_mut(name) }
}

/// Levenshtein's distance, for hints only.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
