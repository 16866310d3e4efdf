//! The errors that every interface shows: a stable code, the cause, what it concerns, whether
//! a retry helps, and the next step.

use std::fmt;

macro_rules! codes {
    ($($name:ident = $number:literal, $text:literal, $kafka:literal, $retry:literal, $next:literal;)*) => {
        /// What went wrong, as a number and a name that never change their meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum ErrorCode { $(#[doc = $next] $name,)* }

        impl ErrorCode {
            /// Every code, for tables in docs and tests.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The number that gRPC carries.
            #[must_use]
            pub fn number(self) -> u32 { match self { $(Self::$name => $number,)* } }

            /// The stable name, as shown to people and in JSON.
            #[must_use]
            pub fn name(self) -> &'static str { match self { $(Self::$name => $text,)* } }

            /// The code that a Kafka client understands.
            #[must_use]
            pub fn kafka(self) -> i16 { match self { $(Self::$name => $kafka,)* } }

            /// Whether the same request may succeed later, unchanged.
            #[must_use]
            pub fn retriable(self) -> bool { match self { $(Self::$name => $retry,)* } }

            /// What the caller should do next.
            #[must_use]
            pub fn next_step(self) -> &'static str { match self { $(Self::$name => $next,)* } }

            /// The code with this number, if there is one.
            #[must_use]
            pub fn from_number(number: u32) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }
        }
    };
}

codes! {
    Internal = 1, "INTERNAL", -1, false, "report it with the broker's log";
    UnknownTopic = 2, "UNKNOWN_TOPIC", 3, false, "create the topic, or check its name with `baton topic list`";
    UnknownPartition = 3, "UNKNOWN_PARTITION", 3, false, "see the partitions with `baton partition list TOPIC`";
    NotLeader = 4, "NOT_LEADER", 6, true, "send it to the leader that the answer names, or refresh the metadata";
    NoLeader = 5, "NO_LEADER", 5, true, "wait for the election; `baton cluster status` says which replicas are missing";
    NotEnoughReplicas = 6, "NOT_ENOUGH_REPLICAS", 19, true, "bring the missing replicas back; `baton partition list` names them";
    InvalidTopicName = 7, "INVALID_TOPIC_NAME", 17, false, "use 1 to 249 characters out of [a-zA-Z0-9._-], not `.` or `..`, not starting with `__`";
    TopicExists = 8, "TOPIC_EXISTS", 36, false, "choose another name, or use the topic that is there";
    InvalidPartitions = 9, "INVALID_PARTITIONS", 37, false, "ask for at least one partition and no more than the cluster allows";
    InvalidReplication = 10, "INVALID_REPLICATION_FACTOR", 38, false, "ask for no more replicas than there are live brokers, or start more brokers";
    InvalidConfig = 11, "INVALID_CONFIG", 40, false, "correct the key or the value; the README lists all of them";
    InvalidRequest = 12, "INVALID_REQUEST", 42, false, "correct the request";
    CorruptBatch = 13, "CORRUPT_BATCH", 2, true, "send the batch again; if it comes back, look for faulty memory or a faulty network";
    InvalidBatch = 14, "INVALID_BATCH", 87, false, "correct the producer: the batch does not follow the format";
    UnsupportedFormat = 15, "UNSUPPORTED_FORMAT", 43, false, "use message format v2 (magic 2)";
    UnsupportedCompression = 16, "UNSUPPORTED_COMPRESSION", 76, false, "use gzip, snappy, lz4, zstd or none";
    BatchTooLarge = 17, "BATCH_TOO_LARGE", 10, false, "send smaller batches, or raise the topic's `max.message.bytes`";
    OffsetOutOfRange = 18, "OFFSET_OUT_OF_RANGE", 1, false, "seek to the start or the end of the partition";
    OffsetNotAvailable = 19, "OFFSET_NOT_AVAILABLE", 78, true, "ask again: a new leader does not know its high watermark yet";
    OutOfOrderSequence = 20, "OUT_OF_ORDER_SEQUENCE", 45, false, "a batch before this one was lost: the producer has to start anew";
    InvalidProducerEpoch = 21, "INVALID_PRODUCER_EPOCH", 47, false, "a newer producer with this id is running; this one has to stop";
    UnknownProducer = 22, "UNKNOWN_PRODUCER", 59, false, "take a new producer id";
    DuplicateSequence = 23, "DUPLICATE_SEQUENCE", 46, false, "nothing: the batch is stored already";
    FencedEpoch = 24, "FENCED_LEADER_EPOCH", 74, true, "refresh the metadata: there is a newer leader";
    UnknownEpoch = 25, "UNKNOWN_LEADER_EPOCH", 75, true, "ask again: this broker has not heard of that epoch yet";
    DiskFull = 26, "DISK_FULL", 56, true, "free space on the broker's disk, or lower the retention; reading goes on";
    Storage = 27, "STORAGE_ERROR", 56, true, "look at the broker's log; the other replicas take over";
    Throttled = 28, "THROTTLED", 89, true, "wait for the time that the answer names";
    RequestTimedOut = 29, "REQUEST_TIMED_OUT", 7, true, "try again; an idempotent producer's record is stored once whatever the outcome was";
    NoCoordinator = 30, "NO_COORDINATOR", 15, true, "start a coordinator (`baton coordinator`), or wait for its election";
    FencedCoordinator = 31, "FENCED_COORDINATOR", 41, true, "try again: another coordinator has taken over";
    RegistryUnavailable = 32, "REGISTRY_UNAVAILABLE", 13, true, "bring ZooKeeper back; producing and consuming go on meanwhile";
    Unauthorized = 33, "UNAUTHORIZED", 29, false, "ask an administrator for the permission";
    FrameTooLarge = 34, "FRAME_TOO_LARGE", 10, false, "send less in one request";
    ShuttingDown = 35, "SHUTTING_DOWN", 6, true, "send it to another broker: this one is stopping";
    Unreachable = 36, "UNREACHABLE", 13, true, "check the address and that the broker is running";
    KeysWouldMove = 37, "KEYS_WOULD_MOVE", 37, false, "repeat it with the flag that accepts that keys move to other partitions";
    ReplicaNotAvailable = 38, "REPLICA_NOT_AVAILABLE", 9, true, "ask again: the replica is being set up";
    PartitionHalted = 39, "PARTITION_HALTED", 56, false, "the copy on this broker contradicts itself: read its log, then let an operator decide";
    UnknownBroker = 40, "UNKNOWN_BROKER", 3, false, "see the brokers with `baton cluster status`";
    ReassignmentInProgress = 41, "REASSIGNMENT_IN_PROGRESS", 60, true, "wait until it is finished: `baton partition list` shows it";
    PolicyViolation = 42, "POLICY_VIOLATION", 44, false, "do what the message names";
    WrongCluster = 43, "WRONG_CLUSTER", 104, false, "point the broker at its own cluster, or give it an empty data directory";
    CoordinatorLoading = 44, "COORDINATOR_LOAD_IN_PROGRESS", 14, true, "ask again: the group's coordinator is reading its state";
    CoordinatorUnavailable = 45, "COORDINATOR_NOT_AVAILABLE", 15, true, "ask again: the group's coordinator cannot store anything at the moment";
    NotCoordinator = 46, "NOT_COORDINATOR", 16, true, "find the group's coordinator again: another broker is it";
    IllegalGeneration = 47, "ILLEGAL_GENERATION", 22, false, "join the group again: it has another generation";
    InconsistentProtocol = 48, "INCONSISTENT_GROUP_PROTOCOL", 23, false, "use an assignment strategy that all members of the group know";
    InvalidGroupId = 49, "INVALID_GROUP_ID", 24, false, "name the group, with at most 249 characters";
    UnknownMember = 50, "UNKNOWN_MEMBER_ID", 25, false, "join the group again as a new member";
    InvalidSessionTimeout = 51, "INVALID_SESSION_TIMEOUT", 26, false, "ask for a session within the limits that the message names";
    RebalanceInProgress = 52, "REBALANCE_IN_PROGRESS", 27, false, "join the group again: its partitions are being divided anew";
    OffsetMetadataTooLarge = 53, "OFFSET_METADATA_TOO_LARGE", 12, false, "keep less text beside the offset";
    GroupNotEmpty = 54, "NON_EMPTY_GROUP", 68, false, "stop the group's members first";
    GroupNotFound = 55, "GROUP_ID_NOT_FOUND", 69, false, "see the groups with `baton group list`";
    MemberIdRequired = 56, "MEMBER_ID_REQUIRED", 79, false, "join again with the member id that the answer names";
    GroupFull = 57, "GROUP_MAX_SIZE_REACHED", 81, false, "run fewer members, or raise the limit of a group's size";
    FencedInstance = 58, "FENCED_INSTANCE_ID", 82, false, "stop this member: another one with its instance id has taken its place";
    GroupSubscribed = 59, "GROUP_SUBSCRIBED_TO_TOPIC", 86, false, "stop the members that are subscribed to the topic first";
    UnstableOffset = 60, "UNSTABLE_OFFSET_COMMIT", 88, true, "ask again: a transaction is about to change the offset";
    ConnectionReplaced = 61, "CONNECTION_REPLACED", 13, true, "send it again on a new connection, if it was not late";
    InvalidTransactionState = 80, "INVALID_TXN_STATE", 48, false, "correct the producer: its transaction is not in a state that allows this";
    InvalidProducerMapping = 81, "INVALID_PRODUCER_ID_MAPPING", 49, false, "initialise the producer again: its transactional id has another producer id";
    InvalidTransactionTimeout = 82, "INVALID_TRANSACTION_TIMEOUT", 50, false, "ask for a transaction time-out within the limit that the message names";
    ConcurrentTransactions = 83, "CONCURRENT_TRANSACTIONS", 51, true, "ask again: the transaction before this one is still being ended";
    TransactionCoordinatorFenced = 84, "TRANSACTION_COORDINATOR_FENCED", 52, false, "nothing: a newer coordinator of the transaction has taken over";
    ProducerFenced = 85, "PRODUCER_FENCED", 90, false, "stop this producer: another one with its transactional id has taken its place";
    TransactionalIdNotFound = 86, "TRANSACTIONAL_ID_NOT_FOUND", 105, false, "see the transactional ids that are in use";
    TransactionAbortable = 87, "TRANSACTION_ABORTABLE", 120, false, "abort the transaction, and try it again";
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A code with its cause and the place that it concerns.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {cause}{}", Place(self))]
pub struct Error {
    pub code: ErrorCode,
    /// One sentence: what was found and what was expected.
    pub cause: String,
    pub topic: Option<String>,
    pub partition: Option<u32>,
    pub epoch: Option<u32>,
}

impl Error {
    #[must_use]
    pub fn new(code: ErrorCode, cause: impl Into<String>) -> Self {
        Self { code, cause: cause.into(), topic: None, partition: None, epoch: None }
    }

    #[must_use]
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.topic = Some(topic.into());
        self
    }

    #[must_use]
    pub fn partition(mut self, partition: u32) -> Self {
        self.partition = Some(partition);
        self
    }

    #[must_use]
    pub fn epoch(mut self, epoch: u32) -> Self {
        self.epoch = Some(epoch);
        self
    }
}

struct Place<'a>(&'a Error);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Error { topic, partition, epoch, .. } = self.0;
        if let Some(topic) = topic {
            write!(f, " [topic {topic}")?;
            if let Some(partition) = partition {
                write!(f, ", partition {partition}")?;
            }
            if let Some(epoch) = epoch {
                write!(f, ", leader epoch {epoch}")?;
            }
            f.write_str("]")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn numbers_and_names_are_unique_and_round_trip() {
        let numbers: BTreeSet<_> = ErrorCode::ALL.iter().map(|c| c.number()).collect();
        let names: BTreeSet<_> = ErrorCode::ALL.iter().map(|c| c.name()).collect();
        assert_eq!(numbers.len(), ErrorCode::ALL.len());
        assert_eq!(names.len(), ErrorCode::ALL.len());
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_number(code.number()), Some(*code));
            assert!(!code.next_step().is_empty());
        }
        assert_eq!(ErrorCode::from_number(0), None);
    }

    #[test]
    fn the_message_names_the_place() {
        let error = Error::new(ErrorCode::NotLeader, "broker 2 leads").topic("t").partition(3).epoch(9);
        assert_eq!(error.to_string(), "NOT_LEADER: broker 2 leads [topic t, partition 3, leader epoch 9]");
    }
}
