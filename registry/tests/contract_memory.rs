//! The registry's contract on the in-memory ensemble.

use baton_registry::testing::{contract, memory::MemoryBench};

#[tokio::test(start_paused = true)]
async fn memory_keeps_the_contract() {
    contract::run(&MemoryBench::default()).await;
}
