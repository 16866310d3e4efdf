//! Wall clocks that can be moved, one per process.
//!
//! The kernel's time namespaces shift only the monotonic clock, so a small library
//! (`clock.c`, compiled here) stands before `clock_gettime` and adds what a file says.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::network::run;

const SOURCE: &str = include_str!("clock.c");

/// The library, and the directory of the files.
#[derive(Clone, Debug)]
pub struct Clocks {
    dir: PathBuf,
    library: PathBuf,
}

impl Clocks {
    /// Compiles the library.
    ///
    /// # Errors
    /// There is no C compiler.
    pub fn build(dir: &Path) -> anyhow::Result<Self> {
        let (source, library) = (dir.join("clock.c"), dir.join("clock.so"));
        std::fs::write(&source, SOURCE)?;
        let mut cc = Command::new("cc");
        run(cc.args(["-shared", "-fPIC", "-O2", "-o"]).arg(&library).arg(&source).arg("-ldl"))
            .context("the library that moves clocks")?;
        Ok(Self { dir: dir.to_owned(), library })
    }

    /// What a process's environment has to have; its clock is right at first.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn environment(&self, name: &str) -> anyhow::Result<Vec<(String, String)>> {
        self.set(name, 0)?;
        let text = |path: &Path| path.display().to_string();
        Ok(vec![("LD_PRELOAD".to_owned(), text(&self.library)), ("CLOCK_SHIFT".to_owned(), text(&self.file(name)))])
    }

    /// Moves a process's clock to so many seconds from the right time, at once.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn set(&self, name: &str, seconds: i64) -> anyhow::Result<()> {
        use std::io::Write;
        // Not truncated: a process has it mapped.
        let mut file = std::fs::File::options().create(true).write(true).truncate(false).open(self.file(name))?;
        file.write_all(&seconds.to_ne_bytes()).context("the clock's file")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.clock"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_of_one_process_moves() {
        let dir = tempfile::tempdir().unwrap();
        let clocks = Clocks::build(dir.path()).unwrap();
        let date = || {
            let mut command = Command::new("date");
            command.arg("+%s").envs(clocks.environment("date").unwrap());
            clocks.set("date", 86_400 * 365).unwrap();
            let out = command.output().unwrap();
            String::from_utf8_lossy(&out.stdout).trim().parse::<u64>().unwrap()
        };
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        assert!((86_400 * 364..86_400 * 366).contains(&(date() - now)));
    }
}
