//! A connection to the registry that keeps breaking: requests are lost, or their answers are.

use baton_core::ErrorCode;

use super::harness::{Cluster, code, create, creation, delete, eventually_so, settled};

const RETRIES: usize = 50;

/// Asks until the answer is final. The flag: an attempt before ended without one.
async fn until_final<F: Future<Output = Option<ErrorCode>>>(ask: impl Fn() -> F) -> (Option<ErrorCode>, bool) {
    for attempt in 0..RETRIES {
        let answer = ask().await;
        if !answer.is_some_and(ErrorCode::retriable) {
            return (answer, attempt > 0);
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    panic!("no final answer in {RETRIES} attempts");
}

#[tokio::test(start_paused = true)]
async fn lost_requests_and_answers_leave_nothing_half_made_and_nothing_twice() {
    for seed in 0..12 {
        let cluster = Cluster::start(3).await;
        let coordinator = cluster.active("c1").await;
        cluster.faults.lose("c1", 0.05, seed);
        let created = until_final(async || {
            let reply = create(&coordinator, creation("t", 120)).await;
            code(reply.error.as_ref())
        });
        match created.await {
            (None, _) | (Some(ErrorCode::TopicExists), true) => {}
            other => panic!("seed {seed}: {other:?}"),
        }
        cluster.faults.lose("c1", 0.0, seed);
        settled(&coordinator).await;
        eventually_so("what was promised is led", async || {
            let states = cluster.states("t").await;
            states.len() == 120 && states.iter().all(|state| state.leader.is_some())
        })
        .await;
        cluster.assert_whole().await;
        cluster.faults.lose("c1", 0.05, seed + 1_000);
        let deleted = until_final(async || code(delete(&coordinator, "t").await.error.as_ref()));
        match deleted.await {
            (None, _) | (Some(ErrorCode::UnknownTopic), true) => {}
            other => panic!("seed {seed}: {other:?}"),
        }
        cluster.faults.lose("c1", 0.0, seed);
        settled(&coordinator).await;
        assert!(cluster.states("t").await.is_empty(), "seed {seed}");
        cluster.assert_whole().await;
    }
}
