//! What must hold at every moment, for the whole cluster: looked at after every write of the
//! registry, and every 100 ms.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use baton_core::partition::{Assignment, LeaderId, PartitionState};
use baton_core::replica::RoleView;
use baton_core::{Epoch, Incarnation, Member, Offset, TopicId, TopicPartition};
use baton_registry::EventKind;
use baton_registry::memory::{Auditor, Change};
use baton_registry::znode::coordinator::{self, EPOCH_PATH};
use baton_registry::znode::{BrokerRegistration, Intent, TopicNode, Znode, candidate, partition, tombstone, topic};
use xxhash_rust::xxh3::Xxh3;

use super::SimCluster;
use super::cluster::Violations;
use super::load::{Load, now_us};
use super::topic::{Place, Topic};

/// A topic's `min.insync.replicas`, from the registry's text.
const MIN_INSYNC: &str = "min.insync.replicas";

/// The registry as its transactions made it.
#[derive(Default)]
pub struct Known {
    pub states: BTreeMap<TopicPartition, PartitionState>,
    pub topics: BTreeMap<TopicId, TopicNode>,
    pub tombstones: BTreeSet<String>,
    brokers: BTreeMap<u32, BrokerRegistration>,
    leaders: BTreeMap<(TopicPartition, Epoch), LeaderId>,
    /// The lowest that it ever was, for each topic.
    min_insync: BTreeMap<TopicId, usize>,
    coordinator: Option<String>,
    /// Unclean elections, each with its epoch and when it was written, in microseconds.
    pub unclean: Vec<(TopicPartition, Epoch, u64)>,
    digest: Xxh3,
    transactions: u64,
}

/// Sees every transaction.
#[derive(Clone)]
pub struct RegistryWatch {
    known: Arc<Mutex<Known>>,
    violations: Violations,
}

impl RegistryWatch {
    #[must_use]
    pub fn of(cluster: &SimCluster) -> Self {
        let this = Self { known: Arc::default(), violations: cluster.violations.clone() };
        cluster.ensemble.audit(this.clone());
        this
    }

    pub fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().expect("nobody panics while looking")
    }

    /// Of all transactions, in their order, with their times.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.known().digest.digest()
    }
}

impl Auditor for RegistryWatch {
    fn committed(&self, by: Option<&str>, changes: &[Change]) {
        let mut known = self.known();
        known.transactions += 1;
        let now = turmoil::sim_elapsed().unwrap_or_default().as_millis();
        known.digest.update(format!("{now} {by:?}").as_bytes());
        for change in changes {
            known.digest.update(format!("{} {:?} {}", change.path, change.kind, change.stat.version).as_bytes());
            known.digest.update(&change.data);
            if let Err(why) = known.take(by, change) {
                let who = by.unwrap_or("the end of a session");
                self.violations.add(format!("{who} wrote {}: {why}", change.path));
            }
        }
    }
}

impl Known {
    fn take(&mut self, by: Option<&str>, change: &Change) -> Result<(), String> {
        let path = change.path.as_str();
        self.check_coordinator(by, path)?;
        if let Some(id) = partition::partition_of(path).filter(|_| candidate::sequence_of(path).is_none()) {
            return self.take_state(by, id, change);
        }
        if let Some(id) = topic::topic_of(path) {
            return self.take_topic(id, change);
        }
        if let Some(id) = path.strip_prefix("/brokers/").and_then(|id| id.parse().ok()) {
            match BrokerRegistration::decode(&change.data).ok().filter(|_| change.kind != EventKind::Deleted) {
                Some(registration) => self.brokers.insert(id, registration),
                None => self.brokers.remove(&id),
            };
        }
        if path.starts_with(tombstone::ROOT) && path != tombstone::ROOT {
            if change.kind == EventKind::Deleted {
                self.tombstones.remove(path);
            } else {
                self.tombstones.insert(path.to_owned());
            }
        }
        Ok(())
    }

    /// A coordinator that another one has replaced changes nothing (KAFKA-6082).
    fn check_coordinator(&mut self, by: Option<&str>, path: &str) -> Result<(), String> {
        let Some(by) = by.filter(|name| name.starts_with("coordinator")) else { return Ok(()) };
        if path == EPOCH_PATH {
            self.coordinator = Some(by.to_owned());
        }
        let coordinates = !path.starts_with(coordinator::ROOT) && self.coordinator.is_some();
        let layout = ["/cluster", "/producer-ids"].contains(&path) || path.matches('/').count() == 1;
        if coordinates && !layout && self.coordinator.as_deref() != Some(by) {
            return Err(format!("{:?} is the elected coordinator", self.coordinator));
        }
        Ok(())
    }

    fn take_topic(&mut self, id: TopicId, change: &Change) -> Result<(), String> {
        if change.kind == EventKind::Deleted {
            self.topics.remove(&id);
            return Ok(());
        }
        let node = TopicNode::decode(&change.data).map_err(|error| error.to_string())?;
        let min = node.config.get(MIN_INSYNC).and_then(|min| min.parse().ok()).unwrap_or(1);
        let lowest = self.min_insync.entry(id).or_insert(min);
        *lowest = min.min(*lowest);
        self.topics.insert(id, node);
        Ok(())
    }

    fn take_state(&mut self, by: Option<&str>, id: TopicPartition, change: &Change) -> Result<(), String> {
        if change.kind == EventKind::Deleted {
            self.states.remove(&id);
            return Ok(());
        }
        let new = PartitionState::decode(&change.data).map_err(|error| error.to_string())?;
        let old = self.states.insert(id, new.clone());
        if new.isr.is_empty() {
            return Err("nobody is in sync".to_owned());
        }
        if let Some(leader) = new.leader {
            let first = *self.leaders.entry((id, new.epoch)).or_insert(leader);
            if first != leader {
                return Err(format!("{first:?} and {leader:?} lead in epoch {}", new.epoch));
            }
        }
        let Some(old) = old else { return Ok(()) };
        if new.epoch < old.epoch {
            return Err(format!("epoch {} follows {}", new.epoch, old.epoch));
        }
        if new.last_unclean_epoch != old.last_unclean_epoch {
            return self.take_unclean(by, id, &old, &new);
        }
        let elected = new.leader.filter(|leader| old.leader != Some(*leader));
        if elected.is_some() && new.epoch <= old.epoch {
            return Err(format!("another leader in the same epoch {}", new.epoch));
        }
        if let Some(leader) = elected
            && !old.isr.iter().any(|m| m.broker == leader.broker && m.disk == leader.disk)
        {
            return Err(format!("broker {} was elected and was not in sync: {:?}", leader.broker, old.isr));
        }
        self.check_isr(id, &old, &new, elected.is_some())
    }

    /// A coordinator does it, for an operator, and only where it was asked for.
    fn take_unclean(
        &mut self,
        by: Option<&str>,
        id: TopicPartition,
        old: &PartitionState,
        new: &PartitionState,
    ) -> Result<(), String> {
        let asked = self.topics.get(&id.topic).is_some_and(|node| node.name == Topic::Drafts.name());
        let right = new.leader.is_none() && new.isr.len() == 1 && new.epoch == old.epoch.next();
        if !asked || !right || new.last_unclean_epoch != new.epoch || by.is_none_or(|by| !by.starts_with("coord")) {
            return Err(format!("an unclean election that nobody asked for: {old:?}, {new:?}"));
        }
        self.unclean.push((id, new.epoch, now_us()));
        Ok(())
    }

    fn check_isr(
        &self,
        id: TopicPartition,
        old: &PartitionState,
        new: &PartitionState,
        elected: bool,
    ) -> Result<(), String> {
        let min = self.min_insync.get(&id.topic).copied().unwrap_or(1);
        if new.isr.len() < old.isr.len() && new.isr.len() < min {
            return Err(format!("{} in sync, fewer than {min}", new.isr.len()));
        }
        let joined: Vec<&Member> = new.isr.iter().filter(|m| !old.in_isr(m)).collect();
        if elected && !joined.is_empty() {
            return Err(format!("an election let {joined:?} in"));
        }
        for member in joined {
            let registered = self.brokers.get(&member.broker.0);
            if registered.is_none_or(|r| r.draining || r.disk != member.disk) {
                return Err(format!("{member:?} joined and is registered as {registered:?} (KAFKA-14140)"));
            }
        }
        Ok(())
    }

    /// The id of a topic of the load.
    #[must_use]
    pub fn topic(&self, topic: Topic) -> Option<TopicId> {
        self.topics.iter().find(|(_, node)| node.name == topic.name()).map(|(id, _)| *id)
    }

    #[must_use]
    pub fn id(&self, place: Place) -> Option<TopicPartition> {
        Some(TopicPartition { topic: self.topic(place.topic)?, partition: place.partition })
    }

    /// The partition of the load that has this id.
    #[must_use]
    pub fn place(&self, id: TopicPartition) -> Option<Place> {
        let topic = Topic::named(&self.topics.get(&id.topic)?.name)?;
        Some(Place { topic, partition: id.partition })
    }

    /// What was acknowledged, or told to readers, before this epoch may be gone.
    fn unclean_epoch(&self, id: TopicPartition) -> Epoch {
        self.states.get(&id).map_or(Epoch::NONE, |state| state.last_unclean_epoch)
    }

    /// What is missing until everything is as it should be.
    #[must_use]
    pub fn unsettled(&self, running: &BTreeSet<Incarnation>) -> Option<String> {
        for (id, node) in &self.topics {
            if node.intent != Intent::None {
                return Some(format!("topic {} is still being changed", node.name));
            }
            for number in 0..node.partitions {
                let id = TopicPartition { topic: *id, partition: number };
                let Some(state) = self.states.get(&id) else { return Some(format!("{id} has no state")) };
                let Some(leader) = state.leader else { return Some(format!("{id} has no leader: {state:?}")) };
                if !running.contains(&leader.incarnation) {
                    return Some(format!("{id} is led by a process that is gone: {state:?}"));
                }
                let Assignment { replicas, adding, removing } = &state.assignment;
                if state.isr.len() != replicas.len() || !adding.is_empty() || !removing.is_empty() {
                    return Some(format!("{id} is not in sync everywhere: {state:?}"));
                }
            }
        }
        self.tombstones.first().map(|path| format!("{path} is still there"))
    }
}

/// Looks at brokers and disks.
pub struct StateWatch {
    cluster: SimCluster,
    registry: RegistryWatch,
    load: Load,
    /// Who led in an epoch.
    leaders: BTreeMap<(TopicPartition, Epoch), Incarnation>,
    /// The highest that a client may have been told, by the epoch that told it.
    told: BTreeMap<TopicPartition, BTreeMap<Epoch, Offset>>,
}

impl StateWatch {
    #[must_use]
    pub fn new(cluster: SimCluster, registry: RegistryWatch, load: Load) -> Self {
        Self { cluster, registry, load, leaders: BTreeMap::new(), told: BTreeMap::new() }
    }

    /// `damaged` are brokers whose disks lost something.
    pub fn look(&mut self, damaged: &BTreeSet<u32>) {
        let starts = self.load.begins_too_late().map_or(Ok(()), Err);
        if let Err(why) = self.check_brokers().and(starts).and_then(|()| self.check_completeness(damaged)) {
            self.cluster.violations.add(why);
        }
    }

    fn check_brokers(&mut self) -> Result<(), String> {
        for (broker, live) in self.cluster.live() {
            for handle in live.partitions.all() {
                let (id, status) = (handle.id, handle.status.now());
                if status.high_watermark > status.log_end || status.log_start > status.log_end {
                    return Err(format!("broker {broker}, {id}: {status:?}"));
                }
                if let RoleView::Leader { .. } = status.role {
                    self.check_leader(broker, live.incarnation, id, status.epoch)?;
                    if let Some(latest) = status.latest {
                        self.check_told(broker, id, status.epoch, latest)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn check_leader(&mut self, broker: u32, who: Incarnation, id: TopicPartition, epoch: Epoch) -> Result<(), String> {
        let first = *self.leaders.entry((id, epoch)).or_insert(who);
        if first != who {
            return Err(format!("two processes lead {id} in epoch {epoch}; broker {broker} is the second"));
        }
        match self.registry.known().leaders.get(&(id, epoch)) {
            Some(leader) if leader.incarnation == who => Ok(()),
            elected => Err(format!("broker {broker} leads {id} in epoch {epoch}; elected was {elected:?}")),
        }
    }

    /// No leader that knows its high watermark knows a lower one than any leader before it.
    fn check_told(&mut self, broker: u32, id: TopicPartition, epoch: Epoch, latest: Offset) -> Result<(), String> {
        let unclean = self.registry.known().unclean_epoch(id);
        if epoch < unclean {
            // A leader that has not heard of it; nothing that it says is promised.
            return Ok(());
        }
        let told = self.told.entry(id).or_default();
        let before = told.range(unclean..=epoch).map(|(epoch, end)| (*end, *epoch)).max();
        if let Some((end, earlier)) = before.filter(|(end, _)| *end > latest) {
            return Err(format!(
                "the high watermark of {id} was {end} in epoch {earlier}; broker {broker} says {latest} in epoch {epoch}"
            ));
        }
        told.insert(epoch, latest);
        Ok(())
    }

    /// What was acknowledged is durable on every member of the in-sync replicas.
    fn check_completeness(&self, damaged: &BTreeSet<u32>) -> Result<(), String> {
        let known = self.registry.known();
        let mut ends = BTreeMap::new();
        for broker in 1..=self.cluster.settings.brokers {
            let disk = self.cluster.disk(broker);
            let identity = disk.identity().disk;
            for (id, generation, start, end) in disk.bounds() {
                ends.insert((id, identity, generation), (start, end));
            }
        }
        let deleted = self.load.deleted();
        for (place, acknowledged) in self.load.acknowledged() {
            let Some(id) = known.id(place) else { continue };
            let Some(state) = known.states.get(&id) else { continue };
            let counts = acknowledged.range(state.last_unclean_epoch.0..);
            let Some(acknowledged) = counts.map(|(_, end)| *end).max() else { continue };
            for member in state.isr.iter().filter(|m| !damaged.contains(&m.broker.0)) {
                let bounds = ends.get(&(id, member.disk, member.generation));
                let end = bounds.map(|(_, end)| end);
                if end.is_none_or(|end| end.0 < acknowledged) {
                    return Err(format!(
                        "{id}: everything below {acknowledged} is acknowledged, and the copy of {member:?} ends at {end:?}"
                    ));
                }
                let (begins, told) = (bounds.map_or(0, |(start, _)| start.0), deleted.get(&place).copied());
                if told.is_some_and(|told| begins < told) {
                    return Err(format!(
                        "{id}: everything below {told:?} is deleted, and the copy of {member:?} begins at {begins}"
                    ));
                }
            }
        }
        Ok(())
    }
}
