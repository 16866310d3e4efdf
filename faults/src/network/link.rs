//! The proxies of the slow links: one process per namespace that has needed one.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::timeout;

use super::Host;
use super::proxy::{Condition, GROUP, READY};

const FIRST_PORT: u16 = 20_000;
const STARTS_WITHIN: Duration = Duration::from_secs(10);

/// Connections of one host that go through its proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detour {
    pub from: Host,
    pub ways: Vec<Way>,
}

/// Where a proxy listens for what was meant for somebody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    pub to: Host,
    pub port: u16,
    pub proxy_port: u16,
}

struct Running {
    ways: Vec<Way>,
    control: ChildStdin,
    _process: Child,
}

/// Every proxy that runs.
pub struct Links {
    program: PathBuf,
    /// What any host may connect to.
    targets: Vec<(Host, u16)>,
    running: BTreeMap<Host, Running>,
}

impl Links {
    /// `program` is `faults`.
    #[must_use]
    pub fn new(program: PathBuf, targets: Vec<(Host, u16)>) -> Self {
        Self { program, targets, running: BTreeMap::new() }
    }

    /// Sets the condition of the links from a host to others, and says what has to be sent on
    /// the detour.
    ///
    /// # Errors
    /// The proxy does not start.
    pub async fn set(&mut self, from: &Host, to: &[Host], condition: Condition) -> anyhow::Result<Detour> {
        if !self.running.contains_key(from) {
            let running = self.start(from).await.with_context(|| format!("the proxy of {}", from.name))?;
            self.running.insert(from.clone(), running);
        }
        let running = self.running.get_mut(from).context("the proxy is gone")?;
        let line = serde_json::to_string(&condition)? + "\n";
        running.control.write_all(line.as_bytes()).await.context("the proxy ended")?;
        running.control.flush().await?;
        let ways = running.ways.iter().filter(|way| to.contains(&way.to)).cloned().collect();
        Ok(Detour { from: from.clone(), ways })
    }

    async fn start(&self, from: &Host) -> anyhow::Result<Running> {
        let ways: Vec<Way> = (FIRST_PORT..)
            .zip(self.targets.iter().filter(|(host, _)| host != from))
            .map(|(proxy_port, (to, port))| Way { to: to.clone(), port: *port, proxy_port })
            .collect();
        let mut command = from.command(std::path::Path::new("setpriv"));
        command.args(["--regid", &GROUP.to_string(), "--clear-groups", "--"]).arg(&self.program).arg("proxy");
        for Way { to, port, proxy_port } in &ways {
            command.arg(format!("{proxy_port}={}", SocketAddr::new(to.address.into(), *port)));
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Command::from(command).kill_on_drop(true).spawn()?;
        let control = process.stdin.take().context("no standard input")?;
        let said = process.stdout.take().context("no standard output")?;
        let mut line = String::new();
        timeout(STARTS_WITHIN, BufReader::new(said).read_line(&mut line)).await.context("it says nothing")??;
        ensure!(line.trim() == READY, "it says {line:?}");
        Ok(Running { ways, control, _process: process })
    }
}
