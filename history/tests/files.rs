//! Files that are cut off, damaged, or none of ours.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::fs;
use std::path::PathBuf;

use baton_history::{Options, ReadError, Report, check_files};

const HEADER: &str = "{\"baton_history\":1,\"source\":\"test\"}\n";
const SEND: &str =
    r#"{"send":{"producer":"p","partition":"t/0","sequence":0,"payload":18446744073709551615,"sent_us":1}}"#;

struct Case {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

fn case(content: &[u8]) -> Case {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("h.jsonl");
    fs::write(&path, content).unwrap();
    Case { _dir: dir, path }
}

fn report(content: &str) -> Report {
    check_files(&[case(content.as_bytes()).path], Options::default()).unwrap()
}

/// (line, column, what)
fn error(content: &[u8]) -> (u64, u64, String) {
    match check_files(&[case(content).path], Options::default()).unwrap_err() {
        ReadError::Line { line, column, what, .. } => (line, column, what),
        error @ ReadError::Io { .. } => panic!("{error}"),
    }
}

#[test]
fn half_a_line_at_the_end_is_left_out_and_said() {
    for cut in 1..SEND.len() {
        let report = report(&format!("{HEADER}{SEND}\n{}", &SEND[..cut]));
        assert_eq!((report.counts.operations, report.remarks.len()), (1, 1), "{cut}");
        assert!(report.remarks[0].ends_with("h.jsonl:3: the last line is cut off, and left out"), "{report:?}");
    }
}

#[test]
fn a_last_line_that_is_whole_needs_no_line_feed() {
    let report = report(&format!("{HEADER}{SEND}"));
    assert_eq!((report.counts.operations, report.remarks.len()), (1, 0));
}

#[test]
fn a_client_that_was_killed_at_once_leaves_an_empty_file() {
    let report = report("");
    assert_eq!((report.counts.events, report.remarks.len()), (0, 1));
}

#[test]
fn garbage_is_an_error_with_its_place() {
    let (line, column, what) = error(format!("{HEADER}{SEND}\n{{\"send\":7}}\n{SEND}\n").as_bytes());
    assert_eq!((line, column), (3, 9), "{what}");
    assert!(what.contains("expected struct Send"), "{what}");
    let (line, _, what) = error(format!("{HEADER}{{\"sent\":{{}}}}\n").as_bytes());
    assert_eq!(line, 2);
    assert!(what.contains("unknown variant `sent`, expected one of"), "{what}");
    let (line, _, what) = error(format!("{HEADER}\n{SEND}\n").as_bytes());
    assert_eq!(line, 2, "{what}");
    let (line, ..) = error(&[HEADER.as_bytes(), b"\xff\xfe\n"].concat());
    assert_eq!(line, 2);
}

#[test]
fn what_is_no_history_is_refused() {
    let (line, _, what) = error(format!("{SEND}\n").as_bytes());
    assert_eq!(line, 1);
    assert!(what.contains(r#"expected the first line of a history, {"baton_history":1}"#), "{what}");
    let (_, _, what) = error(b"{\"baton_history\":2}\n");
    assert_eq!(what, "expected a history of version 1, and this is one of version 2");
}

#[test]
fn a_contradiction_is_told_with_its_line() {
    let (line, _, what) = error(format!("{HEADER}{SEND}\n{SEND}\n").as_bytes());
    assert_eq!(line, 3);
    assert_eq!(what, "expected a sequence above the last one of p in t/0, found 0");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = check_files(&["/does/not/exist"], Options::default()).unwrap_err();
    assert!(error.to_string().starts_with("/does/not/exist: "), "{error}");
}

#[test]
fn several_files_are_one_history() {
    let ack = r#"{"ack":{"producer":"p","partition":"t/0","sequence":0,"offset":3,"received_us":2}}"#;
    let read = concat!(
        r#"{"poll":{"consumer":"c","partition":"t/0","from":3,"sent_us":5,"received_us":6,"#,
        r#""records":[[3,18446744073709551615]]}}"#
    );
    let files = [case(format!("{HEADER}{read}\n").as_bytes()), case(format!("{HEADER}{SEND}\n{ack}\n").as_bytes())];
    let paths: Vec<_> = files.iter().map(|file| &file.path).collect();
    let report = check_files(&paths, Options::default()).unwrap();
    assert!(report.clean(), "{report}");
    assert_eq!(report.counts.verified, 1);
}
