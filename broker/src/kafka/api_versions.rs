//! ApiVersions: what this broker serves.

use kafka_protocol::messages::ApiVersionsRequest;
use kafka_protocol::messages::api_versions_response::{
    ApiVersion, ApiVersionsResponse, FinalizedFeatureKey, SupportedFeatureKey,
};
use kafka_protocol::protocol::StrBytes;

use super::errors;
use super::service::{Answer, Call, Hangup, encode};
use super::table::APIS;

/// The feature by which clients know that the producer's epoch rises with every transaction
/// (KIP-890).
const TRANSACTIONS: &str = "transaction.version";
const TRANSACTIONS_VERSION: i16 = 2;

pub(super) async fn serve(_call: &Call, _request: ApiVersionsRequest) -> ApiVersionsResponse {
    response()
}

fn response() -> ApiVersionsResponse {
    let version = |api: &super::table::Api| {
        ApiVersion::default().with_api_key(api.key).with_min_version(api.advertised_min).with_max_version(api.max)
    };
    ApiVersionsResponse::default()
        .with_api_keys(APIS.iter().map(version).collect())
        .with_supported_features(vec![
            SupportedFeatureKey::default()
                .with_name(StrBytes::from_static_str(TRANSACTIONS))
                .with_min_version(0)
                .with_max_version(TRANSACTIONS_VERSION),
        ])
        .with_finalized_features_epoch(0)
        .with_finalized_features(vec![
            FinalizedFeatureKey::default()
                .with_name(StrBytes::from_static_str(TRANSACTIONS))
                .with_min_version_level(TRANSACTIONS_VERSION)
                .with_max_version_level(TRANSACTIONS_VERSION),
        ])
}

/// A client that asks in a version of the future: the answer is one that every client reads,
/// and says what to ask instead (KIP-511).
pub(super) fn unsupported(correlation: i32) -> Result<Answer, Hangup> {
    let response = response().with_error_code(errors::UNSUPPORTED_VERSION);
    encode(correlation, false, &response, 0).map(Answer::Now)
}
