//! LeaveGroup: a member, or several static ones, leave.

use baton_core::group::message::Identity;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::{LeaveGroupRequest, LeaveGroupResponse};

use super::{allowed, code_of, identity, wire_text};
use crate::authorizer::Verb;
use crate::kafka::names::text;
use crate::kafka::service::Call;

/// The first version that names several.
const SEVERAL: i16 = 3;

pub(in crate::kafka) async fn serve(call: &Call, request: LeaveGroupRequest) -> LeaveGroupResponse {
    let failed = |error| LeaveGroupResponse::default().with_error_code(code_of(&error));
    if let Err(error) = allowed(call, Verb::Fetch, &request.group_id) {
        return failed(error);
    }
    let members: Vec<Identity> = match call.version < SEVERAL {
        true => vec![identity(&request.member_id, None)],
        false => request.members.iter().map(|m| identity(&m.member_id, m.group_instance_id.as_ref())).collect(),
    };
    match call.parts().groups.leave(&request.group_id, members, call.context.deadline).await {
        Err(error) => failed(error),
        Ok(results) if call.version < SEVERAL => {
            let first = results.into_iter().next().and_then(|(_, result)| result.err());
            first.map_or_else(LeaveGroupResponse::default, failed)
        }
        Ok(results) => {
            let mut members = Vec::with_capacity(results.len());
            for (identity, result) in results {
                let member = MemberResponse::default()
                    .with_member_id(text(&identity.member))
                    .with_group_instance_id(wire_text(identity.instance.as_ref()))
                    .with_error_code(result.err().map_or(0, |error| code_of(&error)));
                members.push(member);
            }
            LeaveGroupResponse::default().with_members(members)
        }
    }
}
