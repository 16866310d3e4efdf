//! The references in README.md are generated from the code's own tables.
//!
//! `BATON_WRITE_README=1 cargo test -p baton-coordinator --test readme` writes them anew.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

use std::fmt::Write;
use std::path::PathBuf;

use baton_broker::config::{BrokerConfig, render_reference};
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
    if std::env::var_os("BATON_WRITE_README").is_some() {
        std::fs::write(&path, &expected).unwrap();
        return;
    }
    assert!(readme == expected, "README.md is behind the code: run it again with BATON_WRITE_README=1");
}
