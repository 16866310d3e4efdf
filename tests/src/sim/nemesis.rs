//! Carries out the faults of a plan, and mends them when their time is over.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use baton_broker::log::memory::MemoryDisk;
use turmoil::Sim;

use super::plan::{Plan, Timed, What};
use super::topic::Place;
use super::watch::RegistryWatch;
use super::{SimCluster, broker_name, client_name, coordinator_name};

/// A process that ended by itself is started again after so long.
const RESTART_AFTER_MS: u64 = 1_000;

/// Hosts of clients.
pub const CLIENTS: u32 = 2;

/// How a link between two hosts is, seen from the smaller name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Link {
    held: bool,
    cut_there: bool,
    cut_back: bool,
}

pub struct Nemesis {
    cluster: SimCluster,
    registry: RegistryWatch,
    events: Vec<Timed>,
    next: usize,
    /// What is under way, by its number in the plan; with when it ends.
    active: BTreeMap<usize, u64>,
    hosts: Vec<String>,
    links: BTreeMap<(String, String), Link>,
    /// Brokers and coordinators that are down because of a fault.
    down: BTreeSet<String>,
    /// Since when a host is down by itself.
    ended: BTreeMap<String, u64>,
    new_disks: u32,
    /// Brokers whose disk has lost or changed something: until they were refilled, what they
    /// have is not to be relied on.
    pub damaged: BTreeSet<u32>,
}

impl Nemesis {
    #[must_use]
    pub fn new(cluster: SimCluster, registry: RegistryWatch, plan: &Plan) -> Self {
        let brokers = (1..=plan.brokers).map(broker_name);
        let coordinators = (1..=plan.coordinators).map(coordinator_name);
        let hosts = brokers.chain(coordinators).chain((1..=CLIENTS).map(client_name)).collect();
        Self {
            cluster,
            registry,
            events: plan.events.clone(),
            next: 0,
            active: BTreeMap::new(),
            hosts,
            links: BTreeMap::new(),
            down: BTreeSet::new(),
            ended: BTreeMap::new(),
            new_disks: 0,
            damaged: BTreeSet::new(),
        }
    }

    /// Begins and ends what is due. Returns the changes that an administrator is to make now.
    pub fn step(&mut self, sim: &mut Sim<'static>, now_ms: u64) -> Vec<What> {
        let over: Vec<usize> = self.active.iter().filter(|(_, end)| **end <= now_ms).map(|(n, _)| *n).collect();
        for number in over {
            self.end(sim, number);
        }
        let mut changes = Vec::new();
        while let Some(event) = self.events.get(self.next).filter(|event| event.at_ms <= now_ms) {
            let (number, mut event) = (self.next, event.clone());
            self.next += 1;
            if let What::ToLeader { place, strike } = event.what {
                let Some(leader) = self.leader(place) else { continue };
                event.what = strike.at(leader);
                self.events[number].what = event.what.clone();
            }
            if event.what.is_change() {
                tracing::info!(what = ?event.what, "is asked for");
                changes.push(event.what);
                continue;
            }
            tracing::info!(what = ?event.what, for_ms = event.for_ms, "begins");
            self.active.insert(number, event.at_ms + event.for_ms);
            self.begin(sim, &event.what);
            self.settle_links(sim);
        }
        self.revive(sim, now_ms);
        changes
    }

    /// The broker that the registry names.
    fn leader(&self, place: Place) -> Option<u32> {
        let known = self.registry.known();
        let id = known.id(place)?;
        known.states.get(&id)?.leader.map(|leader| leader.broker.0)
    }

    /// Ends everything, and begins nothing more.
    pub fn mend_all(&mut self, sim: &mut Sim<'static>) {
        self.next = self.events.len();
        for number in self.active.keys().copied().collect::<Vec<_>>() {
            self.end(sim, number);
        }
    }

    /// Every process is running.
    #[must_use]
    pub fn all_run(&self) -> bool {
        self.down.is_empty() && self.ended.is_empty()
    }

    fn begin(&mut self, sim: &mut Sim<'static>, what: &What) {
        let (ensemble, network) = (self.cluster.ensemble.clone(), self.cluster.network.clone());
        match what {
            What::Kill { host } => self.crash(sim, host),
            What::PowerOff { broker, torn } => self.power_off(sim, *broker, *torn),
            What::Blackout { torn } => {
                for broker in 1..=self.cluster.settings.brokers {
                    self.power_off(sim, broker, *torn);
                }
            }
            What::Pause { host } | What::SilentRegistry { host } => ensemble.set_silent(host, true),
            What::NoRegistry { host } => ensemble.set_linked(host, false),
            What::Lag { host } => ensemble.set_lagging(host, true),
            What::LoseAnswers { host, percent } => network.set_lossy(host, *percent),
            What::Blip { host } => ensemble.blip(host),
            What::Expire { host } => ensemble.expire_client(host),
            What::NoQuorum => ensemble.stop(),
            What::ClockJump { host, ms } => self.cluster.jump(host, *ms),
            What::SlowDisk { broker, ms } => self.cluster.disk(*broker).set_slow(Duration::from_millis(*ms)),
            What::FullDisk { broker } => self.cluster.disk(*broker).set_full(true),
            What::Overloaded { broker } => self.cluster.disk(*broker).set_overloaded(true),
            What::RefuseAppend { broker } => self.cluster.disk(*broker).refuse_next_append(),
            What::FailSync { broker } => self.cluster.disk(*broker).fail_next_sync(),
            What::BitRot { broker, batch } => self.rot(*broker, *batch),
            What::LoseTail { broker, copy, batches } => {
                self.power_off(sim, *broker, 0);
                self.lose_tail(*broker, *copy, *batches);
            }
            What::NewDisk { broker } => {
                self.power_off(sim, *broker, 0);
                self.new_disks += 1;
                self.cluster.replace_disk(*broker, self.new_disks);
                self.damaged.insert(*broker);
            }
            What::Drain { broker } => self.cluster.drain(*broker),
            _ => {}
        }
    }

    fn end(&mut self, sim: &mut Sim<'static>, number: usize) {
        self.active.remove(&number);
        let Some(what) = self.events.get(number).map(|event| event.what.clone()) else { return };
        tracing::info!(?what, "ends");
        let (ensemble, network) = (self.cluster.ensemble.clone(), self.cluster.network.clone());
        match &what {
            What::Kill { host } => self.restart(sim, host),
            What::PowerOff { broker, .. } | What::LoseTail { broker, .. } | What::NewDisk { broker } => {
                self.restart(sim, &broker_name(*broker));
            }
            What::Blackout { .. } => {
                for broker in 1..=self.cluster.settings.brokers {
                    self.restart(sim, &broker_name(broker));
                }
            }
            // Damage at rest is found when the disk is read from the start.
            What::BitRot { broker, .. } => {
                self.crash(sim, &broker_name(*broker));
                self.restart(sim, &broker_name(*broker));
            }
            What::Pause { host } | What::SilentRegistry { host } if !self.is_silenced(host) => {
                ensemble.set_silent(host, false);
            }
            What::NoRegistry { host } => ensemble.set_linked(host, true),
            What::Lag { host } => ensemble.set_lagging(host, false),
            What::LoseAnswers { host, .. } => network.set_lossy(host, 0),
            What::NoQuorum => ensemble.start(),
            What::ClockJump { host, ms } => self.cluster.jump(host, -ms),
            What::SlowDisk { broker, .. } => self.cluster.disk(*broker).set_slow(Duration::ZERO),
            What::FullDisk { broker } => self.cluster.disk(*broker).set_full(false),
            What::Overloaded { broker } => self.cluster.disk(*broker).set_overloaded(false),
            _ => {}
        }
        self.settle_links(sim);
    }

    fn is_active(&self, is: impl Fn(&What) -> bool) -> bool {
        self.active.keys().filter_map(|n| self.events.get(*n)).any(|event| is(&event.what))
    }

    /// Another fault still keeps it from the registry.
    fn is_silenced(&self, host: &str) -> bool {
        self.is_active(|what| match what {
            What::Pause { host: other } | What::SilentRegistry { host: other } => other == host,
            _ => false,
        })
    }

    fn crash(&mut self, sim: &mut Sim<'static>, host: &str) {
        if self.down.insert(host.to_owned()) {
            self.ended.remove(host);
            sim.crash(host);
        }
    }

    fn power_off(&mut self, sim: &mut Sim<'static>, broker: u32, torn: usize) {
        let disk = self.cluster.disk(broker);
        disk.power_off_keeping(torn.min(disk.staged()));
        self.crash(sim, &broker_name(broker));
    }

    /// Unless another fault still keeps it down.
    fn restart(&mut self, sim: &mut Sim<'static>, host: &str) {
        let kept = self.is_active(|what| match what {
            What::Kill { host: other } => other == host,
            What::PowerOff { broker, .. } | What::LoseTail { broker, .. } | What::NewDisk { broker } => {
                broker_name(*broker) == host
            }
            What::Blackout { .. } => host.starts_with("broker"),
            _ => false,
        });
        if !kept && self.down.remove(host) {
            sim.bounce(host);
        }
    }

    /// Starts processes again that ended by themselves: stopped well, or after a failed fsync.
    fn revive(&mut self, sim: &mut Sim<'static>, now_ms: u64) {
        for id in 1..=self.cluster.settings.brokers {
            let host = broker_name(id);
            if self.down.contains(&host) || sim.is_host_running(host.as_str()) {
                self.ended.remove(&host);
                continue;
            }
            let since = *self.ended.entry(host.clone()).or_insert(now_ms);
            if now_ms >= since + RESTART_AFTER_MS {
                self.ended.remove(&host);
                sim.bounce(host.as_str());
            }
        }
    }

    fn rot(&mut self, broker: u32, batch: u32) {
        let disk = self.cluster.disk(broker);
        let copies = disk.copies();
        let places: Vec<_> = copies.iter().flat_map(|c| c.batches.iter().map(|b| (c.partition, b.base))).collect();
        if let Some((partition, at)) = places.get(batch as usize % places.len().max(1)) {
            self.damaged.insert(broker);
            disk.corrupt(*partition, *at);
        }
    }

    fn lose_tail(&mut self, broker: u32, copy: u32, batches: usize) {
        let disk: MemoryDisk = self.cluster.disk(broker);
        let copies = disk.copies();
        if let Some(copy) = copies.get(copy as usize % copies.len().max(1)) {
            self.damaged.insert(broker);
            disk.lose_tail(copy.partition, batches);
        }
    }

    /// Brings every link into the state that the faults under way ask for.
    fn settle_links(&mut self, sim: &mut Sim<'static>) {
        let mut wanted: BTreeMap<(String, String), Link> = BTreeMap::new();
        for event in self.active.keys().filter_map(|n| self.events.get(*n)) {
            match &event.what {
                What::Pause { host } => {
                    for other in self.hosts.iter().filter(|other| *other != host) {
                        wanted.entry(pair(host, other)).or_default().held = true;
                    }
                }
                What::Isolate { host } => {
                    for other in self.hosts.iter().filter(|other| *other != host) {
                        let link = wanted.entry(pair(host, other)).or_default();
                        (link.cut_there, link.cut_back) = (true, true);
                    }
                }
                What::Partition { a, b } => {
                    let link = wanted.entry(pair(a, b)).or_default();
                    (link.cut_there, link.cut_back) = (true, true);
                }
                What::OneWay { from, to } => {
                    let link = wanted.entry(pair(from, to)).or_default();
                    if from < to { link.cut_there = true } else { link.cut_back = true }
                }
                _ => {}
            }
        }
        let known: BTreeSet<_> = self.links.keys().chain(wanted.keys()).cloned().collect();
        for pair in known {
            let (old, new) = (self.links.get(&pair).copied(), wanted.get(&pair).copied());
            if old != new {
                set_link(sim, &pair, old.unwrap_or_default(), new.unwrap_or_default());
            }
        }
        self.links = wanted;
    }
}

fn pair(one: &str, other: &str) -> (String, String) {
    let (a, b) = if one < other { (one, other) } else { (other, one) };
    (a.to_owned(), b.to_owned())
}

/// turmoil cannot cut a link that it holds: holding goes first.
fn set_link(sim: &Sim<'static>, (a, b): &(String, String), old: Link, new: Link) {
    let (a, b) = (a.as_str(), b.as_str());
    if old.held {
        sim.release(a, b);
    } else {
        sim.repair(a, b);
    }
    if new.held {
        sim.hold(a, b);
        return;
    }
    match (new.cut_there, new.cut_back) {
        (true, true) => sim.partition(a, b),
        (true, false) => sim.partition_oneway(a, b),
        (false, true) => sim.partition_oneway(b, a),
        (false, false) => {}
    }
}
