//! Rounds that hurt the storage of real brokers: `storage power --rounds 200 --ledger FILE`.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use baton_faults::campaign::ledger::{self, Outcome};
use baton_faults::cluster::Shape;
use baton_faults::series::default_program;
use baton_faults::storage::{Plan, power, rot};
use baton_history::version;
use baton_registry::testing::server::Version;
use clap::{Args, Parser, Subcommand};
use tokio::time::Instant;

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
    /// What happens depends on it and on the number of the round alone
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[arg(long, default_value_t = 200)]
    rounds: u64,
    /// The number of the first round
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Begin no round later than so many minutes from now
    #[arg(long)]
    minutes: Option<u64>,
    /// Every round is added to this file
    #[arg(long)]
    ledger: Option<PathBuf>,
    /// Rounds until all replicas are compared and a new cluster is made
    #[arg(long, default_value_t = 25)]
    cluster_rounds: u64,
    #[arg(long, default_value_t = 12)]
    partitions: u32,
    #[arg(long, default_value_t = 2)]
    producers: u32,
    /// Records per second of each partition
    #[arg(long, default_value_t = 80)]
    rate: u32,
    /// The binary `baton`; the one beside this program if it is absent
    #[arg(long, env = "BATON_BIN")]
    baton: Option<PathBuf>,
    /// The workspace that the binary was built from: its sources are the version
    #[arg(long, default_value = ROOT)]
    sources: PathBuf,
    /// Where the brokers' data goes
    #[arg(long)]
    dir: Option<PathBuf>,
    /// What the daemons log
    #[arg(long, default_value = "info")]
    log: String,
}

impl Run {
    fn plan(&self) -> anyhow::Result<Plan> {
        let parent = self.dir.clone().unwrap_or_else(std::env::temp_dir);
        baton_faultdisk::sweep(&parent);
        let program = self.baton.clone().unwrap_or_else(default_program);
        anyhow::ensure!(program.exists(), "there is no {}: build it, or name it with --baton", program.display());
        let shape = Shape {
            program: program.canonicalize()?,
            class_path: Version::V3_8.class_path().map_err(anyhow::Error::msg).context("ZooKeeper 3.8")?,
            zookeepers: 1,
            brokers: 3,
            coordinators: 1,
            parent,
            log_filter: self.log.clone(),
            sandbox: None,
        };
        Ok(Plan {
            shape,
            seed: self.seed,
            first: self.first,
            rounds: self.rounds,
            until: self.minutes.map(|minutes| Instant::now() + Duration::from_secs(60 * minutes)),
            cluster_rounds: self.cluster_rounds,
            partitions: self.partitions,
            producers: self.producers,
            rate: self.rate,
            ledger: self.ledger.clone(),
            version: version::of_sources(&self.sources)?,
        })
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
