//! The recipes on a network that loses requests and answers: what they promise holds in the end,
//! and the same seed does the same thing again.
#![allow(clippy::unwrap_used, clippy::panic, reason = "it is a test")]

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use baton_core::ids::{BrokerId, DiskId, Generation, Incarnation, Member, TopicId, TopicPartition};
use baton_registry::memory::{Fate, Loss, MemoryEnsemble, Network, Request};
use baton_registry::recipes::{
    Fence, RecipeError, candidates, coordinator_election, layout, partition_state, producer_ids, topics,
};
use baton_registry::znode::{Candidate, CoordinatorCandidate, PlannedPartition};
use baton_registry::{Registry, RegistryError};
use futures::future::join_all;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Loses one request in thirty or its answer, except for the client `observer`.
struct Lossy(Mutex<StdRng>);

impl Network for Lossy {
    fn fate(&self, request: Request<'_>) -> Fate {
        if request.client == "observer" {
            return Fate::default();
        }
        let mut random = self.0.lock().unwrap();
        let mut latency = || Duration::from_millis(random.random_range(0..20));
        let (request_latency, answer_latency) = (latency(), latency());
        let loss = match random.random_range(0..60) {
            0 => Loss::Request,
            1 => Loss::Answer,
            _ => Loss::None,
        };
        Fate { request_latency, answer_latency, loss }
    }

    fn event_latency(&self, _: &str) -> Duration {
        Duration::from_millis(3)
    }
}

fn lossy(seed: u64) -> MemoryEnsemble {
    MemoryEnsemble::with_network(Lossy(Mutex::new(StdRng::seed_from_u64(seed))))
}

/// Calls again while the outcome is unknown.
async fn insist<T, E, F>(mut call: impl FnMut() -> F, unknown: impl Fn(&E) -> bool) -> T
where
    F: Future<Output = Result<T, E>>,
    E: std::fmt::Debug,
{
    for _ in 0..1000 {
        match call().await {
            Ok(value) => return value,
            Err(error) if unknown(&error) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    panic!("it never works");
}

fn member(broker: u32) -> Member {
    Member { broker: BrokerId(broker), disk: DiskId(1), generation: Generation(0) }
}

async fn elected(registry: &dyn Registry, nonce: u64) -> Fence {
    let mine = CoordinatorCandidate { nonce, name: "c".into(), host: "h".into(), port: 1 };
    coordinator_election::campaign(registry, &mine).await.unwrap().fence
}

async fn create_topic(registry: &dyn Registry, fence: Fence, name: &str) -> TopicId {
    let members = [1, 2, 3].map(member).to_vec();
    let plan = vec![PlannedPartition { members }; 120];
    let name = name.to_owned();
    let new = topics::NewTopic { namespace: "default".into(), name, plan, ..Default::default() };
    let topic_unknown = |error: &topics::TopicError| match error {
        topics::TopicError::Recipe(error) => error.outcome_unknown(),
        _ => false,
    };
    let id = insist(
        || async {
            match topics::intend_creation(registry, fence, &new).await {
                Err(topics::TopicError::Exists(id)) => Ok(id), // By an attempt that was unheard.
                other => other,
            }
        },
        topic_unknown,
    )
    .await;
    insist(|| topics::finish(registry, fence, id), topic_unknown).await;
    id
}

/// A whole small life of a cluster; returns what is left in the registry.
async fn live(seed: u64) -> String {
    let ensemble = lossy(seed);
    let names = ["a", "b", "c"];
    let clients = names.map(|name| ensemble.connect(name));
    let observer = ensemble.connect("observer");
    insist(|| layout::prepare(&clients[0]), RecipeError::outcome_unknown).await;
    let fence = elected(&clients[0], seed).await;
    let topic = create_topic(&clients[0], fence, "t").await;
    assert_eq!(topics::unfinished(&observer).await.unwrap(), []);

    let all: Vec<TopicPartition> = (0..120).map(|partition| TopicPartition { topic, partition }).collect();
    let states = partition_state::read_many(&observer, &all).await;
    assert!(states.iter().all(|state| state.as_ref().unwrap().is_some()), "seed {seed}");

    // Everybody stands exactly once, however often the answers were lost.
    let stand = |number: usize| {
        let (client, partition) = (&clients[number], all[0]);
        let mine = Candidate { member: member(u32::try_from(number).unwrap()), incarnation: Incarnation(1), nonce: 7 };
        insist(
            move || async move {
                match candidates::adopt(client, partition, &mine).await? {
                    Some(sequence) => Ok(sequence),
                    None => candidates::queue(client, partition, &mine).await,
                }
            },
            RecipeError::outcome_unknown,
        )
    };
    let mut stood = join_all((0..3).map(stand)).await;
    stood.sort_unstable();
    let queue = candidates::list(&observer, all[0]).await.unwrap();
    let found: Vec<_> = queue.iter().map(|queued| queued.sequence).collect();
    assert_eq!(found, stood, "seed {seed}");

    let take = |client: &'static str| {
        let client = &clients[names.iter().position(|name| *name == client).unwrap()];
        insist(move || producer_ids::allocate(client, 10), RecipeError::outcome_unknown)
    };
    let blocks = join_all(names.into_iter().chain(names).map(take)).await;
    let ids: BTreeSet<i64> = blocks.into_iter().flatten().collect();
    assert_eq!(ids.len(), 60, "seed {seed}: an id was given twice");
    ensemble.dump()
}

#[tokio::test(start_paused = true)]
async fn promises_hold_however_much_is_lost() {
    for seed in 0..100 {
        live(seed).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_does_the_same_thing() {
    for seed in 0..5 {
        assert_eq!(live(seed).await, live(seed).await);
    }
    assert_ne!(live(1).await, live(2).await);
}

/// A broker's session may end at any moment of a request: it certainly did not happen, or it is
/// unknown, and nothing of the old session stays.
#[tokio::test(start_paused = true)]
async fn a_session_that_ends_leaves_nothing_of_it() {
    for seed in 0..50 {
        let ensemble = lossy(seed);
        let client = ensemble.connect("a");
        let observer = ensemble.connect("observer");
        layout::prepare(&observer).await.unwrap();
        let fence = elected(&observer, 1).await;
        let topic = create_topic(&observer, fence, "t").await;
        let partition = TopicPartition { topic, partition: 0 };
        let mine = Candidate { member: member(1), incarnation: Incarnation(1), nonce: seed };
        let (queued, ()) = futures::join!(candidates::queue(&client, partition, &mine), async {
            tokio::time::sleep(Duration::from_millis(seed)).await;
            ensemble.expire_client("a");
        });
        let session = client.session_id();
        let queue = candidates::list(&observer, partition).await.unwrap();
        assert!(queue.iter().all(|queued| Some(queued.owner) == session), "seed {seed}");
        assert!(queue.len() <= 1, "seed {seed}: {queue:?}");
        if let Err(RecipeError::Registry(error)) = queued {
            let known = matches!(error, RegistryError::Unknown(_) | RegistryError::SessionExpired);
            assert!(known, "seed {seed}: {error}");
        }
    }
}
