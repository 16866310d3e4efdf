//! Everything that fuzzing found so far, and what it began with, as ordinary tests.
//!
//! `BATON_WRITE_CORPUS=1 cargo test -p baton-fuzz` writes the seeds anew.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::path::{Path, PathBuf};

use baton_fuzz::{TARGETS, seeds};

const CORPUS_BYTES_MAX: u64 = 2 << 20;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

#[test]
fn every_input_of_the_corpus_is_fine() {
    let (mut inputs, mut bytes) = (0, 0);
    for target in TARGETS {
        let mut files: Vec<PathBuf> =
            fs::read_dir(corpus().join(target.name)).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert!(!files.is_empty(), "{} has no corpus", target.name);
        for file in files {
            let input = fs::read(&file).unwrap();
            println!("{}: {}", target.name, file.display());
            target.run(&input);
            inputs += 1;
            bytes += input.len() as u64;
        }
    }
    println!("{inputs} inputs, {bytes} bytes");
    assert!(bytes <= CORPUS_BYTES_MAX, "the corpus has {bytes} bytes");
}

#[test]
fn every_target_has_seeds_and_no_other_has() {
    let seeds = seeds::seeds();
    let named: Vec<_> = seeds.iter().map(|(target, _)| *target).collect();
    let targets: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(named, targets);
    for (target, inputs) in seeds {
        let directory = corpus().join(target);
        for (name, input) in inputs {
            let path = directory.join(format!("seed-{name}"));
            if std::env::var_os("BATON_WRITE_CORPUS").is_some() {
                fs::create_dir_all(&directory).unwrap();
                fs::write(path, input).unwrap();
            } else {
                assert!(path.exists(), "{} is missing", path.display());
            }
        }
    }
}
