//! The server side: sessions, connections, watches and the queue of each client's requests.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::fault::{Auditor, Change, Loss};
use super::journal::{Bounds, Journal};
use super::lag::Past;
use super::tree::{Commit, Node, Tree};
use crate::api::{Event, EventKind, Op, RegistryError, SessionId, SessionState};
use crate::events::EventSender;
use crate::limits::parent_of;

/// Numbers are reserved in blocks, so that ephemeral nodes cost no fsync.
const ZXIDS_RESERVED: i64 = 1 << 20;
const SEQUENCES_RESERVED: i32 = 1 << 12;
const SESSIONS_RESERVED: i64 = 1 << 10;

/// A client notices a silent connection after this part of its session's time-out.
const SILENCE_NOTICED: f64 = 2.0 / 3.0;

pub type ClientId = u64;

/// What happens to a request when its turn comes.
pub enum Turn<'a> {
    Execute(&'a mut Server),
    /// Executed, but the client does not hear of it.
    ExecuteUnheard(&'a mut Server),
    Refuse(RegistryError),
}

/// A request on its way. Requests of one client have their turns in the order of the calls.
pub struct Queued {
    pub number: u64,
    pub arrived: bool,
    pub loss: Loss,
    pub run: Box<dyn FnOnce(Turn<'_>) + Send>,
}

struct WatchEntry {
    path: String,
    recursive: bool,
    events: EventSender,
}

struct Client {
    name: String,
    session: Option<SessionId>,
    timeout: Duration,
    /// False while the network between this client and the server is cut.
    linked: bool,
    /// Nothing passes in either direction, and the client has not noticed yet.
    silent: bool,
    /// Its server does not follow the others by itself.
    lagging: bool,
    /// The last transaction that its server has seen, if that is not the last of all.
    view: Option<i64>,
    /// Events of later transactions.
    held: Vec<(String, EventKind)>,
    /// The handle was dropped without closing: its session ends by time.
    dropped: bool,
    closed: bool,
    state: watch::Sender<SessionState>,
    watches: Vec<WatchEntry>,
    queue: VecDeque<Queued>,
}

struct Session {
    client: ClientId,
    timeout: Duration,
    /// For how long nothing was heard from its client; none while it is connected.
    absent: Option<Duration>,
}

#[derive(Default)]
pub struct Server {
    tree: Tree,
    journal: Option<Journal>,
    /// Why nothing can be written any more.
    broken: Option<String>,
    stopped: bool,
    clients: BTreeMap<ClientId, Client>,
    sessions: BTreeMap<SessionId, Session>,
    next_client: ClientId,
    last_session: i64,
    past: Past,
    auditor: Option<Arc<dyn Auditor>>,
}

impl Server {
    pub fn restored(tree: Tree, journal: Journal) -> Self {
        let last_session = journal.bounds().session;
        Self { tree, journal: Some(journal), last_session, ..Self::default() }
    }

    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    pub fn connect(&mut self, name: &str, timeout: Duration) -> (ClientId, watch::Receiver<SessionState>) {
        let (state, states) = watch::channel(SessionState::Disconnected);
        let client = self.next_client;
        self.next_client += 1;
        let entry = Client {
            name: name.to_owned(),
            session: None,
            timeout,
            linked: true,
            silent: false,
            lagging: false,
            view: None,
            held: Vec::new(),
            dropped: false,
            closed: false,
            state,
            watches: Vec::new(),
            queue: VecDeque::new(),
        };
        self.clients.insert(client, entry);
        self.resume(client);
        (client, states)
    }

    pub fn session_of(&self, client: ClientId) -> Option<SessionId> {
        self.clients.get(&client).and_then(|c| c.session)
    }

    pub fn clients_named(&self, name: &str) -> Vec<ClientId> {
        let named = self.clients.iter().filter(|(_, c)| c.name == name && !c.dropped);
        named.map(|(id, _)| *id).collect()
    }

    fn is_reachable(&self, client: ClientId) -> bool {
        let linked = self.clients.get(&client).is_some_and(|c| c.linked && !c.silent && !c.dropped && !c.closed);
        linked && !self.stopped
    }

    /// Connects a reachable client: the old session if it still lives, a new one otherwise;
    /// then whatever waited has its turn.
    fn resume(&mut self, client: ClientId) {
        if !self.is_reachable(client) {
            return;
        }
        let alive = self.session_of(client).filter(|s| self.sessions.contains_key(s));
        let session = alive.unwrap_or_else(|| self.open_session(client));
        if let Some(entry) = self.sessions.get_mut(&session) {
            entry.absent = None;
        }
        let Some(entry) = self.clients.get_mut(&client) else {
            return;
        };
        entry.session = Some(session);
        entry.state.send_replace(SessionState::Connected(session));
        for watch in &entry.watches {
            watch.events.send(Event::Reset);
        }
        self.run_queue(client);
    }

    fn open_session(&mut self, client: ClientId) -> SessionId {
        self.last_session += 1;
        let session = SessionId(self.last_session);
        let timeout = self.clients.get(&client).map_or(Duration::ZERO, |c| c.timeout);
        self.sessions.insert(session, Session { client, timeout, absent: None });
        if let Err(error) = self.reserve_numbers() {
            tracing::error!(%error, "cannot reserve session numbers");
        }
        session
    }

    /// Adds a request. It has its turn when it has arrived and all before it had theirs.
    pub fn enqueue(&mut self, client: ClientId, request: Queued) {
        match self.clients.get_mut(&client) {
            Some(entry) if !entry.closed => entry.queue.push_back(request),
            _ => (request.run)(Turn::Refuse(RegistryError::Closed)),
        }
    }

    /// The request with this number, and so all before it, reached the server.
    pub fn arrive(&mut self, client: ClientId, number: u64) {
        if let Some(entry) = self.clients.get_mut(&client) {
            for request in entry.queue.iter_mut().take_while(|r| r.number <= number) {
                request.arrived = true;
            }
        }
        self.run_queue(client);
    }

    fn run_queue(&mut self, client: ClientId) {
        while self.is_reachable(client) {
            let Some(entry) = self.clients.get_mut(&client) else {
                return;
            };
            if !entry.queue.front().is_some_and(|r| r.arrived) {
                return;
            }
            let Some(request) = entry.queue.pop_front() else {
                return;
            };
            let lost = || RegistryError::Unknown("the connection was lost".to_owned());
            match request.loss {
                Loss::None => (request.run)(Turn::Execute(self)),
                Loss::Request => {
                    (request.run)(Turn::Refuse(lost()));
                    self.break_connection(client);
                    self.resume(client);
                }
                Loss::Answer => {
                    (request.run)(Turn::ExecuteUnheard(self));
                    self.break_connection(client);
                    self.resume(client);
                }
            }
        }
    }

    /// Everything in flight is lost, and the client knows that it is disconnected.
    fn break_connection(&mut self, client: ClientId) {
        let Some(entry) = self.clients.get_mut(&client) else {
            return;
        };
        if entry.closed {
            return;
        }
        // Wherever it connects next, it gets a reset.
        entry.lagging = false;
        entry.view = None;
        entry.held.clear();
        entry.state.send_replace(SessionState::Disconnected);
        let error = RegistryError::Unknown("the connection was lost".to_owned());
        refuse_all(entry, &error);
        if let Some(session) = entry.session.and_then(|s| self.sessions.get_mut(&s)) {
            session.absent.get_or_insert(Duration::ZERO);
        }
    }

    /// Cuts the network between a client and the server, or mends it.
    pub fn set_linked(&mut self, client: ClientId, linked: bool) {
        let Some(entry) = self.clients.get_mut(&client) else {
            return;
        };
        if entry.linked == linked {
            return;
        }
        entry.linked = linked;
        if linked { self.resume(client) } else { self.break_connection(client) }
    }

    /// Breaks a connection; it comes back at once.
    pub fn blip(&mut self, client: ClientId) {
        self.break_connection(client);
        self.resume(client);
    }

    /// Stops the whole service, or starts it again with every session alive.
    pub fn set_stopped(&mut self, stopped: bool) {
        if self.stopped == stopped {
            return;
        }
        self.stopped = stopped;
        let clients: Vec<ClientId> = self.clients.keys().copied().collect();
        for client in clients {
            if stopped { self.break_connection(client) } else { self.resume(client) }
        }
        if !stopped {
            for session in self.sessions.values_mut().filter(|s| s.absent.is_some()) {
                session.absent = Some(Duration::ZERO);
            }
        }
    }

    /// Time passed: sessions of absent clients end when their time is over.
    pub fn tick(&mut self, elapsed: Duration) {
        if self.stopped {
            return;
        }
        let (mut over, mut noticed) = (Vec::new(), Vec::new());
        for (id, session) in &mut self.sessions {
            if let Some(absent) = &mut session.absent {
                *absent += elapsed;
                if *absent >= session.timeout {
                    over.push(*id);
                } else if *absent >= session.timeout.mul_f64(SILENCE_NOTICED) {
                    noticed.push(session.client);
                }
            }
        }
        for client in noticed {
            if self.clients.get(&client).is_some_and(|c| c.silent) {
                self.break_connection(client);
            }
        }
        for session in over {
            self.expire(session);
        }
    }

    /// Ends a session now. Its client, when it can be reached, gets a new one.
    pub fn expire(&mut self, session: SessionId) {
        let Some(Session { client, .. }) = self.sessions.remove(&session) else {
            return;
        };
        self.end_session(session);
        let Some(entry) = self.clients.get_mut(&client) else {
            return;
        };
        // One that is cut off silently learns it when it is connected again.
        if !entry.silent {
            refuse_all(entry, &RegistryError::SessionExpired);
        }
        if entry.dropped {
            self.clients.remove(&client);
            return;
        }
        entry.session = None;
        entry.state.send_replace(SessionState::Disconnected);
        self.resume(client);
    }

    /// Ends the session and the client.
    pub fn close(&mut self, client: ClientId) {
        let Some(entry) = self.clients.get_mut(&client) else {
            return;
        };
        entry.closed = true;
        refuse_all(entry, &RegistryError::Closed);
        entry.watches.clear();
        let session = entry.session.take();
        entry.state.send_replace(SessionState::Closed);
        if let Some(session) = session.filter(|s| self.sessions.remove(s).is_some()) {
            self.end_session(session);
        }
    }

    fn end_session(&mut self, session: SessionId) {
        let changes = self.tree.end_session(session);
        self.took_effect(None, &changes);
    }

    /// The handle is gone. Without a close before, that is a crash: the session stays for its time.
    pub fn drop_handle(&mut self, client: ClientId) {
        let Some(entry) = self.clients.get_mut(&client) else {
            return;
        };
        entry.dropped = true;
        entry.watches.clear();
        refuse_all(entry, &RegistryError::Closed);
        match entry.session.and_then(|s| self.sessions.get_mut(&s)) {
            Some(session) => session.absent = session.absent.or(Some(Duration::ZERO)),
            None => {
                self.clients.remove(&client);
            }
        }
    }

    pub fn add_watch(&mut self, client: ClientId, path: &str, recursive: bool, events: EventSender) {
        let Some(entry) = self.clients.get_mut(&client) else {
            return;
        };
        entry.watches.retain(|w| !w.events.is_closed());
        events.send(Event::Reset);
        entry.watches.push(WatchEntry { path: path.to_owned(), recursive, events });
    }

    /// One transaction: durable before it returns.
    pub fn transact(&mut self, client: ClientId, ops: &[Op]) -> Result<Commit, (Option<usize>, RegistryError)> {
        let session = self.session_of(client).ok_or((None, RegistryError::SessionExpired))?;
        // A server answers a write when it has seen it, and so all before it.
        self.catch_up(client);
        if let Some(why) = &self.broken {
            return Err((None, RegistryError::Unknown(why.clone())));
        }
        let commit = self.commit(client, session, ops);
        self.fall_behind(client);
        commit
    }

    fn commit(
        &mut self,
        client: ClientId,
        session: SessionId,
        ops: &[Op],
    ) -> Result<Commit, (Option<usize>, RegistryError)> {
        let commit = self.tree.transact(session, ops).map_err(|(index, e)| (Some(index), e))?;
        if let Err(error) = self.persist(&commit.durable) {
            self.tree.roll_back();
            return Err((None, error));
        }
        self.took_effect(Some(client), &commit.changes);
        Ok(commit)
    }

    /// The last transaction is final: whoever looks at it, or back, is served.
    fn took_effect(&mut self, by: Option<ClientId>, changes: &[(String, EventKind)]) {
        let replaced = self.tree.confirm();
        if self.clients.values().any(|c| c.view.is_some()) {
            self.past.note(self.tree.zxid(), replaced);
        }
        if let Some(auditor) = self.auditor.as_ref().filter(|_| !changes.is_empty()) {
            let node = |path: &String| self.tree.get(path).map(|n| (n.data.clone(), n.stat())).unwrap_or_default();
            let changes = changes.iter().map(|(path, kind)| {
                let (data, stat) = node(path);
                Change { path: path.clone(), kind: *kind, data, stat }
            });
            let by = by.and_then(|client| self.clients.get(&client)).map(|c| c.name.as_str());
            auditor.committed(by, &changes.collect::<Vec<_>>());
        }
        self.fire(changes);
    }

    pub fn set_auditor(&mut self, auditor: Arc<dyn Auditor>) {
        self.auditor = Some(auditor);
    }

    /// A client's server stops to follow the others, or follows them again.
    pub fn set_lagging(&mut self, client: ClientId, lagging: bool) {
        match self.clients.get_mut(&client) {
            Some(entry) => entry.lagging = lagging,
            None => return,
        }
        if lagging {
            self.fall_behind(client);
        } else {
            self.catch_up(client);
        }
    }

    /// From here on, if its server lags.
    pub fn fall_behind(&mut self, client: ClientId) {
        let zxid = self.tree.zxid();
        if let Some(entry) = self.clients.get_mut(&client).filter(|entry| entry.lagging) {
            entry.view.get_or_insert(zxid);
        }
    }

    /// The client's server has seen everything; the events come before any later answer.
    pub fn catch_up(&mut self, client: ClientId) {
        let Some(entry) = self.clients.get_mut(&client) else { return };
        if entry.view.take().is_none() {
            return;
        }
        for (path, kind) in std::mem::take(&mut entry.held) {
            entry.tell(&path, kind);
        }
        let oldest = self.clients.values().filter_map(|c| c.view).min();
        self.past.forget_before(oldest);
    }

    /// A node as this client's server knows it.
    pub fn node(&self, client: ClientId, path: &str) -> Option<&Node> {
        match self.clients.get(&client).and_then(|c| c.view) {
            Some(view) => self.past.node(&self.tree, view, path),
            None => self.tree.get(path),
        }
    }

    /// The names of its children, as this client's server knows them.
    pub fn children(&self, client: ClientId, path: &str) -> Result<Vec<String>, RegistryError> {
        match self.clients.get(&client).and_then(|c| c.view) {
            Some(view) => self.past.children(&self.tree, view, path),
            None => self.tree.children(path),
        }
    }

    /// Nothing passes between a client and the server, and neither is told: requests wait, the
    /// session runs out. Mended, it goes on as if nothing had been.
    pub fn set_silent(&mut self, client: ClientId, silent: bool) {
        let Some(entry) = self.clients.get_mut(&client) else { return };
        if entry.silent == silent || entry.dropped || entry.closed {
            return;
        }
        entry.silent = silent;
        let expired = entry.session.is_none_or(|s| !self.sessions.contains_key(&s));
        if silent {
            if let Some(session) = entry.session.and_then(|s| self.sessions.get_mut(&s)) {
                session.absent.get_or_insert(Duration::ZERO);
            }
        } else {
            if expired {
                refuse_all(entry, &RegistryError::SessionExpired);
            }
            self.resume(client);
        }
    }

    fn reserve_numbers(&mut self) -> Result<(), RegistryError> {
        self.persist(&[])
    }

    /// A failed write or fsync is never tried again: what is on the disk is unknown from then on.
    fn persist(&mut self, paths: &[String]) -> Result<(), RegistryError> {
        let Some(journal) = &mut self.journal else {
            return Ok(());
        };
        let mut bounds = journal.bounds();
        if self.tree.zxid() > bounds.zxid
            || self.tree.sequence_max() > bounds.sequence
            || self.last_session > bounds.session
        {
            bounds = Bounds {
                zxid: self.tree.zxid() + ZXIDS_RESERVED,
                sequence: self.tree.sequence_max().saturating_add(SEQUENCES_RESERVED),
                session: self.last_session + SESSIONS_RESERVED,
            };
        }
        let mut written = journal.append(&self.tree, paths, bounds);
        if written.is_ok() && journal.wants_compaction() {
            written = journal.compact(&self.tree);
        }
        written.map_err(|error| {
            let why = format!("the registry's journal failed: {error}");
            self.broken = Some(why.clone());
            RegistryError::Unknown(why)
        })
    }

    fn fire(&mut self, changes: &[(String, EventKind)]) {
        let stopped = self.stopped;
        for (path, kind) in changes {
            for client in self.clients.values_mut() {
                if stopped || !client.linked || client.silent || client.dropped || client.closed {
                    continue; // It gets a reset when it reconnects.
                }
                if client.view.is_some() {
                    client.held.push((path.clone(), *kind));
                } else {
                    client.tell(path, *kind);
                }
            }
        }
    }
}

impl Client {
    fn tell(&self, path: &str, kind: EventKind) {
        for watch in &self.watches {
            if let Some(event) = event_for(watch, path, kind) {
                watch.events.send(event);
            }
        }
    }
}

fn refuse_all(client: &mut Client, error: &RegistryError) {
    for request in std::mem::take(&mut client.queue) {
        (request.run)(Turn::Refuse(error.clone()));
    }
}

/// A recursive watch sees the node and everything below; a plain one sees the node, and one
/// `Changed` when a child comes or goes.
fn event_for(watch: &WatchEntry, path: &str, kind: EventKind) -> Option<Event> {
    let below = watch.path == "/"
        || path.strip_prefix(&watch.path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if !below {
        return None;
    }
    if watch.recursive || path == watch.path {
        return Some(Event::Node { path: path.to_owned(), kind });
    }
    let child = parent_of(path) == Some(&watch.path) && kind != EventKind::Changed;
    child.then(|| Event::Node { path: watch.path.clone(), kind: EventKind::Changed })
}
