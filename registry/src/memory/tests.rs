//! What only this implementation has: durability, faults, a clock by hand. The contract that it
//! shares with the real one is in `testing::contract`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;

use super::*;
use crate::api::{CreateMode, Event, Registry, RegistryError, SessionState};

fn data(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

#[tokio::test]
async fn persistent_nodes_survive_and_numbers_never_repeat() {
    let dir = tempfile::tempdir().unwrap();
    let before = {
        let ensemble = MemoryEnsemble::open(dir.path()).unwrap();
        let registry = ensemble.connect("a");
        registry.create("/p", data("1"), CreateMode::Persistent).await.unwrap();
        registry.set("/p", data("2"), Some(0)).await.unwrap();
        registry.create("/gone", data(""), CreateMode::Persistent).await.unwrap();
        registry.delete("/gone", None).await.unwrap();
        let ghost = registry.create("/p/c-", data(""), CreateMode::EphemeralSequential).await;
        (ghost.unwrap(), registry.session_id().unwrap())
    };
    let ensemble = MemoryEnsemble::open(dir.path()).unwrap();
    let registry = ensemble.connect("a");
    let (bytes, stat) = registry.get("/p").await.unwrap();
    assert_eq!((bytes, stat.version, stat.num_children), (data("2"), 1, 0));
    assert_eq!(registry.exists("/gone").await.unwrap(), None);
    let again = registry.create("/p/c-", data(""), CreateMode::EphemeralSequential).await.unwrap();
    assert!(again.path > before.0.path, "{} then {}", before.0.path, again.path);
    assert!(again.stat.czxid > before.0.stat.czxid);
    assert!(registry.session_id().unwrap() > before.1);
}

#[tokio::test]
async fn a_directory_serves_one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let _first = MemoryEnsemble::open(dir.path()).unwrap();
    assert!(matches!(MemoryEnsemble::open(dir.path()), Err(JournalError::InUse(_))));
}

fn journal_file(dir: &std::path::Path) -> std::path::PathBuf {
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "log"))
        .collect();
    assert_eq!(files.len(), 1);
    files.remove(0)
}

async fn ten_nodes(dir: &std::path::Path) {
    let ensemble = MemoryEnsemble::open(dir).unwrap();
    let registry = ensemble.connect("a");
    for n in 0..10 {
        registry.create(&format!("/n{n}"), data("x"), CreateMode::Persistent).await.unwrap();
    }
}

#[tokio::test]
async fn a_torn_tail_is_dropped_wherever_it_was_cut() {
    let dir = tempfile::tempdir().unwrap();
    ten_nodes(dir.path()).await;
    let file = journal_file(dir.path());
    let whole = std::fs::read(&file).unwrap();
    let mut found_before = 10;
    for end in (0..whole.len()).rev() {
        std::fs::write(&file, &whole[..end]).unwrap();
        let ensemble = MemoryEnsemble::open(dir.path()).unwrap();
        let registry = ensemble.connect("a");
        let names = registry.children("/").await.unwrap();
        let expected: Vec<String> = (0..names.len()).map(|n| format!("n{n}")).collect();
        assert_eq!(names, expected, "cut to {end} bytes: not a prefix of what was written");
        assert!(names.len() <= found_before);
        found_before = names.len();
        // It goes on from there.
        registry.create("/more", data(""), CreateMode::Persistent).await.unwrap();
        drop((registry, ensemble));
        let reopened = MemoryEnsemble::open(dir.path()).unwrap().connect("a");
        assert!(reopened.exists("/more").await.unwrap().is_some());
    }
}

#[tokio::test]
async fn damage_in_the_middle_is_refused_and_named() {
    let dir = tempfile::tempdir().unwrap();
    ten_nodes(dir.path()).await;
    let file = journal_file(dir.path());
    let whole = std::fs::read(&file).unwrap();
    let open_with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = whole.clone();
        change(&mut bytes);
        std::fs::write(&file, &bytes).unwrap();
        MemoryEnsemble::open(dir.path()).unwrap_err()
    };
    let middle = whole.len() / 2;
    assert!(matches!(open_with(&|b| b[middle] ^= 1), JournalError::Damaged { .. }));
    assert!(matches!(open_with(&|b| b[0] ^= 1), JournalError::NotOurs(_)));
    assert!(matches!(open_with(&|b| b[9] = 9), JournalError::Newer { found: 9, .. }));
}

#[tokio::test]
async fn a_grown_journal_is_rewritten_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    {
        let ensemble = MemoryEnsemble::open(dir.path()).unwrap();
        let registry = ensemble.connect("a");
        let big = Bytes::from(vec![7; 400_000]);
        registry.create("/big", big.clone(), CreateMode::Persistent).await.unwrap();
        for n in 0..20 {
            registry.create(&format!("/n{n}"), data("x"), CreateMode::Persistent).await.unwrap();
            registry.set("/big", big.clone(), None).await.unwrap();
        }
    }
    assert!(std::fs::metadata(journal_file(dir.path())).unwrap().len() < 5_000_000);
    let registry = MemoryEnsemble::open(dir.path()).unwrap().connect("a");
    assert_eq!(registry.children("/").await.unwrap().len(), 21);
    assert_eq!(registry.get("/big").await.unwrap().1.version, 20);
}

/// Drops the answer of one request and the request of another; 10 ms each way.
#[derive(Default)]
struct Bad {
    lose_answer: AtomicU64,
    lose_request: AtomicU64,
}

impl Network for Arc<Bad> {
    fn fate(&self, request: Request<'_>) -> Fate {
        let loss = if request.number == self.lose_answer.load(Ordering::Relaxed) {
            Loss::Answer
        } else if request.number == self.lose_request.load(Ordering::Relaxed) {
            Loss::Request
        } else {
            Loss::None
        };
        let latency = Duration::from_millis(10);
        Fate { request_latency: latency, answer_latency: latency, loss }
    }

    fn event_latency(&self, _: &str) -> Duration {
        Duration::from_millis(5)
    }
}

#[tokio::test(start_paused = true)]
async fn lost_requests_and_lost_answers_are_both_unknown() {
    let bad = Arc::new(Bad::default());
    bad.lose_answer.store(2, Ordering::Relaxed);
    bad.lose_request.store(5, Ordering::Relaxed);
    let ensemble = MemoryEnsemble::with_network(bad);
    let registry = ensemble.connect("a");
    let mut watch = registry.watch("/", true).await.unwrap();
    assert_eq!(watch.next().await, Some(Event::Reset));
    let creates = (1..5).map(|n| {
        let path = format!("/n{n}");
        let registry = &registry;
        async move { registry.create(&path, Bytes::new(), CreateMode::Persistent).await }
    });
    let results = join_all(creates).await;
    // Number 2 was done unheard; 3 and 4 were in flight behind it and are lost with it.
    assert!(results[0].is_ok());
    for result in &results[1..] {
        assert!(result.as_ref().is_err_and(RegistryError::outcome_unknown), "{result:?}");
    }
    let lost = registry.children("/").await;
    assert!(lost.is_err_and(|e| e.outcome_unknown()));
    assert_eq!(registry.children("/").await.unwrap(), ["n1", "n2"]);
    let events = [watch.next().await, watch.next().await, watch.next().await];
    assert!(events.contains(&Some(Event::Reset)), "{events:?}");
}

#[tokio::test(start_paused = true)]
async fn a_crashed_client_loses_its_ephemerals_when_its_time_is_over() {
    let ensemble = MemoryEnsemble::new();
    let watcher = ensemble.connect("w");
    let crashed = ensemble.connect("c");
    crashed.create("/e", data(""), CreateMode::Ephemeral).await.unwrap();
    drop(crashed);
    ensemble.tick(SESSION_TIMEOUT - Duration::from_millis(1));
    assert!(watcher.exists("/e").await.unwrap().is_some());
    ensemble.tick(Duration::from_millis(1));
    assert!(watcher.exists("/e").await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_cut_off_waits_and_then_gives_up_with_an_unknown_outcome() {
    let ensemble = MemoryEnsemble::new();
    let registry = ensemble.connect("a");
    ensemble.set_linked("a", false);
    assert_eq!(*registry.session().borrow(), SessionState::Disconnected);
    let late = registry.create("/late", data(""), CreateMode::Persistent).await;
    assert!(late.is_err_and(|e| e.outcome_unknown()));
    ensemble.set_linked("a", true);
    // It was still on its way and happened now: that is what unknown means.
    assert!(registry.exists("/late").await.unwrap().is_some());
}
