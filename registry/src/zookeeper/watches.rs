//! Persistent watches that survive reconnections and sessions.

use std::sync::Arc;

use tokio::sync::oneshot;
use zookeeper_client as zk;

use super::errors;
use crate::api::{Event, EventKind, RegistryError};
use crate::events::EventSender;

/// What a caller asked to watch; it outlives sessions.
pub struct WatchEntry {
    pub path: String,
    pub recursive: bool,
    pub events: EventSender,
}

/// Feeds one watch for the life of one session. The library forgets persistent watches at every
/// reconnection without a word, so each one begins with a new watch and a reset.
pub async fn feed(
    client: zk::Client,
    entry: Arc<WatchEntry>,
    mut ready: Option<oneshot::Sender<Result<(), RegistryError>>>,
) {
    let mode = if entry.recursive { zk::AddWatchMode::PersistentRecursive } else { zk::AddWatchMode::Persistent };
    let mut states = client.state_watcher();
    // Kept until its successor is in place: were it dropped first, the library would take the
    // watch away from the server in between.
    let mut kept: Option<zk::PersistentWatcher> = None;
    loop {
        states.state();
        let current = match client.watch(&entry.path, mode).await {
            Ok(replacement) => kept.insert(replacement),
            Err(error) => {
                let error = errors::of_request(&entry.path, &error);
                if !error.outcome_unknown() {
                    if let Some(ready) = ready.take() {
                        let _ = ready.send(Err(error));
                    }
                    return;
                }
                if !reconnected(&mut states).await {
                    return;
                }
                continue;
            }
        };
        entry.events.send(Event::Reset);
        if let Some(ready) = ready.take() {
            let _ = ready.send(Ok(()));
        }
        if !relay(current, &entry.events).await {
            return;
        }
    }
}

/// Hands events on until the watch has to be made again (true) or is over (false).
async fn relay(watcher: &mut zk::PersistentWatcher, events: &EventSender) -> bool {
    loop {
        let event = tokio::select! {
            event = watcher.changed() => event,
            () = events.closed() => return false,
        };
        let kind = match event.event_type {
            zk::EventType::Session if event.session_state.is_terminated() => return false,
            zk::EventType::Session => match event.session_state {
                zk::SessionState::SyncConnected => return true,
                _ => continue,
            },
            zk::EventType::NodeCreated => EventKind::Created,
            zk::EventType::NodeDeleted => EventKind::Deleted,
            zk::EventType::NodeDataChanged | zk::EventType::NodeChildrenChanged => EventKind::Changed,
        };
        events.send(Event::Node { path: event.path, kind });
    }
}

/// Waits for the next connection of this session; false when there will be none.
async fn reconnected(states: &mut zk::StateWatcher) -> bool {
    loop {
        match states.changed().await {
            zk::SessionState::SyncConnected => return true,
            state if state.is_terminated() => return false,
            _ => {}
        }
    }
}
