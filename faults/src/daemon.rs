//! One child process: started, signalled, started again on what it left on its disk.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::network::Host;
use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

const POLL: Duration = Duration::from_millis(5);

/// What is sent to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    Kill,
    Stop,
    Continue,
    Terminate,
}

impl Signal {
    fn flag(self) -> &'static str {
        match self {
            Self::Kill => "-KILL",
            Self::Stop => "-STOP",
            Self::Continue => "-CONT",
            Self::Terminate => "-TERM",
        }
    }
}

/// A broker or a coordinator. Killed when it is dropped.
#[derive(Debug)]
pub struct Daemon {
    /// `broker-1`, `coordinator-2`.
    pub name: String,
    spec: Spec,
    child: Option<Child>,
}

/// How a daemon is started and watched.
#[derive(Clone, Debug)]
pub struct Spec {
    pub host: Host,
    pub program: PathBuf,
    pub arguments: Vec<String>,
    pub environment: Vec<(String, String)>,
    pub log: PathBuf,
    pub http_port: u16,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Daemon {
    #[must_use]
    pub fn new(name: String, spec: Spec) -> Self {
        Self { name, spec, child: None }
    }

    /// Where it runs.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.spec.host
    }

    /// Starts the process; does not wait until it serves. Its output is added to its log.
    ///
    /// Must be called from a thread that lives as long as the process should.
    ///
    /// # Errors
    /// The program cannot be started, or runs already.
    pub fn start(&mut self) -> anyhow::Result<()> {
        if self.child.is_some() {
            bail!("{} runs already", self.name);
        }
        let log = File::options().create(true).append(true).open(&self.spec.log)?;
        let mut command = self.spec.host.command(Path::new("env"));
        // Variables of the harness would be taken for keys of the configuration.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("BATON_")) {
            command.env_remove(name);
        }
        // Set by `env`, so that what stands before the program in the command does not see it.
        command.args(self.spec.environment.iter().map(|(name, value)| format!("{name}={value}")));
        let child = command
            .arg(&self.spec.program)
            .args(&self.spec.arguments)
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .with_context(|| format!("{}: cannot start {}", self.name, self.spec.program.display()))?;
        self.child = Some(child);
        Ok(())
    }

    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    #[must_use]
    pub fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// `kill -9`, and waits until the kernel has taken the process away. No error if it is not
    /// there.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Sends a signal and does not wait for what it does.
    ///
    /// # Errors
    /// There is no process.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        send(signal, std::iter::once(self))
    }

    /// Waits until the process ends by itself.
    ///
    /// # Errors
    /// Not within `within`; it still runs then.
    pub async fn ended(&mut self, within: Duration) -> anyhow::Result<ExitStatus> {
        let deadline = Instant::now() + within;
        let Some(child) = &mut self.child else { bail!("{} does not run", self.name) };
        loop {
            if let Some(status) = child.try_wait()? {
                self.child = None;
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("{} did not end within {within:?}", self.name);
            }
            sleep(POLL).await;
        }
    }

    /// Waits until `/readyz` says yes.
    ///
    /// # Errors
    /// The process ended, or is not ready within `within`; the text has what is missing and the
    /// end of the log.
    pub async fn ready(&mut self, within: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + within;
        let mut last = String::from("no answer yet");
        loop {
            match http_get(SocketAddr::new(self.spec.host.address.into(), self.spec.http_port), "/readyz").await {
                Ok((200, _)) => return Ok(()),
                Ok((status, body)) => last = format!("{status}: {body}"),
                Err(error) => last = if last.starts_with("503") { last } else { error.to_string() },
            }
            let ended = match &mut self.child {
                Some(child) => child.try_wait()?,
                None => bail!("{} does not run", self.name),
            };
            if let Some(status) = ended {
                self.child = None;
                bail!("{} ended with {}: {}", self.name, describe(status), self.log_tail(15));
            }
            if Instant::now() > deadline {
                bail!("{} is not ready within {within:?} ({last}): {}", self.name, self.log_tail(15));
            }
            sleep(POLL * 4).await;
        }
    }

    /// What `/metrics` says under a name; zero if it is not there.
    ///
    /// # Errors
    /// No answer.
    pub async fn metric(&self, name: &str) -> io::Result<f64> {
        let address = SocketAddr::new(self.spec.host.address.into(), self.spec.http_port);
        let (_, text) = http_get(address, "/metrics").await?;
        let line = text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
        Ok(line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0))
    }

    /// Whether the process is still there; one that ended by itself is forgotten.
    pub fn check_alive(&mut self) -> anyhow::Result<()> {
        let Some(child) = &mut self.child else { return Ok(()) };
        let Some(status) = child.try_wait()? else { return Ok(()) };
        self.child = None;
        bail!("{} ended by itself with {}: {}", self.name, describe(status), self.log_tail(15))
    }

    #[must_use]
    pub fn log_tail(&self, lines: usize) -> String {
        let text = std::fs::read(&self.spec.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let all: Vec<&str> = text.lines().collect();
        format!("\n  {}", all[all.len().saturating_sub(lines)..].join("\n  "))
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, signal) => format!("signal {signal:?}"),
    }
}

/// Sends one signal to several processes at once.
///
/// # Errors
/// One of them does not run.
pub fn send<'a>(signal: Signal, daemons: impl Iterator<Item = &'a Daemon>) -> io::Result<()> {
    let mut command = Command::new("kill");
    command.arg(signal.flag());
    for daemon in daemons {
        let pid = daemon.pid().ok_or_else(|| io::Error::other(format!("{} does not run", daemon.name)))?;
        command.arg(pid.to_string());
    }
    if command.status()?.success() { Ok(()) } else { Err(io::Error::other("kill failed")) }
}

/// The status and the body of an answer.
async fn http_get(address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.take(64 * 1024).read_to_string(&mut answer).await?;
        let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body).to_owned();
        Ok((status.ok_or_else(|| io::Error::other("not HTTP"))?, body))
    };
    match timeout(Duration::from_secs(3), exchange).await {
        Ok(answered) => answered,
        Err(_) => Err(io::Error::other("no answer within 3 s")),
    }
}
