//! The contract's faults on the in-memory ensemble.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::contract::{Bench, Client};
use crate::api::{CreateMode, Created, RegistryError};
use crate::memory::{Fate, Loss, MemoryEnsemble, Network, Request};

/// Loses the answer of the next request of the clients in the set.
#[derive(Clone, Debug, Default)]
struct Unheard(Arc<Mutex<BTreeSet<String>>>);

impl Network for Unheard {
    #[allow(clippy::unwrap_used, reason = "a poisoned lock is a failed test")]
    fn fate(&self, request: Request<'_>) -> Fate {
        let unheard = self.0.lock().unwrap().remove(request.client);
        Fate { loss: if unheard { Loss::Answer } else { Loss::None }, ..Fate::default() }
    }
}

/// Clients of one in-memory ensemble.
#[derive(Debug)]
pub struct MemoryBench {
    ensemble: MemoryEnsemble,
    unheard: Unheard,
    clients: AtomicUsize,
}

impl Default for MemoryBench {
    fn default() -> Self {
        let unheard = Unheard::default();
        let ensemble = MemoryEnsemble::with_network(unheard.clone());
        Self { ensemble, unheard, clients: AtomicUsize::new(0) }
    }
}

const SESSION_TIMEOUT: Duration = Duration::from_secs(2);

#[async_trait]
#[allow(clippy::unwrap_used, reason = "a poisoned lock is a failed test")]
impl Bench for MemoryBench {
    fn session_timeout(&self) -> Duration {
        SESSION_TIMEOUT
    }

    async fn connect(&self) -> Client {
        let number = self.clients.fetch_add(1, Ordering::Relaxed);
        let registry = self.ensemble.connect_with(&number.to_string(), SESSION_TIMEOUT);
        Client { registry: Arc::new(registry), number }
    }

    async fn expire(&self, client: &Client) {
        self.ensemble.expire_client(&client.number.to_string());
    }

    async fn blip(&self, client: &Client) {
        self.ensemble.blip(&client.number.to_string());
    }

    async fn set_linked(&self, client: &Client, linked: bool) {
        self.ensemble.set_linked(&client.number.to_string(), linked);
    }

    async fn create_unheard(
        &self,
        client: &Client,
        path: &str,
        data: Bytes,
        mode: CreateMode,
    ) -> Result<Created, RegistryError> {
        self.unheard.0.lock().unwrap().insert(client.number.to_string());
        client.registry.create(path, data, mode).await
    }

    async fn abandon(&self, client: Client) {
        drop(client);
    }

    async fn restart_server(&self) {
        self.ensemble.stop();
        self.ensemble.start();
    }

    async fn pass_time(&self, time: Duration) {
        self.ensemble.tick(time);
        tokio::time::sleep(time).await;
    }
}
