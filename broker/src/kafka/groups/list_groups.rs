//! ListGroups: the groups that this broker coordinates.

use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{GroupId, ListGroupsRequest, ListGroupsResponse};
use kafka_protocol::protocol::StrBytes;

use super::{allowed, code_of};
use crate::authorizer::Verb;
use crate::kafka::names::text;
use crate::kafka::service::Call;

/// The first version that tells the state.
const TELLS_STATE: i16 = 4;
/// The first version that tells the type.
const TELLS_TYPE: i16 = 5;

/// The type of all groups that there are.
const TYPE: &str = "classic";

pub(in crate::kafka) async fn serve(call: &Call, request: ListGroupsRequest) -> ListGroupsResponse {
    let (listed, problem) = call.parts().groups.list(call.context.deadline).await;
    let mut groups = Vec::with_capacity(listed.len());
    for group in listed {
        let wanted = passes(&request.states_filter, group.state) && passes(&request.types_filter, TYPE);
        if !wanted || allowed(call, Verb::Describe, &group.group).is_err() {
            continue;
        }
        let mut line = ListedGroup::default()
            .with_group_id(GroupId(text(&group.group)))
            .with_protocol_type(text(&group.protocol_type));
        if call.version >= TELLS_STATE {
            line = line.with_group_state(text(group.state));
        }
        if call.version >= TELLS_TYPE {
            line = line.with_group_type(text(TYPE));
        }
        groups.push(line);
    }
    ListGroupsResponse::default().with_error_code(problem.map_or(0, |error| code_of(&error))).with_groups(groups)
}

/// An empty filter lets everything pass.
fn passes(filter: &[StrBytes], value: &str) -> bool {
    filter.is_empty() || filter.iter().any(|wanted| wanted.eq_ignore_ascii_case(value))
}
