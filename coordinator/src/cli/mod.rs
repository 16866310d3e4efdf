//! The command line: what may be said, and who does it.
//!
//! Data goes to the standard output, everything else to the standard error. Exit codes: 0 ok,
//! 1 failed, 2 usage, 3 unreachable, 4 not found, 10 unhealthy.

mod check;
mod cluster;
mod config;
mod consume;
mod daemon;
mod dev;
mod events;
mod failure;
mod format;
mod group;
mod lines;
mod options;
mod output;
mod partition;
mod produce;
mod topic;
mod when;
mod wrong_port;

#[cfg(test)]
mod tests;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::{
    failure::{Failure, Outcome},
    options::Options,
};

/// A replicated, partitioned message broker on ZooKeeper.
#[derive(Debug, Parser)]
#[command(name = "baton", version, propagate_version = true, after_help = EXIT_CODES)]
struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 ok, 1 failed, 2 usage, 3 unreachable, 4 not found, 10 unhealthy";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a cluster of three brokers in this process, for trying things out
    Dev(dev::DevArgs),
    /// Run a broker until SIGTERM
    Broker(daemon::BrokerArgs),
    /// Run a coordinator until SIGTERM
    Coordinator(daemon::CoordinatorArgs),
    /// Create, list, describe, alter and delete topics
    #[command(subcommand)]
    Topic(topic::Command),
    /// Send records, one from each line of the standard input
    Produce(produce::Args),
    /// Print records
    Consume(consume::Args),
    /// List, describe, move and delete consumer groups
    #[command(subcommand)]
    Group(group::Command),
    /// List, reassign and elect partitions
    #[command(subcommand)]
    Partition(partition::Command),
    /// See how the cluster is
    #[command(subcommand)]
    Cluster(cluster::Command),
    /// Print the cluster's history
    Events(events::Args),
    /// Hold a history of what clients sent, were told and read against what is promised
    Check(check::Args),
    /// See how a daemon is configured
    #[command(subcommand)]
    Config(config::Command),
}

/// Parses the arguments, does what they say, and tells how it went.
pub fn main() -> ExitCode {
    let Cli { options, command } = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::from(error).report(options.output),
    };
    let outcome = runtime.block_on(run(&options, command));
    // A reader of the standard input may be stuck in a read; it is not waited for.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(options.output),
    }
}

async fn run(options: &Options, command: Command) -> Outcome {
    if !matches!(command, Command::Dev(_) | Command::Broker(_) | Command::Coordinator(_)) {
        options.log();
    }
    match command {
        Command::Dev(args) => dev::run(options, args).await,
        Command::Broker(args) => daemon::broker(options, args).await,
        Command::Coordinator(args) => daemon::coordinator(options, args).await,
        Command::Topic(command) => topic::run(options, command).await,
        Command::Produce(args) => produce::run(options, args).await,
        Command::Consume(args) => consume::run(options, args).await,
        Command::Group(command) => group::run(options, command).await,
        Command::Partition(command) => partition::run(options, command).await,
        Command::Cluster(command) => cluster::run(options, command).await,
        Command::Events(args) => events::run(options, args).await,
        Command::Check(args) => check::run(options, &args),
        Command::Config(command) => config::run(options, command),
    }
}
