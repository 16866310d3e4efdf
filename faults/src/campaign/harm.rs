//! How each fault begins and ends on the running cluster.

use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use tokio::time::sleep;

use super::draw::{Drawn, Kind};
use super::work::{self, Work};
use crate::cluster::Cluster;
use crate::daemon::Signal;
use crate::network::link::Links;
use crate::network::proxy::Condition;
use crate::network::rules::{Rule, Rules};
use crate::network::{Host, run};

/// A broker that is told to stop hands over within its own deadline (5 s in a sandbox).
const STOPS_WITHIN: Duration = Duration::from_secs(15);
/// How long a rolling restart waits for each broker, whatever else goes on.
const ROLLS_ON_AFTER: Duration = Duration::from_secs(4);
/// Well below the reserve of a sandbox's broker (64 MiB).
const BELOW_RESERVE_BYTES: u64 = 32 << 20;
const YEAR_S: i64 = 365 * 86_400;

/// What faults are done to.
pub struct Scene {
    pub cluster: Cluster,
    pub rules: Rules,
    pub links: Links,
    pub admin: baton_client::Admin,
    /// Names the topics that rounds make.
    pub made: u32,
    /// Administrators that finish what they have begun.
    pub working: Vec<Work>,
}

/// How a fault is ended.
pub enum Undo {
    StartBroker(u32),
    /// This process of a broker was told to stop, and has to have done so.
    AwaitBroker(u32, Option<u32>),
    StartCoordinator(usize),
    StartZookeeper(usize),
    ContinueBroker(u32),
    ContinueCoordinator(usize),
    ContinueZookeeper(usize),
    Rules(u64),
    /// The links of a host are as they should be again.
    Link(Host),
    Disk(u32),
    Clock(String),
    /// A process, and how many files it may have open.
    Files(u32, String),
    Work(Work),
}

/// A fault that goes on.
pub struct Active {
    pub kind: Kind,
    /// Who is hit, for people.
    pub target: String,
    undo: Vec<Undo>,
}

impl Scene {
    fn broker_count(&self) -> u32 {
        self.cluster.broker_count()
    }

    fn others(&self, broker: u32) -> Vec<Host> {
        (1..=self.broker_count()).filter(|id| *id != broker).map(Host::broker).collect()
    }

    /// Begins a fault.
    ///
    /// # Errors
    /// The harness cannot do it.
    pub async fn begin(&mut self, drawn: &Drawn) -> anyhow::Result<Active> {
        let [first, _] = drawn.brokers;
        let (target, undo) = match drawn.kind {
            Kind::KillBroker
            | Kind::StopBroker
            | Kind::TermBroker
            | Kind::KillAll
            | Kind::RollingRestart
            | Kind::EmptyDisk => self.hit_broker(drawn).await?,
            Kind::KillCoordinator | Kind::StopCoordinator | Kind::CutCoordinator => self.hit_coordinator(drawn).await?,
            Kind::KillZookeeper | Kind::KillZookeeperLeader | Kind::StopZookeeper | Kind::QuorumLost => {
                self.hit_zookeeper(drawn)?
            }
            Kind::CutBrokers
            | Kind::CutBrokersOneWay
            | Kind::IsolateBroker
            | Kind::IsolateBrokerOneWay
            | Kind::CutZookeeper
            | Kind::CutZookeeperOneWay
            | Kind::CutClients
            | Kind::CutClientsOneWay
            | Kind::UnplugBroker
            | Kind::Loss => self.hit_network(drawn)?,
            Kind::SlowBroker | Kind::SlowZookeeper | Kind::SlowClients | Kind::HalfOpen => {
                self.hit_links(drawn).await?
            }
            Kind::DiskReserve | Kind::DiskFull => {
                let leave = if drawn.kind == Kind::DiskFull { 0 } else { BELOW_RESERVE_BYTES };
                self.cluster.disk(first).fill(leave)?;
                (format!("broker-{first}"), vec![Undo::Disk(first)])
            }
            Kind::ClockJump => self.hit_clock(drawn)?,
            Kind::FilesExhausted => self.hit_files(first)?,
            Kind::Topics | Kind::Reassign => {
                self.made += 1;
                let work = work::start(drawn.kind, self.admin.clone(), self.made, self.broker_count());
                (String::new(), vec![Undo::Work(work)])
            }
        };
        Ok(Active { kind: drawn.kind, target, undo })
    }

    /// Ends a fault: everything runs and is connected again when this returns.
    ///
    /// # Errors
    /// Something does not come back, or did not do what it was told to do.
    pub async fn end(&mut self, active: Active) -> anyhow::Result<()> {
        for undo in active.undo {
            self.undo(undo).await.with_context(|| format!("the end of {}", active.kind.name()))?;
        }
        Ok(())
    }

    /// Waits until the administrators have finished.
    ///
    /// # Errors
    /// A request failed for good, or is never answered.
    pub async fn finish_work(&mut self) -> anyhow::Result<()> {
        for work in std::mem::take(&mut self.working) {
            work.end().await?;
        }
        Ok(())
    }

    async fn undo(&mut self, undo: Undo) -> anyhow::Result<()> {
        match undo {
            Undo::StartBroker(id) if !self.cluster.broker(id).runs() => self.cluster.broker(id).start()?,
            // Another fault of the round may have killed it, and another process run by now.
            Undo::AwaitBroker(id, pid) if pid.is_some() && self.cluster.broker(id).pid() == pid => {
                let broker = self.cluster.broker(id);
                broker.signal(Signal::Continue)?;
                broker.ended(STOPS_WITHIN).await?;
            }
            Undo::StartCoordinator(number) if !self.cluster.coordinator(number).runs() => {
                self.cluster.coordinator(number).start()?;
            }
            Undo::StartZookeeper(server) if !self.cluster.ensemble.runs(server) => {
                self.cluster.ensemble.spawn(server)?;
            }
            Undo::StartBroker(_) | Undo::AwaitBroker(..) | Undo::StartCoordinator(_) | Undo::StartZookeeper(_) => {}
            // A pair of faults may have killed what was stopped.
            Undo::ContinueBroker(id) => drop(self.cluster.broker(id).signal(Signal::Continue)),
            Undo::ContinueCoordinator(number) => drop(self.cluster.coordinator(number).signal(Signal::Continue)),
            Undo::ContinueZookeeper(server) => drop(self.cluster.ensemble.freeze(server, false)),
            Undo::Rules(number) => self.rules.remove(number)?,
            Undo::Link(host) => drop(self.links.set(&host, &[], Condition::default()).await?),
            Undo::Disk(broker) => self.cluster.disk(broker).unfill()?,
            Undo::Clock(name) => self.cluster.clocks.as_ref().map_or(Ok(()), |clocks| clocks.set(&name, 0))?,
            // The process may be another one by now, with limits of its own.
            Undo::Files(pid, limit) => drop(limit_files(pid, &limit)),
            // Finished only when every fault is over: what it waits for may be another one's end.
            Undo::Work(work) => {
                work.stop();
                self.working.push(work);
            }
        }
        Ok(())
    }

    async fn hit_broker(&mut self, drawn: &Drawn) -> anyhow::Result<(String, Vec<Undo>)> {
        let [victim, _] = drawn.brokers;
        let target = format!("broker-{victim}");
        match drawn.kind {
            Kind::StopBroker => {
                let _ = self.cluster.broker(victim).signal(Signal::Stop);
                Ok((target, vec![Undo::ContinueBroker(victim)]))
            }
            Kind::TermBroker => {
                let _ = self.cluster.broker(victim).signal(Signal::Terminate);
                let pid = self.cluster.broker(victim).pid();
                Ok((target, vec![Undo::AwaitBroker(victim, pid), Undo::StartBroker(victim)]))
            }
            Kind::KillAll => {
                let all: Vec<u32> = (1..=self.broker_count()).collect();
                self.cluster.kill_all_brokers()?;
                Ok(("all".to_owned(), all.into_iter().map(Undo::StartBroker).collect()))
            }
            Kind::RollingRestart => {
                for id in 1..=self.broker_count() {
                    let broker = self.cluster.broker(id);
                    if broker.runs() {
                        broker.signal(Signal::Terminate)?;
                        // Another fault of the round may have stopped it where it is.
                        broker.signal(Signal::Continue)?;
                        broker.ended(STOPS_WITHIN).await?;
                        broker.start()?;
                        let _ = broker.ready(ROLLS_ON_AFTER).await;
                    }
                }
                Ok(("each".to_owned(), Vec::new()))
            }
            Kind::EmptyDisk => {
                self.cluster.broker(victim).kill();
                self.cluster.wipe(victim)?;
                Ok((target, vec![Undo::StartBroker(victim)]))
            }
            _ => {
                self.cluster.broker(victim).kill();
                Ok((target, vec![Undo::StartBroker(victim)]))
            }
        }
    }

    async fn hit_coordinator(&mut self, drawn: &Drawn) -> anyhow::Result<(String, Vec<Undo>)> {
        let active = self.cluster.active_now(&self.admin).await.unwrap_or(drawn.zookeeper % 2);
        let target = format!("coordinator-{}", active + 1);
        let undo = match drawn.kind {
            Kind::KillCoordinator => {
                self.cluster.coordinator(active).kill();
                Undo::StartCoordinator(active)
            }
            Kind::StopCoordinator => {
                let _ = self.cluster.coordinator(active).signal(Signal::Stop);
                Undo::ContinueCoordinator(active)
            }
            _ => {
                let host = Host::coordinator(u32::try_from(active)? + 1);
                let rules = (1..=3).flat_map(|number| both(&host, &Host::zookeeper(number)));
                Undo::Rules(self.rules.add(rules.collect())?)
            }
        };
        Ok((target, vec![undo]))
    }

    fn hit_zookeeper(&mut self, drawn: &Drawn) -> anyhow::Result<(String, Vec<Undo>)> {
        let ensemble = &mut self.cluster.ensemble;
        let server = match drawn.kind {
            Kind::KillZookeeperLeader => ensemble.leader().unwrap_or(drawn.zookeeper),
            _ => drawn.zookeeper,
        };
        let target = format!("zookeeper-{}", server + 1);
        if drawn.kind == Kind::StopZookeeper {
            let _ = ensemble.freeze(server, true);
            return Ok((target, vec![Undo::ContinueZookeeper(server)]));
        }
        let two = [server, (server + 1) % 3];
        let dead = if drawn.kind == Kind::QuorumLost { &two[..] } else { &two[..1] };
        dead.iter().for_each(|server| ensemble.kill(*server));
        Ok((target, dead.iter().copied().map(Undo::StartZookeeper).collect()))
    }

    fn hit_network(&mut self, drawn: &Drawn) -> anyhow::Result<(String, Vec<Undo>)> {
        let [first, second] = drawn.brokers;
        let (broker, clients) = (Host::broker(first), Host::clients());
        let others = self.others(first);
        let zookeepers: Vec<Host> = (1..=3).map(Host::zookeeper).collect();
        let everybody = || {
            others.iter().chain(&zookeepers).cloned().chain([
                clients.clone(),
                Host::coordinator(1),
                Host::coordinator(2),
            ])
        };
        let (peers, both_ways): (Vec<Host>, bool) = match drawn.kind {
            Kind::CutBrokers => (vec![Host::broker(second)], true),
            Kind::CutBrokersOneWay => (vec![Host::broker(second)], false),
            Kind::IsolateBroker => (others.clone(), true),
            Kind::IsolateBrokerOneWay => (others.clone(), false),
            Kind::CutZookeeper => (zookeepers.clone(), true),
            Kind::CutZookeeperOneWay => (zookeepers.clone(), false),
            Kind::CutClients => (vec![clients.clone()], true),
            Kind::CutClientsOneWay => (vec![clients.clone()], false),
            Kind::UnplugBroker => (everybody().collect(), true),
            _ => {
                let all: Vec<Host> = [broker].into_iter().chain(everybody()).collect();
                let host = all[drawn.amount as usize % all.len()].clone();
                let percent = u8::try_from(5 + drawn.amount % 26)?;
                let target = format!("{} {percent}%", host.name);
                return Ok((target, vec![Undo::Rules(self.rules.add(vec![Rule::Lossy { host, percent }])?)]));
            }
        };
        let mut rules = Vec::new();
        for peer in &peers {
            if both_ways || drawn.outbound {
                rules.push(Rule::Cut { from: broker.clone(), to: peer.clone() });
            }
            if both_ways || !drawn.outbound {
                rules.push(Rule::Cut { from: peer.clone(), to: broker.clone() });
            }
        }
        let way = match (both_ways, drawn.outbound) {
            (true, _) => "",
            (false, true) => " out",
            (false, false) => " in",
        };
        let peer = if peers.len() == 1 { format!(" {}", peers[0].name) } else { String::new() };
        Ok((format!("{}{peer}{way}", broker.name), vec![Undo::Rules(self.rules.add(rules)?)]))
    }

    /// Both sides' connections, each through the proxy of the side that connects.
    async fn hit_links(&mut self, drawn: &Drawn) -> anyhow::Result<(String, Vec<Undo>)> {
        let broker = Host::broker(drawn.brokers[0]);
        let others = self.others(drawn.brokers[0]);
        let zookeepers: Vec<Host> = (1..=3).map(Host::zookeeper).collect();
        let slow = Condition {
            delay_ms: u64::from(10 + drawn.amount * 4),
            bytes_per_s: if drawn.outbound { 50_000 + 2_000 * u64::from(drawn.amount) } else { 0 },
            hold: false,
        };
        let ways: Vec<(Host, Vec<Host>)> = match drawn.kind {
            Kind::SlowZookeeper => vec![(broker.clone(), zookeepers)],
            Kind::SlowClients => vec![(Host::clients(), vec![broker.clone()])],
            _ => {
                let towards = others.iter().map(|other| (other.clone(), vec![broker.clone()]));
                towards.chain([(broker.clone(), others.clone())]).collect()
            }
        };
        let (mut undo, mut rules) = (Vec::new(), Vec::new());
        for (from, to) in &ways {
            // A half-open link is a good one first: there have to be connections.
            let first = if drawn.kind == Kind::HalfOpen { Condition::default() } else { slow };
            rules.push(Rule::Detour(self.links.set(from, to, first).await?));
        }
        undo.push(Undo::Rules(self.rules.add(rules)?));
        undo.extend(ways.iter().map(|(from, _)| Undo::Link(from.clone())));
        if drawn.kind == Kind::HalfOpen {
            sleep(Duration::from_millis(700)).await;
            for (from, to) in &ways {
                self.links.set(from, to, Condition { hold: true, ..Condition::default() }).await?;
            }
            return Ok((broker.name, undo));
        }
        Ok((format!("{} {} ms {} B/s", broker.name, slow.delay_ms, slow.bytes_per_s), undo))
    }

    fn hit_clock(&mut self, drawn: &Drawn) -> anyhow::Result<(String, Vec<Undo>)> {
        let name = if drawn.amount < 20 {
            format!("coordinator-{}", drawn.amount % 2 + 1)
        } else {
            format!("broker-{}", drawn.brokers[0])
        };
        let far = [5, 60, 3_600, 86_400, YEAR_S, 20 * YEAR_S][drawn.amount as usize % 6];
        let seconds: i64 = if drawn.outbound { far } else { -far };
        self.cluster.clocks.as_ref().context("no clocks of their own")?.set(&name, seconds)?;
        Ok((format!("{name} {seconds:+} s"), vec![Undo::Clock(name)]))
    }

    fn hit_files(&mut self, victim: u32) -> anyhow::Result<(String, Vec<Undo>)> {
        let target = format!("broker-{victim}");
        let Some(pid) = self.cluster.broker(victim).pid() else { return Ok((target, Vec::new())) };
        let limits = std::fs::read_to_string(format!("/proc/{pid}/limits"))?;
        let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).context("no limit")?;
        let mut words = line.split_whitespace();
        let (soft, hard) = (words.next().context("no limit")?, words.next().context("no limit")?);
        let open = std::fs::read_dir(format!("/proc/{pid}/fd"))?.count();
        limit_files(pid, &format!("{open}:{hard}"))?;
        Ok((format!("{target} {open} files"), vec![Undo::Files(pid, format!("{soft}:{hard}"))]))
    }
}

fn both(one: &Host, other: &Host) -> [Rule; 2] {
    [(one, other), (other, one)].map(|(from, to)| Rule::Cut { from: from.clone(), to: to.clone() })
}

fn limit_files(pid: u32, limit: &str) -> anyhow::Result<()> {
    run(Command::new("prlimit").args(["--pid", &pid.to_string(), &format!("--nofile={limit}")]))
}
