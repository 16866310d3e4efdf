//! `baton config`, and where the daemons' verbs take their configuration from.

use std::path::PathBuf;

use baton_broker::config::{BrokerConfig, ConfigError, Settings, Sources, load, to_toml};
use baton_coordinator::daemon::config::CoordinatorConfig;
use clap::{Args, CommandFactory, Subcommand, ValueEnum};
use toml::Table;

use super::{
    Cli,
    failure::{Failure, Outcome},
    options::Options,
    output,
};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print the configuration that a daemon would run with, as TOML, secrets masked
    Print {
        #[arg(value_enum, default_value = "broker")]
        daemon: Daemon,
        #[command(flatten)]
        source: Source,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Daemon {
    Broker,
    Coordinator,
}

/// File, environment and flags, each above the one before it.
#[derive(Debug, Args)]
pub struct Source {
    /// The configuration file, TOML
    #[arg(long, env = "BATON_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// A key of the configuration (log.dir, listeners.0.bind) with its value; may be repeated
    #[arg(long, env = "BATON_SET", value_name = "KEY=VALUE", value_parser = pair)]
    pub set: Vec<(String, String)>,
}

impl Source {
    pub fn load<T: Settings>(&self) -> Outcome<T> {
        let mut sources = Sources::of_process(self.config.as_deref()).map_err(refused)?;
        sources.foreign = variables(&Cli::command());
        sources.flags.clone_from(&self.set);
        load(&sources).map_err(refused)
    }
}

pub fn run(options: &Options, command: Command) -> Outcome {
    let Command::Print { daemon, source } = command;
    let toml = match daemon {
        Daemon::Broker => to_toml(&source.load::<BrokerConfig>()?),
        Daemon::Coordinator => to_toml(&source.load::<CoordinatorConfig>()?),
    };
    if !options.json() {
        return output::print(toml.as_bytes());
    }
    let table: Table = toml.parse().map_err(std::io::Error::other)?;
    output::json(&table)
}

fn refused(error: ConfigError) -> Failure {
    match error {
        ConfigError::Unreadable { .. } => Failure::Failed(error.to_string()),
        error => Failure::Usage(error.to_string()),
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        None => Err(format!("{text:?} is not of the form KEY=VALUE")),
    }
}

/// The variables of the command line's own flags, which are no keys of a configuration.
fn variables(command: &clap::Command) -> Vec<String> {
    let own = command.get_arguments().filter_map(|arg| Some(arg.get_env()?.to_string_lossy().into_owned()));
    own.chain(command.get_subcommands().flat_map(variables)).collect()
}
