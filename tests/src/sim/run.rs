//! One run, from its plan to its outcome.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::time::Duration;

use baton_core::branches;
use baton_history::History;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use turmoil::Sim;
use xxhash_rust::xxh3::Xxh3;

use super::cluster::{Settings, SimCluster, TICK};
use super::committed::Counts;
use super::load::{Load, Stage};
use super::mutation::Planted;
use super::nemesis::Nemesis;
use super::plan::Plan;
use super::verdict;
use super::watch::{RegistryWatch, StateWatch};

/// Invariants over brokers and disks are looked at so often.
const LOOK_EVERY_MS: u64 = 100;

/// After the last fault everything has to be led and in sync within this.
const SETTLED_WITHIN: Duration = Duration::from_secs(28);

/// And everything has to be read from the first record to the last within this.
const READ_WITHIN: Duration = Duration::from_secs(20);

/// What a run showed.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// Empty: clean.
    pub violations: Vec<String>,
    /// Simulated time.
    pub simulated: Duration,
    /// From the end of the faults until everything was led and in sync.
    pub settled_after: Duration,
    pub operations: u64,
    pub faults: usize,
    /// Of everything that was written to the registry, recorded by clients, and left on the disks.
    pub digest: u64,
    /// What the clients did and were told.
    #[serde(skip)]
    pub history: History,
    /// How the transactions ended.
    #[serde(default)]
    pub transactions: Counts,
    /// How often each named branch of the core was taken.
    pub branches: BTreeMap<String, u64>,
}

impl Outcome {
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }
}

thread_local! {
    static PANICS: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// Panics inside a simulation are noted, with their place: most are caught by the runtime of
/// their host, and would be lost.
fn note_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let noted = PANICS.with_borrow_mut(|panics| panics.as_mut().map(|p| p.push(info.to_string())).is_some());
            if !noted {
                print(info);
            }
        }));
    });
}

/// Runs a plan.
#[must_use]
pub fn run(plan: &Plan) -> Outcome {
    note_panics();
    PANICS.set(Some(Vec::new()));
    branches::reset();
    let result = catch_unwind(AssertUnwindSafe(|| Run::start(plan).finish()));
    let panics = PANICS.replace(None).unwrap_or_default();
    let mut outcome = result.unwrap_or_default();
    outcome.violations.extend(panics);
    outcome.branches = branches::counts().into_iter().map(|(name, count)| (name.to_owned(), count)).collect();
    outcome
}

struct Run {
    sim: Sim<'static>,
    cluster: SimCluster,
    nemesis: Nemesis,
    load: Load,
    registry: RegistryWatch,
    state: StateWatch,
    stage: watch::Sender<Stage>,
    changes: tokio::sync::mpsc::UnboundedSender<super::What>,
    end: Duration,
    faults: usize,
    transacts: bool,
}

impl Run {
    fn start(plan: &Plan) -> Self {
        let planted = plan.mutation.as_deref().and_then(Planted::named);
        let cluster = SimCluster::with(Settings {
            brokers: plan.brokers,
            coordinators: plan.coordinators,
            seed: plan.seed,
            rehome_after: Duration::from_secs(plan.rehome_after_s),
            planted,
            tight: plan.tight,
            kafka: plan.transactions,
        });
        let registry = RegistryWatch::of(&cluster);
        let (stage, shown) = watch::channel(Stage::Load);
        let load = Load::new(cluster.clone(), shown, plan);
        let mut sim = cluster.start();
        let changes = load.add_hosts(&mut sim, plan);
        let nemesis = Nemesis::new(cluster.clone(), registry.clone(), plan);
        let state = StateWatch::new(cluster.clone(), registry.clone(), load.clone());
        let end = Duration::from_secs(plan.seconds);
        let (faults, transacts) = (plan.faults(), plan.transactions);
        Self { sim, cluster, nemesis, load, registry, state, stage, changes, end, faults, transacts }
    }

    fn finish(mut self) -> Outcome {
        let settled_after = self.go();
        let at_us = u64::try_from(self.sim.elapsed().as_micros()).unwrap_or(u64::MAX);
        verdict::record_unclean(&self.registry.known(), &self.load.recorder);
        verdict::record_replicas(&self.cluster, &self.registry.known(), &self.load.recorder, at_us);
        let history = self.load.recorder.take();
        if self.cluster.violations.is_empty()
            && let Err(why) = verdict::check_history(&history)
        {
            self.cluster.violations.add(why);
        }
        let mut digest = Xxh3::new();
        digest.update(&self.registry.digest().to_le_bytes());
        for event in &history.events {
            digest.update(format!("{event:?}").as_bytes());
        }
        digest.update(self.load.tell_transactions().as_bytes());
        digest.update(self.cluster.ensemble.dump().as_bytes());
        digest.update(&self.sim.elapsed().as_micros().to_le_bytes());
        Outcome {
            violations: self.cluster.violations.found(),
            simulated: self.sim.elapsed(),
            settled_after,
            operations: self.load.operations(),
            faults: self.faults,
            digest: digest.digest(),
            history,
            transactions: self.load.transactions(),
            branches: BTreeMap::new(),
        }
    }

    /// Returns how long it took to settle.
    fn go(&mut self) -> Duration {
        while self.sim.elapsed() < self.end && self.step() {}
        self.nemesis.mend_all(&mut self.sim);
        self.stage.send_replace(Stage::Settle);
        let deadline = self.sim.elapsed() + SETTLED_WITHIN;
        if !self.until(deadline, "settled", |run| run.unsettled()) {
            return Duration::ZERO;
        }
        let settled_after = self.sim.elapsed().saturating_sub(self.end);
        if let Err(why) = self.load.check_keys(&self.registry.known()) {
            self.cluster.violations.add(why);
        }
        let ends = verdict::ends(&self.cluster, &self.registry.known());
        self.load.set_ends(ends);
        self.stage.send_replace(Stage::Read);
        let deadline = self.sim.elapsed() + READ_WITHIN;
        self.until(deadline, "read", |run| run.unread());
        if self.transacts && self.cluster.violations.is_empty() && self.load.transactions().committed == 0 {
            let counts = self.load.transactions();
            self.cluster.violations.add(format!("no transaction was committed while things went wrong: {counts:?}"));
        }
        settled_after
    }

    fn unread(&mut self) -> Option<String> {
        let waits = || format!("not everything could be read{}", self.load.transactions_wait_for());
        (!self.load.has_read()).then(waits)
    }

    /// Steps until nothing is missing; false, with a violation, if that does not come.
    fn until(&mut self, deadline: Duration, what: &str, missing: impl Fn(&mut Self) -> Option<String>) -> bool {
        loop {
            if !self.step() {
                return false;
            }
            if !self.is_time_to_look() {
                continue;
            }
            let Some(why) = missing(self) else { return true };
            if self.sim.elapsed() >= deadline {
                self.cluster.violations.add(format!("not {what} in time: {why}"));
                return false;
            }
        }
    }

    fn unsettled(&mut self) -> Option<String> {
        if !self.nemesis.all_run() {
            return Some("a process does not run".to_owned());
        }
        // Where everything ends is known only after the last record.
        let speaking = self.load.speaking();
        if !speaking.is_empty() {
            return Some(format!(
                "producers {speaking:?} have not sent their last records{}",
                self.load.transactions_wait_for()
            ));
        }
        let under_way = self.load.under_way();
        if !under_way.is_empty() {
            return Some(format!("neither acknowledged nor refused: {under_way:?}"));
        }
        let running: BTreeSet<_> = self.cluster.live().values().map(|live| live.incarnation).collect();
        let known = self.registry.known();
        if super::Topic::ALL.iter().any(|topic| known.topic(*topic).is_none()) {
            // Every broker was down too long for it to be made: nothing was promised.
            return None;
        }
        known.unsettled(&running).or_else(|| verdict::check_copies(&self.cluster, &known).err())
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.sim.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn is_time_to_look(&self) -> bool {
        let tick = u64::try_from(TICK.as_millis()).unwrap_or(1);
        self.now_ms() % LOOK_EVERY_MS < tick
    }

    /// False: something is wrong already.
    fn step(&mut self) -> bool {
        let now_ms = self.now_ms();
        for change in self.nemesis.step(&mut self.sim, now_ms) {
            // The client's host outlives the run.
            let _ = self.changes.send(change);
        }
        if let Err(error) = self.sim.step() {
            self.cluster.violations.add(format!("a host failed: {error}"));
        }
        self.cluster.after_step(&self.sim);
        if self.is_time_to_look() {
            self.state.look(&self.nemesis.damaged);
        }
        PANICS.with_borrow(|panics| panics.as_ref().is_none_or(Vec::is_empty)) && self.cluster.violations.is_empty()
    }
}
