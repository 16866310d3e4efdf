//! The recipes on the in-memory ensemble.

use baton_registry::testing::{memory::MemoryBench, recipes};

#[tokio::test(start_paused = true)]
async fn recipes_work_on_memory() {
    recipes::run(&MemoryBench::default()).await;
}
