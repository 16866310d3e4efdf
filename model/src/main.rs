//! `model`: runs the model checker from the command line.

use std::process::ExitCode;
use std::time::Instant;

use baton_model::bounds::Bounds;
use baton_model::explore::{Effort, Order, Trail, explore, retell};
use baton_model::presets::{self, Preset};
use baton_model::{mutants, walk};
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "model", about = "Checks Baton's replication protocol within bounds")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Visit every state within the bounds of a preset. Fails on a violation, and if a preset
    /// that is promised to be exhausted is not.
    Exhaust {
        /// Which one; all of them if none is named.
        #[arg(long)]
        preset: Option<String>,
        #[arg(long, default_value_t = 3600)]
        seconds: u64,
        /// No further than this many steps.
        #[arg(long)]
        depth: Option<usize>,
        /// Depth first: less memory, and more states that are visited again with less used up.
        #[arg(long)]
        deep_first: bool,
        /// Also how many states are how many steps away.
        #[arg(long)]
        levels: bool,
    },
    /// Walk at random within wide bounds.
    Walk {
        #[arg(long, default_value_t = 0)]
        seed: u64,
        #[arg(long, default_value_t = 10_000)]
        count: u64,
        #[arg(long, default_value_t = 300)]
        steps: usize,
        #[arg(long, default_value_t = 1)]
        min_insync: u8,
        /// With a reassignment to a fourth broker.
        #[arg(long)]
        reassign: bool,
        /// With an operator's choice of a copy.
        #[arg(long)]
        unclean: bool,
    },
    /// Switch each rule off, and see it missed.
    Mutants {
        /// Only this one.
        #[arg(long)]
        name: Option<String>,
        /// Also the rules whose breach takes long to reach.
        #[arg(long)]
        deep: bool,
        /// Also each check alone that others back up, by so many walks.
        #[arg(long, default_value_t = 0)]
        alone: u64,
    },
    /// Print the presets.
    List,
}

fn main() -> ExitCode {
    // A panic of the core is a finding, which is told with the way that led there.
    std::panic::set_hook(Box::new(|_| {}));
    match Arguments::parse().command {
        Command::Exhaust { preset, seconds, depth, deep_first, levels } => {
            let order = if deep_first { Order::Depth } else { Order::Breadth };
            exhaust(preset.as_deref(), &Effort { order, seconds, depth_max: depth, ..Effort::default() }, levels)
        }
        Command::Walk { seed, count, steps, min_insync, reassign, unclean } => {
            let mut bounds = Bounds { min_insync, ..mutants::walk_bounds() };
            bounds.limits.reassigns = u8::from(reassign);
            bounds.limits.uncleans = u8::from(unclean);
            walks(bounds, seed, count, steps)
        }
        Command::Mutants { name, deep, alone } => hunt(name.as_deref(), deep, alone),
        Command::List => {
            presets::PRESETS.iter().for_each(|preset| println!("{:<24} {:?}", preset.name, (preset.bounds)()));
            ExitCode::SUCCESS
        }
    }
}

fn exhaust(name: Option<&str>, effort: &Effort, levels: bool) -> ExitCode {
    let chosen: Vec<&Preset> = presets::PRESETS.iter().filter(|p| name.is_none_or(|name| p.name == name)).collect();
    if chosen.is_empty() {
        eprintln!("there is no such preset; see `model list`");
        return ExitCode::from(2);
    }
    println!("{:<24} {:>12} {:>13} {:>6} {:>9}  result", "preset", "states", "steps", "depth", "seconds");
    let mut failed = false;
    for preset in chosen {
        let bounds = (preset.bounds)();
        let report = explore(bounds, effort);
        let result = match (&report.trail, report.exhausted) {
            (Some(_), _) => "VIOLATED",
            (None, true) => "exhausted",
            (None, false) if preset.promised => "NOT EXHAUSTED, and promised to be",
            (None, false) => "not exhausted, nor promised to be",
        };
        failed |= report.trail.is_some() || (preset.promised && !report.exhausted);
        let (states, steps, depth) = (report.unique, report.generated, report.depth);
        let seconds = report.elapsed.as_secs_f64();
        println!("{:<24} {states:>12} {steps:>13} {depth:>6} {seconds:>9.1}  {result}", preset.name);
        if levels {
            println!("  {:?}; {} MB, and {} states waited", report.levels, report.bytes >> 20, report.waiting_max);
        }
        if let Some(trail) = &report.trail {
            tell(bounds, trail);
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn walks(bounds: Bounds, seed: u64, count: u64, steps: usize) -> ExitCode {
    let began = Instant::now();
    match walk::walks(bounds, seed, count, steps) {
        Ok(taken) => {
            println!("{count} walks from seed {seed}, {taken} steps, {:.1} s: clean", began.elapsed().as_secs_f64());
            ExitCode::SUCCESS
        }
        Err((seed, trail)) => {
            println!("the walk with seed {seed} breaks a promise; replay: model walk --seed {seed} --count 1");
            tell(bounds, &trail);
            ExitCode::FAILURE
        }
    }
}

fn hunt(name: Option<&str>, deep: bool, alone: u64) -> ExitCode {
    let also = if deep { mutants::DEEP } else { &[] };
    let mut missed = false;
    println!("{:<28} {:>9} {:>6} {:>8}  how", "rule that is gone", "states", "steps", "seconds");
    for mutant in mutants::MUTANTS.iter().chain(also).filter(|m| name.is_none_or(|name| m.name == name)) {
        let began = Instant::now();
        let found = mutant.hunt();
        let seconds = began.elapsed().as_secs_f64();
        let Some(found) = found else {
            missed = true;
            println!("{:<28} {:>9} {:>6} {seconds:>8.1}  NOT FOUND", mutant.name, "", "");
            continue;
        };
        let by = found.seed.map_or_else(|| "breadth first".into(), |seed| format!("walk {seed}"));
        let (steps, violation) = (found.trail.actions.len(), &found.trail.violation);
        println!("{:<28} {:>9} {steps:>6} {seconds:>8.1}  {by}, {violation}", mutant.name, found.states);
        if name.is_some() {
            tell(mutant.bounds(), &found.trail);
        }
    }
    for rule in mutants::BACKED_UP.iter().filter(|_| alone > 0) {
        match mutants::hunt_alone(*rule, alone, 200) {
            Some((seed, trail)) => println!("{rule:?} alone: found by walk {seed}, {}", trail.violation),
            None => println!("{rule:?} alone: not missed in {alone} walks"),
        }
    }
    if missed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn tell(bounds: Bounds, trail: &Trail) {
    for line in retell(bounds, &trail.actions) {
        println!("  {line}");
    }
    println!("  {}", trail.violation);
}
