//! The registry on a real ZooKeeper ensemble (3.6 or newer: recursive watches).
//!
//! The client library runs on a thread and runtime of its own, because its heartbeats live
//! there: a broker that blocks its own workers must not lose its session over it. Calls go
//! there through a bounded channel, in the order in which they were made, and are pipelined.
//!
//! What the library leaves to its user is done here: a new session after an expired one,
//! watches made again after every reconnection (they die silently there, and changes in the gap
//! are lost anyway, ZOOKEEPER-4698), one meaning for its many errors, a close that waits until
//! the session is gone.

mod command;
mod driver;
mod errors;
mod watches;

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout};

use self::command::{Command, Request};
use self::driver::Driver;
use crate::api::{
    CreateMode, Created, MultiError, Op, OpResult, Registry, RegistryError, SessionId, SessionState, Stat, Watch,
};
use crate::events::{EVENTS_MAX, event_channel};
use crate::limits;

/// Calls that may wait for the driver. Beyond it a call waits for a place, and its place in the
/// order is where it is first polled.
const COMMANDS_MAX: usize = 16 * 1024;

/// How to reach the ensemble.
#[derive(Clone, Debug)]
pub struct ZooKeeperConfig {
    /// `host:port,host:port/chroot`. The chroot is created if it is missing.
    pub servers: String,
    /// How long the ensemble keeps a session of which it hears nothing. The servers clamp it to
    /// 2 to 20 of their ticks.
    pub session_timeout: Duration,
    /// Scheme and secret, such as `("digest", "user:password")`.
    pub auth: Option<(String, String)>,
}

impl ZooKeeperConfig {
    #[must_use]
    pub fn new(servers: impl Into<String>) -> Self {
        Self { servers: servers.into(), session_timeout: Duration::from_secs(4), auth: None }
    }

    /// The servers and the chroot (empty for none).
    fn split(&self) -> Result<(&str, &str), RegistryError> {
        let bad = |why: &str| {
            let text = format!("connection string {:?}: {why}", self.servers);
            Err(RegistryError::BadArgument(text))
        };
        let (hosts, chroot) = match self.servers.find('/') {
            Some(slash) => self.servers.split_at(slash),
            None => (self.servers.as_str(), ""),
        };
        let chroot = if chroot == "/" { "" } else { chroot };
        for host in hosts.split(',') {
            match host.rsplit_once(':') {
                Some((name, port)) if !name.is_empty() && port.parse::<u16>().is_ok() => {}
                _ => return bad("each server is host:port"),
            }
        }
        if !chroot.is_empty() {
            limits::check_path(chroot, false)?;
        }
        if self.session_timeout < Duration::from_millis(100) {
            return bad("a session time-out below 100 ms");
        }
        Ok((hosts, chroot))
    }
}

type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
type SessionCell = Arc<Mutex<Option<zookeeper_client::SessionInfo>>>;

/// A handle. Dropping it without [`Registry::close`] abandons the session, as a crash would.
#[derive(Debug)]
pub struct ZooKeeperRegistry {
    commands: mpsc::Sender<Command>,
    /// Set to true to close; dropped to abandon.
    closing: watch::Sender<bool>,
    states: watch::Receiver<SessionState>,
    session: SessionCell,
    config: ZooKeeperConfig,
}

impl ZooKeeperRegistry {
    /// Starts connecting and returns at once. While no server answers it goes on trying, for
    /// ever, and says so in the log; calls fail by their deadlines meanwhile.
    ///
    /// # Errors
    /// The connection string is unusable, or no thread can be made.
    pub fn start(config: ZooKeeperConfig) -> Result<Self, RegistryError> {
        config.split()?;
        let (commands, received) = mpsc::channel(COMMANDS_MAX);
        let (closing, closed) = watch::channel(false);
        let (state, states) = watch::channel(SessionState::Disconnected);
        let session = SessionCell::default();
        let driver = Driver::new(config.clone(), received, closed, state, session.clone());
        let failed =
            |error: std::io::Error| RegistryError::BadArgument(format!("cannot start the ZooKeeper client: {error}"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        std::thread::Builder::new()
            .name("zookeeper".to_owned())
            .spawn(move || {
                // The client outlives its runtime: were it dropped first, its last act would be
                // to close the session, which an abandoned handle must not.
                let abandoned = runtime.block_on(driver.run());
                drop(runtime);
                drop(abandoned);
            })
            .map_err(failed)?;
        Ok(Self { commands, closing, states, session, config })
    }

    /// Waits until there is a session.
    ///
    /// # Errors
    /// Not within `deadline`, or closed.
    pub async fn connected(&self, deadline: Duration) -> Result<SessionId, RegistryError> {
        let mut states = self.states.clone();
        let settled = states.wait_for(|s| !matches!(s, SessionState::Disconnected));
        match timeout(deadline, settled).await.map(|state| state.map(|s| *s)) {
            Ok(Ok(SessionState::Connected(session))) => Ok(session),
            Ok(_) => Err(RegistryError::Closed),
            Err(_) => Err(RegistryError::Unknown(format!(
                "no answer from ZooKeeper at {} in {deadline:?}",
                self.config.servers
            ))),
        }
    }

    /// Ends this session behind the back of its owner, as the ensemble does when it hears
    /// nothing of it. Goes to `servers` directly. The owner must be cut off meanwhile, or the two
    /// take the session from each other.
    ///
    /// # Errors
    /// There is no session now, or the ensemble does not answer.
    #[cfg(feature = "testing")]
    pub async fn expire_session(&self, servers: &str) -> Result<(), RegistryError> {
        let session = self.session.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let session = session.ok_or(RegistryError::SessionExpired)?;
        let thief = zookeeper_client::Client::connector()
            .with_session_timeout(self.config.session_timeout)
            .with_session(session)
            .connect(servers)
            .await
            .map_err(|error| errors::of_request("", &error))?;
        let mut states = thief.state_watcher();
        drop(thief);
        while !states.changed().await.is_terminated() {}
        Ok(())
    }

    fn submit<'a, T, E>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, E>>) -> Request,
    ) -> Answer<'a, Result<T, E>>
    where
        T: Send + 'static,
        E: From<RegistryError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let deadline = self.config.session_timeout;
        let command = Command { request: request(reply), gives_up: Instant::now() + deadline };
        let waiting = match self.commands.try_send(command) {
            Ok(()) => None,
            Err(mpsc::error::TrySendError::Full(command)) => Some((self.commands.clone(), command)),
            Err(mpsc::error::TrySendError::Closed(_)) => {
                return ready(Err(RegistryError::Closed.into()));
            }
        };
        Box::pin(async move {
            let journey = async {
                if let Some((commands, command)) = waiting
                    && commands.send(command).await.is_err()
                {
                    return Err(RegistryError::Closed.into());
                }
                let lost = || RegistryError::Unknown("the session ended meanwhile".to_owned());
                answer.await.unwrap_or_else(|_| Err(lost().into()))
            };
            let late = || RegistryError::Unknown(format!("no answer in {deadline:?}"));
            timeout(deadline, journey).await.unwrap_or_else(|_| Err(late().into()))
        })
    }
}

fn ready<'a, T: Send + 'a>(value: T) -> Answer<'a, T> {
    Box::pin(std::future::ready(value))
}

// Written out rather than by `async_trait`: its futures do nothing before they are polled, but
// a request must take its place in the order of the calls.
impl Registry for ZooKeeperRegistry {
    fn create<'s, 'p, 'f>(
        &'s self,
        path: &'p str,
        data: Bytes,
        mode: CreateMode,
    ) -> Answer<'f, Result<Created, RegistryError>>
    where
        's: 'f,
        'p: 'f,
        Self: 'f,
    {
        match limits::check_create(path, &data, mode) {
            Err(error) => ready(Err(error)),
            Ok(()) => {
                let path = path.to_owned();
                self.submit(|reply| Request::Create { path, data, mode, reply })
            }
        }
    }

    fn get<'s, 'p, 'f>(&'s self, path: &'p str) -> Answer<'f, Result<(Bytes, Stat), RegistryError>>
    where
        's: 'f,
        'p: 'f,
        Self: 'f,
    {
        match limits::check_path(path, false) {
            Err(error) => ready(Err(error)),
            Ok(()) => self.submit(|reply| Request::Get { path: path.to_owned(), reply }),
        }
    }

    fn exists<'s, 'p, 'f>(&'s self, path: &'p str) -> Answer<'f, Result<Option<Stat>, RegistryError>>
    where
        's: 'f,
        'p: 'f,
        Self: 'f,
    {
        match limits::check_path(path, false) {
            Err(error) => ready(Err(error)),
            Ok(()) => self.submit(|reply| Request::Exists { path: path.to_owned(), reply }),
        }
    }

    fn set<'s, 'p, 'f>(
        &'s self,
        path: &'p str,
        data: Bytes,
        version: Option<i32>,
    ) -> Answer<'f, Result<Stat, RegistryError>>
    where
        's: 'f,
        'p: 'f,
        Self: 'f,
    {
        match limits::check_path(path, false).and_then(|()| limits::check_data(path, &data)) {
            Err(error) => ready(Err(error)),
            Ok(()) => {
                let path = path.to_owned();
                self.submit(|reply| Request::Set { path, data, version, reply })
            }
        }
    }

    fn delete<'s, 'p, 'f>(&'s self, path: &'p str, version: Option<i32>) -> Answer<'f, Result<(), RegistryError>>
    where
        's: 'f,
        'p: 'f,
        Self: 'f,
    {
        match limits::check_delete(path) {
            Err(error) => ready(Err(error)),
            Ok(()) => {
                let path = path.to_owned();
                self.submit(|reply| Request::Delete { path, version, reply })
            }
        }
    }

    fn children<'s, 'p, 'f>(&'s self, path: &'p str) -> Answer<'f, Result<Vec<String>, RegistryError>>
    where
        's: 'f,
        'p: 'f,
        Self: 'f,
    {
        match limits::check_path(path, false) {
            Err(error) => ready(Err(error)),
            Ok(()) => self.submit(|reply| Request::Children { path: path.to_owned(), reply }),
        }
    }

    fn multi<'s, 'f>(&'s self, ops: Vec<Op>) -> Answer<'f, Result<Vec<OpResult>, MultiError>>
    where
        's: 'f,
        Self: 'f,
    {
        match limits::check_ops(&ops) {
            Err((index, error)) => ready(Err(MultiError { index, error })),
            Ok(()) => self.submit(|reply| Request::Multi { ops, reply }),
        }
    }

    fn sync<'s, 'p, 'f>(&'s self, path: &'p str) -> Answer<'f, Result<(), RegistryError>>
    where
        's: 'f,
        'p: 'f,
        Self: 'f,
    {
        match limits::check_path(path, false) {
            Err(error) => ready(Err(error)),
            Ok(()) => self.submit(|reply| Request::Sync { path: path.to_owned(), reply }),
        }
    }

    fn watch<'s, 'p, 'f>(&'s self, path: &'p str, recursive: bool) -> Answer<'f, Result<Watch, RegistryError>>
    where
        's: 'f,
        'p: 'f,
        Self: 'f,
    {
        if let Err(error) = limits::check_path(path, false) {
            return ready(Err(error));
        }
        let (events, watch) = event_channel(EVENTS_MAX, Duration::ZERO);
        let path = path.to_owned();
        let watching = self.submit(|reply| Request::Watch { path, recursive, events, reply });
        Box::pin(async move { watching.await.map(|()| watch) })
    }

    fn session(&self) -> watch::Receiver<SessionState> {
        self.states.clone()
    }

    fn session_id(&self) -> Option<SessionId> {
        let session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        session.as_ref().map(|session| SessionId(session.id().0))
    }

    fn close<'s, 'f>(&'s self) -> Answer<'f, ()>
    where
        's: 'f,
        Self: 'f,
    {
        self.closing.send_replace(true);
        let mut states = self.states.clone();
        let longest = self.config.session_timeout;
        Box::pin(async move {
            let closed = states.wait_for(|state| *state == SessionState::Closed);
            // The driver gives up after one session time-out itself.
            let _ = timeout(longest * 2, closed).await;
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_strings() {
        let split = |text: &str| {
            let config = ZooKeeperConfig::new(text);
            config.split().map(|(hosts, chroot)| (hosts.to_owned(), chroot.to_owned()))
        };
        let of = |hosts: &str, chroot: &str| Ok((hosts.to_owned(), chroot.to_owned()));
        assert_eq!(split("a:1,b:2/x/y"), of("a:1,b:2", "/x/y"));
        assert_eq!(split("a:1/"), of("a:1", ""));
        assert_eq!(split("[::1]:1"), of("[::1]:1", ""));
        for bad in ["", "a", "a:b", "a:1,", "a:1//x", "a:1/x/", ":1", "a:99999"] {
            assert!(matches!(split(bad), Err(RegistryError::BadArgument(_))), "{bad:?}");
        }
    }
}
