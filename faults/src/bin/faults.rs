//! Faults on real processes: `faults run --row kill9 --results FILE`.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use baton_faults::campaign::{self, draw::Kind, ledger};
use baton_faults::cluster::Shape;
use baton_faults::disk::DiskKind;
use baton_faults::flags::{Rounds, Size, Which};
use baton_faults::network::{self, sandbox};
use baton_faults::results::{self, RoundResult};
use baton_faults::scale::{self, Scale};
use baton_faults::series::{self, Keep, Plan, Row};
use baton_faults::stage::Pace;
use baton_history::version;
use clap::{Args, Parser, Subcommand, ValueEnum};

/// The workspace.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

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
    /// Run drawn faults, alone and in pairs, in network namespaces, and add them to the ledger
    Campaign(RunCampaign),
    /// Sum up the rounds of one version in a ledger
    Ledger(ReadLedger),
    /// Pass connections on, slowly: part of a campaign
    #[command(hide = true)]
    Proxy { ways: Vec<String> },
}

#[derive(Debug, Args)]
struct RunCampaign {
    #[command(flatten)]
    series: Rounds,
    #[arg(long, default_value_t = 50)]
    rounds: u64,
    /// Only these kinds of faults
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Kind>,
    /// Rounds until all replicas are compared and a new cluster is made
    #[arg(long, default_value_t = 100)]
    cluster_rounds: u64,
    #[arg(long, default_value_t = 4)]
    brokers: u32,
    #[arg(long, default_value_t = 30)]
    partitions: u32,
    #[arg(long, default_value_t = 3)]
    producers: u32,
    /// The size of each broker's disk in MiB
    #[arg(long, default_value_t = 2_048)]
    disk_mib: u64,
    /// Set inside the namespaces
    #[arg(long, hide = true)]
    inside: bool,
}

#[derive(Debug, Args)]
struct ReadLedger {
    #[arg(default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/results/ledger.jsonl"))]
    file: PathBuf,
    /// The version; that of the sources as they are now if it is absent
    #[arg(long)]
    version: Option<String>,
    /// Every combination of faults, too
    #[arg(long)]
    combinations: bool,
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
    /// Whose data and logs are kept
    #[arg(long, value_enum, default_value = "failed")]
    keep: Keep,
    /// The commit that the binary was built from; that of the sources if it is absent
    #[arg(long)]
    revision: Option<String>,
    #[command(flatten)]
    which: Which,
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
    if let Command::Campaign(campaign) = &command
        && !campaign.inside
    {
        return enter(campaign);
    }
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
        Command::Campaign(run) => return runtime.block_on(campaign(&run)),
        Command::Proxy { ways } => return runtime.block_on(proxy(&ways)),
        Command::Ledger(of) => {
            let version = of.version.map_or_else(|| version::of_sources(Path::new(ROOT)), Ok)?;
            let lines = ledger::read(&of.file)?;
            print!("{}", ledger::report(&lines, &version));
            if of.combinations {
                print!("\n{}", ledger::combinations(&lines, &version));
            }
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
    let mut plan = Plan::new(common.which.shape()?, pace);
    plan.results.clone_from(&common.results);
    plan.keep = common.keep;
    if let Some(revision) = &common.revision {
        plan.revision.clone_from(revision);
    }
    Ok(plan)
}

/// Runs the same command inside namespaces of its own, in a directory that goes with it.
fn enter(run: &RunCampaign) -> anyhow::Result<bool> {
    let parent = run.series.which.parent();
    sandbox::sweep(&parent);
    let dir = sandbox::directory(&parent)?;
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    arguments.extend(["--inside".to_owned(), "--dir".to_owned(), dir.display().to_string()]);
    let status = sandbox::enter(&arguments, Some(&dir));
    // What is kept stays.
    let _ = std::fs::remove_dir(&dir);
    Ok(status?.success())
}

async fn campaign(run: &RunCampaign) -> anyhow::Result<bool> {
    let sandbox = Some(DiskKind::Image { bytes: run.disk_mib << 20 });
    let shape = Shape { brokers: run.brokers, sandbox, ..run.series.which.shape()? };
    sandbox::prepare()?;
    network::build(&shape.hosts())?;
    let size = Size {
        rounds: run.rounds,
        cluster_rounds: run.cluster_rounds,
        partitions: run.partitions,
        producers: run.producers,
    };
    let plan = run.series.plan(shape, size)?;
    let lines = campaign::run(&plan, &run.only).await?;
    print!("{}", ledger::report(&lines, &plan.version));
    Ok(lines.iter().all(|line| line.outcome != ledger::Outcome::Failed))
}

async fn proxy(ways: &[String]) -> anyhow::Result<bool> {
    let way = |text: &String| -> anyhow::Result<(u16, SocketAddr)> {
        let (port, target) = text.split_once('=').context("PORT=ADDRESS:PORT")?;
        Ok((port.parse()?, target.parse()?))
    };
    network::proxy::run(&ways.iter().map(way).collect::<Result<Vec<_>, _>>()?).await?;
    Ok(true)
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
