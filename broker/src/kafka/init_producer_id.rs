//! InitProducerId: an id for an idempotent producer, or the one that belongs to a transactional
//! id, with an epoch that fences whoever had it before.

use baton_core::transaction::Producer;
use baton_core::transaction::message::KnownCodes;
use baton_core::{ProducerEpoch, ProducerId as CoreProducerId};
use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};

use super::errors;
use super::service::{Call, Hangup, in_time};
use super::transactions::{allowed, code_of};

/// The first version that knows PRODUCER_FENCED.
const KNOWS_FENCED: i16 = 4;

pub(super) async fn serve(call: &Call, request: InitProducerIdRequest) -> Result<InitProducerIdResponse, Hangup> {
    let refused = |code| {
        InitProducerIdResponse::default().with_error_code(code).with_producer_id(ProducerId(-1)).with_producer_epoch(-1)
    };
    if let Some(id) = &request.transactional_id {
        if allowed(call, id).is_err() {
            return Ok(refused(errors::TRANSACTIONAL_ID_AUTHORIZATION_FAILED));
        }
        return Ok(match in_time(transactional(call, id, &request).await)? {
            Ok(producer) => InitProducerIdResponse::default()
                .with_producer_id(ProducerId(producer.id.0))
                .with_producer_epoch(producer.epoch.0),
            Err(error) => {
                let known = KnownCodes { producer_fenced: call.version >= KNOWS_FENCED, abortable: false };
                refused(code_of(&error, known))
            }
        });
    }
    // A producer that has an id asks for a higher epoch after an error (KIP-360). A new id is
    // as good: sequences start anew with it.
    Ok(match call.service.producer_ids.next().await {
        Ok(id) => InitProducerIdResponse::default().with_producer_id(ProducerId(id)),
        Err(error) => refused(retriable(&error)),
    })
}

async fn transactional(call: &Call, id: &str, request: &InitProducerIdRequest) -> Result<Producer, baton_core::Error> {
    let (known, epoch) = (request.producer_id.0, request.producer_epoch);
    let expected = match (known, epoch) {
        (-1, -1) => None,
        (known, epoch) if known >= 0 && epoch >= 0 => {
            Some(Producer { id: CoreProducerId(known), epoch: ProducerEpoch(epoch) })
        }
        _ => {
            let cause = "a producer that goes on names both its id and its epoch";
            return Err(baton_core::Error::new(baton_core::ErrorCode::InvalidRequest, cause));
        }
    };
    let timeout_ms = i64::from(request.transaction_timeout_ms);
    call.parts().transactions.init(id, timeout_ms, expected, call.asked()).await
}

/// Producers retry this one; a lost connection to ZooKeeper is not theirs.
fn retriable(error: &baton_core::Error) -> i16 {
    /// `COORDINATOR_NOT_AVAILABLE`
    const COORDINATOR_NOT_AVAILABLE: i16 = 15;
    if error.code.retriable() { COORDINATOR_NOT_AVAILABLE } else { error.code.kafka() }
}
