//! OffsetFetch: what groups have committed.

use std::collections::BTreeMap;
use std::sync::Arc;

use baton_core::group::offsets::Committed;
use baton_core::{Error, Offset};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{GroupId, OffsetFetchRequest, OffsetFetchResponse, TopicName};

use super::{ByPlace, allowed, bounded, code_of, shared, within};
use crate::authorizer::Verb;
use crate::group::Place;
use crate::kafka::names::{text, topic_name};
use crate::kafka::service::Call;

/// The first version with an error for the whole group.
const WHOLE_ERROR: i16 = 2;
/// The first version that asks for several groups.
const SEVERAL: i16 = 8;

/// The partitions that are asked for; none: all.
type Wanted = Option<Vec<(TopicName, Vec<i32>)>>;

/// What is answered for one partition.
struct Answered {
    partition: i32,
    offset: i64,
    epoch: i32,
    metadata: String,
    code: i16,
}

/// Of one group: the code for all of it, and its topics.
type Group = (i16, Vec<(TopicName, Vec<Answered>)>);

pub(in crate::kafka) async fn serve(call: &Call, request: OffsetFetchRequest) -> OffsetFetchResponse {
    if call.version < SEVERAL {
        let wanted = request.topics.map(|topics| topics.into_iter().map(|t| (t.name, t.partition_indexes)).collect());
        let (code, topics) = group(call, &request.group_id, wanted, request.require_stable).await;
        return OffsetFetchResponse::default()
            .with_error_code(if call.version < WHOLE_ERROR { 0 } else { code })
            .with_topics(topics.into_iter().map(single).collect());
    }
    let mut groups = Vec::new();
    for (index, asked) in request.groups.into_iter().enumerate() {
        if let Err(error) = within(index) {
            groups.push(
                OffsetFetchResponseGroup::default().with_group_id(asked.group_id).with_error_code(code_of(&error)),
            );
            continue;
        }
        let wanted = asked.topics.map(|topics| topics.into_iter().map(|t| (t.name, t.partition_indexes)).collect());
        let (code, topics) = group(call, &asked.group_id, wanted, request.require_stable).await;
        groups.push(
            OffsetFetchResponseGroup::default()
                .with_group_id(asked.group_id)
                .with_error_code(code)
                .with_topics(topics.into_iter().map(of_several).collect()),
        );
    }
    OffsetFetchResponse::default().with_groups(groups)
}

async fn group(call: &Call, group: &GroupId, wanted: Wanted, stable: bool) -> Group {
    let found = fetch(call, group, wanted.as_ref(), stable).await;
    let Some(wanted) = wanted else {
        return match found {
            Ok(found) => (0, all(found)),
            Err(error) => (code_of(&error), Vec::new()),
        };
    };
    let (results, whole) = match found {
        Ok(found) => (ByPlace::new(found), 0),
        Err(error) => (ByPlace::new(Vec::new()), code_of(&error)),
    };
    let mut topics = Vec::with_capacity(wanted.len());
    for (name, numbers) in wanted {
        let mut partitions = Vec::with_capacity(numbers.len());
        let shared = shared(&name);
        for number in numbers {
            let found = results.get(&shared, number).unwrap_or(Ok(None));
            partitions.push(answered(number, found, whole));
        }
        topics.push((name, partitions));
    }
    (whole, topics)
}

type Found = (Place, Result<Option<Committed>, Error>);

async fn fetch(
    call: &Call,
    group: &GroupId,
    wanted: Option<&Vec<(TopicName, Vec<i32>)>>,
    stable: bool,
) -> Result<Vec<Found>, Error> {
    allowed(call, Verb::Describe, group)?;
    let mut named = None;
    if let Some(wanted) = wanted {
        let places = named.insert(Vec::new());
        for (topic, partitions) in wanted {
            let numbers = partitions.iter().filter_map(|number| u32::try_from(*number).ok());
            let name = shared(topic);
            places.extend(numbers.map(|number| Place::new(Arc::clone(&name), number)));
        }
        bounded(places)?;
    }
    call.parts().groups.fetch(group, named, stable, call.context.deadline).await
}

fn all(found: Vec<Found>) -> Vec<(TopicName, Vec<Answered>)> {
    let mut topics: BTreeMap<Arc<str>, Vec<Answered>> = BTreeMap::new();
    for (place, found) in found {
        let number = i32::try_from(place.partition).unwrap_or(i32::MAX);
        topics.entry(place.topic).or_default().push(answered(number, found, 0));
    }
    topics.into_iter().map(|(name, partitions)| (topic_name(&name), partitions)).collect()
}

fn answered(partition: i32, found: Result<Option<Committed>, Error>, whole: i16) -> Answered {
    let nothing = Answered { partition, offset: -1, epoch: -1, metadata: String::new(), code: whole };
    match found {
        Ok(None) => nothing,
        Ok(Some(found)) => Answered {
            offset: Offset::to_wire(found.offset),
            epoch: found.leader_epoch.unwrap_or(-1),
            metadata: found.metadata,
            ..nothing
        },
        Err(error) => Answered { code: code_of(&error), ..nothing },
    }
}

fn single((name, partitions): (TopicName, Vec<Answered>)) -> OffsetFetchResponseTopic {
    let one = |a: Answered| {
        OffsetFetchResponsePartition::default()
            .with_partition_index(a.partition)
            .with_committed_offset(a.offset)
            .with_committed_leader_epoch(a.epoch)
            .with_metadata(Some(text(&a.metadata)))
            .with_error_code(a.code)
    };
    OffsetFetchResponseTopic::default().with_name(name).with_partitions(partitions.into_iter().map(one).collect())
}

fn of_several((name, partitions): (TopicName, Vec<Answered>)) -> OffsetFetchResponseTopics {
    let one = |a: Answered| {
        OffsetFetchResponsePartitions::default()
            .with_partition_index(a.partition)
            .with_committed_offset(a.offset)
            .with_committed_leader_epoch(a.epoch)
            .with_metadata(Some(text(&a.metadata)))
            .with_error_code(a.code)
    };
    OffsetFetchResponseTopics::default().with_name(name).with_partitions(partitions.into_iter().map(one).collect())
}
