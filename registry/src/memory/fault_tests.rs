//! What a simulation does to clients: servers that lag, silent cuts, a look at every transaction.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use super::*;
use crate::api::{CreateMode, Event, EventKind, Registry, RegistryError, SessionState};

/// A node with data, read by a handle.
async fn data(registry: &MemoryRegistry, path: &str) -> Option<Bytes> {
    registry.get(path).await.ok().map(|(data, _)| data)
}

#[tokio::test(start_paused = true)]
async fn a_lagging_server_shows_the_past_until_its_client_writes_or_syncs() {
    let ensemble = MemoryEnsemble::new();
    let (writer, reader) = (ensemble.connect("writer"), ensemble.connect("reader"));
    let put = |path: &'static str, text: &'static str| writer.create(path, text.into(), CreateMode::Persistent);
    put("/a", "1").await.unwrap();
    put("/a/x", "").await.unwrap();
    let mut watch = reader.watch("/a", true).await.unwrap();
    assert_eq!(watch.next().await, Some(Event::Reset));
    ensemble.set_lagging("reader", true);
    writer.set("/a", "2".into(), None).await.unwrap();
    writer.set("/a", "3".into(), None).await.unwrap();
    put("/a/y", "").await.unwrap();
    writer.delete("/a/x", None).await.unwrap();
    assert_eq!(data(&reader, "/a").await.unwrap(), "1");
    assert_eq!(reader.children("/a").await.unwrap(), ["x"]);
    assert!(data(&reader, "/a/y").await.is_none() && data(&reader, "/a/x").await.is_some());
    assert!(timeout(Duration::from_secs(1), watch.next()).await.is_err(), "its server has seen nothing");
    reader.sync("/a").await.unwrap();
    assert_eq!(data(&reader, "/a").await.unwrap(), "3");
    assert_eq!(reader.children("/a").await.unwrap(), ["y"]);
    let first = watch.next().await.unwrap();
    assert_eq!(first, Event::Node { path: "/a".to_owned(), kind: EventKind::Changed });
    writer.set("/a", "4".into(), None).await.unwrap();
    assert_eq!(data(&reader, "/a").await.unwrap(), "3", "it lags again");
    let stat = reader.set("/a", "5".into(), None).await.unwrap();
    assert_eq!((stat.version, data(&reader, "/a").await.unwrap()), (4, "5".into()), "its own write comes after all");
    writer.set("/a", "6".into(), None).await.unwrap();
    ensemble.set_lagging("reader", false);
    assert_eq!(data(&reader, "/a").await.unwrap(), "6");
}

#[tokio::test(start_paused = true)]
async fn a_silent_cut_is_noticed_late_and_ends_the_session() {
    let ensemble = MemoryEnsemble::new();
    let registry = ensemble.connect_with("cut", Duration::from_secs(3));
    let session = registry.session_id();
    registry.create("/e", Bytes::new(), CreateMode::Ephemeral).await.unwrap();
    let connected = || matches!(*registry.session().borrow(), SessionState::Connected(_));
    ensemble.set_silent("cut", true);
    ensemble.tick(Duration::from_secs(1));
    assert!(connected(), "nobody told it");
    ensemble.tick(Duration::from_millis(1_200));
    assert!(!connected(), "it has heard nothing for two thirds of its time");
    let waiting = registry.get("/e");
    ensemble.tick(Duration::from_secs(1));
    ensemble.set_silent("cut", false);
    assert_eq!(waiting.await.unwrap_err(), RegistryError::SessionExpired);
    assert!(connected() && registry.session_id() != session);
    assert!(registry.exists("/e").await.unwrap().is_none());
}

#[tokio::test]
async fn an_auditor_sees_what_every_transaction_did() {
    struct Seen(Arc<Mutex<Vec<String>>>);
    impl Auditor for Seen {
        fn committed(&self, by: Option<&str>, changes: &[Change]) {
            for Change { path, kind, stat, .. } in changes {
                self.0.lock().unwrap().push(format!("{} {kind:?} {path} {}", by.unwrap_or("-"), stat.version));
            }
        }
    }
    let (ensemble, seen) = (MemoryEnsemble::new(), Arc::default());
    ensemble.audit(Seen(Arc::clone(&seen)));
    let registry = ensemble.connect("one");
    registry.create("/a", Bytes::new(), CreateMode::Persistent).await.unwrap();
    registry.set("/a", Bytes::new(), Some(0)).await.unwrap();
    registry.set("/a", Bytes::new(), Some(0)).await.unwrap_err();
    registry.create("/a/e", Bytes::new(), CreateMode::Ephemeral).await.unwrap();
    registry.close().await;
    let expected = ["one Created /a 0", "one Changed /a 1", "one Created /a/e 0", "- Deleted /a/e 0"];
    assert_eq!(*seen.lock().unwrap(), expected);
}
