//! JoinGroup: a member wants to be in the next generation; answered when that begins.

use baton_core::group::message::{Join, Joined, Protocol};
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::{JoinGroupRequest, JoinGroupResponse};

use super::{allowed, code_of, identity, wire_text};
use crate::authorizer::Verb;
use crate::group::JoinRefused;
use crate::kafka::names::text;
use crate::kafka::service::Call;

/// A member without an id has to come again with the one that it is given (KIP-394).
const KNOWS_ID: i16 = 4;
/// The protocol's name may be missing.
const NULL_PROTOCOL: i16 = 7;
/// The client understands that its assignment may stay as it is (KIP-814).
const MAY_SKIP: i16 = 9;

pub(in crate::kafka) async fn serve(call: &Call, request: JoinGroupRequest) -> JoinGroupResponse {
    let member = request.member_id.to_string();
    let joined = match allowed(call, Verb::Fetch, &request.group_id) {
        Err(error) => Err(JoinRefused { error, member }),
        Ok(()) => join(call, request).await,
    };
    match joined {
        Ok(joined) => answer(joined),
        Err(JoinRefused { error, member }) => {
            let nothing = (call.version < NULL_PROTOCOL).then(|| text(""));
            JoinGroupResponse::default()
                .with_error_code(code_of(&error))
                .with_generation_id(-1)
                .with_protocol_type(None)
                .with_protocol_name(nothing)
                .with_member_id(text(&member))
        }
    }
}

async fn join(call: &Call, request: JoinGroupRequest) -> Result<Joined, JoinRefused> {
    let session_ms = u32::try_from(request.session_timeout_ms).unwrap_or(0);
    // The first version has one time for both.
    let rebalance_ms = u32::try_from(request.rebalance_timeout_ms).unwrap_or(session_ms);
    let protocol = |p: kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol| Protocol {
        name: p.name.to_string(),
        metadata: p.metadata,
    };
    let join = Join {
        identity: identity(&request.member_id, request.group_instance_id.as_ref()),
        client_id: call.context.client_id.to_string(),
        client_host: call.context.peer.map_or_else(String::new, |peer| format!("/{}", peer.ip())),
        session_ms,
        rebalance_ms,
        protocol_type: request.protocol_type.to_string(),
        protocols: request.protocols.into_iter().map(protocol).collect(),
        // The coordinator fills it in.
        fresh_id: String::new(),
        must_know_id: call.version >= KNOWS_ID,
        may_skip_assignment: call.version >= MAY_SKIP,
    };
    let deadline = call.rebalance_deadline(rebalance_ms.max(session_ms));
    call.parts().groups.join(&request.group_id, join, deadline).await
}

fn answer(joined: Joined) -> JoinGroupResponse {
    let member = |(id, instance, metadata): (String, Option<String>, bytes::Bytes)| {
        JoinGroupResponseMember::default()
            .with_member_id(text(&id))
            .with_group_instance_id(wire_text(instance.as_ref()))
            .with_metadata(metadata)
    };
    JoinGroupResponse::default()
        .with_generation_id(joined.generation)
        .with_protocol_type(Some(text(&joined.protocol_type)))
        .with_protocol_name(Some(text(&joined.protocol)))
        .with_leader(text(&joined.leader))
        .with_skip_assignment(joined.skip_assignment)
        .with_member_id(text(&joined.member))
        .with_members(joined.members.into_iter().map(member).collect())
}
