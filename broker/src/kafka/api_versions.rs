//! ApiVersions: what this broker serves.

use kafka_protocol::messages::ApiVersionsRequest;
use kafka_protocol::messages::api_versions_response::{ApiVersion, ApiVersionsResponse};

use super::errors;
use super::service::{Answer, Call, Hangup, encode};
use super::table::APIS;

pub(super) async fn serve(_call: &Call, _request: ApiVersionsRequest) -> ApiVersionsResponse {
    response()
}

fn response() -> ApiVersionsResponse {
    let version = |api: &super::table::Api| {
        ApiVersion::default().with_api_key(api.key).with_min_version(api.advertised_min).with_max_version(api.max)
    };
    ApiVersionsResponse::default().with_api_keys(APIS.iter().map(version).collect())
}

/// A client that asks in a version of the future: the answer is one that every client reads,
/// and says what to ask instead (KIP-511).
pub(super) fn unsupported(correlation: i32) -> Result<Answer, Hangup> {
    let response = response().with_error_code(errors::UNSUPPORTED_VERSION);
    encode(correlation, false, &response, 0).map(Answer::Now)
}
