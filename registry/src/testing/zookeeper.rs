//! The contract's faults on a real server, through a proxy for each client.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Mutex;

use super::contract::{Bench, Client};
use super::proxy::Proxy;
use super::server::Ensemble;
use crate::api::{CreateMode, Created, RegistryError};
use crate::zookeeper::{ZooKeeperConfig, ZooKeeperRegistry};

const CONNECT_DEADLINE: Duration = Duration::from_secs(30);

/// Clients of the first server of an ensemble.
#[derive(Debug)]
pub struct ZooKeeperBench {
    ensemble: Mutex<Ensemble>,
    clients: Mutex<Vec<(Arc<ZooKeeperRegistry>, Proxy)>>,
    session_timeout: Duration,
    chroot: String,
}

impl ZooKeeperBench {
    /// Every path is below `chroot`, which need not exist.
    #[must_use]
    pub fn new(ensemble: Ensemble, chroot: &str) -> Self {
        Self {
            ensemble: Mutex::new(ensemble),
            clients: Mutex::default(),
            session_timeout: Duration::from_secs(2),
            chroot: chroot.to_owned(),
        }
    }
}

#[async_trait]
#[allow(clippy::expect_used, reason = "a test whose bench fails has failed")]
impl Bench for ZooKeeperBench {
    fn session_timeout(&self) -> Duration {
        self.session_timeout
    }

    async fn connect(&self) -> Client {
        let server = self.ensemble.lock().await.addresses()[0];
        let proxy = Proxy::start(server).await.expect("a proxy");
        let config = ZooKeeperConfig {
            session_timeout: self.session_timeout,
            ..ZooKeeperConfig::new(format!("{}{}", proxy.address(), self.chroot))
        };
        let registry = Arc::new(ZooKeeperRegistry::start(config).expect("a client"));
        registry.connected(CONNECT_DEADLINE).await.expect("a session");
        let mut clients = self.clients.lock().await;
        clients.push((registry.clone(), proxy));
        Client { registry, number: clients.len() - 1 }
    }

    async fn expire(&self, client: &Client) {
        let server = self.ensemble.lock().await.addresses()[0].to_string();
        let registry = self.clients.lock().await[client.number].0.clone();
        self.set_linked(client, false).await;
        registry.expire_session(&server).await.expect("an expired session");
        self.set_linked(client, true).await;
    }

    async fn blip(&self, client: &Client) {
        self.clients.lock().await[client.number].1.cut();
    }

    async fn set_linked(&self, client: &Client, linked: bool) {
        self.clients.lock().await[client.number].1.refuse(!linked);
    }

    async fn create_unheard(
        &self,
        client: &Client,
        path: &str,
        data: Bytes,
        mode: CreateMode,
    ) -> Result<Created, RegistryError> {
        let observer = self.connect().await;
        let parent = crate::limits::parent_of(path).unwrap_or("/").to_owned();
        let before = observer.registry.children(&parent).await?;
        self.clients.lock().await[client.number].1.hold_answers(true);
        let creating = client.registry.create(path, data, mode);
        while observer.registry.children(&parent).await? == before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let clients = self.clients.lock().await;
        clients[client.number].1.cut();
        clients[client.number].1.hold_answers(false);
        drop(clients);
        let result = creating.await;
        observer.registry.close().await;
        result
    }

    async fn abandon(&self, client: Client) {
        let number = client.number;
        drop(client);
        // The last handle goes here; the proxy stays, so that numbers stay what they are.
        let mut clients = self.clients.lock().await;
        let server = self.ensemble.lock().await.addresses()[0];
        let config = ZooKeeperConfig::new(server.to_string());
        let other = Arc::new(ZooKeeperRegistry::start(config).expect("a client"));
        clients[number].0 = other;
    }

    async fn restart_server(&self) {
        self.ensemble.lock().await.restart().await.expect("a server");
    }

    async fn pass_time(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }
}
