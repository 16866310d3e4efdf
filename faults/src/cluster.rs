//! A cluster of real processes: ZooKeeper servers, brokers, coordinators.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use baton_client::admin::ClusterStatus;
use baton_client::{Client, ClientConfig};
use baton_registry::testing::process::free_ports;
use baton_registry::testing::server::Ensemble;
use baton_registry::zookeeper::{ZooKeeperConfig, ZooKeeperRegistry};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::daemon::{Daemon, Signal, send};

/// Where a broker registers itself: a path of its own, as in an ensemble that others use too.
const CHROOT: &str = "/baton";
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
}

/// Running processes, killed when this is dropped.
pub struct Cluster {
    // Dropped in this order: daemons first, so that they do not fill their logs with complaints.
    brokers: Vec<Daemon>,
    coordinators: Vec<Daemon>,
    pub ensemble: Ensemble,
    broker_ports: Vec<u16>,
    coordinator_ports: Vec<u16>,
    dir: Option<TempDir>,
}

impl Cluster {
    /// Starts everything and waits until it is ready.
    ///
    /// # Errors
    /// A process does not become ready; its log's end is in the text.
    pub async fn start(shape: &Shape) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("baton-faults-").tempdir_in(&shape.parent)?;
        let ensemble = Ensemble::start(&shape.class_path, shape.zookeepers).await?;
        let connect = format!("{}{CHROOT}", ensemble.connection_string());
        let ports = free_ports(shape.brokers as usize * 3 + shape.coordinators * 2)?;
        let (broker_ports, coordinator_ports) = ports.split_at(shape.brokers as usize * 3);
        let make = Maker { shape, dir: dir.path(), connect: &connect };
        let brokers = broker_ports.chunks(3).zip(1..).map(|(ports, id)| make.broker(id, ports));
        let coordinators = coordinator_ports.chunks(2).zip(1..).map(|(ports, id)| make.coordinator(id, ports));
        let mut cluster = Self {
            brokers: brokers.collect::<Result<_, _>>()?,
            coordinators: coordinators.collect::<Result<_, _>>()?,
            ensemble,
            broker_ports: broker_ports.iter().step_by(3).copied().collect(),
            coordinator_ports: coordinator_ports.iter().step_by(2).copied().collect(),
            dir: Some(dir),
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

    /// `kill -9` of all brokers at the same moment.
    ///
    /// # Errors
    /// One does not run.
    pub fn kill_all_brokers(&mut self) -> anyhow::Result<()> {
        send(Signal::Kill, self.brokers.iter())?;
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
        std::fs::remove_dir_all(self.dir().join(format!("broker-{id}"))).context("the data directory")
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

    /// Fails if a process ended that nobody ended.
    ///
    /// # Errors
    /// Its exit code and the end of its log.
    pub fn check_alive(&mut self) -> anyhow::Result<()> {
        self.brokers.iter_mut().chain(&mut self.coordinators).try_for_each(Daemon::check_alive)
    }

    #[must_use]
    pub fn bootstrap(&self) -> Vec<String> {
        self.broker_ports.iter().map(|port| format!("127.0.0.1:{port}")).collect()
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
                let port = active.endpoint.rsplit(':').next().and_then(|port| port.parse().ok());
                let number = self.coordinator_ports.iter().position(|candidate| Some(*candidate) == port);
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

    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.as_ref().map_or(Path::new(""), TempDir::path)
    }

    /// Keeps the data and the logs; says where they are.
    pub fn keep(&mut self) -> PathBuf {
        if let Some(dir) = &mut self.dir {
            dir.disable_cleanup(true);
        }
        self.dir().to_owned()
    }
}

/// Writes configuration files.
struct Maker<'a> {
    shape: &'a Shape,
    dir: &'a Path,
    connect: &'a str,
}

impl Maker<'_> {
    fn broker(&self, id: u32, ports: &[u16]) -> anyhow::Result<Daemon> {
        let [grpc, peer, http] = ports else { bail!("a broker has three ports") };
        let data = self.dir.join(format!("broker-{id}"));
        let text = format!(
            "broker_id = {id}\n[registry]\nconnect = \"{}\"\nsession_timeout_ms = 4000\n\
             [[listeners]]\nbind = \"127.0.0.1:{grpc}\"\n[peer]\nbind = \"127.0.0.1:{peer}\"\n\
             [http]\nbind = \"127.0.0.1:{http}\"\n[log]\ndir = \"{}\"\n",
            self.connect,
            data.display()
        );
        self.daemon(format!("broker-{id}"), "broker", &text, *http)
    }

    fn coordinator(&self, number: u32, ports: &[u16]) -> anyhow::Result<Daemon> {
        let [grpc, http] = ports else { bail!("a coordinator has two ports") };
        let name = format!("coordinator-{number}");
        let text = format!(
            "name = \"{name}\"\n[registry]\nconnect = \"{}\"\nsession_timeout_ms = 4000\n\
             [grpc]\nbind = \"127.0.0.1:{grpc}\"\n[http]\nbind = \"127.0.0.1:{http}\"\n",
            self.connect
        );
        self.daemon(name, "coordinator", &text, *http)
    }

    fn daemon(&self, name: String, verb: &str, config: &str, http: u16) -> anyhow::Result<Daemon> {
        let file = self.dir.join(format!("{name}.toml"));
        std::fs::write(&file, config)?;
        let arguments = ["--log", &self.shape.log_filter, verb, "--config", &file.display().to_string()];
        let arguments = arguments.map(str::to_owned).to_vec();
        let log = self.dir.join(format!("{name}.log"));
        Ok(Daemon::new(name, &self.shape.program, arguments, log, http))
    }
}
