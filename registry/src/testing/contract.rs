//! What every registry does: one suite, run on every implementation.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "it is a test")]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::join_all;
use tokio::time::{Instant, sleep, timeout};

use crate::api::{CreateMode, Created, Event, EventKind, Op, OpResult, Registry, RegistryError, SessionState, Watch};
use crate::limits::{MULTI_OPS_MAX, REQUEST_BYTES_MAX};

/// A session and its number on the bench.
#[derive(Clone)]
pub struct Client {
    pub registry: Arc<dyn Registry>,
    pub number: usize,
}

/// Makes sessions, and faults.
#[async_trait]
pub trait Bench: Send + Sync {
    fn session_timeout(&self) -> Duration;
    async fn connect(&self) -> Client;
    /// Ends the session on the server.
    async fn expire(&self, client: &Client);
    /// Breaks the connection once.
    async fn blip(&self, client: &Client);
    /// Takes the server away from this client, or brings it back.
    async fn set_linked(&self, client: &Client, linked: bool);
    /// Creates a node whose answer is lost with the connection.
    async fn create_unheard(
        &self,
        client: &Client,
        path: &str,
        data: Bytes,
        mode: CreateMode,
    ) -> Result<Created, RegistryError>;
    /// Drops the client's last handle without closing it.
    async fn abandon(&self, client: Client);
    async fn restart_server(&self);
    async fn pass_time(&self, time: Duration);
}

const PATIENCE: Duration = Duration::from_secs(30);

fn data(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn create(path: &str, mode: CreateMode) -> Op {
    Op::Create { path: path.to_owned(), data: Bytes::new(), mode }
}

/// Every case by name, one after another on one server.
pub async fn run(bench: &dyn Bench) {
    macro_rules! cases {
        ($($case:ident),+ $(,)?) => {$(
            let began = Instant::now();
            $case(bench, concat!("/", stringify!($case))).await;
            eprintln!("contract: {} passed in {:?}", stringify!($case), began.elapsed());
        )+};
    }
    cases!(
        nodes_are_created_read_changed_and_deleted,
        a_version_is_checked,
        a_transaction_is_all_or_nothing_and_names_the_refused_operation,
        sequence_numbers_rise_and_are_never_given_twice,
        an_ephemeral_node_ends_with_its_session,
        an_abandoned_session_ends_by_time,
        a_recursive_watch_tells_every_change_below,
        a_plain_watch_tells_of_the_node_and_its_children,
        a_watch_is_reset_after_a_reconnection_and_goes_on,
        calls_take_effect_in_their_order_without_awaiting,
        a_lost_answer_is_unknown_and_the_node_is_there,
        an_expired_session_is_replaced_and_watches_go_on,
        requests_that_no_server_would_take_are_refused,
        calls_end_while_the_server_is_away,
        everything_persistent_survives_a_restart_of_the_server,
        a_closed_registry_says_so,
    );
}

async fn root(bench: &dyn Bench, path: &str) -> Client {
    let client = bench.connect().await;
    client.registry.create(path, Bytes::new(), CreateMode::Persistent).await.unwrap();
    client
}

async fn nodes_are_created_read_changed_and_deleted(bench: &dyn Bench, root_path: &str) {
    let zk = root(bench, root_path).await.registry;
    let path = format!("{root_path}/n");
    let created = zk.create(&path, data("1"), CreateMode::Persistent).await.unwrap();
    assert_eq!((created.path.as_str(), created.stat.version), (path.as_str(), 0));
    assert!(created.stat.czxid > 0 && created.stat.czxid == created.stat.mzxid);
    let again = zk.create(&path, data("1"), CreateMode::Persistent).await;
    assert_eq!(again.unwrap_err(), RegistryError::NodeExists(path.clone()));
    let orphan = zk.create(&format!("{root_path}/x/y"), data(""), CreateMode::Persistent).await;
    assert!(matches!(orphan, Err(RegistryError::NoNode(_))));

    let stat = zk.set(&path, data("2"), Some(0)).await.unwrap();
    assert_eq!((stat.version, stat.czxid), (1, created.stat.czxid));
    assert!(stat.mzxid > created.stat.mzxid);
    let (bytes, read) = zk.get(&path).await.unwrap();
    assert_eq!((bytes, read), (data("2"), stat));
    assert_eq!(zk.exists(&path).await.unwrap(), Some(stat));

    zk.create(&format!("{path}/b"), data(""), CreateMode::Persistent).await.unwrap();
    zk.create(&format!("{path}/a"), data(""), CreateMode::Persistent).await.unwrap();
    assert_eq!(zk.children(&path).await.unwrap(), ["a", "b"]);
    assert_eq!(zk.exists(&path).await.unwrap().unwrap().num_children, 2);
    let not_empty = zk.delete(&path, None).await.unwrap_err();
    assert_eq!(not_empty, RegistryError::NotEmpty(path.clone()));
    for child in ["a", "b"] {
        zk.delete(&format!("{path}/{child}"), Some(0)).await.unwrap();
    }
    zk.delete(&path, None).await.unwrap();
    assert_eq!(zk.exists(&path).await.unwrap(), None);
    let missing = RegistryError::NoNode(path.clone());
    assert_eq!(zk.get(&path).await.unwrap_err(), missing);
    assert_eq!(zk.set(&path, data(""), None).await.unwrap_err(), missing);
    assert_eq!(zk.delete(&path, None).await.unwrap_err(), missing);
    assert_eq!(zk.children(&path).await.unwrap_err(), missing);
    zk.sync(root_path).await.unwrap();
}

async fn a_version_is_checked(bench: &dyn Bench, root_path: &str) {
    let zk = root(bench, root_path).await.registry;
    let stale = RegistryError::BadVersion(root_path.to_owned());
    assert_eq!(zk.set(root_path, data("x"), Some(1)).await.unwrap_err(), stale);
    zk.set(root_path, data("x"), None).await.unwrap();
    assert_eq!(zk.delete(root_path, Some(0)).await.unwrap_err(), stale);
    // A node that was made again starts again: only its czxid tells it apart.
    let before = zk.exists(root_path).await.unwrap().unwrap();
    zk.delete(root_path, Some(1)).await.unwrap();
    let after = zk.create(root_path, data(""), CreateMode::Persistent).await.unwrap().stat;
    assert_eq!(after.version, 0);
    assert!(after.czxid > before.czxid);
}

async fn a_transaction_is_all_or_nothing_and_names_the_refused_operation(bench: &dyn Bench, root_path: &str) {
    let zk = root(bench, root_path).await.registry;
    let (a, b) = (format!("{root_path}/a"), format!("{root_path}/b"));
    let set = |path: &str, version| Op::Set { path: path.to_owned(), data: data("s"), version };
    let check = |path: &str, version| Op::Check { path: path.to_owned(), version };
    let done = zk
        .multi(vec![
            create(&a, CreateMode::Persistent),
            check(&a, Some(0)),
            check(&a, None),
            set(&a, Some(0)),
            create(&format!("{a}/c-"), CreateMode::EphemeralSequential),
            create(&b, CreateMode::Persistent),
            Op::Delete { path: b.clone(), version: Some(0) },
        ])
        .await
        .unwrap();
    let expected = [
        OpResult::Created { path: a.clone() },
        OpResult::Checked,
        OpResult::Checked,
        OpResult::Set { version: 1 },
        OpResult::Created { path: format!("{a}/c-0000000000") },
        OpResult::Created { path: b.clone() },
        OpResult::Deleted,
    ];
    assert_eq!(done, expected);

    for (refused, error) in [
        (check(&a, Some(0)), RegistryError::BadVersion(a.clone())),
        (check(&b, None), RegistryError::NoNode(b.clone())),
        (set(&a, Some(7)), RegistryError::BadVersion(a.clone())),
        (create(&a, CreateMode::Persistent), RegistryError::NodeExists(a.clone())),
        (Op::Delete { path: a.clone(), version: None }, RegistryError::NotEmpty(a.clone())),
    ] {
        let ops = vec![set(&a, None), refused, create(&b, CreateMode::Persistent)];
        let failed = zk.multi(ops).await.unwrap_err();
        assert_eq!((failed.index, failed.error), (Some(1), error));
        assert_eq!(zk.exists(&a).await.unwrap().unwrap().version, 1);
        assert_eq!(zk.exists(&b).await.unwrap(), None);
    }
    assert_eq!(zk.multi(Vec::new()).await.unwrap(), []);
}

async fn sequence_numbers_rise_and_are_never_given_twice(bench: &dyn Bench, root_path: &str) {
    let client = root(bench, root_path).await;
    let zk = &client.registry;
    let prefix = format!("{root_path}/c-");
    let mut last = String::new();
    for n in 0..5 {
        let mode = CreateMode::EphemeralSequential;
        let created = zk.create(&prefix, data(&n.to_string()), mode).await.unwrap();
        assert_eq!(created.path.len(), prefix.len() + 10);
        assert!(created.path > last, "{} after {last}", created.path);
        assert_eq!(Some(created.stat.ephemeral_owner), zk.session_id());
        assert_eq!(zk.get(&created.path).await.unwrap().0, data(&n.to_string()));
        zk.delete(&created.path, None).await.unwrap();
        last = created.path;
    }
    // Any child counts.
    zk.create(&format!("{root_path}/x"), data(""), CreateMode::Persistent).await.unwrap();
    let next = zk.create(&prefix, data(""), CreateMode::EphemeralSequential).await.unwrap();
    assert_eq!(next.path, format!("{prefix}0000000006"));
    // A prefix may be a directory.
    let dir = format!("{root_path}/x/");
    let inside = zk.create(&dir, data(""), CreateMode::EphemeralSequential).await.unwrap();
    assert_eq!(inside.path, format!("{dir}0000000000"));
}

async fn an_ephemeral_node_ends_with_its_session(bench: &dyn Bench, root_path: &str) {
    let observer = root(bench, root_path).await.registry;
    let owner = bench.connect().await;
    let path = format!("{root_path}/e");
    let created = owner.registry.create(&path, data(""), CreateMode::Ephemeral).await.unwrap();
    assert_eq!(Some(created.stat.ephemeral_owner), owner.registry.session_id());
    assert_ne!(owner.registry.session_id(), observer.session_id());
    let child = owner.registry.create(&format!("{path}/x"), data(""), CreateMode::Persistent).await;
    assert!(matches!(child, Err(RegistryError::NoChildrenForEphemerals(_))), "{child:?}");
    let taken = observer.create(&path, data(""), CreateMode::Ephemeral).await;
    assert_eq!(taken.unwrap_err(), RegistryError::NodeExists(path.clone()));
    owner.registry.close().await;
    observer.sync(&path).await.unwrap();
    assert_eq!(observer.exists(&path).await.unwrap(), None, "closing did not end it at once");
}

async fn an_abandoned_session_ends_by_time(bench: &dyn Bench, root_path: &str) {
    let observer = root(bench, root_path).await.registry;
    let owner = bench.connect().await;
    let path = format!("{root_path}/e");
    owner.registry.create(&path, data(""), CreateMode::Ephemeral).await.unwrap();
    bench.abandon(owner).await;
    bench.pass_time(bench.session_timeout() / 4).await;
    observer.sync(&path).await.unwrap();
    assert!(observer.exists(&path).await.unwrap().is_some(), "a dropped handle was a close");
    let deadline = Instant::now() + PATIENCE;
    while observer.exists(&path).await.unwrap().is_some() {
        assert!(Instant::now() < deadline, "the node of a dead session stays");
        bench.pass_time(bench.session_timeout() / 8).await;
    }
}

/// The next event, which must come.
async fn next(watch: &mut Watch) -> Event {
    timeout(PATIENCE, watch.next()).await.expect("no event").expect("the watch ended")
}

fn node(path: &str, kind: EventKind) -> Event {
    Event::Node { path: path.to_owned(), kind }
}

async fn a_recursive_watch_tells_every_change_below(bench: &dyn Bench, root_path: &str) {
    let watcher = root(bench, root_path).await.registry;
    let actor = bench.connect().await.registry;
    let mut watch = watcher.watch(root_path, true).await.unwrap();
    assert_eq!(next(&mut watch).await, Event::Reset);
    let (a, deep) = (format!("{root_path}/a"), format!("{root_path}/a/b"));
    actor.create(&a, data(""), CreateMode::Persistent).await.unwrap();
    actor.create(&deep, data(""), CreateMode::Persistent).await.unwrap();
    actor.set(&deep, data("x"), None).await.unwrap();
    actor.set(root_path, data("x"), None).await.unwrap();
    actor.delete(&deep, None).await.unwrap();
    let outside = format!("{root_path}-beside");
    actor.create(&outside, data(""), CreateMode::Persistent).await.unwrap();
    actor.delete(&a, None).await.unwrap();
    for expected in [
        node(&a, EventKind::Created),
        node(&deep, EventKind::Created),
        node(&deep, EventKind::Changed),
        node(root_path, EventKind::Changed),
        node(&deep, EventKind::Deleted),
        node(&a, EventKind::Deleted),
    ] {
        assert_eq!(next(&mut watch).await, expected);
    }
    // Many at once, each told.
    let paths: Vec<String> = (0..500).map(|n| format!("{root_path}/{n:03}")).collect();
    join_all(paths.iter().map(|p| actor.create(p, Bytes::new(), CreateMode::Persistent))).await;
    for path in &paths {
        assert_eq!(next(&mut watch).await, node(path, EventKind::Created));
    }
}

async fn a_plain_watch_tells_of_the_node_and_its_children(bench: &dyn Bench, root_path: &str) {
    let zk = root(bench, root_path).await.registry;
    let mut watch = zk.watch(root_path, false).await.unwrap();
    assert_eq!(next(&mut watch).await, Event::Reset);
    let child = format!("{root_path}/a");
    zk.create(&child, data(""), CreateMode::Persistent).await.unwrap();
    zk.set(&child, data("x"), None).await.unwrap(); // Not told: it is a change of the child.
    zk.delete(&child, None).await.unwrap();
    zk.delete(root_path, None).await.unwrap();
    zk.create(root_path, data(""), CreateMode::Persistent).await.unwrap();
    for kind in [EventKind::Changed, EventKind::Changed, EventKind::Deleted, EventKind::Created] {
        assert_eq!(next(&mut watch).await, node(root_path, kind));
    }
    // Dropping one of two watches leaves the other.
    let mut second = zk.watch(root_path, false).await.unwrap();
    drop(watch);
    sleep(Duration::from_millis(50)).await;
    assert_eq!(next(&mut second).await, Event::Reset);
    zk.set(root_path, data("x"), None).await.unwrap();
    assert_eq!(next(&mut second).await, node(root_path, EventKind::Changed));
}

async fn a_watch_is_reset_after_a_reconnection_and_goes_on(bench: &dyn Bench, root_path: &str) {
    let client = root(bench, root_path).await;
    let actor = bench.connect().await.registry;
    let mut watch = client.registry.watch(root_path, true).await.unwrap();
    assert_eq!(next(&mut watch).await, Event::Reset);
    let session = client.registry.session_id();
    // Three times: the client library forgets such watches at every one.
    for n in 0..3 {
        bench.set_linked(&client, false).await;
        let lost = format!("{root_path}/gap{n}");
        actor.create(&lost, data(""), CreateMode::Persistent).await.unwrap();
        bench.set_linked(&client, true).await;
        assert_eq!(next_reset(&mut watch).await, []);
        let told = format!("{root_path}/told{n}");
        actor.create(&told, data(""), CreateMode::Persistent).await.unwrap();
        let mut event = next(&mut watch).await;
        while event == Event::Reset {
            event = next(&mut watch).await;
        }
        assert_eq!(event, node(&told, EventKind::Created));
        assert_eq!(client.registry.session_id(), session, "the session was lost by a blip");
    }
}

/// Everything before the next reset.
async fn next_reset(watch: &mut Watch) -> Vec<Event> {
    let mut before = Vec::new();
    loop {
        match next(watch).await {
            Event::Reset => return before,
            event => before.push(event),
        }
    }
}

async fn calls_take_effect_in_their_order_without_awaiting(bench: &dyn Bench, root_path: &str) {
    let zk = root(bench, root_path).await.registry;
    let path = format!("{root_path}/n");
    // Called in one order, awaited in the other.
    let created = zk.create(&path, data("0"), CreateMode::Persistent);
    let first = zk.set(&path, data("1"), Some(0));
    let read = zk.get(&path);
    let second = zk.set(&path, data("2"), Some(1));
    let deleted = zk.delete(&path, Some(2));
    let gone = zk.exists(&path);
    assert_eq!(gone.await.unwrap(), None);
    deleted.await.unwrap();
    second.await.unwrap();
    assert_eq!(read.await.unwrap().0, data("1"));
    first.await.unwrap();
    created.await.unwrap();

    let paths: Vec<String> = (0..2000).map(|n| format!("{root_path}/{n:04}")).collect();
    let creates: Vec<_> = paths.iter().map(|p| zk.create(p, Bytes::new(), CreateMode::Persistent)).collect();
    let zxids: Vec<i64> = join_all(creates).await.into_iter().map(|c| c.unwrap().stat.czxid).collect();
    assert!(zxids.is_sorted());
    let deletes: Vec<_> = paths.iter().map(|p| zk.delete(p, Some(0))).collect();
    assert!(join_all(deletes).await.iter().all(Result::is_ok));
}

async fn a_lost_answer_is_unknown_and_the_node_is_there(bench: &dyn Bench, root_path: &str) {
    let client = root(bench, root_path).await;
    let prefix = format!("{root_path}/c-");
    for n in 0..2 {
        let mode = CreateMode::EphemeralSequential;
        let result = bench.create_unheard(&client, &prefix, Bytes::new(), mode).await;
        assert!(result.as_ref().is_err_and(RegistryError::outcome_unknown), "{result:?}");
        let names = retry(|| client.registry.children(root_path)).await;
        assert_eq!(names.len(), n + 1, "{names:?}");
        let path = format!("{root_path}/{}", names[n]);
        let (_, stat) = retry(|| client.registry.get(&path)).await;
        assert_eq!(Some(stat.ephemeral_owner), client.registry.session_id());
    }
}

/// Reads may fail while a client reconnects.
pub(super) async fn retry<T, F>(mut call: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, RegistryError>>,
{
    let deadline = Instant::now() + PATIENCE;
    loop {
        match call().await {
            Ok(value) => return value,
            Err(RegistryError::Unknown(_) | RegistryError::SessionExpired) => {}
            Err(error) => panic!("{error}"),
        }
        assert!(Instant::now() < deadline, "it never worked again");
        sleep(Duration::from_millis(20)).await;
    }
}

async fn an_expired_session_is_replaced_and_watches_go_on(bench: &dyn Bench, root_path: &str) {
    let client = root(bench, root_path).await;
    let observer = bench.connect().await.registry;
    let zk = &client.registry;
    let path = format!("{root_path}/e");
    zk.create(&path, data(""), CreateMode::Ephemeral).await.unwrap();
    let mut watch = zk.watch(root_path, true).await.unwrap();
    let before = zk.session_id().unwrap();
    let mut states = zk.session();
    states.borrow_and_update();
    bench.expire(&client).await;
    let renewed = |state: &SessionState| matches!(state, SessionState::Connected(s) if *s != before);
    let state = *timeout(PATIENCE, states.wait_for(renewed)).await.unwrap().unwrap();
    assert_eq!(zk.session_id().map(SessionState::Connected), Some(state));
    observer.sync(&path).await.unwrap();
    assert_eq!(observer.exists(&path).await.unwrap(), None, "an ephemeral outlived its session");
    // What is created now belongs to the new session, and the watch still tells.
    let created = zk.create(&path, data(""), CreateMode::Ephemeral).await.unwrap();
    assert_eq!(Some(created.stat.ephemeral_owner), zk.session_id());
    let told = format!("{root_path}/told");
    retry(|| zk.sync(root_path)).await;
    let mut resets = 0;
    let deadline = Instant::now() + PATIENCE;
    while resets < 2 {
        assert!(Instant::now() < deadline);
        resets += usize::from(next(&mut watch).await == Event::Reset);
    }
    observer.create(&told, data(""), CreateMode::Persistent).await.unwrap();
    while next(&mut watch).await != node(&told, EventKind::Created) {
        assert!(Instant::now() < deadline, "the watch did not outlive the session");
    }
}

async fn requests_that_no_server_would_take_are_refused(bench: &dyn Bench, root_path: &str) {
    let zk = root(bench, root_path).await.registry;
    let refused = |error: &RegistryError| matches!(error, RegistryError::BadArgument(_));
    for path in ["", "x", "/x/", "/x//y", "/x/../y", "/\u{1}"] {
        assert!(zk.get(path).await.is_err_and(|e| refused(&e)), "{path:?}");
        assert!(zk.watch(path, true).await.is_err_and(|e| refused(&e)), "{path:?}");
        let created = zk.create(path, data(""), CreateMode::Persistent).await;
        assert!(created.is_err_and(|e| refused(&e)), "{path:?}");
    }
    assert!(zk.delete("/", None).await.is_err_and(|e| refused(&e)));
    let huge = Bytes::from(vec![0; REQUEST_BYTES_MAX + 1]);
    assert!(zk.set(root_path, huge.clone(), None).await.is_err_and(|e| refused(&e)));
    let many = vec![Op::Check { path: root_path.to_owned(), version: None }; MULTI_OPS_MAX + 1];
    assert!(zk.multi(many).await.is_err_and(|e| refused(&e.error)));
    let half = huge.slice(..REQUEST_BYTES_MAX / 2 + 1);
    let set = Op::Set { path: root_path.to_owned(), data: half, version: None };
    assert!(zk.multi(vec![set.clone(), set]).await.is_err_and(|e| refused(&e.error)));
    // The largest that is allowed goes through.
    let largest = huge.slice(..REQUEST_BYTES_MAX);
    zk.set(root_path, largest.clone(), None).await.unwrap();
    assert_eq!(zk.get(root_path).await.unwrap().0, largest);
}

async fn calls_end_while_the_server_is_away(bench: &dyn Bench, root_path: &str) {
    let client = root(bench, root_path).await;
    let mut states = client.registry.session();
    bench.set_linked(&client, false).await;
    let gone = |state: &SessionState| *state == SessionState::Disconnected;
    timeout(PATIENCE, states.wait_for(gone)).await.unwrap().unwrap();
    let began = Instant::now();
    let result = client.registry.set(root_path, data("x"), None).await;
    assert!(result.is_err());
    assert!(began.elapsed() <= bench.session_timeout() + Duration::from_millis(500));
    bench.set_linked(&client, true).await;
    retry(|| client.registry.get(root_path)).await;
}

async fn everything_persistent_survives_a_restart_of_the_server(bench: &dyn Bench, root_path: &str) {
    let client = root(bench, root_path).await;
    client.registry.set(root_path, data("x"), Some(0)).await.unwrap();
    bench.restart_server().await;
    let (bytes, stat) = retry(|| client.registry.get(root_path)).await;
    assert_eq!((bytes, stat.version), (data("x"), 1));
    retry(|| client.registry.set(root_path, data("y"), None)).await;
}

async fn a_closed_registry_says_so(bench: &dyn Bench, root_path: &str) {
    let client = root(bench, root_path).await;
    let zk = &client.registry;
    let mut watch = zk.watch(root_path, true).await.unwrap();
    zk.close().await;
    assert_eq!(*zk.session().borrow(), SessionState::Closed);
    assert_eq!(zk.session_id(), None);
    assert_eq!(zk.get(root_path).await.unwrap_err(), RegistryError::Closed);
    assert!(zk.multi(vec![Op::Check { path: root_path.to_owned(), version: None }]).await.is_err());
    assert_eq!(next(&mut watch).await, Event::Reset);
    assert_eq!(timeout(PATIENCE, watch.next()).await.unwrap(), None);
    zk.close().await; // A second time does nothing.
}
