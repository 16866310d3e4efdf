//! InitProducerId: an id for an idempotent producer.

use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};

use super::errors;
use super::service::Call;

pub(super) async fn serve(call: &Call, request: InitProducerIdRequest) -> InitProducerIdResponse {
    let refused = |code| InitProducerIdResponse::default().with_error_code(code).with_producer_epoch(-1);
    if request.transactional_id.is_some() {
        // A code that clients do not retry: there are no transactions here.
        return refused(errors::TRANSACTIONAL_ID_AUTHORIZATION_FAILED);
    }
    // A producer that has an id asks for a higher epoch after an error (KIP-360). A new id is
    // as good: sequences start anew with it.
    match call.service.producer_ids.next().await {
        Ok(id) => InitProducerIdResponse::default().with_producer_id(ProducerId(id)),
        Err(error) => refused(retriable(&error)),
    }
}

/// Producers retry this one; a lost connection to ZooKeeper is not theirs.
fn retriable(error: &baton_core::Error) -> i16 {
    /// `COORDINATOR_NOT_AVAILABLE`
    const COORDINATOR_NOT_AVAILABLE: i16 = 15;
    if error.code.retriable() { COORDINATOR_NOT_AVAILABLE } else { error.code.kafka() }
}
