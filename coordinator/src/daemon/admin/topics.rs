//! Create, alter, add partitions, delete.
//!
//! Each is: plan from the view, write the intent, do it, clear the intent. An attempt whose
//! outcome is unknown is looked up and carried on, so that nobody has to ask twice.

use std::collections::{BTreeMap, BTreeSet};

use baton_core::event::EventKind;
use baton_core::placement::Replicas;
use baton_core::topic::{NAMESPACE_DEFAULT, TopicName};
use baton_core::{BrokerId, Error, ErrorCode, TopicId};
use baton_proto::v1;
use baton_registry::recipes::topics::{self, NewTopic, Topic, TopicError};
use baton_registry::znode::Intent;
use tokio::time::Instant;

use super::Admin;
use crate::daemon::brokers::client_address;
use crate::daemon::plan::create::{Creation, plan_alteration, plan_creation, plan_growth};
use crate::daemon::plan::snapshot::shown;
use crate::daemon::plan::{Snapshot, reassign};
use crate::daemon::term::{Term, may_retry};

/// The longest text of who asked.
const WHO_CHARS_MAX: usize = 128;

/// Who asked, for the history.
pub fn who(text: &str) -> String {
    let shown: String = text.chars().take(WHO_CHARS_MAX).collect();
    if shown.is_empty() { "administrator".to_owned() } else { shown }
}

fn assignment_of(lists: Vec<v1::ReplicaList>) -> Vec<Replicas> {
    lists.into_iter().map(|list| list.brokers.into_iter().map(BrokerId).collect()).collect()
}

pub async fn create_topic(admin: Admin, request: v1::CreateTopicRequest) -> Result<v1::TopicReply, Error> {
    let wanted = Creation {
        name: request.name,
        internal: request.internal,
        partitions: request.partitions,
        replication: request.replication,
        config: request.config.into_iter().collect(),
        assignment: assignment_of(request.assignment),
    };
    if request.validate_only {
        let limits = admin.term.shared.config.topic_limits();
        let plan = admin.term.view().read(|snapshot| plan_creation(snapshot, &wanted, limits, 0));
        let plan = plan.map_err(|error| error.topic(shown(&wanted.name)))?;
        return Ok(v1::TopicReply { partitions: plan.partitions, replication: plan.replication, ..Default::default() });
    }
    let created = create(&admin.term, &wanted, &who(&request.who), admin.deadline).await?;
    admin.term.await_led(created.id, &wanted.name, created.partitions, admin.deadline).await?;
    Ok(v1::TopicReply {
        error: None,
        id: created.id.to_string(),
        partitions: created.partitions,
        replication: created.replication,
    })
}

/// A topic whose nodes are all there.
#[derive(Clone, Copy, Debug)]
pub struct CreatedTopic {
    pub id: TopicId,
    pub partitions: u32,
    pub replication: u32,
}

/// Creates a topic, without waiting for leaders.
///
/// # Errors
/// It is not allowed, or it could not be done by the deadline.
pub async fn create(term: &Term, wanted: &Creation, who: &str, deadline: Instant) -> Result<CreatedTopic, Error> {
    let _changing = term.changes.lock().await;
    let limits = term.shared.config.topic_limits();
    let seed = term.shared.draw("placement");
    let plan = term.view().read(|snapshot| plan_creation(snapshot, wanted, limits, seed));
    let plan = plan.map_err(|error| error.topic(shown(&wanted.name)))?;
    let id = create_nodes(term, &plan.topic, deadline).await?;
    if let Err(error) = term.refresh(id).await {
        tracing::debug!(topic = wanted.name, %error, "the new topic is not in the view yet");
    }
    let done = format!("{} partitions, {} replicas", plan.partitions, plan.replication);
    let event = term.history().event(EventKind::TopicCreated);
    term.history().record(event.topic(&wanted.name).decided("placed on live brokers").result(done).who(who));
    Ok(CreatedTopic { id, partitions: plan.partitions, replication: plan.replication })
}

async fn create_nodes(term: &Term, new: &NewTopic, deadline: Instant) -> Result<TopicId, Error> {
    let mut attempted = false;
    loop {
        let error = match topics::create(term.registry(), term.fence, new).await {
            Ok(id) => return Ok(id),
            // The attempt before, whose answer was lost, took the name.
            Err(TopicError::Exists(id)) if attempted => {
                finish(term, &new.name, id, deadline).await?;
                return Ok(id);
            }
            Err(error) => error,
        };
        attempted = true;
        let again = matches!(&error, TopicError::Recipe(error) if may_retry(error));
        if !again || !term.pause(deadline).await {
            return Err(term.topic_failed(&new.name, &error));
        }
    }
}

/// Does what a topic's intent says.
async fn finish(term: &Term, name: &str, id: TopicId, deadline: Instant) -> Result<(), Error> {
    loop {
        let error = match topics::finish(term.registry(), term.fence, id).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let again = matches!(&error, TopicError::Recipe(error) if may_retry(error));
        if !again || !term.pause(deadline).await {
            return Err(term.topic_failed(name, &error));
        }
    }
}

/// The topic as the registry has it, with nothing under way.
async fn settled(term: &Term, name: &str, deadline: Instant) -> Result<Topic, Error> {
    let missing = || Error::new(ErrorCode::UnknownTopic, "there is no such topic").topic(shown(name));
    TopicName::any(name).map_err(|_| missing())?;
    loop {
        let found = match topics::find(term.registry(), NAMESPACE_DEFAULT, name).await {
            Ok(Some(id)) => topics::read(term.registry(), id).await,
            Ok(None) => return Err(missing()),
            Err(error) => Err(error),
        };
        match found {
            Ok(Some(topic)) if topic.node.intent == Intent::None => return Ok(topic),
            Ok(Some(topic)) => finish(term, name, topic.id, deadline).await?,
            // Deleted in between.
            Ok(None) => return Err(missing()),
            Err(error) => {
                if !may_retry(&error) || !term.pause(deadline).await {
                    return Err(term.failed(&error).topic(name));
                }
            }
        }
    }
}

async fn reply_of(term: &Term, id: TopicId) -> Result<v1::TopicReply, Error> {
    term.refresh(id).await.map_err(|error| term.failed(&error))?;
    Ok(term.view().read(|snapshot| v1::TopicReply {
        error: None,
        id: id.to_string(),
        partitions: snapshot.topics.get(&id).map_or(0, |topic| topic.node.partitions),
        replication: snapshot.replication_of(id),
    }))
}

fn refuse_internal(name: &str) -> Result<(), Error> {
    match TopicName::any(name) {
        Ok(name) if name.is_internal() => {
            let cause = "names under `__` are Baton's own";
            Err(Error::new(ErrorCode::InvalidTopicName, cause).topic(name.as_str()))
        }
        _ => Ok(()),
    }
}

pub async fn alter_topic(admin: Admin, request: v1::AlterTopicRequest) -> Result<v1::TopicReply, Error> {
    let Admin { term, deadline } = admin;
    // What groups and transactions have agreed on would grow old, or be too large to write.
    refuse_internal(&request.name)?;
    let set: BTreeMap<String, String> = request.set.into_iter().collect();
    let _changing = term.changes.lock().await;
    loop {
        let topic = settled(&term, &request.name, deadline).await?;
        let config = term.view().read(|snapshot| plan_alteration(snapshot, &topic, &set, &request.unset));
        let config = config.map_err(|error| error.topic(shown(&request.name)))?;
        if config == topic.node.config {
            return reply_of(&term, topic.id).await;
        }
        match topics::set_config(term.registry(), term.fence, topic.id, config).await {
            Ok(()) => {
                let event = term.history().event(EventKind::TopicAltered).topic(&request.name);
                let decided = alteration_text(&set, &request.unset);
                term.history().record(event.decided(decided).result("altered").who(who(&request.who)));
                return reply_of(&term, topic.id).await;
            }
            Err(error) => {
                let again = matches!(&error, TopicError::Recipe(error) if may_retry(error));
                if !again || !term.pause(deadline).await {
                    return Err(term.topic_failed(&request.name, &error));
                }
            }
        }
    }
}

fn alteration_text(set: &BTreeMap<String, String>, unset: &[String]) -> String {
    let set = set.iter().map(|(key, value)| format!("{key} = {value}"));
    let unset = unset.iter().map(|key| format!("{key} unset"));
    set.chain(unset).collect::<Vec<_>>().join(", ")
}

pub async fn add_partitions(admin: Admin, mut request: v1::AddPartitionsRequest) -> Result<v1::TopicReply, Error> {
    let Admin { term, deadline } = admin;
    let assignment = assignment_of(std::mem::take(&mut request.assignment));
    let id = {
        let _changing = term.changes.lock().await;
        grow(&term, &request, &assignment, deadline).await?
    };
    if !request.validate_only {
        term.await_led(id, &request.name, request.total, deadline).await?;
    }
    reply_of(&term, id).await
}

async fn grow(
    term: &Term,
    request: &v1::AddPartitionsRequest,
    assignment: &[Replicas],
    deadline: Instant,
) -> Result<TopicId, Error> {
    let name = request.name.as_str();
    refuse_internal(name)?;
    let wanted = (request.total, assignment);
    let limits = term.shared.config.topic_limits();
    let seed = term.shared.draw("placement");
    let mut attempted = false;
    loop {
        let topic = settled(term, name, deadline).await?;
        if attempted && topic.node.partitions == request.total {
            return Ok(topic.id);
        }
        let plan = term.view().read(|snapshot| plan_growth(snapshot, &topic, wanted, limits, seed));
        let plan = plan.map_err(|error| error.topic(shown(&request.name)))?;
        if !request.accept_moved_keys {
            refuse_moved_keys(term, &topic).await?;
        }
        if request.validate_only {
            return Ok(topic.id);
        }
        match topics::grow(term.registry(), term.fence, topic.id, plan).await {
            Ok(()) => {
                let event = term.history().event(EventKind::PartitionsAdded).topic(name);
                let seen = format!("{} partitions", topic.node.partitions);
                let result = format!("{} partitions", request.total);
                term.history().record(event.seen(seen).result(result).who(who(&request.who)));
                if let Err(error) = term.refresh(topic.id).await {
                    tracing::debug!(topic = name, %error, "the new partitions are not in the view yet");
                }
                return Ok(topic.id);
            }
            Err(error) => {
                attempted = true;
                let again = matches!(&error, TopicError::Recipe(error) if may_retry(error));
                if !again || !term.pause(deadline).await {
                    return Err(term.topic_failed(name, &error));
                }
            }
        }
    }
}

/// A key's partition follows from the number of partitions: with another number, records of a
/// key go elsewhere than those before, and their order is lost. Nobody knows whether a topic's
/// producers use keys, so every topic that ever had a record is taken for one where they do.
async fn refuse_moved_keys(term: &Term, topic: &Topic) -> Result<(), Error> {
    let name = &topic.node.name;
    let would_move = |cause: String| Err(Error::new(ErrorCode::KeysWouldMove, cause).topic(name));
    let leaders = term.view().read(|snapshot| leaders_of(snapshot, topic));
    let leaders = match leaders {
        Ok(leaders) => leaders,
        Err(error) => return would_move(format!("it cannot be told whether the topic has records: {}", error.cause)),
    };
    for (address, partitions) in leaders {
        match term.shared.brokers.had_records(&address, name, &partitions).await {
            Ok(false) => {}
            Ok(true) => return would_move("the topic has had records; with more partitions, keys go elsewhere".into()),
            Err(error) => return would_move(format!("it cannot be told whether the topic has records: {error}")),
        }
    }
    Ok(())
}

/// The addresses of the leaders, with the partitions that each leads.
fn leaders_of(snapshot: &Snapshot, topic: &Topic) -> Result<BTreeMap<String, Vec<u32>>, Error> {
    let mut leaders: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    let mut known = BTreeSet::new();
    for (id, versioned) in snapshot.states_of(topic.id) {
        let nobody = || Error::new(ErrorCode::NoLeader, format!("nobody leads partition {}", id.partition));
        let leader = versioned.state.leader.ok_or_else(nobody)?.broker;
        let live = snapshot.brokers.get(&leader).ok_or_else(nobody)?;
        leaders.entry(client_address(leader, &live.registration)?).or_default().push(id.partition);
        known.insert(id.partition);
    }
    match (0..topic.node.partitions).find(|partition| !known.contains(partition)) {
        None => Ok(leaders),
        Some(partition) => Err(Error::new(ErrorCode::NoLeader, format!("nothing is known of partition {partition}"))),
    }
}

pub async fn delete_topic(admin: Admin, request: v1::DeleteTopicRequest) -> Result<v1::TopicReply, Error> {
    let Admin { term, deadline } = admin;
    let name = request.name.as_str();
    refuse_internal(name)?;
    let _changing = term.changes.lock().await;
    let id = match find(&term, name, deadline).await? {
        Found::There(id) => id,
        Found::BeingDeleted(id) => {
            finish(&term, name, id, deadline).await?;
            term.view().set_topic(id, None);
            return Ok(v1::TopicReply { id: id.to_string(), ..Default::default() });
        }
    };
    let (partitions, brokers) = term.view().read(|snapshot| {
        let brokers: BTreeSet<_> = snapshot.replicas_of(id).into_iter().flatten().collect();
        (snapshot.topics.get(&id).map_or(0, |topic| topic.node.partitions), brokers)
    });
    delete_nodes(&term, name, id, deadline).await?;
    term.view().set_topic(id, None);
    let brokers: Vec<_> = brokers.into_iter().collect();
    let event = term.history().event(EventKind::TopicDeleted).topic(name);
    let decided = format!("brokers {} remove its data", reassign::list(&brokers));
    let seen = format!("{partitions} partitions");
    term.history().record(event.seen(seen).decided(decided).result("deleted").who(who(&request.who)));
    Ok(v1::TopicReply { id: id.to_string(), partitions, ..Default::default() })
}

enum Found {
    There(TopicId),
    /// Its name is free already.
    BeingDeleted(TopicId),
}

async fn find(term: &Term, name: &str, deadline: Instant) -> Result<Found, Error> {
    let missing = || Error::new(ErrorCode::UnknownTopic, "there is no such topic").topic(shown(name));
    TopicName::any(name).map_err(|_| missing())?;
    loop {
        match topics::find(term.registry(), NAMESPACE_DEFAULT, name).await {
            Ok(Some(id)) => return Ok(Found::There(id)),
            Ok(None) => break,
            Err(error) if may_retry(&error) && term.pause(deadline).await => {}
            Err(error) => return Err(term.failed(&error).topic(name)),
        }
    }
    let unfinished = topics::unfinished(term.registry()).await.map_err(|error| term.failed(&error))?;
    let same = |topic: &&Topic| topic.node.name == name && topic.node.intent == Intent::Deleting;
    unfinished.iter().find(same).map(|topic| Found::BeingDeleted(topic.id)).ok_or_else(missing)
}

async fn delete_nodes(term: &Term, name: &str, id: TopicId, deadline: Instant) -> Result<(), Error> {
    loop {
        let error = match topics::delete(term.registry(), term.fence, id, term.shared.now_unix_ms()).await {
            Ok(()) | Err(TopicError::NotFound) => return Ok(()),
            Err(error) => error,
        };
        let again = match &error {
            TopicError::Recipe(error) => may_retry(error),
            TopicError::Busy => true,
            TopicError::Exists(_) | TopicError::NotFound => false,
        };
        if !again || !term.pause(deadline).await {
            return Err(term.topic_failed(name, &error));
        }
    }
}
