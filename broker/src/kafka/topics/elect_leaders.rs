//! ElectLeaders: the preferred leaders, or, where nobody leads, whoever is left (KIP-460).

use std::collections::BTreeSet;
use std::time::Duration;

use baton_core::partition::PartitionState;
use baton_core::{BrokerId, Error, ErrorCode};
use baton_proto::v1;
use kafka_protocol::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use kafka_protocol::messages::{ElectLeadersRequest, ElectLeadersResponse, TopicName};

use super::{MANY_MAX, Refusal, told};
use crate::authorizer::{Resource, Verb};
use crate::kafka::admin;
use crate::kafka::list_offsets::partition_number;
use crate::kafka::names::topic_name;
use crate::kafka::service::Call;

/// The first version in which the kind of election is given, and an error for all of it.
const TELLS_KIND: i16 = 1;

const PREFERRED: i8 = 0;
const UNCLEAN: i8 = 1;

/// `PREFERRED_LEADER_NOT_AVAILABLE`
const NO_PREFERRED: i16 = 80;
/// `ELIGIBLE_LEADERS_NOT_AVAILABLE`
const NOBODY_LEFT: i16 = 83;
/// `ELECTION_NOT_NEEDED`
const NOT_NEEDED: i16 = 84;

pub(in crate::kafka) async fn serve(call: &Call, request: ElectLeadersRequest) -> ElectLeadersResponse {
    let within = call.granted(request.timeout_ms);
    let kind = if call.version < TELLS_KIND { PREFERRED } else { request.election_type };
    let all = request.topic_partitions.is_none();
    let asked: Vec<(TopicName, Vec<i32>)> = match request.topic_partitions {
        Some(topics) => topics.into_iter().map(|topic| (topic.topic, topic.partitions)).collect(),
        None => every_partition(call),
    };
    let (mut results, mut count) = (Vec::new(), 0);
    for (topic, numbers) in asked {
        let mut partitions = Vec::new();
        for number in numbers {
            count += 1;
            let result = match count > MANY_MAX {
                true => Err(Refusal::invalid("a request has at most 10,000 partitions")),
                false => elect(call, kind, (&topic, number), within).await,
            };
            // Of all partitions only those are told where something was to be done.
            if all && result.as_ref().is_err_and(|refusal| refusal.code == NOT_NEEDED) {
                continue;
            }
            let (code, message) = told(&result);
            partitions.push(
                PartitionResult::default().with_partition_id(number).with_error_code(code).with_error_message(message),
            );
        }
        if !all || !partitions.is_empty() {
            results.push(ReplicaElectionResult::default().with_topic(topic).with_partition_result(partitions));
        }
    }
    ElectLeadersResponse::default().with_replica_election_results(results)
}

fn every_partition(call: &Call) -> Vec<(TopicName, Vec<i32>)> {
    let mut all = Vec::new();
    for topic in call.parts().view.topics() {
        all.push((topic_name(&topic.name), (0..i32::try_from(topic.partitions).unwrap_or(i32::MAX)).collect()));
    }
    all
}

async fn elect(call: &Call, kind: i8, (topic, number): (&str, i32), within: Duration) -> Result<(), Refusal> {
    call.authorize(Verb::Operate, Resource::Topic(topic))?;
    let (_, id) = call.parts().locate(topic, partition_number(number)?)?;
    let known = call.parts().view.state(id);
    let state = known.ok_or_else(|| Error::new(ErrorCode::NoLeader, "the partition is being created"))?.state;
    let (topic, partition, who) = (topic.to_owned(), id.partition, admin::who(call));
    match kind {
        PREFERRED => {
            if preferred(&state) == state.leader.map(|leader| leader.broker) {
                return Err(refused(NOT_NEEDED, "the preferred replica leads"));
            }
            let request = v1::ElectPreferredRequest { topic, partition, who };
            admin::elect_preferred(call, request, within).await.map_err(|error| match error.code {
                ErrorCode::ReplicaNotAvailable => Refusal { code: NO_PREFERRED, error },
                _ => error.into(),
            })
        }
        UNCLEAN => {
            if state.leader.is_some_and(|leader| is_live(call, leader.broker)) {
                return Err(refused(NOT_NEEDED, "the partition has a leader"));
            }
            let Some(broker) = survivor(call, &state) else {
                return Err(refused(NOBODY_LEFT, "no broker with a copy is alive"));
            };
            let (broker, accept_data_loss) = (broker.0, true);
            let request = v1::ElectUncleanRequest { topic, partition, broker, accept_data_loss, who };
            Ok(admin::elect_unclean(call, request, within).await?)
        }
        other => Err(Refusal::invalid(format!("there is no election of kind {other}"))),
    }
}

fn refused(code: i16, cause: &str) -> Refusal {
    Refusal { code, error: Error::new(ErrorCode::InvalidRequest, cause) }
}

/// The first of those that keep their copy.
fn preferred(state: &PartitionState) -> Option<BrokerId> {
    let assignment = &state.assignment;
    assignment.replicas.iter().copied().find(|broker| !assignment.removing.contains(broker))
}

fn is_live(call: &Call, broker: BrokerId) -> bool {
    call.parts().view.brokers().brokers.contains_key(&broker) && !call.parts().env.borrow().is_gone(broker)
}

/// A live broker with a copy; one that was in sync if there is one.
fn survivor(call: &Call, state: &PartitionState) -> Option<BrokerId> {
    let in_sync: BTreeSet<BrokerId> = state.isr.iter().map(|member| member.broker).collect();
    let live: Vec<BrokerId> =
        state.assignment.replicas.iter().copied().filter(|broker| is_live(call, *broker)).collect();
    live.iter().find(|broker| in_sync.contains(broker)).or_else(|| live.first()).copied()
}
