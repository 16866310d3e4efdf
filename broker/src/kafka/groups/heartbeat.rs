//! Heartbeat: a member is alive, and hears whether its group changes.

use kafka_protocol::messages::{HeartbeatRequest, HeartbeatResponse};

use super::{allowed, code_of, identity};
use crate::authorizer::Verb;
use crate::kafka::service::Call;

pub(in crate::kafka) async fn serve(call: &Call, request: HeartbeatRequest) -> HeartbeatResponse {
    let result = match allowed(call, Verb::Fetch, &request.group_id) {
        Ok(()) => {
            let identity = identity(&request.member_id, request.group_instance_id.as_ref());
            let groups = &call.parts().groups;
            groups.heartbeat(&request.group_id, identity, request.generation_id, call.context.deadline).await
        }
        Err(error) => Err(error),
    };
    HeartbeatResponse::default().with_error_code(result.err().map_or(0, |error| code_of(&error)))
}
