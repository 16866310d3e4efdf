//! The way between a simulated host and the registry: late, and sometimes lost.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use baton_registry::memory::{Fate, Loss, Network, Request};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// Clones share it.
#[derive(Clone, Debug)]
pub struct RegistryNetwork(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    rng: SmallRng,
    /// How many in a hundred requests of a client are lost, or their answers.
    lossy: BTreeMap<String, u32>,
}

impl RegistryNetwork {
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let rng = SmallRng::seed_from_u64(seed ^ 0xba70_0002);
        Self(Arc::new(Mutex::new(State { rng, lossy: BTreeMap::new() })))
    }

    /// Loses so many in a hundred requests of this client; 0 mends it.
    pub fn set_lossy(&self, client: &str, percent: u32) {
        self.lock().lossy.insert(client.to_owned(), percent);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nobody panics while drawing")
    }
}

impl Network for RegistryNetwork {
    fn fate(&self, request: Request<'_>) -> Fate {
        let State { rng, lossy } = &mut *self.lock();
        let percent = lossy.get(request.client).copied().unwrap_or_default();
        let lost = percent > 0 && rng.random_range(0..100) < percent;
        let loss = match (lost, rng.random_bool(0.5)) {
            (false, _) => Loss::None,
            (true, false) => Loss::Request,
            (true, true) => Loss::Answer,
        };
        let mut latency = || Duration::from_millis(if rng.random_bool(0.02) { 20 } else { rng.random_range(1..3) });
        Fate { request_latency: latency(), answer_latency: latency(), loss }
    }

    fn event_latency(&self, _: &str) -> Duration {
        Duration::from_millis(self.lock().rng.random_range(1..8))
    }
}
