//! DeleteGroups: groups without members are forgotten, with their offsets.

use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::{DeleteGroupsRequest, DeleteGroupsResponse};

use super::{allowed, code_of, within};
use crate::authorizer::Verb;
use crate::kafka::service::Call;

pub(in crate::kafka) async fn serve(call: &Call, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let mut results = Vec::new();
    for (index, group) in request.groups_names.into_iter().enumerate() {
        let result = match within(index).and_then(|()| allowed(call, Verb::Delete, &group)) {
            Ok(()) => call.parts().groups.delete_group(&group, call.context.deadline).await,
            Err(error) => Err(error),
        };
        let code = result.err().map_or(0, |error| code_of(&error));
        results.push(DeletableGroupResult::default().with_group_id(group).with_error_code(code));
    }
    DeleteGroupsResponse::default().with_results(results)
}
