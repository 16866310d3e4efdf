//! The references in README.md and docs/ are generated from the code's own tables.
//!
//! `BATON_WRITE_README=1 cargo test -p baton-coordinator --test readme` writes them anew.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

use std::fmt::Write;
use std::path::{Path, PathBuf};

use baton_broker::config::{BrokerConfig, render_reference};
use baton_broker::kafka::table::render_apis;
use baton_coordinator::daemon::config::CoordinatorConfig;
use baton_core::ErrorCode;
use baton_core::topic::CONFIG_KEYS;

fn topic_keys() -> String {
    let mut text = String::from("| key | values | default | meaning |\n|---|---|---|---|\n");
    for key in CONFIG_KEYS {
        writeln!(text, "| `{}` | {} | `{}` | {} |", key.name, key.values, key.default, key.doc).unwrap();
    }
    text
}

fn error_codes() -> String {
    let mut text =
        String::from("| number | name | Kafka's code | a retry helps | what to do |\n|---|---|---|---|---|\n");
    for code in ErrorCode::ALL {
        let retry = if code.retriable() { "yes" } else { "no" };
        writeln!(text, "| {} | `{}` | {} | {retry} | {} |", code.number(), code.name(), code.kafka(), code.next_step())
            .unwrap();
    }
    text
}

/// Puts `content` between the two marks of a section.
fn with_section(readme: &str, section: &str, content: &str) -> String {
    let (begin, end) = (format!("<!-- {section} -->\n"), format!("<!-- end of {section} -->"));
    let from = readme.find(&begin).expect(section) + begin.len();
    let to = readme.find(&end).expect(section);
    format!("{}{content}{}", &readme[..from], &readme[to..])
}

#[test]
fn the_references_are_those_of_the_code() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = std::fs::read_to_string(&path).unwrap();
    let mut expected = readme.clone();
    for (section, content) in [
        ("broker keys", render_reference::<BrokerConfig>()),
        ("coordinator keys", render_reference::<CoordinatorConfig>()),
        ("topic keys", topic_keys()),
        ("error codes", error_codes()),
    ] {
        expected = with_section(&expected, section, &content);
    }
    compare(&path, "README.md", &readme, &expected);
}

#[test]
fn the_table_of_kafkas_apis_is_that_of_the_code() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/kafka-apis.md");
    let text = std::fs::read_to_string(&path).unwrap();
    compare(&path, "docs/kafka-apis.md", &text, &with_section(&text, "kafka apis", &render_apis()));
}

fn compare(path: &Path, name: &str, found: &str, expected: &str) {
    if std::env::var_os("BATON_WRITE_README").is_some() {
        std::fs::write(path, expected).unwrap();
        return;
    }
    assert!(found == expected, "{name} is behind the code: run it again with BATON_WRITE_README=1");
}
