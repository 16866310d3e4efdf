//! The binary that is tested.

use std::path::Path;
use std::process::Command;

use baton_faults::series::default_program;

/// The binary of the same profile, built if it is not there.
pub fn program() -> std::path::PathBuf {
    let program = default_program();
    if !program.exists() {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "-p", "baton-coordinator", "--bin", "baton"]).current_dir(env!("CARGO_MANIFEST_DIR"));
        if let Some(target) = program.ancestors().nth(2).filter(|dir| *dir != Path::new("")) {
            build.env("CARGO_TARGET_DIR", target);
        }
        if program.parent().is_some_and(|dir| dir.ends_with("release")) {
            build.arg("--release");
        }
        assert!(build.status().unwrap().success(), "the binary baton cannot be built");
    }
    program
}
