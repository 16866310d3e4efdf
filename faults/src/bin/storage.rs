//! Rounds that hurt the storage of real brokers: `storage power --rounds 200 --ledger FILE`.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use baton_faults::campaign::ledger::{self, Outcome};
use baton_faults::cluster::Shape;
use baton_faults::flags::{Rounds, Size};
use baton_faults::plan::Plan;
use baton_faults::storage::{errors, power, rot};
use baton_history::version;
use clap::{Args, Parser, Subcommand};

/// The workspace.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Cuts the power of a real cluster and damages its files, and judges every acknowledgement.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Cut the power of all brokers at once, under load
    Power(Run),
    /// Let the disk of a running broker fail: syncing, writing, reading
    Errors(Run),
    /// Flip a bit or overwrite a block in the files of a stopped broker
    Damage(Run),
    /// Sum up the rounds of one version in a ledger
    Ledger {
        file: PathBuf,
        /// That of the sources as they are now if it is absent
        #[arg(long)]
        version: Option<String>,
    },
}

#[derive(Debug, Args)]
struct Run {
    #[command(flatten)]
    series: Rounds,
    #[arg(long, default_value_t = 200)]
    rounds: u64,
    /// Rounds until all replicas are compared and a new cluster is made
    #[arg(long, default_value_t = 25)]
    cluster_rounds: u64,
    #[arg(long, default_value_t = 12)]
    partitions: u32,
    #[arg(long, default_value_t = 2)]
    producers: u32,
}

impl Run {
    fn plan(&self) -> anyhow::Result<Plan> {
        baton_faultdisk::sweep(&self.series.which.parent());
        let shape = Shape { zookeepers: 1, coordinators: 1, ..self.series.which.shape()? };
        let size = Size {
            rounds: self.rounds,
            cluster_rounds: self.cluster_rounds,
            partitions: self.partitions,
            producers: self.producers,
        };
        self.series.plan(shape, size)
    }
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether everything was correct.
fn run(command: Command) -> anyhow::Result<bool> {
    // Child processes die with the thread that starts them: this one, which waits here.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (lines, version) = match command {
        Command::Power(of) => {
            let plan = runtime.block_on(async { of.plan() })?;
            (runtime.block_on(power::run(&plan))?, plan.version)
        }
        Command::Errors(of) => {
            let plan = runtime.block_on(async { of.plan() })?;
            (runtime.block_on(errors::run(&plan))?, plan.version)
        }
        Command::Damage(of) => {
            let plan = runtime.block_on(async { of.plan() })?;
            (runtime.block_on(rot::run(&plan))?, plan.version)
        }
        Command::Ledger { file, version } => {
            let version = version.map_or_else(|| version::of_sources(Path::new(ROOT)), Ok)?;
            (ledger::read(&file)?, version)
        }
    };
    print!("{}", ledger::report(&lines, &version));
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(lines.iter().all(|line| line.version != version || line.outcome != Outcome::Failed))
}
