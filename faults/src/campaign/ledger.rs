//! The ledger: one line a round, added for ever; campaigns resume and add up.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// Every partition is led and acknowledges again so soon after the end of a fault.
pub const RECOVERED_MS_MAX: f64 = 5_000.0;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    #[default]
    Ok,
    /// Nothing wrong, but it took longer than [`RECOVERED_MS_MAX`].
    Slow,
    Failed,
}

/// What Kafka's clients did in a round.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Kafka {
    /// Records that the group was to read, and how often one was read again.
    pub acknowledged: u64,
    pub again: u64,
    pub commits: u64,
    pub rebalances: u64,
    pub transactions: u64,
    /// Of these: aborted on purpose or because the client asked for it, and of unknown outcome.
    pub aborted: u64,
    pub unknown: u64,
    /// Zombies that were kept from committing.
    pub fenced: u64,
    /// From the end of the last fault until the group has committed what was acknowledged since
    /// in every partition, and until a transaction that began since is committed and shown.
    pub group_ms: f64,
    pub transactions_ms: f64,
}

impl Kafka {
    /// Adds the counts of another.
    pub fn add(&mut self, other: &Self) {
        self.acknowledged += other.acknowledged;
        self.again += other.again;
        self.commits += other.commits;
        self.rebalances += other.rebalances;
        self.transactions += other.transactions;
        self.aborted += other.aborted;
        self.unknown += other.unknown;
        self.fenced += other.fenced;
    }
}

/// One round, or the comparison of all replicas that ends the life of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// The hash of the product's sources: only lines of one version add up.
    pub version: String,
    pub profile: String,
    /// Seconds since 1970.
    pub time: u64,
    pub seed: u64,
    pub round: u64,
    /// The kinds in the order of their beginnings; `end` for the comparison.
    pub faults: Vec<String>,
    /// Who was hit and for how long, as many as faults.
    pub targets: Vec<String>,
    pub sent: u64,
    pub acknowledged: u64,
    /// Told that they are not stored, and of unknown outcome.
    pub failed: u64,
    pub unknown: u64,
    pub lost: u64,
    pub reordered: u64,
    pub duplicates: u64,
    /// Everything that must never be, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub anomalies: BTreeMap<String, u64>,
    /// The longest time from the beginning of the faults on in which a partition acknowledged
    /// nothing.
    pub outage_ms: f64,
    /// From the end of the last fault until every partition acknowledged for good.
    pub recovered_ms: f64,
    /// From there until all replicas were in sync.
    pub whole_ms: f64,
    /// The whole round, from the end of the last one.
    pub cycle_ms: f64,
    pub outcome: Outcome,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kafka: Option<Kafka>,
    /// Brokers that ended by themselves because their storage failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ended: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<String>,
}

impl Line {
    /// Adds this line to a ledger, whole, whoever else writes to it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn append_to(&self, file: &Path) -> anyhow::Result<()> {
        if let Some(parent) = file.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let mut out = std::fs::File::options().create(true).append(true).open(file)?;
        let line = serde_json::to_string(self)? + "\n";
        out.write_all(line.as_bytes()).with_context(|| file.display().to_string())
    }

    /// `a`, or `a + b` in the order of the alphabet.
    #[must_use]
    pub fn combination(&self) -> String {
        let mut names = self.faults.clone();
        names.sort();
        names.join(" + ")
    }

    /// One line for people.
    #[must_use]
    pub fn summary(&self) -> String {
        let targets: Vec<String> =
            self.faults.iter().zip(&self.targets).map(|(fault, target)| format!("{fault} ({target})")).collect();
        let mut text = format!(
            "{} round {}: {}: {} acknowledged, outage {:.0} ms, recovered {:.0} ms, whole {:.0} ms, cycle {:.1} s",
            self.seed,
            self.round,
            targets.join(" + "),
            self.acknowledged,
            self.outage_ms,
            self.recovered_ms,
            self.whole_ms,
            self.cycle_ms / 1e3,
        );
        if let Some(kafka) = &self.kafka {
            let _ = write!(
                text,
                ", group {} records {:.0} ms, {} transactions {:.0} ms",
                kafka.acknowledged, kafka.group_ms, kafka.transactions, kafka.transactions_ms
            );
        }
        if self.outcome != Outcome::Ok {
            let _ = write!(text, ": {:?} {:?} {:?}", self.outcome, self.anomalies, self.failures);
        }
        text
    }
}

/// All lines of a ledger.
///
/// # Errors
/// It cannot be read, or a line is none.
pub fn read(file: &Path) -> anyhow::Result<Vec<Line>> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines.map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}

#[derive(Default)]
struct Sum<'a> {
    lines: Vec<&'a Line>,
}

impl Sum<'_> {
    fn sorted(&self, what: fn(&Line) -> f64) -> Vec<f64> {
        let mut all: Vec<f64> = self.lines.iter().map(|line| what(line)).collect();
        all.sort_by(f64::total_cmp);
        all
    }

    /// Median and worst.
    fn range(&self, what: fn(&Line) -> f64) -> String {
        let all = self.sorted(what);
        let (median, worst) = (all.get(all.len() / 2).copied(), all.last().copied());
        format!("{:>6.0} {:>6.0}", median.unwrap_or(0.0), worst.unwrap_or(0.0))
    }

    fn count(&self, outcome: Outcome) -> usize {
        self.lines.iter().filter(|line| line.outcome == outcome).count()
    }
}

/// Sums up the lines of one version.
#[must_use]
pub fn report(lines: &[Line], version: &str) -> String {
    let lines: Vec<&Line> = lines.iter().filter(|line| line.version == version).collect();
    let rounds: Vec<&Line> = lines.iter().copied().filter(|line| line.faults != ["end"]).collect();
    let add = |what: fn(&Line) -> u64| lines.iter().map(|line| what(line)).sum::<u64>();
    let combinations: BTreeSet<String> = rounds.iter().map(|line| line.combination()).collect();
    let faults: usize = rounds.iter().map(|line| line.faults.len()).sum();
    let mean = rounds.iter().map(|line| line.cycle_ms).sum::<f64>() / rounds.len().max(1) as f64;
    let whole = Sum { lines: rounds.clone() };
    let mut text = format!(
        "version {version}: {} rounds with {faults} faults in {} combinations, {} comparisons of all replicas\n\
         {} records acknowledged; {} lost, {} reordered, {} duplicates; {} refused, {} unknown\n\
         {} rounds failed, {} took longer than 5 s to recover; mean cycle {:.1} s\n\n",
        rounds.len(),
        combinations.len(),
        lines.len() - rounds.len(),
        add(|line| line.acknowledged),
        add(|line| line.lost),
        add(|line| line.reordered),
        add(|line| line.duplicates),
        add(|line| line.failed),
        add(|line| line.unknown),
        Sum { lines: lines.clone() }.count(Outcome::Failed),
        whole.count(Outcome::Slow),
        mean / 1e3,
    );
    text += &report_kafka(&rounds);
    let _ = writeln!(
        text,
        "{:<22} {:>6} {:>4} {:>6}  outage p50/max ms  recovered p50/max ms",
        "kind", "rounds", "slow", "failed"
    );
    let mut kinds: BTreeMap<&str, Sum<'_>> = BTreeMap::new();
    for line in &rounds {
        for fault in &line.faults {
            kinds.entry(fault).or_default().lines.push(line);
        }
    }
    for (name, sum) in kinds.iter().chain([(&"all", &whole)]) {
        let (slow, failed) = (sum.count(Outcome::Slow), sum.count(Outcome::Failed));
        let (outage, recovered) = (sum.range(|line| line.outage_ms), sum.range(|line| line.recovered_ms));
        let rounds = sum.lines.len();
        let _ = writeln!(text, "{name:<22} {rounds:>6} {slow:>4} {failed:>6}  {outage}      {recovered}");
    }
    text
}

/// What Kafka's clients did; nothing where there were none.
fn report_kafka(rounds: &[&Line]) -> String {
    let with: Vec<&Line> = rounds.iter().copied().filter(|line| line.kafka.is_some()).collect();
    if with.is_empty() {
        return String::new();
    }
    let mut all = Kafka::default();
    with.iter().filter_map(|line| line.kafka.as_ref()).for_each(|kafka| all.add(kafka));
    let sum = Sum { lines: with };
    format!(
        "group: {} records acknowledged, {} read again, {} commits, {} changed assignments; goes on after p50/max ms {}\n\
         transactions: {}, {} aborted, {} unknown, {} zombies fenced; go on after p50/max ms {}\n\n",
        all.acknowledged,
        all.again,
        all.commits,
        all.rebalances,
        sum.range(|line| line.kafka.as_ref().map_or(0.0, |kafka| kafka.group_ms)),
        all.transactions,
        all.aborted,
        all.unknown,
        all.fenced,
        sum.range(|line| line.kafka.as_ref().map_or(0.0, |kafka| kafka.transactions_ms)),
    )
}

/// Every combination of one version, the longest outage first.
#[must_use]
pub fn combinations(lines: &[Line], version: &str) -> String {
    let mut sums: BTreeMap<String, Sum<'_>> = BTreeMap::new();
    for line in lines.iter().filter(|line| line.version == version && line.faults != ["end"]) {
        sums.entry(line.combination()).or_default().lines.push(line);
    }
    let worst = |sum: &Sum<'_>| sum.sorted(|line| line.outage_ms).last().copied().unwrap_or(0.0);
    let mut sums: Vec<(String, Sum<'_>)> = sums.into_iter().collect();
    sums.sort_by(|(_, one), (_, other)| worst(other).total_cmp(&worst(one)));
    let mut text = format!("{:<46} {:>6}  outage p50/max ms  recovered p50/max ms\n", "combination", "rounds");
    for (name, sum) in &sums {
        let (outage, recovered) = (sum.range(|line| line.outage_ms), sum.range(|line| line.recovered_ms));
        let _ = writeln!(text, "{name:<46} {:>6}  {outage}      {recovered}", sum.lines.len());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(version: &str, faults: &[&str], acknowledged: u64, outcome: Outcome) -> Line {
        Line {
            version: version.to_owned(),
            faults: faults.iter().map(|fault| (*fault).to_owned()).collect(),
            acknowledged,
            outcome,
            outage_ms: 120.5,
            ..Line::default()
        }
    }

    #[test]
    fn lines_of_one_version_add_up() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("results/ledger.jsonl");
        let kafka = Kafka { acknowledged: 7, transactions: 5, group_ms: 12.0, ..Kafka::default() };
        let lines = [
            Line { kafka: Some(kafka), ..line("a", &["kill-broker", "loss"], 10, Outcome::Ok) },
            line("a", &["loss", "kill-broker"], 20, Outcome::Slow),
            line("a", &["end"], 0, Outcome::Ok),
            line("b", &["loss"], 40, Outcome::Failed),
        ];
        lines.iter().for_each(|line| line.append_to(&file).unwrap());
        let all = read(&file).unwrap();
        assert_eq!(all, lines);
        let text = report(&all, "a");
        assert!(text.contains("2 rounds with 4 faults in 1 combinations, 1 comparisons"), "{text}");
        assert!(text.contains("30 records acknowledged"), "{text}");
        assert!(text.contains("group: 7 records") && text.contains("transactions: 5"), "{text}");
        assert!(!report(&all, "b").contains("transactions"));
        assert!(text.contains("0 rounds failed, 1 took longer"), "{text}");
        assert!(report(&all, "b").contains("1 rounds failed"));
        let text = combinations(&all, "a");
        assert!(text.lines().any(|line| line.starts_with("kill-broker + loss ")), "{text}");
        assert_eq!(text.lines().count(), 2, "{text}");
    }
}
