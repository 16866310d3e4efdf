//! One line per round, kept; and the table that sums them up.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// What one round showed.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RoundResult {
    pub fault: String,
    pub round: u32,
    /// Who was hit.
    pub target: String,
    pub sent: u64,
    pub acknowledged: u64,
    /// Records of which the client said that they are not stored, and those of unknown outcome.
    pub failed: u64,
    pub unknown: u64,
    pub lost: u64,
    pub reordered: u64,
    pub duplicates: u64,
    /// Everything that must never be, by name; empty when all is well.
    pub anomalies: BTreeMap<String, u64>,
    /// The longest time in which some partition acknowledged nothing, from the fault to the end
    /// of the round.
    pub outage_ms: Option<f64>,
    pub outage_partition: Option<u32>,
    /// The same for each part of the round.
    pub phases_ms: BTreeMap<String, f64>,
    /// The longest time in which the consumer got nothing of some partition.
    pub reading_gap_ms: Option<f64>,
    /// From the fault (or the restart) until every partition acknowledged again, or until what
    /// the row asks for was there.
    pub recovered_ms: Option<f64>,
    /// Partitions whose leader moved.
    pub leaders_moved: u64,
    /// By how much the epochs rose, over all partitions.
    pub epochs: u64,
    pub notes: Vec<String>,
    /// Why the round failed; empty when it did not.
    pub failures: Vec<String>,
    pub revision: String,
    pub profile: String,
    /// Seconds since 1970.
    pub time: u64,
}

impl RoundResult {
    /// Nothing lost, reordered or repeated, and everything came back by itself.
    #[must_use]
    pub fn correct(&self) -> bool {
        self.failures.is_empty() && self.anomalies.is_empty()
    }

    /// Adds this round to a file of rounds.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn append_to(&self, file: &Path) -> anyhow::Result<()> {
        if let Some(parent) = file.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let mut out = std::fs::File::options().create(true).append(true).open(file)?;
        writeln!(out, "{}", serde_json::to_string(self)?).with_context(|| file.display().to_string())
    }
}

/// All rounds of a file.
///
/// # Errors
/// It cannot be read, or a line is not a round.
pub fn read(file: &Path) -> anyhow::Result<Vec<RoundResult>> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines.map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}

/// What a row's figures are held against, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bar {
    pub outage_median_ms: Option<f64>,
    pub outage_worst_ms: Option<f64>,
    pub recovered_worst_ms: Option<f64>,
}

/// The bars of the rows that have some.
#[must_use]
pub fn bar(fault: &str) -> Bar {
    let none = Bar::default();
    match fault {
        "kill9" => Bar { outage_median_ms: Some(250.0), outage_worst_ms: Some(500.0), ..none },
        "sigstop" => Bar { outage_worst_ms: Some(1_500.0), ..none },
        "kill-all" | "topic1000" => Bar { recovered_worst_ms: Some(5_000.0), ..none },
        "sigterm" => Bar { outage_worst_ms: Some(300.0), ..none },
        "topics200" => Bar { recovered_worst_ms: Some(100.0), ..none },
        "restart1000" => Bar { recovered_worst_ms: Some(10_000.0), ..none },
        _ => none,
    }
}

/// The middle and the largest of some figures.
#[must_use]
pub fn median_and_worst(mut figures: Vec<f64>) -> Option<(f64, f64)> {
    figures.sort_by(f64::total_cmp);
    let worst = *figures.last()?;
    let middle = figures.len() / 2;
    let median =
        if figures.len() % 2 == 1 { figures[middle] } else { f64::midpoint(figures[middle - 1], figures[middle]) };
    Some((median, worst))
}

/// A table of all rows, one line each, in the order in which they first occur.
#[must_use]
pub fn report(rounds: &[RoundResult]) -> String {
    let mut order: Vec<&str> = Vec::new();
    for round in rounds {
        if !order.contains(&round.fault.as_str()) {
            order.push(&round.fault);
        }
    }
    let mut text = format!(
        "{:<22} {:>6} {:>10} {:>5} {:>6} {:>5} {:>6} {:>17} {:>17} {:>6}  {}\n",
        "fault",
        "rounds",
        "acked",
        "lost",
        "order",
        "dup",
        "failed",
        "outage ms med/max",
        "back ms med/max",
        "moves",
        "verdict"
    );
    for fault in order {
        let of: Vec<&RoundResult> = rounds.iter().filter(|round| round.fault == fault).collect();
        text += &line(fault, &of);
    }
    text
}

fn line(fault: &str, rounds: &[&RoundResult]) -> String {
    let sum = |of: fn(&RoundResult) -> u64| rounds.iter().map(|round| of(round)).sum::<u64>();
    let figures = |of: fn(&RoundResult) -> Option<f64>| median_and_worst(rounds.iter().filter_map(|r| of(r)).collect());
    let outage = figures(|round| round.outage_ms);
    let recovered = figures(|round| round.recovered_ms);
    let show = |figures: Option<(f64, f64)>| figures.map_or("-".to_owned(), |(m, w)| format!("{m:.0} / {w:.0}"));
    format!(
        "{fault:<22} {:>6} {:>10} {:>5} {:>6} {:>5} {:>6} {:>17} {:>17} {:>6}  {}\n",
        rounds.len(),
        sum(|r| r.acknowledged),
        sum(|r| r.lost),
        sum(|r| r.reordered),
        sum(|r| r.duplicates),
        rounds.iter().filter(|round| !round.correct()).count(),
        show(outage),
        show(recovered),
        sum(|r| r.leaders_moved),
        verdict(fault, rounds, outage, recovered)
    )
}

fn verdict(fault: &str, rounds: &[&RoundResult], outage: Option<(f64, f64)>, recovered: Option<(f64, f64)>) -> String {
    let wrong = rounds.iter().filter(|round| !round.correct()).count();
    if wrong > 0 {
        return format!("FAILED in {wrong} rounds");
    }
    let bar = bar(fault);
    let above = |figure: Option<f64>, limit: Option<f64>| match (figure, limit) {
        (Some(figure), Some(limit)) => figure > limit,
        (None, Some(_)) => true,
        _ => false,
    };
    let (median, worst) = (outage.map(|(median, _)| median), outage.map(|(_, worst)| worst));
    let back = recovered.map(|(_, worst)| worst);
    let slow =
        above(median, bar.outage_median_ms) || above(worst, bar.outage_worst_ms) || above(back, bar.recovered_worst_ms);
    match (slow, bar == Bar::default()) {
        (true, _) => "correct, above the bar".to_owned(),
        (false, false) => "pass".to_owned(),
        (false, true) => "correct".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(fault: &str, outage_ms: f64) -> RoundResult {
        RoundResult { fault: fault.into(), outage_ms: Some(outage_ms), ..RoundResult::default() }
    }

    #[test]
    fn bars_are_held_against_the_median_and_the_worst() {
        let verdict_of = |outages: &[f64]| {
            let rounds: Vec<RoundResult> = outages.iter().map(|ms| round("kill9", *ms)).collect();
            report(&rounds).lines().nth(1).unwrap().to_owned()
        };
        assert!(verdict_of(&[100.0, 200.0, 499.0]).ends_with("  pass"));
        assert!(verdict_of(&[100.0, 251.0, 499.0]).ends_with("above the bar"));
        assert!(verdict_of(&[100.0, 200.0, 501.0]).ends_with("above the bar"));
    }

    #[test]
    fn a_wrong_round_fails_whatever_its_speed() {
        let mut wrong = round("kill9", 1.0);
        wrong.anomalies.insert("Lost".into(), 1);
        assert!(report(&[round("kill9", 1.0), wrong]).contains("FAILED in 1 rounds"));
    }

    #[test]
    fn rounds_are_kept_and_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("results/faults.jsonl");
        round("kill9", 12.5).append_to(&file).unwrap();
        round("sigstop", 900.0).append_to(&file).unwrap();
        let read = read(&file).unwrap();
        assert_eq!(read.iter().map(|r| r.outage_ms.unwrap()).collect::<Vec<_>>(), [12.5, 900.0]);
        std::fs::write(&file, "{").unwrap();
        assert!(super::read(&file).is_err());
    }

    #[test]
    fn the_median_of_an_even_number_is_between() {
        assert_eq!(median_and_worst(vec![4.0, 1.0, 3.0, 2.0]), Some((2.5, 4.0)));
        assert_eq!(median_and_worst(vec![]), None);
    }
}
