//! A broker's id, its registration, and who else is alive.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use baton_core::ids::{BrokerId, DiskId, Incarnation};
use futures::future::join_all;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::RecipeError;
use crate::api::{CreateMode, Event, Op, Registry, RegistryError, SessionId, SessionState, Stat, Watch};
use crate::znode::{BrokerClaim, BrokerRegistration, Znode, ZnodeError, broker, broker_id};

/// A hint may be lost: everything is read again this often.
const REREAD: Duration = Duration::from_secs(30);
const RETRY: Duration = Duration::from_millis(100);
/// Between two looks at somebody else's claim.
const CLAIM_POLL: Duration = Duration::from_millis(50);

/// Who claims an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub broker: BrokerId,
    pub disk: DiskId,
    pub incarnation: Incarnation,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    #[error(
        "broker id {broker} is in use by a live process (disk {}, incarnation {})",
        claim.disk, claim.incarnation
    )]
    Taken { broker: BrokerId, claim: BrokerClaim },
    #[error(transparent)]
    Recipe(#[from] RecipeError),
}

impl From<RegistryError> for ClaimError {
    fn from(error: RegistryError) -> Self {
        Self::Recipe(error.into())
    }
}

impl From<ZnodeError> for ClaimError {
    fn from(error: ZnodeError) -> Self {
        Self::Recipe(error.into())
    }
}

/// Claims the broker id for this session.
///
/// A claim of a `remembered` session (of a process that is known to be dead, because this one
/// holds the lock of its data directory) is deleted at once, and so is one that this very
/// process made in an earlier session: an ensemble that was away for longer than the session
/// time-out gives every old session its whole time again when it returns. Any other live claim
/// is given `patience` to end: one session time-out and a bit, for it may be a ghost.
///
/// # Errors
/// Somebody else holds the id after `patience`, or the registry's.
pub async fn claim(
    registry: &dyn Registry,
    identity: Identity,
    remembered: &[SessionId],
    patience: Duration,
) -> Result<(), ClaimError> {
    let path = broker_id::path(identity.broker);
    let mine = BrokerClaim { disk: identity.disk, incarnation: identity.incarnation };
    let deadline = Instant::now() + patience;
    loop {
        match registry.create(&path, mine.encode(), CreateMode::Ephemeral).await {
            Ok(_) => return Ok(()),
            Err(RegistryError::NodeExists(_)) => {}
            Err(RegistryError::Unknown(_) | RegistryError::SessionExpired) if Instant::now() < deadline => {
                sleep(RETRY).await;
            }
            Err(error) => return Err(error.into()),
        }
        let (data, stat) = match registry.get(&path).await {
            Ok(found) => found,
            Err(RegistryError::NoNode(_)) => continue,
            Err(error) if error.outcome_unknown() && Instant::now() < deadline => {
                sleep(RETRY).await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let found = match BrokerClaim::decode(&data) {
            // A session makes one claim: whoever overwrote the node did not take it away.
            Err(error) if is_mine(registry, &stat) => {
                tracing::warn!(broker = %identity.broker, %error, "somebody overwrote the claim of this broker");
                return Ok(());
            }
            found => found?,
        };
        if is_mine(registry, &stat) && found == mine {
            return Ok(());
        }
        let late = Instant::now() >= deadline;
        if remembered.contains(&stat.ephemeral_owner) || found == mine {
            match registry.delete(&path, Some(stat.version)).await {
                Ok(()) | Err(RegistryError::NoNode(_)) => continue,
                Err(error) if late => return Err(error.into()),
                Err(_) => {}
            }
        }
        if late && found != mine {
            return Err(ClaimError::Taken { broker: identity.broker, claim: found });
        }
        sleep(CLAIM_POLL).await;
    }
}

fn is_mine(registry: &dyn Registry, stat: &Stat) -> bool {
    registry.session_id() == Some(stat.ephemeral_owner)
}

/// Registers the broker, or updates its registration. The id must be claimed by this session:
/// whatever else is registered under it belongs to a dead process and is replaced.
///
/// # Errors
/// The registry's; `NoNode` of the claim when it was lost meanwhile.
pub async fn register(
    registry: &dyn Registry,
    id: BrokerId,
    registration: &BrokerRegistration,
) -> Result<(), RecipeError> {
    let path = broker::path(id);
    let data = registration.encode();
    let claimed = Op::Check { path: broker_id::path(id), version: None };
    let mut ops = vec![claimed];
    match registry.get(&path).await {
        Ok((found, stat)) if is_mine(registry, &stat) => {
            if found == data {
                return Ok(());
            }
            if let Err(error) = BrokerRegistration::decode(&found) {
                tracing::warn!(broker = %id, %error, "somebody overwrote this broker's registration: writing it again");
            }
            ops.push(Op::Set { path, data, version: Some(stat.version) });
        }
        Ok((_, stat)) => {
            ops.push(Op::Delete { path: path.clone(), version: Some(stat.version) });
            ops.push(Op::Create { path, data, mode: CreateMode::Ephemeral });
        }
        Err(RegistryError::NoNode(_)) => {
            ops.push(Op::Create { path, data, mode: CreateMode::Ephemeral });
        }
        Err(error) => return Err(error.into()),
    }
    registry.multi(ops).await?;
    Ok(())
}

/// Keeps the broker claimed and registered, in one session after another, until the registry is
/// closed. `registration` may change at any time, for example to `draining`.
///
/// # Errors
/// The id belongs to somebody else, or data is not ours or newer: the broker must stop.
pub async fn maintain(
    registry: Arc<dyn Registry>,
    identity: Identity,
    remembered: Vec<SessionId>,
    patience: Duration,
    mut registration: watch::Receiver<BrokerRegistration>,
) -> Result<(), ClaimError> {
    let mut states = registry.session();
    let mut own: Option<Watch> = None;
    loop {
        if own.is_none() {
            own = registry.watch(&broker::path(identity.broker), false).await.ok();
        }
        let state = *states.borrow_and_update();
        let current = registration.borrow_and_update().clone();
        let settled = match state {
            SessionState::Closed => return Ok(()),
            SessionState::Disconnected => true,
            SessionState::Connected(_) => match ensure(&*registry, identity, &remembered, patience, &current).await {
                Ok(()) => true,
                Err(ClaimError::Recipe(RecipeError::Registry(RegistryError::Closed))) => {
                    return Ok(());
                }
                Err(ClaimError::Recipe(RecipeError::Registry(error))) => {
                    tracing::warn!(broker = %identity.broker, %error, "not registered yet");
                    false
                }
                Err(error) => return Err(error),
            },
        };
        let pause = if settled { REREAD } else { RETRY };
        tokio::select! {
            biased;
            changed = states.changed() => if changed.is_err() { return Ok(()) },
            // The owner of the registration is gone: what it said last stays.
            Ok(()) = registration.changed() => {}
            // Somebody overwrote or removed it, or it was this broker itself.
            changed = changed(&mut own) => if changed.is_none() { own = None },
            () = sleep(pause) => {}
        }
    }
}

/// The next change of what is watched; never, if nothing is.
async fn changed(watch: &mut Option<Watch>) -> Option<Event> {
    match watch {
        Some(watch) => watch.next().await,
        None => std::future::pending().await,
    }
}

async fn ensure(
    registry: &dyn Registry,
    identity: Identity,
    remembered: &[SessionId],
    patience: Duration,
    registration: &BrokerRegistration,
) -> Result<(), ClaimError> {
    claim(registry, identity, remembered, patience).await?;
    register(registry, identity.broker, registration).await?;
    Ok(())
}

/// A registered broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveBroker {
    pub registration: BrokerRegistration,
    /// The version of its node: what an ISR change that adds it must check.
    pub version: i32,
    /// Tells two registrations of one id apart.
    pub czxid: i64,
}

/// The registered brokers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LiveBrokers {
    pub brokers: BTreeMap<BrokerId, LiveBroker>,
    /// False before the first complete reading.
    pub known: bool,
}

/// Keeps `publish` at what is registered, until the registry is closed. While ZooKeeper is away
/// the last view stays, and so does what is known of a broker whose registration was overwritten
/// with something that cannot be understood (its session goes on).
pub async fn follow(registry: Arc<dyn Registry>, publish: watch::Sender<Arc<LiveBrokers>>) {
    let mut watch = loop {
        match registry.watch(broker::ROOT, true).await {
            Ok(watch) => break watch,
            Err(RegistryError::Closed) => return,
            Err(_) => sleep(RETRY).await,
        }
    };
    let mut wanted = Wanted::All;
    loop {
        match update(&*registry, &publish, &wanted).await {
            Ok(()) => {}
            Err(RegistryError::Closed) => return,
            Err(error) => {
                tracing::debug!(%error, "the view of the brokers is not up to date");
                sleep(RETRY).await;
                wanted = Wanted::All;
                continue;
            }
        }
        wanted = match timeout(REREAD, watch.next()).await {
            Ok(None) => return,
            Err(_) | Ok(Some(Event::Reset)) => Wanted::All,
            Ok(Some(Event::Node { path, .. })) => match broker::broker_of(&path) {
                Some(id) if path != broker::ROOT => Wanted::One(id),
                _ => Wanted::All,
            },
        };
    }
}

enum Wanted {
    All,
    One(BrokerId),
}

async fn update(
    registry: &dyn Registry,
    publish: &watch::Sender<Arc<LiveBrokers>>,
    wanted: &Wanted,
) -> Result<(), RegistryError> {
    let known = Arc::clone(&publish.borrow());
    let view = match wanted {
        Wanted::All => read_known(registry, &known).await?,
        Wanted::One(id) => {
            let mut view = LiveBrokers::clone(&known);
            match read(registry, *id).await?.or_known(*id, &known) {
                Some(live) => view.brokers.insert(*id, live),
                None => view.brokers.remove(id),
            };
            view
        }
    };
    publish.send_if_modified(|current| {
        let modified = **current != view;
        if modified {
            *current = Arc::new(view);
        }
        modified
    });
    Ok(())
}

/// Everybody who is registered. A registration that cannot be understood is left out, and the
/// log says so.
///
/// # Errors
/// The registry's.
pub async fn read_all(registry: &dyn Registry) -> Result<LiveBrokers, RegistryError> {
    read_known(registry, &LiveBrokers::default()).await
}

async fn read_known(registry: &dyn Registry, known: &LiveBrokers) -> Result<LiveBrokers, RegistryError> {
    let names = registry.children(broker::ROOT).await?;
    let ids: Vec<BrokerId> = names.iter().filter_map(|name| broker::broker_of(name)).collect();
    let found = join_all(ids.iter().map(|id| read(registry, *id))).await;
    let mut brokers = BTreeMap::new();
    for (id, found) in ids.into_iter().zip(found) {
        if let Some(live) = found?.or_known(id, known) {
            brokers.insert(id, live);
        }
    }
    Ok(LiveBrokers { brokers, known: true })
}

/// What is registered under an id.
enum Registered {
    Nobody,
    Broker(LiveBroker),
    /// The node is there, and its data cannot be understood.
    Unreadable {
        czxid: i64,
    },
}

impl Registered {
    /// An unreadable registration counts as what it was before it was overwritten.
    fn or_known(self, id: BrokerId, known: &LiveBrokers) -> Option<LiveBroker> {
        match self {
            Self::Nobody => None,
            Self::Broker(live) => Some(live),
            Self::Unreadable { czxid } => known.brokers.get(&id).filter(|before| before.czxid == czxid).cloned(),
        }
    }
}

async fn read(registry: &dyn Registry, id: BrokerId) -> Result<Registered, RegistryError> {
    let (data, stat) = match registry.get(&broker::path(id)).await {
        Ok(found) => found,
        Err(RegistryError::NoNode(_)) => return Ok(Registered::Nobody),
        Err(error) => return Err(error),
    };
    match BrokerRegistration::decode(&data) {
        Ok(registration) => {
            Ok(Registered::Broker(LiveBroker { registration, version: stat.version, czxid: stat.czxid }))
        }
        Err(error) => {
            tracing::warn!(broker = %id, %error, "cannot read a registration");
            Ok(Registered::Unreadable { czxid: stat.czxid })
        }
    }
}
