//! The table of keys as Markdown, and a configuration as TOML.

use std::fmt::Write as _;

use toml::{Table, Value};

use super::keys::{Key, Kind, Section};
use super::load::Settings;

/// What is printed in the place of a secret.
const MASK: &str = "***";

/// Every key with its variable, kind, default and documentation, as a Markdown table. The
/// README's reference is tested against it.
#[must_use]
pub fn render_reference<T: Section>() -> String {
    let mut text = String::from("| key | variable | value | default | meaning |\n|---|---|---|---|---|\n");
    for key in T::keys() {
        let (path, variable) = (&key.path, key.variable());
        let (kind, default, doc) = (key.kind.describe(), default_text(&key), key.doc.replace('|', "\\|"));
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| `{path}` | `{variable}` | {kind} | {default} | {doc} |");
    }
    text
}

fn default_text(key: &Key) -> String {
    match &key.default {
        _ if key.required => "required".to_owned(),
        Value::String(text) if text.is_empty() => "empty".to_owned(),
        Value::Array(elements) if key.kind == Kind::List => match elements.len() {
            1 => "one element".to_owned(),
            len => format!("{len} elements"),
        },
        Value::String(text) => format!("`{text}`"),
        other => format!("`{other}`"),
    }
}

/// The configuration as a TOML file, secrets masked.
#[must_use]
pub fn to_toml<T: Settings>(settings: &T) -> String {
    let mut table = match Value::try_from(settings) {
        Ok(Value::Table(table)) => table,
        Ok(_) | Err(_) => return String::new(),
    };
    for key in T::keys().iter().filter(|key| key.secret) {
        let names: Vec<&str> = key.path.split('.').collect();
        mask(&mut table, &names);
    }
    toml::to_string_pretty(&table).unwrap_or_default()
}

fn mask(table: &mut Table, names: &[&str]) {
    let Some((name, rest)) = names.split_first() else {
        return;
    };
    let slot = table.get_mut(name.trim_end_matches("[]"));
    match (slot, rest) {
        (Some(Value::String(secret)), []) if !secret.is_empty() => MASK.clone_into(secret),
        (Some(Value::Table(inner)), rest) => mask(inner, rest),
        (Some(Value::Array(elements)), rest) => {
            for inner in elements.iter_mut().filter_map(Value::as_table_mut) {
                mask(inner, rest);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::{BrokerConfig, ConfigError, Sources, load};
    use super::*;
    use std::path::PathBuf;

    fn config() -> BrokerConfig {
        let flag = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let flags = vec![
            flag("broker_id", "1"),
            flag("registry.connect", "zk:2181/baton"),
            flag("registry.auth", "digest:baton:hunter2"),
        ];
        load(&Sources { flags, ..Sources::default() }).unwrap()
    }

    fn read(text: String) -> Result<BrokerConfig, ConfigError> {
        let file = Some((PathBuf::from("printed.toml"), text));
        load(&Sources { file, ..Sources::default() })
    }

    #[test]
    fn what_is_printed_can_be_read_again_but_for_secrets() {
        let config = config();
        let printed = to_toml(&config);
        assert!(!printed.contains("hunter2"), "{printed}");
        // A masked secret is no secret: it is refused until the real one is put back.
        assert!(read(printed.clone()).is_err());
        assert_eq!(read(printed.replace(MASK, "digest:baton:hunter2")).as_ref(), Ok(&config));
    }

    #[test]
    fn the_reference_has_every_key_once_with_a_sentence() {
        let reference = render_reference::<BrokerConfig>();
        for key in BrokerConfig::keys() {
            assert_eq!(reference.matches(&format!("| `{}` |", key.path)).count(), 1, "{}", key.path);
            assert!(key.doc.ends_with('.') && key.doc.len() > 15, "{}: {}", key.path, key.doc);
        }
        assert!(reference.contains("| `listeners[].bind` | `BATON_LISTENERS__N__BIND` |"), "{reference}");
        assert!(reference.contains("| `broker_id` | `BATON_BROKER_ID` |"), "{reference}");
    }

    #[test]
    fn the_table_is_the_struct() {
        fn leaves(prefix: &str, table: &Table, out: &mut Vec<String>) {
            for (name, value) in table {
                let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                match value {
                    Value::Table(inner) => leaves(&path, inner, out),
                    Value::Array(elements) => {
                        out.push(path.clone());
                        if let Some(Value::Table(inner)) = elements.first() {
                            leaves(&format!("{path}[]"), inner, out);
                        }
                    }
                    _ => out.push(path),
                }
            }
        }
        let Ok(Value::Table(table)) = Value::try_from(BrokerConfig::default()) else { unreachable!() };
        let mut of_struct = Vec::new();
        leaves("", &table, &mut of_struct);
        let mut of_table: Vec<String> = BrokerConfig::keys().into_iter().map(|key| key.path).collect();
        of_struct.sort();
        of_table.sort();
        assert_eq!(of_struct, of_table);
    }
}
