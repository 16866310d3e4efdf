//! A cluster of real processes: ZooKeeper servers, brokers, coordinators.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use baton_client::admin::ClusterStatus;
use baton_client::{Client, ClientConfig};
use baton_registry::testing::process::free_ports;
use baton_registry::testing::server::{Ensemble, Place};
use baton_registry::zookeeper::{ZooKeeperConfig, ZooKeeperRegistry};
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};

use crate::clocks::Clocks;
use crate::daemon::{Daemon, Signal, Spec, send};
use crate::disk::{Disk, DiskKind};
use crate::network::Host;

/// Where a broker registers itself: a path of its own, as in an ensemble that others use too.
const CHROOT: &str = "/baton";
/// Marks a directory that somebody wants to look at.
pub const KEPT: &str = "kept";
const READY_WITHIN: Duration = Duration::from_secs(60);

/// What a cluster consists of.
#[derive(Clone, Debug)]
pub struct Shape {
    /// The binary `baton`.
    pub program: PathBuf,
    pub class_path: String,
    pub zookeepers: usize,
    pub brokers: u32,
    pub coordinators: usize,
    /// Where the data goes; a directory of its own is made in it.
    pub parent: PathBuf,
    /// What the daemons log, as `--log` takes it.
    pub log_filter: String,
    /// On which kind of disk, if every process is in a network namespace of its own; none: all on
    /// loopback, in directories.
    pub sandbox: Option<DiskKind>,
}

/// The ports of a process that has an address for itself.
/// Clients, brokers, Kafka's clients, HTTP.
const BROKER_PORTS: [u16; 4] = [7400, 7410, 9092, 7480];
const COORDINATOR_PORTS: [u16; 2] = [7450, 7481];
const ZOOKEEPER_PORTS: [u16; 3] = [2181, 2888, 3888];

impl Shape {
    /// Every host of a cluster of this shape, if each has a namespace.
    #[must_use]
    pub fn hosts(&self) -> Vec<Host> {
        let brokers = (1..=self.brokers).map(Host::broker);
        let coordinators = (1..).take(self.coordinators).map(Host::coordinator);
        brokers.chain(coordinators).chain((1..).take(self.zookeepers).map(Host::zookeeper)).collect()
    }

    /// What any of them may connect to.
    #[must_use]
    pub fn targets(&self) -> Vec<(Host, u16)> {
        let [client, peer, kafka, _] = BROKER_PORTS;
        let brokers = (1..=self.brokers).flat_map(|id| [client, peer, kafka].map(|port| (Host::broker(id), port)));
        let zookeepers = (1..).take(self.zookeepers).map(|number| (Host::zookeeper(number), ZOOKEEPER_PORTS[0]));
        brokers.chain(zookeepers).collect()
    }
}

/// What the brokers keep their data on, and what their configuration says about it.
#[derive(Clone, Copy, Debug)]
pub struct Storage {
    pub disk: DiskKind,
    /// More lines of the section `[log]`.
    pub log_config: &'static str,
}

/// Running processes, killed when this is dropped.
pub struct Cluster {
    // Dropped in this order: daemons first, so that they do not fill their logs with complaints.
    brokers: Vec<Daemon>,
    coordinators: Vec<Daemon>,
    pub ensemble: Ensemble,
    /// By broker.
    disks: Vec<Disk>,
    /// Only in a sandbox.
    pub clocks: Option<Clocks>,
    /// Where brokers listen for clients, and coordinators for brokers.
    broker_addresses: Vec<String>,
    kafka_addresses: Vec<String>,
    coordinator_addresses: Vec<String>,
    dir: Option<TempDir>,
}

impl Cluster {
    /// Starts everything and waits until it is ready.
    ///
    /// # Errors
    /// A process does not become ready; its log's end is in the text.
    pub async fn start(shape: &Shape) -> anyhow::Result<Self> {
        let disk = shape.sandbox.unwrap_or(DiskKind::Directory);
        Self::start_on(shape, Storage { disk, log_config: "" }).await
    }

    /// The same with another storage below the brokers.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_on(shape: &Shape, storage: Storage) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("baton-faults-").tempdir_in(&shape.parent)?;
        let ensemble = match shape.sandbox {
            None => Ensemble::start(&shape.class_path, shape.zookeepers).await?,
            Some(_) => Ensemble::start_at(&shape.class_path, &places(shape.zookeepers)).await?,
        };
        let connect = format!("{}{CHROOT}", ensemble.connection_string());
        let clocks = shape.sandbox.map(|_| Clocks::build(dir.path())).transpose()?;
        let make = Maker { shape, storage, dir: dir.path(), connect: &connect, clocks: clocks.as_ref() };
        let (mut disks, mut brokers, mut coordinators) = (Vec::new(), Vec::new(), Vec::new());
        let (mut broker_addresses, mut kafka_addresses) = (Vec::new(), Vec::new());
        let mut coordinator_addresses = Vec::new();
        for (id, (host, ports)) in (1..).zip(make.hosts(shape.brokers, Host::broker, BROKER_PORTS)?) {
            let disk = Disk::make(storage.disk, dir.path().join(format!("disk-{id}")))?;
            broker_addresses.push(format!("{}:{}", host.address, ports[0]));
            kafka_addresses.push(format!("{}:{}", host.address, ports[2]));
            brokers.push(make.broker(id, host, ports, &disk)?);
            disks.push(disk);
        }
        let count = u32::try_from(shape.coordinators)?;
        for (number, (host, ports)) in (1..).zip(make.hosts(count, Host::coordinator, COORDINATOR_PORTS)?) {
            coordinator_addresses.push(format!("{}:{}", host.address, ports[0]));
            coordinators.push(make.coordinator(number, host, ports)?);
        }
        let dir = Some(dir);
        let mut cluster = Self {
            brokers,
            coordinators,
            ensemble,
            disks,
            clocks,
            broker_addresses,
            kafka_addresses,
            coordinator_addresses,
            dir,
        };
        let started = cluster.start_all().await;
        if started.is_err() {
            cluster.keep();
        }
        started.map(|()| cluster)
    }

    async fn start_all(&mut self) -> anyhow::Result<()> {
        for daemon in self.brokers.iter_mut().chain(&mut self.coordinators) {
            daemon.start()?;
        }
        self.ready().await
    }

    /// Waits until every process is ready.
    ///
    /// # Errors
    /// One is not within a minute.
    pub async fn ready(&mut self) -> anyhow::Result<()> {
        for daemon in self.brokers.iter_mut().chain(&mut self.coordinators) {
            daemon.ready(READY_WITHIN).await?;
        }
        Ok(())
    }

    #[must_use]
    pub fn broker_count(&self) -> u32 {
        u32::try_from(self.brokers.len()).unwrap_or(u32::MAX)
    }

    /// The broker with this id (from 1).
    pub fn broker(&mut self, id: u32) -> &mut Daemon {
        &mut self.brokers[id as usize - 1]
    }

    /// The coordinator with this number (from 0).
    pub fn coordinator(&mut self, number: usize) -> &mut Daemon {
        &mut self.coordinators[number]
    }

    /// `kill -9` of all brokers that run, at the same moment.
    ///
    /// # Errors
    /// `kill` fails.
    pub fn kill_all_brokers(&mut self) -> anyhow::Result<()> {
        send(Signal::Kill, self.brokers.iter().filter(|broker| broker.runs()))?;
        self.brokers.iter_mut().for_each(Daemon::kill);
        Ok(())
    }

    /// Empties the data directory of a broker that does not run.
    ///
    /// # Errors
    /// It runs, or the directory cannot be removed.
    pub fn wipe(&mut self, id: u32) -> anyhow::Result<()> {
        if self.broker(id).runs() {
            bail!("broker {id} runs");
        }
        self.disk(id).wipe()
    }

    /// The disk of the broker with this id (from 1).
    #[must_use]
    pub fn disk(&self, id: u32) -> &Disk {
        &self.disks[id as usize - 1]
    }

    /// The same, to be changed.
    pub fn disk_mut(&mut self, id: u32) -> &mut Disk {
        &mut self.disks[id as usize - 1]
    }

    /// Starts whatever does not run, and waits until it is ready.
    ///
    /// # Errors
    /// As [`Self::ready`].
    pub async fn restore(&mut self) -> anyhow::Result<()> {
        for daemon in self.brokers.iter_mut().chain(&mut self.coordinators) {
            if !daemon.runs() {
                daemon.start()?;
            }
        }
        self.ready().await
    }

    /// Starts whatever does not run, and does not wait.
    ///
    /// # Errors
    /// A program cannot be started.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.brokers
            .iter_mut()
            .chain(&mut self.coordinators)
            .filter(|daemon| !daemon.runs())
            .try_for_each(Daemon::start)
    }

    /// The brokers and coordinators that ended by themselves since this was asked last, each
    /// with the end of its log.
    pub fn ended(&mut self) -> Vec<(String, String)> {
        let all = self.brokers.iter_mut().chain(&mut self.coordinators);
        all.filter_map(|daemon| Some((daemon.name.clone(), daemon.check_alive().err()?.to_string()))).collect()
    }

    /// Fails if a process ended that nobody ended.
    ///
    /// # Errors
    /// Its exit code and the end of its log.
    pub fn check_alive(&mut self) -> anyhow::Result<()> {
        self.brokers.iter_mut().chain(&mut self.coordinators).try_for_each(Daemon::check_alive)
    }

    #[must_use]
    pub fn bootstrap(&self) -> Vec<String> {
        self.broker_addresses.clone()
    }

    /// Where Kafka's clients begin, as `bootstrap.servers` takes it.
    #[must_use]
    pub fn kafka_bootstrap(&self) -> String {
        self.kafka_addresses.join(",")
    }

    /// A client of all brokers.
    ///
    /// # Errors
    /// None of them answers.
    pub async fn client(&self, name: &str) -> anyhow::Result<Client> {
        let config =
            ClientConfig { bootstrap: self.bootstrap(), client_id: name.to_owned(), ..ClientConfig::default() };
        Ok(Client::connect(config).await?)
    }

    /// A handle on the same part of the ensemble as the brokers use.
    ///
    /// # Errors
    /// The ensemble does not answer.
    pub async fn registry(&self) -> anyhow::Result<Arc<ZooKeeperRegistry>> {
        let servers = format!("{}{CHROOT}", self.ensemble.connection_string());
        let registry = ZooKeeperRegistry::start(ZooKeeperConfig::new(servers))?;
        registry.connected(Duration::from_secs(30)).await?;
        Ok(Arc::new(registry))
    }

    /// The number of the coordinator that works now.
    ///
    /// # Errors
    /// None is known within 30 s.
    pub async fn active_coordinator(&self, client: &Client) -> anyhow::Result<usize> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if let Ok(ClusterStatus { coordinator: Some(active), .. }) = client.admin().cluster_status().await {
                let number = self.coordinator_addresses.iter().position(|address| *address == active.endpoint);
                // The node of one that was killed stands until its session ends.
                if let Some(number) = number.filter(|number| self.coordinators[*number].runs()) {
                    return Ok(number);
                }
            }
            if Instant::now() > deadline {
                bail!("no coordinator within 30 s");
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// The same, if somebody knows it at once.
    pub async fn active_now(&self, admin: &baton_client::Admin) -> Option<usize> {
        let status = timeout(Duration::from_secs(1), admin.cluster_status()).await.ok()?.ok()?;
        let endpoint = status.coordinator?.endpoint;
        let number = self.coordinator_addresses.iter().position(|address| *address == endpoint);
        number.filter(|number| self.coordinators[*number].runs())
    }

    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.as_ref().map_or(Path::new(""), TempDir::path)
    }

    /// Keeps the data and the logs; says where they are.
    pub fn keep(&mut self) -> PathBuf {
        if let Some(dir) = &mut self.dir {
            dir.disable_cleanup(true);
            // Whoever sweeps up after a killed harness lets it be.
            let _ = std::fs::write(dir.path().join(KEPT), "");
        }
        self.dir().to_owned()
    }
}

fn places(count: usize) -> Vec<Place> {
    let place = |host: Host| Place { address: host.address.into(), ports: ZOOKEEPER_PORTS, via: host.via() };
    (1..).take(count).map(|number| place(Host::zookeeper(number))).collect()
}

/// Writes configuration files.
struct Maker<'a> {
    shape: &'a Shape,
    storage: Storage,
    dir: &'a Path,
    connect: &'a str,
    clocks: Option<&'a Clocks>,
}

impl Maker<'_> {
    /// Where `count` processes of a kind run and listen.
    fn hosts<const PORTS: usize>(
        &self,
        count: u32,
        host: fn(u32) -> Host,
        fixed: [u16; PORTS],
    ) -> anyhow::Result<Vec<(Host, [u16; PORTS])>> {
        if self.shape.sandbox.is_some() {
            return Ok((1..=count).map(|number| (host(number), fixed)).collect());
        }
        let free = free_ports(count as usize * PORTS)?;
        Ok(free.as_chunks().0.iter().map(|ports| (Host::loopback("loopback"), *ports)).collect())
    }

    fn broker(&self, id: u32, host: Host, ports: [u16; 4], disk: &Disk) -> anyhow::Result<Daemon> {
        let ([grpc, peer, kafka, http], ip) = (ports, host.address);
        // In a sandbox disks are small, and the machine is shared with everything else.
        let small = if self.shape.sandbox.is_some() { "reserve_bytes = 67108864\n" } else { "" };
        let shards = if self.shape.sandbox.is_some() { "shards = 1\n" } else { "" };
        let timing = if self.shape.sandbox.is_some() { "[timing]\ndrain_ms = 5000\n" } else { "" };
        let text = format!(
            "broker_id = {id}\n{shards}[registry]\nconnect = \"{}\"\nsession_timeout_ms = 4000\n\
             [[listeners]]\nbind = \"{ip}:{grpc}\"\n\
             [[listeners]]\nname = \"kafka\"\nprotocol = \"kafka\"\nbind = \"{ip}:{kafka}\"\n[peer]\nbind = \"{ip}:{peer}\"\n\
             [http]\nbind = \"{ip}:{http}\"\n[log]\ndir = \"{}\"\n{small}{}{timing}",
            self.connect,
            disk.data().display(),
            self.storage.log_config,
        );
        self.daemon(format!("broker-{id}"), "broker", &text, host, http)
    }

    fn coordinator(&self, number: u32, host: Host, ports: [u16; 2]) -> anyhow::Result<Daemon> {
        let ([grpc, http], ip) = (ports, host.address);
        let name = format!("coordinator-{number}");
        // In a sandbox preferred leaders come back soon, so that leaders move without a fault, too.
        let healing = "[healing]\npreferred_in_sync_ms = 10000\npreferred_every_ms = 30000\n";
        let text = format!(
            "name = \"{name}\"\n[registry]\nconnect = \"{}\"\nsession_timeout_ms = 4000\n\
             [grpc]\nbind = \"{ip}:{grpc}\"\n[http]\nbind = \"{ip}:{http}\"\n{}",
            self.connect,
            if self.shape.sandbox.is_some() { healing } else { "" }
        );
        self.daemon(name, "coordinator", &text, host, http)
    }

    fn daemon(&self, name: String, verb: &str, config: &str, host: Host, http_port: u16) -> anyhow::Result<Daemon> {
        let file = self.dir.join(format!("{name}.toml"));
        std::fs::write(&file, config)?;
        let arguments = ["--log", &self.shape.log_filter, verb, "--config", &file.display().to_string()];
        let spec = Spec {
            host,
            program: self.shape.program.clone(),
            arguments: arguments.map(str::to_owned).to_vec(),
            environment: self.clocks.map(|clocks| clocks.environment(&name)).transpose()?.unwrap_or_default(),
            log: self.dir.join(format!("{name}.log")),
            http_port,
        };
        Ok(Daemon::new(name, spec))
    }
}
