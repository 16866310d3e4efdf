//! What long campaigns have shown: one line for each range of seeds, so that they add up. Only
//! lines of the same version count together.

use std::fs::OpenOptions;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

/// One range of seeds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Of the product's sources, see [`Version`].
    pub version: String,
    /// Of the simulation's own.
    #[serde(default)]
    pub simulation: String,
    pub from: u64,
    /// Not included.
    pub to: u64,
    pub seconds: u64,
    pub simulated_s: f64,
    pub operations: u64,
    pub faults: u64,
    pub clean: u64,
    /// Seeds that failed, each with the first thing that was wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<(u64, String)>,
}

/// Hunts for one planted bug: how many fresh seeds each needed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hunted {
    pub version: String,
    pub simulation: String,
    pub mutation: String,
    /// A hunt was given up after so many seeds.
    pub seeds_max: u64,
    pub seconds: u64,
    /// In rising order.
    pub needed: Vec<u64>,
    /// Hunts that were given up.
    pub missed: u64,
    /// The first seed that found it, and how.
    pub first: Option<(u64, String)>,
}

impl Hunted {
    /// Of the hunts; one that was given up counts as more than any other.
    #[must_use]
    pub fn median(&self) -> Option<u64> {
        let hunts = self.needed.len() + usize::try_from(self.missed).unwrap_or(0);
        self.needed.get(hunts.saturating_sub(1) / 2).copied()
    }
}

/// What the lines of one version add up to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sum {
    pub seeds: u64,
    pub clean: u64,
    pub simulated_h: f64,
    pub operations: u64,
    pub faults: u64,
    pub failed: Vec<u64>,
}

/// Names the behaviour: what ran in production's place, and what made and judged the runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// A hash of the sources of the crates that run in production.
    pub product: String,
    /// A hash of the sources of the simulation and of the checker of histories.
    pub simulation: String,
}

/// Of the sources as they are now.
///
/// # Errors
/// The sources cannot be read.
pub fn version() -> io::Result<Version> {
    let product = hash(&["core/src", "proto", "registry/src", "broker/src", "coordinator/src", "client/src"])?;
    let simulation = hash(&["tests/src/sim", "tests/src/net.rs", "history/src"])?;
    Ok(Version { product, simulation })
}

fn hash(parts: &[&str]) -> io::Result<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut hash = Xxh3::new();
    for part in parts {
        add(&root.join(part), &mut hash)?;
    }
    Ok(format!("{:016x}", hash.digest()))
}

fn add(path: &Path, hash: &mut Xxh3) -> io::Result<()> {
    if !path.is_dir() {
        hash.update(&std::fs::read(path)?);
        return Ok(());
    }
    let mut entries: Vec<_> = std::fs::read_dir(path)?.collect::<Result<_, _>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        hash.update(entry.file_name().as_encoded_bytes());
        add(&entry.path(), hash)?;
    }
    Ok(())
}

/// Adds a line.
///
/// # Errors
/// The file cannot be written.
pub fn append(path: &Path, line: &impl Serialize) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    writeln!(file, "{}", serde_json::to_string(line)?)
}

/// What was shown for this version.
///
/// # Errors
/// The file cannot be read, or is not a ledger.
pub fn sum(path: &Path, version: &Version) -> io::Result<Sum> {
    let mut sum = Sum::default();
    for line in BufReader::new(std::fs::File::open(path)?).lines() {
        let line: Line = serde_json::from_str(&line?)?;
        if (line.version.as_str(), line.simulation.as_str()) != (&version.product, &version.simulation) {
            continue;
        }
        sum.seeds += line.to - line.from;
        sum.clean += line.clean;
        sum.simulated_h += line.simulated_s / 3_600.0;
        sum.operations += line.operations;
        sum.faults += line.faults;
        sum.failed.extend(line.failed.iter().map(|(seed, _)| *seed));
    }
    Ok(sum)
}
