//! A run in a process of its own, in which nothing is left to chance: random bytes and clocks are
//! those of a small library (`steady.c`, compiled here) that stands before the system's.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::plan::Plan;
use super::run::Outcome;

const SOURCE: &str = include_str!("steady.c");

/// Runs plans, each in a process.
#[derive(Clone, Debug)]
pub struct Runner {
    /// The program `simulate`, of which `child` is a command.
    program: PathBuf,
    library: PathBuf,
    /// What `RUST_LOG` asks for, if it is not this process's.
    log: Option<String>,
}

impl Runner {
    /// Compiles the library beside the program.
    ///
    /// # Errors
    /// There is no C compiler, or the directory cannot be written to.
    pub fn new(program: &Path) -> Result<Self> {
        let dir = program.parent().context("the program is in no directory")?;
        let library = dir.join("steady.so");
        if fs::read_to_string(dir.join("steady.c")).is_ok_and(|built| built == SOURCE) && library.exists() {
            return Ok(Self { program: program.to_owned(), library, log: None });
        }
        // Renamed when they are whole: others may be building them at this moment.
        let own = |name: &str| dir.join(format!("{name}.{}.c", std::process::id()));
        let (source, built) = (own("steady"), own("built"));
        fs::write(&source, SOURCE)?;
        let cc = Command::new("cc").args(["-shared", "-fPIC", "-O2", "-o"]).arg(&built).arg(&source).status();
        if !cc.context("the C compiler")?.success() {
            bail!("steady.c does not compile");
        }
        fs::rename(built, &library)?;
        fs::rename(source, dir.join("steady.c"))?;
        Ok(Self { program: program.to_owned(), library, log: None })
    }

    /// One whose runs log what `RUST_LOG` would ask for with this value.
    #[must_use]
    pub fn logging(self, filter: &str) -> Self {
        Self { log: Some(filter.to_owned()), ..self }
    }

    /// Runs a plan. With a path, what the clients did and were told is written there.
    ///
    /// # Errors
    /// The process cannot be started, or says nothing.
    pub fn run(&self, plan: &Plan, history: Option<&Path>) -> Result<Outcome> {
        let mut command = Command::new(&self.program);
        command.arg("child").env("LD_PRELOAD", &self.library).stdin(Stdio::piped()).stdout(Stdio::piped());
        if let Some(filter) = &self.log {
            command.env("RUST_LOG", filter);
        }
        if let Some(path) = history {
            command.arg("--history").arg(path);
        }
        let mut child = command.spawn().context("the process of the simulation")?;
        child.stdin.take().context("its input")?.write_all(&serde_json::to_vec(plan)?)?;
        let output = child.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        if self.log.is_none() && std::env::var_os("RUST_LOG").is_some() {
            text.lines().filter(|line| !line.starts_with('{')).for_each(|line| eprintln!("{line}"));
        }
        let line = text.lines().find(|line| line.starts_with('{'));
        serde_json::from_str(line.with_context(|| format!("the simulation ended with {}: {text}", output.status))?)
            .context("what the simulation says")
    }
}
