//! The task that keeps the view fresh and searches for new leaders.

use std::{sync::Arc, time::Duration};

use baton_proto::v1;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::time::{Instant, sleep_until};

use crate::{
    client::Shared,
    metadata::{self, HOLD, Search},
    mutation::Mutation,
};

/// What a broker may take to answer a search beyond the time that it holds it.
const GRACE: Duration = Duration::from_millis(300);

type Calls = FuturesUnordered<BoxFuture<'static, ()>>;

/// Runs until the client is dropped.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut calls = Calls::new();
    let max_age = shared.config.metadata_max_age;
    let mut refresh_at = Instant::now() + shared.dice.backoff(max_age, max_age, 0);
    loop {
        let now = Instant::now();
        let (searches, next) = shared.metadata.searches(now);
        for search in searches {
            start(&shared, search, &calls);
        }
        if now >= refresh_at {
            refresh_at = now + shared.dice.backoff(max_age, max_age, 0);
            calls.push(refresh(shared.clone()).boxed());
        }
        let wake_at = next.map_or(refresh_at, |next| next.min(refresh_at));
        tokio::select! {
            biased;
            Some(()) = calls.next(), if !calls.is_empty() => {}
            () = shared.metadata.wake.notified() => {}
            () = sleep_until(wake_at) => {}
        }
    }
}

fn start(shared: &Arc<Shared>, search: Search, calls: &Calls) {
    let partitions = Arc::new(search.partitions);
    for address in search.addresses {
        let (shared, partitions) = (shared.clone(), partitions.clone());
        calls.push(
            async move {
                let mut topics: Vec<String> = partitions.iter().map(|((topic, _), _)| topic.to_string()).collect();
                topics.dedup();
                let awaited = partitions.iter().map(|((topic, partition), above)| v1::AwaitLeader {
                    topic: topic.to_string(),
                    partition: *partition,
                    above_epoch: above.0,
                });
                let request = v1::MetadataRequest {
                    topics,
                    r#await: awaited.collect(),
                    timeout_ms: u32::try_from(HOLD.as_millis()).unwrap_or(u32::MAX),
                    ..Default::default()
                };
                let answer = metadata::ask(&shared.pool, &address, request, HOLD + GRACE).await;
                if let Ok(answer) = &answer
                    && !shared.config.lacks(Mutation::KeepMetadata)
                {
                    shared.metadata.learn(answer);
                }
                shared.metadata.searched(&partitions, answer.is_ok(), Instant::now());
            }
            .boxed(),
        );
    }
}

/// Asks about all topics that are known; what fails is asked again next time.
async fn refresh(shared: Arc<Shared>) {
    if shared.config.lacks(Mutation::KeepMetadata) {
        return;
    }
    let topics: Vec<String> = shared.metadata.view().topics.keys().map(ToString::to_string).collect();
    if let Err(error) = shared.refresh(topics).await {
        tracing::debug!(%error, "the metadata could not be refreshed");
    }
    let view = shared.metadata.view();
    shared.pool.retain(|address| {
        shared.config.bootstrap.iter().any(|known| known == address)
            || view.brokers.values().any(|known| known == address)
    });
}
