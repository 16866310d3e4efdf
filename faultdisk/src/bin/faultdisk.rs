//! The layer as a process of its own: `faultdisk mount BACKING AT --control SOCKET`, and
//! `faultdisk tell SOCKET power-off`.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use baton_faultdisk::{Mount, Names, control, damage};
use clap::{Parser, Subcommand};

/// A disk that loses unsynced writes and fails on demand.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show a directory at another path, through the layer
    Mount {
        backing: PathBuf,
        at: PathBuf,
        /// Where commands are taken
        #[arg(long)]
        control: PathBuf,
        /// A sync of any file makes all names durable, as ext4 and XFS do
        #[arg(long)]
        names_with_any_sync: bool,
    },
    /// Give a command to a layer: power-off, power-on SEED, inject PATH FAULT, heal, unmount
    Tell { control: PathBuf, words: Vec<String> },
    /// Flip a bit or overwrite a block somewhere in the files of a directory
    Damage { directory: PathBuf, seed: u64 },
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Mount { backing, at, control, names_with_any_sync } => {
            let names = if names_with_any_sync { Names::WithAnySync } else { Names::default() };
            control::serve(Mount::with_names(&backing, &at, names)?, &control)
        }
        Command::Tell { control, words } => {
            println!("{}", control::send(&control, &words.join(" "))?);
            Ok(())
        }
        Command::Damage { directory, seed } => {
            println!("{:?}", damage::damage(&directory, seed, |_| true)?);
            Ok(())
        }
    }
}
