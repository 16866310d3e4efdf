//! Standing for election, term after term.

use std::sync::Arc;
use std::time::Duration;

use baton_core::Epoch;
use baton_core::event::EventKind;
use baton_registry::recipes::coordinator_election::{self, Term as ElectedTerm};
use baton_registry::recipes::{RecipeError, cluster, layout};
use baton_registry::znode::{ClusterIdentity, CoordinatorCandidate};
use baton_registry::{Registry, RegistryError};
use rand::Rng;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::healing::Healing;
use super::term::{Shared, Term};

/// The feature level of a new cluster.
const FEATURE_LEVEL: u16 = 1;
const RETRY: Duration = Duration::from_millis(500);
/// How long leaving the queue may take: the session's end does it as well.
const WITHDRAW_WITHIN: Duration = Duration::from_secs(1);
/// How long a new cluster identity is worth a message when it cannot be made.
const LOG_EVERY: u32 = 20;

/// Stands for election and coordinates while elected, until `stop`.
pub async fn stand(
    shared: Arc<Shared>,
    host: String,
    port: u16,
    active: watch::Sender<Option<Arc<Term>>>,
    stop: CancellationToken,
) {
    let mut rng = shared.seed.split("election").rng();
    let identity = ClusterIdentity {
        uuid: uuid::Builder::from_random_bytes(rng.random()).into_uuid(),
        feature_level: FEATURE_LEVEL,
    };
    tokio::select! {
        biased;
        prepared = prepare(&*shared.registry, identity) => match prepared {
            Some(cluster) => tracing::info!(%cluster, "stands for election"),
            None => return,
        },
        () = stop.cancelled() => return,
    }
    while !stop.is_cancelled() {
        let candidate =
            CoordinatorCandidate { nonce: rng.random(), name: shared.config.name.clone(), host: host.clone(), port };
        let elected = tokio::select! {
            biased;
            elected = coordinator_election::campaign(&*shared.registry, &candidate) => Some(elected),
            () = stop.cancelled() => None,
        };
        match elected {
            Some(Ok(elected)) => lead(&shared, &elected, &active, &stop).await,
            Some(Err(RecipeError::Registry(RegistryError::Closed))) => return,
            Some(Err(error)) => {
                tracing::warn!(%error, "cannot stand for election");
                sleep(RETRY).await;
            }
            None => {}
        }
        let withdrawn = timeout(WITHDRAW_WITHIN, coordinator_election::withdraw(&*shared.registry, &candidate));
        if !matches!(withdrawn.await, Ok(Ok(()))) {
            tracing::debug!("the candidate node goes with the session");
        }
    }
}

/// Makes the nodes that everything stands on; waits, and says so, until the registry is there.
/// None: it was closed.
async fn prepare(registry: &dyn Registry, identity: ClusterIdentity) -> Option<Uuid> {
    let mut attempts = 0_u32;
    loop {
        let error = match try_prepare(registry, identity).await {
            Ok(cluster) => return Some(cluster),
            Err(error) => error,
        };
        if registry_closed(&error) {
            return None;
        }
        if attempts.is_multiple_of(LOG_EVERY) {
            tracing::warn!(%error, "the registry cannot be used yet; goes on when it can");
        }
        attempts = attempts.wrapping_add(1);
        sleep(RETRY).await;
    }
}

fn registry_closed(error: &cluster::ClusterError) -> bool {
    matches!(error, cluster::ClusterError::Recipe(RecipeError::Registry(RegistryError::Closed)))
}

async fn try_prepare(registry: &dyn Registry, identity: ClusterIdentity) -> Result<Uuid, cluster::ClusterError> {
    layout::prepare(registry).await?;
    Ok(cluster::open(registry, identity, None).await?.uuid)
}

/// One term, from its first write to its end.
async fn lead(
    shared: &Arc<Shared>,
    elected: &ElectedTerm,
    active: &watch::Sender<Option<Arc<Term>>>,
    stop: &CancellationToken,
) {
    let term = Arc::new(Term::new(Arc::clone(shared), elected.epoch, shared.mutations.weaken(elected.fence)));
    tracing::info!(epoch = %elected.epoch, name = shared.config.name, "coordinates");
    shared.metrics.elected(elected.epoch);
    shared.history.begin();
    let event = shared.history.event(EventKind::CoordinatorElected).epoch(Epoch(elected.epoch.0));
    shared.history.record(event.result(format!("{} coordinates", shared.config.name)));
    active.send_replace(Some(Arc::clone(&term)));
    tokio::select! {
        biased;
        () = coordinator_election::lost(&*shared.registry, elected) => {}
        () = term.over.cancelled() => {}
        () = Healing::new(Arc::clone(&term)).run() => {}
        () = stop.cancelled() => {}
    }
    // Before anything else: what is under way ends, and nobody is answered by this term.
    term.over.cancel();
    active.send_replace(None);
    shared.history.end();
    shared.metrics.stepped_down();
    tracing::info!(epoch = %elected.epoch, "no longer coordinates");
}
