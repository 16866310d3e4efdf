//! FindCoordinator: which broker a group's members speak to.

use std::time::Duration;

use baton_core::{Error, ErrorCode};
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{FindCoordinatorRequest, FindCoordinatorResponse};
use kafka_protocol::protocol::StrBytes;
use tokio::time::Instant;

use super::{allowed, code_of, within};
use crate::authorizer::Verb;
use crate::kafka::address::{NOBODY, Node};
use crate::kafka::errors;
use crate::kafka::names::text;
use crate::kafka::service::Call;
use crate::kafka::transactions;

const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;

/// The first version that asks for several.
const SEVERAL: i16 = 4;

/// How long the question waits for an election, or for the groups' topic to be made: shorter
/// than clients wait for an answer.
const FOUND_WITHIN: Duration = Duration::from_secs(5);

pub(in crate::kafka) async fn serve(call: &Call, request: FindCoordinatorRequest) -> FindCoordinatorResponse {
    let deadline = Instant::now() + FOUND_WITHIN;
    if call.version < SEVERAL {
        let found = find(call, &request.key, request.key_type, deadline).await;
        let one = coordinator(request.key, found);
        return FindCoordinatorResponse::default()
            .with_error_code(one.error_code)
            .with_error_message(one.error_message)
            .with_node_id(one.node_id)
            .with_host(one.host)
            .with_port(one.port);
    }
    let mut coordinators = Vec::new();
    for (index, key) in request.coordinator_keys.into_iter().enumerate() {
        let found = match within(index) {
            Ok(()) => find(call, &key, request.key_type, deadline).await,
            Err(error) => Err(error.into()),
        };
        coordinators.push(coordinator(key, found));
    }
    FindCoordinatorResponse::default().with_error_message(None).with_coordinators(coordinators)
}

struct Refusal {
    code: i16,
    error: Error,
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self { code: code_of(&error), error }
    }
}

async fn find(call: &Call, key: &str, key_type: i8, deadline: Instant) -> Result<Node, Refusal> {
    let broker = match key_type {
        GROUP => {
            allowed(call, Verb::Describe, key)?;
            call.parts().groups.coordinator_of(key, deadline).await?
        }
        TRANSACTION => {
            transactions::allowed(call, key)
                .map_err(|error| Refusal { code: errors::TRANSACTIONAL_ID_AUTHORIZATION_FAILED, error })?;
            call.parts().transactions.coordinator_of(key, deadline).await?
        }
        other => return Err(Error::new(ErrorCode::InvalidRequest, format!("no coordinator is of type {other}")).into()),
    };
    let unknown = || {
        let cause = format!("broker {broker}, which coordinates it, has no address for this client");
        Error::new(ErrorCode::CoordinatorUnavailable, cause)
    };
    Ok(call.service.node(broker).ok_or_else(unknown)?)
}

fn coordinator(key: StrBytes, found: Result<Node, Refusal>) -> Coordinator {
    let coordinator = Coordinator::default().with_key(key);
    match found {
        Ok(node) => {
            coordinator.with_node_id(node.id).with_host(node.host).with_port(node.port).with_error_message(None)
        }
        Err(refusal) => coordinator
            .with_node_id(NOBODY)
            .with_host(text(""))
            .with_port(-1)
            .with_error_code(refusal.code)
            .with_error_message(errors::message(&refusal.error)),
    }
}
