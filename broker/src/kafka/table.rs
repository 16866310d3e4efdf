//! Every API that is served, with its versions: the only source of what clients are told, of
//! the table in the documentation, and of who serves a request.
//!
//! Versions are capped at what is tested, not at what the messages' types know: Produce 12,
//! TxnOffsetCommit 5 and EndTxn 5 are transactions of the second kind (KIP-890), Produce 13 and
//! later versions of others name topics by id only.

use bytes::Bytes;
use futures::future::BoxFuture;
use kafka_protocol::messages as m;
use kafka_protocol::protocol::Decodable;

use super::guard::layout::Layout;
use super::guard::{Malformed, check, layouts};
use super::service::{Answer, Call, Hangup, decode};
use super::{
    api_versions, delete_records, describe_cluster, describe_log_dirs, fetch, groups, init_producer_id, list_offsets,
    metadata, offset_for_leader_epoch, produce, topics, transactions,
};

type Serve = fn(Call, Bytes) -> BoxFuture<'static, Result<Answer, Hangup>>;

/// One API.
pub struct Api {
    pub key: i16,
    pub name: &'static str,
    /// The versions that are served.
    pub min: i16,
    pub max: i16,
    /// The lowest version that clients are told.
    pub advertised_min: i16,
    pub layout: &'static Layout,
    pub(super) serve: Serve,
    /// Decodes a request as it is and drops it: bytes left over.
    decode: fn(&mut Bytes, i16) -> Result<(), String>,
}

macro_rules! apis {
    ($($key:literal $name:literal [$min:literal $max:literal] $layout:ident $request:ident $serve:expr;)*) => {
        /// Every API, by key.
        pub const APIS: &[Api] = &[$(Api {
            key: $key,
            name: $name,
            min: $min,
            max: $max,
            // librdkafka before 2.1 compresses only for brokers that serve Produce 0.
            advertised_min: if $key == 0 { 0 } else { $min },
            layout: &layouts::$layout,
            serve: $serve,
            decode: |body, version| m::$request::decode(body, version).map(drop).map_err(|error| error.to_string()),
        },)*];
    };
}

/// A request that is answered before the next one is looked at.
macro_rules! plain {
    ($serve:path) => {
        |call, body| {
            Box::pin(async move {
                let request = decode(call.api, call.version, body)?;
                let response = $serve(&call, request).await;
                call.answer(&response)
            })
        }
    };
}

/// The same for one that must not come behind its repetition: whoever asks on a connection that
/// it has replaced is hung up on.
macro_rules! ordered {
    ($serve:path) => {
        |call, body| {
            Box::pin(async move {
                let request = decode(call.api, call.version, body)?;
                let response = $serve(&call, request).await?;
                call.answer(&response)
            })
        }
    };
}

apis! {
    0 "Produce" [3 12] PRODUCE ProduceRequest |call, body| Box::pin(produce::begin(call, body));
    1 "Fetch" [4 16] FETCH FetchRequest |call, body| Box::pin(fetch::begin(call, body));
    2 "ListOffsets" [1 7] LIST_OFFSETS ListOffsetsRequest plain!(list_offsets::serve);
    3 "Metadata" [0 12] METADATA MetadataRequest |call, body| Box::pin(metadata::begin(call, body));
    8 "OffsetCommit" [2 9] OFFSET_COMMIT OffsetCommitRequest ordered!(groups::offset_commit);
    9 "OffsetFetch" [1 9] OFFSET_FETCH OffsetFetchRequest plain!(groups::offset_fetch);
    10 "FindCoordinator" [0 5] FIND_COORDINATOR FindCoordinatorRequest plain!(groups::find_coordinator);
    11 "JoinGroup" [0 9] JOIN_GROUP JoinGroupRequest plain!(groups::join_group);
    12 "Heartbeat" [0 4] HEARTBEAT HeartbeatRequest plain!(groups::heartbeat);
    13 "LeaveGroup" [0 5] LEAVE_GROUP LeaveGroupRequest plain!(groups::leave_group);
    14 "SyncGroup" [0 5] SYNC_GROUP SyncGroupRequest plain!(groups::sync_group);
    15 "DescribeGroups" [0 6] DESCRIBE_GROUPS DescribeGroupsRequest plain!(groups::describe_groups);
    16 "ListGroups" [0 5] LIST_GROUPS ListGroupsRequest plain!(groups::list_groups);
    18 "ApiVersions" [0 4] API_VERSIONS ApiVersionsRequest plain!(api_versions::serve);
    19 "CreateTopics" [2 7] CREATE_TOPICS CreateTopicsRequest plain!(topics::create_topics);
    20 "DeleteTopics" [1 6] DELETE_TOPICS DeleteTopicsRequest plain!(topics::delete_topics);
    21 "DeleteRecords" [0 2] DELETE_RECORDS DeleteRecordsRequest plain!(delete_records::serve);
    22 "InitProducerId" [0 5] INIT_PRODUCER_ID InitProducerIdRequest ordered!(init_producer_id::serve);
    23 "OffsetForLeaderEpoch" [2 4] OFFSET_FOR_LEADER_EPOCH OffsetForLeaderEpochRequest plain!(offset_for_leader_epoch::serve);
    24 "AddPartitionsToTxn" [0 5] ADD_PARTITIONS_TO_TXN AddPartitionsToTxnRequest ordered!(transactions::add_partitions);
    25 "AddOffsetsToTxn" [0 4] ADD_OFFSETS_TO_TXN AddOffsetsToTxnRequest ordered!(transactions::add_offsets);
    26 "EndTxn" [0 5] END_TXN EndTxnRequest ordered!(transactions::end);
    27 "WriteTxnMarkers" [1 1] WRITE_TXN_MARKERS WriteTxnMarkersRequest plain!(transactions::write_markers);
    28 "TxnOffsetCommit" [0 5] TXN_OFFSET_COMMIT TxnOffsetCommitRequest ordered!(transactions::commit_offsets);
    32 "DescribeConfigs" [1 4] DESCRIBE_CONFIGS DescribeConfigsRequest plain!(topics::describe_configs);
    33 "AlterConfigs" [0 2] ALTER_CONFIGS AlterConfigsRequest plain!(topics::alter_configs);
    35 "DescribeLogDirs" [1 4] DESCRIBE_LOG_DIRS DescribeLogDirsRequest plain!(describe_log_dirs::serve);
    37 "CreatePartitions" [0 3] CREATE_PARTITIONS CreatePartitionsRequest plain!(topics::create_partitions);
    42 "DeleteGroups" [0 2] DELETE_GROUPS DeleteGroupsRequest plain!(groups::delete_groups);
    43 "ElectLeaders" [0 2] ELECT_LEADERS ElectLeadersRequest plain!(topics::elect_leaders);
    44 "IncrementalAlterConfigs" [0 1] INCREMENTAL_ALTER_CONFIGS IncrementalAlterConfigsRequest plain!(topics::incremental_alter_configs);
    45 "AlterPartitionReassignments" [0 0] ALTER_PARTITION_REASSIGNMENTS AlterPartitionReassignmentsRequest plain!(topics::alter_partition_reassignments);
    46 "ListPartitionReassignments" [0 0] LIST_PARTITION_REASSIGNMENTS ListPartitionReassignmentsRequest plain!(topics::list_partition_reassignments);
    47 "OffsetDelete" [0 0] OFFSET_DELETE OffsetDeleteRequest plain!(groups::offset_delete);
    60 "DescribeCluster" [0 1] DESCRIBE_CLUSTER DescribeClusterRequest plain!(describe_cluster::serve);
    61 "DescribeProducers" [0 0] DESCRIBE_PRODUCERS DescribeProducersRequest plain!(transactions::describe_producers);
    65 "DescribeTransactions" [0 0] DESCRIBE_TRANSACTIONS DescribeTransactionsRequest plain!(transactions::describe);
    66 "ListTransactions" [0 1] LIST_TRANSACTIONS ListTransactionsRequest plain!(transactions::list);
    75 "DescribeTopicPartitions" [0 0] DESCRIBE_TOPIC_PARTITIONS DescribeTopicPartitionsRequest plain!(topics::describe_topic_partitions);
}

/// The key of the one request that every version of which is answered.
pub(super) const API_VERSIONS: i16 = 18;

/// The table of APIs as Markdown, for the documentation.
#[must_use]
pub fn render_apis() -> String {
    let mut text = String::from("| key | API | versions |\n|---|---|---|\n");
    for api in APIS {
        text.push_str(&format!("| {} | {} | {} |\n", api.key, api.name, api.versions()));
    }
    text
}

impl Api {
    /// The versions that clients are told, and those of them that are served.
    fn versions(&self) -> String {
        let told = match (self.advertised_min, self.max) {
            (min, max) if min == max => min.to_string(),
            (min, max) => format!("{min} to {max}"),
        };
        if self.advertised_min == self.min { told } else { format!("{told} (served from {})", self.min) }
    }

    /// The API with this key.
    #[must_use]
    pub fn find(key: i16) -> Option<&'static Self> {
        APIS.binary_search_by_key(&key, |api| api.key).ok().map(|index| &APIS[index])
    }

    #[must_use]
    pub fn serves(&self, version: i16) -> bool {
        (self.min..=self.max).contains(&version)
    }

    /// Whether the header of its response may have tagged fields. That of ApiVersions never
    /// has: a client that knows nothing of the broker has to be able to read it.
    #[must_use]
    pub fn flexible_response(&self, version: i16) -> bool {
        self.key != API_VERSIONS && self.layout.is_flexible(version)
    }

    /// Where the guard and the decoder think that a request ends; for tests and the fuzzer.
    ///
    /// # Errors
    /// What the guard says against the request; else what the decoder says.
    pub fn measure(&self, version: i16, body: &Bytes) -> Result<(usize, Result<usize, String>), Malformed> {
        let walked = check(self.layout, version, body)?;
        let mut rest = body.clone();
        let decoded = (self.decode)(&mut rest, version).map(|()| body.len() - rest.len());
        Ok((walked, decoded))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_its_versions_are_ranges() {
        assert!(APIS.is_sorted_by(|a, b| a.key < b.key));
        for api in APIS {
            assert!(api.min <= api.max && api.advertised_min <= api.min, "{}", api.name);
            assert_eq!(Api::find(api.key).map(|found| found.name), Some(api.name));
        }
        assert!(Api::find(4).is_none() && Api::find(-1).is_none() && Api::find(i16::MAX).is_none());
    }
}
