//! Cuts a failing plan down: to the events that are needed, and then to the load that is.

use anyhow::Result;

use super::plan::Plan;
use super::process::Runner;
use super::run::Outcome;

/// What is left of a plan.
#[derive(Clone, Debug)]
pub struct Shrunk {
    pub plan: Plan,
    pub outcome: Outcome,
    /// The numbers of its events in the plan that it was cut from.
    pub kept: Vec<usize>,
    /// Runs that were needed.
    pub runs: u32,
}

/// What two failures have in common: their words, without numbers and names.
fn kind(outcome: &Outcome) -> Option<String> {
    let first = outcome.violations.first()?;
    let words = first.split(|c: char| !c.is_ascii_alphabetic()).filter(|word| word.len() > 3);
    Some(words.take(6).collect::<Vec<_>>().join(" "))
}

struct Shrinker<'a> {
    runner: &'a Runner,
    whole: &'a Plan,
    kind: String,
    runs: u32,
    runs_max: u32,
    best: (Plan, Outcome, Vec<usize>),
}

impl Shrinker<'_> {
    /// Whether the plan with these events fails in the same way; if so, it is the best one.
    fn fails(&mut self, plan: Plan, kept: Vec<usize>) -> bool {
        if self.runs >= self.runs_max {
            return false;
        }
        self.runs += 1;
        let Ok(outcome) = self.runner.run(&plan, None) else { return false };
        let same = kind(&outcome).is_some_and(|kind| kind == self.kind);
        if same {
            self.best = (plan, outcome, kept);
        }
        same
    }

    fn with_events(&self, kept: &[usize]) -> Plan {
        let events = kept.iter().filter_map(|n| self.whole.events.get(*n)).cloned().collect();
        Plan { events, ..self.best.0.clone() }
    }

    /// Delta debugging (Zeller): leaves out ever smaller parts.
    fn cut_events(&mut self) {
        let mut parts = 2;
        loop {
            let kept = self.best.2.clone();
            if kept.is_empty() || self.runs >= self.runs_max {
                return;
            }
            let size = kept.len().div_ceil(parts);
            let smaller = (0..kept.len()).step_by(size).find_map(|from| {
                let rest: Vec<usize> =
                    kept.iter().enumerate().filter(|(i, _)| *i < from || *i >= from + size).map(|(_, n)| *n).collect();
                let plan = self.with_events(&rest);
                self.fails(plan, rest).then_some(())
            });
            match smaller {
                Some(()) => parts = 2.max(parts - 1),
                None if size == 1 => return,
                None => parts = kept.len().min(parts * 2),
            }
        }
    }

    fn cut_load(&mut self) {
        let last_ms = self.best.0.events.iter().map(|event| event.at_ms + event.for_ms).max().unwrap_or(0);
        let seconds = (last_ms / 1_000 + 4).min(self.best.0.seconds);
        let cuts: [fn(&mut Plan, u64); 3] = [
            |plan, seconds| plan.seconds = seconds,
            |plan, _| plan.consumers = 0,
            |plan, _| plan.producers = plan.producers.min(2),
        ];
        for cut in cuts {
            let mut plan = self.best.0.clone();
            cut(&mut plan, seconds);
            if plan != self.best.0 {
                let kept = self.best.2.clone();
                self.fails(plan, kept);
            }
        }
    }
}

/// Cuts down a plan that fails; none if it does not.
///
/// # Errors
/// The simulation cannot be run.
pub fn shrink(runner: &Runner, plan: &Plan, runs_max: u32) -> Result<Option<Shrunk>> {
    let outcome = runner.run(plan, None)?;
    let Some(kind) = kind(&outcome) else { return Ok(None) };
    let kept = (0..plan.events.len()).collect();
    let mut shrinker = Shrinker { runner, whole: plan, kind, runs: 1, runs_max, best: (plan.clone(), outcome, kept) };
    shrinker.cut_events();
    shrinker.cut_load();
    let (plan, outcome, kept) = shrinker.best;
    Ok(Some(Shrunk { plan, outcome, kept, runs: shrinker.runs }))
}
