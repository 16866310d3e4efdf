//! SyncGroup: a member wants its part; the leader brings everybody's.

use baton_core::Error;
use baton_core::group::message::{Sync, Synced};
use kafka_protocol::messages::{SyncGroupRequest, SyncGroupResponse};

use super::{allowed, code_of, identity};
use crate::authorizer::Verb;
use crate::kafka::names::text;
use crate::kafka::service::Call;

pub(in crate::kafka) async fn serve(call: &Call, request: SyncGroupRequest) -> SyncGroupResponse {
    match sync(call, request).await {
        Ok(synced) => SyncGroupResponse::default()
            .with_protocol_type(Some(text(&synced.protocol_type)))
            .with_protocol_name(Some(text(&synced.protocol)))
            .with_assignment(synced.assignment),
        Err(error) => SyncGroupResponse::default().with_error_code(code_of(&error)),
    }
}

async fn sync(call: &Call, request: SyncGroupRequest) -> Result<Synced, Error> {
    allowed(call, Verb::Fetch, &request.group_id)?;
    let sync = Sync {
        identity: identity(&request.member_id, request.group_instance_id.as_ref()),
        generation: request.generation_id,
        protocol_type: request.protocol_type.map(|name| name.to_string()),
        protocol: request.protocol_name.map(|name| name.to_string()),
        assignments: request.assignments.into_iter().map(|a| (a.member_id.to_string(), a.assignment)).collect(),
    };
    call.parts().groups.sync(&request.group_id, sync, call.rebalance_deadline(0)).await
}
