//! Where the partitions of a new or growing topic go, or why not.

use std::collections::{BTreeMap, BTreeSet};

use baton_core::placement::{self, PlacementLimits, Replicas};
use baton_core::topic::{ConfigKey, NAMESPACE_DEFAULT, TopicConfig, TopicName, names_collide};
use baton_core::{BrokerId, Error, ErrorCode, Generation, Member};
use baton_registry::recipes::topics::{NewTopic, Topic};
use baton_registry::znode::PlannedPartition;

use super::Snapshot;
use super::snapshot::shown;

/// More replicas than this are not asked for.
const REPLICATION_MAX: usize = 32;

/// What a topic may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicLimits {
    pub partitions_max: u32,
    pub placement: PlacementLimits,
}

/// What was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Creation {
    pub name: String,
    /// One of Baton's own topics, whose names start with `__`.
    pub internal: bool,
    pub partitions: Option<u32>,
    pub replication: Option<u32>,
    pub config: BTreeMap<String, String>,
    /// If it is not empty: which brokers hold each partition.
    pub assignment: Vec<Replicas>,
}

/// A topic that can be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreationPlan {
    pub topic: NewTopic,
    pub partitions: u32,
    pub replication: u32,
}

/// Checks the request against the cluster, and places the partitions.
///
/// # Errors
/// The name, the configuration, or the numbers are not allowed; the topic exists; there are too
/// few brokers, or too few with room.
pub fn plan_creation(
    snapshot: &Snapshot,
    wanted: &Creation,
    limits: TopicLimits,
    seed: u64,
) -> Result<CreationPlan, Error> {
    let name = check_name(snapshot, wanted)?;
    let loads = snapshot.loads();
    let live = u32::try_from(loads.len()).unwrap_or(u32::MAX);
    let (partitions, replication) = if wanted.assignment.is_empty() {
        let default = placement::replication_default(live);
        (wanted.partitions.unwrap_or(placement::PARTITIONS_DEFAULT), wanted.replication.unwrap_or(default))
    } else {
        counts_of(wanted)?
    };
    check_partitions(partitions, limits.partitions_max)?;
    if replication as usize > REPLICATION_MAX.max(loads.len()) {
        return Err(placement::PlacementError::TooFewBrokers { replication, live }.into());
    }
    let placed = if wanted.assignment.is_empty() {
        placement::place(&loads, &[], partitions, replication, limits.placement, seed)?
    } else {
        check_assignment(snapshot, &wanted.assignment, limits.placement)?;
        wanted.assignment.clone()
    };
    let config = TopicConfig::for_new_topic(live, replication).with(&wanted.config)?;
    config.check_replication(replication)?;
    let topic = NewTopic {
        namespace: NAMESPACE_DEFAULT.to_owned(),
        name: name.to_string(),
        config: stored_config(&wanted.config, &config),
        plan: members_of(snapshot, &placed)?,
    };
    Ok(CreationPlan { topic, partitions, replication })
}

fn check_name(snapshot: &Snapshot, wanted: &Creation) -> Result<TopicName, Error> {
    let name = if wanted.internal { TopicName::internal(&wanted.name) } else { wanted.name.parse() };
    let name = name.map_err(|error| Error::from(error).topic(shown(&wanted.name)))?;
    if let Some(topic) = snapshot.topic_named(&wanted.name) {
        return Err(exists(&topic.node.name));
    }
    let collides = |topic: &&Topic| names_collide(&topic.node.name, &wanted.name);
    match snapshot.topics.values().find(collides) {
        None => Ok(name),
        Some(other) => {
            let cause = format!(
                "the topic {} differs from it only in `.` and `_`, which metrics cannot tell apart",
                other.node.name
            );
            Err(Error::new(ErrorCode::InvalidTopicName, cause).topic(&wanted.name))
        }
    }
}

/// The topic is there already.
#[must_use]
pub fn exists(name: &str) -> Error {
    Error::new(ErrorCode::TopicExists, "a topic of this name exists").topic(name)
}

fn check_partitions(partitions: u32, max: u32) -> Result<(), Error> {
    if partitions == 0 || partitions > max {
        let cause = format!("{partitions} partitions were asked for; a topic has 1 to {max}");
        return Err(Error::new(ErrorCode::InvalidPartitions, cause));
    }
    Ok(())
}

/// How many partitions and replicas an explicit assignment has.
fn counts_of(wanted: &Creation) -> Result<(u32, u32), Error> {
    let lengths: BTreeSet<usize> = wanted.assignment.iter().map(Vec::len).collect();
    let (Some(shortest), Some(longest)) = (lengths.first(), lengths.last()) else {
        return Err(Error::new(ErrorCode::InvalidRequest, "the assignment is empty"));
    };
    if *shortest == 0 || shortest != longest {
        let cause = format!("the assignment gives one partition {shortest} replicas and another {longest}");
        return Err(Error::new(ErrorCode::InvalidReplication, cause));
    }
    let partitions = u32::try_from(wanted.assignment.len()).unwrap_or(u32::MAX);
    let replication = u32::try_from(*longest).unwrap_or(u32::MAX);
    if wanted.partitions.is_some_and(|asked| asked != partitions) {
        let cause = format!("the assignment is for {partitions} partitions, and another number was asked for");
        return Err(Error::new(ErrorCode::InvalidPartitions, cause));
    }
    if wanted.replication.is_some_and(|asked| asked != replication) {
        let cause = format!("the assignment has {replication} replicas each, and another number was asked for");
        return Err(Error::new(ErrorCode::InvalidReplication, cause));
    }
    Ok((partitions, replication))
}

fn check_assignment(snapshot: &Snapshot, assignment: &[Replicas], limits: PlacementLimits) -> Result<(), Error> {
    let mut copies: BTreeMap<BrokerId, u32> = snapshot.loads().into_iter().map(|load| (load.id, load.copies)).collect();
    for (number, replicas) in (0_u32..).zip(assignment) {
        check_distinct(replicas).map_err(|error| error.partition(number))?;
        for broker in replicas {
            check_live(snapshot, *broker).map_err(|error| error.partition(number))?;
            let held = copies.entry(*broker).or_default();
            *held += 1;
            if *held > limits.copies_per_broker_max {
                let max = limits.copies_per_broker_max;
                let cause = format!("broker {broker} would hold more than {max} copies");
                return Err(Error::new(ErrorCode::PolicyViolation, cause).partition(number));
            }
        }
    }
    Ok(())
}

/// No broker holds two copies of a partition.
///
/// # Errors
/// `INVALID_REQUEST`.
pub fn check_distinct(replicas: &[BrokerId]) -> Result<(), Error> {
    let mut seen = BTreeSet::new();
    match replicas.iter().find(|broker| !seen.insert(**broker)) {
        None => Ok(()),
        Some(twice) => {
            let cause = format!("broker {twice} is named twice for one partition");
            Err(Error::new(ErrorCode::InvalidRequest, cause))
        }
    }
}

/// The broker is registered and stays.
///
/// # Errors
/// `UNKNOWN_BROKER`.
pub fn check_live(snapshot: &Snapshot, broker: BrokerId) -> Result<(), Error> {
    let cause = match snapshot.brokers.get(&broker) {
        None => format!("broker {broker} is not alive"),
        Some(live) if live.registration.draining => format!("broker {broker} is shutting down"),
        Some(_) => return Ok(()),
    };
    Err(Error::new(ErrorCode::UnknownBroker, cause))
}

/// The copies of new partitions: on the disks that the brokers have now, of the first generation.
fn members_of(snapshot: &Snapshot, placed: &[Replicas]) -> Result<Vec<PlannedPartition>, Error> {
    let member = |broker: &BrokerId| {
        let gone = || Error::new(ErrorCode::UnknownBroker, format!("broker {broker} is not alive"));
        let live = snapshot.brokers.get(broker).ok_or_else(gone)?;
        Ok(Member { broker: *broker, disk: live.registration.disk, generation: Generation(0) })
    };
    let partition = |replicas: &Replicas| {
        let members = replicas.iter().map(member).collect::<Result<_, Error>>()?;
        Ok(PlannedPartition { members })
    };
    placed.iter().map(partition).collect()
}

/// What is kept of a configuration: what was asked for, and what differs from the defaults.
#[must_use]
pub fn stored_config(asked: &BTreeMap<String, String>, resolved: &TopicConfig) -> BTreeMap<String, String> {
    let differs = |key: &str, value: &str| ConfigKey::find(key).is_none_or(|found| found.default != value);
    let kept = |(key, value): &(String, String)| asked.contains_key(key) || differs(key, value);
    resolved.to_map().into_iter().filter(kept).collect()
}

/// The configuration after a change. A key that is unset falls back to what a new topic gets.
///
/// # Errors
/// `INVALID_CONFIG`; nothing is changed then.
pub fn plan_alteration(
    snapshot: &Snapshot,
    topic: &Topic,
    set: &BTreeMap<String, String>,
    unset: &[String],
) -> Result<BTreeMap<String, String>, Error> {
    for key in unset {
        if ConfigKey::find(key).is_none() {
            return Err(baton_core::topic::ConfigError::UnknownKey(key.chars().take(100).collect()).into());
        }
        if set.contains_key(key) {
            let cause = format!("{key} is both set and unset");
            return Err(Error::new(ErrorCode::InvalidConfig, cause).topic(&topic.node.name));
        }
    }
    let replication = snapshot.replication_of(topic.id);
    let live = u32::try_from(snapshot.brokers.len()).unwrap_or(u32::MAX);
    let mut asked = topic.node.config.clone();
    asked.extend(set.clone());
    asked.retain(|key, _| !unset.contains(key));
    let resolved = TopicConfig::for_new_topic(live, replication).with(&asked)?;
    resolved.check_replication(replication)?;
    Ok(stored_config(&asked, &resolved))
}

/// Places the partitions that bring a topic to `total`, with as many replicas as it has: on the
/// brokers that `assignment` names, or where there is room if it is empty.
///
/// # Errors
/// `INVALID_PARTITIONS` if it has as many already; too few brokers, or too few with room; the
/// assignment is not for these partitions.
pub fn plan_growth(
    snapshot: &Snapshot,
    topic: &Topic,
    (total, assignment): (u32, &[Replicas]),
    limits: TopicLimits,
    seed: u64,
) -> Result<Vec<PlannedPartition>, Error> {
    let name = &topic.node.name;
    check_partitions(total, limits.partitions_max).map_err(|error| error.topic(name))?;
    let has = topic.node.partitions;
    let Some(count) = total.checked_sub(has).filter(|count| *count > 0) else {
        let cause = format!("the topic has {has} partitions, and {total} are not more; partitions are never removed");
        return Err(Error::new(ErrorCode::InvalidPartitions, cause).topic(name));
    };
    let existing = snapshot.replicas_of(topic.id);
    let replication = snapshot.replication_of(topic.id).max(1);
    if !assignment.is_empty() {
        check_growth(assignment, count, replication).map_err(|error| error.topic(name))?;
        check_assignment(snapshot, assignment, limits.placement).map_err(|error| error.topic(name))?;
        return members_of(snapshot, assignment);
    }
    let placed = placement::place(&snapshot.loads(), &existing, count, replication, limits.placement, seed)
        .map_err(|error| Error::from(error).topic(name))?;
    members_of(snapshot, &placed)
}

/// An assignment names every new partition, and gives each as many replicas as the others have.
fn check_growth(assignment: &[Replicas], count: u32, replication: u32) -> Result<(), Error> {
    let refused = |cause: String| Err(Error::new(ErrorCode::InvalidRequest, cause));
    if assignment.len() != count as usize {
        return refused(format!("{count} partitions are new, and the assignment is for {}", assignment.len()));
    }
    match assignment.iter().find(|replicas| replicas.len() != replication as usize) {
        None => Ok(()),
        Some(replicas) => {
            let cause = format!("a partition of the topic has {replication} replicas, not {}", replicas.len());
            refused(cause)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{self, LIMITS, snapshot};
    use super::*;

    fn asked(name: &str) -> Creation {
        Creation { name: name.to_owned(), ..Creation::default() }
    }

    fn plan(live: u32, wanted: &Creation) -> Result<CreationPlan, Error> {
        plan_creation(&snapshot(live), wanted, LIMITS, 7)
    }

    fn refused(live: u32, wanted: &Creation) -> (ErrorCode, String) {
        let error = plan(live, wanted).unwrap_err();
        (error.code, error.cause)
    }

    #[test]
    fn defaults_follow_the_number_of_brokers() {
        for (live, replication, min_insync) in [(1, 1, Some("1")), (2, 2, Some("1")), (3, 3, None), (9, 3, None)] {
            let plan = plan(live, &asked("t")).unwrap();
            assert_eq!((plan.partitions, plan.replication), (1, replication));
            assert_eq!(plan.topic.config.get("min.insync.replicas").map(String::as_str), min_insync, "{live}");
            assert_eq!(plan.topic.plan[0].members.len() as u32, replication);
        }
    }

    #[test]
    fn members_carry_the_disks_of_the_living() {
        let plan = plan(3, &asked("t")).unwrap();
        for member in &plan.topic.plan[0].members {
            assert_eq!((member.disk, member.generation), (fixtures::disk(member.broker.0), Generation(0)));
        }
    }

    #[test]
    fn more_replicas_than_brokers_are_refused_with_how_many_live() {
        for replication in [3, 1_000_000] {
            let wanted = Creation { replication: Some(replication), ..asked("t") };
            let (code, cause) = refused(2, &wanted);
            assert_eq!(code, ErrorCode::InvalidReplication);
            assert!(cause.contains("2 are alive"), "{cause}");
        }
        assert_eq!(refused(0, &asked("t")).0, ErrorCode::InvalidReplication);
        let none = Creation { replication: Some(0), ..asked("t") };
        assert_eq!(refused(3, &none).0, ErrorCode::InvalidReplication);
    }

    #[test]
    fn a_draining_broker_takes_nothing() {
        let mut cluster = snapshot(3);
        cluster.brokers.get_mut(&BrokerId(2)).unwrap().registration.draining = true;
        let plan = plan_creation(&cluster, &asked("t"), LIMITS, 0).unwrap();
        assert_eq!(plan.replication, 2);
        let wanted = Creation { assignment: vec![vec![BrokerId(2)]], ..asked("t") };
        assert_eq!(plan_creation(&cluster, &wanted, LIMITS, 0).unwrap_err().code, ErrorCode::UnknownBroker);
    }

    #[test]
    fn bad_numbers_names_and_keys_are_refused() {
        for partitions in [0, LIMITS.partitions_max + 1, u32::MAX] {
            let wanted = Creation { partitions: Some(partitions), ..asked("t") };
            assert_eq!(refused(3, &wanted).0, ErrorCode::InvalidPartitions, "{partitions}");
        }
        for name in ["", ".", "..", "__x", "a/b", &"x".repeat(250)] {
            assert_eq!(refused(3, &asked(name)).0, ErrorCode::InvalidTopicName, "{name:?}");
        }
        let config = |key: &str, value: &str| Creation {
            config: BTreeMap::from([(key.to_owned(), value.to_owned())]),
            ..asked("t")
        };
        for (key, value) in [("no.such.key", "1"), ("min.insync.replicas", "0"), ("min.insync.replicas", "4")] {
            assert_eq!(refused(3, &config(key, value)).0, ErrorCode::InvalidConfig, "{key}={value}");
        }
        assert_eq!(plan(3, &config("min.insync.replicas", "3")).unwrap().topic.config.len(), 1);
    }

    #[test]
    fn a_name_that_is_there_or_collides_is_refused() {
        let mut cluster = snapshot(3);
        fixtures::add_topic(&mut cluster, 1, "a.b", &[&[1, 2, 3]]);
        let error = |name: &str| plan_creation(&cluster, &asked(name), LIMITS, 0).map_err(|e| e.code);
        assert_eq!(error("a.b"), Err(ErrorCode::TopicExists));
        assert_eq!(error("a_b"), Err(ErrorCode::InvalidTopicName));
        assert!(error("ab").is_ok());
    }

    #[test]
    fn an_explicit_assignment_is_taken_or_refused_whole() {
        let brokers = |lists: &[&[u32]]| Creation {
            assignment: lists.iter().map(|list| list.iter().copied().map(BrokerId).collect()).collect(),
            ..asked("t")
        };
        let plan_of = plan(3, &brokers(&[&[2, 1], &[3, 2]])).unwrap();
        assert_eq!((plan_of.partitions, plan_of.replication), (2, 2));
        assert_eq!(plan_of.topic.plan[1].members[0].broker, BrokerId(3));
        for (lists, code) in [
            (&[&[1_u32, 1][..]][..], ErrorCode::InvalidRequest),
            (&[&[1, 4]], ErrorCode::UnknownBroker),
            (&[&[1], &[1, 2]], ErrorCode::InvalidReplication),
            (&[&[]], ErrorCode::InvalidReplication),
        ] {
            assert_eq!(refused(3, &brokers(lists)).0, code, "{lists:?}");
        }
        let mut wanted = brokers(&[&[1]]);
        wanted.partitions = Some(2);
        assert_eq!(refused(3, &wanted).0, ErrorCode::InvalidPartitions);
    }

    #[test]
    fn a_thousand_partitions_are_spread() {
        let plan = plan(3, &Creation { partitions: Some(1_000), ..asked("t") }).unwrap();
        let mut leaders = BTreeMap::new();
        for planned in &plan.topic.plan {
            *leaders.entry(planned.members[0].broker).or_insert(0) += 1;
        }
        assert!(leaders.values().all(|count| (333..=334).contains(count)), "{leaders:?}");
    }

    #[test]
    fn growth_keeps_the_replication_and_never_shrinks() {
        let mut cluster = snapshot(3);
        fixtures::add_topic(&mut cluster, 1, "t", &[&[1, 2], &[2, 3]]);
        let topic = cluster.topic("t").unwrap();
        let grown = plan_growth(&cluster, topic, (5, &[]), LIMITS, 0).unwrap();
        assert_eq!(grown.len(), 3);
        assert!(grown.iter().all(|planned| planned.members.len() == 2));
        for total in [0, 1, 2, LIMITS.partitions_max + 1] {
            let error = plan_growth(&cluster, topic, (total, &[]), LIMITS, 0).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidPartitions, "{total}");
        }
    }

    #[test]
    fn new_partitions_go_where_they_are_told() {
        let mut cluster = snapshot(3);
        fixtures::add_topic(&mut cluster, 1, "t", &[&[1, 2]]);
        let topic = cluster.topic("t").unwrap();
        let grown = |lists: &[&[u32]]| {
            let lists: Vec<Replicas> = lists.iter().map(|list| list.iter().copied().map(BrokerId).collect()).collect();
            plan_growth(&cluster, topic, (3, &lists), LIMITS, 0).map_err(|error| error.code)
        };
        let plan = grown(&[&[3, 1], &[2, 3]]).unwrap();
        let brokers: Vec<Vec<u32>> =
            plan.iter().map(|planned| planned.members.iter().map(|member| member.broker.0).collect()).collect();
        assert_eq!(brokers, [[3, 1], [2, 3]]);
        for (lists, code) in [
            (&[&[1_u32, 2][..]][..], ErrorCode::InvalidRequest),
            (&[&[1, 2], &[1]], ErrorCode::InvalidRequest),
            (&[&[1, 2], &[1, 1]], ErrorCode::InvalidRequest),
            (&[&[1, 2], &[1, 4]], ErrorCode::UnknownBroker),
        ] {
            assert_eq!(grown(lists), Err(code), "{lists:?}");
        }
    }

    #[test]
    fn a_configuration_is_changed_key_by_key() {
        let mut cluster = snapshot(3);
        fixtures::add_topic(&mut cluster, 1, "t", &[&[1, 2, 3]]);
        let map = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
        let topic = cluster.topic("t").unwrap().clone();
        let set = plan_alteration(&cluster, &topic, &map("min.insync.replicas", "3"), &[]).unwrap();
        assert_eq!(set, map("min.insync.replicas", "3"));
        let mut altered = topic.clone();
        altered.node.config = set;
        let unset = plan_alteration(&cluster, &altered, &BTreeMap::new(), &["min.insync.replicas".to_owned()]);
        assert_eq!(unset, Ok(BTreeMap::new()));
        let code = |set, unset: &[String]| plan_alteration(&cluster, &topic, &set, unset).unwrap_err().code;
        assert_eq!(code(map("min.insync.replicas", "4"), &[]), ErrorCode::InvalidConfig);
        assert_eq!(code(map("nope", "4"), &[]), ErrorCode::InvalidConfig);
        assert_eq!(code(BTreeMap::new(), &["nope".to_owned()]), ErrorCode::InvalidConfig);
        let both = code(map("max.message.bytes", "2000"), &["max.message.bytes".to_owned()]);
        assert_eq!(both, ErrorCode::InvalidConfig);
    }
}
