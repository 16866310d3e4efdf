//! DescribeGroups: the state and the members of groups.

use baton_core::group::{GroupDescription, MemberDescription};
use baton_core::{Error, ErrorCode};
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::{DescribeGroupsRequest, DescribeGroupsResponse};

use super::{allowed, code_of, wire_text, within};
use crate::authorizer::Verb;
use crate::kafka::errors;
use crate::kafka::names::text;
use crate::kafka::service::Call;

/// The first version in which a group that is not there is an error (KIP-1043).
const NOT_FOUND: i16 = 6;

pub(in crate::kafka) async fn serve(call: &Call, request: DescribeGroupsRequest) -> DescribeGroupsResponse {
    let mut groups = Vec::new();
    for (index, group) in request.groups.into_iter().enumerate() {
        let found = match within(index).and_then(|()| allowed(call, Verb::Describe, &group)) {
            Ok(()) => call.parts().groups.describe(&group, call.context.deadline).await,
            Err(error) => Err(error),
        };
        groups.push(described(call, found).with_group_id(group));
    }
    DescribeGroupsResponse::default().with_groups(groups)
}

fn described(call: &Call, found: Result<Option<GroupDescription>, Error>) -> DescribedGroup {
    match found {
        Ok(Some(group)) => DescribedGroup::default()
            .with_group_state(text(group.state))
            .with_protocol_type(text(&group.protocol_type))
            .with_protocol_data(text(&group.protocol))
            .with_members(group.members.into_iter().map(member).collect()),
        Ok(None) => {
            let dead = DescribedGroup::default().with_group_state(text("Dead"));
            if call.version < NOT_FOUND {
                return dead;
            }
            dead.with_error_code(ErrorCode::GroupNotFound.kafka())
                .with_error_message(Some(text("there is no such group")))
        }
        Err(error) => {
            let failed = DescribedGroup::default().with_error_code(code_of(&error));
            if call.version < NOT_FOUND { failed } else { failed.with_error_message(errors::message(&error)) }
        }
    }
}

fn member(member: MemberDescription) -> DescribedGroupMember {
    DescribedGroupMember::default()
        .with_member_id(text(&member.member))
        .with_group_instance_id(wire_text(member.instance.as_ref()))
        .with_client_id(text(&member.client_id))
        .with_client_host(text(&member.client_host))
        .with_member_metadata(member.metadata)
        .with_member_assignment(member.assignment)
}
