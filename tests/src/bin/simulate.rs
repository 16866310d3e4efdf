//! Runs simulated clusters: one seed, ranges of seeds, hunts for planted bugs.
//!
//! ```text
//! simulate run --seed 7                      one seed; prints what was wrong, and how to see it again
//! simulate run --seed 7 --events 0,3,9 …     the same with a part of its plan
//! simulate range 1..6001 --ledger FILE       many; adds lines to a ledger
//! simulate shrink --seed 7                   cuts a failing seed down, and prints the command
//! simulate hunt --hunts 20 [NAME…]           fresh seeds until each planted bug is found
//! simulate sum FILE                          what the ledger shows for these sources
//! ```
#![allow(clippy::print_stdout, reason = "a program for people")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use baton_tests::sim::cluster::show_log;
use baton_tests::sim::committed::Counts;
use baton_tests::sim::mutation::{self, Planted};
use baton_tests::sim::process::Runner;
use baton_tests::sim::{Outcome, Plan, ledger, run, shrink, unreached};
use clap::{Args, Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Runs simulated clusters")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// One seed.
    Run {
        #[command(flatten)]
        which: Which,
        /// Prints the plan.
        #[arg(long)]
        plan: bool,
        /// Writes what the clients did and were told.
        #[arg(long)]
        history: Option<PathBuf>,
    },
    /// Seeds `FROM..TO`, on so many threads.
    Range {
        seeds: String,
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        #[arg(long)]
        ledger: Option<PathBuf>,
        #[arg(long, default_value_t = 1)]
        threads: u64,
        /// Seeds of one line of the ledger.
        #[arg(long, default_value_t = 50)]
        batch: u64,
        /// Only every so many of them: with 8, seeds of one kind.
        #[arg(long, default_value_t = 1)]
        step: usize,
    },
    /// Cuts a failing seed down.
    Shrink {
        #[command(flatten)]
        which: Which,
        #[arg(long, default_value_t = 150)]
        runs: u32,
    },
    /// Fresh seeds until a planted bug is found, so many times.
    Hunt {
        /// All, if none is named.
        names: Vec<String>,
        #[arg(long, default_value_t = 20)]
        hunts: u64,
        /// A hunt is given up after so many seeds.
        #[arg(long, default_value_t = 100)]
        seeds: u64,
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        #[arg(long, default_value_t = 1)]
        threads: usize,
        /// Adds a line for each bug.
        #[arg(long)]
        ledger: Option<PathBuf>,
    },
    /// What a ledger shows for these sources.
    Sum { ledger: PathBuf },
    /// Runs the plan that it reads, and prints what came out: what all others call.
    #[command(hide = true)]
    Child {
        #[arg(long)]
        history: Option<PathBuf>,
    },
}

/// A plan: a seed's, or a part of it.
#[derive(Args, Clone)]
struct Which {
    #[arg(long, env = "BATON_SEED")]
    seed: u64,
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// The rule that is switched off.
    #[arg(long)]
    mutation: Option<String>,
    /// Only these events of the plan, by their numbers; `none` for none.
    #[arg(long)]
    events: Option<String>,
    /// The load and the faults end here, whatever the plan's length.
    #[arg(long)]
    until: Option<u64>,
    #[arg(long)]
    producers: Option<u32>,
    #[arg(long)]
    consumers: Option<u32>,
}

impl Which {
    fn plan(&self) -> Result<Plan> {
        let mut plan = Plan::of_seed(self.seed, self.seconds);
        if let Some(name) = &self.mutation {
            Planted::named(name).with_context(|| format!("there is no mutation {name}; see `simulate hunt --help`"))?;
        }
        plan.mutation.clone_from(&self.mutation);
        if let Some(events) = self.events.as_deref() {
            let kept: Vec<usize> = match events {
                "none" => Vec::new(),
                list => list.split(',').map(str::parse).collect::<Result<_, _>>()?,
            };
            let all = std::mem::take(&mut plan.events);
            plan.events = kept.iter().filter_map(|n| all.get(*n)).cloned().collect();
        }
        plan.seconds = self.until.unwrap_or(plan.seconds);
        plan.producers = self.producers.unwrap_or(plan.producers);
        plan.consumers = self.consumers.unwrap_or(plan.consumers);
        Ok(plan)
    }
}

fn main() -> Result<ExitCode> {
    let runner = || Runner::new(&std::env::current_exe()?);
    let failed = match Cli::parse().command {
        Command::Run { which, plan, history } => one(&runner()?, &which, plan, history.as_deref())?,
        Command::Range { seeds, seconds, ledger, threads, batch, step } => {
            range(&runner()?, &seeds, &Range { seconds, ledger, threads, batch, step })?
        }
        Command::Shrink { which, runs } => cut(&runner()?, &which, runs)?,
        Command::Hunt { names, hunts, seeds, seconds, threads, ledger } => {
            let version = ledger::version()?;
            hunt(&runner()?, &names, &Hunts { hunts, seeds, seconds, threads, ledger, version })?
        }
        Command::Sum { ledger } => {
            println!("{:?}", ledger::sum(&ledger, &ledger::version()?)?);
            false
        }
        Command::Child { history } => child(history)?,
    };
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn child(history: Option<PathBuf>) -> Result<bool> {
    let plan: Plan = serde_json::from_reader(std::io::stdin())?;
    let seed = plan.seed;
    // The log is set up in another thread than the run's, which begins like that of any process.
    show_log();
    let outcome = std::thread::Builder::new().stack_size(16 << 20).spawn(move || run(&plan))?.join();
    let outcome = outcome.map_err(|_| anyhow::anyhow!("the simulation panicked"))?;
    if let Some(path) = history {
        outcome.history.write(&path, &format!("seed {seed}"))?;
    }
    println!("{}", serde_json::to_string(&outcome)?);
    Ok(false)
}

fn replay(which: &Which) -> String {
    let mutation = which.mutation.as_ref().map_or(String::new(), |name| format!(" --mutation {name}"));
    format!("simulate run --seed {}{mutation}", which.seed)
}

fn tell(outcome: &Outcome, took: f64) {
    println!(
        "{:.1} s simulated in {took:.2} s, settled {:.1} s after the faults; {} operations, {} faults; digest {:016x}",
        outcome.simulated.as_secs_f64(),
        outcome.settled_after.as_secs_f64(),
        outcome.operations,
        outcome.faults,
        outcome.digest
    );
    if outcome.transactions != Counts::default() {
        println!("{:?}", outcome.transactions);
    }
    for violation in &outcome.violations {
        println!("VIOLATION: {violation}");
    }
}

fn one(runner: &Runner, which: &Which, show: bool, history: Option<&Path>) -> Result<bool> {
    let plan = which.plan()?;
    if show {
        for (number, event) in plan.events.iter().enumerate() {
            println!("{number:>3} {}", serde_json::to_string(event)?);
        }
    }
    let started = Instant::now();
    let outcome = runner.run(&plan, history)?;
    tell(&outcome, started.elapsed().as_secs_f64());
    if !outcome.is_clean() {
        println!("replay: {}", replay(which));
    }
    Ok(!outcome.is_clean())
}

struct Range {
    seconds: u64,
    ledger: Option<PathBuf>,
    threads: u64,
    batch: u64,
    step: usize,
}

struct Hunts {
    hunts: u64,
    seeds: u64,
    seconds: u64,
    threads: usize,
    ledger: Option<PathBuf>,
    version: ledger::Version,
}

fn range(runner: &Runner, seeds: &str, how: &Range) -> Result<bool> {
    let Range { seconds, ledger, threads, batch, step } = how;
    let (from, to) = seeds.split_once("..").context("seeds are given as FROM..TO")?;
    let (from, to): (u64, u64) = (from.parse()?, to.parse()?);
    if *step == 0 || (*step > 1 && (ledger.is_some() || batch % (*step as u64) != 0)) {
        bail!("steps divide the batch, and are of no ledger: its lines are of whole ranges");
    }
    let version = ledger::version()?;
    let (next, failed) = (AtomicU64::new(from), AtomicU64::new(0));
    let reached: Mutex<BTreeMap<String, u64>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..*threads {
            scope.spawn(|| {
                loop {
                    let first = next.fetch_add(*batch, Ordering::Relaxed);
                    if first >= to {
                        return;
                    }
                    let line = some(runner, first..(first + batch).min(to), *step, *seconds, &version, &reached);
                    failed.fetch_add(line.failed.len() as u64, Ordering::Relaxed);
                    if let Some(path) = ledger
                        && let Err(error) = ledger::append(path, &line)
                    {
                        println!("the ledger cannot be written: {error}");
                    }
                }
            });
        }
    });
    tell_branches(&reached.into_inner().unwrap_or_default());
    Ok(failed.into_inner() > 0)
}

/// What was never taken, what cannot be, and what was taken least.
fn tell_branches(counts: &BTreeMap<String, u64>) {
    println!("branches never reached: {:?}", unreached::surprising(counts));
    for (name, why) in unreached::UNREACHABLE {
        println!("unreachable: {name}, because {why}");
    }
    println!("reached although listed as unreachable: {:?}", unreached::reached_after_all(counts));
    let mut taken: Vec<_> = counts.iter().filter(|(_, count)| **count > 0).map(|(name, n)| (n, name)).collect();
    taken.sort_unstable();
    println!("taken least: {:?}", taken.iter().take(25).collect::<Vec<_>>());
}

fn some(
    runner: &Runner,
    seeds: std::ops::Range<u64>,
    step: usize,
    seconds: u64,
    version: &ledger::Version,
    reached: &Mutex<BTreeMap<String, u64>>,
) -> ledger::Line {
    let (from, to) = (seeds.start, seeds.end);
    let mut line = ledger::Line {
        version: version.product.clone(),
        simulation: version.simulation.clone(),
        from,
        to,
        seconds,
        simulated_s: 0.0,
        operations: 0,
        faults: 0,
        clean: 0,
        failed: Vec::new(),
    };
    let mut transactions = Counts::default();
    for seed in seeds.step_by(step) {
        let outcome = runner.run(&Plan::of_seed(seed, seconds), None).unwrap_or_else(|error| Outcome {
            violations: vec![format!("the process failed: {error:#}")],
            ..Outcome::default()
        });
        line.simulated_s += outcome.simulated.as_secs_f64();
        line.operations += outcome.operations;
        line.faults += outcome.faults as u64;
        line.clean += u64::from(outcome.is_clean());
        transactions.add(&outcome.transactions);
        if let Some(first) = outcome.violations.first() {
            let short: String = first.chars().take(300).collect();
            println!("seed {seed}: {short}\nreplay: simulate run --seed {seed} --seconds {seconds}");
            line.failed.push((seed, short));
        }
        if let Ok(mut reached) = reached.lock() {
            for (name, count) in outcome.branches {
                *reached.entry(name).or_default() += count;
            }
        }
    }
    println!("seeds {from}..{to}: {} clean, {:.0} s simulated", line.clean, line.simulated_s);
    if transactions != Counts::default() {
        println!("{transactions:?}");
    }
    line
}

fn cut(runner: &Runner, which: &Which, runs: u32) -> Result<bool> {
    let Some(shrunk) = shrink::shrink(runner, &which.plan()?, runs)? else {
        println!("seed {} is clean", which.seed);
        return Ok(false);
    };
    for event in &shrunk.plan.events {
        println!("{}", serde_json::to_string(event)?);
    }
    for violation in &shrunk.outcome.violations {
        println!("VIOLATION: {violation}");
    }
    let kept: Vec<String> = shrunk.kept.iter().map(ToString::to_string).collect();
    let kept = if kept.is_empty() { "none".to_owned() } else { kept.join(",") };
    println!(
        "after {} runs: {} --seconds {} --events {kept} --until {} --producers {} --consumers {}",
        shrunk.runs,
        replay(which),
        which.seconds,
        shrunk.plan.seconds,
        shrunk.plan.producers,
        shrunk.plan.consumers
    );
    Ok(true)
}

/// Each hunt has seeds that no other has: hunt h of mutation m begins at 10⁶(m + 1) + 10³h. A
/// single hunt begins at 1, to find a seed among those of the test run.
fn hunt(runner: &Runner, names: &[String], how: &Hunts) -> Result<bool> {
    let wanted: Vec<(u64, Planted)> = (1..)
        .zip(mutation::ALL.iter().copied())
        .filter(|(_, planted)| names.is_empty() || names.contains(&planted.name()))
        .collect();
    if wanted.is_empty() {
        bail!(
            "no mutation has such a name; there are {:?}",
            mutation::ALL.iter().map(|m| m.name()).collect::<Vec<_>>()
        );
    }
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..how.threads {
            scope.spawn(|| {
                while let Some((number, planted)) = wanted.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    hunt_one(runner, *number, *planted, how);
                }
            });
        }
    });
    Ok(false)
}

fn hunt_one(runner: &Runner, number: u64, planted: Planted, how: &Hunts) {
    let Hunts { hunts, seeds, seconds, version, .. } = how;
    let mut hunted = ledger::Hunted {
        version: version.product.clone(),
        simulation: version.simulation.clone(),
        mutation: planted.name(),
        seeds_max: *seeds,
        seconds: *seconds,
        needed: Vec::new(),
        missed: 0,
        first: None,
    };
    for hunt in 0..*hunts {
        let start = if *hunts == 1 { 1 } else { number * 1_000_000 + hunt * 1_000 };
        let found = (start..start + seeds).find_map(|seed| {
            let plan = Plan { mutation: Some(planted.name()), ..Plan::of_seed(seed, *seconds) };
            let outcome = runner.run(&plan, None).ok()?;
            outcome.violations.first().map(|why| (seed, why.chars().take(160).collect::<String>()))
        });
        match found {
            Some((seed, why)) => {
                hunted.needed.push(seed - start + 1);
                hunted.first.get_or_insert((seed, why));
            }
            None => hunted.missed += 1,
        }
        if hunted.missed > 0 && hunted.needed.is_empty() && hunt >= 1 {
            break;
        }
    }
    hunted.needed.sort_unstable();
    println!(
        "{}: found {} times, missed {}, median {:?} of {:?}; first {:?}",
        hunted.mutation,
        hunted.needed.len(),
        hunted.missed,
        hunted.median(),
        hunted.needed,
        hunted.first
    );
    if let Some(Err(error)) = how.ledger.as_ref().map(|path| ledger::append(path, &hunted)) {
        println!("the ledger cannot be written: {error}");
    }
}
