//! Real ZooKeeper servers as plain Java processes on free loopback ports.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::process::{bound_to_parent, free_ports};

/// Which ZooKeeper to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// Debian's package.
    V3_8,
    /// The jars in `BATON_ZK39_LIBS`, or in `shared/peers/zookeeper/libs` beside the sources.
    V3_9,
}

const DEBIAN_JARS: &str = "/usr/share/java";
/// A Java process on a loaded machine needs its time.
const START_DEADLINE: Duration = Duration::from_secs(60);

impl Version {
    /// The class path, or why there is none.
    ///
    /// # Errors
    /// Java or a jar is missing.
    pub fn class_path(self) -> Result<String, String> {
        let mut java = Command::new("java");
        java.arg("-version").stdout(Stdio::null()).stderr(Stdio::null());
        if !java.status().is_ok_and(|status| status.success()) {
            return Err("java is missing".to_owned());
        }
        match self {
            Self::V3_8 => debian_class_path(),
            Self::V3_9 => newest_class_path(),
        }
    }

    /// The class path; or none after printing that the test is skipped. Where the tests must
    /// be complete (`CI=true` or `BATON_REQUIRE_ZK=1`) a missing part is a failure instead.
    ///
    /// # Panics
    /// When something is missing there.
    #[must_use]
    #[allow(clippy::panic, reason = "a test that cannot run where it must has failed")]
    pub fn class_path_or_skip(self) -> Option<String> {
        let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|v| v == value);
        match self.class_path() {
            Ok(path) => Some(path),
            Err(why) if is("CI", "true") || is("BATON_REQUIRE_ZK", "1") => {
                panic!("ZooKeeper {self:?} is required: {why}")
            }
            Err(why) => {
                eprintln!("SKIPPED: no ZooKeeper {self:?}: {why}");
                None
            }
        }
    }
}

fn debian_class_path() -> Result<String, String> {
    let jars = ["zookeeper.jar", "slf4j-simple.jar"].map(|jar| Path::new(DEBIAN_JARS).join(jar));
    for jar in &jars {
        if !jar.exists() {
            return Err(format!("{} is missing", jar.display()));
        }
    }
    let texts: Vec<String> = jars.iter().map(|jar| jar.display().to_string()).collect();
    Ok(texts.join(":"))
}

fn newest_class_path() -> Result<String, String> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/peers/zookeeper/libs");
    let dir = std::env::var_os("BATON_ZK39_LIBS").map_or(beside, PathBuf::from);
    let jars = std::fs::read_dir(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let has_server =
        jars.flatten().any(|jar| jar.file_name().to_str().is_some_and(|name| name.starts_with("zookeeper-3.9")));
    if !has_server {
        return Err(format!("no zookeeper-3.9 jar in {}", dir.display()));
    }
    Ok(format!("{}/*", dir.display()))
}

/// Where one server runs.
#[derive(Clone, Debug)]
pub struct Place {
    pub address: IpAddr,
    /// For clients, for the other servers, for the election of a leader.
    pub ports: [u16; 3],
    /// What starts a program there, such as `nsenter --net=FILE --`; empty: nothing is needed.
    pub via: Vec<String>,
}

/// One server of an [`Ensemble`].
#[derive(Debug)]
struct Server {
    dir: PathBuf,
    client_address: SocketAddr,
    via: Vec<String>,
    process: Option<Child>,
}

/// One server or three. Killed when dropped; what they stored goes with the directory.
#[derive(Debug)]
pub struct Ensemble {
    class_path: String,
    servers: Vec<Server>,
    dir: TempDir,
}

impl Drop for Ensemble {
    fn drop(&mut self) {
        for server in 0..self.servers.len() {
            self.kill(server);
        }
    }
}

impl Ensemble {
    /// Starts `count` servers (1 or 3) and waits until they serve.
    ///
    /// # Errors
    /// They do not.
    pub async fn start(class_path: &str, count: usize) -> io::Result<Self> {
        let ports = free_ports(count * 3)?;
        let place = |ports: &[u16; 3]| Place { address: [127, 0, 0, 1].into(), ports: *ports, via: Vec::new() };
        let places: Vec<Place> = ports.as_chunks().0.iter().map(place).collect();
        Self::start_at(class_path, &places).await
    }

    /// Starts one server at each place (1 or 3) and waits until they serve.
    ///
    /// # Errors
    /// They do not.
    pub async fn start_at(class_path: &str, places: &[Place]) -> io::Result<Self> {
        let dir = tempfile::Builder::new().prefix("baton-zookeeper-").tempdir()?;
        let mut servers = Vec::new();
        for (index, place) in places.iter().enumerate() {
            let home = dir.path().join(index.to_string());
            std::fs::create_dir_all(home.join("data"))?;
            std::fs::write(home.join("data/myid"), (index + 1).to_string())?;
            let client_address = SocketAddr::new(place.address, place.ports[0]);
            std::fs::write(home.join("zoo.cfg"), config(&home, client_address, places))?;
            servers.push(Server { dir: home, client_address, via: place.via.clone(), process: None });
        }
        let mut ensemble = Self { class_path: class_path.to_owned(), servers, dir };
        for server in 0..places.len() {
            ensemble.spawn(server)?;
        }
        ensemble.serving().await?;
        Ok(ensemble)
    }

    /// For clients: all servers.
    #[must_use]
    pub fn connection_string(&self) -> String {
        let all: Vec<String> = self.addresses().iter().map(SocketAddr::to_string).collect();
        all.join(",")
    }

    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.servers.iter().map(|server| server.client_address).collect()
    }

    /// Where the servers keep their data and logs.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Starts one server again, on its data; does not wait for it.
    ///
    /// # Errors
    /// The process cannot be started.
    pub fn spawn(&mut self, server: usize) -> io::Result<()> {
        let entry = &mut self.servers[server];
        let log = File::options().create(true).append(true).open(entry.dir.join("log"))?;
        let mut command = match entry.via.split_first() {
            Some((program, arguments)) => {
                let mut command = bound_to_parent(program);
                command.args(arguments).arg("java");
                command
            }
            None => bound_to_parent("java"),
        };
        let child = command
            .args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
            .args(["-Dzookeeper.admin.enableServer=false", "-Dzookeeper.4lw.commands.whitelist=*"])
            .args(["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"])
            .args(["-cp", &self.class_path, "org.apache.zookeeper.server.quorum.QuorumPeerMain"])
            .arg(entry.dir.join("zoo.cfg"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        entry.process = Some(child);
        Ok(())
    }

    /// `kill -9`.
    pub fn kill(&mut self, server: usize) {
        if let Some(mut child) = self.servers[server].process.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Kills all and starts all again, on their data.
    ///
    /// # Errors
    /// They do not serve again.
    pub async fn restart(&mut self) -> io::Result<()> {
        for server in 0..self.servers.len() {
            self.kill(server);
        }
        for server in 0..self.servers.len() {
            self.spawn(server)?;
        }
        self.serving().await
    }

    /// Stops a server's process where it is (`SIGSTOP`), or lets it go on (`SIGCONT`).
    ///
    /// # Errors
    /// There is no such process.
    pub fn freeze(&self, server: usize, freeze: bool) -> io::Result<()> {
        let signal = if freeze { "-STOP" } else { "-CONT" };
        let Some(child) = &self.servers[server].process else {
            return Err(io::Error::other("the server does not run"));
        };
        let status = Command::new("kill").args([signal, &child.id().to_string()]).status()?;
        if status.success() { Ok(()) } else { Err(io::Error::other("kill failed")) }
    }

    /// Whether a server's process runs as far as is known.
    #[must_use]
    pub fn runs(&self, server: usize) -> bool {
        self.servers[server].process.is_some()
    }

    /// Which server leads the ensemble now.
    #[must_use]
    pub fn leader(&self) -> Option<usize> {
        self.servers.iter().position(|server| mode(server.client_address).is_ok_and(|mode| mode.contains("leader")))
    }

    /// Waits until every server answers and has a role.
    ///
    /// # Errors
    /// Not within a minute; the text has the end of the log.
    pub async fn serving(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + START_DEADLINE;
        for server in &mut self.servers {
            while mode(server.client_address).is_err() {
                let ended = match &mut server.process {
                    Some(child) => child.try_wait()?.is_some(),
                    None => true,
                };
                if ended || Instant::now() > deadline {
                    let log = std::fs::read_to_string(server.dir.join("log")).unwrap_or_default();
                    let tail: Vec<&str> = log.lines().rev().take(20).collect();
                    return Err(io::Error::other(format!("ZooKeeper does not serve: {tail:?}")));
                }
                sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }
}

fn config(home: &Path, client: SocketAddr, places: &[Place]) -> String {
    let mut text = format!(
        "tickTime=500\ninitLimit=20\nsyncLimit=10\ndataDir={}\nclientPort={}\n\
         clientPortAddress={}\nmaxClientCnxns=0\n",
        home.join("data").display(),
        client.port(),
        client.ip()
    );
    if places.len() > 1 {
        for (number, Place { address, ports: [_, quorum, election], .. }) in (1..).zip(places) {
            text += &format!("server.{number}={address}:{quorum}:{election}\n");
        }
    }
    text
}

/// A serving server's answer to `srvr` (leader, follower or standalone is in it).
fn mode(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(b"srvr")?;
    let mut answer = String::new();
    stream.take(4096).read_to_string(&mut answer)?;
    if answer.contains("Mode:") { Ok(answer) } else { Err(io::Error::other("not serving")) }
}
