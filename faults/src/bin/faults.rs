//! Faults on real processes: `faults run --row kill9 --results FILE`.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use baton_faults::cluster::Shape;
use baton_faults::results::{self, RoundResult};
use baton_faults::scale::{self, Scale};
use baton_faults::series::{self, Keep, Plan, Row, default_program};
use baton_faults::stage::Pace;
use baton_registry::testing::server::Version;
use clap::{Args, Parser, Subcommand, ValueEnum};

/// Kills, stops and starves a real cluster, and judges every acknowledgement.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run rounds of faults
    Run(Run),
    /// Measure what many partitions, topics or candidates cost
    Scale(RunScale),
    /// Name the faults
    List,
    /// Sum up the rounds of a file
    Report { file: PathBuf },
}

#[derive(Debug, Args)]
struct Run {
    /// Which faults; all if none is named
    #[arg(long = "row", value_enum)]
    rows: Vec<Row>,
    /// How many rounds of each; as the table of the project asks if it is absent
    #[arg(long)]
    rounds: Option<u32>,
    /// The number of the first round: it decides who is hit
    #[arg(long, default_value_t = 1)]
    first: u32,
    /// Shorter waits
    #[arg(long)]
    short: bool,
    #[arg(long, default_value_t = 30)]
    partitions: u32,
    /// Records per second of each partition
    #[arg(long, default_value_t = 100)]
    rate: u32,
    #[arg(long, default_value_t = 2)]
    producers: u32,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
struct RunScale {
    #[arg(value_enum)]
    scale: Vec<Scale>,
    #[arg(long, default_value_t = 1)]
    rounds: u32,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
struct Common {
    /// Every round is added to this file, one line of JSON each
    #[arg(long)]
    results: Option<PathBuf>,
    /// The binary `baton`; the one beside this program if it is absent
    #[arg(long, env = "BATON_BIN")]
    baton: Option<PathBuf>,
    /// Where the brokers' data goes
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Whose data and logs are kept
    #[arg(long, value_enum, default_value = "failed")]
    keep: Keep,
    /// The commit that the binary was built from; that of the sources if it is absent
    #[arg(long)]
    revision: Option<String>,
    /// What the daemons log
    #[arg(long, default_value = "info")]
    log: String,
}

impl Common {
    fn shape(&self) -> anyhow::Result<Shape> {
        let program = self.baton.clone().unwrap_or_else(default_program);
        anyhow::ensure!(program.exists(), "there is no {}: build it, or name it with --baton", program.display());
        Ok(Shape {
            program: program.canonicalize()?,
            class_path: Version::V3_8.class_path().map_err(anyhow::Error::msg).context("ZooKeeper 3.8")?,
            zookeepers: 3,
            brokers: 3,
            coordinators: 2,
            parent: self.dir.clone().unwrap_or_else(std::env::temp_dir),
            log_filter: self.log.clone(),
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
    let done = match command {
        Command::List => {
            for row in Row::value_variants() {
                println!("{:<22} {:>2} rounds", row.name(), row.rounds());
            }
            Scale::value_variants().iter().for_each(|scale| println!("{:<22} scale", scale.name()));
            return Ok(true);
        }
        Command::Report { file } => results::read(&file)?,
        Command::Run(run) => runtime.block_on(rounds(&run))?,
        Command::Scale(run) => runtime.block_on(scales(&run))?,
    };
    print!("{}", results::report(&done));
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(done.iter().all(RoundResult::correct))
}

/// What both kinds of runs take.
fn plan(common: &Common, pace: Pace) -> anyhow::Result<Plan> {
    let mut plan = Plan::new(common.shape()?, pace);
    plan.results.clone_from(&common.results);
    plan.keep = common.keep;
    if let Some(revision) = &common.revision {
        plan.revision.clone_from(revision);
    }
    Ok(plan)
}

async fn rounds(run: &Run) -> anyhow::Result<Vec<RoundResult>> {
    let pace = if run.short { Pace::short() } else { Pace::full() };
    let mut plan = plan(&run.common, pace)?;
    (plan.partitions, plan.rate, plan.producers) = (run.partitions, run.rate, run.producers);
    let rows = if run.rows.is_empty() { Row::value_variants() } else { &run.rows };
    let mut done = Vec::new();
    for row in rows {
        done.extend(series::run(&plan, *row, run.first, run.rounds.unwrap_or(row.rounds())).await?);
    }
    Ok(done)
}

async fn scales(run: &RunScale) -> anyhow::Result<Vec<RoundResult>> {
    let plan = plan(&run.common, Pace::full())?;
    let all = if run.scale.is_empty() { Scale::value_variants() } else { &run.scale };
    let mut done = Vec::new();
    for scale in all {
        done.extend(scale::run(&plan, *scale, run.rounds).await?);
    }
    Ok(done)
}
