//! The thread's work: one session after another, and the requests that go through them.

use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use zookeeper_client as zk;

use super::command::{Command, Request, execute};
use super::watches::{WatchEntry, feed};
use super::{SessionCell, ZooKeeperConfig};
use crate::api::{RegistryError, SessionState};

/// Requests sent and not yet answered.
const IN_FLIGHT_MAX: usize = 16 * 1024;
/// Requests taken from the channel at a time.
const BATCH: usize = 256;

/// Why a session is no longer served.
enum End {
    /// Expired or failed: another one is needed.
    Lost,
    Close(zk::Client),
    Abandon(zk::Client),
}

pub struct Driver {
    config: ZooKeeperConfig,
    commands: mpsc::Receiver<Command>,
    closing: watch::Receiver<bool>,
    state: watch::Sender<SessionState>,
    session: SessionCell,
    watches: Vec<Arc<WatchEntry>>,
    chroot_exists: bool,
}

impl Driver {
    pub fn new(
        config: ZooKeeperConfig,
        commands: mpsc::Receiver<Command>,
        closing: watch::Receiver<bool>,
        state: watch::Sender<SessionState>,
        session: SessionCell,
    ) -> Self {
        Self { config, commands, closing, state, session, watches: Vec::new(), chroot_exists: false }
    }

    /// Runs until the handle is closed or dropped. Returns the client of an abandoned session.
    pub async fn run(mut self) -> Option<zk::Client> {
        loop {
            let Some(client) = self.connect().await else {
                self.publish(None, SessionState::Closed);
                return None;
            };
            match self.serve(client).await {
                End::Lost => self.publish(None, SessionState::Disconnected),
                End::Abandon(client) => {
                    self.publish(None, SessionState::Closed);
                    return Some(client);
                }
                End::Close(client) => {
                    self.commands.close();
                    self.watches.clear();
                    close(client, self.config.session_timeout).await;
                    self.publish(None, SessionState::Closed);
                    return None;
                }
            }
        }
    }

    fn publish(&self, session: Option<&zk::SessionInfo>, state: SessionState) {
        *self.session.lock().unwrap_or_else(PoisonError::into_inner) = session.cloned();
        self.state.send_if_modified(|current| {
            let modified = *current != state;
            *current = state;
            modified
        });
    }

    /// Tries for ever; none when the handle was closed or dropped meanwhile.
    async fn connect(&mut self) -> Option<zk::Client> {
        let began = Instant::now();
        let mut closing = self.closing.clone();
        loop {
            let attempt = tokio::select! {
                attempt = self.attempt() => attempt,
                // A value or an error: in both cases nobody wants a session any more.
                _ = end_wanted(&mut closing) => return None,
            };
            match attempt {
                Ok(client) => return Some(client),
                Err(error) => {
                    let waited = began.elapsed();
                    let servers = &self.config.servers;
                    tracing::warn!(%error, %servers, ?waited, "waiting for ZooKeeper");
                }
            }
            // All brokers lose their sessions together: they must not all come back together.
            let pause = Duration::from_millis(rand::random_range(50..500));
            tokio::select! {
                () = sleep(pause) => {}
                _ = end_wanted(&mut closing) => return None,
            }
        }
    }

    async fn attempt(&mut self) -> Result<zk::Client, RegistryError> {
        let (hosts, chroot) = self.config.split()?;
        let of = |error: zk::Error| super::errors::of_request(chroot, &error);
        let mut connector = zk::Client::connector()
            .with_session_timeout(self.config.session_timeout)
            .with_connection_timeout(self.config.session_timeout * 3 / 10);
        if let Some((scheme, secret)) = &self.config.auth {
            connector = connector.with_auth(scheme, secret.as_bytes());
        }
        let client = connector.connect(hosts).await.map_err(of)?;
        if chroot.is_empty() {
            return Ok(client);
        }
        if !self.chroot_exists {
            let options = zk::CreateMode::Persistent.with_acls(zk::Acls::anyone_all());
            client.mkdir(chroot, &options).await.map_err(of)?;
        }
        let chroot = chroot.to_owned();
        let rooted = client.chroot(chroot.clone());
        self.chroot_exists = true;
        rooted.map_err(|_| RegistryError::BadArgument(format!("chroot {chroot:?}")))
    }

    async fn serve(&mut self, client: zk::Client) -> End {
        let mut states = client.state_watcher();
        let mut in_flight = JoinSet::new();
        let mut feeds = JoinSet::new();
        self.watches.retain(|entry| !entry.events.is_closed());
        for entry in &self.watches {
            feeds.spawn(feed(client.clone(), entry.clone(), None));
        }
        if !self.observe(&client, client.state()) {
            return End::Lost;
        }
        let mut closing = self.closing.clone();
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                wanted = end_wanted(&mut closing) => {
                    in_flight.shutdown().await;
                    feeds.shutdown().await;
                    return if wanted == Wanted::Close { End::Close(client) } else { End::Abandon(client) };
                }
                state = states.changed() => {
                    if !self.observe(&client, state) {
                        finish(in_flight).await;
                        return End::Lost;
                    }
                }
                // With the handle dropped, the branch above ends the session.
                count = self.commands.recv_many(&mut batch, BATCH),
                    if in_flight.len() < IN_FLIGHT_MAX && !self.commands.is_closed() =>
                {
                    if count == 0 {
                        continue;
                    }
                    for command in batch.drain(..) {
                        self.dispatch(&client, command, &mut in_flight, &mut feeds).await;
                    }
                }
                Some(_) = in_flight.join_next() => {}
                Some(_) = feeds.join_next() => {}
            }
        }
    }

    /// Publishes a state of the library; false when the session is over.
    fn observe(&self, client: &zk::Client, state: zk::SessionState) -> bool {
        let session = client.session();
        match state {
            zk::SessionState::SyncConnected => {
                let id = crate::api::SessionId(session.id().0);
                self.publish(Some(session), SessionState::Connected(id));
                true
            }
            zk::SessionState::Disconnected | zk::SessionState::ConnectedReadOnly => {
                self.publish(Some(session), SessionState::Disconnected);
                true
            }
            zk::SessionState::AuthFailed => {
                tracing::error!("ZooKeeper refuses the authentication; trying again");
                false
            }
            zk::SessionState::Expired | zk::SessionState::Closed => {
                tracing::warn!(session = %session.id(), ?state, "the ZooKeeper session is over");
                false
            }
        }
    }

    async fn dispatch(
        &mut self,
        client: &zk::Client,
        command: Command,
        in_flight: &mut JoinSet<()>,
        feeds: &mut JoinSet<()>,
    ) {
        if Instant::now() >= command.gives_up {
            return; // It waited for a session for too long; its caller has gone on.
        }
        if let Request::Watch { path, recursive, events, reply } = command.request {
            self.watches.retain(|entry| !entry.events.is_closed());
            // The server keeps one mode per path and connection (ZOOKEEPER-4466).
            if self.watches.iter().any(|w| w.path == path && w.recursive != recursive) {
                let text = format!("{path} is watched in another mode on this session");
                let _ = reply.send(Err(RegistryError::BadArgument(text)));
                return;
            }
            let entry = Arc::new(WatchEntry { path, recursive, events });
            self.watches.push(entry.clone());
            begin(Box::pin(feed(client.clone(), entry, Some(reply))), feeds).await;
            return;
        }
        begin(Box::pin(execute(client.clone(), command.request)), in_flight).await;
    }
}

/// Polls once here, which sends the request: tasks need not start in the order of their spawns.
async fn begin(mut job: Pin<Box<dyn Future<Output = ()> + Send>>, jobs: &mut JoinSet<()>) {
    if futures::poll!(&mut job).is_pending() {
        jobs.spawn(job);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Close,
    Abandon,
}

/// Waits until the handle is closed or dropped. (Nothing of the channel is held on return: its
/// value is locked while it is looked at.)
async fn end_wanted(closing: &mut watch::Receiver<bool>) -> Wanted {
    match closing.wait_for(|closing| *closing).await {
        Ok(_) => Wanted::Close,
        Err(_) => Wanted::Abandon,
    }
}

/// After the session's end the library answers everything that is left at once.
async fn finish(mut in_flight: JoinSet<()>) {
    let answered = async { while in_flight.join_next().await.is_some() {} };
    let _ = timeout(Duration::from_secs(1), answered).await;
}

/// The library closes the session when its last client is dropped, in the background: leaving
/// before it is done would leave the ephemeral nodes for a whole time-out.
async fn close(client: zk::Client, longest: Duration) {
    let mut states = client.state_watcher();
    let mut state = client.state();
    drop(client);
    let closed = async {
        while !state.is_terminated() {
            state = states.changed().await;
        }
    };
    if timeout(longest, closed).await.is_err() {
        tracing::warn!("ZooKeeper did not confirm the end of the session");
    }
}
