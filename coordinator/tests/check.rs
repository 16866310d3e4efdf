//! `baton check` from outside: what it prints, and how it exits.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use baton_history::event::{Ack, Event};
use baton_history::record::History;
use baton_history::synthetic::{Shape, generate};
use serde_json::Value;

fn baton() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_baton"));
    std::env::vars().filter(|(name, _)| name.starts_with("BATON_")).for_each(|(name, _)| {
        command.env_remove(name);
    });
    command
}

fn check(paths: &[&Path], flags: &[&str]) -> Output {
    baton().arg("check").args(paths).args(flags).output().unwrap()
}

fn history() -> History {
    let mut events = Vec::new();
    generate(Shape::small(11), |event| events.push(event.into_owned()));
    History { events }
}

fn written(history: &History) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history.jsonl");
    history.write(&path, "test").unwrap();
    (dir, path)
}

/// The first acknowledgement names an offset where the record is not.
fn spoilt() -> History {
    let mut history = history();
    let ack = history.events.iter_mut().find_map(|event| match event {
        Event::Ack(ack) => Some(ack),
        _ => None,
    });
    let ack: &mut Ack<'_> = ack.unwrap();
    ack.offset = 3;
    history
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn a_correct_history_exits_with_0() {
    let (_dir, path) = written(&history());
    let done = check(&[&path], &[]);
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    let out = text(&done.stdout);
    assert!(out.lines().any(|line| line.split_whitespace().eq(["operations", "400"])), "{out}");
    assert!(out.ends_with("\nno anomalies\n"), "{out}");
    assert!(done.stderr.is_empty());
}

#[test]
fn anomalies_exit_with_1_and_are_told_with_their_lines() {
    let (_dir, path) = written(&spoilt());
    let done = check(&[&path], &[]);
    assert_eq!(done.status.code(), Some(1));
    let out = text(&done.stdout);
    assert!(out.contains("KIND       FOUND  PERMITTED  MEANING"), "{out}");
    let found = out.lines().find(|line| line.starts_with("displaced: orders/")).unwrap();
    assert!(found.contains(&format!("{}:", path.display())), "{found}");
    assert_eq!(text(&done.stderr), "error: 1 anomaly\n");
    let done = check(&[&path], &["--output", "json"]);
    assert_eq!(done.status.code(), Some(1));
    let json: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(json["clean"], false);
    assert_eq!(json["report"]["anomalies"]["displaced"]["count"], 1);
    assert_eq!(json["report"]["anomalies"]["displaced"]["examples"][0]["offsets"][0], 3);
}

#[test]
fn what_cannot_be_read_exits_with_2_and_its_place() {
    let (_dir, path) = written(&history());
    let whole = fs::read(&path).unwrap();
    let line_two = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let mut damaged = whole.clone();
    damaged[line_two + 2] = 0;
    fs::write(&path, &damaged).unwrap();
    let done = check(&[&path], &[]);
    assert_eq!(done.status.code(), Some(2));
    assert!(done.stdout.is_empty());
    assert!(text(&done.stderr).starts_with(&format!("error: {}:2:3: ", path.display())), "{}", text(&done.stderr));
    assert_eq!(check(&[Path::new("/nowhere")], &[]).status.code(), Some(2));
    assert_eq!(check(&[], &[]).status.code(), Some(2));
}

#[test]
fn a_client_that_was_killed_is_told_of() {
    let (_dir, path) = written(&history());
    let other = path.with_file_name("killed.jsonl");
    fs::write(&other, "{\"baton_history\":1}\n{\"send\":{\"prod").unwrap();
    let done = check(&[&path, &other], &[]);
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    assert!(text(&done.stderr).contains("killed.jsonl:2: the last line is cut off, and left out"));
}
