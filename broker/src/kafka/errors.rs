//! Kafka's error codes: clients act on them, so each has to be the one that Kafka gives.

use baton_core::{Error, ErrorCode};
use kafka_protocol::protocol::StrBytes;

pub(super) const NONE: i16 = 0;
pub(super) const LEADER_NOT_AVAILABLE: i16 = 5;
pub(super) const INVALID_REQUIRED_ACKS: i16 = 21;
pub(super) const CLUSTER_AUTHORIZATION_FAILED: i16 = 31;
pub(super) const UNSUPPORTED_VERSION: i16 = 35;
pub(super) const INVALID_REPLICA_ASSIGNMENT: i16 = 39;
pub(super) const TRANSACTIONAL_ID_AUTHORIZATION_FAILED: i16 = 53;
pub(super) const FETCH_SESSION_ID_NOT_FOUND: i16 = 70;
pub(super) const OFFSET_NOT_AVAILABLE: i16 = 78;
pub(super) const INVALID_RECORD: i16 = 87;
pub(super) const UNKNOWN_TOPIC_ID: i16 = 100;

/// The code of a refused batch: what is of an older format breaks the rule that a request has
/// one batch of the newest.
pub(super) fn of_batch(error: &Error) -> i16 {
    match error.code {
        ErrorCode::UnsupportedFormat => INVALID_RECORD,
        code => code.kafka(),
    }
}

/// The error's text, as far as a client may show it.
pub(super) fn message(error: &Error) -> Option<StrBytes> {
    Some(StrBytes::from_string(error.cause.clone()))
}

/// The code of what an administrator asked for.
pub(super) fn of_admin(error: &Error) -> i16 {
    match error.code {
        // The only brokers that such requests name are those that are to hold replicas.
        ErrorCode::UnknownBroker => INVALID_REPLICA_ASSIGNMENT,
        code => code.kafka(),
    }
}
