//! One client's handle on the ensemble.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use super::MemoryEnsemble;
use super::fault::{Fate, Request};
use super::server::{ClientId, Queued, Server, Turn};
use crate::api::{
    CreateMode, Created, MultiError, Op, OpResult, Registry, RegistryError, SessionId, SessionState, Stat, Watch,
};
use crate::events::{EVENTS_MAX, event_channel};
use crate::limits;

type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A handle with a session of its own. Requests take effect in the order of the calls: at the
/// call itself when the network has no latency, otherwise when the first answer at or behind
/// them is awaited.
#[derive(Debug)]
pub struct MemoryRegistry {
    ensemble: MemoryEnsemble,
    client: ClientId,
    name: String,
    deadline: Duration,
    numbers: AtomicU64,
    states: watch::Receiver<SessionState>,
}

impl Drop for MemoryRegistry {
    fn drop(&mut self) {
        self.ensemble.lock().drop_handle(self.client);
    }
}

impl MemoryRegistry {
    pub(super) fn new(
        ensemble: MemoryEnsemble,
        client: ClientId,
        name: &str,
        deadline: Duration,
        states: watch::Receiver<SessionState>,
    ) -> Self {
        let name = name.to_owned();
        Self { ensemble, client, name, deadline, numbers: AtomicU64::new(0), states }
    }

    fn submit<'a, T, E>(
        &self,
        path: &str,
        is_write: bool,
        request: impl FnOnce(&mut Server, ClientId) -> Result<T, E> + Send + 'static,
    ) -> Answer<'a, Result<T, E>>
    where
        T: Send + 'static,
        E: From<RegistryError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let client = self.client;
        let run = Box::new(move |turn: Turn<'_>| {
            let result = match turn {
                Turn::Execute(server) => request(server, client),
                Turn::ExecuteUnheard(server) => {
                    let _ = request(server, client);
                    Err(RegistryError::Unknown("the answer was lost".to_owned()).into())
                }
                Turn::Refuse(error) => Err(error.into()),
            };
            // Nobody waits any more: fine, it happened all the same.
            let _ = reply.send(result);
        });
        let (number, fate) = self.enqueue(path, is_write, run);
        let ensemble = self.ensemble.clone();
        let deadline = self.deadline;
        Box::pin(async move {
            let journey = async {
                if !fate.request_latency.is_zero() {
                    tokio::time::sleep(fate.request_latency).await;
                    ensemble.lock().arrive(client, number);
                }
                let result = answer.await.unwrap_or_else(|_| Err(RegistryError::Closed.into()));
                if !fate.answer_latency.is_zero() {
                    tokio::time::sleep(fate.answer_latency).await;
                }
                result
            };
            let late = |_| Err(RegistryError::Unknown(format!("no answer in {deadline:?}")).into());
            timeout(deadline, journey).await.unwrap_or_else(late)
        })
    }

    fn enqueue(&self, path: &str, is_write: bool, run: Box<dyn FnOnce(Turn<'_>) + Send>) -> (u64, Fate) {
        let mut server = self.ensemble.lock();
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let request = Request { client: &self.name, number, path, is_write };
        let fate = self.ensemble.network.fate(request);
        server.enqueue(self.client, Queued { number, arrived: false, loss: fate.loss, run });
        if fate.request_latency.is_zero() {
            server.arrive(self.client, number);
        }
        (number, fate)
    }

    fn transact<'a>(&self, path: &str, op: Op) -> Answer<'a, Result<(OpResult, Stat), RegistryError>> {
        self.submit(path, true, move |server, client| {
            let commit = server.transact(client, &[op]).map_err(|(_, error)| error)?;
            let path = commit.changes.first().map(|(path, _)| path.as_str()).unwrap_or_default();
            let stat = server.tree().get(path).map(super::tree::Node::stat).unwrap_or_default();
            let result = commit.results.into_iter().next().unwrap_or(OpResult::Checked);
            Ok((result, stat))
        })
    }
}

fn refused<'a, T: Send + 'a>(value: T) -> Answer<'a, T> {
    Box::pin(std::future::ready(value))
}

// Written out rather than by `async_trait`: its futures do nothing before they are polled, but
// a request must take its place in the order of the calls.
impl Registry for MemoryRegistry {
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
        if let Err(error) = limits::check_create(path, &data, mode) {
            return refused(Err(error));
        }
        let created = self.transact(path, Op::Create { path: path.to_owned(), data, mode });
        Box::pin(async move {
            match created.await? {
                (OpResult::Created { path }, stat) => Ok(Created { path, stat }),
                (other, _) => Err(RegistryError::Unknown(format!("create answered {other:?}"))),
            }
        })
    }

    fn get<'s, 'p, 'f>(&'s self, path: &'p str) -> Answer<'f, Result<(Bytes, Stat), RegistryError>>
    where
        's: 'f,
        'p: 'f,
        Self: 'f,
    {
        if let Err(error) = limits::check_path(path, false) {
            return refused(Err(error));
        }
        let wanted = path.to_owned();
        self.submit(path, false, move |server, client| match server.node(client, &wanted) {
            Some(node) => Ok((node.data.clone(), node.stat())),
            None => Err(RegistryError::NoNode(wanted)),
        })
    }

    fn exists<'s, 'p, 'f>(&'s self, path: &'p str) -> Answer<'f, Result<Option<Stat>, RegistryError>>
    where
        's: 'f,
        'p: 'f,
        Self: 'f,
    {
        if let Err(error) = limits::check_path(path, false) {
            return refused(Err(error));
        }
        let wanted = path.to_owned();
        self.submit(path, false, move |server, client| Ok(server.node(client, &wanted).map(super::tree::Node::stat)))
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
        if let Err(error) = limits::check_path(path, false).and_then(|()| limits::check_data(path, &data)) {
            return refused(Err(error));
        }
        let set = self.transact(path, Op::Set { path: path.to_owned(), data, version });
        Box::pin(async move { set.await.map(|(_, stat)| stat) })
    }

    fn delete<'s, 'p, 'f>(&'s self, path: &'p str, version: Option<i32>) -> Answer<'f, Result<(), RegistryError>>
    where
        's: 'f,
        'p: 'f,
        Self: 'f,
    {
        if let Err(error) = limits::check_delete(path) {
            return refused(Err(error));
        }
        let deleted = self.transact(path, Op::Delete { path: path.to_owned(), version });
        Box::pin(async move { deleted.await.map(|_| ()) })
    }

    fn children<'s, 'p, 'f>(&'s self, path: &'p str) -> Answer<'f, Result<Vec<String>, RegistryError>>
    where
        's: 'f,
        'p: 'f,
        Self: 'f,
    {
        if let Err(error) = limits::check_path(path, false) {
            return refused(Err(error));
        }
        let wanted = path.to_owned();
        self.submit(path, false, move |server, client| server.children(client, &wanted))
    }

    fn multi<'s, 'f>(&'s self, ops: Vec<Op>) -> Answer<'f, Result<Vec<OpResult>, MultiError>>
    where
        's: 'f,
        Self: 'f,
    {
        if let Err((index, error)) = limits::check_ops(&ops) {
            return refused(Err(MultiError { index, error }));
        }
        self.submit("", true, move |server, client| {
            let commit = server.transact(client, &ops);
            commit.map(|c| c.results).map_err(|(index, error)| MultiError { index, error })
        })
    }

    fn sync<'s, 'p, 'f>(&'s self, path: &'p str) -> Answer<'f, Result<(), RegistryError>>
    where
        's: 'f,
        'p: 'f,
        Self: 'f,
    {
        if let Err(error) = limits::check_path(path, false) {
            return refused(Err(error));
        }
        self.submit(path, false, |server, client| {
            server.catch_up(client);
            server.fall_behind(client);
            Ok(())
        })
    }

    fn watch<'s, 'p, 'f>(&'s self, path: &'p str, recursive: bool) -> Answer<'f, Result<Watch, RegistryError>>
    where
        's: 'f,
        'p: 'f,
        Self: 'f,
    {
        if let Err(error) = limits::check_path(path, false) {
            return refused(Err(error));
        }
        let delay = self.ensemble.network.event_latency(&self.name);
        let (events, watch) = event_channel(EVENTS_MAX, delay);
        let wanted = path.to_owned();
        self.submit(path, false, move |server, client| {
            server.add_watch(client, &wanted, recursive, events);
            Ok(watch)
        })
    }

    fn session(&self) -> watch::Receiver<SessionState> {
        self.states.clone()
    }

    fn session_id(&self) -> Option<SessionId> {
        self.ensemble.lock().session_of(self.client)
    }

    fn close<'s, 'f>(&'s self) -> Answer<'f, ()>
    where
        's: 'f,
        Self: 'f,
    {
        self.ensemble.lock().close(self.client);
        refused(())
    }
}
