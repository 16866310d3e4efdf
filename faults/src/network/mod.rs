//! A network of our own: every process in a network namespace, joined by a bridge.
//!
//! The whole campaign runs in fresh namespaces of network, mounts and processes
//! ([`sandbox::enter`]): the names and addresses below exist only there, several campaigns run
//! side by side, and when the first process ends, however it ends, the kernel takes away every
//! process, mount, bridge and rule.
//!
//! ```text
//!   clients (the harness) 10.77.0.1 ── bridge ──┬── broker-1       10.77.0.11
//!                                               ├── coordinator-1  10.77.0.31
//!                                               └── zookeeper-1    10.77.0.51
//! ```

pub mod link;
pub mod proxy;
pub mod rules;
pub mod sandbox;

use std::io::Write;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use baton_registry::testing::process::bound_to_parent;

/// Where the harness and its clients are.
pub const CLIENTS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const BRIDGE: &str = "hub";

/// A network namespace with one address; none: the namespace of the harness.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Host {
    /// `broker-1`, and of the namespace.
    pub name: String,
    pub address: Ipv4Addr,
    namespace: bool,
}

impl Host {
    /// Everything on loopback, without a namespace.
    #[must_use]
    pub fn loopback(name: &str) -> Self {
        Self { name: name.to_owned(), address: Ipv4Addr::LOCALHOST, namespace: false }
    }

    #[must_use]
    pub fn clients() -> Self {
        Self { name: "clients".to_owned(), address: CLIENTS, namespace: false }
    }

    /// The broker with this id, from 1.
    #[must_use]
    pub fn broker(id: u32) -> Self {
        Self::numbered("broker", 10, id)
    }

    /// The coordinator with this number, from 1.
    #[must_use]
    pub fn coordinator(number: u32) -> Self {
        Self::numbered("coordinator", 30, number)
    }

    /// The ZooKeeper server with this number, from 1.
    #[must_use]
    pub fn zookeeper(number: u32) -> Self {
        Self::numbered("zookeeper", 50, number)
    }

    fn numbered(kind: &str, first: u8, number: u32) -> Self {
        // At most 19 of a kind; more would only share an address and fail at once.
        let last = first + u8::try_from(number.min(19)).unwrap_or(19);
        Self { name: format!("{kind}-{number}"), address: Ipv4Addr::new(10, 77, 0, last), namespace: true }
    }

    /// What starts a program in this namespace and becomes it; empty: nothing is needed.
    #[must_use]
    pub fn via(&self) -> Vec<String> {
        if !self.namespace {
            return Vec::new();
        }
        ["nsenter".to_owned(), format!("--net=/run/netns/{}", self.name), "--".to_owned()].to_vec()
    }

    /// A command here, whose process ends with the thread that starts it.
    #[must_use]
    pub fn command(&self, program: &std::path::Path) -> Command {
        match self.via().split_first() {
            Some((first, rest)) => {
                let mut command = bound_to_parent(first);
                command.args(rest).arg(program);
                command
            }
            None => bound_to_parent(program),
        }
    }

    /// A command here that is over soon.
    fn tool(&self, program: &str) -> Command {
        match self.via().split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
            None => Command::new(program),
        }
    }
}

/// Makes the bridge and the hosts. Only inside a sandbox: it takes the names that it wants.
///
/// # Errors
/// `ip` fails: what it said.
pub fn build(hosts: &[Host]) -> anyhow::Result<()> {
    let mut batch = format!(
        "link set lo up\nlink add {BRIDGE} type bridge\naddr add {CLIENTS}/24 dev {BRIDGE}\nlink set {BRIDGE} up\n"
    );
    for (index, host) in hosts.iter().enumerate() {
        run(Command::new("ip").args(["netns", "add", &host.name]))?;
        batch += &format!("link add port{index} type veth peer name eth0 netns {}\n", host.name);
        batch += &format!("link set port{index} master {BRIDGE}\nlink set port{index} up\n");
    }
    feed(Command::new("ip").args(["-batch", "-"]), &batch)?;
    for host in hosts {
        let batch = format!("addr add {}/24 dev eth0\nlink set eth0 up\nlink set lo up\n", host.address);
        feed(host.tool("ip").args(["-batch", "-"]), &batch)?;
    }
    Ok(())
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    feed(command, "")
}

/// Runs a command with something on its standard input.
pub(crate) fn feed(command: &mut Command, input: &str) -> anyhow::Result<()> {
    let text = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {text}"))?;
    if let Some(mut pipe) = child.stdin.take() {
        pipe.write_all(input.as_bytes()).with_context(|| text.clone())?;
    }
    let out = child.wait_with_output()?;
    ensure!(out.status.success(), "{text}: {}: {}{input}", out.status, String::from_utf8_lossy(&out.stderr));
    Ok(())
}
